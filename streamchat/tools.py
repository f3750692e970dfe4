"""Functions as tools: ``tool`` and ``FunctionTool``."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

import attrs

from streamchat.calling import Report, called, last_of, makes_generator, suspending
from streamchat.context import Context
from streamchat.protocol.errors import ToolArgumentsError
from streamchat.protocol.messages import FunctionSpec, Tool, ToolCall
from streamchat.protocol.plain import is_list, is_mapping
from streamchat.protocol.schema import Parameters
from streamchat.signatures import name_of, takes_self

__all__ = ["FunctionTool", "as_definitions", "as_tools", "checked_timeout", "tool"]

P = ParamSpec("P")
P2 = ParamSpec("P2")
R = TypeVar("R", covariant=True)
R2 = TypeVar("R2")
S = TypeVar("S")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Binding = Literal["", "instance", "class"]
"""What a tool in a class body must be bound to before it can run; empty if nothing is missing."""


@attrs.define(eq=False)
class FunctionTool(Tool, Generic[P, R]):
    """A tool that can run: made by :func:`tool`, called like the function it was made from.

    It is a :class:`streamchat.Tool`, so ``chat_stream(tools=[...])`` takes it too. A method that is a
    tool binds like a method: ``shop.price`` is a tool without ``self``.
    """

    _callee: Callable[P, R] = attrs.field(kw_only=True, alias="callee", repr=name_of)
    _reader: Parameters = attrs.field(kw_only=True, alias="reader", repr=False)
    _is_strict: bool = attrs.field(kw_only=True, alias="is_strict")
    _timeout: float | None = attrs.field(kw_only=True, alias="timeout")
    _binding: Binding = attrs.field(kw_only=True, alias="binding", default="", repr=False)

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.function.name

    @property
    def description(self) -> str | None:
        """What the model is told of it."""
        return self.function.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What it takes: a JSON Schema of type object."""
        return self.function.parameters

    @property
    def strict(self) -> bool:
        """Whether arguments must fit to the letter."""
        return self._is_strict

    @property
    def timeout(self) -> float | None:
        """Seconds that one call may take; None if the tool has no limit of its own."""
        return self._timeout

    @property
    def __wrapped__(self) -> Callable[P, R]:
        """The function itself, for :mod:`inspect`."""
        return self._callee

    @property
    def __isabstractmethod__(self) -> bool:
        """Whether the function is abstract, and so the class that holds it."""
        return getattr(self._callee, "__isabstractmethod__", False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself."""
        return self._callee(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> FunctionTool[P, R]: ...
    @overload
    def __get__(
        self: FunctionTool[Concatenate[S, P2], R2], instance: S, owner: type | None = None, /
    ) -> FunctionTool[P2, R2]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> FunctionTool[P, R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> FunctionTool[..., Any]:
        """The tool bound to an instance, or to the class for a class method."""
        target = owner if self._binding == "class" else instance
        if not self._binding or target is None:
            return self
        return attrs.evolve(self, callee=MethodType(self._callee, target), binding="")

    def check_bound(self) -> None:
        """Refuse a method that lacks its ``self``.

        Raises:
            TypeError: it must be looked up on an instance.
        """
        if self._binding:
            name = name_of(self._callee)
            owner, _, method = name.rpartition(".")
            owner = owner.rpartition(".")[2] or "a class"
            raise TypeError(
                f"tool {self.name} is a method of {owner} and is not bound: make an instance and use "
                f"its {method}, as in tools=[instance.{method}]"
            )

    async def run(
        self,
        call: ToolCall,
        *,
        timeout: float | None = None,
        context: Context | None = None,
        progress: Report | None = None,
    ) -> Any:
        """Call the function as the model asked; a sync function runs in a thread of its own.

        Args:
            call: what the model asked for.
            timeout: seconds, where the tool has no limit of its own. A thread cannot be stopped: its
                result is not waited for.
            context: passed to parameters annotated :class:`~streamchat.Context`.
            progress: awaited with each value of an async generator; the last one is the result too.
                That time does not count towards the timeout.

        Raises:
            ToolArgumentsError: the arguments are not JSON, or do not fit.
            TypeError: the tool needs a context, or is a method that is not bound.
            TimeoutError: it took longer than its timeout.
            RuntimeError: the function raised ``StopIteration`` or ``StopAsyncIteration``, which no
                future can carry (PEP 479).
            Exception: whatever else the function raises.
        """
        self.check_bound()
        arguments = self.read(call)
        return await self.run_with(arguments, timeout=timeout, context=context, progress=progress)

    def read(self, call: ToolCall) -> dict[str, Any]:
        """The arguments of a call as the function takes them, without those the model does not know.

        Raises:
            ToolArgumentsError: the arguments are not JSON, or do not fit.
        """
        given, reason = call.parsed, ""
        try:
            return self._reader.read(given, strict=self._is_strict)
        except ValueError as error:
            reason = str(error)
        raise ToolArgumentsError(reason, name=self.name, arguments=call.arguments)

    async def run_with(
        self,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None = None,
        context: Context | None = None,
        progress: Report | None = None,
    ) -> Any:
        """:meth:`run` with arguments that were read before."""
        self.check_bound()
        keywords = {**arguments, **self._injected(context)}
        seconds = self._timeout if self._timeout is not None else timeout
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                result = await called(self._callee, (), keywords, name=self.name)
                if inspect.isasyncgen(result):
                    return await last_of(result, suspending(progress, scope))
                return result
        except TimeoutError:
            if not scope.expired():
                raise  # the function's own
        raise TimeoutError(f"tool {self.name} took longer than its timeout of {seconds:g} s")

    def _injected(self, context: Context | None) -> dict[str, Any]:
        names = self._reader.injected
        if context is not None:
            return dict.fromkeys(names, context)
        for name, must in names.items():
            if must:
                raise TypeError(
                    f"tool {self.name} needs the context of a run for its parameter {name!r}: use it "
                    "in run_tools(), or pass run(call, context=...)"
                )
        if not names:
            return {}
        known = inspect.signature(self._callee).parameters
        return {name: None for name in names if known[name].default is inspect.Parameter.empty}


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R2], /) -> FunctionTool[P, R2]: ...


@overload
def tool(function: Callable[P, R2], /) -> FunctionTool[P, R2]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout: float | None = None,
) -> _Decorator: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout: float | None = None,
) -> Any:
    """Make a tool of a function; its signature and docstring are what the model is told.

    ::

        @tool
        async def get_weather(city: str, days: int = 1) -> dict:
            \"""Forecast. city: name of the city\"""

    Args:
        function: async, plain (then it runs in a thread), or an async generator, whose values are
            progress, each at once, and whose last value is the result too. Methods
            bind; a callable object has the name of its class in snake case, a partial that of its
            function. Each parameter needs a type that JSON can say, pydantic's classes included; what
            the docstring says of it (``city: ...``, or an ``Args:`` section), or
            ``Annotated[str, "..."]``, describes it. A parameter annotated ``Context`` or
            ``Context | None`` receives the run's :class:`~streamchat.Context`; the model does not know
            of it.
        name: instead of the function's own.
        description: instead of the docstring's.
        strict: refuse arguments that do not fit to the letter; by default ``"3"`` is read as 3, and
            unknown names are ignored.
        timeout: seconds that one call may take; no limit by default.

    Raises:
        TypeError: a parameter without a type, or one that a model cannot pass.
        ValueError: a name outside ``[A-Za-z_][A-Za-z0-9_]*``, or a timeout that is not above 0.
    """

    def make(function: Any) -> FunctionTool[Any, Any]:
        callee, binding = _unwrapped(function)
        inner = _tool_in(callee)
        if inner is not None:
            callee = functools.partial(inner.__wrapped__, *callee.args, **callee.keywords)
        if not callable(callee) or isinstance(callee, type):
            given = function if isinstance(function, type) else type(function)
            raise TypeError(f"tool() takes a function, not {given.__name__}")
        if isinstance(callee, FunctionTool):
            raise TypeError(f"{callee.name} is a tool already")
        chosen = name if name is not None else inner.name if inner else _name_of_tool(callee)
        if not isinstance(chosen, str) or not _NAME.fullmatch(chosen):
            raise ValueError(
                f"a tool cannot be called {chosen!r}: letters, digits and _, not starting with a "
                'digit; tool(name="...") names it'
            )
        if makes_generator(callee) == "plain":
            raise TypeError(
                f"tool {chosen} is a plain generator: write async def, and its values are progress, the "
                "last one its result"
            )
        checked_timeout(timeout, f"timeout= of tool {chosen}")
        parameters = Parameters.of(
            callee, chosen, inject=Context, known=_known(), skip_first=bool(binding)
        )
        told = parameters.description if description is None else description
        return FunctionTool(
            FunctionSpec(chosen, parameters.schema, told or None),
            callee=callee,
            reader=parameters,
            is_strict=strict or (inner is not None and inner.strict),
            timeout=inner.timeout if timeout is None and inner else timeout,
            binding=binding,
        )

    return make if function is None else make(function)


def _known() -> dict[str, Any]:
    """How annotations write the context. Type checkers alone may have imported it: nobody else needs it."""
    return {"Context": Context, "streamchat": sys.modules["streamchat"]}


class _Unwrapped(NamedTuple):
    callee: Any
    binding: Binding


def _unwrapped(function: Any) -> _Unwrapped:
    """The function behind ``classmethod`` and ``staticmethod``, and what it must be bound to."""
    if isinstance(function, classmethod):
        return _Unwrapped(cast("Any", function).__func__, "class")
    if isinstance(function, staticmethod):
        return _Unwrapped(cast("Any", function).__func__, "")
    return _Unwrapped(function, "instance" if takes_self(function) else "")


def _tool_in(function: Any) -> FunctionTool[..., Any] | None:
    """The tool that a partial was made of."""
    if isinstance(function, functools.partial):
        inner: Any = function.func
        if isinstance(inner, FunctionTool):
            return cast("FunctionTool[..., Any]", inner)
    return None


def _name_of_tool(function: Any) -> Any:
    """The function's name; of a partial its function's, of another object its class's in snake case."""
    name = getattr(function, "__name__", None)
    if name is not None:
        return name
    if isinstance(function, functools.partial):
        return _name_of_tool(function.func)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(function).__name__)
    return words.lower()


def checked_timeout(timeout: Any, what: str) -> None:
    """Refuse what is not a number of seconds.

    Raises:
        TypeError, ValueError: the message begins with ``what``.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"{what} must be seconds, not {type(timeout).__name__}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"{what} must be above 0 seconds, not {timeout}")


def _as_tool(item: Any, position: int) -> FunctionTool[..., Any]:
    """A tool or a function as a tool that can run.

    Raises:
        TypeError, ValueError: it cannot be one; the message names its position.
    """
    problem: TypeError | ValueError
    try:
        if isinstance(item, MethodType):
            function: object = item.__func__
            if isinstance(function, FunctionTool):  # @classmethod around @tool, since Python 3.13
                item = cast("FunctionTool[..., Any]", function).__get__(item.__self__)
        if item is None:  # tool(None) is a decorator
            raise TypeError("tool() takes a function, not NoneType")
        made = cast(
            "FunctionTool[..., Any]", item if isinstance(item, FunctionTool) else tool(item)
        )
        made.check_bound()
    except TypeError as error:
        problem = TypeError(f"tools[{position}]: {error}")
    except ValueError as error:
        problem = ValueError(f"tools[{position}]: {error}")
    else:
        return made
    raise problem


def as_definitions(tools: Sequence[Any]) -> list[Any]:
    """``chat(tools=...)`` with functions as tools; everything else is unchanged.

    Raises:
        TypeError, ValueError: a function that cannot be a tool; the message names its position.
    """
    return [
        _as_tool(each, position) if callable(each) else each for position, each in enumerate(tools)
    ]


def as_tools(tools: Any) -> dict[str, FunctionTool[..., Any]]:
    """What ``run_tools(tools=...)`` takes, by name; functions become tools.

    Raises:
        TypeError: no list, or something in it that cannot run.
        ValueError: no tool, or two of one name.
    """
    if not is_list(tools):
        raise TypeError(f"tools must be a list, not {type(tools).__name__}: tools=[get_weather]")
    named: dict[str, FunctionTool[..., Any]] = {}
    for position, each in enumerate(tools):
        if is_mapping(each) or (isinstance(each, Tool) and not isinstance(each, FunctionTool)):
            raise TypeError(
                f"tools[{position}]: run_tools() needs functions that it can call; "
                "chat_stream(tools=...) takes definitions and leaves the calls to you"
            )
        made = _as_tool(each, position)
        if made.name in named:
            raise ValueError(f"two tools are called {made.name!r}: tool(name=...) renames one")
        named[made.name] = made
    if not named:
        raise ValueError("tools is empty: chat() answers without tools")
    return named
