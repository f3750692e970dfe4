"""Objects to plain JSON data, JSON text to plain data and back; imports nothing of ours.

*Plain* means ``dict`` with ``str`` keys, ``list``, ``str``, ``int``, ``float``, ``bool`` and
``None``: what JSON (RFC 8259) can say, and nothing that it would bend. What does not fit is a
``TypeError`` or ``ValueError`` that names the place; nothing is ever coerced.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from types import GenericAlias
from typing import Any, NoReturn, Protocol, TypeGuard

import attrs
import msgspec

__all__ = [
    "FLAT",
    "MAX_COPIED_DEPTH",
    "MAX_DEPTH",
    "MAX_WRITTEN_DIGITS",
    "MAX_VALUES",
    "Model",
    "TOO_DEEP",
    "as_dict",
    "copied",
    "decode_json",
    "dumped",
    "encode_json",
    "encode_plain",
    "has_giant_integer",
    "holds_too_many",
    "is_list",
    "is_mapping",
    "is_nested_deeper",
    "is_too_long",
    "json_name",
    "nested_too_deeply",
    "repair_surrogates",
    "to_plain",
    "writes_itself",
]

MAX_DEPTH = 200
"""Levels of arrays and objects in JSON that is read, and in values that a caller passes.

Interpreters and parsers have limits of their own, which depend on the Python version and on the
caller's stack; this one is below all of them.
"""
MAX_DIGITS = 308
"""Digits of an integer that is read: a ``float`` has no more (RFC 8259 6), so ``float()`` of it works."""
MAX_VALUES = 100_000
"""Values that one event may hold. Each is at least a token of the prompt or of the answer, and half of
what the largest context holds; each takes up to 100 bytes of memory and 1 us to read."""
FLAT = min(2 * MAX_DEPTH, MAX_DIGITS)
"""Bytes of JSON that can neither nest deeper than ``MAX_DEPTH`` (each level is opened and closed) nor
have an integer of more than ``MAX_DIGITS``."""
MAX_COPIED_DEPTH = MAX_DEPTH + 16
"""Levels that :func:`to_plain` follows; beyond them a self-referencing object is assumed.

More than ``MAX_DEPTH``, so that everything that was read can be written: a copy puts it inside a
message, a request or a row of results, which are a few levels themselves.
"""
TOO_DEEP = f"nested too deeply (more than {MAX_DEPTH} levels)"
"""The reason in errors about text that exceeds ``MAX_DEPTH``."""


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it reads as a JSON object; that its keys are ``str`` is checked where it matters."""
    return type(value) is dict or isinstance(
        value, Mapping
    )  # the first takes a tenth of the second


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it reads as a JSON array: a list or a tuple, not a ``str``."""
    return isinstance(value, list | tuple)


class Model(Protocol):
    """An instance of a pydantic class, for annotations; :func:`dumped` recognises more."""

    def model_dump(self) -> dict[str, Any]:
        """Its fields, as pydantic writes them."""
        ...


MAX_WRITTEN_DIGITS = 4300
"""Digits of an integer that Python writes and reads, for its time is quadratic."""
_TOO_LONG = 10**MAX_WRITTEN_DIGITS


def is_too_long(number: int) -> bool:
    """Whether it has more digits than Python writes."""
    return not -_TOO_LONG < number < _TOO_LONG


_JSON_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "an array",
    tuple: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def json_name(value: object) -> str:
    """What JSON calls a value of this type, for error messages."""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def to_plain(
    value: Any, path: str = "$", *, levels: int = MAX_COPIED_DEPTH, omit_none: bool = False
) -> Any:
    """Return an independent plain copy of ``value``.

    Args:
        value: plain data, tuples, mappings with ``str`` keys, our records (see :func:`as_dict`),
            attrs objects of the user's (all their public fields) or instances of pydantic classes.
        path: how the value is named in an error.
        levels: how many levels of nesting are allowed.
        omit_none: leave out the fields of such objects that are ``None``, as for objects of a
            request. Not below the key ``data``, which holds a document of the user's: there, as
            everywhere without this, they are ``null``. Plain data is copied as it is, always.

    Raises:
        TypeError: something that JSON cannot say.
        ValueError: a float that is not finite, an integer that Python cannot write, text that is
            not valid Unicode (a lone surrogate), or more levels of nesting. Nothing that
            :func:`decode_json` returned has more than the default of ``levels``.
    """
    try:
        return copied(value, levels, omit_none)
    except Exception:  # noqa: BLE001, S110  # values may have methods of the caller's
        pass
    return _plain_or_why_not(value, path, levels=levels, omit_none=omit_none)


def copied(value: Any, levels: int, omit_none: bool) -> Any:
    """The quick half of :func:`to_plain`: by exact types, and without a word of where something is wrong.

    Raises:
        Exception: of any kind, where :func:`to_plain` raises; that says what and where.
    """
    cls = value.__class__
    if cls is dict:
        if levels <= 0:
            raise ValueError
        levels -= 1
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if key.__class__ is not str:
                raise TypeError
            if not key.isascii():
                key.encode()  # refuses a lone surrogate
            # The commonest values here, and not by another call: it would take most of the time.
            kind = item.__class__
            if kind is str:
                if not item.isascii():
                    item.encode()
                copy[key] = item
            elif kind is dict or kind is list:
                copy[key] = copied(item, levels, omit_none and key != "data")
            elif item is None or kind is bool:
                copy[key] = item
            else:
                copy[key] = copied(item, levels, omit_none and key != "data")
        return copy
    if cls is list or cls is tuple:
        if levels <= 0:
            raise ValueError
        levels -= 1
        return [
            item if item.__class__ is str and item.isascii() else copied(item, levels, omit_none)
            for item in value
        ]
    if cls is str:
        if not value.isascii():
            value.encode()
        return value
    if value is None or value is True or value is False:
        return value
    if cls is int and -_LONG <= value <= _LONG:
        return value
    if cls is float and value - value == 0.0:  # not so for infinity and nan
        return value
    kept = _kept_fields(cls)
    if kept is not None:
        if levels <= 0:
            raise ValueError
        return _copied_fields(value, kept, levels - 1, omit_none)
    return _plain_or_why_not(value, "$", levels=levels, omit_none=omit_none)


_LONG = 2**62


def _copied_fields(instance: Any, fields: FieldList, levels: int, omit_none: bool) -> Any:
    """The copy of what :func:`as_dict` gives, without that in between."""
    copy: dict[str, Any] = {}
    for name, is_discriminator, default in fields:
        value = getattr(instance, name)
        if name == "extra" and (others := _other_fields(value, "$", omit_none)) is not None:
            copy |= copied(others, levels + 1, omit_none)
        elif value.__class__ is str and value.isascii():
            if is_discriminator or default is _ALWAYS or value != default:
                copy[name] = value
        elif is_discriminator:
            if value is not None:
                copy[name] = copied(value, levels, omit_none)
        elif default is _ALWAYS or value != default:
            copy[name] = copied(value, levels, omit_none and name != "data")
    return copy


def _plain_or_why_not(value: Any, path: str, *, levels: int = 1, omit_none: bool = False) -> Any:
    """The copy of any value, or the error that names the place."""
    if isinstance(value, str):
        if repair_surrogates(value) is not value:
            raise ValueError(f"{path} holds a lone surrogate, which is not text")
        return str.__str__(value)  # of an enum member its value; str() gives its name
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if is_too_long(value):
            raise ValueError(f"{path} is a number of more than {MAX_WRITTEN_DIGITS:,} digits")
        return int.__int__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value}, which JSON cannot say")
        return float.__float__(value)
    if levels <= 0:
        raise ValueError(f"{path[:120]} is nested too deeply, or contains itself")
    if is_mapping(value):
        copy: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has a key that is not a str: {type(key).__name__}")
            copy[_plain_or_why_not(key, f"a key of {path}")] = _plain_or_why_not(
                item,
                _inside(path, f".{key}"),
                levels=levels - 1,
                omit_none=omit_none and key != "data",
            )
        return copy
    if is_list(value):
        return [
            _plain_or_why_not(
                item, _inside(path, f"[{position}]"), levels=levels - 1, omit_none=omit_none
            )
            for position, item in enumerate(value)
        ]
    cls = _class_of(value)
    by_pydantic = dumped(value, path, omit_none=omit_none)
    if by_pydantic is not None or writes_itself(cls):
        return _plain_or_why_not(by_pydantic, path, levels=levels - 1, omit_none=omit_none)
    if attrs.has(cls):
        if is_of_wire(cls):
            fields = _fields_of(value, _field_list(cls), path, omit_none)
        else:
            fields = _whole(value, omit_none)
        return _plain_or_why_not(fields, path, levels=levels, omit_none=omit_none)
    raise TypeError(f"{path} is of type {cls.__name__}, which JSON cannot say")


def is_of_wire(cls: Any) -> bool:
    """Whether it is one of our records, whose defaults the server knows; not an attrs class of the user's."""
    return bool(getattr(cls, "_leaves_out_defaults", False))


def _whole(instance: Any, omit_none: bool) -> dict[str, Any]:
    """All public fields of an attrs object of the user's: one that equals its default says as much."""
    cls = _class_of(instance)
    names = [field.name for field in attrs.fields(cls) if not field.name.startswith("_")]
    fields = {name: getattr(instance, name) for name in names}
    return {name: item for name, item in fields.items() if not (omit_none and item is None)}


def _inside(path: str, part: str) -> str:
    """The place of a part, cut short: a giant key is not copied for each thing beneath it."""
    return path + part[:80] if len(path) < 120 else path


def _class_of(value: Any) -> Any:
    return value.__class__


_PLAIN_CLASSES: frozenset[type] = frozenset({dict, str, list, tuple, int, float, bool, type(None)})


def dumped(value: Any, path: str, *, omit_none: bool = False) -> Any:
    """An instance of a pydantic class as pydantic writes it in JSON; ``None`` for anything else.

    ``None`` may be such a value too; :func:`writes_itself` tells the two apart.

    Fields have the names they are written with (aliases). A class is recognised by its methods, those
    of pydantic 1 and pydantic's dataclasses too: pydantic is not imported.

    Args:
        value: any object.
        path: how the value is named in an error.
        omit_none: leave out fields that are ``None``.

    Raises:
        ValueError: its serializers refuse the value.
    """
    cls = _class_of(value)
    if cls in _PLAIN_CLASSES:
        return None
    write = _writer(cls)
    if write is None:
        return None
    problem: str
    try:
        return write(value, by_alias=True, exclude_none=omit_none)
    except Warning:  # turned into an exception by a filter; its words quote the value
        problem = "a field holds another type than it declares"
    except Exception as error:  # noqa: BLE001  # the class is the caller's and may raise anything
        problem = str(error)[:200]
    raise ValueError(f"{path} is of type {cls.__name__}, which cannot write itself: {problem}")


def writes_itself(cls: Any) -> bool:
    """Whether it is a pydantic class: what :func:`dumped` returns of its instances is their value."""
    return cls not in _PLAIN_CLASSES and _writer(cls) is not None


def _writer(cls: Any) -> Callable[..., Any] | None:
    """How a pydantic class writes its instances; None if it is not one."""
    if callable(getattr(cls, "model_dump", None)):
        return functools.partial(cls.model_dump, mode="json")
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "__pydantic_serializer__"):
        return functools.partial(cls.__pydantic_serializer__.to_python, mode="json")
    if isinstance(getattr(cls, "__fields__", None), dict) and callable(getattr(cls, "json", None)):
        return functools.partial(_through_text, cls.json)
    return None


def _through_text(write: Callable[..., str], value: Any, **options: bool) -> Any:
    return decode_json(write(value, **options))


def as_dict(instance: Any) -> dict[str, Any]:
    """The wire's fields of a record, one level deep, in wire order.

    Left out: what equals its default (the wire sends no empty fields), private fields, and the field
    named ``extra`` if it holds a dict, whose keys stand beside the others. Always kept: the
    discriminators ``type`` and ``role`` unless they are ``None``.
    """
    return _fields_of(instance, _field_list(_class_of(instance)), "$", omit_none=False)


_ALWAYS = object()
"""In place of the default of a field that is always written."""
FieldList = tuple[tuple[str, bool, Any], ...]
"""Names of fields, whether they are a discriminator, and their default: itself, or, if it may be another
for each instance, the ``attrs.Factory`` that makes it."""


def _fields_of(instance: Any, fields: FieldList, path: str, omit_none: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, is_discriminator, default in fields:
        value = getattr(instance, name)
        if name == "extra" and (others := _other_fields(value, path, omit_none)) is not None:
            found.update(others)
        elif is_discriminator:
            if value is not None:
                found[name] = value
        elif default is _ALWAYS or value != (
            default.factory() if default.__class__ is _FACTORY else default
        ):
            found[name] = value
    return found


def _other_fields(extra: Any, path: str, omit_none: bool) -> Mapping[str, Any] | None:
    """The fields in ``extra``, one level deep; ``None`` if it is no dict, but a field like others."""
    if is_mapping(extra):
        return extra
    fields = dumped(extra, _inside(path, ".extra"), omit_none=omit_none)
    return fields if is_mapping(fields) else None


@functools.lru_cache(maxsize=1024)
def _field_list(cls: Any) -> FieldList:
    """What is written of the instances of an attrs class, kept for each class."""
    return tuple(
        (field.name, field.name in ("type", "role"), _default_of(field))
        for field in attrs.fields(cls)
        if not field.name.startswith("_")
    )


def _default_of(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    if default is attrs.NOTHING or getattr(default, "takes_self", False):
        return _ALWAYS
    factory: Any = getattr(default, "factory", _ALWAYS)
    return factory() if isinstance(factory, _CLASSES) else default


_FACTORY: Any = attrs.Factory
_CLASSES: Any = (type, GenericAlias)
"""Factories that make equal objects. What a function makes may depend on a clock or on settings."""


@functools.lru_cache(maxsize=1024)
def _kept_fields(cls: Any) -> FieldList | None:
    """The fields of one of our records, which are copied by them; None for any other class."""
    if issubclass(cls, str | int | float | list | tuple | Mapping) or _writer(cls) is not None:
        return None
    fields = _field_list(cls) if attrs.has(cls) and is_of_wire(cls) else ()
    if not fields or any(default.__class__ is _FACTORY for *_, default in fields):
        return None
    return fields


def encode_json(value: Any) -> bytes:
    """Plain data as compact UTF-8 JSON; raises as :func:`to_plain` does."""
    return msgspec.json.encode(to_plain(value))


encode_plain = msgspec.json.encode
"""The same for what :func:`to_plain` has returned and nobody else has had in hands since."""


def decode_json(text: bytes | str, *, levels: int = MAX_DEPTH) -> Any:
    """Plain data from JSON text, strictly RFC 8259.

    Two things are forgiven, because a model's tokens really produce them: an ill-formed UTF-8
    sequence reads as U+FFFD, and a lone surrogate escape (half an emoji) is kept as it is.

    Args:
        text: the JSON.
        levels: how many levels of nesting are allowed; the same on each version of Python.

    Raises:
        ValueError: not JSON, ``NaN``, ``Infinity``, a number out of range, or more levels of
            nesting. The message does not quote the text.
    """
    if nested_too_deeply(text, levels):
        raise ValueError(f"not usable JSON: nested too deeply (more than {levels} levels)")
    if has_giant_integer(text):
        raise ValueError(_OUT_OF_RANGE)
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
        # The parser's own words change between versions of Python.
        problem = f"not JSON: unreadable at character {error.pos}" if text else "not JSON: empty"
    except RecursionError:  # the caller's stack is nearly full
        problem = "not usable JSON: nested too deeply for what is left of the stack"
    except ValueError:
        problem = _OUT_OF_RANGE
    raise ValueError(problem)


_OUT_OF_RANGE = "not usable JSON: a number is out of range, or not a JSON number"
_STRIDE = 100
_SAMPLED_DIGITS = re.compile(r"[0-9]{3}")
_GIANT_INTEGER = re.compile(rf"(?<![0-9.])[1-9][0-9]{{{MAX_DIGITS}}}")


def has_giant_integer(text: bytes | str) -> bool:
    """Whether JSON text has an integer of more than ``MAX_DIGITS`` digits, outside of its strings.

    309 digits in a row show as 3 in a row among every hundredth character, so text without long numbers
    costs 0.2 ms per MiB; otherwise up to 50 ms.
    """
    if len(text) <= MAX_DIGITS:
        return False
    sample = text[::_STRIDE]
    if isinstance(sample, bytes):
        sample = sample.decode("latin-1")
    if not _SAMPLED_DIGITS.search(sample):
        return False
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not _GIANT_INTEGER.search(text):
        return False
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    return _GIANT_INTEGER.search('"'.join(text.split('"')[::2])) is not None


_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_WINDOW = 1 << 14
_PART = 1 << 18


def nested_too_deeply(text: bytes | str, levels: int = MAX_DEPTH) -> bool:
    """Whether JSON text nests arrays and objects deeper than ``levels``.

    Linear: at most 45 ms per MiB, and a comparison for text that is short. Text that is not JSON is
    judged by what a parser would read before the first mistake, so that a parser that is given text
    which passed never goes deeper. (Unterminated text of up to ``2 * levels`` bytes may.)
    """
    if len(text) <= 2 * levels:
        return False
    if isinstance(text, str):
        if text.count("[") + text.count("{") <= levels:
            return False
        text = text.encode("utf-8", "surrogatepass")
    elif text.count(b"[") + text.count(b"{") <= levels:
        return False
    depth = 0
    for outside in _outside_strings(text):
        steps = memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b")
        for start in range(0, len(steps), _WINDOW):
            depths = list(accumulate(steps[start : start + _WINDOW], initial=depth))
            if max(depths) > levels:
                return True
            depth = depths[-1]
    return False


def _outside_strings(text: bytes) -> Iterator[bytes]:
    """JSON text without its strings, a part at a time: what is cut at each quote takes memory."""
    # A backslash is an escape inside a string, and a mistake outside of one.
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    is_inside = 0
    for start in range(0, len(text), _PART):
        parts = text[start : start + _PART].split(b'"')
        yield b"".join(parts[is_inside::2])
        is_inside ^= (len(parts) - 1) & 1


def holds_too_many(text: bytes) -> bool:
    """Whether JSON text holds more than :data:`MAX_VALUES` values; nothing is done for short text."""
    if len(text) <= 2 * MAX_VALUES or _separators(text) <= MAX_VALUES:
        return False
    count = 0
    for outside in _outside_strings(text):
        count += _separators(outside)
        if count > MAX_VALUES:
            return True
    return False


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def is_nested_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether plain data nests deeper than ``levels``, or contains itself; linear in its size."""
    layer: list[Any] = [value] if is_mapping(value) or is_list(value) else []
    for _ in range(levels):
        parts: dict[int, Any] = {}
        for item in layer:
            inner: Any = item.values() if is_mapping(item) else item
            parts |= {id(part): part for part in inner if is_mapping(part) or is_list(part)}
        layer = list(parts.values())
        if not layer:
            break
    return bool(layer)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def repair_surrogates(text: str) -> str:
    """Join surrogate halves into characters; a half alone becomes U+FFFD."""
    if text.isascii():
        return text
    repaired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text if repaired == text else repaired
