"""Fields of plain JSON objects, read without coercion; ``null`` is absent.

Each function takes the object, the field's name and the object's JSON path, and raises
:class:`Malformed` with the field's path for a value of a wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from streamchat.protocol.plain import is_list, is_mapping, json_name, repair_surrogates

__all__ = [
    "Json",
    "Malformed",
    "array_of",
    "as_float",
    "as_integer",
    "as_object",
    "expected",
    "integer_of",
    "items_of",
    "object_of",
    "raw_text_of",
    "repair",
    "several_of",
    "text_of",
]

Json = Mapping[str, Any]


class Malformed(Exception):
    """Data that has no meaning; the codec turns it into a :class:`~streamchat.DecodeError`."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason, path)
        self.reason = reason
        """What was wrong, without the value."""
        self.path = path
        """Where: a JSON path."""


def expected(kind: str, value: object, path: str) -> Malformed:
    """The error for a value of another kind than expected; it names the kinds alone."""
    return Malformed(f"expected {kind}, got {json_name(value)}", path)


def as_object(value: Any, path: str) -> Json:
    """The value, which must be an object."""
    if not is_mapping(value):
        raise expected("an object", value, path)
    return value


def object_of(fields: Json, name: str, path: str) -> Json:
    """An object inside ``fields``; empty if it is absent or ``null``."""
    value = fields.get(name)
    return {} if value is None else as_object(value, f"{path}.{name}")


def raw_text_of(fields: Json, name: str, path: str) -> str | None:
    """A string as it is; half an emoji at its end may meet its other half in the next event."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise expected("a string", value, f"{path}.{name}")
    return value


def text_of(fields: Json, name: str, path: str) -> str | None:
    """A string; half an emoji in it reads as U+FFFD."""
    value = raw_text_of(fields, name, path)
    return None if value is None else repair_surrogates(value)


def as_integer(value: Any, path: str) -> int:
    """The value as an integer; ``1.0`` is one, ``true`` is not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise expected("an integer", value, path)
    return value


def integer_of(fields: Json, name: str, path: str) -> int | None:
    """An integer, or ``None`` if it is absent."""
    value = fields.get(name)
    return None if value is None else as_integer(value, f"{path}.{name}")


def items_of(value: Any, path: str) -> Sequence[Any]:
    """A list; nothing, an empty text and an object of nulls are empty ones."""
    if value is None or (is_mapping(value) and all(item is None for item in value.values())):
        return ()
    if is_list(value) or isinstance(value, str):  # of text each character is refused as an item
        return value
    raise expected("an array", value, path)


def several_of(value: Any) -> Sequence[Any]:
    """What stands under a name that is plural on the wire: one object, or a list of some."""
    if value is None:
        return ()
    if is_list(value):
        return [item for item in value if item is not None]
    return (value,)


def repair(value: Any) -> Any:
    """Decoded JSON without lone surrogates; objects and lists are copied."""
    if isinstance(value, str):
        return value if value.isascii() else repair_surrogates(value)
    if isinstance(value, dict):
        named = cast("dict[str, Any]", value)
        return {repair_surrogates(name): repair(item) for name, item in named.items()}
    if is_list(value):
        return [repair(item) for item in value]
    return value


def array_of(fields: Json, name: str, path: str) -> Sequence[Any] | None:
    """An array, or ``None`` if it is absent."""
    value = fields.get(name)
    if value is not None and not is_list(value):
        raise expected("an array", value, f"{path}.{name}")
    return value


def as_float(value: Any, path: str) -> float:
    """The value, which must be a number in the range of a ``float``."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise expected("a number", value, path)
    try:
        return float(value)
    except OverflowError:
        pass
    raise Malformed("a number is out of range", path)
