"""One stream's blocks to completed events: frame or line decoder, codec and accumulator in a row.

After a delta was read the full way, the reader takes its lane (see ``lane``): blocks that are alike
are not parsed, and of neighbours that are alike only the texts are handed on. Everything else goes the
full way, and nothing tells the two apart but their cost.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from operator import length_hint
from typing import cast

import msgspec

from streamchat.protocol.accumulator import Accumulator
from streamchat.protocol.codec import decode_events, is_answer_event, is_terminator
from streamchat.protocol.errors import DecodeError, FrameTooLargeError, GenerationError
from streamchat.protocol.events import (
    ContentDelta,
    ContentStart,
    Event,
    MessageEnd,
    ToolCallDelta,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.protocol.from_json import KNOWN_TYPES
from streamchat.protocol.json_lines import LineDecoder
from streamchat.protocol.lane import Lane, decode_string
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES, Frame, FrameDecoder

__all__ = ["EventReader", "Item"]

Item = bytes | str | Event
"""A block; of a run the text of one; of a block with several events one of them."""

_COMMON_HEADS = frozenset(b"event: " + name.encode() for name in KNOWN_TYPES)
"""First lines of the blocks that Chat v2 sends: that they are events is known without reading them."""

_MAX_PROOFS = 4
"""Lanes that one stream proves; then it learns no more. With ``logprobs`` each delta has other bytes
behind its text, and there is nothing to learn."""

_NOWHERE: list[str] = []
"""Where text is gathered outside a lane: nothing ever is."""


class EventReader:
    """Read one stream: bytes in, completed events out.

    Args:
        max_bytes: the largest event, in bytes.
        lines: whether the body is JSON lines and not an event stream.
        used_call_ids: see :class:`Accumulator`.

    Use: ``for item in reader.split(chunk): event = reader.read(item)``; one item is one block, and one
    event or none, so that whoever calls can stop between two events and lose nothing. The items of
    one ``split`` are read before the next. After an item without an event, read what
    :meth:`take_several` returns first. At the end of the body, :meth:`finish` returns the last items.
    """

    __slots__ = (
        "_accumulator",
        "_decoder",
        "_is_lines",
        "_lane",
        "_make",
        "_pieces",
        "_proofs",
        "_run",
        "_several",
        "_several_data",
        "end",
        "has_events",
        "has_text",
        "is_over",
        "terminated",
    )

    def __init__(
        self,
        max_bytes: int = DEFAULT_MAX_BYTES,
        *,
        lines: bool = False,
        used_call_ids: Callable[[], Container[str]] | None = None,
    ) -> None:
        self._decoder: FrameDecoder | LineDecoder
        self._decoder = LineDecoder(max_bytes) if lines else FrameDecoder(max_bytes)
        self._is_lines = lines
        self._accumulator = Accumulator(used_call_ids) if used_call_ids else Accumulator()
        self.end: MessageEnd | None = None
        """``message-end``, once it was read; nothing is decoded after it."""
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
        # The events of a block that has several, while they were not taken.
        self._several: Sequence[Event] = ()
        self._several_data = b""

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
        if self._is_lines:
            lines = decoder.split(chunk)
            if decoder.error is not None:
                self.is_over = True
            return lines
        assert isinstance(decoder, FrameDecoder)
        blocks = decoder.cut(chunk)
        if decoder.error is not None:
            self.is_over = True
        if blocks is None or (blocks[:1] in (b"", b"\n") and not blocks.strip(b"\n")):
            return ()  # or blank lines alone, which may be very many
        if lane is not None:
            texts = lane.read_run(blocks)
            if texts is not None:
                self._run = blocks
                return texts
        return blocks.split(b"\n\n")

    def finish(self) -> Sequence[Item]:
        """The body has ended: what it completes, perhaps nothing. Of an event stream nothing."""
        return self._decoder.rest() if isinstance(self._decoder, LineDecoder) else ()

    def take_several(self) -> Sequence[Event]:
        """The events of the block that was read last, if it has several: to be read in its place."""
        several, self._several = self._several, ()
        return several

    def read(self, item: Item) -> Event | None:
        """The item's event, folded in and completed; ``None`` if it holds none, or several.

        Raises:
            DecodeError: the block is not an event, or contradicts those before it.
            GenerationError: the block is an error event.
        """
        if not isinstance(item, str):
            lane = self._lane
            if lane is None:
                return self._read_fully(item)
            # As Lane.read_chunk() does it; two calls less are a fifth of an event's time. (Events, of a
            # block that had several, come directly behind it, and the lane was left there.)
            block: bytes = item  # type: ignore[assignment]  # cast() is a call
            string = block.removeprefix(lane.prefix).removesuffix(lane.suffix)
            if len(block) - len(string) != lane.around:
                return self._read_fully(item)
            text: str | None
            try:
                text = decode_string(b'"' + string + b'"')
            except (msgspec.DecodeError, UnicodeDecodeError):
                text = None  # what the full way raises then has no context of msgspec's
            if text is None:
                return self._read_fully(block)
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

    def read_frame(self, block: Item) -> Frame | None:
        """The block's frame as it is, ``None`` if it holds none; only the end is looked for."""
        if self.terminated or not isinstance(block, bytes):
            return None  # not a block: one of several events whose frame was read already
        frame = self._decoder.parse(block)
        if frame is not None:
            if is_terminator(frame):
                self.terminated = self.is_over = True
            elif self.end is None:
                self._look_for_end(frame)
        return frame

    def _look_for_end(self, frame: Frame) -> None:
        """Decode a frame that may be the end, or an error with or without an event line.

        Raises:
            GenerationError: it is an error.
            DecodeError: by its name it is the end, and it cannot be decoded.
        """
        is_named = frame.event in ("message-end", "error")
        if not is_named and frame.event in KNOWN_TYPES and b'"message-end"' not in frame.data:
            return
        try:
            events = decode_events(frame)
        except DecodeError:
            if is_named or b'"message-end"' in frame.data:
                raise
            return  # a frame is handed on as it came
        for event in events:
            if isinstance(event, MessageEnd):
                self.end, self.is_over = event, True

    def holds_answer_event(self, items: Sequence[Item]) -> bool:
        """Whether one of the items is more than a comment, a keep-alive or an unknown event."""
        for item in items:  # noqa: SIM110  # a generator for any() would cost 0.3 us a chunk
            if not isinstance(item, bytes) or self._is_answer_event(item):
                return True
        return False

    def _is_answer_event(self, block: bytes) -> bool:
        if block.partition(b"\n")[0] in _COMMON_HEADS:
            return True
        if not (self._is_lines or _has_data(block)):
            return False
        frame = self._peek(block)
        return frame is not None and is_answer_event(frame)

    def _peek(self, block: bytes) -> Frame | None:
        """A block's frame, without effect on what comes after it."""
        decoder = self._decoder
        if isinstance(decoder, LineDecoder):
            return decoder.parse(block)
        return FrameDecoder().parse(block)

    def holds_data(self, items: Sequence[Item]) -> bool:
        """Whether one of the items has data: it is more than comments."""
        if self._is_lines:
            return bool(items)
        return any(not isinstance(item, bytes) or _has_data(item) for item in items)

    def first_failure(self, items: Sequence[Item]) -> GenerationError | MessageEnd | Frame | None:
        """How an answer ended that never began: the error, the end or the ``[DONE]`` that came first.

        Args:
            items: what was received so far, an event of Chat v2 among them.
        """
        for item in items:
            if not isinstance(item, bytes):
                return None
            if item.startswith(b"event: message-start\ndata: {") and b'"message-start"' in item:
                return None  # as it nearly always is
            if not self._is_answer_event(item):
                continue
            frame = self._peek(item)
            if frame is None or (
                frame.event == "message-start" and b'"message-start"' in frame.data
            ):
                return None
            if is_terminator(frame):
                return frame
            try:
                events = decode_events(frame)
            except GenerationError as error:
                return error
            except DecodeError:
                return None
            first = events[0] if events else None
            return first if isinstance(first, MessageEnd) else None
        return None

    def skip(self, items: Sequence[Item]) -> None:
        """Take in blocks without an event: an ``id`` or ``retry`` alone counts for later frames."""
        for item in items:
            if isinstance(item, bytes):
                self._decoder.parse(item)

    def _read_fully(self, item: bytes | Event) -> Event | None:
        if self.end is not None or self.terminated:
            return None
        if isinstance(item, bytes):
            frame = self._decoder.parse(item)
            if frame is None:
                return None
            events, data = decode_events(frame), frame.data
            if len(events) != 1:
                self._leave_lane()
                self._several, self._several_data = events, data
                if not events and is_terminator(frame):
                    self.terminated = self.is_over = True
                return None
            event = events[0]
        else:
            event, data = item, self._several_data
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
                if isinstance(item, bytes) and not self._is_lines:
                    self._take_lane(item, event)
            elif isinstance(completed, UnknownEvent):
                return None
            else:
                # Half an emoji came or went, and while one waits, the lane would overtake it; or the
                # event's index is not its place, which the lane knows nothing of.
                self._leave_lane()
            if not self.has_text and isinstance(completed, ContentStart | ContentDelta):
                self.has_text = bool(completed.text)
            return completed
        raise DecodeError(
            problem.reason,
            event_type=problem.event_type,
            path=problem.path,
            payload=data,
        )

    def _take_lane(self, block: bytes, event: Event) -> None:
        """After a delta was read the full way, expect more of the same.

        Other events leave the lane as it is: a citation between two deltas does not end a block.
        """
        kind: str
        if isinstance(event, ContentDelta):
            kind, index, text = event.kind, event.index, event.text or event.thinking
        elif isinstance(event, ToolCallDelta):
            kind, index, text = "arguments", event.index, event.arguments
        elif isinstance(event, ToolPlanDelta):
            kind, index, text = "tool_plan", 0, event.tool_plan
        else:
            if isinstance(event, ContentStart | ToolCallStart):
                # Deltas without an index belong to it from here on.
                self._leave_lane()
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
