"""Where plain data does not fit a Python type, and why, in words of ours.

msgspec decides whether data fits. Its messages change between versions and may quote the value, so
they are not parsed: after a refusal the data and the type are walked side by side. Messages name
types, fields and allowed values of the type, and nothing of the data.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import inspect

from streamchat.protocol.plain import is_list, is_mapping, json_name

__all__ = ["REFUSED", "mismatch"]

REFUSED = "a value that its class refuses"
"""The reason if a class raised: its words may quote the value."""
_MAX_VALUES = 12
"""Allowed values that are listed in a message."""


class _Place(NamedTuple):
    value: Any
    node: Any
    """What :mod:`msgspec.inspect` says of the type."""
    path: str


class _Scalar(NamedTuple):
    name: str
    """As JSON Schema calls it, with the standard that says how it is written."""
    type: Any
    from_json: tuple[type, ...]
    """Types of plain data that may hold it."""


_SCALARS: dict[type, _Scalar] = {
    inspect.NoneType: _Scalar("null", None, (type(None),)),
    inspect.BoolType: _Scalar("a boolean", bool, (bool,)),
    inspect.IntType: _Scalar("an integer", int, (int,)),
    inspect.FloatType: _Scalar("a number", float, (int, float)),
    inspect.StrType: _Scalar("a string", str, (str,)),
    inspect.BytesType: _Scalar("a string in base64 (RFC 4648)", bytes, (str,)),
    inspect.ByteArrayType: _Scalar("a string in base64 (RFC 4648)", bytearray, (str,)),
    inspect.DateTimeType: _Scalar("a date and time (RFC 3339)", datetime.datetime, (str,)),
    inspect.DateType: _Scalar("a date (RFC 3339)", datetime.date, (str,)),
    inspect.TimeType: _Scalar("a time (RFC 3339)", datetime.time, (str,)),
    inspect.TimeDeltaType: _Scalar("a duration (ISO 8601)", datetime.timedelta, (str, int, float)),
    inspect.UUIDType: _Scalar("a UUID (RFC 9562)", uuid.UUID, (str,)),
    inspect.DecimalType: _Scalar("a decimal number", decimal.Decimal, (str, int, float)),
}

_BOUNDS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "a match of the pattern {!r}",
    "tz": "one with a time zone: {}",
}


def mismatch(value: Any, kind: Any, *, strict: bool = True) -> tuple[str, str]:
    """Why plain data does not fit a type that msgspec refused it for, and where (a JSON path).

    Args:
        value: plain data, as :func:`~streamchat.protocol.plain.decode_json` returns it.
        kind: what ``msgspec.convert`` was given.
        strict: as ``msgspec.convert`` was given it.
    """
    todo = [_Place(value, _node_of(kind), "$")]
    classes: list[_Place] = []
    while todo:
        place = todo.pop()
        node = place.node
        while isinstance(node, inspect.Metadata):
            node = node.type
        if isinstance(node, inspect.UnionType):
            node, reason = _member(place.value, node, strict)
        else:
            reason = _own_problem(place.value, node, strict)
        if reason:
            return reason, place.path + _tag_path(place.value, node, reason)
        if node is not None:
            todo += reversed([*_parts(place.value, node, place.path)])
            is_set = isinstance(node, inspect.SetType | inspect.FrozenSetType)
            if is_set or (hasattr(node, "cls") and hasattr(node, "fields")):
                classes.append(place._replace(node=node))
    # All parts fit: a class, or a set, refused what they make together. Inner ones come last.
    for place in reversed(classes):
        if not hasattr(place.node, "cls"):
            if not _holds(place.value, place.node, strict):
                return "an item that a set cannot hold", place.path
        elif not _fits(place.value, place.node.cls, strict):
            return REFUSED, place.path
    return REFUSED, "$"


def _holds(items: Any, node: Any, strict: bool) -> bool:
    """Whether a set can hold items that are of its type: they must have a hash."""
    item = node.item_type
    if isinstance(item, inspect.ListType | inspect.SetType | inspect.DictType):
        return not items
    kind: Any = set.__class_getitem__(item.cls if hasattr(item, "fields") else Any)
    has_arrays = any(is_list(each) or is_mapping(each) for each in items)
    return not has_arrays or _fits(items, kind, strict)


@lru_cache(maxsize=32)
def _node_of(kind: Any) -> Any:
    # A millisecond for the union of all events.
    return inspect.type_info(kind)


def _fits(value: Any, kind: Any, strict: bool) -> bool:
    try:
        msgspec.convert(value, kind, strict=strict, str_keys=True)
    except Exception:  # noqa: BLE001  # a class of the caller's may raise anything
        return False
    return True


def _own_problem(value: Any, node: Any, strict: bool) -> str:
    """What is wrong with a value itself, its parts aside; empty if nothing is."""
    if type(node) in _SCALARS or isinstance(node, inspect.EnumType | inspect.LiteralType):
        return "" if _fits(value, _annotation(node), strict) else _scalar_problem(value, node)
    wanted = _container_name(node)
    if wanted is None:
        return ""
    if not (is_mapping(value) if wanted == "an object" else is_list(value)):
        return f"expected {wanted}, got {json_name(value)}"
    if wanted == "an object":
        return _object_problem(value, node, strict)
    return _length_problem(len(value), node)


def _scalar_problem(value: Any, node: Any) -> str:
    allowed = _allowed_values(node)
    if allowed is not None:
        shown = ", ".join("null" if each is None else repr(each) for each in allowed[:_MAX_VALUES])
        return f"expected one of {shown}" + (", ..." if len(allowed) > _MAX_VALUES else "")
    scalar = _SCALARS[type(node)]
    if type(value) not in scalar.from_json:
        if scalar.type is int and type(value) is float:
            return "expected an integer, got a number with a fraction"
        return f"expected {scalar.name}, got {json_name(value)}"
    wanted = _bounds(node) or f"got another {json_name(value).partition(' ')[2]}"
    return f"expected {scalar.name}, {wanted}"[:300]


def _allowed_values(node: Any) -> list[Any] | None:
    if isinstance(node, inspect.EnumType):
        return [member.value for member in node.cls]
    return list(node.values) if isinstance(node, inspect.LiteralType) else None


def _bounds(node: Any) -> str:
    limits = [
        words.format(limit)
        for name, words in _BOUNDS.items()
        if (limit := getattr(node, name, None)) is not None
    ]
    return " and ".join(limits)


def _annotation(node: Any) -> Any:
    """A scalar's type, as ``msgspec.convert`` takes it."""
    if isinstance(node, inspect.EnumType):
        return node.cls
    if isinstance(node, inspect.LiteralType):
        return Literal[tuple(node.values)]
    limits = {name: limit for name in _BOUNDS if (limit := getattr(node, name, None)) is not None}
    kind = _SCALARS[type(node)].type
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind


# --- arrays and objects --------------------------------------------------------------------------


def _container_name(node: Any) -> str | None:
    if hasattr(node, "key_type"):
        return "an object"
    if hasattr(node, "fields"):
        in_array = isinstance(node, inspect.NamedTupleType) or getattr(node, "array_like", False)
        return "an array" if in_array else "an object"
    return "an array" if hasattr(node, "item_type") or hasattr(node, "item_types") else None


def _object_problem(value: Any, node: Any, strict: bool) -> str:
    if hasattr(node, "key_type"):
        return _key_problem(value, node, strict) or _length_problem(len(value), node)
    tag = getattr(node, "tag", None)
    if tag is not None and value.get(node.tag_field, tag) != tag:
        return f"expected {tag!r}"
    names = {field.encode_name for field in node.fields}
    for field in node.fields:
        if field.required and field.encode_name not in value:
            return f"misses {field.encode_name!r}"
    if getattr(node, "forbid_unknown_fields", False) and value.keys() - names - {node.tag_field}:
        return "has a field that its class does not know"
    return ""


def _key_problem(value: Any, node: Any, strict: bool) -> str:
    """A key is data as well, so it is not part of the path."""
    key_node = node.key_type
    while isinstance(key_node, inspect.Metadata):
        key_node = key_node.type
    if type(key_node) not in _SCALARS and _allowed_values(key_node) is None:
        return ""
    kind: Any = dict.__class_getitem__((_annotation(key_node), Any))
    if any(not _fits({key: None}, kind, strict) for key in value):
        allowed = _allowed_values(key_node)
        name = "one of the allowed values" if allowed else _SCALARS[type(key_node)].name
        return f"expected each key to be {name}"
    return ""


def _length_problem(length: int, node: Any) -> str:
    if isinstance(node, inspect.TupleType):
        wanted = len(node.item_types)
        return "" if length == wanted else f"expected {wanted} items, got {length}"
    if hasattr(node, "fields"):
        wanted = sum(field.required for field in node.fields)
        return "" if length >= wanted else f"expected at least {wanted} items, got {length}"
    least, most = getattr(node, "min_length", None), getattr(node, "max_length", None)
    if least is not None and length < least:
        return f"expected at least {least} items, got {length}"
    if most is not None and length > most:
        return f"expected at most {most} items, got {length}"
    return ""


def _tag_path(value: Any, node: Any, reason: str) -> str:
    """The tag's place, if the tag is what was wrong."""
    field, tag = getattr(node, "tag_field", None), getattr(node, "tag", None)
    is_wrong = tag is not None and is_mapping(value) and reason == f"expected {tag!r}"
    return f".{field}" if is_wrong else ""


def _parts(value: Any, node: Any, path: str) -> Iterator[_Place]:
    """The parts of a value that is an array or object as the type wants it."""
    wanted = _container_name(node)
    if wanted == "an object" and hasattr(node, "key_type"):
        for item in value.values():
            yield _Place(item, node.value_type, f"{path}[...]")
    elif wanted == "an object":
        fields = {field.encode_name: field.type for field in node.fields}
        for name, item in value.items():
            if name in fields:
                yield _Place(item, fields[name], f"{path}.{name}")
    elif wanted is not None:
        kinds: Any = getattr(node, "item_types", None)
        if hasattr(node, "fields"):
            kinds = [field.type for field in node.fields]
        if kinds is None:
            kinds = [node.item_type] * len(value)
        for position, (item, kind) in enumerate(zip(value, kinds, strict=False)):
            yield _Place(item, kind, f"{path}[{position}]")


# --- unions --------------------------------------------------------------------------------------


def _member(value: Any, union: inspect.UnionType, strict: bool) -> tuple[Any, str]:
    """The member of a union that a value is meant for, and what is wrong if it is for none."""
    members: list[Any] = []
    for node in union.types:
        while isinstance(node, inspect.Metadata):
            node = node.type
        members.append(node)
    if is_mapping(value):
        return _object_member(value, members)
    near = ""
    for node in members:
        problem = _own_problem(value, node, strict)
        if not problem:
            return node, ""
        if isinstance(value, _json_types(node)):
            near = near or problem
    return None, near or f"expected {_either(members)}, got {json_name(value)}"


def _object_member(value: Any, members: list[Any]) -> tuple[Any, str]:
    objects = [node for node in members if _container_name(node) == "an object"]
    tagged = [node for node in objects if getattr(node, "tag", None) is not None]
    for node in tagged:
        if value.get(node.tag_field) == node.tag:
            return node, ""
    if tagged and len(objects) == len(tagged):
        return None, f"expected {tagged[0].tag_field!r} to name one of the allowed types"
    if objects:
        return objects[0], _own_problem(value, objects[0], strict=True)
    return None, f"expected {_either(members)}, got {json_name(value)}"


def _json_types(node: Any) -> tuple[type, ...]:
    """The types of plain data that are for this member of a union and for no other."""
    allowed = _allowed_values(node)
    if allowed is not None:
        return tuple(each.__class__ for each in allowed)
    if type(node) in _SCALARS:
        return _SCALARS[type(node)].from_json
    return (list, tuple) if _container_name(node) == "an array" else ()


def _either(members: list[Any]) -> str:
    names = [
        _container_name(node)
        or (_SCALARS[type(node)].name if type(node) in _SCALARS else "an allowed value")
        for node in members
    ]
    return " or ".join(dict.fromkeys(names))
