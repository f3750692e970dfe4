"""The events that a tool run adds to those of its streams: ``StepStart``, ``ToolProgress``, ``ToolResult``,
``StepEnd``.

They are ours and never on the wire, so they are no part of :data:`streamchat.Event`; they have a
``type`` like the others, and handlers of their own (``on_step_start`` ...).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs

from streamchat.protocol.messages import DocumentContent, TextContent, ToolCall, ToolMessage
from streamchat.protocol.record import Record
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.values import plain_value

__all__ = ["STEP_CLASSES", "StepEnd", "StepEvent", "StepStart", "ToolProgress", "ToolResult"]


@attrs.define(eq=False, repr=False)
class StepStart(Record):
    """A request of a tool run is about to be sent."""

    type: ClassVar[Literal["step-start"]] = "step-start"
    step: int
    """Which, from 1."""
    request: ChatRequest
    """What is asked, results of the earlier steps included."""


@attrs.define(eq=False, repr=False)
class ToolProgress(Record):
    """A value that an async generator tool yielded; the last one is its result too. Events of parallel
    tools are interleaved in the order in which they arrive."""

    type: ClassVar[Literal["tool-progress"]] = "tool-progress"
    tool_call: ToolCall
    """The call that is being answered."""
    value: Any = attrs.field(default=None, repr=False)
    """What the tool yielded; the model is not told."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool_call.name

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the call, and the value as the result of a tool would be written.

        Raises:
            TypeError, ValueError: JSON cannot say the value; the message names the place.
        """
        call = self.tool_call.to_dict()
        return {"type": self.type, "tool_call": call, "value": plain_value(self.value)}


@attrs.define(eq=False, repr=False)
class ToolResult(Record):
    """A tool has answered a call, or could not. Results come in the order of the calls."""

    type: ClassVar[Literal["tool-result"]] = "tool-result"
    tool_call: ToolCall
    """The call that is answered."""
    content: str | list[TextContent | DocumentContent] = attrs.field(repr=False)
    """What the model is told: text, or documents that it can cite; of a failure its text."""
    value: Any = attrs.field(default=None, repr=False)
    """What the function returned; ``None`` if it failed."""
    exception: Exception | None = None
    """Why there is no value: what the function raised, ``ToolArgumentsError``, ``ToolRefusedError``,
    ``TimeoutError``, or ``ToolError`` for a tool that was not declared. ``None`` if there is one."""
    seconds: float = 0.0
    """How long the function ran."""

    @property
    def error(self) -> str | None:
        """The text that tells the model what went wrong; ``None`` if nothing did."""
        return None if self.exception is None else str(self.content)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool_call.name

    @property
    def message(self) -> ToolMessage:
        """The turn that answers the call."""
        return ToolMessage(self.tool_call.id, self.content)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the call, what the model is told, ``error`` if it failed, and ``seconds``.

        :attr:`value` and :attr:`exception` may be anything; :attr:`content` is what JSON holds of them.
        """
        fields: dict[str, Any] = {
            "type": self.type,
            "tool_call": self.tool_call.to_dict(),
            "content": self.message.to_dict()["content"],
        }
        if self.error is not None:
            fields["error"] = self.error
        return {**fields, "seconds": self.seconds}


@attrs.define(eq=False, repr=False)
class StepEnd(Record):
    """An answer of a tool run is complete, and its tools, if it called any, have answered."""

    type: ClassVar[Literal["step-end"]] = "step-end"
    step: int
    """Which, from 1."""
    response: ChatResponse
    """The answer."""
    results: list[ToolResult] = attrs.Factory(list[ToolResult])
    """What its tools said, in the order of the calls; empty in the last step."""


StepEvent = StepStart | ToolProgress | ToolResult | StepEnd
"""An event of a tool run that is none of its streams'."""

STEP_CLASSES: tuple[type[StepEvent], ...] = (StepStart, ToolProgress, ToolResult, StepEnd)
"""The classes, in the order of a step."""
