"""One class for each event of a Chat v2 stream, and their union; imports the vocabulary only.

Two spellings of the same thing:

* the flat one, which is stored: ``event.text``;
* the wire's, which is built when read: ``event.delta.message.content.text``.

*Every end event carries what it ended* (``ContentEnd.content``, ``ToolCallEnd.tool_call``,
``CitationEnd.citation``, ``MessageEnd.response``). The wire does not send that; the
:class:`~streamchat.protocol.accumulator.Accumulator` adds it, outside equality, and it is never
encoded. The classes are slotted and treated as immutable; they are not frozen because a frozen
attrs ``__init__`` takes 0.38 us where this takes 0.13 (benchmarks/decode.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import attrs

from streamchat.protocol.event_json import SHAPES
from streamchat.protocol.messages import (
    AssistantMessage,
    Citation,
    LogprobItem,
    TextContent,
    ThinkingContent,
    ToolCall,
    Usage,
)
from streamchat.protocol.plain import to_plain
from streamchat.protocol.record import Record
from streamchat.protocol.response import ChatResponse

if TYPE_CHECKING:
    from streamchat.protocol.delta import (
        ArgumentsOfMessage,
        CitationOfMessage,
        ContentOfMessage,
        Delta,
        FinishDelta,
        PlanOfMessage,
        ToolCallOfMessage,
    )

__all__ = [
    "EVENT_CLASSES",
    "MAX_INDEX",
    "NO_INDEX",
    "CitationEnd",
    "CitationStart",
    "ContentDelta",
    "ContentEnd",
    "ContentKind",
    "ContentStart",
    "Debug",
    "Event",
    "EventRecord",
    "GrowingText",
    "MessageEnd",
    "MessageStart",
    "ToolCallDelta",
    "ToolCallEnd",
    "ToolCallStart",
    "ToolPlanDelta",
    "UnknownEvent",
    "event_fields",
]

ContentKind = Literal["text", "thinking"]

MAX_INDEX = 100_000
"""The largest index of a content block, tool call or citation. Larger ones are refused: an answer has a
few dozen at most, and chosen large numbers would make every table of them slow."""


class _NoIndex(int):
    """See :data:`NO_INDEX`."""

    __slots__ = ()


NO_INDEX = _NoIndex()
"""The index of an event whose JSON object has none: reads as 0, and is known by its identity.

The :class:`~streamchat.protocol.accumulator.Accumulator` replaces it: a start takes the next free
place, deltas and ends belong to what was started last."""


class GrowingText:
    """Text that is still being streamed: pieces, joined when somebody reads it.

    ``text += piece`` on an attribute copies the whole text each time (50,000 deltas: 1.5 s); a
    list of pieces and one join a read does not.
    """

    __slots__ = ("pieces",)

    def __init__(self, *pieces: str) -> None:
        self.pieces: list[str] = [piece for piece in pieces if piece]

    def __str__(self) -> str:
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


def _incomplete(name: str) -> LookupError:
    """The error for reading what the accumulator has not added yet."""
    return LookupError(
        f"{name} is known only after the event went through Accumulator.add(), "
        "as the events of a ChatStream have"
    )


class EventRecord(Record):
    """Base of the event classes."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The wire's JSON object as plain data of its own: ``type``, ``index``, ``delta`` ...

        :func:`~streamchat.protocol.decode_event` reads the same event from it. What an end event
        carries of what it ended is left out, as it is on the wire.

        Raises:
            ValueError: text with a lone surrogate.
        """
        plain: dict[str, Any] = to_plain(event_fields(self))
        return plain


def event_fields(event: Any) -> dict[str, Any]:
    """The wire's fields of an event, one level deep and not copied."""
    if isinstance(event, UnknownEvent):
        return {"type": event.type, **event.data}
    return SHAPES[event.type](event)


# --- the events ----------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class MessageStart(EventRecord):
    """The answer begins: exactly one, first."""

    type: ClassVar[Literal["message-start"]] = "message-start"

    id: str = ""
    """``id``: the response's id, not repeated later."""
    message: AssistantMessage = attrs.Factory(AssistantMessage)
    """``delta.message``: a role and four empty fields, so far always."""

    @property
    def delta(self) -> Delta[AssistantMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import Delta

        return Delta(self.message)


@attrs.define(eq=False, repr=False)
class ContentStart(EventRecord):
    """A content block begins."""

    type: ClassVar[Literal["content-start"]] = "content-start"

    index: int = 0
    """``index``: counts content blocks, from 0."""
    kind: ContentKind = "text"
    """``delta.message.content.type``"""
    text: str = ""
    """``delta.message.content.text``: so far always empty."""
    thinking: str = ""
    """``delta.message.content.thinking``: so far always empty."""
    _kind_is_open: bool = attrs.field(
        default=False, eq=False, repr=False, kw_only=True, alias="kind_is_open"
    )

    @property
    def kind_is_open(self) -> bool:
        """Whether the wire did not say the kind; the first delta of the block decides then."""
        return self._kind_is_open

    @property
    def delta(self) -> Delta[ContentOfMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import ContentFields, ContentOfMessage, Delta

        return Delta(ContentOfMessage(ContentFields(self.text, self.thinking, self.kind)))


@attrs.define(eq=False, repr=False)
class ContentDelta(EventRecord):
    """A piece of a content block, about one token."""

    type: ClassVar[Literal["content-delta"]] = "content-delta"

    text: str = ""
    """``delta.message.content.text``; empty when the block is thinking."""
    index: int = 0
    """``index``: which content block."""
    thinking: str = ""
    """``delta.message.content.thinking``; empty when the block is text."""
    kind: ContentKind = "text"
    """Which of the two the event carries."""
    logprobs: LogprobItem | None = None
    """``logprobs``: with ``logprobs=True`` only."""

    @property
    def delta(self) -> Delta[ContentOfMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import ContentFields, ContentOfMessage, Delta

        return Delta(ContentOfMessage(ContentFields(self.text, self.thinking, self.kind)))


@attrs.define(eq=False, repr=False)
class ContentEnd(EventRecord):
    """A content block is complete."""

    type: ClassVar[Literal["content-end"]] = "content-end"

    index: int = 0
    """``index``: which content block."""
    _content: TextContent | ThinkingContent | None = attrs.field(
        default=None, eq=False, repr=False, init=False
    )

    @property
    def content(self) -> TextContent | ThinkingContent:
        """The completed block."""
        if self._content is None:
            raise _incomplete("ContentEnd.content")
        return self._content

    def complete(self, content: TextContent | ThinkingContent) -> None:
        """Add what ended; the accumulator does."""
        self._content = content


@attrs.define(eq=False, repr=False)
class ToolPlanDelta(EventRecord):
    """A piece of the plan that a model without thinking writes before it calls tools."""

    type: ClassVar[Literal["tool-plan-delta"]] = "tool-plan-delta"

    tool_plan: str = ""
    """``delta.message.tool_plan``"""

    @property
    def delta(self) -> Delta[PlanOfMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import Delta, PlanOfMessage

        return Delta(PlanOfMessage(self.tool_plan))


@attrs.define(eq=False, repr=False)
class ToolCallStart(EventRecord):
    """A tool call begins: its id and name are known, its arguments follow."""

    type: ClassVar[Literal["tool-call-start"]] = "tool-call-start"

    tool_call: ToolCall
    """``delta.message.tool_calls``: ``arguments`` is empty so far."""
    index: int = 0
    """``index``: counts tool calls, from 0, apart from content blocks."""

    @property
    def delta(self) -> Delta[ToolCallOfMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import Delta, ToolCallOfMessage

        return Delta(ToolCallOfMessage(self.tool_call))


@attrs.define(eq=False, repr=False)
class ToolCallDelta(EventRecord):
    """A piece of a tool call's arguments; split anywhere, also inside an escape."""

    type: ClassVar[Literal["tool-call-delta"]] = "tool-call-delta"

    arguments: str = ""
    """``delta.message.tool_calls.function.arguments``"""
    index: int = 0
    """``index``: which tool call."""

    @property
    def delta(self) -> Delta[ArgumentsOfMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import (
            ArgumentsOfFunction,
            ArgumentsOfMessage,
            Delta,
            FunctionOfToolCall,
        )

        return Delta(ArgumentsOfMessage(FunctionOfToolCall(ArgumentsOfFunction(self.arguments))))


@attrs.define(eq=False, repr=False)
class ToolCallEnd(EventRecord):
    """A tool call is complete: the moment to parse and run it."""

    type: ClassVar[Literal["tool-call-end"]] = "tool-call-end"

    index: int = 0
    """``index``: which tool call."""
    _tool_call: ToolCall | None = attrs.field(default=None, eq=False, repr=False, init=False)

    @property
    def tool_call(self) -> ToolCall:
        """The complete call."""
        if self._tool_call is None:
            raise _incomplete("ToolCallEnd.tool_call")
        return self._tool_call

    def complete(self, tool_call: ToolCall) -> None:
        """Add what ended; the accumulator does."""
        self._tool_call = tool_call


@attrs.define(eq=False, repr=False)
class CitationStart(EventRecord):
    """A citation: the whole of it comes here, its end follows at once."""

    type: ClassVar[Literal["citation-start"]] = "citation-start"

    citation: Citation
    """``delta.message.citations``"""
    index: int = 0
    """``index``: counts citations, from 0; it is not the content block."""
    _block: GrowingText | None = attrs.field(default=None, eq=False, repr=False, init=False)

    @property
    def block(self) -> str:
        """The text, thinking or plan that is cited, as received so far (joined when read)."""
        if self._block is None:
            raise _incomplete("CitationStart.block")
        return str(self._block)

    def complete(self, block: GrowingText) -> None:
        """Add what is cited; the accumulator does."""
        self._block = block

    @property
    def delta(self) -> Delta[CitationOfMessage]:
        """The wire's spelling."""
        from streamchat.protocol.delta import CitationOfMessage, Delta

        return Delta(CitationOfMessage(self.citation))


@attrs.define(eq=False, repr=False)
class CitationEnd(EventRecord):
    """A citation is complete."""

    type: ClassVar[Literal["citation-end"]] = "citation-end"

    index: int = 0
    """``index``: which citation."""
    _citation: Citation | None = attrs.field(default=None, eq=False, repr=False, init=False)
    _block: GrowingText | None = attrs.field(default=None, eq=False, repr=False, init=False)

    @property
    def citation(self) -> Citation:
        """The citation that its start brought."""
        if self._citation is None:
            raise _incomplete("CitationEnd.citation")
        return self._citation

    @property
    def block(self) -> str:
        """The text, thinking or plan that is cited, as received so far (joined when read)."""
        if self._block is None:
            raise _incomplete("CitationEnd.block")
        return str(self._block)

    def complete(self, citation: Citation, block: GrowingText) -> None:
        """Add what ended, and what it cites; the accumulator does."""
        self._citation = citation
        self._block = block


@attrs.define(eq=False, repr=False)
class MessageEnd(EventRecord):
    """The answer is complete, or failed: exactly one, last."""

    type: ClassVar[Literal["message-end"]] = "message-end"

    finish_reason: str
    """``delta.finish_reason``: ``COMPLETE``, ``STOP_SEQUENCE``, ``MAX_TOKENS``, ``TOOL_CALL``,
    ``ERROR``, ``TIMEOUT``, or a value of the future; ``""`` if the server gave none."""
    usage: Usage = attrs.Factory(Usage)
    """``delta.usage``: its numbers are ``None`` after a failure."""
    error: str | None = None
    """``delta.error``: on failure."""
    error_type: str | None = None
    """``delta.error_type``: on failure; undocumented."""
    _status: int | None = attrs.field(
        default=None, eq=False, repr=False, kw_only=True, alias="status"
    )
    _response: ChatResponse | None = attrs.field(default=None, eq=False, repr=False, init=False)

    @property
    def status(self) -> int | None:
        """The numeric code of ``delta.error``, if a gateway sent an object with one there."""
        return self._status

    @property
    def id(self) -> str:
        """The response's id, which ``message-start`` brought; empty if it brought none."""
        if self._response is None:
            raise _incomplete("MessageEnd.id")
        return self._response.id

    @property
    def response(self) -> ChatResponse:
        """The whole answer."""
        if self._response is None:
            raise _incomplete("MessageEnd.response")
        return self._response

    def complete(self, response: ChatResponse) -> None:
        """Add what ended; the accumulator does."""
        self._response = response

    @property
    def delta(self) -> FinishDelta:
        """The wire's spelling."""
        from streamchat.protocol.delta import FinishDelta

        return FinishDelta(self.finish_reason, self.usage, self.error, self.error_type)


@attrs.define(eq=False, repr=False)
class Debug(EventRecord):
    """The prompt as the model saw it; in the spec, never seen. Has no effect on the answer."""

    type: ClassVar[Literal["debug"]] = "debug"

    prompt: str | None = None
    """``prompt``"""


@attrs.define(init=False, eq=False, repr=False)
class UnknownEvent(EventRecord):
    """An event this version does not know: delivered as it is, never dropped, never an error.

    A known type with content of an unknown kind arrives as an unknown event too, so this class reads
    as an empty content delta as well: a loop that asks for ``type`` alone finds no text here.
    """

    type: Literal["any other type"]
    """``type``: any ``str``. For type checkers it is a literal of its own, because only then does
    ``event.type == "content-delta"`` narrow an event to :class:`ContentDelta` (mypy does not narrow
    where one of the union's types is a plain ``str``); compare ``data["type"]`` instead."""
    data: dict[str, Any]
    """The whole JSON object, ``type`` included."""

    def __init__(self, type: str, data: dict[str, Any] | None = None) -> None:  # noqa: A002  # the wire's name
        self.type = cast(Any, type)
        self.data = {} if data is None else data

    @property
    def text(self) -> str:
        """Always empty."""
        return ""

    @property
    def thinking(self) -> str:
        """Always empty."""
        return ""

    @property
    def delta(self) -> Delta[ContentOfMessage]:
        """Always empty, in the wire's spelling."""
        from streamchat.protocol.delta import ContentFields, ContentOfMessage, Delta

        return Delta(ContentOfMessage(ContentFields()))


Event = (
    MessageStart
    | ContentStart
    | ContentDelta
    | ContentEnd
    | ToolPlanDelta
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | CitationStart
    | CitationEnd
    | MessageEnd
    | Debug
    | UnknownEvent
)
"""Any event. ``match`` on the class; ``assert_never`` proves that none was forgotten."""

EVENT_CLASSES = (
    MessageStart,
    ContentStart,
    ContentDelta,
    ContentEnd,
    ToolPlanDelta,
    ToolCallStart,
    ToolCallDelta,
    ToolCallEnd,
    CitationStart,
    CitationEnd,
    MessageEnd,
    Debug,
)
"""The classes that have a ``type`` of their own, in wire order."""
