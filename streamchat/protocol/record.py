"""How records are compared, shown and written as JSON: field by field, written once.

``attrs`` would write and compile both for each of the seventy classes: a quarter of what
``import streamchat`` costs beside the packages below it (benchmarks/imports.py).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, TypeGuard

import attrs

from streamchat.protocol.plain import as_dict, to_plain

__all__ = ["FrozenRecord", "Record"]

_values: dict[type, Callable[[Any], Any]] = {}
"""A class to what gets the fields that are compared."""


class Record:
    """Base of the ``@attrs.define(eq=False, repr=False)`` classes.

    Equal are two of one class whose fields are equal, those with ``eq=False`` left out. Not hashable,
    because fields can be set.
    """

    __slots__ = ()
    __hash__: ClassVar[None]  # type: ignore[assignment]
    _leaves_out_defaults: ClassVar[bool] = True
    """For :func:`~streamchat.protocol.plain.to_plain`: the wire sends no empty fields."""

    def __eq__(self, other: object) -> bool:
        cls = self.__class__
        if other.__class__ is not cls:
            return NotImplemented
        values = _values.get(cls) or _values_of(cls)
        return bool(values(self) == values(other))

    def __repr__(self) -> str:
        cls: Any = self.__class__
        shown: list[str] = []
        for field in attrs.fields(cls):
            if field.repr:
                write = repr if field.repr is True else field.repr  # prompts show their size alone
                shown.append(f"{field.name}={write(getattr(self, field.name))}")
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object as plain data of its own; fields that equal their default are left out.

        ``role`` comes first, and so does a ``type`` that the class fixes. Records inside are written
        by their own ``to_dict()``.

        Raises:
            TypeError, ValueError: a value that JSON cannot say; the message names the place.
        """
        fields = as_dict(self)
        first: dict[str, Any] = {}
        kind = getattr(type(self), "type", None)
        if isinstance(kind, str):
            first["type"] = kind
        if "role" in fields:
            first["role"] = fields["role"]
        return _written(first | fields)


class FrozenRecord(Record):
    """Base of the ``@attrs.frozen(eq=False, repr=False)`` classes: hashable as well."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object as plain data of its own, with all public fields, defaults included.

        Raises:
            TypeError, ValueError: a value that JSON cannot say; the message names the place.
        """
        cls: Any = self.__class__
        names = [field.name for field in attrs.fields(cls) if not field.name.startswith("_")]
        return _written({name: getattr(self, name) for name in names})

    def __hash__(self) -> int:  # type: ignore[override]
        cls = self.__class__
        return hash((cls, (_values.get(cls) or _values_of(cls))(self)))


def _written(fields: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain({name: _with_own(value) for name, value in fields.items()})
    return plain


def _with_own(value: Any) -> Any:
    """The value with its records as they write themselves; of those that do not, ``to_plain`` takes care."""
    if isinstance(value, Record) and type(value).to_dict is not Record.to_dict:
        return value.to_dict()
    return [_with_own(item) for item in value] if _is_sequence(value) else value


def _is_sequence(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def _values_of(cls: Any) -> Callable[[Any], Any]:
    values: Callable[[Any], Any]
    names = [field.name for field in attrs.fields(cls) if field.eq]
    _values[cls] = values = attrgetter(*names) if names else _nothing
    return values


def _nothing(_: Any) -> None:
    """What a record without fields compares."""
