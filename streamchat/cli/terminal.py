"""What reaches the terminal: text made harmless, and two channels that share one screen."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from functools import cache
from typing import TextIO

__all__ = ["Channel", "Screen", "one_line", "visible", "visible_json", "visible_name"]

_REPLACEMENT = 0xFFFD
_IGNORABLE = (
    # Default_Ignorable_Code_Point of UAX #44: a terminal shows nothing, or reorders what stands around
    # it. They hide text (tags, variation selectors, zero-width characters) and fake it (the
    # bidirectional marks, overrides and isolates of CVE-2021-42574).
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
    # Line and paragraph separators, interlinear annotations.
    *(0x2028, 0x2029, *range(0xFFF9, 0xFFFC)),
)
_NAME: Mapping[int, int] = {
    # C0 has pictures (U+2400...). Without ESC there is no escape sequence, however it is split over
    # the pieces of an answer.
    **{code: 0x2400 + code for code in range(0x20)},
    0x7F: 0x2421,
    # C1: some terminals take U+009B for ESC [ and U+009D for ESC ], which OSC 52 begins with.
    **dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT),
    **dict.fromkeys(_IGNORABLE, _REPLACEMENT),
    # Half an emoji cannot be encoded.
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),
}
_WRITTEN = {
    # Line ends and tabs are text; Persian and the Indic scripts are written with ZWNJ and ZWJ, emoji
    # with ZWJ and the variation selectors 15 and 16.
    *map(ord, "\t\n\u200c\u200d\ufe0e\ufe0f")
}
_TEXT: Mapping[int, int] = {code: shown for code, shown in _NAME.items() if code not in _WRITTEN}


def visible(text: str) -> str:
    """The text with each character that could control a terminal, or hide on it, replaced by a visible one.

    Character by character, so the pieces of a text may be given one at a time.
    """
    return text if _is_plain(text) else text.translate(_TEXT)


def visible_name(name: object) -> str:
    """A path or title in one line: as :func:`visible`, and line ends, tabs and joiners too."""
    text = str(name)
    return text if _is_plain(text) else text.translate(_NAME)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def visible_json(line: str) -> str:
    """A JSON text with the same characters escaped instead: it decodes to the same data."""
    return line if _is_plain(line) else line.translate(_json_escapes())


@cache
def _json_escapes() -> Mapping[int, str]:
    return {code: json.dumps(chr(code))[1:-1] if code != 0x7F else "\\u007f" for code in _TEXT}


def one_line(text: str) -> str:
    """The text with each run of white space as one space: a title cannot fake a line of ours."""
    return " ".join(text.split())


class Channel:
    """stdout or stderr: harmless and styled on a terminal, untouched and plain elsewhere.

    Each write is flushed. Raises ``OSError`` when the stream cannot be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # Python sets a stream to None that was closed by whoever started us (`2>&-`).
        self._stream = stream
        self.is_open = stream is not None
        self.is_terminal = stream is not None and stream.isatty()
        self._is_styled = self.is_terminal and _takes_styles(stream)
        self._in_line = False
        if isinstance(stream, io.TextIOWrapper):
            # What the locale cannot say is a question mark, not a traceback.
            stream.reconfigure(errors="replace")

    def write(self, text: str, style: str = "") -> None:
        """Write text as it is, in a rich style where the terminal takes it."""
        if not text or self._stream is None:
            return
        self._in_line = not text.endswith("\n")
        if self.is_terminal:
            text = visible(text)
        self._stream.write(_styled(text, style) if style and self._is_styled else text)
        self._stream.flush()

    def write_json(self, line: bytes) -> None:
        """Write a line of JSON: UTF-8 whatever the locale, JSON's own escapes on a terminal."""
        if self._stream is None:
            return
        if self.is_terminal:
            line = visible_json(line.decode()).encode()
        self._stream.buffer.write(line + b"\n")
        self._stream.flush()

    def end_line(self) -> None:
        """Begin a new line unless one has just begun."""
        if self._in_line:
            self.write("\n")


class Screen:
    """Both channels of this process: the answer goes to ``out``, all else to ``err``.

    Args:
        answers: whether the answer goes to stdout, and not to a file.

    Raises:
        OSError: it does, and stdout is closed.
    """

    def __init__(self, *, answers: bool = True) -> None:
        self.out = Channel(sys.stdout)
        if answers and not self.out.is_open:
            raise OSError("standard output is closed: there is nowhere to answer")
        self.err = Channel(sys.stderr)
        self._is_shared = self.out.is_terminal and self.err.is_terminal

    def say(self, text: str, style: str = "") -> None:
        """Write a piece of the answer."""
        if text:
            self.err.end_line()
        self.out.write(text, style)

    def remark(self, text: str, style: str = "dim") -> None:
        """Write a piece of what is not the answer."""
        # Only where both are seen: a file gets the answer's own line ends and no others.
        if text and self._is_shared:
            self.out.end_line()
        self.err.write(text, style)

    def note(self, text: str) -> None:
        """Write a line of what is not the answer."""
        self.err.end_line()
        self.remark(f"{text}\n")

    def end_lines(self) -> None:
        """Begin a new line on both."""
        self.out.end_line()
        self.err.end_line()


def _takes_styles(stream: TextIO | None) -> bool:
    """Whether the terminal has styles (``TERM``) and its owner wants them (``NO_COLOR``)."""
    from rich.console import Console  # here: a pipe does not pay for the import

    console = Console(file=stream)
    return console.color_system is not None and not console.no_color


def _styled(text: str, style: str) -> str:
    """The text between the style's escape sequences; each piece is complete in itself, so that the
    terminal is left as it was wherever the answer ends."""
    from rich.style import Style

    return Style.parse(style).render(text)
