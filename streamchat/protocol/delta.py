"""The wire's spelling of an event: what ``event.delta`` is, built when it is read.

The names are those of Cohere's API reference. Imported with the first of them, as most programs read
``event.text``.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from streamchat.protocol.messages import Citation, ToolCall, Usage
from streamchat.protocol.record import Record

__all__ = [
    "ArgumentsOfFunction",
    "ArgumentsOfMessage",
    "CitationOfMessage",
    "ContentFields",
    "ContentOfMessage",
    "Delta",
    "FinishDelta",
    "FunctionOfToolCall",
    "PlanOfMessage",
    "ToolCallOfMessage",
]

T = TypeVar("T")


@attrs.define(eq=False, repr=False)
class Delta(Record, Generic[T]):
    """``delta`` of an event that adds to the message."""

    message: T
    """``delta.message``"""


@attrs.define(eq=False, repr=False)
class ContentFields(Record):
    """``delta.message.content``: one object, not a list."""

    text: str = ""
    """``delta.message.content.text``; empty when the block is of the other kind."""
    thinking: str = ""
    """``delta.message.content.thinking``; empty when the block is of the other kind."""
    type: str = "text"
    """``delta.message.content.type``; the wire sends it on ``content-start`` only."""


@attrs.define(eq=False, repr=False)
class ContentOfMessage(Record):
    """``delta.message`` of ``content-start`` and ``content-delta``."""

    content: ContentFields
    """``delta.message.content``"""


@attrs.define(eq=False, repr=False)
class PlanOfMessage(Record):
    """``delta.message`` of ``tool-plan-delta``."""

    tool_plan: str
    """``delta.message.tool_plan``"""


@attrs.define(eq=False, repr=False)
class ToolCallOfMessage(Record):
    """``delta.message`` of ``tool-call-start``: one object under a plural name."""

    tool_calls: ToolCall
    """``delta.message.tool_calls``"""


@attrs.define(eq=False, repr=False)
class ArgumentsOfFunction(Record):
    """``delta.message.tool_calls.function`` of ``tool-call-delta``."""

    arguments: str
    """``delta.message.tool_calls.function.arguments``"""


@attrs.define(eq=False, repr=False)
class FunctionOfToolCall(Record):
    """``delta.message.tool_calls`` of ``tool-call-delta``."""

    function: ArgumentsOfFunction
    """``delta.message.tool_calls.function``"""


@attrs.define(eq=False, repr=False)
class ArgumentsOfMessage(Record):
    """``delta.message`` of ``tool-call-delta``."""

    tool_calls: FunctionOfToolCall
    """``delta.message.tool_calls``"""


@attrs.define(eq=False, repr=False)
class CitationOfMessage(Record):
    """``delta.message`` of ``citation-start``: one object under a plural name."""

    citations: Citation
    """``delta.message.citations``"""


@attrs.define(eq=False, repr=False)
class FinishDelta(Record):
    """``delta`` of ``message-end``."""

    finish_reason: str
    """``delta.finish_reason``"""
    usage: Usage
    """``delta.usage``"""
    error: str | None = None
    """``delta.error``"""
    error_type: str | None = None
    """``delta.error_type``"""
