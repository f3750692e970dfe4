"""Header values that a server may quote, taken out of errors; imports the credentials only.

Masked are the API key and every header value of 8 or more characters that the caller gave; of a value
such as ``Bearer x`` that is ``x``, and of ``Basic x`` also what it encodes. They are found as
they are, with the escapes of JSON, URLs and HTML, in base64, and cut off. Not masked are the client's
own values and the headers of :data:`PUBLIC_HEADERS`: their values are words such as
``application/json``, and errors would be hard to read without them.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs

from streamchat.credentials import Secret, reveal

__all__ = ["MASK", "PUBLIC_HEADERS", "Mask"]

MASK = "<key>"
SHORTEST = 8
"""Shorter values are not masked: they could match ordinary text."""
PUBLIC_HEADERS = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "content-language",
        "content-type",
        "pragma",
        "user-agent",
        "x-client-name",
    }
)
"""Headers whose values are not secrets, whoever sets them."""
_PUBLIC_VALUES = frozenset({"application/json", "text/event-stream", "keep-alive", "no-cache"})
_SCHEME = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) +(\S+)")
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_HEAD = 8
"""Characters that start a search; the shortest piece that is masked at the end of a text."""
_PIECE = 12
"""The shortest piece that is masked in the middle of a text, where at least half of a value is."""
_MAX_STEPS = 20_000
"""Characters compared for one value in one text; 20 ms."""
_TAIL = "\"'}]). \n"
_MAX_TAIL = 16
"""What may follow a value that was cut off at the end of a text, beside ``...``, and how much."""


class Mask:
    """What an error must not quote: the secret values among the headers of a request.

    Made when there is an error; nothing is done for requests that succeed.
    """

    __slots__ = ("_values",)

    def __init__(self, sent: Mapping[str, str]) -> None:
        self._values = tuple(dict.fromkeys(_values(sent)))

    def text(self, text: str) -> str:
        """The text with each secret value, whole or cut off, replaced by ``<key>``."""
        for value in self._values:
            text = _masked(text, value)
        return text

    def data(self, data: bytes) -> bytes:
        """The same for bytes, which need not be UTF-8."""
        if not self._values:
            return data
        # Secret values are ASCII, and Latin-1 is a code point for each byte.
        return self.text(data.decode("latin-1")).encode("latin-1")

    def any(self, value: Any) -> Any:
        """The same for text and bytes, and for those in a list or a dict; others as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.data(value)
        if value.__class__ is list:
            return [self.any(each) for each in value]
        if value.__class__ is dict:
            return {self.any(name): self.any(each) for name, each in value.items()}
        return value

    def __repr__(self) -> str:
        return f"<Mask of {len(self._values)}>"


@attrs.frozen
class _Searched:
    """A secret value, and how it is looked for."""

    value: Secret
    is_escaped: bool
    """Whether it is looked for with its characters escaped: one more search of the text."""


def _values(sent: Mapping[str, str]) -> Iterator[_Searched]:
    """The secret values of the headers, longer ones before those that they contain."""
    for name, value in sent.items():
        # Values of the client's own are plain text; the key and the caller's values are secrets.
        name = name.lower()
        if name == "authorization" or (isinstance(value, Secret) and name not in PUBLIC_HEADERS):
            yield from _parts(Secret(value))


@lru_cache(maxsize=64)
def _parts(value: Secret) -> tuple[_Searched, ...]:
    """What to look for; kept, because many errors may come from one client."""
    found = [Secret(reveal(value).strip(" "))]
    match = _SCHEME.fullmatch(reveal(found[0]))
    if match is not None and len(match[2]) >= SHORTEST:
        # The token alone: "Bearer <key>" says more than "<key>", and "Bearer t" is no piece of a key.
        found = [Secret(match[2])]
        if match[1].lower() == "basic":
            found += _credentials(found[0])
    del match  # a traceback shows local variables
    parts: list[_Searched] = []
    for part in found:
        if len(reveal(part)) >= SHORTEST and reveal(part).lower() not in _PUBLIC_VALUES:
            parts.append(_Searched(part, is_escaped=True))
            parts += (_Searched(each, is_escaped=False) for each in _base64(part))
    return tuple(dict.fromkeys(parts))


def _credentials(token: Secret) -> list[Secret]:
    """``user:password`` and ``password`` from the token of RFC 7617."""
    try:
        pair = Secret(b64decode(reveal(token), validate=True).decode("latin-1"))
    except ValueError:
        return []
    return [pair, Secret(reveal(pair).partition(":")[2])]


def _base64(value: Secret) -> Iterator[Secret]:
    """Its base64 in the three ways it can lie in longer data, both alphabets, without the characters
    at either end that depend on what surrounds it."""
    for before in range(3):
        size = before + len(reveal(value))
        part = slice(-(-before * 8 // 6), size * 8 // 6)
        for altchars in (b"+/", b"-_"):
            code = Secret(
                b64encode(bytes(before) + reveal(value).encode("latin-1"), altchars).decode()[part]
            )
            yield code
            yield Secret(reveal(code).replace("/", "\\/"))


def _masked(text: str, searched: _Searched) -> str:
    """The text without the value, escaped or not.

    A text that holds thousands of near copies of the value is cut short, so that a server that fills
    megabytes with them does not hold the event loop.
    """
    text = text.replace(reveal(searched.value), MASK)
    if reveal(searched.value)[:_HEAD] not in text and not (
        searched.is_escaped and any(each in text for each in _escapes(searched.value))
    ):
        return text
    head = _head_pattern(searched.value)
    pieces: list[str] = []
    done = at = steps = 0
    while (match := head.search(text, at)) is not None:
        at = match.end()
        end, size = _end_of_value(text, at, searched.value)
        steps += size
        if steps > _MAX_STEPS:
            return "".join([*pieces, text[done : match.start()], MASK, "..."])
        if end:
            pieces += (text[done : match.start()], MASK)
            done = at = end
    return "".join([*pieces, text[done:]]) if pieces else text


def _end_of_value(text: str, at: int, value: Secret) -> tuple[int, int]:
    """Where a value ends whose first 8 characters end at ``at``, 0 if it is not the value; and how
    many of its characters are there."""
    size, length = _HEAD, len(reveal(value))
    while size < length:
        match = _char_pattern(reveal(value)[size]).match(text, at)
        if match is None:
            break
        at, size = match.end(), size + 1
    is_last = len(text) - at <= _MAX_TAIL and not text[at:].removeprefix("...").strip(_TAIL)
    is_value = size == length or is_last or (size >= _PIECE and 2 * size >= length)
    return (at if is_value else 0), size


@lru_cache(maxsize=128)
def _escapes(value: Secret) -> tuple[str, ...]:
    """What a text holds if it holds the first 8 characters with an escape among them."""
    found = {"&#"}
    for char in reveal(value)[:_HEAD]:
        number = ord(char)
        found |= {f"u00{number:02x}", f"u00{number:02X}", f"%{number:02x}", f"%{number:02X}"}
        if char in '/"\\':
            found.add("\\" + char)
        if char in _NAMED:
            found.add(f"&{_NAMED[char]};")
    return tuple(found)


@lru_cache(maxsize=128)
def _head_pattern(value: Secret) -> re.Pattern[str]:
    return re.compile("".join(map(_char, reveal(value)[:_HEAD])))


@lru_cache(maxsize=256)
def _char_pattern(char: str) -> re.Pattern[str]:
    return re.compile(_char(char))


def _char(char: str) -> str:
    """A pattern for a character as it is, or escaped as JSON, a URL or HTML does.

    Backslashes are up to four, for JSON inside JSON.
    """
    number = ord(char)
    ways = [
        rf"\\{{1,4}}u00(?i:{number:02x})",
        f"%(?i:{number:02x})",
        f"&#0{{0,4}}{number};",
        f"&#[xX]0{{0,4}}(?i:{number:x});",
    ]
    if char in '/"\\':
        ways.append(r"\\{1,4}" + re.escape(char))
    if char in _NAMED:
        ways.append(f"&{_NAMED[char]};")
    return f"(?:{'|'.join(ways)}|{re.escape(char)})"
