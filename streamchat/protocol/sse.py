"""Bytes to frames and back: WHATWG "server-sent events"; imports the errors only.

Source: HTML standard, 9.2.5 "Parsing an event stream" and 9.2.6 "Interpreting an event stream".
The decoder works on bytes: only CR, LF and CRLF end a line, and no byte of a multi-byte UTF-8
sequence equals one of them, so text is decoded a block at a time and a character that was cut by
a chunk boundary is never seen cut.

How it goes::

    chunk --split()--> blocks (the bytes between two blank lines) --parse()--> Frame or None

``feed`` is both in one, and ``cut`` is ``split`` without splitting. Every byte is looked at once and
copied three times at most: the cost is linear in the bytes, whatever the chunking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from streamchat.protocol.errors import FrameTooLargeError
from streamchat.protocol.record import Record

__all__ = ["DEFAULT_MAX_BYTES", "BlockDecoder", "Frame", "FrameDecoder", "encode_frame"]

DEFAULT_MAX_BYTES = 16 * 1024 * 1024
"""Limit of one block. A citation repeats the whole document it cites, so one ``data:`` line can be
as large as the caller's documents; the request itself is held to about 20 MB by the API."""

_BOM = b"\xef\xbb\xbf"
_CR = 0x0D
"""A number, because ``b"\\r" in chunk`` first tries whether ``b"\\r"`` is one, which takes 0.5 us."""
_PART = 1 << 18
_LINES_OF_PART = 4096
_MAX_RETRY_DIGITS = 4000
"""CPython refuses to read integers of more than 4,300 digits."""


@attrs.define(eq=False, repr=False)
class Frame(Record):
    """One dispatched event of the stream, before anybody asks what it means.

    Treated as immutable; not frozen, because that would triple the cost of making one.
    """

    event: str = "message"
    """The event type; ``message`` where the block had none."""
    data: bytes = b""
    """The ``data:`` values joined by LF, as received (UTF-8, perhaps ill-formed)."""
    id: str = ""
    """The last event ID at dispatch: it stays until another ``id:`` comes."""
    retry: int | None = None
    """The reconnection time in milliseconds in force at dispatch; ``None`` while never set."""

    @property
    def text(self) -> str:
        """``data`` as text; an ill-formed UTF-8 sequence reads as U+FFFD (Encoding standard)."""
        return self.data.decode("utf-8", "replace")

    def to_dict(self) -> dict[str, Any]:
        """The frame as plain data, ``data`` as :attr:`text`; what was not sent is left out."""
        fields: dict[str, Any] = {"event": self.event, "data": self.text}
        if self.id:
            fields["id"] = self.id
        if self.retry is not None:
            fields["retry"] = self.retry
        return fields


class BlockDecoder:
    """What decoders of event streams and of JSON lines share: bytes to blocks, and blocks to frames.

    Args:
        max_bytes: the largest block; 16 MiB by default.
    """

    __slots__ = ("_head", "_tail", "error", "is_between_blocks", "max_bytes")

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self.max_bytes = max_bytes
        """The largest block, in bytes."""
        # The start of the stream while it may still be a byte order mark; None afterwards.
        self._head: bytes | None = b""
        # The unfinished block. A bytearray grows in place: with bytes and `+=` a 1 MiB block in
        # 100-byte pieces takes 4.8 s instead of some milliseconds, and a list of pieces would cost
        # twenty times the bytes when they come two at a time.
        self._tail: bytearray = bytearray()
        self.is_between_blocks = False
        """Whether the last chunk ended with a block, and nothing of it counts for the next."""
        self.error: FrameTooLargeError | None = None
        """Set by :meth:`split` when a block passed the limit; the decoder is then of no use."""

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete, perhaps none.

        Raises:
            FrameTooLargeError: a block passed the limit. Its ``frames`` holds what this chunk
                completed before. Every later call raises it too.
        """
        frames = self._frames(self.split(chunk))
        if self.error is not None:
            error, self.error = self.error, FrameTooLargeError(limit=self.max_bytes)
            error.frames = frames
            raise error
        return frames

    def split(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the blocks that they complete, perhaps none.

        Does not raise: a block over the limit sets :attr:`error`, and the blocks before it are returned.
        """
        raise NotImplementedError

    def parse(self, block: bytes, /) -> Frame | None:
        """The frame of one block; ``None`` if it holds no data."""
        raise NotImplementedError

    def _frames(self, blocks: list[bytes]) -> list[Frame]:
        return [frame for block in blocks if (frame := self.parse(block)) is not None]

    def _drop_byte_order_mark(self, chunk: bytes) -> bytes:
        """Drop one leading BOM, also when it comes in pieces."""
        assert self._head is not None
        head = self._head + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _give_up(self) -> None:
        self._tail.clear()
        self.error = FrameTooLargeError(limit=self.max_bytes)


class FrameDecoder(BlockDecoder):
    """Cut an event stream into frames, incrementally.

    Args:
        max_bytes: the largest block, in bytes after line ends were normalised to LF, without its
            blank line and its comments; 16 MiB by default.
        last_event_id: carried over from an earlier connection.

    A frame is out as soon as its last byte is in: a blank line that is ended by CR does not wait
    to see whether an LF follows. At the end of the stream an unfinished block is discarded, as
    the standard says; there is nothing to call for it.
    """

    __slots__ = ("_after_cr", "_held_newline", "_id", "_line_start", "_retry")

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, last_event_id: str = "") -> None:
        super().__init__(max_bytes)
        self._id = last_event_id
        self._retry: int | None = None
        self._after_cr = False
        # A final LF is held back from the unfinished block, because it may be half of the blank line
        # that ends the block.
        self._held_newline = False
        # Where the last line of it begins, as far as it was searched for comments.
        self._line_start = 0

    @property
    def last_event_id(self) -> str:
        """The last event ID string: what a reconnect would send as ``Last-Event-ID``."""
        return self._id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds; ``None`` while never set."""
        return self._retry

    def split(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the blocks that they complete, perhaps none.

        Does not raise: a block over the limit sets :attr:`error`, and the blocks before it are returned.
        """
        blocks = self.cut(chunk)
        return [] if blocks is None else blocks.split(b"\n\n")

    def cut(self, chunk: bytes) -> bytes | None:
        """The blocks of :meth:`split` in one piece, ``b"\\n\\n"`` between two; ``None`` for no block."""
        if self.error is not None:
            return None
        if self._head is not None:
            chunk = self._drop_byte_order_mark(chunk)
        if self._after_cr or _CR in chunk:
            chunk = self._normalise_line_ends(chunk)
        if self._held_newline and chunk:
            chunk = b"\n" + chunk
            self._held_newline = False
        tail = self._tail
        size = len(tail) + len(chunk)
        blocks: bytes | None
        blocks, blank, rest = chunk.rpartition(b"\n\n")
        if not blank:
            blocks = None
        else:
            if blocks[-1:] == b"\n" and (len(blocks) - len(blocks.rstrip(b"\n"))) % 2:
                # Of three line ends the first two are the blank line; looked for from the right, the
                # last two were found.
                blocks, rest = blocks[:-1], b"\n" + rest
            if tail:
                blocks = bytes(tail) + blocks
                tail.clear()
                self._line_start = 0
        if size > self.max_bytes and blocks is not None:
            blocks = self._within_limit(blocks)
        if rest and self.error is None:
            if rest[-1:] == b"\n":
                rest = rest[:-1]
                self._held_newline = True
            tail += rest
            if len(tail) > self.max_bytes and not self._fits_without_comments():
                self._give_up()
        self.is_between_blocks = not (tail or self._held_newline or self._after_cr or self.error)
        return blocks

    def parse(self, block: bytes) -> Frame | None:
        """Interpret one block; ``None`` if it holds no data (comments, or an id alone).

        Source: WHATWG "interpreting an event stream". Blocks must come in order, once each,
        because the last event ID and the reconnection time stay from one to the next.
        """
        head, _, rest = block.partition(b"\n")
        if head.startswith(b"event: ") and rest.startswith(b"data: ") and b"\n" not in rest:
            # The common block, as every recorded stream has it: two lines, nothing else.
            return Frame(
                head[7:].decode("utf-8", "replace") or "message", rest[6:], self._id, self._retry
            )
        event = last_id = b""
        has_id = False
        # Joined in parts: join() takes 80 bytes for each line.
        data: list[bytes] = []
        parts: list[bytes] = []
        for line in _lines(block):
            name, colon, value = line.partition(b":")
            if colon and not name:
                continue  # a comment
            if value.startswith(b" "):
                value = value[1:]
            if name == b"data":
                data.append(value)
                if len(data) == _LINES_OF_PART:
                    parts.append(b"\n".join(data))
                    data.clear()
            elif name == b"event":
                event = value
            elif name == b"id":
                if b"\0" not in value:
                    last_id, has_id = value, True
            elif name == b"retry" and value.isdigit():
                # bytes.isdigit() is ASCII only, as the standard asks.
                digits = value.lstrip(b"0") or b"0"
                if len(digits) <= _MAX_RETRY_DIGITS:
                    self._retry = int(digits)
        if has_id:
            self._id = last_id.decode("utf-8", "replace")
        if parts:
            data = [*parts, *data]
        if not data:
            return None
        return Frame(
            event.decode("utf-8", "replace") or "message", b"\n".join(data), self._id, self._retry
        )

    def _normalise_line_ends(self, chunk: bytes) -> bytes:
        """CRLF and CR to LF. A CR at the very end counts at once; its LF is dropped if it comes."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _within_limit(self, blocks: bytes) -> bytes | None:
        """The blocks before the first that is too large."""
        kept: list[bytes] = []
        for block in blocks.split(b"\n\n"):
            if len(block) > self.max_bytes:
                block = _without_comments(block)
                if len(block) > self.max_bytes:
                    self._give_up()
                    break
            kept.append(block)
        return b"\n\n".join(kept) if kept else None

    def _fits_without_comments(self) -> bool:
        """Drop the comments of the unfinished block, and tell whether the rest is within the limit.

        A comment that has not ended is dropped as far as it came. Each line is searched once.
        """
        tail, start = self._tail, self._line_start
        last = tail.rfind(b"\n", start) + 1 or start
        kept = _without_comments(bytes(tail[start:last]))
        tail[start:last] = kept
        self._line_start = size = start + len(kept)
        if tail.startswith(b":", size):
            del tail[size + 1 :]
        else:
            size = len(tail)
        if tail.endswith(b"\n", 0, size):
            size -= 1  # it may be half of the blank line
        return size <= self.max_bytes

    def _give_up(self) -> None:
        self._line_start = 0
        super()._give_up()


def _lines(block: bytes) -> Iterable[bytes]:
    """The lines of a block; of a large one in parts, because a line takes more memory than its bytes."""
    return block.split(b"\n") if len(block) <= _PART else _lines_of_parts(block)


def _lines_of_parts(block: bytes) -> Iterator[bytes]:
    start = 0
    while (end := block.find(b"\n", start + _PART)) >= 0:
        yield from block[start:end].split(b"\n")
        start = end + 1
    yield from block[start:].split(b"\n")


def _without_comments(block: bytes) -> bytes:
    return b"\n".join(line for line in block.split(b"\n") if not line.startswith(b":"))


def encode_frame(frame: Frame) -> bytes:
    """The frame's bytes as Chat v2 sends them: LF, one space after the colon.

    The default event type has no ``event:`` line; ``id:`` and ``retry:`` are written when set.

    Raises:
        ValueError: the event type or the id holds a line end, or the data a CR, which no event
            stream can say.
    """
    lines: list[bytes] = []
    if frame.event != "message":
        lines.append(b"event: " + _one_line("event", frame.event))
    if frame.id:
        if "\0" in frame.id:
            raise ValueError("an id with U+0000 in it is ignored by every reader")
        lines.append(b"id: " + _one_line("id", frame.id))
    if frame.retry is not None:
        lines.append(b"retry: %d" % frame.retry)
    if b"\r" in frame.data:
        raise ValueError("data holds a CR, which an event stream cannot carry")
    lines += [b"data: " + line for line in frame.data.split(b"\n")]
    return b"\n".join(lines) + b"\n\n"


def _one_line(name: str, value: str) -> bytes:
    if "\n" in value or "\r" in value:
        raise ValueError(f"{name} holds a line end")
    return value.encode("utf-8")
