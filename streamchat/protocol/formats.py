"""Types that JSON holds as text: dates, durations, UUIDs, ``Decimal``, bytes, paths.

The classes are known by name: the core imports neither clocks nor paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from streamchat.protocol.kinds import Formatted, Misfit, Schema, is_usable

__all__ = ["bounded_decimal", "formatted"]

MAX_LENGTH = 128
"""Characters of a date, a duration or a UUID."""
MAX_DIGITS = 10_000
"""Characters of a ``Decimal``."""

_DATE = r"\d{4}-\d\d-\d\d"
_OFFSET = r"(?P<offset>[Zz]|[+-]\d\d:\d\d)?"
_TIME = rf"(?P<minutes>\d\d:\d\d)(?P<seconds>:\d\d(?:\.\d+)?)?{_OFFSET}"
_DATES = re.compile(_DATE, re.ASCII)
_TIMES = re.compile(_TIME, re.ASCII)
_MOMENTS = re.compile(rf"(?P<date>{_DATE})[Tt ]{_TIME}", re.ASCII)
_PART = r"(\d{1,18}(?:[.,]\d{1,18})?)"
_DURATIONS = re.compile(
    rf"([+-])?P(?=.)(?:{_PART}W)?(?:{_PART}D)?"
    rf"(?:T(?=.)(?:{_PART}H)?(?:{_PART}M)?(?:{_PART}S)?)?",
    re.ASCII,
)
_UUIDS = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DECIMALS = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,9})?", re.ASCII)


def _date(cls: Any, text: str, strict: bool) -> Any:
    if not _DATES.fullmatch(text):
        raise ValueError
    return cls.fromisoformat(text)


def _clock(match: re.Match[str] | None, strict: bool) -> tuple[str, bool]:
    """The time of day as Python reads it, and whether it was a leap second (RFC 3339, 5.6)."""
    if match is None or (strict and not match["seconds"]):
        raise ValueError
    seconds = match["seconds"] or ":00"
    is_leap = seconds.startswith(":60")
    offset = (match["offset"] or "").upper()
    return f"{match['minutes']}{':59' if is_leap else seconds[:10]}{offset}", is_leap


def _moment(cls: Any, text: str, strict: bool) -> Any:
    match = _MOMENTS.fullmatch(text)
    clock, is_leap = _clock(match, strict)
    read = cls.fromisoformat(f"{match['date']}T{clock}")  # type: ignore[index]
    # A leap second is the first second of the next minute, as POSIX counts it.
    return read + (read.replace(second=1) - read.replace(second=0)) if is_leap else read


def _time(cls: Any, text: str, strict: bool) -> Any:
    clock, is_leap = _clock(_TIMES.fullmatch(text), strict)
    read = cls.fromisoformat(clock)
    if not is_leap:
        return read
    minutes = (read.hour * 60 + read.minute + 1) % (24 * 60)
    return read.replace(hour=minutes // 60, minute=minutes % 60, second=0)


def _duration(cls: Any, text: str, strict: bool) -> Any:
    match = _DURATIONS.fullmatch(text)
    if match is None:
        if text.lstrip("+-").startswith("P") and set("YM") & set(text.partition("T")[0]):
            raise Misfit("a duration in years or months, which have no fixed length")
        raise ValueError
    sign, *parts = match.groups()
    numbers = [_number(part) for part in parts]
    names = ("weeks", "days", "hours", "minutes", "seconds")
    read = cls(**dict(zip(names, numbers, strict=True)))
    return -read if sign == "-" else read


def _number(text: str | None) -> float:
    if text is None:
        return 0
    return int(text) if text.isdigit() else float(text.replace(",", "."))


def _uuid(cls: Any, text: str, strict: bool) -> Any:
    if not _UUIDS.fullmatch(text):
        raise ValueError
    return cls(text)


def _decimal(cls: Any, text: str, strict: bool) -> Any:
    if not _DECIMALS.fullmatch(text):
        raise ValueError
    return _usable(cls(text))


def _decimal_of(number: float) -> Decimal:
    return _usable(Decimal(number if isinstance(number, int) else repr(number)))


def _usable(number: Decimal) -> Decimal:
    if not is_usable(number):
        raise Misfit("a number that is out of range")
    return number


def _bytes(cls: Any, text: str, strict: bool) -> Any:
    try:
        return msgspec.convert(text, cls)
    except msgspec.ValidationError:
        pass
    raise ValueError


def _path(cls: Any, text: str, strict: bool) -> Any:
    if "\0" in text:
        raise ValueError
    return cls(text)


def _text(name: str, **more: str) -> Schema:
    return {"type": "string", "format": name, **more}


_Parse = Callable[[Any, str, bool], Any]
_FORMATS: dict[str, tuple[Schema, _Parse, str]] = {
    "datetime.datetime": (_text("date-time"), _moment, "a date and time (RFC 3339)"),
    "datetime.date": (_text("date"), _date, "a date (RFC 3339)"),
    "datetime.time": (_text("time"), _time, "a time (RFC 3339)"),
    "datetime.timedelta": (_text("duration"), _duration, "a duration (ISO 8601)"),
    "uuid.UUID": (_text("uuid"), _uuid, "a UUID (RFC 9562)"),
    "decimal.Decimal": (_text("decimal"), _decimal, "a decimal number"),
    "builtins.bytes": (
        _text("byte", contentEncoding="base64"),
        _bytes,
        "a string in base64 (RFC 4648)",
    ),
    "builtins.bytearray": (
        _text("byte", contentEncoding="base64"),
        _bytes,
        "a string in base64 (RFC 4648)",
    ),
}
_PATHS = {"PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath"}


def formatted(cls: type[Any]) -> Formatted | None:
    """The kind of a class that JSON holds as text; ``None`` if it is none of them."""
    if cls.__module__.partition(".")[0] == "pathlib" and cls.__name__ in _PATHS:
        return Formatted(_text("path"), lambda text, strict: _path(cls, text, strict), "a path")
    found = _FORMATS.get(f"{cls.__module__}.{cls.__qualname__}")
    if found is None:
        return None
    schema, parse, what = found
    numbers = _decimal_of if cls is Decimal else None
    limit = None if "contentEncoding" in schema else MAX_DIGITS if numbers else MAX_LENGTH
    return Formatted(
        schema, lambda text, strict: parse(cls, text, strict), what, numbers=numbers, limit=limit
    )


def bounded_decimal() -> Formatted:
    """A ``Decimal`` with bounds: a JSON number, because text has no ``minimum``."""
    _, parse, what = _FORMATS["decimal.Decimal"]
    return Formatted(
        {"type": "number"},
        lambda text, strict: parse(Decimal, text, strict),
        what,
        numbers=_decimal_of,
        limit=MAX_DIGITS,
    )
