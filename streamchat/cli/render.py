"""Handlers that show an answer while it comes: for people, and as lines of JSON."""

from __future__ import annotations

import json

from streamchat import (
    ChatResponse,
    Citation,
    CitationEnd,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Event,
    Handler,
    Source,
    Timing,
    ToolArgumentsError,
    ToolCall,
    ToolCallEnd,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.cli.terminal import Channel, Screen, one_line
from streamchat.protocol import encode_event

__all__ = ["JsonLines", "Printer", "statistics"]


class Printer(Handler):
    """Text and tool calls go to stdout as they come, thinking and tool plans to stderr.

    A citation that arrives right behind the text it cites gets its number there; all of them are
    listed as footnotes at the end. One printer serves one answer.

    Args:
        screen: where to print.
        shows_thinking: whether thinking, and what is cited in it, is shown at all.
    """

    def __init__(self, screen: Screen, *, shows_thinking: bool = False) -> None:
        self._screen = screen
        self._shows_thinking = shows_thinking
        self._length = 0
        self._footnotes: list[tuple[Channel, str, str]] = []

    def on_content_start(self, event: ContentStart) -> None:
        self._length = 0
        self._show(event)

    def on_content_delta(self, event: ContentDelta) -> None:
        self._show(event)

    def _show(self, event: ContentStart | ContentDelta) -> None:
        if event.kind == "text":
            self._screen.say(event.text)
            self._length += len(event.text)
        elif self._shows_thinking:
            self._screen.remark(event.thinking)

    def on_content_end(self, event: ContentEnd) -> None:
        if event.content.type == "thinking":
            self._screen.err.end_line()

    def on_tool_plan_delta(self, event: ToolPlanDelta) -> None:
        self._screen.remark(event.tool_plan)

    def on_tool_call_end(self, event: ToolCallEnd) -> None:
        self._screen.out.end_line()
        self._screen.say(f"{one_line(event.tool_call.name)}(", "bold")
        self._screen.say(f"{_arguments(event.tool_call)}")
        self._screen.say(")\n", "bold")

    def on_citation_end(self, event: CitationEnd) -> None:
        citation = event.citation
        if citation.type == "THINKING_CONTENT" and not self._shows_thinking:
            return
        marker = f"[{len(self._footnotes) + 1}]"
        is_of_text = citation.type in (None, "TEXT_CONTENT") and bool(self._length)
        channel = self._screen.out if is_of_text else self._screen.err
        self._footnotes.append((channel, marker, _footnote(citation)))
        # What is printed cannot be marked any more once other text stands behind it.
        if is_of_text and len(event.block) == citation.end == self._length:
            self._screen.say(marker, "bold")

    def finish(self) -> None:
        """Print the footnotes and end the line, whether the answer is complete or not."""
        self._screen.end_lines()
        footnotes, self._footnotes = self._footnotes, []
        if any(channel is self._screen.out for channel, _, _ in footnotes):
            self._screen.say("\n")
        for channel, marker, text in footnotes:
            channel.write(marker, "bold")
            channel.write(f" {text}\n")


def _footnote(citation: Citation) -> str:
    """``"cited text" - title (id); title (id)``"""
    sources = "; ".join(_named(source) for source in citation.sources) or "no source given"
    return f'"{one_line(citation.text)}" - {sources}'


def _named(source: Source) -> str:
    title = (source.document or {}).get("title")
    name = source.id or source.type or "unnamed source"
    return one_line(f"{title} ({name})" if isinstance(title, str) and title else name)


def _arguments(call: ToolCall) -> str:
    """The arguments in one line; as the model wrote them if they are no JSON object."""
    try:
        return json.dumps(call.parsed, ensure_ascii=False)
    except ToolArgumentsError:
        return one_line(call.arguments)


class JsonLines(Handler):
    """Every event as the JSON of its ``data:`` line, one a line, and nothing else on stdout."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def on_event(self, event: Event) -> None:
        try:
            line = encode_event(event).data
        except ValueError:
            # An event of the future may hold half an emoji, which UTF-8 cannot say; escapes can.
            if not isinstance(event, UnknownEvent):
                raise
            line = json.dumps(event.data).encode()
        self._screen.out.write_json(line)

    def finish(self) -> None:
        """Nothing is pending: each event was a whole line."""


def statistics(response: ChatResponse, timing: Timing) -> str:
    """Why the answer ended, what it costs and how fast it began, in one line."""
    billed = response.usage.billed_units
    facts = [f"finish reason {one_line(response.finish_reason or 'unknown')}"]
    if billed.input_tokens is not None and billed.output_tokens is not None:
        facts.append(
            f"billed {_count(billed.input_tokens)} tokens in, {_count(billed.output_tokens)} out"
        )
    if timing.first_text is not None:
        facts.append(f"first text after {timing.first_text:.3f} s")
    return "; ".join(facts)


def _count(tokens: float) -> str:
    """A number of tokens; a server's integer may be too large for a float."""
    return f"{tokens:g}" if abs(tokens) < 1e15 else "countless"
