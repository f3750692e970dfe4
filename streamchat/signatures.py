"""How a function wants to be called, read once, when it is registered."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeVar, cast

__all__ = [
    "checked_callable",
    "is_async",
    "is_defined_again",
    "name_of",
    "put_or_replace",
    "takes_context",
    "takes_self",
]


T = TypeVar("T")

MOST_WRAPPERS = 100
"""Wrappers around a function that are looked through: ``__wrapped__`` may lead in a circle."""


def name_of(function: Any) -> str:
    """How an error names a function: a partial by its function, another object by its class.

    Never by its ``repr``, which shows what is bound or held: a key, for example.
    """
    if isinstance(function, functools.partial):
        return name_of(cast("Any", function).func)
    return getattr(function, "__qualname__", None) or type(function).__qualname__


class _Default:
    def __repr__(self) -> str:
        return "..."


def _shown(function: Any) -> str:
    """The signature for an error, without the values of defaults and of bound keywords."""
    signature = inspect.signature(function)
    hidden = [
        each if each.default is each.empty else each.replace(default=_Default())
        for each in signature.parameters.values()
    ]
    return str(signature.replace(parameters=hidden))


def checked_callable(function: Any, role: str) -> None:
    """Refuse what nobody could call, or would iterate over.

    Raises:
        TypeError: not callable, or a generator function; ``role`` says what it was to be.
    """
    if not callable(function):
        article = "an" if role[0] in "aeiou" else "a"
        raise TypeError(f"{article} {role} must be callable, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{role} {name_of(function)} is a generator: nobody would iterate over it")


def is_async(function: Any) -> bool:
    """Whether calling it makes a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # its kind matters, not its presence
    )


def takes_context(function: Callable[..., Any], role: str, takes: str) -> bool:
    """Whether it takes ``(event, ctx)`` rather than ``(event)``.

    Raises:
        TypeError: neither; the message shows its signature.
    """
    wrong = f"must take ({takes}) or ({takes}, ctx)"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        inner = getattr(function, "__func__", None) or getattr(function, "func", None)
        if inspect.isfunction(inner):  # it takes less than a method, or a partial, gives it
            raise TypeError(f"{role} {name_of(inner)}{_shown(inner)} {wrong}") from None
        return False  # some builtins have no signature; they get the event
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if keywords or len(required) > 2 or not (positional or open_ended):
        raise TypeError(f"{role} {name_of(function)}{_shown(function)} {wrong}")
    return len(required) == 2


def is_defined_again(old: Any, new: Any) -> bool:
    """Whether two are one function of a module: the same, or what running its definition again made.

    Two that a loop defined are not, nor two of modules that have only their name in common. A function
    named ``_`` is known by its file and line, because several in a module may be named so.
    """
    if not (_is_of_module(old) and _is_of_module(new)):
        return False
    if (old.__module__, old.__qualname__) != (new.__module__, new.__qualname__):
        return False
    if old is new:
        return True
    one: CodeType = old.__code__
    other: CodeType = new.__code__
    is_one_module = old.__globals__ is new.__globals__
    if is_one_module and one is other:
        return False  # a loop, or a function that was called twice, defined both
    is_one_file = one.co_filename == other.co_filename
    if new.__name__ == "_":
        return is_one_file and one.co_firstlineno == other.co_firstlineno
    # A notebook's cells are files of one module; a script that is run again is a new module of one file.
    return is_one_module or is_one_file


def _is_of_module(function: Any) -> bool:
    """Whether a ``def`` at the top of a module made it; no lambda, method or wrapper."""
    if not inspect.isfunction(function):
        return False
    name = function.__qualname__
    return name.isidentifier() and name == function.__code__.co_qualname


def put_or_replace(
    entries: list[T], new: T, is_again: Callable[[T], bool], role: str, function: Any
) -> None:
    """Put an entry behind the others, or, with a warning, in the place of its earlier selves."""
    again = [place for place, entry in enumerate(entries) if is_again(entry)]
    if not again:
        entries.append(new)
        return
    _warn_of_replacing(role, function)  # first: it may be an error, and then nothing is replaced
    entries[again[0]] = new
    for place in reversed(again[1:]):
        del entries[place]


def _warn_of_replacing(role: str, function: Any) -> None:
    """Say that a function took the place of its earlier self, where the caller registered it."""
    frame, levels = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("streamchat."):
        frame, levels = frame.f_back, levels + 1
    warnings.warn(
        f"{role} {name_of(function)} was registered before and takes the place of what was registered "
        "then; to keep both, give one of them another name",
        stacklevel=levels + 1,
    )


def takes_self(function: Any) -> bool:
    """Whether it is a function whose first parameter is ``self``, under any name.

    So is what stands around such a function and is no function itself, as ``functools.cache`` makes it.
    """
    for _ in range(MOST_WRAPPERS):
        if isinstance(function, FunctionType):
            break
        if isinstance(function, functools.partial | MethodType | type):
            return False  # bound already
        function = getattr(function, "__wrapped__", None)
    if not isinstance(function, FunctionType):
        return False
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        return False
    outer = function.__qualname__.rpartition(".")[0]
    is_in_class = bool(outer) and not outer.endswith("<locals>")
    is_typed = first.annotation is not first.empty
    return (is_in_class and not is_typed) or (
        first.name in ("self", "cls") and (is_in_class or not is_typed)
    )
