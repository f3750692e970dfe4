"""How the records of the wire are compared and shown: field by field, written once.

``attrs`` would write and compile both for each of the seventy classes: a quarter of what
``import streamchat`` costs beside the packages below it (benchmarks/imports.py).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar

import attrs

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


class FrozenRecord(Record):
    """Base of the ``@attrs.frozen(eq=False, repr=False)`` classes: hashable as well."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        cls = self.__class__
        return hash((cls, (_values.get(cls) or _values_of(cls))(self)))


def _values_of(cls: Any) -> Callable[[Any], Any]:
    values: Callable[[Any], Any]
    names = [field.name for field in attrs.fields(cls) if field.eq]
    _values[cls] = values = attrgetter(*names) if names else _nothing
    return values


def _nothing(_: Any) -> None:
    """What a record without fields compares."""
