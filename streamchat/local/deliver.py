"""A finished draft as the events of a stream, token by token; imports ``streamchat.protocol`` only.

Here are the rules of the wire's order (blocks and calls come one after the other) and of what ends an
answer early: the token budget, the thinking budget and the stop sequences. A *token* is what one delta
carries.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from streamchat.local.shapes import object_or_empty, strings_in
from streamchat.local.words import cut
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
)
from streamchat.protocol.messages import (
    BilledUnits,
    Citation,
    LogprobItem,
    TokenCounts,
    ToolCall,
    ToolCallFunction,
    Usage,
)

__all__ = ["Draft", "PromptSize", "deliver"]

PROMPT_OVERHEAD = 496
"""Tokens of Cohere's own prompt around the user's: 501 against 6 billed in a recorded chat."""


@attrs.define
class Draft:
    """All that will be said, before it is cut into tokens and perhaps cut short."""

    thinking: str | None = None
    """A thinking block comes first, unless ``None``."""
    tool_plan: str = ""
    """Said before the calls, by a model that does not think."""
    calls: list[ToolCall] = attrs.Factory(list[ToolCall])
    """Whole calls; arguments as the stream shows them, empty for a tool without parameters."""
    text: str | None = None
    """The answer; ``None`` when there are calls."""
    citations: list[Citation] = attrs.Factory(list[Citation])
    """Of the text, or with type ``PLAN`` of the plan, by rising ``end``."""


@attrs.frozen
class PromptSize:
    """What the usage at the end says of the prompt, in tokens."""

    text: int
    images: int = 0


def deliver(
    draft: Draft, request: Mapping[str, Any], identity: bytes, prompt: PromptSize
) -> list[Event]:
    """The events from ``message-start`` to ``message-end``.

    Args:
        draft: what to say.
        request: the body: ``max_tokens``, ``stop_sequences``, ``thinking``, ``logprobs`` and
            ``citation_options`` are read from it.
        identity: at least 16 bytes that the response id is made of.
        prompt: the size of what was asked.
    """
    return _Delivery(request).run(draft, identity, prompt)


class _Delivery:
    """One answer on its way out: the events so far and what may still be spent."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.events: list[Event] = []
        self.tokens = 0
        self.reasoning = 0
        self.citations = 0
        self.exhausted = False
        self.stopped = False
        limit = request.get("max_tokens")
        self._limit = limit if isinstance(limit, int) else None
        self._logprobs = request.get("logprobs") is True
        self._stops = [stop for stop in strings_in(request.get("stop_sequences")) if stop]
        mode = object_or_empty(request.get("citation_options")).get("mode")
        self._mode = str(mode).upper()
        budget = object_or_empty(request.get("thinking")).get("token_budget")
        self._thinking_budget = budget if isinstance(budget, int) else None

    def run(self, draft: Draft, identity: bytes, prompt: PromptSize) -> list[Event]:
        self.events.append(MessageStart(str(uuid.UUID(bytes=identity[:16], version=4))))
        block = 0
        if draft.thinking is not None:
            self._think(draft.thinking)
            block = 1
        if draft.tool_plan:
            self._say(draft.tool_plan, draft.citations, ToolPlanDelta)
        for index, call in enumerate(draft.calls):
            self._call(call, index)
        if draft.text is not None and not self.exhausted:
            self._answer(draft.text, draft.citations, block)
        self.events.append(MessageEnd(self._reason(draft), self._usage(draft, prompt)))
        return self.events

    def _spend(self, pieces: list[str]) -> Iterator[str]:
        """The pieces that the token budget still pays for."""
        for piece in pieces:
            if self._limit is not None and self.tokens >= self._limit:
                self.exhausted = True
                return
            self.tokens += 1
            yield piece

    def _think(self, thinking: str) -> None:
        pieces = cut(thinking)[: self._thinking_budget]
        self.events.append(ContentStart(0, "thinking"))
        for piece in self._spend(pieces):
            self.reasoning += 1
            self.events.append(
                ContentDelta("", 0, piece, "thinking", logprobs=self._logprobs_of(piece))
            )
        self.events.append(ContentEnd(0))

    def _answer(self, text: str, citations: list[Citation], block: int) -> None:
        ends = [found for stop in self._stops if (found := text.find(stop)) >= 0]
        if ends:
            text = text[: min(ends)]
        self.events.append(ContentStart(block, "text"))
        self._say(
            text,
            citations,
            lambda piece: ContentDelta(piece, block, logprobs=self._logprobs_of(piece)),
        )
        self.stopped = bool(ends) and not self.exhausted
        self.events.append(ContentEnd(block))

    def _say(self, text: str, citations: list[Citation], event: Callable[[str], Event]) -> None:
        """The pieces, each citation as soon as all it cites is out, or after the last piece."""
        waiting = [] if self._mode in ("OFF", "DISABLED") else list(citations)
        out = 0
        for piece in self._spend(cut(text)):
            self.events.append(event(piece))
            out += len(piece)
            while self._mode != "ACCURATE" and waiting and waiting[0].end <= out:
                self._cite(waiting.pop(0))
        for citation in waiting:
            if citation.end <= out:
                self._cite(citation)

    def _cite(self, citation: Citation) -> None:
        self.events += [CitationStart(citation, self.citations), CitationEnd(self.citations)]
        self.citations += 1

    def _call(self, call: ToolCall, index: int) -> None:
        if self.exhausted or (self._limit is not None and self.tokens >= self._limit):
            self.exhausted = True
            return
        started = ToolCall(call.id, ToolCallFunction(call.name, ""))
        self.events.append(ToolCallStart(started, index))
        for piece in self._spend(cut(call.arguments)):
            self.events.append(ToolCallDelta(piece, index))
        self.events.append(ToolCallEnd(index))

    def _logprobs_of(self, piece: str) -> LogprobItem | None:
        """Numbers that depend on the piece alone; there is no vocabulary behind them."""
        if not self._logprobs:
            return None
        seed = hashlib.sha256(piece.encode("utf-8", "surrogatepass")).digest()
        token_id = int.from_bytes(seed[:4], "big") % 255_000
        return LogprobItem([token_id], piece, [-round(seed[4] / 255, 6)])

    def _reason(self, draft: Draft) -> str:
        if self.exhausted:
            return "MAX_TOKENS"
        if self.stopped:
            return "STOP_SEQUENCE"
        return "TOOL_CALL" if draft.calls else "COMPLETE"

    def _usage(self, draft: Draft, prompt: PromptSize) -> Usage:
        counts = TokenCounts(
            prompt.text + PROMPT_OVERHEAD + prompt.images,
            # Marks around calls and citations are made by the model but not paid for: a recorded
            # answer with two citations says 91 against 23.
            self.tokens + 20 * self.citations + 10 * len(draft.calls),
            image_tokens=prompt.images or None,
            reasoning_tokens=None if draft.thinking is None else self.reasoning,
        )
        return Usage(BilledUnits(prompt.text, self.tokens), counts, cached_tokens=0)
