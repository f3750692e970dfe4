"""Events to the answer so far, and every end event completed with what it ended.

Source: protocol.md 4 (folding) and 3.1 (three independent index spaces: content blocks, tool calls,
citations). State is kept by index, never by position; text is kept in pieces. Adding an event costs
the same whatever came before it, and a snapshot costs one join of what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from streamchat.protocol.errors import DecodeError
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentKind,
    ContentStart,
    Debug,
    Event,
    GrowingText,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.protocol.messages import (
    AssistantMessage,
    Citation,
    LogprobItem,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallFunction,
    Usage,
)
from streamchat.protocol.plain import repair_surrogates
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.spans import cited_place

__all__ = ["Accumulator"]


class _Block(GrowingText):
    """A content block while it grows."""

    __slots__ = ("kind",)

    def __init__(self, kind: ContentKind, *pieces: str) -> None:
        super().__init__(*pieces)
        self.kind: ContentKind = kind

    def content(self) -> TextContent | ThinkingContent:
        text = str(self)
        return TextContent(text) if self.kind == "text" else ThinkingContent(text)


class _Call(GrowingText):
    """A tool call while its arguments grow."""

    __slots__ = ("call",)

    def __init__(self, call: ToolCall, *pieces: str) -> None:
        super().__init__(*pieces)
        self.call = call

    def tool_call(self) -> ToolCall:
        call = self.call
        return ToolCall(call.id, ToolCallFunction(call.name, str(self)), call.type)


class Accumulator:
    """Fold the events of one stream into a :class:`ChatResponse`.

    A stream that starts in the middle is folded as far as it goes; what would corrupt the answer
    (a second ``message-start``, a piece of a call that never started, thinking inside a text block)
    is a :class:`DecodeError`. After ``message-end`` events are passed through without effect.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_citations",
        "_end",
        "_id",
        "_last_text",
        "_last_thinking",
        "_logprobs",
        "_plan",
        "_started",
        "_waiting_half",
    )

    def __init__(self) -> None:
        self._started = False
        self._id = ""
        self._blocks: dict[int, _Block] = {}
        self._plan = GrowingText()
        self._calls: dict[int, _Call] = {}
        self._citations: dict[int, Citation] = {}
        self._logprobs: list[LogprobItem] = []
        # Of each kind the block that was opened last.
        self._last_text: int | None = None
        self._last_thinking: int | None = None
        self._end: MessageEnd | None = None
        # Half an emoji at the end of a piece, by the text that it belongs to (faults.md F76).
        self._waiting_half: dict[GrowingText, str] = {}

    def add(self, event: Event) -> Event:
        """Fold one event in and return it, completed with what it ended.

        Raises:
            DecodeError: the event contradicts those before it; nothing was changed.
        """
        if self._end is not None:
            return event
        return self._fold[type(event)](self, event)

    def snapshot(self) -> ChatResponse:
        """The answer so far, independent of what comes later."""
        end = self._end
        return ChatResponse(
            self._id,
            AssistantMessage(
                [self._blocks[index].content() for index in sorted(self._blocks)],
                str(self._plan),
                [self._calls[index].tool_call() for index in sorted(self._calls)],
                list(self._citations.values()),
            ),
            end.finish_reason if end else None,
            end.usage if end else Usage(),
            list(self._logprobs),
            end.error if end else None,
            end.error_type if end else None,
        )

    def pieces_for(self, event: Event) -> list[str] | None:
        """The list that the next delta like ``event`` is appended to; ``None`` if there is none.

        The fast lane appends to it directly (streamchat.protocol.reader); it must append nothing
        but well-formed text.
        """
        growing: GrowingText | None
        if isinstance(event, ContentDelta):
            growing = self._blocks.get(event.index)
        elif isinstance(event, ToolCallDelta):
            growing = self._calls.get(event.index)
        else:
            growing = self._plan if isinstance(event, ToolPlanDelta) else None
        if growing is None or growing in self._waiting_half:
            return None
        return growing.pieces

    # --- one method an event ---------------------------------------------------------------------

    def _message_start(self, event: MessageStart) -> Event:
        if self._started:
            raise DecodeError("a second message-start", event_type=event.type)
        message = event.message
        received = (
            self._blocks
            or self._plan.pieces
            or self._calls
            or self._citations
            or self._waiting_half
        )
        if received and message != AssistantMessage():
            # Its parts would take the places of those that are already there.
            raise DecodeError("a late message-start that is not empty", event_type=event.type)
        self._started = True
        self._id = event.id
        for index, part in enumerate(message.content):
            if isinstance(part, TextContent):
                self._open_block(index, "text", part.text)
            else:
                self._open_block(index, "thinking", part.thinking)
        if message.tool_plan:
            self._plan.pieces.append(message.tool_plan)
        self._calls.update(
            (index, _Call(call, call.arguments)) for index, call in enumerate(message.tool_calls)
        )
        self._citations.update(enumerate(message.citations))
        return event

    def _open_block(self, index: int, kind: ContentKind, *pieces: str) -> _Block:
        block = self._blocks[index] = _Block(kind, *pieces)
        if kind == "text":
            self._last_text = index
        else:
            self._last_thinking = index
        return block

    def _content_start(self, event: ContentStart) -> Event:
        if event.index in self._blocks:
            raise DecodeError(
                f"content block {event.index} starts twice", event_type=event.type, path="$.index"
            )
        piece = event.thinking if event.kind == "thinking" else event.text
        whole = self._append(self._open_block(event.index, event.kind), piece)
        if whole is piece:
            return event
        text, thinking = (whole, "") if event.kind == "text" else ("", whole)
        return ContentStart(event.index, event.kind, text, thinking)

    def _content_delta(self, event: ContentDelta) -> Event:
        kind = event.kind
        block = self._blocks.get(event.index) or self._open_block(event.index, kind)
        piece = event.thinking if kind == "thinking" else event.text
        if block.kind != kind and piece:
            raise DecodeError(
                f"{kind} for content block {event.index}, which is {block.kind}",
                event_type=event.type,
                path=f"$.delta.message.content.{kind}",
            )
        whole = self._append(block, piece)
        if event.logprobs is not None:
            self._logprobs.append(event.logprobs)
        if whole is piece:
            return event
        text, thinking = (whole, "") if kind == "text" else ("", whole)
        return ContentDelta(text, event.index, thinking, kind, event.logprobs)

    def _content_end(self, event: ContentEnd) -> Event:
        block = self._blocks.get(event.index)
        if block is not None:
            self._flush_half(block)
        event.complete(block.content() if block is not None else TextContent(""))
        return event

    def _tool_plan_delta(self, event: ToolPlanDelta) -> Event:
        whole = self._append(self._plan, event.tool_plan)
        return event if whole is event.tool_plan else ToolPlanDelta(whole)

    def _tool_call_start(self, event: ToolCallStart) -> Event:
        if event.index in self._calls:
            raise DecodeError(
                f"tool call {event.index} starts twice", event_type=event.type, path="$.index"
            )
        started = event.tool_call
        call = self._calls[event.index] = _Call(started)
        whole = self._append(call, started.arguments)
        if whole is started.arguments:
            return event
        return ToolCallStart(
            ToolCall(started.id, ToolCallFunction(started.name, whole), started.type), event.index
        )

    def _tool_call_delta(self, event: ToolCallDelta) -> Event:
        whole = self._append(self._call(event), event.arguments)
        return event if whole is event.arguments else ToolCallDelta(whole, event.index)

    def _tool_call_end(self, event: ToolCallEnd) -> Event:
        call = self._call(event)
        self._flush_half(call)
        event.complete(call.tool_call())
        return event

    def _call(self, event: ToolCallDelta | ToolCallEnd) -> _Call:
        call = self._calls.get(event.index)
        if call is None:
            raise DecodeError(
                f"tool call {event.index} never started", event_type=event.type, path="$.index"
            )
        return call

    def _citation_start(self, event: CitationStart) -> Event:
        if event.index in self._citations:
            raise DecodeError(
                f"citation {event.index} starts twice", event_type=event.type, path="$.index"
            )
        self._citations[event.index] = event.citation
        event.complete(self._cited(event.citation))
        return event

    def _citation_end(self, event: CitationEnd) -> Event:
        citation = self._citations.get(event.index)
        if citation is None:
            raise DecodeError(
                f"citation {event.index} never started", event_type=event.type, path="$.index"
            )
        event.complete(citation, self._cited(citation))
        return event

    def _cited(self, citation: Citation) -> GrowingText:
        """The text that a citation's offsets address (protocol.md 3.3): its block, or the plan."""
        last: Mapping[ContentKind, int | None] = {
            "text": self._last_text,
            "thinking": self._last_thinking,
        }
        place = cited_place(citation, self._blocks, last)
        if place == "plan":
            return self._plan
        return GrowingText() if place is None else self._blocks[place]

    def _message_end(self, event: MessageEnd) -> Event:
        for growing in list(self._waiting_half):
            self._flush_half(growing)
        self._end = event
        event.complete(self.snapshot())
        return event

    def _keep(self, event: Event) -> Event:
        return event

    _fold: ClassVar[Mapping[type, Callable[[Any, Any], Event]]] = {
        MessageStart: _message_start,
        ContentStart: _content_start,
        ContentDelta: _content_delta,
        ContentEnd: _content_end,
        ToolPlanDelta: _tool_plan_delta,
        ToolCallStart: _tool_call_start,
        ToolCallDelta: _tool_call_delta,
        ToolCallEnd: _tool_call_end,
        CitationStart: _citation_start,
        CitationEnd: _citation_end,
        MessageEnd: _message_end,
        Debug: _keep,
        UnknownEvent: _keep,
    }

    # --- text in pieces --------------------------------------------------------------------------

    def _append(self, growing: GrowingText, piece: str) -> str:
        """Append a piece and return it as it counts: whole characters only.

        A high surrogate at the end of a piece waits for its other half, because a token may end in
        the middle of an emoji; a half that stays alone becomes U+FFFD.
        """
        if growing in self._waiting_half:
            piece = self._waiting_half.pop(growing) + piece
        elif not piece or piece.isascii():
            if piece:
                growing.pieces.append(piece)
            return piece
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._waiting_half[growing] = piece[-1]
            piece = piece[:-1]
        piece = repair_surrogates(piece)
        if piece:
            growing.pieces.append(piece)
        return piece

    def _flush_half(self, growing: GrowingText) -> None:
        if self._waiting_half.pop(growing, None) is not None:
            growing.pieces.append("\ufffd")
