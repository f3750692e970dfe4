"""Objects to plain JSON data, JSON text to plain data and back; imports nothing of ours.

*Plain* means ``dict`` with ``str`` keys, ``list``, ``str``, ``int``, ``float``, ``bool`` and
``None``: what JSON (RFC 8259) can say, and nothing that it would bend. What does not fit is a
``TypeError`` or ``ValueError`` that names the place; nothing is ever coerced.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeGuard

import attrs
import msgspec

__all__ = [
    "as_dict",
    "decode_json",
    "dumped",
    "encode_json",
    "is_list",
    "is_mapping",
    "repair_surrogates",
    "to_plain",
]

MAX_DEPTH = 200
"""Nesting that :func:`to_plain` follows; beyond it a self-referencing object is assumed."""


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it reads as a JSON object; that its keys are ``str`` is checked where it matters."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it reads as a JSON array: a list or a tuple, not a ``str``."""
    return isinstance(value, list | tuple)


def to_plain(value: Any, path: str = "$", *, _depth: int = 0) -> Any:
    """Return an independent plain copy of ``value``.

    Args:
        value: plain data, tuples, mappings with ``str`` keys, attrs objects (see
            :func:`as_dict`) or instances of pydantic classes, nested at will.
        path: how the value is named in an error.

    Raises:
        TypeError: something that JSON cannot say.
        ValueError: a float that is not finite, text that is not valid Unicode (a lone surrogate),
            or nesting beyond 200 levels.
    """
    if isinstance(value, str):
        if repair_surrogates(value) is not value:
            raise ValueError(f"{path} holds a lone surrogate, which is not text")
        return str.__str__(value)  # of an enum member its value; str() gives its name
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value}, which JSON cannot say")
        return float.__float__(value)
    if _depth >= MAX_DEPTH:
        raise ValueError(f"{path[:120]} is nested too deeply, or contains itself")
    if is_mapping(value):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has a key that is not a str: {type(key).__name__}")
            copy[to_plain(key, f"a key of {path}")] = to_plain(
                item, _inside(path, f".{key}"), _depth=_depth + 1
            )
        return copy
    if is_list(value):
        return [
            to_plain(item, _inside(path, f"[{position}]"), _depth=_depth + 1)
            for position, item in enumerate(value)
        ]
    cls = _class_of(value)
    by_pydantic = dumped(value, path)
    if by_pydantic is not None:
        return to_plain(by_pydantic, path, _depth=_depth + 1)
    if attrs.has(cls):
        return to_plain(as_dict(value), path, _depth=_depth)
    raise TypeError(f"{path} is of type {cls.__name__}, which JSON cannot say")


def _inside(path: str, part: str) -> str:
    """The place of a part, cut short: a giant key is not copied for each thing beneath it."""
    return path + part[:80] if len(path) < 120 else path


def _class_of(value: Any) -> Any:
    return value.__class__


def dumped(value: Any, path: str) -> Any:
    """An instance of a pydantic class as pydantic writes it in JSON; ``None`` for anything else.

    A class is recognised by its methods: pydantic is not imported.

    Raises:
        ValueError: its serializers refuse the value.
    """
    cls = _class_of(value)
    if callable(getattr(cls, "model_dump", None)):
        write = value.model_dump
    elif hasattr(cls, "__pydantic_validator__") and hasattr(cls, "__pydantic_serializer__"):
        write = functools.partial(cls.__pydantic_serializer__.to_python, value)
    else:
        return None
    problem: str
    try:
        return write(mode="json")
    except Exception as error:  # noqa: BLE001  # the class is the caller's and may raise anything
        problem = str(error)[:200]
    raise ValueError(f"{path} is of type {cls.__name__}, which cannot write itself: {problem}")


def as_dict(instance: Any) -> dict[str, Any]:
    """The wire's fields of an attrs object, one level deep, in wire order.

    Left out: what equals its default (the wire sends no empty fields, protocol.md 4), private
    fields, and the field named ``extra``, whose keys stand beside the others. Always kept: the
    discriminators ``type`` and ``role`` unless they are ``None``.
    """
    fields: dict[str, Any] = {}
    cls = _class_of(instance)
    for field in attrs.fields(cls):
        value = getattr(instance, field.name)
        if field.name == "extra":
            fields.update(value)
        elif field.name in ("type", "role"):
            if value is not None:
                fields[field.name] = value
        elif not field.name.startswith("_") and not _is_default(value, field):
            fields[field.name] = value
    return fields


def _is_default(value: Any, field: attrs.Attribute[Any]) -> bool:
    default: Any = field.default
    if default is attrs.NOTHING:
        return False
    factory = getattr(default, "factory", None)
    return bool(value == (factory() if factory is not None else default))


def encode_json(value: Any) -> bytes:
    """Plain data as compact UTF-8 JSON; raises as :func:`to_plain` does."""
    return msgspec.json.encode(to_plain(value))


def decode_json(text: bytes | str) -> Any:
    """Plain data from JSON text, strictly RFC 8259.

    Two things are forgiven, because a model's tokens really produce them: an ill-formed UTF-8
    sequence reads as U+FFFD, and a lone surrogate escape (half an emoji) is kept as it is.

    Raises:
        ValueError: not JSON, ``NaN``, ``Infinity``, a number out of range, or nesting too deep.
            The message does not quote the text.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    problem: str
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at character {error.pos}"
    except RecursionError:
        problem = "not usable JSON: nested too deeply"
    except ValueError:
        problem = "not usable JSON: a number is out of range, or not a JSON number"
    raise ValueError(problem)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def repair_surrogates(text: str) -> str:
    """Join surrogate halves into characters; a half alone becomes U+FFFD (faults.md F76)."""
    if text.isascii():
        return text
    repaired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text if repaired == text else repaired
