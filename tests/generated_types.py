"""Types made at random, and JSON data that fits a schema: for what must hold for all types."""

from __future__ import annotations

import base64
import dataclasses
import enum
import random
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union
from uuid import UUID

import annotated_types as at
import attrs
import msgspec
import pydantic

__all__ = ["data_for", "generated_type", "parameter_of"]

MAX_DEPTH = 3


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Node:
    value: int
    children: list[Node] = dataclasses.field(default_factory=list)
    other: Optional[Node] = None  # noqa: UP045


TEXTS: list[Any] = [str, Color, Literal["a", "b c"], date, datetime, time, timedelta, UUID, bytes]
TEXTS += [
    Annotated[str, at.Len(2, 9)],
    Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}-[0-9]+$")],
    Annotated[str, "some words"],
    Annotated[bytes, at.MinLen(3)],
]
NUMBERS: list[Any] = [int, float, Level, Literal[3, 4]]
NUMBERS += [
    Annotated[int, at.Interval(ge=5, lt=9)],
    Annotated[float, pydantic.Field(gt=0, le=1, description="a part")],
    Annotated[int, at.MultipleOf(5), at.Ge(-20)],
    Annotated[Decimal, at.Ge(0)],
]
SCALARS = [*TEXTS, *NUMBERS, Decimal, bool, type(None)]
KEYS: list[Any] = [str, int, Color, Literal["k", "l"], date]


def generated_type(chance: random.Random, depth: int = 0) -> Any:
    """A type that JSON can hold."""
    if depth >= MAX_DEPTH or chance.random() < 0.3:
        return chance.choice(SCALARS)
    makers: list[Callable[[random.Random, int], Any]] = [
        lambda chance, depth: list[generated_type(chance, depth)],  # type: ignore[misc]
        lambda chance, depth: tuple[generated_type(chance, depth), ...],  # type: ignore[misc]
        lambda chance, depth: tuple[
            tuple(generated_type(chance, depth) for _ in range(chance.randint(1, 3)))
        ],
        lambda chance, depth: set[chance.choice(SCALARS)],  # type: ignore[misc]
        lambda chance, depth: frozenset[chance.choice(TEXTS)],  # type: ignore[misc]
        lambda chance, depth: dict[chance.choice(KEYS), generated_type(chance, depth)],  # type: ignore[misc]
        lambda chance, depth: Annotated[
            list[generated_type(chance, depth)], at.Len(1, 3), "a few"  # type: ignore[misc]
        ],
        lambda chance, depth: Optional[generated_type(chance, depth)],  # noqa: UP045
        _union,
        _union_of_classes,
        lambda chance, depth: Node,
        *[_class] * 8,
    ]  # fmt: skip
    return chance.choice(makers)(chance, depth + 1)


def _union(chance: random.Random, depth: int) -> Any:
    """One type for each of several JSON types."""
    kinds = [
        lambda: chance.choice(TEXTS),
        lambda: chance.choice([each for each in NUMBERS if each != Annotated[Decimal, at.Ge(0)]]),
        lambda: bool,
        lambda: None,
        lambda: list[generated_type(chance, depth)],  # type: ignore[misc]
        lambda: _class(chance, depth, kinds=CLASSES[:3]),
    ]
    return Union[tuple(make() for make in chance.sample(kinds, chance.randint(2, 4)))]  # noqa: UP007


def _union_of_classes(chance: random.Random, depth: int) -> Any:
    """Classes that a literal tells apart."""
    return Union[  # noqa: UP007
        tuple(
            _class(chance, depth, kinds=CLASSES[:3], tag=tag)
            for tag in ("cat", "dog", "fish")[: chance.randint(2, 3)]
        )
    ]


def _class(
    chance: random.Random, depth: int, *, kinds: list[Any] | None = None, tag: str = ""
) -> Any:
    make = chance.choice(kinds or CLASSES)
    names = ["title", "size", "when", "items", "other"][: chance.randint(1, 5)]
    fields: dict[str, Any] = {"kind": Literal[tag]} if tag else {}
    if make is _model:
        fields |= {name: chance.choice([*SCALARS, list[int], dict[str, float]]) for name in names}
    else:
        fields |= {name: generated_type(chance, depth) for name in names}
    optional = {name for name in names if chance.random() < 0.3}
    fields = dict(sorted(fields.items(), key=lambda item: item[0] in optional))
    return make(f"Made{chance.randint(0, 10**6)}", fields, optional)


def _attrs(name: str, fields: Mapping[str, Any], optional: set[str]) -> Any:
    return attrs.make_class(
        name,
        {
            each: attrs.field(type=kind, default=None)
            if each in optional
            else attrs.field(type=kind)
            for each, kind in _with_none(fields, optional).items()
        },
    )


def _dataclass(name: str, fields: Mapping[str, Any], optional: set[str]) -> Any:
    return dataclasses.make_dataclass(
        name,
        [
            (each, kind, dataclasses.field(default=None)) if each in optional else (each, kind)
            for each, kind in _with_none(fields, optional).items()
        ],
    )


def _typed_dict(name: str, fields: Mapping[str, Any], optional: set[str]) -> Any:
    return TypedDict(name, dict(fields), total=not optional)  # type: ignore[operator]


def _named_tuple(name: str, fields: Mapping[str, Any], optional: set[str]) -> Any:
    return NamedTuple(name, list(fields.items()))  # type: ignore[misc]


def _struct(name: str, fields: Mapping[str, Any], optional: set[str]) -> Any:
    given = _with_none(fields, optional)
    return msgspec.defstruct(
        name,
        [(each, kind, None) if each in optional else (each, kind) for each, kind in given.items()],
    )


def _model(name: str, fields: Mapping[str, Any], optional: set[str]) -> Any:
    given = _with_none(fields, optional)
    create: Any = pydantic.create_model
    return create(
        name, **{each: (kind, None if each in optional else ...) for each, kind in given.items()}
    )


CLASSES: list[Any] = [_attrs, _dataclass, _typed_dict, _struct, _named_tuple, _model]


def _with_none(fields: Mapping[str, Any], optional: set[str]) -> dict[str, Any]:
    return {
        each: Optional[kind] if each in optional else kind  # noqa: UP045
        for each, kind in fields.items()
    }


def parameter_of(kind: Any, name: str = "f") -> Callable[..., Any]:
    """A function with one parameter of the type that returns it."""

    def given(x: Any) -> Any:
        return x

    given.__name__ = name
    given.__annotations__ = {"x": kind}
    return given


# --- data for a schema ---------------------------------------------------------------------------


def data_for(schema: Any, chance: random.Random, root: Any = None, depth: int = 0) -> Any:
    """JSON data that fits a schema, of the words that types are said in."""
    root = schema if root is None else root
    while "$ref" in schema:
        named = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        required = [*named.get("required", []), *schema.get("required", [])]
        rest = {key: item for key, item in schema.items() if key != "$ref"}
        schema = {**named, **rest, "required": required}
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return chance.choice(schema["enum"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            options = schema[word]
            if any(option.get("type") == "number" for option in options):
                # pydantic says of a Decimal that it may be any text.
                options = [option for option in options if option != {"type": "string"}]
            nulls = [option for option in options if option.get("type") == "null"]
            option = nulls[0] if nulls and depth > 6 else chance.choice(options)
            return data_for(option, chance, root, depth + 1)
    match schema.get("type"):
        case "object":
            return _object_for(schema, chance, root, depth)
        case "array":
            return _array_for(schema, chance, root, depth)
        case "integer" | "number":
            return _number_for(schema, chance)
        case "string":
            return _text_for(schema, chance)
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
        case _:
            return chance.choice([None, 3, "any", [1], {"a": []}])


def _object_for(schema: Any, chance: random.Random, root: Any, depth: int) -> dict[str, Any]:
    known = schema.get("properties", {})
    data = {
        name: data_for(part, chance, root, depth + 1)
        for name, part in known.items()
        if name in schema.get("required", []) or (depth < 6 and chance.random() < 0.5)
    }
    more = schema.get("additionalProperties")
    for number in range(chance.randint(0, 2) if isinstance(more, dict) and depth < 6 else 0):
        names = schema.get("propertyNames", {})
        if "enum" in names:
            name = chance.choice(names["enum"])
        elif "format" in names:
            name = _text_for(names, chance)
        else:
            name = str(number) if "pattern" in names else f"key {number}"
        data[name] = data_for(more, chance, root, depth + 1)
    return data


def _array_for(schema: Any, chance: random.Random, root: Any, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [data_for(part, chance, root, depth + 1) for part in schema["prefixItems"]]
    low = schema.get("minItems", 0)
    size = chance.randint(low, schema.get("maxItems", low + 2)) if depth < 6 else low
    items = [data_for(schema.get("items", {}), chance, root, depth + 1) for _ in range(size)]
    if schema.get("uniqueItems"):
        items = [item for place, item in enumerate(items) if item not in items[:place]]
    return items


def _number_for(schema: Any, chance: random.Random) -> int | float:
    whole = schema["type"] == "integer"
    step = schema.get("multipleOf", 1 if whole else 0.25)
    low = schema.get("minimum", schema.get("exclusiveMinimum", -100))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 200))
    allowed = [
        low + step * place if low % step == 0 else low - low % step + step * (place + 1)
        for place in range(int((high - low) / step) + 1)
    ]
    allowed = [
        number
        for number in allowed
        if low <= number <= high
        and number != schema.get("exclusiveMinimum")
        and number != schema.get("exclusiveMaximum")
    ]
    number = chance.choice(allowed)
    return int(number) if whole else number


def _text_for(schema: Any, chance: random.Random) -> str:
    if "pattern" in schema and schema.get("format") != "byte":  # whole groups of bytes fit theirs
        return f"AB-{chance.randint(0, 99)}" if "A-Z" in schema["pattern"] else "1.5"
    day, hour = chance.randint(10, 28), chance.randint(10, 23)
    texts = {
        "date": f"2026-01-{day}",
        "date-time": f"2026-01-{day}T{hour}:00:00{chance.choice(['Z', '+02:00'])}",
        "time": f"{hour}:04:05{chance.choice(['Z', '.25-03:00'])}",
        "duration": f"P{day}DT{hour}H",
        "uuid": str(UUID(int=day << 64)),
        "decimal": f"{hour}.50",
        "byte": base64.b64encode(b"abc" * (day % 3 + 1)).decode(),
    }
    if schema.get("format") in texts:
        return texts[schema["format"]]
    size = chance.randint(schema.get("minLength", 0), schema.get("maxLength", 12))
    return "".join(chance.choice("abc é😀") for _ in range(size))
