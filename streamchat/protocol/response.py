"""The answer, whole or so far: ``ChatResponse``; imports the vocabulary and its spans only."""

from typing import Any

import attrs

from streamchat.protocol.messages import (
    AssistantMessage,
    Citation,
    LogprobItem,
    ToolCall,
    Usage,
)
from streamchat.protocol.plain import to_plain
from streamchat.protocol.record import Record
from streamchat.protocol.spans import CitedKind, CitedSpan, cited_spans

__all__ = ["ChatResponse"]


_SHOWN = 60
"""Characters of an answer that its ``repr`` shows."""


@attrs.define(eq=False, repr=False)
class ChatResponse(Record):
    """An answer in the shape of the unary API, complete or as far as it came.

    ``finish_reason`` tells which: it is ``None`` until ``message-end`` was seen.
    """

    id: str = ""
    """``id``: from ``message-start``; empty before it."""
    message: AssistantMessage = attrs.Factory(AssistantMessage)
    """``message``"""
    finish_reason: str | None = None
    """``finish_reason``: ``COMPLETE``, ``STOP_SEQUENCE``, ``MAX_TOKENS``, ``TOOL_CALL``, ``ERROR``,
    ``TIMEOUT``, or a value of the future; ``None`` while the answer is not complete."""
    usage: Usage = attrs.Factory(Usage)
    """``usage``: always an object; its numbers are ``None`` until ``message-end``."""
    logprobs: list[LogprobItem] = attrs.Factory(list[LogprobItem])
    """``logprobs``: one item for each content delta that had them, in order of arrival."""
    error: str | None = attrs.field(default=None)
    """``delta.error`` of a failed ``message-end``; not part of :meth:`to_dict`."""
    error_type: str | None = attrs.field(default=None)
    """``delta.error_type`` of a failed ``message-end``; not part of :meth:`to_dict`."""

    def __repr__(self) -> str:
        # Short, for notebooks and logs: an answer may be pages long. to_dict() has all of it.
        text = self.text
        shown = (
            repr(text)
            if len(text) <= _SHOWN
            else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"
        )
        counts = [
            f"{name}={len(found)}"
            for name, found in (("tool_calls", self.tool_calls), ("citations", self.citations))
            if found
        ]
        return " ".join(
            [
                "<ChatResponse",
                shown,
                *counts,
                f"finish_reason={self.finish_reason!r}",
                f"id={self.id!r}>",
            ]
        )

    @property
    def text(self) -> str:
        """The answer's text: all text blocks, joined."""
        return self.message.text

    @property
    def thinking(self) -> str:
        """What the model thought: all thinking blocks, joined."""
        return self.message.thinking

    @property
    def tool_plan(self) -> str:
        """What the model planned before it called tools."""
        return self.message.tool_plan

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls the model asks for."""
        return self.message.tool_calls

    @property
    def citations(self) -> list[Citation]:
        """The citations, in order of arrival."""
        return self.message.citations

    def cited_spans(self, of: CitedKind = "text") -> list[CitedSpan]:
        """The text split into plain and cited runs, in order: what a page shows with footnotes.

        There is a boundary wherever a citation starts or ends, and each run names all citations
        that cover it. The runs' texts joined are :attr:`text`, always: a citation that is empty, or
        whose own text does not stand at its offsets, marks nothing and stays in :attr:`citations`.

        Args:
            of: ``"text"`` (the default), ``"thinking"`` or ``"plan"``: each has its own citations.
                A citation of a text or thinking block addresses the last one of its kind, unless
                its ``content_index`` names another.

        Raises:
            ValueError: ``of`` is something else.
        """
        return cited_spans(self.message, of)

    def to_dict(self) -> dict[str, Any]:
        """The unary JSON shape as plain data, in wire order; what is empty is left out.

        A unary reply of the server writes a tool's arguments otherwise: compactly and with sorted keys,
        and as ``null`` if there are none.

        Raises:
            ValueError: something that JSON cannot say, or nesting far beyond the 200 levels that are
                decoded: only in an answer that was made by hand.
        """
        fields: dict[str, Any] = {"id": self.id} if self.id else {}
        fields["message"] = self.message.to_dict()
        if self.finish_reason is not None:
            fields["finish_reason"] = self.finish_reason
            fields["usage"] = self.usage
        if self.logprobs:
            fields["logprobs"] = self.logprobs
        plain: dict[str, Any] = to_plain(fields)
        return plain

    def to_message(self) -> AssistantMessage:
        """The turn to put into the next request's ``messages``."""
        return self.message

    def _repr_markdown_(self) -> str:
        """How a notebook shows the answer: thinking folded, citations as footnotes."""
        from streamchat.protocol.markdown import answer_markdown  # most programs show nothing

        return answer_markdown(self.message, self.usage, self.finish_reason, self.error)
