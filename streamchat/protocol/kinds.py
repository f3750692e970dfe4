"""Kinds of JSON data: each says its JSON Schema and reads data as a Python value.

One object per type (:mod:`streamchat.protocol.annotations` makes them), so what a schema promises is
what is read. Reading never backtracks: a union is decided by the JSON type or by a tag.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypeAlias

import attrs

from streamchat.protocol.error_body import clean_words
from streamchat.protocol.plain import MAX_DEPTH, is_list, is_mapping, json_name

__all__ = [
    "Alias",
    "Anything",
    "Array",
    "Boolean",
    "Choice",
    "Field",
    "Formatted",
    "Integer",
    "Kind",
    "Misfit",
    "Noted",
    "Null",
    "Number",
    "Record",
    "Row",
    "Schema",
    "Table",
    "Tagged",
    "Text",
    "Union",
    "read_value",
    "words_of",
]

Schema: TypeAlias = dict[str, Any]
Write: TypeAlias = Callable[["Kind"], Schema]
"""The schema of a part: in place, or a reference to its definition."""


class Misfit(Exception):
    """Data that does not fit: the reason, and the place, which grows on the way up."""

    def __init__(self, reason: str, *place: str | int) -> None:
        super().__init__(reason)
        self.reason = reason
        self._place: list[str | int | None] = [*reversed(place)]

    def inside(self, part: str | int | None) -> None:
        """Add the part that it is inside of: a field, an index, or ``None`` for a key that is data."""
        self._place.append(part)

    @property
    def path(self) -> str:
        """A JSON path; keys that are data show as ``[...]``."""
        steps = ("[...]" if p is None else f"[{p}]" if isinstance(p, int) else f".{p}"
                 for p in reversed(self._place))  # fmt: skip
        return "$" + "".join(steps)


def words_of(error: BaseException) -> str:
    """The words of a validator, on one line of 500 characters and without control characters.

    Python code refuses a value with ``ValueError``, ``TypeError`` or ``AssertionError``. The words of
    other exceptions are not meant for this (those of ``KeyError`` are a value): only the class shows.
    """
    if not isinstance(error, ValueError | TypeError | AssertionError):
        return f"a value that its class refuses ({type(error).__name__})"
    first = error.args[0] if error.args else ""
    try:
        # Validators of attrs give the attribute and the value as further arguments.
        said = (
            first if isinstance(first, str) and not isinstance(error, UnicodeError) else str(error)
        )
    except Exception:  # noqa: BLE001  # __str__ is the caller's code
        said = ""
    return clean_words(said) or f"a value that its class refuses ({type(error).__name__})"


def read_value(kind: Kind, value: Any, *, strict: bool) -> Any:
    """Plain data as a value of the kind.

    Raises:
        Misfit: it does not fit, or is nested beyond 200 levels.
    """
    _check_depth(value)
    problem: Misfit
    try:
        return kind.read(value, strict)
    except Misfit as misfit:
        problem = misfit
    except RecursionError:  # called from deep inside a recursion of the caller's
        problem = Misfit("nested too deeply for the stack that is left")
    raise problem


def _check_depth(value: Any) -> None:
    """As :func:`is_nested_deeper`, 2 to 13 times as fast because it knows only dict, list and tuple."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if outer.__class__ is dict else outer)
            if inner.__class__ in _CONTAINERS
        ]
        if not level:
            return
    raise Misfit(f"nested deeper than {MAX_DEPTH} levels")


_CONTAINERS = {dict, list, tuple}


# --- what JSON calls things ----------------------------------------------------------------------

_JSON_TYPES: Mapping[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    tuple: "array",
    dict: "object",
}
_EXPECTED: Mapping[str, str] = {
    "null": "null",
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "array": "an array",
    "object": "an object",
}
EVERY_TYPE = frozenset(_EXPECTED)


def json_type(value: Any) -> str:
    """The JSON type of plain data; an ``int`` is ``integer``, a ``float`` is ``number``."""
    found = _JSON_TYPES.get(value.__class__)
    if found is None:
        found = "object" if is_mapping(value) else "array" if is_list(value) else "unknown"
    return found


def _expected(what: str, value: Any) -> Misfit:
    found = json_name(value)
    if what.startswith("an integer") and type(value) is float and not value.is_integer():
        found = "a number with a fraction"
    return Misfit(f"expected {what}, got {found}")


MAX_EXPONENT = 6144
"""Powers of ten that a ``Decimal`` may have, those of IEEE 754 decimal128: ``int()`` of ``1e999999999``
would not end."""


def is_usable(number: float | Decimal) -> bool:
    """Whether a number is finite, and a ``Decimal`` of a size that can be worked with."""
    if isinstance(number, Decimal):
        return number.is_finite() and abs(number.adjusted()) <= MAX_EXPONENT
    return math.isfinite(number)


def literal_key(value: Any) -> tuple[str, Any]:
    """A key under which 1, 1.0 and ``True`` are three values."""
    return _type_name(value), value


def _type_name(value: object) -> str:
    return type(value).__name__


_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,4299})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,4299})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


# --- kinds ---------------------------------------------------------------------------------------


class Kind:
    """How one type is written in JSON Schema and read from JSON data."""

    types: frozenset[str] = frozenset()
    """The JSON types that are this kind's in a union."""
    spare: frozenset[str] = frozenset()
    """Those that it reads too, unless another member of the union has them."""
    name: str | None = None
    """The name of its definition; ``None`` if it is always written in place."""
    exact: Any = None
    """The class whose instances it returns as they are; ``None`` if it looks at each."""

    def schema(self, write: Write) -> Schema:
        """Its JSON Schema; ``write`` gives the schema of a part."""
        raise NotImplementedError

    def read(self, value: Any, strict: bool) -> Any:
        """Plain data as a value.

        Raises:
            Misfit: it does not fit.
        """
        raise NotImplementedError

    def parts(self) -> Iterable[Kind]:
        """The kinds inside."""
        return ()

    def size(self) -> int:
        """Its own share of a schema, in subschemas."""
        return 1


class Anything(Kind):
    """``Any``: data as it is."""

    types = EVERY_TYPE

    def schema(self, write: Write) -> Schema:
        return {}

    def read(self, value: Any, strict: bool) -> Any:
        return value


class Null(Kind):
    """``None``."""

    types = frozenset({"null"})

    def schema(self, write: Write) -> Schema:
        return {"type": "null"}

    def read(self, value: Any, strict: bool) -> None:
        if value is not None and (strict or value != "null"):
            raise _expected("null", value)


class Boolean(Kind):
    """``bool``; leniently also 0, 1 and their texts."""

    types = frozenset({"boolean"})
    exact: Any = bool
    _LENIENT: Mapping[Any, bool] = {
        "true": True,
        "1": True,
        1: True,
        "false": False,
        "0": False,
        0: False,
    }

    def schema(self, write: Write) -> Schema:
        return {"type": "boolean"}

    def read(self, value: Any, strict: bool) -> bool:
        if type(value) is bool:
            return value
        if not strict and type(value) in (int, str):
            found = self._LENIENT.get(value.lower() if type(value) is str else value)
            if found is not None:
                return found
        raise _expected("a boolean", value)


class Integer(Kind):
    """``int``; leniently also whole floats and digits."""

    types = frozenset({"integer"})
    exact: Any = int

    def schema(self, write: Write) -> Schema:
        return {"type": "integer"}

    def read(self, value: Any, strict: bool) -> int:
        if type(value) is int:
            return value
        if not strict:
            if type(value) is float and value.is_integer() and abs(value) < 2**53:
                return int(value)
            if type(value) is str and _INTEGER.fullmatch(value):
                return int(value)
        raise _expected("an integer", value)


class Number(Kind):
    """``float``: finite; leniently also numbers as text."""

    types = frozenset({"integer", "number"})

    def schema(self, write: Write) -> Schema:
        return {"type": "number"}

    def read(self, value: Any, strict: bool) -> float:
        number = math.inf
        if type(value) is float:
            number = value
        elif type(value) is int or (not strict and type(value) is str and _NUMBER.fullmatch(value)):
            with suppress(OverflowError):
                number = float(value)
        else:
            raise _expected("a number", value)
        if not is_usable(number):
            raise Misfit("a number that is out of range")
        return number


class Text(Kind):
    """``str``."""

    types = frozenset({"string"})
    exact: Any = str

    def schema(self, write: Write) -> Schema:
        return {"type": "string"}

    def read(self, value: Any, strict: bool) -> str:
        if type(value) is str:
            return value
        raise _expected("a string", value)


class Formatted(Kind):
    """A type that JSON holds as text: a date, a UUID, a ``Decimal``."""

    def __init__(
        self,
        schema: Schema,
        parse: Callable[[str, bool], Any],
        what: str,
        *,
        numbers: Callable[[Any], Any] | None = None,
        limit: int | None = None,
    ) -> None:
        """``limit``: characters; longer text is refused unread."""
        self._schema = schema
        self._parse = parse
        self._what = what
        self._numbers = numbers
        self._limit = limit
        said = schema["type"]
        self.reads_numbers = numbers is not None
        """Whether it is a ``Decimal``."""
        self.has_zone = schema.get("format") in ("date-time", "time")
        self.is_bytes = "contentEncoding" in schema
        numeric = frozenset({"integer", "number"}) if self.reads_numbers else frozenset[str]()
        self.types = frozenset({"string"}) if said == "string" else numeric
        self.spare = (numeric | {"string"}) - self.types

    def schema(self, write: Write) -> Schema:
        return dict(self._schema)

    def read(self, value: Any, strict: bool) -> Any:
        is_number = self._numbers is not None and type(value) in (int, float)
        if not is_number and type(value) is not str:
            raise _expected(self._what, value)
        reason = f"expected {self._what}, got another string"
        if not is_number and self._limit is not None and len(value) > self._limit:
            raise Misfit(reason)
        try:
            return self._numbers(value) if is_number else self._parse(value, strict)  # type: ignore[misc]
        except Misfit:
            raise
        except OverflowError:
            reason = f"{self._what} that is out of range"
        except Exception:  # noqa: BLE001, S110  # whatever a parser raises, the text is not one
            pass
        raise Misfit(reason)


class Choice(Kind):
    """``Literal`` or an enum."""

    def __init__(
        self, values: Sequence[tuple[Any, Any]], *, more: Any = None, doc: str = ""
    ) -> None:
        self.values = list(values)
        """What JSON says, and the value that it stands for, in the order of declaration."""
        self.is_literal = more is None
        self._more = more
        self._doc = doc
        self._known = {literal_key(said): value for said, value in self.values}
        self.types = frozenset(json_type(said) for said, _ in self.values)

    def schema(self, write: Write) -> Schema:
        schema: Schema = {"enum": [said for said, _ in self.values]}
        if all(isinstance(said, str) for said, _ in self.values):
            schema = {"type": "string", **schema}
        if self._doc:
            schema["description"] = self._doc
        return schema

    def read(self, value: Any, strict: bool) -> Any:
        if isinstance(value, Hashable):
            key = literal_key(value)
            if key in self._known:
                return self._known[key]
            if not strict and isinstance(value, str) and _INTEGER.fullmatch(value):
                key = literal_key(int(value))
                if key in self._known:
                    return self._known[key]
        if self._more is not None and json_type(value) in self.types:
            try:
                return self._more(value)  # an enum's own _missing_
            except Exception:  # noqa: BLE001, S110  # it is refused below
                pass
        names = [repr(said) for said, _ in self.values[:20]]
        more = ", ..." if len(self.values) > 20 else ""
        raise Misfit(f"expected one of {', '.join(names)}{more}")


def _are_all(values: Iterable[Any], cls: Any) -> bool:
    """Whether all are of exactly this class: 15 ms per million."""
    return cls is not None and set(map(type, values)) <= {cls}


class Array(Kind):
    """A list, a set, a tuple of any length."""

    types = frozenset({"array"})

    def __init__(
        self, item: Kind | None, make: Callable[[list[Any]], Any], *, unique: bool
    ) -> None:
        self._item = item
        self._make = make
        self._unique = unique

    def parts(self) -> Iterable[Kind]:
        return () if self._item is None else (self._item,)

    def schema(self, write: Write) -> Schema:
        schema: Schema = {"type": "array"}
        if self._item is not None:
            schema["items"] = write(self._item)
        if self._unique:
            schema["uniqueItems"] = True
        return schema

    def read(self, value: Any, strict: bool) -> Any:
        if not is_list(value):
            raise _expected("an array", value)
        items: list[Any] = []
        if self._item is None or _are_all(value, self._item.exact):
            items = list(value)
        else:
            read, index = self._item.read, 0
            try:
                for index, each in enumerate(value):  # noqa: B007  # the place of a misfit
                    items.append(read(each, strict))
            except Misfit as misfit:
                misfit.inside(index)
                raise
        try:
            return self._make(items)
        except TypeError:
            pass
        raise Misfit("an item that a set cannot hold")


class Row(Kind):
    """A tuple whose positions have types."""

    types = frozenset({"array"})

    def __init__(self, items: Sequence[Kind]) -> None:
        self._items = tuple(items)

    def parts(self) -> Iterable[Kind]:
        return self._items

    def schema(self, write: Write) -> Schema:
        schema: Schema = {
            "type": "array",
            "minItems": len(self._items),
            "maxItems": len(self._items),
        }
        if self._items:
            schema["prefixItems"] = [write(item) for item in self._items]
        return {**schema, "items": False}

    def read(self, value: Any, strict: bool) -> Any:
        if not is_list(value):
            raise _expected("an array", value)
        if len(value) != len(self._items):
            raise Misfit(f"expected {len(self._items)} items, got {len(value)}")
        items: list[Any] = []
        try:
            for each, item in zip(self._items, value, strict=True):
                items.append(each.read(item, strict))  # their number is the place
        except Misfit as misfit:
            misfit.inside(len(items))
            raise
        return tuple(items)


class Table(Kind):
    """A ``dict`` with keys of one kind and values of another."""

    types = frozenset({"object"})

    def __init__(self, key: Kind | None, value: Kind | None, keys: Schema | None = None) -> None:
        self._key = key
        self._value = value
        self._keys = keys

    def parts(self) -> Iterable[Kind]:
        return () if self._value is None else (self._value,)

    def schema(self, write: Write) -> Schema:
        schema: Schema = {"type": "object"}
        if self._keys:
            schema["propertyNames"] = dict(self._keys)
        if self._value is not None:
            schema["additionalProperties"] = write(self._value)
        return schema

    def read(self, value: Any, strict: bool) -> dict[Any, Any]:
        if not is_mapping(value):
            raise _expected("an object", value)
        table: dict[Any, Any] = {}
        if self._key is None and (
            self._value is None or _are_all(value.values(), self._value.exact)
        ):
            return dict(value)
        for name, item in value.items():
            # A key is text even where it stands for a number.
            key = name if self._key is None else self._read_key(self._key, name)
            try:
                table[key] = item if self._value is None else self._value.read(item, strict)
            except Misfit as misfit:
                misfit.inside(None)
                raise
        return table

    @staticmethod
    def _read_key(kind: Kind, name: str) -> Any:
        try:
            return kind.read(name, False)
        except Misfit as misfit:
            reason = misfit.reason
        raise Misfit(f"a key: {reason}")


@attrs.frozen
class Field:
    """A field of an object."""

    name: str
    """Its key in JSON."""
    argument: str
    """What its class calls it."""
    kind: Kind
    is_required: bool = True
    notes: Schema = attrs.Factory(dict[str, Any])
    """What stands beside its schema: a default, a description."""


class Record(Kind):
    """An object with fields: a class, a ``TypedDict``, the parameters of a function."""

    types = frozenset({"object"})

    def __init__(
        self,
        name: str,
        make: Callable[[dict[str, Any]], Any],
        *,
        doc: str = "",
        blame: Callable[[dict[str, Any], str], str | None] | None = None,
        takes_array: bool = False,
        is_closed: bool = False,
    ) -> None:
        self.name = name
        self.fields: list[Field] = []
        """Filled in after the record is known, because a field may hold the record itself."""
        self.tag: Field | None = None
        """A field that tells the class and is none of its attributes (``msgspec.Struct``)."""
        self._make = make
        self._doc = doc
        self._blame = blame
        self._takes_array = takes_array
        self._is_closed = is_closed
        self.spare = frozenset({"array"}) if takes_array else frozenset[str]()

    def parts(self) -> Iterable[Kind]:
        return [field.kind for field in self.fields]

    def schema(self, write: Write) -> Schema:
        schema: Schema = {"description": self._doc} if self._doc else {}
        schema["type"] = "object"
        schema["properties"] = {
            field.name: {**write(field.kind), **field.notes} for field in self.said
        }
        schema["required"] = [field.name for field in self.said if field.is_required]
        if self._is_closed:
            schema["additionalProperties"] = False
        return schema

    def read(self, value: Any, strict: bool) -> Any:
        if not is_mapping(value):
            if not (self._takes_array and is_list(value) and len(value) <= len(self.fields)):
                raise _expected("an object", value)
            value = {field.name: each for field, each in zip(self.fields, value, strict=False)}
        values: dict[str, Any] = {}
        for field in self.said:
            if field.name in value:
                try:
                    values[field.argument] = field.kind.read(value[field.name], strict)
                except Misfit as misfit:
                    misfit.inside(field.name)
                    raise
            elif field.is_required:
                raise Misfit(f"misses {field.name!r}")
        if self._is_closed and len(value) > len(values):
            raise Misfit(f"has a field that its class does not know; there are {self.names}")
        if self.tag is not None:
            del values[self.tag.argument]
        try:
            return self._make(values)
        except Exception as error:  # noqa: BLE001  # the class is the caller's and may raise anything
            reason = words_of(error)
        blamed = self._blame(values, reason) if self._blame is not None else None
        raise Misfit(reason) if blamed is None else Misfit(reason, blamed)

    @property
    def said(self) -> Sequence[Field]:
        """What JSON holds: the fields, and before them the tag."""
        return self.fields if self.tag is None else [self.tag, *self.fields]

    @property
    def names(self) -> str:
        """Its fields, for error messages."""
        return ", ".join(field.name for field in self.said) or "none"


class Alias(Kind):
    """A type that is named before it is known: a quoted reference or a ``type`` statement."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target: Kind | None = None
        self.is_recursive = False

    def _known(self) -> Kind:
        assert self.target is not None, "looked into before it is known"
        return self.target

    @property
    def types(self) -> frozenset[str]:  # type: ignore[override]
        """Those of what it names."""
        return self._known().types

    @property
    def spare(self) -> frozenset[str]:  # type: ignore[override]
        """Those of what it names."""
        return self._known().spare

    def parts(self) -> Iterable[Kind]:
        return (self._known(),)

    def schema(self, write: Write) -> Schema:
        return write(self._known())

    def read(self, value: Any, strict: bool) -> Any:
        return self._known().read(value, strict)


_HIGHEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_LOWEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def _joined(said: Schema, more: Schema) -> Schema:
    """A schema with further constraints: where both have one word, both hold, as all are checked."""
    whole = dict(said)
    for word, value in more.items():
        known = whole.setdefault(word, value)
        if known == value:
            continue
        if word in _HIGHEST:
            whole[word] = max(known, value)
        elif word in _LOWEST:
            whole[word] = min(known, value)
        elif word == "multipleOf" and isinstance(known, int) and isinstance(value, int):
            whole[word] = math.lcm(known, value)
        else:
            whole["allOf"] = [*whole.get("allOf", ()), {word: value}]
    return whole


class Noted(Kind):
    """A kind with a description or constraints of its own: ``Annotated``."""

    def __init__(
        self, inner: Kind, notes: Schema, checks: Sequence[Callable[[Any], str | None]] = ()
    ) -> None:
        self.inner = inner
        self.notes = notes
        self._checks = tuple(checks)
        self.types = inner.types
        self.spare = inner.spare
        if not checks:
            vars(self)["read"] = inner.read  # one frame less per level

    def parts(self) -> Iterable[Kind]:
        return (self.inner,)

    def schema(self, write: Write) -> Schema:
        said = write(self.inner)
        return _joined(said, self.notes) if self._checks else {**said, **self.notes}

    def size(self) -> int:
        return 0

    def read(self, value: Any, strict: bool) -> Any:
        read = self.inner.read(value, strict)
        for check in self._checks:
            reason = check(read)
            if reason is not None:
                raise Misfit(reason)
        return read


class Tagged(Kind):
    """One of several objects, told apart by a field that each has with values of its own."""

    types = frozenset({"object"})

    def __init__(self, tag: str, members: Sequence[tuple[Kind, Sequence[Any]]]) -> None:
        self._tag = tag
        self._members = [kind for kind, _ in members]
        self._known = {literal_key(said): kind for kind, values in members for said in values}

    def parts(self) -> Iterable[Kind]:
        return self._members

    def written(self, write: Write) -> list[Schema]:
        """The members' schemas; the tag is required even where it has a default."""
        schemas: list[Schema] = []
        for kind in self._members:
            schema = write(kind)
            required = schema.get("required", [])
            if self._tag not in required:
                schema = {**schema, "required": [self._tag, *required]}
            schemas.append(schema)
        return schemas

    def schema(self, write: Write) -> Schema:
        return {"anyOf": self.written(write)}

    def read(self, value: Any, strict: bool) -> Any:
        if not is_mapping(value):
            raise _expected("an object", value)
        if self._tag not in value:
            raise Misfit(f"misses {self._tag!r}")
        said = value[self._tag]
        kind = self._known.get(literal_key(said)) if isinstance(said, Hashable) else None
        if kind is None:
            names = ", ".join(repr(each) for _, each in list(self._known)[:20])
            raise Misfit(f"expected one of {names}", self._tag)
        return kind.read(value, strict)


class Union(Kind):
    """One of several kinds, told apart by their JSON types."""

    def __init__(self, members: Sequence[Kind], by_type: Mapping[str, Kind]) -> None:
        """See ``annotations`` for how the JSON types are shared out."""
        self._members = list(members)
        self._by_type = dict(by_type)
        self.types = frozenset().union(*(member.types for member in members))
        self.spare = frozenset().union(*(member.spare for member in members)) - self.types

    @property
    def members(self) -> Sequence[Kind]:
        """The kinds, in the order of declaration."""
        return self._members

    def with_members(self, pairs: Sequence[tuple[Kind, Kind]]) -> Union:
        """The same with other kinds in the places of the old."""
        new = {id(old): kind for old, kind in pairs}
        return Union(
            [kind for _, kind in pairs],
            {name: new[id(kind)] for name, kind in self._by_type.items()},
        )

    def parts(self) -> Iterable[Kind]:
        return self._members

    def schema(self, write: Write) -> Schema:
        schemas: list[Schema] = []
        for member in self._members:
            schemas += member.written(write) if isinstance(member, Tagged) else [write(member)]
        return {"anyOf": schemas}

    def read(self, value: Any, strict: bool) -> Any:
        kind = self._by_type.get(json_type(value))
        if kind is not None:
            return kind.read(value, strict)
        if not strict:
            for kind in self._by_type.values():  # "3" where a number is wanted
                if not kind.types & {"array", "object"}:
                    try:
                        return kind.read(value, strict)
                    except Misfit:
                        continue
        names = list(dict.fromkeys(_EXPECTED[name] for name in self._by_type))
        if "a number" in names and "an integer" in names:
            names.remove("an integer")
        raise _expected(" or ".join(names), value)
