"""A slow event stream decoder, straight from the standards: a byte, a code point, a line at a time.

Source: Encoding standard, "UTF-8 decoder"; HTML standard, 9.2.5 and 9.2.6. It shares no line with
``streamchat.protocol.sse`` and uses none of Python's own decoding or splitting.
"""

from __future__ import annotations

from collections.abc import Iterator

REPLACEMENT = "\ufffd"


class Utf8:
    """The UTF-8 decoder of the Encoding standard, error mode "replacement"."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.code_point = 0
        self.seen = 0
        self.needed = 0
        self.lower = 0x80
        self.upper = 0xBF

    def push(self, byte: int) -> Iterator[str]:
        if self.needed == 0:
            if byte <= 0x7F:
                yield chr(byte)
            elif 0xC2 <= byte <= 0xDF:
                self.needed = 1
                self.code_point = byte & 0x1F
            elif 0xE0 <= byte <= 0xEF:
                if byte == 0xE0:
                    self.lower = 0xA0
                if byte == 0xED:
                    self.upper = 0x9F
                self.needed = 2
                self.code_point = byte & 0xF
            elif 0xF0 <= byte <= 0xF4:
                if byte == 0xF0:
                    self.lower = 0x90
                if byte == 0xF4:
                    self.upper = 0x8F
                self.needed = 3
                self.code_point = byte & 0x7
            else:
                yield REPLACEMENT
            return
        if not self.lower <= byte <= self.upper:
            self._reset()
            yield REPLACEMENT
            yield from self.push(byte)  # "restore byte to ioQueue"
            return
        self.lower, self.upper = 0x80, 0xBF
        self.code_point = (self.code_point << 6) | (byte & 0x3F)
        self.seen += 1
        if self.seen == self.needed:
            code_point = self.code_point
            self._reset()
            yield chr(code_point)


Dispatched = tuple[str, str, str, int | None]
"""Event type, data, last event ID, reconnection time."""


class ReferenceDecoder:
    """``push`` one byte, get the events that it dispatches: none or one."""

    def __init__(self, last_event_id: str = "") -> None:
        self.utf8 = Utf8()
        self.at_start = True
        self.after_cr = False
        self.line = ""
        self.data = ""
        self.event_type = ""
        self.id_buffer = last_event_id
        self.last_event_id = last_event_id
        self.reconnection_time: int | None = None

    def push(self, byte: int) -> Iterator[Dispatched]:
        for character in self.utf8.push(byte):
            yield from self._character(character)

    def _character(self, character: str) -> Iterator[Dispatched]:
        if self.at_start:
            self.at_start = False
            if character == "\ufeff":
                return  # "One leading U+FEFF BYTE ORDER MARK character must be ignored"
        if self.after_cr:
            self.after_cr = False
            if character == "\n":
                return
        if character in ("\r", "\n"):
            self.after_cr = character == "\r"
            line, self.line = self.line, ""
            yield from self._line(line)
        else:
            self.line += character

    def _line(self, line: str) -> Iterator[Dispatched]:
        if line == "":
            yield from self._dispatch()
        elif line[0] == ":":
            pass
        elif ":" in line:
            colon = line.index(":")
            value = line[colon + 1 :]
            if value[:1] == " ":
                value = value[1:]
            self._field(line[:colon], value)
        else:
            self._field(line, "")

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self.event_type = value
        elif name == "data":
            self.data += value + "\n"
        elif name == "id":
            if "\0" not in value:
                self.id_buffer = value
        elif name == "retry" and value and all(digit in "0123456789" for digit in value):
            self.reconnection_time = int(value)

    def _dispatch(self) -> Iterator[Dispatched]:
        self.last_event_id = self.id_buffer
        data, event_type = self.data, self.event_type
        self.data = self.event_type = ""
        if data == "":
            return
        yield (event_type or "message", data[:-1], self.last_event_id, self.reconnection_time)


def decode_slowly(body: bytes, last_event_id: str = "") -> tuple[list[Dispatched], list[int]]:
    """The events of a body, and for each the number of bytes after which it was out."""
    decoder = ReferenceDecoder(last_event_id)
    events, offsets = [], []
    for offset, byte in enumerate(body, start=1):
        for event in decoder.push(byte):
            events.append(event)
            offsets.append(offset)
    return events, offsets


class ReferenceLimit:
    """``push`` one byte, get the bytes of the unfinished block that count towards a limit.

    Lines count with LF as their end; the blank line at the end and comments do not count.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.line = b""
        self.after_cr = False

    def push(self, byte: int) -> int:
        if self.after_cr and byte == 0x0A:
            self.after_cr = False
        elif byte in b"\r\n":
            self.after_cr = byte == 0x0D
            if self.line or not self.lines:
                self.lines.append(self.line)
            else:
                self.lines = []
            self.line = b""
        else:
            self.after_cr = False
            self.line += bytes([byte])
        unfinished = [self.line] if self.line else []
        counted = [line for line in self.lines + unfinished if not line.startswith(b":")]
        return len(b"\n".join(counted))


def decode_slowly_within(body: bytes, limit: int) -> tuple[list[Dispatched], bool]:
    """The events before the first block that passes the limit, and whether one does."""
    counter = ReferenceLimit()
    events, offsets = decode_slowly(body)
    start = 3 if body.startswith(b"\xef\xbb\xbf") else 0
    for offset, byte in enumerate(body[start:], start=start + 1):
        if counter.push(byte) > limit:
            return [event for event, out in zip(events, offsets, strict=True) if out < offset], True
    return events, False
