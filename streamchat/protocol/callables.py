"""What a function says of its parameters: annotations, what is bound already, and the docstring."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

__all__ = [
    "accepts",
    "annotations_of",
    "docstring_of",
    "inside_partial",
    "read_docstring",
    "signature_of",
]


def annotations_of(
    function: Any, wanted: Collection[str], name: str, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The annotations of some parameters, evaluated. The others and the return type may be unusable.

    Args:
        function: what has the annotations.
        wanted: names of the parameters; one without an annotation is not in the result.
        name: how an error calls the tool.
        known: names that annotations may use although the function's module does not have them, as
            with an import under ``if TYPE_CHECKING:``.

    Raises:
        TypeError: one of them cannot be evaluated; the message names the parameter.
    """
    with suppress(Exception):  # evaluating annotations may raise anything
        return get_type_hints(function, include_extras=True)
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    missing = {key: value for key, value in known.items() if key not in scope}
    found: dict[str, Any] = {}
    reason = ""
    for parameter, annotation in getattr(function, "__annotations__", {}).items():
        if parameter not in wanted or parameter == "return":
            continue
        holder = types.SimpleNamespace(__annotations__={parameter: annotation})
        try:
            found |= get_type_hints(holder, scope, missing, include_extras=True)
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
    with suppress(ValueError):  # in a circle
        wrapped = inspect.unwrap(
            function
        )  # a decorator that is an object, with functools.update_wrapper
        if inspect.isroutine(wrapped):
            return wrapped, filled
    called: Callable[..., Any] = getattr(function, "__call__")  # noqa: B004, B009  # what it does
    return called, filled


def signature_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters that are left to pass.

    A partial that ``functools.update_wrapper`` made look like its function would have the parameters of
    that, those that are bound included.

    Raises:
        TypeError: it cannot be read, or a partial does not fit. The message does not show what is bound.
    """
    reason = ""
    try:
        if not isinstance(function, functools.partial):
            return inspect.signature(function).parameters
        return inspect.signature(_bare(function)).parameters
    except (AttributeError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        # Its words show the object, and what it holds.
        reason = f"inspect.signature() raises {type(error).__name__}; wrap it in a function"
    if isinstance(function, functools.partial):
        bound = len(function.args) + len(function.keywords)
        reason = f"a partial has bound {bound} of its arguments, which do not fit"
    raise TypeError(reason)


def _bare(function: Any) -> Any:
    """A partial, and those inside of it, without the attributes that ``update_wrapper`` gives."""
    if not isinstance(function, functools.partial):
        return function
    return functools.partial(_bare(function.func), *function.args, **function.keywords)


def docstring_of(function: Callable[..., Any]) -> str:
    """What a function says of itself; of a method the words of the one that it overrides, and of a
    callable object those of its class.

    Not :func:`inspect.getdoc`: where nothing is written, that finds the docstring of ``type.__call__``,
    or that of the class of a tool which the method overrides.
    """
    text: Any = getattr(function, "__doc__", None)
    owner: Any = getattr(function, "__self__", None)
    if not text and owner is not None and not inspect.ismodule(owner):
        cls: Any = owner if isinstance(owner, type) else type(owner)
        name = getattr(function, "__name__", "")
        overridden = (base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)
        texts: list[str | None] = [
            inspect.unwrap(getattr(each, "__func__", each)).__doc__ for each in overridden
        ]
        if name == "__call__" and not _is_generated(cls):
            texts.append(cls.__dict__.get("__doc__"))
        text = next(filter(None, texts), None)
    return inspect.cleandoc(text) if isinstance(text, str) else ""


def _is_generated(cls: Any) -> bool:
    """Whether ``dataclasses`` wrote the docstring: the class as a call."""
    return str(cls.__doc__).startswith(f"{cls.__name__}(")


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
