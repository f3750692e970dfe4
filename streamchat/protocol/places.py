"""Where the parts of an answer stand: content blocks, tool calls or citations by place.

An index is optional in the specification of Chat v2, and some servers send 0 for each call. So what a
start begins gets a place: its index, if that is free, else the next free one.
"""

from __future__ import annotations

from typing import TypeVar

from streamchat.protocol.events import NO_INDEX

__all__ = ["Places"]

T = TypeVar("T")
_NO_PLACES: set[int] = set()
"""Shared and never added to: most streams need no set of their own."""


class Places(dict[int, T]):
    """What one index space holds, by place."""

    __slots__ = ("_free", "_lent", "last", "moved")

    def __init__(self) -> None:
        super().__init__()
        self.last: int | None = None
        """The place of what was started last."""
        self.moved: dict[int, int] | None = None
        """Index on the wire to place, where they differ; ``None`` while they never did."""
        self._free = 0
        self._lent: set[int] = _NO_PLACES

    def find(self, index: int) -> int | None:
        """The place of what events with this index on the wire belong to, if it was started."""
        if index is NO_INDEX:
            return self.last
        if self.moved is not None:
            if index in self.moved:
                return self.moved[index]
            if index in self._lent:
                return None  # the place belongs to something with another index
        return index if index in self else None

    def start(self, index: int, part: T) -> int:
        """Give a new part its place, and return that."""
        if index is NO_INDEX:
            place = self._free
        elif index not in self:
            place = index
        else:
            place = self._free
            if self.moved is None:
                self.moved, self._lent = {}, set()
            self.moved[index] = place
            self._lent.add(place)
        self[place] = part
        self.last = place
        if place >= self._free:
            self._free = place + 1
        return place
