"""Neighbouring deltas of one block as one event: for handlers with ``every=``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamchat.protocol.events import ContentDelta, ToolCallDelta, ToolPlanDelta
from streamchat.protocol.messages import LogprobItem

__all__ = ["JoinedDeltas", "key_of"]

Key = tuple[Any, ...]
"""Deltas with the same key can be joined: one class, one block, the same kinds of fields."""


def key_of(event: Any) -> Key | None:
    """With which deltas an event can be joined; ``None`` if it is no delta."""
    if type(event) is ContentDelta:
        return ContentDelta, event.index, event.kind, _shape(event.logprobs)
    if type(event) is ToolCallDelta:
        return ToolCallDelta, event.index
    return (ToolPlanDelta,) if type(event) is ToolPlanDelta else None


def _shape(logprobs: LogprobItem | None) -> int:
    """Which parts there are: those of neighbours stay parallel to each other."""
    if logprobs is None:
        return 0
    return 1 + (logprobs.text is not None) + 2 * (logprobs.logprobs is not None)


class JoinedDeltas:
    """Deltas with the same key, on their way to become one.

    Args:
        key: the :func:`key_of` all of them.
        first: the first.
        due: when they have waited long enough, on the loop's clock.
    """

    __slots__ = ("_events", "due", "is_flushed", "key")

    def __init__(self, key: Key, first: Any, due: float) -> None:
        self.key = key
        self.due = due
        self.is_flushed = False
        """Whether they are not held back any longer, and no other joins them."""
        self._events: list[Any] = [first]

    def add(self, event: Any) -> None:
        """One more, of the same key."""
        self._events.append(event)

    def event(self) -> Any:
        """One delta with the text of all; a single one is given as it is."""
        events = self._events
        first = events[0]
        if len(events) == 1:
            return first
        if type(first) is ContentDelta:
            return ContentDelta(
                text="".join([event.text for event in events]),
                index=first.index,
                thinking="".join([event.thinking for event in events]),
                kind=first.kind,
                logprobs=_joined([event.logprobs for event in events]),
            )
        if type(first) is ToolCallDelta:
            return ToolCallDelta("".join([event.arguments for event in events]), first.index)
        return ToolPlanDelta("".join([event.tool_plan for event in events]))


def _joined(items: Sequence[LogprobItem | None]) -> LogprobItem | None:
    known = [item for item in items if item is not None]
    if not known:
        return None
    has_text, has_logprobs = known[0].text is not None, known[0].logprobs is not None
    return LogprobItem(
        token_ids=[each for item in known for each in item.token_ids],
        text="".join([item.text or "" for item in known]) if has_text else None,
        logprobs=[p for item in known for p in item.logprobs or ()] if has_logprobs else None,
    )
