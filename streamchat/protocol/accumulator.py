"""Events to the answer so far, and every end event completed with what it ended.

Content blocks, tool calls and citations have three independent index spaces. State is kept by index,
never by position; text is kept in pieces. Adding an event costs the same whatever came before it, and a
snapshot costs one join of what it shows.

The events that are returned have their place as index, see :mod:`streamchat.protocol.places`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, ClassVar

from streamchat.protocol.errors import DecodeError
from streamchat.protocol.events import (
    NO_INDEX,
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
from streamchat.protocol.places import Places
from streamchat.protocol.plain import repair_surrogates
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.spans import cited_place

__all__ = ["Accumulator"]


class _Block(GrowingText):
    """A content block while it grows."""

    __slots__ = ("is_declared", "is_ended", "kind")

    def __init__(self, kind: ContentKind | None, *pieces: str, is_declared: bool = False) -> None:
        super().__init__(*pieces)
        self.kind: ContentKind | None = kind
        """``None`` while only a start without a kind was received: the first piece tells it."""
        self.is_declared = is_declared
        """Whether a start was received."""
        self.is_ended = False

    def content(self) -> TextContent | ThinkingContent:
        text = str(self)
        return ThinkingContent(text) if self.kind == "thinking" else TextContent(text)


class _Call(GrowingText):
    """A tool call while its arguments grow."""

    __slots__ = ("call", "is_ended")

    def __init__(self, call: ToolCall, *pieces: str) -> None:
        super().__init__(*pieces)
        self.call = call
        self.is_ended = False

    def tool_call(self) -> ToolCall:
        call = self.call
        return ToolCall(
            call.id,
            ToolCallFunction(call.name, str(self)),
            call.type,
            has_made_up_id=call.has_made_up_id,
        )


_NO_IDS: set[str] = set()


def _no_ids() -> Container[str]:
    return _NO_IDS


class Accumulator:
    """Fold the events of one stream into a :class:`ChatResponse`.

    A stream that starts in the middle is folded as far as it goes; what would corrupt the answer
    (the start of another message, a start that repeats one that has not ended, a piece of a call that
    never started, thinking inside a text block) is a :class:`DecodeError`. A start that repeats an index
    after its end begins something new. After ``message-end`` events are passed through without effect.

    Args:
        used_call_ids: returns the ids of tool calls in earlier turns; called when a call comes without
            an id and gets ``call_<n>``.
    """

    __slots__ = (
        "_answer",
        "_blocks",
        "_call_ids",
        "_calls",
        "_citations",
        "_earlier_ids",
        "_end",
        "_id",
        "_last_text",
        "_last_thinking",
        "_logprobs",
        "_next_number",
        "_open_citation",
        "_plan",
        "_started",
        "_used_call_ids",
        "_waiting_half",
    )

    def __init__(self, used_call_ids: Callable[[], Container[str]] = _no_ids) -> None:
        self._used_call_ids = used_call_ids
        # For made-up ids: those of earlier turns, those of this answer, and the number to try next.
        self._earlier_ids: Container[str] | None = None
        self._call_ids: set[str] = _NO_IDS
        self._next_number = 0
        self._started = False
        self._id = ""
        self._blocks: Places[_Block] = Places()
        self._plan = GrowingText()
        self._calls: Places[_Call] = Places()
        self._citations: Places[Citation] = Places()
        # The index of the citation that was started last, until it ends.
        self._open_citation: int | None = None
        self._logprobs: list[LogprobItem] = []
        # Of each kind the block that was opened last.
        self._last_text: int | None = None
        self._last_thinking: int | None = None
        self._end: MessageEnd | None = None
        self._answer: ChatResponse | None = None
        # Half an emoji at the end of a piece, by the text that it belongs to.
        self._waiting_half: dict[GrowingText, str] = {}

    def add(self, event: Event) -> Event:
        """Fold one event in and return it, completed with what it ended.

        The end of a call or citation that never started is returned as an ``UnknownEvent``.

        Raises:
            DecodeError: the event contradicts those before it; nothing was changed.
        """
        if self._end is not None:
            return event
        return self._fold[type(event)](self, event)

    def snapshot(self) -> ChatResponse:
        """The answer so far, independent of what comes later."""
        if self._answer is not None:
            return self._answer  # nothing comes later
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
        message = event.message
        is_empty = not (
            message.content or message.tool_plan or message.tool_calls or message.citations
        )
        received = (
            self._blocks
            or self._plan.pieces
            or self._calls
            or self._citations
            or self._waiting_half
        )
        if self._started:
            if is_empty and not received and event.id == self._id:
                return event  # the same start again
            raise DecodeError("a second message-start", event_type=event.type)
        if received and not is_empty:
            # Its parts would take the places of those that are already there.
            raise DecodeError("a late message-start that is not empty", event_type=event.type)
        self._started = True
        self._id = event.id
        for part in message.content:
            if isinstance(part, TextContent):
                self._open_block(NO_INDEX, _Block("text", part.text, is_declared=True))
            else:
                self._open_block(NO_INDEX, _Block("thinking", part.thinking, is_declared=True))
        if message.tool_plan:
            self._plan.pieces.append(message.tool_plan)
        for call in message.tool_calls:
            self._calls.start(NO_INDEX, _Call(self._identified(call), call.arguments))
        for citation in message.citations:
            self._citations.start(NO_INDEX, citation)
        return event

    def _open_block(self, index: int, block: _Block) -> int:
        place = self._blocks.start(index, block)
        self._note_last(place, block.kind)
        return place

    def _note_last(self, place: int, kind: ContentKind | None) -> None:
        if kind == "text":
            self._last_text = place
        elif kind == "thinking":
            self._last_thinking = place

    def _content_start(self, event: ContentStart) -> Event:
        kind, index = event.kind, event.index
        started = self._blocks.find(index) if index is not NO_INDEX else None
        if started is not None and not self._blocks[started].is_ended:
            raise DecodeError(
                f"content block {index} starts twice", event_type=event.type, path="$.index"
            )
        block = _Block(None if event.kind_is_open else kind, is_declared=True)
        place = self._open_block(index, block)
        piece = event.thinking if kind == "thinking" else event.text
        whole = self._append(block, piece)
        if whole is piece and place is index:
            return event
        text, thinking = (whole, "") if kind == "text" else ("", whole)
        return ContentStart(place, kind, text, thinking, kind_is_open=event.kind_is_open)

    def _content_delta(self, event: ContentDelta) -> Event:
        kind, index, blocks = event.kind, event.index, self._blocks
        piece = event.thinking if kind == "thinking" else event.text
        place: int | None = index
        if index is NO_INDEX or blocks.moved is not None:
            place = blocks.find(index)
        block = None if place is None else blocks.get(place)
        if piece and (block is None or block.kind != kind):
            place, block = self._block_for(event, place, block)
        if event.logprobs is not None:
            self._logprobs.append(event.logprobs)
        if block is None or place is None:
            return event  # nothing was added, and nothing was started
        whole = self._append(block, piece)
        if whole is piece and place == index:
            if index is NO_INDEX:
                event.index = 0
            return event
        text, thinking = (whole, "") if kind == "text" else ("", whole)
        return ContentDelta(text, place, thinking, kind, event.logprobs)

    def _block_for(
        self, event: ContentDelta, place: int | None, block: _Block | None
    ) -> tuple[int, _Block]:
        """Where a piece belongs for which there is no block of its kind."""
        kind, index = event.kind, event.index
        if block is None or place is None:
            block = _Block(kind)
            return self._open_block(index, block), block
        if block.kind is None:
            block.kind = kind
            self._note_last(place, kind)
            return place, block
        if index is NO_INDEX and not block.is_declared:
            # Without a start and an index, the kind alone tells a block from the one before it.
            block = _Block(kind)
            return self._open_block(index, block), block
        raise DecodeError(
            f"{kind} for content block {index}, which is {block.kind}",
            event_type=event.type,
            path=f"$.delta.message.content.{kind}",
        )

    def _content_end(self, event: ContentEnd) -> Event:
        place = self._blocks.find(event.index)
        if place is None:
            event.complete(TextContent(""))  # of a block that added nothing
            return event
        block = self._blocks[place]
        block.is_ended = True
        self._flush_half(block)
        if place is not event.index:
            event = ContentEnd(place)
        event.complete(block.content())
        return event

    def _tool_plan_delta(self, event: ToolPlanDelta) -> Event:
        whole = self._append(self._plan, event.tool_plan)
        return event if whole is event.tool_plan else ToolPlanDelta(whole)

    def _tool_call_start(self, event: ToolCallStart) -> Event:
        index, given = event.index, event.tool_call
        started = self._calls.find(index) if index is not NO_INDEX else None
        if started is not None:
            earlier = self._calls[started]
            # Some servers send no ends, and 0 for each call: its id tells them apart.
            if not earlier.is_ended and given.id in ("", earlier.call.id):
                raise DecodeError(
                    f"tool call {index} starts twice", event_type=event.type, path="$.index"
                )
        identified = self._identified(given)
        call = _Call(identified)
        place = self._calls.start(index, call)
        whole = self._append(call, given.arguments)
        if whole is given.arguments and place is index and identified is given:
            return event
        function = ToolCallFunction(given.name, whole)
        return ToolCallStart(
            ToolCall(
                identified.id,
                function,
                given.type,
                has_made_up_id=identified.has_made_up_id,
            ),
            place,
        )

    def _identified(self, call: ToolCall) -> ToolCall:
        """The call with an id: its own, or ``call_<n>`` that no other call has."""
        if self._call_ids is _NO_IDS:
            self._call_ids = set()
        if call.id:
            self._call_ids.add(call.id)
            return call
        if self._earlier_ids is None:
            self._earlier_ids = self._used_call_ids()
        number = max(self._next_number, len(self._calls))
        while (made := f"call_{number}") in self._earlier_ids or made in self._call_ids:
            number += 1
        self._next_number = number + 1
        self._call_ids.add(made)
        return ToolCall(made, call.function, call.type, has_made_up_id=True)

    def _tool_call_delta(self, event: ToolCallDelta) -> Event:
        index, calls = event.index, self._calls
        place: int | None = index
        if index is NO_INDEX or calls.moved is not None:
            place = calls.find(index)
        call = None if place is None else calls.get(place)
        if call is None or place is None:
            if not event.arguments:
                return event
            raise DecodeError(
                f"tool call {index} never started", event_type=event.type, path="$.index"
            )
        whole = self._append(call, event.arguments)
        if whole is event.arguments and place == index:
            if index is NO_INDEX:
                event.index = 0
            return event
        return ToolCallDelta(whole, place)

    def _tool_call_end(self, event: ToolCallEnd) -> Event:
        place = self._calls.find(event.index)
        if place is None:
            return _ends_nothing(event)
        call = self._calls[place]
        call.is_ended = True
        self._flush_half(call)
        if place is not event.index:
            event = ToolCallEnd(place)
        event.complete(call.tool_call())
        return event

    def _citation_start(self, event: CitationStart) -> Event:
        index = event.index
        if index is not NO_INDEX and index == self._open_citation:
            raise DecodeError(
                f"citation {index} starts twice", event_type=event.type, path="$.index"
            )
        self._open_citation = None if index is NO_INDEX else index
        place = self._citations.start(index, event.citation)
        if place is not index:
            event = CitationStart(event.citation, place)
        event.complete(self._cited(event.citation))
        return event

    def _citation_end(self, event: CitationEnd) -> Event:
        self._open_citation = None
        place = self._citations.find(event.index)
        if place is None:
            return _ends_nothing(event)
        citation = self._citations[place]
        if place is not event.index:
            event = CitationEnd(place)
        event.complete(citation, self._cited(citation))
        return event

    def _cited(self, citation: Citation) -> GrowingText:
        """The text that a citation's offsets address: its block, or the plan."""
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
        self._answer = answer = self.snapshot()
        event.complete(answer)
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


def _ends_nothing(event: ToolCallEnd | CitationEnd) -> UnknownEvent:
    return UnknownEvent(event.type, {"type": event.type, "index": int(event.index)})
