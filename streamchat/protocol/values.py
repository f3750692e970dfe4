"""Values of the caller's as plain JSON data: what tools return, what defaults are."""

from __future__ import annotations

import enum
from collections.abc import Set as AbstractSet
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypeGuard

import attrs
import msgspec

from streamchat.protocol.plain import (
    MAX_DEPTH,
    dumped,
    is_list,
    is_mapping,
    to_plain,
    writes_itself,
)

__all__ = ["plain_value"]

_SCALARS = ("datetime", "uuid")
"""Modules whose types JSON holds as text."""


def plain_value(value: Any, path: str = "the value", *, _depth: int = 0) -> Any:
    """A value as plain JSON data: objects by their fields, the rest as JSON writes it.

    Raises:
        TypeError, ValueError: JSON cannot say it; the message names the place.
    """
    cls = _class_of(value)
    if value is None or cls is bool or (cls is str and value.isascii()):
        return value
    if isinstance(value, str | int | float):
        plain = value.value if isinstance(value, enum.Enum) else value
        return to_plain(plain, path)
    if _depth >= MAX_DEPTH:
        raise ValueError(f"{path[:120]} is nested too deeply, or contains itself")
    if isinstance(value, enum.Enum):
        return plain_value(value.value, path, _depth=_depth + 1)
    if is_mapping(value):
        plain = {
            _key(key, path): plain_value(item, _inside(path, f".{key}"), _depth=_depth + 1)
            for key, item in value.items()
        }
        if len(plain) != len(value):
            raise ValueError(f"{path[:120]} has two keys that JSON writes alike, as 1 and '1' are")
        return plain
    if is_list(value) or _is_set(value):
        return [
            plain_value(item, _inside(path, f"[{position}]"), _depth=_depth + 1)
            for position, item in enumerate(value)
        ]
    return _object(value, path, _depth)


def _object(value: Any, path: str, depth: int) -> Any:
    cls = _class_of(value)
    by_pydantic = dumped(value, path)
    if by_pydantic is not None or writes_itself(cls):
        return plain_value(by_pydantic, path, _depth=depth + 1)
    fields: list[str] | None = None
    if isinstance(value, msgspec.Struct):
        return _struct(value, path, depth)
    if attrs.has(cls):
        fields = [field.name for field in attrs.fields(cls)]
    elif hasattr(cls, "__dataclass_fields__"):
        fields = list(cls.__dataclass_fields__)
    if fields is not None:
        return {
            name: plain_value(getattr(value, name), _inside(path, f".{name}"), _depth=depth + 1)
            for name in fields
            if not name.startswith("_") and hasattr(value, name)
        }
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{path} is {value}, which JSON cannot say")
        return str(value)
    is_scalar = any(base.__module__ in _SCALARS for base in cls.__mro__)
    if is_scalar or isinstance(value, bytes | bytearray | memoryview):
        with suppress(TypeError):
            return msgspec.to_builtins(value)
    write_path: Any = getattr(_any(value), "__fspath__", None)
    if callable(write_path):
        return to_plain(write_path(), path)
    raise TypeError(f"{path} is of type {cls.__name__}, which JSON cannot say")


def _struct(value: msgspec.Struct, path: str, depth: int) -> Any:
    plain: dict[str, Any] = {}
    config = value.__struct_config__
    if config.tag is not None:
        plain[str(config.tag_field)] = config.tag
    for name, said in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        item = getattr(value, name)
        if item is not msgspec.UNSET:
            plain[said] = plain_value(item, _inside(path, f".{name}"), _depth=depth + 1)
    return plain


def _is_set(value: object) -> TypeGuard[AbstractSet[Any]]:
    return isinstance(value, set | frozenset)


def _any(value: Any) -> Any:
    return value


def _class_of(value: Any) -> Any:
    return value.__class__


def _key(key: Any, path: str) -> str:
    plain = plain_value(key, f"a key of {path}", _depth=MAX_DEPTH - 1)
    if isinstance(plain, bool) or not isinstance(plain, str | int | float):
        raise TypeError(f"{path} has a key of type {type(key).__name__}, which JSON cannot say")
    return plain if isinstance(plain, str) else str(plain)


def _inside(path: str, part: str) -> str:
    return path + part[:80] if len(path) < 120 else path
