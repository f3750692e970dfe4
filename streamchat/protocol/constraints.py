"""``Annotated``: descriptions and constraints, whoever's class says them.

``annotated_types``, ``msgspec.Meta`` and ``pydantic.Field`` call a bound by the same names, and are
recognised by these names: none of them needs to be imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs

from streamchat.protocol.foreign import is_foreign_metadata
from streamchat.protocol.formats import bounded_decimal
from streamchat.protocol.kinds import (
    Alias,
    Array,
    Formatted,
    Integer,
    Kind,
    Noted,
    Number,
    Schema,
    Table,
    Text,
    Union,
)
from streamchat.protocol.plain import MAX_WRITTEN_DIGITS, is_list, is_mapping, is_too_long, to_plain

__all__ = ["Notes", "notes_of"]

_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "ge": ("minimum", lambda value, bound: value >= bound, "at least"),
    "gt": ("exclusiveMinimum", lambda value, bound: value > bound, "above"),
    "le": ("maximum", lambda value, bound: value <= bound, "at most"),
    "lt": ("exclusiveMaximum", lambda value, bound: value < bound, "below"),
    "multiple_of": (
        "multipleOf",
        lambda value, bound: _fraction(value) % _fraction(bound) == 0,
        "a multiple of",
    ),
}


def _fraction(number: float | Decimal) -> Fraction:
    """The number that was written: 0.1 is a tenth."""
    return Fraction(repr(number) if isinstance(number, float) else number)


_SIZES: dict[type[Kind], tuple[str, str, str]] = {
    Text: ("minLength", "maxLength", "characters"),
    Array: ("minItems", "maxItems", "items"),
    Table: ("minProperties", "maxProperties", "properties"),
}
_NOTES = ("title", "description", "examples")
_UNSAID = ("default", "default_factory", "alias", "validation_alias")
"""What ``pydantic.Field`` may hold that means something in a pydantic model alone."""
_NATIVE = ("annotated_types", "msgspec")


@attrs.frozen
class Notes:
    """What ``Annotated`` says of a type."""

    notes: Schema
    """Words of JSON Schema that bind nothing: ``description``, ``examples``."""
    constraints: list[tuple[str, Any]]

    def of(self, kind: Kind) -> Kind:
        """The kind with these notes and constraints.

        Raises:
            TypeError: a constraint that JSON Schema cannot say of this kind; the message names it.
        """
        for name, value in self.constraints:
            _check_bound(name, value)
            limited = _limited(kind, name, value)
            if limited is None:
                raise TypeError(f"{name}={value!r} cannot be said of it in JSON Schema")
            kind = limited
        return Noted(kind, self.notes) if self.notes else kind


def notes_of(metadata: Sequence[Any]) -> Notes | None:
    """Read what stands in ``Annotated``; ``None`` if pydantic alone understands it.

    Raises:
        TypeError: something that JSON Schema cannot say; the message names it.
    """
    notes: Schema = {}
    constraints: list[tuple[str, Any]] = []
    for each in _flat(metadata):
        if isinstance(each, str):
            notes.setdefault("description", each)
            continue
        said = _said(each)
        if said is None:
            return None
        for name, value in said.items():
            if name == "extra":
                notes |= value
            elif name in _NOTES:
                notes[name] = value
            else:
                constraints.append((name, value))
    return Notes(to_plain(notes, "what Annotated says"), constraints)


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    """The parts of ``Interval``, ``Len``, ``StringConstraints`` and ``Field``."""
    for each in metadata:
        inner: Any = getattr(each, "metadata", None)
        if hasattr(each, "default_factory") and is_list(inner):
            yield from _flat(inner)
            yield each
        elif getattr(each, "__is_annotated_types_grouped_metadata__", False):
            yield from _flat(each)
        else:
            yield each


def _said(metadata: Any) -> dict[str, Any] | None:
    """Constraints and notes by name; empty if it is none of ours, ``None`` if it is pydantic's own.

    Raises:
        TypeError: it says what neither JSON Schema nor we can say.
    """
    library = type(metadata).__module__.partition(".")[0]
    if library == "pydantic" and hasattr(metadata, "default_factory"):
        return _said_by_field(metadata)
    if library == "pydantic":
        names: Any = getattr(metadata, "__dict__", None) or getattr(metadata, "__slots__", ())
        own = {name: getattr(metadata, name) for name in names}
        given = {name: value for name, value in own.items() if value is not None}
        if not given or not given.keys() <= {"pattern", "allow_inf_nan"}:
            return None
        return {name: value for name, value in given.items() if name == "pattern"}
    if library not in _NATIVE:
        documentation = getattr(metadata, "documentation", None)  # typing_extensions.Doc
        if isinstance(documentation, str):
            return {"description": documentation}
        return None if is_foreign_metadata(metadata) else {}
    said: dict[str, Any] = {}
    for name in (*_BOUNDS, "min_length", "max_length", "pattern", "tz", *_NOTES):
        value = getattr(metadata, name, None)
        if value is not None:
            said[name] = value
    extra = getattr(metadata, "extra_json_schema", None)
    if is_mapping(extra):
        said["extra"] = extra
    if isinstance(getattr(metadata, "documentation", None), str):
        said["description"] = metadata.documentation
    if type(metadata).__name__ == "Timezone" and metadata.tz in (None, ...):
        said["tz"] = metadata.tz is ...
    elif library == "annotated_types" and (type(metadata).__name__ == "Timezone" or not said):
        raise TypeError(f"{type(metadata).__name__} cannot be said in JSON Schema")
    return said


def _said_by_field(field: Any) -> dict[str, Any] | None:
    """The notes of a ``pydantic.Field``; its constraints have come from its ``metadata``."""
    given = {
        name: getattr(field, name)
        for name in (*_NOTES, *_UNSAID, "json_schema_extra", "discriminator")
        if getattr(field, name, None) is not None
    }
    for name in _UNSAID:
        if name in given and type(given[name]).__name__ != "PydanticUndefinedType":
            raise TypeError(f"Field({name}=...) means something in a pydantic model alone")
    extra = given.get("json_schema_extra", {})
    if not is_mapping(extra) or not isinstance(given.get("discriminator", ""), str):
        return None
    # The members of a union are told apart by their literals, whatever the discriminator is called.
    return {"extra": extra, **{name: given[name] for name in _NOTES if name in given}}


# --- constraints ---------------------------------------------------------------------------------


def _check_bound(name: str, value: Any) -> None:
    """Refuse what nothing could ever be compared with.

    Raises:
        TypeError: a length that is no count, a bound that is not finite, a multiple of nothing.
    """
    reason = ""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if isinstance(value, int) and is_too_long(value):
        raise TypeError(f"{name} is a number of more than {MAX_WRITTEN_DIGITS:,} digits")
    if name in ("min_length", "max_length"):
        if type(value) is not int or value < 0:
            reason = "a length is an int that is not negative"
    elif name in _BOUNDS and is_number:
        is_whole = isinstance(value, int)
        is_odd = isinstance(value, Decimal) and not value.is_finite()
        if is_odd or not (is_whole or math.isfinite(float(value))):
            reason = "a bound is finite"
        elif name == "multiple_of" and not (value > 0 and float(min(value, 1)) > 0):
            reason = "a multiple is of a number above 0"
    if reason:
        raise TypeError(f"{name}={value!r}: {reason}")


def _limited(kind: Kind, name: str, value: Any) -> Kind | None:
    """The kind with one constraint; ``None`` if it does not apply to any of its members."""
    bare: Kind = kind
    while isinstance(bare, Noted):
        bare = bare.inner
    if isinstance(bare, Alias) and bare.target is not None:
        bare = bare.target
    if isinstance(bare, Union):
        limited = [_limited(member, name, value) for member in bare.members]
        if not any(limited):
            return None
        pairs = list(zip(bare.members, limited, strict=True))
        return bare.with_members([(old, new or old) for old, new in pairs])
    if name in _BOUNDS:
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return None
        if isinstance(bare, Formatted) and bare.reads_numbers:
            kind = bounded_decimal() if bare is kind else kind
        elif not isinstance(bare, Integer | Number):
            return None
        word, holds, words = _BOUNDS[name]
        said = float(value) if isinstance(value, Decimal) else value
        return Noted(
            kind,
            {word: said},
            [lambda read: None if holds(read, value) else f"expected {words} {said}"],
        )
    if name in ("min_length", "max_length"):
        return _sized(kind, bare, name, value)
    if name == "pattern" and isinstance(bare, Text):
        text = value if isinstance(value, str) else value.pattern
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise TypeError(f"pattern={text!r} is not a regular expression: {error}") from None
        reason = f"expected text that matches {text}"
        return Noted(
            kind, {"pattern": text}, [lambda read: None if pattern.search(read) else reason]
        )
    # Without a zone it cannot be: a date-time of JSON Schema has one.
    if name == "tz" and value is True and isinstance(bare, Formatted) and bare.has_zone:
        reason = "expected a time with a time zone"
        return Noted(kind, {}, [lambda read: None if read.tzinfo is not None else reason])
    return None


def _sized(kind: Kind, bare: Kind, name: str, value: int) -> Kind | None:
    is_minimum = name == "min_length"
    if is_minimum and value == 0:
        return kind
    limit = "at least" if is_minimum else "at most"

    def check(read: Any) -> str | None:
        holds = len(read) >= value if is_minimum else len(read) <= value
        return None if holds else f"expected {limit} {value} {unit}, got {len(read)}"

    if isinstance(bare, Formatted) and bare.is_bytes:
        unit = "bytes"
        return Noted(kind, _base64_of(value, is_minimum), [check])
    for cls, (minimum, maximum, unit) in _SIZES.items():  # noqa: B007  # check() tells it
        if isinstance(bare, cls):
            return Noted(kind, {minimum if is_minimum else maximum: value}, [check])
    return None


MAX_COUNTED = 700
"""Bytes up to which a pattern tells their number exactly; some engines repeat at most 1,000 times."""


def _base64_of(count: int, is_minimum: bool) -> Schema:
    """What the base64 of at least, or at most, so many bytes is like.

    Its length leaves up to two bytes open: the pattern says how much of it may be padding.
    """
    full, rest = divmod(count, 3)
    said: Schema = {"minLength" if is_minimum else "maxLength": 4 * (full + (rest > 0))}
    if count > MAX_COUNTED:
        return said
    if is_minimum and rest != 1:
        said["pattern"] = f"^.{{{4 * full - 1 if rest == 0 else 4 * full + 2}}}[^=]"
    elif not is_minimum and rest:
        last = ".{%d}==" if rest == 1 else ".{%d}="
        said["pattern"] = f"^(.{{0,{4 * full}}}|{last % (4 * full + 1 + rest)})$"
    return said
