"""Plain data into attrs classes, strictly: ours for the codec, the caller's for parsed answers.

cattrs by itself coerces: ``None`` becomes the text ``'None'``, ``"7"`` the number 7, ``"xyz"`` three
letters of a list. The hooks here take a value of exactly the right type, or refuse it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_type_hints, is_typeddict

import attrs
import cattrs
import msgspec
from cattrs.gen import make_dict_structure_fn

from streamchat.protocol.messages import (
    BilledUnits,
    TextContent,
    ThinkingContent,
    TokenCounts,
    Usage,
)
from streamchat.protocol.plain import is_mapping, json_name

__all__ = ["Malformed", "json_name", "structure", "structure_answer"]

T = TypeVar("T")


class Malformed(Exception):
    """Plain data that does not fit; the codec turns it into a ``DecodeError``."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path


class _WrongKind(TypeError):
    """Said by the hooks here: it names types alone, so its words may be shown."""


def _exactly(*kinds: type) -> Callable[[Any, Any], Any]:
    """A hook that takes these types as they are; cattrs alone would make ``'None'`` of ``None``."""

    def hook(value: Any, _: Any) -> Any:
        if type(value) not in kinds:
            if kinds == (int,) and type(value) is float:
                raise _WrongKind("expected an integer, got a number with a fraction")
            name = "an integer" if kinds == (int,) else json_name(kinds[0]())
            raise _WrongKind(f"expected {name}, got {json_name(value)}")
        return value

    return hook


def _structure_part(value: Any, _: Any) -> TextContent | ThinkingContent:
    kind = value.get("type") if is_mapping(value) else None
    if kind == "thinking":
        return _converter().structure(value, ThinkingContent)
    return _converter().structure(value, TextContent)


def _keep_extra(cls: type[Any]) -> Callable[[Any, Any], Any]:
    """A hook for classes with an ``extra`` field: unknown keys are kept there."""
    types = {field.name: field.type for field in attrs.fields(cls)}

    def hook(value: Any, _: Any) -> Any:
        if not is_mapping(value):
            raise _WrongKind(f"expected an object, got {json_name(value)}")
        known = {
            name: _converter().structure(value[name], types[name])
            for name in types
            if name != "extra" and value.get(name) is not None
        }
        extra = {name: item for name, item in value.items() if name not in types or name == "extra"}
        return cls(**known, extra=extra)

    return hook


def _object_hook(converter: cattrs.Converter, cls: type[Any]) -> Callable[[Any, Any], Any]:
    """A hook that takes an object alone; cattrs would look for the names inside a ``str`` too."""
    take = make_dict_structure_fn(cls, converter)

    def hook(value: Any, kind: Any) -> Any:
        if not is_mapping(value):
            raise _WrongKind(f"expected an object, got {json_name(value)}")
        return take(value, kind)

    return hook


@cache
def _converter() -> cattrs.Converter:
    # Made when asked for, as the other one: most programs import more than they use of this.
    converter = cattrs.Converter()

    def object_hook(cls: type[Any]) -> Callable[[Any, Any], Any]:
        return _object_hook(converter, cls)

    converter.register_structure_hook_factory(attrs.has, object_hook)
    converter.register_structure_hook(str, _exactly(str))
    converter.register_structure_hook(int, _exactly(int))
    converter.register_structure_hook(float, _exactly(float, int))
    converter.register_structure_hook_func(
        lambda kind: kind == TextContent | ThinkingContent, _structure_part
    )
    converter.register_structure_hook_func(
        lambda kind: kind == dict[str, Any], lambda value, kind: _exactly(dict)(value, kind)
    )
    for cls in (BilledUnits, TokenCounts, Usage):
        converter.register_structure_hook(cls, _keep_extra(cls))
    return converter


_SCALARS = ("datetime", "decimal", "uuid")
"""Modules whose types JSON holds as text."""


@cache
def _answer_converter() -> cattrs.Converter:
    from cattrs.preconf.json import make_converter

    converter = make_converter()
    # As the schema spells them; cattrs has other spellings, or none.
    converter.register_structure_hook(bytes, msgspec.convert)
    converter.register_structure_hook_func(
        lambda kind: getattr(kind, "__module__", "") in _SCALARS, msgspec.convert
    )

    def typed_dict_hook(cls: Any) -> Callable[[Any, Any], Any]:
        hints = get_type_hints(cls)  # cattrs reads NotRequired[...] as it stands in the source
        return lambda value, _: {
            name: converter.structure(item, hints[name]) if name in hints else item
            for name, item in value.items()
        }

    converter.register_structure_hook_factory(is_typeddict, typed_dict_hook)
    return converter


def structure_answer(data: Any, cls: type[T]) -> T:
    """``data`` as a class of the caller's; ``Malformed`` with the path where it does not fit.

    What fits is what the schema says that the model was given, so msgspec judges; then cattrs alone has
    nothing left to bend.
    """
    from streamchat.protocol.schema import misfit

    problem = misfit(data, cls)
    if problem is not None:
        raise Malformed(*problem)
    return _structure(_answer_converter(), data, cls, "$")


def structure(data: Any, cls: type[T], path: str) -> T:
    """``data`` as a class of ours, strictly; ``Malformed`` with the path where it does not fit."""
    return _structure(_converter(), data, cls, path)


def _structure(converter: cattrs.Converter, data: Any, cls: type[T], path: str) -> T:
    try:
        return converter.structure(data, cls)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason, place = _first_problem(error, path)
    raise Malformed(reason, place)


def _first_problem(error: BaseException, path: str) -> tuple[str, str]:
    """What was wrong and where; of several problems the first.

    Read from the exceptions and what cattrs attached to them. Its words change between versions, and
    quote a value that is not in a ``Literal``.
    """
    while isinstance(error, cattrs.BaseValidationError):
        group: Any = error  # both of its subclasses can be taken apart
        noted, others = group.group_exceptions()
        if not noted:
            error = others[0]
            continue
        note: Any
        error, note = noted[0]
        path += f".{note.name}" if hasattr(note, "name") else f"[{note.index!r}]"
    return _reason(error), path


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return "required field missing"
    if isinstance(error, _WrongKind):
        return str(error)
    return "a value that is not allowed here"
