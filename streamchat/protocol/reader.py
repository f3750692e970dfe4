"""One stream's blocks to completed events: decoder, codec and accumulator in a row.

Nearly every event is a delta of the block that is being streamed, and differs from the one before
only in a string. So after a delta was read the full way, the reader keeps its *lane*: the bytes that
our own encoder writes around that string. A block that starts and ends with them is read by decoding
the JSON string between them, 0.3 us instead of 1.0 (benchmarks/decode.py); everything else goes the
full way. Both quotes belong to the lane, so that the string cannot hold a raw line end, and a fuzz
test holds both ways equal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgspec

from streamchat.protocol.accumulator import Accumulator
from streamchat.protocol.codec import decode_event, encode_event, is_terminator
from streamchat.protocol.errors import DecodeError, FrameTooLargeError
from streamchat.protocol.events import (
    ContentDelta,
    ContentStart,
    Event,
    MessageEnd,
    ToolCallDelta,
    ToolPlanDelta,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES, Frame, FrameDecoder, encode_frame

__all__ = ["EventReader"]

_decode_string = msgspec.json.Decoder(str).decode
_NO_LANE = b"\n"
"""No block starts with a blank line and is a delta: the lane that matches nothing."""
_PROBE = "\N{OPEN BOX}"
_MAX_LANE_INDEX = 63
"""Lanes are shared by all streams and kept; a server cannot make us keep more than these."""


class EventReader:
    """Read one stream: bytes in, completed events out.

    Args:
        max_bytes: the largest event, in bytes.

    Use: ``for block in reader.split(chunk): event = reader.read(block)``; one block is one event or
    none, so that whoever calls can stop between two events and lose nothing.
    """

    __slots__ = (
        "_accumulator",
        "_append",
        "_decoder",
        "_lane",
        "_make",
        "_prefix",
        "_start",
        "_stop",
        "_suffix",
        "end",
        "has_events",
        "has_text",
        "terminated",
    )

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._decoder = FrameDecoder(max_bytes)
        self._accumulator = Accumulator()
        self.end: MessageEnd | None = None
        """``message-end``, once it was read; nothing is decoded after it (faults.md F84)."""
        self.terminated = False
        """Whether ``[DONE]`` was read; without :attr:`end` the answer is cut off."""
        self.has_events = False
        """Whether any event was read."""
        self.has_text = False
        """Whether any text of the answer was read."""
        # The lane: what a block must start and end with, where its JSON string stands, where to
        # append its text, and how to make its event.
        self._lane: tuple[str, int] | None
        self._prefix: bytes
        self._suffix: bytes
        self._start: int
        self._stop: int
        self._append: Callable[[str], None]
        self._make: Callable[[str], Event]
        self._leave_lane()

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far."""
        return self._accumulator.snapshot()

    @property
    def too_large(self) -> FrameTooLargeError | None:
        """Set when a block passed the limit; raise it after the blocks before it were read."""
        return self._decoder.error

    def split(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the blocks that they complete; see ``FrameDecoder``."""
        return self._decoder.split(chunk)

    def read(self, block: bytes) -> Event | None:
        """The block's event, folded in and completed; ``None`` if it holds none.

        Raises:
            DecodeError: the block is not an event, or contradicts those before it.
            GenerationError: the block is an error event.
        """
        if block.startswith(self._prefix) and block.endswith(self._suffix):
            try:
                text = _decode_string(block[self._start : self._stop])
            except (msgspec.DecodeError, UnicodeDecodeError):
                return self._read_fully(block)
            self._append(text)
            return self._make(text)
        return self._read_fully(block)

    def read_frame(self, block: bytes) -> Frame | None:
        """The block's frame as it is, ``None`` if it holds none; only the end is looked for."""
        frame = self._decoder.parse(block)
        if frame is not None:
            if is_terminator(frame):
                self.terminated = True
            elif frame.event in ("message-end", "error") or b'"message-end"' in frame.data:
                event = decode_event(frame)
                self.end = event if isinstance(event, MessageEnd) else self.end
        return frame

    @staticmethod
    def holds_event(blocks: list[bytes]) -> bool:
        """Whether one of the blocks is more than comments: it has a ``data`` line."""
        return any(_has_data(block) for block in blocks)

    def starts_with_terminator(self, blocks: list[bytes]) -> bool:
        """Whether the first event of the blocks is ``[DONE]``: an answer that never began."""
        first = next(block for block in blocks if _has_data(block))
        frame = FrameDecoder().parse(first)
        return frame is not None and is_terminator(frame)

    def skip(self, blocks: list[bytes]) -> None:
        """Take in blocks without an event: an ``id`` or ``retry`` alone counts for later frames."""
        for block in blocks:
            self._decoder.parse(block)

    def _read_fully(self, block: bytes) -> Event | None:
        if self.end is not None or self.terminated:
            return None
        frame = self._decoder.parse(block)
        if frame is None:
            return None
        event = decode_event(frame)
        if event is None:
            self.terminated = True
            self._leave_lane()
            return None
        try:
            completed = self._accumulator.add(event)
        except DecodeError as error:
            problem = error
        else:
            self.has_events = True
            if isinstance(completed, MessageEnd):
                self.end = completed
                self._leave_lane()
            elif completed is event:
                self._take_lane(event)
            else:
                # Half an emoji came or went; while one waits, the lane would overtake it.
                self._leave_lane()
                if isinstance(completed, ContentDelta) and completed.text:
                    self.has_text = True
            return completed
        raise DecodeError(
            problem.reason,
            event_type=problem.event_type,
            path=problem.path,
            payload=frame.data,
        )

    def _take_lane(self, event: Event) -> None:
        """After a delta was read the full way, expect more of the same.

        Other events leave the lane as it is: a citation between two deltas does not end a block.
        """
        key: tuple[str, int]
        if isinstance(event, ContentDelta):
            key = (event.kind, event.index)
            usable = event.logprobs is None and bool(event.text or event.thinking)
            self.has_text = self.has_text or bool(event.text)
        elif isinstance(event, ToolCallDelta):
            key = ("arguments", event.index)
            usable = bool(event.arguments)
        elif isinstance(event, ToolPlanDelta):
            key = ("tool_plan", 0)
            usable = bool(event.tool_plan)
        else:
            if isinstance(event, ContentStart):
                self.has_text = self.has_text or bool(event.text)
            return
        if key == self._lane and usable:
            # The lane is right and did not match: this wire is spelled in another way than ours.
            return
        pieces = self._accumulator.pieces_for(event) if usable else None
        if pieces is None or not 0 <= key[1] <= _MAX_LANE_INDEX:
            self._leave_lane()
            return
        self._lane = key
        self._prefix, self._suffix, self._make = _lane(*key)
        self._start, self._stop = len(self._prefix) - 1, 1 - len(self._suffix)
        self._append = pieces.append

    def _leave_lane(self) -> None:
        self._lane = None
        self._prefix = self._suffix = _NO_LANE
        self._start = self._stop = 0
        self._append, self._make = _no_text, ToolPlanDelta


def _has_data(block: bytes) -> bool:
    return (
        block.startswith(b"data:")
        or b"\ndata:" in block
        or (b"data" in block and b"data" in block.split(b"\n"))
    )


def _no_text(_: str) -> None:
    """Where text goes outside a lane; never called, because nothing matches then."""


@lru_cache(maxsize=4 * _MAX_LANE_INDEX)
def _lane(kind: str, index: int) -> tuple[bytes, bytes, Callable[[str], Event]]:
    """What our encoder writes before and after the string of such a delta, and how to make one."""
    make: Callable[[str], Event]
    match kind:
        case "text":
            make = ContentDelta if index == 0 else lambda text: ContentDelta(text, index)
        case "thinking":
            make = lambda text: ContentDelta("", index, text, "thinking")  # noqa: E731
        case "tool_plan":
            make = ToolPlanDelta
        case _:
            make = ToolCallDelta if index == 0 else lambda text: ToolCallDelta(text, index)
    before, after = encode_frame(encode_event(make(_PROBE))).split(_PROBE.encode())
    return before, after.removesuffix(b"\n\n"), make
