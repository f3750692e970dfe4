"""JSON lines to frames: the other framing of a streamed answer, one JSON object in each line.

Chat v2 answers so if the request's ``Accept`` names JSON alone, and gateways do so unasked. There is no
terminator: ``message-end`` is the last line. Source for the format: jsonlines.org; RFC 8259 for its lines.
"""

from __future__ import annotations

import msgspec

from streamchat.protocol.errors import FrameTooLargeError
from streamchat.protocol.sse import DEFAULT_MAX_BYTES, Frame

__all__ = ["LineDecoder"]

_BOM = b"\xef\xbb\xbf"


class _Typed(msgspec.Struct):
    type: str | None = None


_decode_type = msgspec.json.Decoder(_Typed).decode


class LineDecoder:
    """Cut a body of JSON lines into frames, incrementally.

    Args:
        max_bytes: the largest line, in bytes without its line end; 16 MiB by default.

    A frame's ``data`` is its line, and its ``event`` the object's ``type``, ``message`` if it has none:
    the same frames as of an event stream with the same events. Empty lines are skipped. A frame is out
    as soon as the LF of its line is in; :meth:`finish` returns the last one if its LF never came.
    """

    __slots__ = ("_head", "_tail", "error", "is_between_blocks", "max_bytes")

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self.max_bytes = max_bytes
        """The largest line, in bytes."""
        # The start of the body while it may still be a byte order mark; None afterwards.
        self._head: bytes | None = b""
        self._tail = bytearray()
        self.is_between_blocks = False
        """Whether the last chunk ended with a line."""
        self.error: FrameTooLargeError | None = None
        """Set by :meth:`split` when a line passed the limit; the decoder is then of no use."""

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete, perhaps none.

        Raises:
            FrameTooLargeError: a line passed the limit. Its ``frames`` holds what this chunk completed
                before. Every later call raises it too.
        """
        frames = self._frames(self.split(chunk))
        if self.error is not None:
            error, self.error = self.error, FrameTooLargeError(limit=self.max_bytes)
            error.frames = frames
            raise error
        return frames

    def finish(self) -> list[Frame]:
        """The body has ended: the frame of a last line without LF, if that is a whole JSON value."""
        return self._frames(self.rest())

    def split(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the lines that they complete, perhaps none.

        Does not raise: a line over the limit sets :attr:`error`, and the lines before it are returned.
        """
        if self.error is not None:
            return []
        if self._head is not None:
            chunk = self._drop_byte_order_mark(chunk)
        lines, end, rest = chunk.rpartition(b"\n")
        complete: list[bytes] = []
        if end:
            if self._tail:
                lines = bytes(self._tail) + lines
                self._tail.clear()
            for line in lines.split(b"\n"):
                line = line.removesuffix(b"\r")
                if len(line) > self.max_bytes:
                    self._give_up()
                    return complete
                if line and not line.isspace():
                    complete.append(line)
        self._tail += rest
        if len(self._tail) - self._tail.endswith(b"\r") > self.max_bytes:
            self._give_up()
        self.is_between_blocks = not (self._tail or self.error)
        return complete

    def rest(self) -> list[bytes]:
        """The body has ended: its last line, if its LF is all that it lacks."""
        line = bytes(self._tail).removesuffix(b"\r")
        self._tail.clear()
        try:
            msgspec.json.decode(line, type=msgspec.Raw)
        except msgspec.DecodeError:
            return []  # cut off
        return [line]

    def parse(self, line: bytes) -> Frame | None:
        """The frame of one line; ``None`` for an empty one."""
        if not line:
            return None
        try:
            name = _decode_type(line).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            name = None
        return Frame(name or "message", line)

    def _frames(self, lines: list[bytes]) -> list[Frame]:
        return [frame for line in lines if (frame := self.parse(line)) is not None]

    def _drop_byte_order_mark(self, chunk: bytes) -> bytes:
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
