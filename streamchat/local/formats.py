"""JSON Schema's ``format``: whether a text has it, and texts that have it. Imports nothing of ours."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation

__all__ = ["base64_of", "example_of_format", "fits_format"]

_FIRST_DAY = date(2026, 1, 1)
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_PATTERNS = {
    "date-time": r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)",
    "date": r"\d{4}-\d\d-\d\d",
    "time": r"\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)",
    "duration": (
        r"P(?!$)(\d{1,9}W|(\d{1,9}Y)?(\d{1,9}M)?(\d{1,9}D)?"
        r"(T(?!$)(\d{1,9}H)?(\d{1,9}M)?(\d{1,9}(\.\d{1,9})?S)?)?)"
    ),
    "email": rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(\.{_LABEL}){{0,8}}",
    "hostname": rf"{_LABEL}(\.{_LABEL}){{0,20}}",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]{0,30}:[!#-;=?-\[\]_a-z~]{1,2000}",
    "uri-reference": r"[!#-;=?-\[\]_a-z~]{0,2000}",
    "multi-host-uri": r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[!#-;=?-\[\]_a-z~]{1,2000}",
    "json-pointer": r"(/([^~/]|~[01]){0,2000}){0,20}",
} | {
    f"uuid{version}": rf"[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}"
    r"-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    for version in range(1, 9)
}
_COMPILED = {name: re.compile(pattern) for name, pattern in _PATTERNS.items()}
_ALIASES = {
    "datetime": "date-time",
    "timestamp": "date-time",
    "idn-email": "email",
    "idn-hostname": "hostname",
    "url": "uri",
    "iri": "uri",
    "uri-template": "uri",
    "iri-reference": "uri-reference",
    "byte": "base64",
}
_CHECKED_LENGTH = 3_000


def _kind_of(stated: object) -> str:
    kind = stated.casefold() if isinstance(stated, str) else ""
    return _ALIASES.get(kind, kind)


def fits_format(stated: object, text: str) -> bool:
    """Whether the text has the format; True for formats that are not known."""
    kind = _kind_of(stated)
    if kind in _COMPILED and (
        len(text) > _CHECKED_LENGTH or not _COMPILED[kind].fullmatch(text) or not text.isascii()
    ):
        return False
    check = _CHECKS.get(kind)
    try:
        if check is not None:
            check(text)
    except (ValueError, InvalidOperation, binascii.Error):
        return False
    return True


def _plain_decimal(text: str) -> None:
    if len(text) > _CHECKED_LENGTH or not Decimal(text).is_finite():
        raise ValueError("not a finite number")


_CHECKS: dict[str, Callable[[str], object]] = {
    "date-time": lambda text: datetime.fromisoformat(_six_digits(text.upper())),
    "date": date.fromisoformat,
    "time": lambda text: time.fromisoformat(_six_digits(text.upper())),
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "decimal": _plain_decimal,
    "base64": lambda text: base64.b64decode(text, validate=True),
    "base64url": lambda text: base64.b64decode(text, b"-_", validate=True),
    "ipvanyaddress": ipaddress.ip_address,
    "ipvanynetwork": ipaddress.ip_network,
    "ipvanyinterface": ipaddress.ip_interface,
    "ipv4network": ipaddress.IPv4Network,
    "ipv6network": ipaddress.IPv6Network,
    "ipv4interface": ipaddress.IPv4Interface,
    "ipv6interface": ipaddress.IPv6Interface,
}
"""Beside those of JSON Schema, the formats that pydantic writes."""


def _six_digits(text: str) -> str:
    """A time with at most the six digits of a second that Python reads."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)


def base64_of(count: int, variant: int = 0) -> str:
    """The base64 of so many bytes; it is the same in its variant for URLs.

    Args:
        count: bytes.
        variant: another number gives another text, while there are others.
    """
    number = str(variant) if variant else ""
    if len(number) > count:
        return base64.b64encode((variant % 256**count).to_bytes(count)).decode()
    text = f"text{number}" if count >= 4 + len(number) else f"{number}text"
    return base64.b64encode((text + " and more" * (count // 9))[:count].encode()).decode()


def example_of_format(stated: object, variant: int = 0) -> str | None:
    """A text in the format; None for formats that are not known.

    Args:
        stated: the ``format`` of a schema.
        variant: another number gives another text.
    """
    kind = _kind_of(stated)
    number = str(variant) if variant else ""
    day = _FIRST_DAY + timedelta(days=variant % 300_000)
    clock = f"{(12 + variant // 3600) % 24:02}:{variant // 60 % 60:02}:{variant % 60:02}Z"
    match kind:
        case "date-time":
            return f"{day}T12:00:00Z"
        case "date":
            return str(day)
        case "time":
            return clock
        case "duration":
            return f"PT{variant + 1}H"
        case "email":
            return f"someone{number}@example.com"
        case "hostname":
            return f"{f'host{number}.' if number else ''}example.com"
        case "uri" | "uri-reference":
            return f"https://example.com/{number}"
        case "uuid" | "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5" | "uuid6" | "uuid7" | "uuid8":
            version = int(kind[4:] or 4)
            return str(uuid.UUID(int=(version << 76) | (0x8 << 60) | (variant % 2**60)))
        case "ipv4" | "ipvanyaddress":
            return str(ipaddress.IPv4Address(0xC0000201 + variant % 250))
        case "ipv6":
            return str(ipaddress.IPv6Address((0x20010DB8 << 96) + 1 + variant))
        case "ipv4network" | "ipvanynetwork":
            return f"{ipaddress.IPv4Address(0x0A000000 + (variant % 60_000 << 8))}/24"
        case "ipv6network":
            return f"{ipaddress.IPv6Address((0x20010DB8 << 96) + (variant % 60_000 << 80))}/48"
        case "ipv4interface" | "ipvanyinterface":
            return f"{ipaddress.IPv4Address(0xC0000201 + variant % 250)}/24"
        case "ipv6interface":
            return f"{ipaddress.IPv6Address((0x20010DB8 << 96) + 1 + variant)}/48"
        case "multi-host-uri":
            return f"postgres://user@example.com:5432/data{number}"  # the likeliest of schemes
        case "json-pointer":
            return f"/text{number}"
        case "regex":
            return f"text{number}"
        case "decimal":
            return f"{variant + 1}.5"
        case "base64" | "base64url":
            return base64_of(4 + len(number), variant)
        case _:
            return None
