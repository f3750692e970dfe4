"""Plain data into the caller's own classes, strictly, for parsed answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_type_hints, is_typeddict

import cattrs
import msgspec

from streamchat.protocol.from_json import Malformed

__all__ = ["Malformed", "structure_answer"]

T = TypeVar("T")


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
    return "a value that is not allowed here"
