"""One stream's blocks to completed events: decoder, codec and accumulator in a row.

After a delta was read the full way, the reader takes its lane (see ``lane``): blocks that are alike
are not parsed, and of neighbours that are alike only the texts are handed on. Everything else goes the
full way, and nothing tells the two apart but their cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from typing import cast

from streamchat.protocol.accumulator import Accumulator
from streamchat.protocol.codec import decode_event, is_terminator
from streamchat.protocol.errors import DecodeError, FrameTooLargeError
from streamchat.protocol.events import (
    ContentDelta,
    ContentStart,
    Event,
    MessageEnd,
    ToolCallDelta,
    ToolPlanDelta,
)
from streamchat.protocol.lane import Lane
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES, Frame, FrameDecoder

__all__ = ["EventReader", "Item"]

Item = bytes | str
"""A block, or of a run the text of one."""

_MAX_PROOFS = 4
"""Lanes that one stream proves; then it learns no more. With ``logprobs`` each delta has other bytes
behind its text, and there is nothing to learn."""

_NOWHERE: list[str] = []
"""Where text is gathered outside a lane: nothing ever is."""


class EventReader:
    """Read one stream: bytes in, completed events out.

    Args:
        max_bytes: the largest event, in bytes.

    Use: ``for item in reader.split(chunk): event = reader.read(item)``; one item is one block, and one
    event or none, so that whoever calls can stop between two events and lose nothing. The items of
    one ``split`` are read before the next.
    """

    __slots__ = (
        "_accumulator",
        "_decoder",
        "_lane",
        "_make",
        "_pieces",
        "_proofs",
        "_run",
        "end",
        "has_events",
        "has_text",
        "is_over",
        "terminated",
    )

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._decoder = FrameDecoder(max_bytes)
        self._accumulator = Accumulator()
        self.end: MessageEnd | None = None
        """``message-end``, once it was read; nothing is decoded after it (faults.md F84)."""
        self.terminated = False
        """Whether ``[DONE]`` was read; without :attr:`end` the answer is cut off."""
        self.is_over = False
        """Whether nothing more is expected: :attr:`end`, :attr:`terminated` or :attr:`too_large`."""
        self.has_events = False
        """Whether any event was read."""
        self.has_text = False
        """Whether any text of the answer was read."""
        self._proofs = 0
        # The lane, where its text is gathered, and how to make its event.
        self._lane: Lane | None
        self._pieces: list[str]
        self._make: Callable[[str], Event]
        self._leave_lane()
        # The blocks of the run whose texts are being read; empty where no run is.
        self._run = b""

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far."""
        return self._accumulator.snapshot()

    @property
    def too_large(self) -> FrameTooLargeError | None:
        """Set when a block passed the limit; raise it after the blocks before it were read."""
        return self._decoder.error

    def split(self, chunk: bytes) -> Sequence[Item]:
        """Take the next bytes and return the blocks that they complete; of a run, their texts."""
        decoder, lane = self._decoder, self._lane
        self._run = b""
        if lane is not None and decoder.is_between_blocks and len(chunk) <= decoder.max_bytes:
            # One block and no more is what comes while a model writes: 0.7 us instead of 3.2.
            text = lane.read_chunk(chunk)
            if text is not None:
                return (text,)
        blocks = decoder.cut(chunk)
        if decoder.error is not None:
            self.is_over = True
        if blocks is None:
            return ()
        if lane is not None:
            texts = lane.read_run(blocks)
            if texts is not None:
                self._run = blocks
                return texts
        return blocks.split(b"\n\n")

    def read(self, item: Item) -> Event | None:
        """The item's event, folded in and completed; ``None`` if it holds none.

        Raises:
            DecodeError: the block is not an event, or contradicts those before it.
            GenerationError: the block is an error event.
        """
        if not isinstance(item, str):
            text = None if self._lane is None else self._lane.read_block(item)
            if text is None:
                return self._read_fully(item)
            item = text
        self._pieces.append(item)
        return self._make(item)

    def fold(self, items: Iterator[Item]) -> None:
        """Fold in what is left of a run without making events of it, for whoever wants none.

        Of blocks nothing is taken.
        """
        if self._run:
            # One piece, not hundreds: a text in tokens takes ten times its size.
            self._pieces.append("".join(cast("Iterator[str]", items)))

    def unread(self, items: Iterator[Item]) -> Iterator[bytes]:
        """The last items of a ``split`` as blocks, for whoever wants to read frames from there.

        The lane is left, so that what comes is split into blocks as well.
        """
        self._leave_lane()
        if not self._run:
            return cast("Iterator[bytes]", items)
        blocks, self._run = self._run.split(b"\n\n"), b""
        return iter(blocks[len(blocks) - length_hint(items) :])

    def read_frame(self, block: bytes) -> Frame | None:
        """The block's frame as it is, ``None`` if it holds none; only the end is looked for."""
        if self.terminated:
            return None
        frame = self._decoder.parse(block)
        if frame is not None:
            if is_terminator(frame):
                self.terminated = self.is_over = True
            elif self.end is None and (
                frame.event in ("message-end", "error") or b'"message-end"' in frame.data
            ):
                event = decode_event(frame)
                if isinstance(event, MessageEnd):
                    self.end, self.is_over = event, True
        return frame

    @staticmethod
    def holds_event(items: Sequence[Item]) -> bool:
        """Whether one of the items is more than comments: it has a ``data`` line."""
        for item in items:  # noqa: SIM110  # a generator for any() would cost 0.3 us a chunk
            if isinstance(item, str) or _has_data(item):
                return True
        return False

    def starts_with_terminator(self, items: Sequence[Item]) -> bool:
        """Whether the first event of the items is ``[DONE]``: an answer that never began."""
        for item in items:
            if isinstance(item, str):
                return False
            if _has_data(item):
                frame = FrameDecoder().parse(item)
                return frame is not None and is_terminator(frame)
        return False

    def skip(self, items: Sequence[Item]) -> None:
        """Take in blocks without an event: an ``id`` or ``retry`` alone counts for later frames."""
        for item in items:
            if isinstance(item, bytes):
                self._decoder.parse(item)

    def _read_fully(self, block: bytes) -> Event | None:
        if self.end is not None or self.terminated:
            return None
        frame = self._decoder.parse(block)
        if frame is None:
            return None
        event = decode_event(frame)
        if event is None:
            self.terminated = self.is_over = True
            self._leave_lane()
            return None
        try:
            completed = self._accumulator.add(event)
        except DecodeError as error:
            problem = error
        else:
            self.has_events = True
            if isinstance(completed, MessageEnd):
                self.end, self.is_over = completed, True
                self._leave_lane()
            elif completed is event:
                self._take_lane(block, event)
            else:
                # Half an emoji came or went; while one waits, the lane would overtake it.
                self._leave_lane()
                if isinstance(completed, ContentStart | ContentDelta) and completed.text:
                    self.has_text = True
            return completed
        raise DecodeError(
            problem.reason,
            event_type=problem.event_type,
            path=problem.path,
            payload=frame.data,
        )

    def _take_lane(self, block: bytes, event: Event) -> None:
        """After a delta was read the full way, expect more of the same.

        Other events leave the lane as it is: a citation between two deltas does not end a block.
        """
        kind: str
        if isinstance(event, ContentDelta):
            kind, index, text = event.kind, event.index, event.text or event.thinking
            self.has_text = self.has_text or bool(event.text)
        elif isinstance(event, ToolCallDelta):
            kind, index, text = "arguments", event.index, event.arguments
        elif isinstance(event, ToolPlanDelta):
            kind, index, text = "tool_plan", 0, event.tool_plan
        else:
            if isinstance(event, ContentStart):
                self.has_text = self.has_text or bool(event.text)
            return
        lane = self._lane
        if lane is not None and (lane.kind, lane.index) != (kind, index):
            self._leave_lane()
        pieces = self._accumulator.pieces_for(event) if text else None
        if pieces is None:
            self._leave_lane()
            return
        if self._proofs == _MAX_PROOFS:
            return  # to look for known ones would cost each event as much as reading it
        lane, tried = Lane.find(kind, index, block, text, _MAX_PROOFS - self._proofs)
        self._proofs += tried
        if lane is not None:
            self._lane, self._pieces, self._make = lane, pieces, lane.make

    def _leave_lane(self) -> None:
        self._lane = None
        self._pieces, self._make = _NOWHERE, ToolPlanDelta


def _has_data(block: bytes) -> bool:
    # find() first: ``in`` takes four times as long (see sse.py).
    return (
        block.find(b"\ndata:") >= 0
        or block.startswith(b"data:")
        or (b"data" in block and b"data" in block.split(b"\n"))
    )
