"""What a function says of its parameters: annotations, what is bound already, and the docstring."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

__all__ = ["accepts", "annotations_of", "inside_partial", "read_docstring"]


def annotations_of(function: Any, wanted: Collection[str], name: str) -> dict[str, Any]:
    """The annotations of some parameters, evaluated. The others and the return type may be unusable.

    Args:
        function: what has the annotations.
        wanted: names of the parameters; one without an annotation is not in the result.
        name: how an error calls the tool.

    Raises:
        TypeError: one of them cannot be evaluated; the message names the parameter.
    """
    with suppress(Exception):  # evaluating annotations may raise anything
        return get_type_hints(function, include_extras=True)
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    found: dict[str, Any] = {}
    reason = ""
    for parameter, annotation in getattr(function, "__annotations__", {}).items():
        if parameter not in wanted or parameter == "return":
            continue
        holder = types.SimpleNamespace(__annotations__={parameter: annotation})
        try:
            found |= get_type_hints(holder, scope, include_extras=True)
        except NameError as error:
            reason = f"{error.name!r} must be importable where the function is defined"
        except Exception as error:  # noqa: BLE001  # as above
            reason = f"{str(error).partition(chr(10))[0][:200]} ({type(error).__name__})"
        if reason:
            raise TypeError(
                f"tool {name} has a signature that cannot be read: parameter {parameter!r}: {reason}"
            )
    return found


def accepts(annotation: Any, kind: type) -> bool | None:
    """Whether an annotation is this class (``True``), the class or None (``False``); else ``None``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is kind:
        return True
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    return False if set(get_args(annotation)) == {kind, type(None)} else None


def inside_partial(function: Callable[..., Any]) -> tuple[Callable[..., Any], set[str]]:
    """What has the annotations and the docstring, and the names of the keywords that are bound."""
    filled: set[str] = set()
    while isinstance(function, functools.partial):
        filled |= function.keywords.keys()
        function = function.func
    if inspect.isroutine(function):
        return function, filled
    called: Callable[..., Any] = getattr(function, "__call__")  # noqa: B004, B009  # what it does
    return called, filled


_HEADING = re.compile(
    r"^[ \t]*(args|arguments|parameters|params|returns?|raises|yields|examples?|notes?)[ \t]*:?[ \t]*"
    r"(\n[ \t]*-+[ \t]*)?$",
    re.IGNORECASE | re.MULTILINE,
)


def read_docstring(text: str, names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The description, and what is said of each parameter.

    Understood are ``name: what it is`` on a line of its own (Google's sections) or behind a sentence,
    ``name (type): ...``, ``:param name: ...`` and NumPy's ``name : type`` with lines below.
    """
    if not names:
        return _HEADING.split(text)[0].strip(), {}
    either = "(" + "|".join(map(re.escape, names)) + ")"
    mark = re.compile(
        rf"^{either}[ \t]+:[ \t]+[^\n]+\n(?=[ \t]+\S)"  # NumPy's
        r"|(?:^[ \t]*|(?<=[.,;:!?)\]])[ \t]+)"  # a line, or what follows a sentence
        rf"(?::param[ \t]+(?:\w+[ \t]+)?)?{either}(?:[ \t]*\([^)\n]*\))?[ \t]*:"
        r"(?:[ \t]*(?=\n)|[ \t]+(?=\S))",
        re.MULTILINE,
    )
    marks = list(mark.finditer(text))
    if not marks:
        return _HEADING.split(text)[0].strip(), {}
    ends = [match.start() for match in marks[1:]] + [len(text)]
    words: dict[str, str] = {}
    for match, end in zip(marks, ends, strict=True):
        said = _HEADING.split(text[match.end() : end])[0]
        said = re.split(r"\n[ \t]*\n|\n[ \t]*:\w+", said)[0]
        words.setdefault(match[1] or match[2], " ".join(said.split()))
    return _HEADING.split(text[: marks[0].start()])[0].strip(), words
