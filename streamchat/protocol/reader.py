"""One stream's blocks to completed events: decoder, codec and accumulator in a row.

Nearly every event is a delta of the block that is being streamed, and differs from the one before
only in a string. So after a delta was read the full way, the reader learns its *lane*: the bytes
before and after that string, whatever the wire's order of keys and spacing. Neighbours that all start
and end with them are a *run*: their strings are cut out and decoded together, 0.3 us a string; one
block alone takes 0.7 us, and everything else goes the full way in 2.6 (benchmarks/decode.py).

A lane is proven before it is used: with a probe in place of the string, the full way must give the
same event with the probe for its text. What stands between the quotes is then that text and nothing
else; it is decoded as one JSON string, which cannot hold a raw line end. A proof costs as much as ten
events save, and the bytes around the string are the same in each answer of a server: so proofs are kept
for the streams that follow, and a tool call of three deltas gains as well. A fuzz test holds both ways
equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import length_hint

import msgspec

from streamchat.protocol.accumulator import Accumulator
from streamchat.protocol.codec import decode_event, is_terminator
from streamchat.protocol.errors import DecodeError, FrameTooLargeError, GenerationError
from streamchat.protocol.events import (
    ContentDelta,
    ContentStart,
    Event,
    MessageEnd,
    ToolCallDelta,
    ToolPlanDelta,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES, Frame, FrameDecoder

__all__ = ["EventReader", "Item"]

Item = bytes | str
"""A block, or of a run the text of one."""

_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode
_NO_LANE = 1 << 60
"""Bytes around a string where there is no lane: no block is as long, so none is found to be in it."""
_PROBE = b"\xe2\x90\xa3 probe \xe2\x90\xa3"
_MAX_PROOFS = 4
"""Lanes that one stream proves; then it learns no more. With ``logprobs`` each delta has other bytes
behind its text, and there is nothing to learn."""
_MAX_LANE = 512
"""Bytes around a string: longer ones are of nothing that comes often, and would be kept."""
_MAX_PROVEN = 256
_MAX_PLACES = 4
"""Places in a block that are tried: a token like ``"text"`` stands in the keys as well."""

_proven: dict[tuple[str, int, bytes, bytes], bool] = {}
"""Whether a block that starts and ends so is a delta of this kind and index; a fact about bytes, the
same for every stream. Forgotten when there are ``_MAX_PROVEN``."""


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
        "_append",
        "_around",
        "_decoder",
        "_lane",
        "_make",
        "_prefix",
        "_proofs",
        "_run",
        "_suffix",
        "_suffix_and_blank",
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
        # The lane: what a block must start and end with, quotes included, how many bytes that is,
        # where to append its text, and how to make its event.
        self._lane: tuple[str, int] | None
        self._proofs = 0
        self._prefix: bytes
        self._suffix: bytes
        self._suffix_and_blank: bytes
        self._around: int
        self._append: Callable[[str], None]
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
        decoder = self._decoder
        self._run = b""
        if decoder.is_between_blocks and len(chunk) <= decoder.max_bytes:
            # One block and no more is what comes while a model writes: 0.7 us instead of 3.2.
            text = self._read_lane(chunk, self._suffix_and_blank, self._around + 2)
            if text is not None:
                return (text,)
        blocks = decoder.cut(chunk)
        if decoder.error is not None:
            self.is_over = True
        if blocks is None:
            return ()
        if len(blocks) > 2 * self._around:  # more than one block of the lane, or a long one
            texts = self._read_run(blocks)
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
        text = item
        if not isinstance(text, str):
            lane = self._read_lane(text, self._suffix, self._around)
            if lane is None:
                return self._read_fully(text)
            text = lane
        self._append(text)
        return self._make(text)

    def unread(self, items: Iterator[Item]) -> Iterator[bytes]:
        """The last items of a ``split`` as blocks, for whoever wants to read frames from there.

        The lane is left, so that what comes is split into blocks as well.
        """
        self._leave_lane()
        if not self._run:
            return items  # type: ignore[return-value]  # no run: they are blocks
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
        if self._lane != (kind, index):
            self._leave_lane()
            self._lane = (kind, index)
        pieces = self._accumulator.pieces_for(event) if text else None
        if pieces is None:
            self._leave_lane()
        elif self._proofs < _MAX_PROOFS:
            self._learn(block, text, kind, index, pieces.append)

    def _learn(
        self, block: bytes, text: str, kind: str, index: int, append: Callable[[str], None]
    ) -> None:
        """Find the text's place in the block, and prove that it is its place."""
        literal = msgspec.json.encode(text)
        place = -1
        for _ in range(_MAX_PLACES):
            place = block.find(literal, place + 1)
            if place < 0:
                return
            before, after = block[: place + 1], block[place + len(literal) - 1 :]
            if self._is_lane(kind, index, before, after):
                self._prefix, self._suffix, self._suffix_and_blank = before, after, after + b"\n\n"
                self._around = len(before) + len(after)
                self._append, self._make = append, _maker(kind, index)
                return

    def _is_lane(self, kind: str, index: int, before: bytes, after: bytes) -> bool:
        key = kind, index, before, after
        known = _proven.get(key)
        if known is None:
            if len(before) + len(after) > _MAX_LANE or self._proofs == _MAX_PROOFS:
                return False
            self._proofs += 1
            if len(_proven) >= _MAX_PROVEN:
                _proven.clear()
            expected = _maker(kind, index)(_PROBE.decode())
            known = _proven[key] = _says(before + _PROBE + after, expected)
        return known

    def _read_lane(self, block: bytes, suffix: bytes, around: int) -> str | None:
        """The text, if the block is of the lane; ``None`` if not, or if what it holds is no string.

        The full way says what is wrong with it then.
        """
        # Both are there if both were removed. (startswith and endswith take twice as long.)
        string = block.removeprefix(self._prefix).removesuffix(suffix)
        if len(block) - len(string) != around:
            return None
        try:
            return _decode_string(b'"' + string + b'"')
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _read_run(self, blocks: bytes) -> list[str] | None:
        """The texts, if all of the blocks are of the lane; ``None`` if not, or if one is no string."""
        prefix = self._prefix
        strings = [
            block.removeprefix(prefix)
            for block in blocks.removesuffix(self._suffix).split(self._suffix_and_blank)
        ]
        count = len(strings)
        joined = b'","'.join(strings)
        # Nothing else was removed than a prefix a block, and the last block's suffix. If that much is
        # gone, all of them were there.
        if len(blocks) - len(joined) != count * self._around - (count - 1):
            return None
        try:
            if joined.find(b'\\"') >= 0:
                return [_decode_string(b'"' + string + b'"') for string in strings]
            # Without an escaped quote every quote begins or ends a string. As many strings as there
            # are pieces: so no piece has one in it, and none a line end, which only stands outside.
            texts = _decode_strings(b'["' + joined + b'"]')
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return texts if len(texts) == count else None

    def _leave_lane(self) -> None:
        self._lane = None
        self._prefix = self._suffix = self._suffix_and_blank = b""
        self._around = _NO_LANE
        self._append, self._make = _no_text, ToolPlanDelta


def _has_data(block: bytes) -> bool:
    # find() first: ``in`` takes four times as long (see sse.py).
    return (
        block.find(b"\ndata:") >= 0
        or block.startswith(b"data:")
        or (b"data" in block and b"data" in block.split(b"\n"))
    )


def _no_text(_: str) -> None:
    """Where text goes outside a lane; never called, because nothing matches then."""


def _says(block: bytes, event: Event) -> bool:
    """Whether the full way reads this event from the block."""
    frame = FrameDecoder().parse(block)
    try:
        return frame is not None and decode_event(frame) == event
    except (DecodeError, GenerationError):
        return False


def _maker(kind: str, index: int) -> Callable[[str], Event]:
    """How to make a delta of this kind from its text."""
    match kind:
        case "text":
            return ContentDelta if index == 0 else lambda text: ContentDelta(text, index)
        case "thinking":
            return lambda text: ContentDelta("", index, text, "thinking")
        case "tool_plan":
            return ToolPlanDelta
        case _:
            return ToolCallDelta if index == 0 else lambda text: ToolCallDelta(text, index)
