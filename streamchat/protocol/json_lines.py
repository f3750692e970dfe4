"""JSON lines to frames: the other framing of a streamed answer, one JSON object in each line.

Chat v2 answers so if the request's ``Accept`` names JSON alone, and gateways do so unasked. There is no
terminator: ``message-end`` is the last line. Source for the format: jsonlines.org; RFC 8259 for its lines.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

from streamchat.protocol.plain import (
    FLAT,
    is_mapping,
    nested_too_deeply,
    repair_surrogates,
)
from streamchat.protocol.sse import BlockDecoder, Frame

__all__ = ["LineDecoder"]


class _Typed(msgspec.Struct):
    type: str | None = None


_decode_type = msgspec.json.Decoder(_Typed).decode


class LineDecoder(BlockDecoder):
    """Cut a body of JSON lines into frames, incrementally.

    Args:
        max_bytes: the largest line, in bytes without its line end; 16 MiB by default.

    A frame's ``data`` is its line, and its ``event`` the object's ``type``, ``message`` if it has none:
    the same frames as of an event stream with the same events. Empty lines are skipped. A frame is out
    as soon as the LF of its line is in; :meth:`finish` returns the last one if its LF never came.
    """

    __slots__ = ()

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
        return [line] if _is_whole(line) else []

    def parse(self, line: bytes) -> Frame | None:
        """The frame of one line; ``None`` for an empty one."""
        if not line:
            return None
        return Frame(_type_of(line) or "message", line)


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON value and not the beginning of one."""
    try:
        _loads(line)
    except ValueError:
        return False
    return True


def _type_of(line: bytes) -> str:
    """The ``type`` of an event's JSON object; empty if it has none, or none that an event line can say."""
    name: object
    try:
        if len(line) <= FLAT or not nested_too_deeply(line):
            name = _decode_type(line).type
        else:
            return ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        name = None
    if name is None:
        try:
            data = _loads(line)
        except ValueError:
            return ""
        name = data.get("type") if is_mapping(data) else None
    if not isinstance(name, str) or "\n" in name or "\r" in name:
        return ""
    return repair_surrogates(name)


def _loads(line: bytes) -> Any:
    """A JSON value without a look at its numbers; half an emoji and broken bytes are forgiven.

    Raises:
        ValueError: not JSON, or nested too deeply.
    """
    if nested_too_deeply(line):
        raise ValueError("nested too deeply")
    text = line.decode("utf-8", "replace")
    return json.loads(text, parse_int=len, parse_float=len, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
