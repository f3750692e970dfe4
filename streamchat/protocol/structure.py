"""Plain data into attrs classes, strictly: ours for the codec, the caller's for parsed answers.

cattrs by itself coerces: ``None`` becomes the text ``'None'``, ``"7"`` the number 7, ``"xyz"`` three
letters of a list. The hooks here take a value of exactly the right type, or refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn

from streamchat.protocol.messages import (
    BilledUnits,
    TextContent,
    ThinkingContent,
    TokenCounts,
    Usage,
)
from streamchat.protocol.plain import is_mapping

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
            raise _WrongKind(f"expected {json_name(kinds[0]())}, got {json_name(value)}")
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


def structure_answer(data: Any, cls: type[T]) -> T:
    """``data`` as a class of the caller's; ``Malformed`` with the path where it does not fit."""
    from streamchat.protocol.kinds import Misfit
    from streamchat.protocol.schema import answer_of

    problem: tuple[str, str]
    try:
        read: T = answer_of(cls).read(data)
    except Misfit as misfit:
        problem = misfit.reason, misfit.path
    else:
        return read
    raise Malformed(*problem)


def structure(data: Any, cls: type[T], path: str) -> T:
    """``data`` as a class of ours, strictly; ``Malformed`` with the path where it does not fit."""
    return _structure(_converter(), data, cls, path)


def _structure(converter: cattrs.Converter, data: Any, cls: type[T], path: str) -> T:
    try:
        return converter.structure(data, cls)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        first = cattrs.transform_error(error, path=path, format_exception=_reason)[0]
    reason, _, place = first.rpartition(" @ ")
    raise Malformed(reason, place or path)


def _reason(error: BaseException, kind: type[Any] | None) -> str:
    """What was wrong; cattrs' own words would quote a value that is not in a ``Literal``."""
    if isinstance(error, KeyError):
        return "required field missing"
    if isinstance(error, _WrongKind):
        return str(error)
    return "a value that is not allowed here"


_JSON_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def json_name(value: object) -> str:
    """What JSON calls a value of this type, for error messages."""
    return _JSON_NAMES.get(type(value), type(value).__name__)
