"""JSON of unknown shape, read as the shape that is hoped for; imports ``streamchat.protocol``.

What does not fit reads as empty: bodies were checked before, and a model is no place to fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from streamchat.protocol.plain import decode_json, to_plain

__all__ = ["characters", "list_or_empty", "object_or_empty", "parse_json", "strings_in"]

JSON_LIMIT = 200_000
"""Code points of a text that is still read as JSON."""
JSON_DEPTH = 50
"""Nesting of JSON inside a text that is still read as JSON."""


def object_or_empty(value: Any) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def list_or_empty(value: Any) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return list(cast("list[Any]", value)) if isinstance(value, list | tuple) else []


def strings_in(value: Any) -> list[str]:
    """The strings of a JSON array; none if it is something else."""
    return [item for item in list_or_empty(value) if isinstance(item, str)]


def parse_json(text: str) -> Any:
    """The value of a JSON text; ``None`` for all other texts and for one too long or too deep."""
    if len(text) > JSON_LIMIT:
        return None
    try:
        value = to_plain(decode_json(text))
    except ValueError:
        return None
    return value if _depth(value) <= JSON_DEPTH else None


def _depth(value: Any) -> int:
    inner = [*object_or_empty(value).values(), *list_or_empty(value)]
    return 1 + max(map(_depth, inner), default=0)


def characters(value: Any) -> int:
    """The length of all text inside a value; keys and inlined images do not count."""
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            total += 0 if item.startswith("data:") else len(item)
        elif isinstance(item, dict):
            waiting += cast("dict[str, Any]", item).values()
        elif isinstance(item, list):
            waiting += item
        else:
            total += item is not None
    return total
