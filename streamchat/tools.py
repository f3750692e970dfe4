"""Tools: functions that a model may call, and the loop that calls them: ``tool``, ``ToolRun``."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

import attrs

from streamchat.dispatcher import Dispatcher
from streamchat.protocol.errors import ToolArgumentsError, ToolError, ToolLoopLimitError
from streamchat.protocol.events import Event
from streamchat.protocol.messages import (
    Document,
    DocumentContent,
    FunctionSpec,
    TextContent,
    Tool,
    ToolCall,
)
from streamchat.protocol.plain import MAX_DEPTH, is_list, is_mapping, repair_surrogates, to_plain
from streamchat.protocol.request import AnyMessage, plain_messages
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.schema import Parameters, plain_value
from streamchat.runs import Run
from streamchat.signatures import checked_callable, is_async, name_of
from streamchat.steps import StepEnd, StepEvent, StepStart, ToolResult
from streamchat.stream import ChatStream

__all__ = ["FunctionTool", "OnToolError", "ToolOptions", "ToolRun", "as_tools", "tool"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
R2 = TypeVar("R2")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Result = str | list[TextContent | DocumentContent]
OnToolError = Literal["report", "raise"] | Callable[[Exception, ToolCall], str]
"""What becomes of a tool's exception: its class and words are told to the model (``"report"``), it is
raised and ends the run (``"raise"``), or a function says what the model is told, or raises itself.

With ``"report"`` the class and the first 4,096 characters of the message are sent to the model: pass a
function if exceptions may hold secrets. Arguments that do not fit and names of unknown tools are always
reported to the model."""

MAX_WORDS = 4096
"""Characters of an exception's words that the model is told."""


@attrs.define(eq=False)
class FunctionTool(Tool, Generic[P, R]):
    """A tool that can run: made by :func:`tool`, called like the function it was made from.

    It is a :class:`streamchat.Tool`, so ``chat_stream(tools=[...])`` takes it too.
    """

    _callee: Callable[P, R] = attrs.field(kw_only=True, alias="callee", repr=name_of)
    _reader: Parameters = attrs.field(kw_only=True, alias="reader", repr=False)
    _is_strict: bool = attrs.field(kw_only=True, alias="is_strict")
    _timeout: float | None = attrs.field(kw_only=True, alias="timeout")

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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself."""
        return self._callee(*args, **kwargs)

    async def run(self, call: ToolCall, *, timeout: float | None = None) -> Any:
        """Call the function as the model asked; a sync function runs in a thread of its own.

        Args:
            call: what the model asked for.
            timeout: seconds, where the tool has no limit of its own. A thread cannot be stopped: its
                result is not waited for.

        Raises:
            ToolArgumentsError: the arguments are not JSON, or do not fit.
            TimeoutError: it took longer than its timeout.
            RuntimeError: the function raised ``StopIteration`` or ``StopAsyncIteration``, which no
                future can carry (PEP 479).
            Exception: whatever else the function raises.
        """
        given, reason = call.parsed, ""
        arguments: Mapping[str, Any] = {}
        try:
            arguments = self._reader.read(given, strict=self._is_strict)
        except ValueError as error:
            reason = str(error)
        if reason:
            raise ToolArgumentsError(reason, name=self.name, arguments=call.arguments)
        seconds = self._timeout if self._timeout is not None else timeout
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await self._called(arguments)
        except TimeoutError:
            if not scope.expired():
                raise  # the function's own
        except StopAsyncIteration as error:
            raise _stopped(self._callee, error) from error
        raise TimeoutError(f"tool {self.name} took longer than its timeout of {seconds:g} s")

    async def _called(self, arguments: Mapping[str, Any]) -> Any:
        function = _without_stop_iteration(cast("Callable[..., Any]", self._callee))
        if is_async(function):
            return await function(**arguments)
        result, failure = await _in_thread(partial(function, **arguments), self.name)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame: no cycle through it
        return await result if inspect.isawaitable(result) else result


Outcome = tuple[Any, BaseException | None]
"""What a call returned, or what it raised."""


async def _in_thread(call: Callable[[], Any], name: str) -> Outcome:
    """Run a call in a thread of its own, in the context of the caller.

    Not in the threads of the event loop, which name resolution needs: a few slow tools would keep every
    new connection of the process waiting (https://github.com/python/cpython/issues/112169). The thread
    ends with the call, and as a daemon it does not keep the interpreter from exiting.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    outcomes: list[Outcome] = []
    run = copy_context().run

    def settle(outcome: Outcome) -> None:
        if not done.done():  # a cancelled call is not waited for
            outcomes.append(outcome)
            done.set_result(None)

    def work() -> None:
        outcome: Outcome
        try:
            outcome = run(call), None
        except BaseException as error:  # noqa: BLE001  # raised again where the call is awaited
            outcome = None, error
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, outcome)
        # The traceback of an error holds this frame, and with it the future: no cycle through either.
        del outcome

    Thread(target=work, name=f"streamchat-tool-{name}", daemon=True).start()
    await done
    return outcomes.pop()


def _without_stop_iteration(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with ``StopIteration`` as a ``RuntimeError``, as coroutines have it (PEP 479).

    A future refuses ``StopIteration``, so whoever waits for a thread that raised it waits forever.
    """
    if is_async(function):
        return function

    def called(**arguments: Any) -> Any:
        try:
            return function(**arguments)
        except StopIteration as error:
            raise _stopped(function, error) from error

    return called


def _stopped(function: Any, error: Exception) -> RuntimeError:
    words = f": {error}" if str(error) else ""
    return RuntimeError(f"{name_of(function)} raised {type(error).__name__}{words}")


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
        function: async, or plain (then it runs in a thread). Each parameter needs a type that JSON can
            say, pydantic's classes included; what the docstring says of it (``city: ...``, or an
            ``Args:`` section), or ``Annotated[str, "..."]``, describes it.
        name: instead of the function's own.
        description: instead of the docstring's.
        strict: refuse arguments that do not fit to the letter; by default ``"3"`` is read as 3, and
            unknown names are ignored.
        timeout: seconds that one call may take; no limit by default.

    Raises:
        TypeError: a parameter without a type, or one that a model cannot pass.
        ValueError: a name outside ``[A-Za-z_][A-Za-z0-9_]*``, or a timeout that is not above 0.
    """

    def make(function: Callable[..., Any]) -> FunctionTool[Any, Any]:
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"tool() takes a function, not {function!r}")
        if isinstance(function, FunctionTool):
            raise TypeError(f"{function.name} is a tool already")
        checked_callable(function, "tool")
        chosen = name if name is not None else getattr(function, "__name__", "")
        if not isinstance(chosen, str) or not _NAME.fullmatch(chosen):
            raise ValueError(
                f"a tool cannot be called {chosen!r}: letters, digits and _, not starting with a "
                'digit; tool(name="...") names it'
            )
        _checked_timeout(timeout, f"timeout= of tool {chosen}")
        parameters = Parameters.of(function, chosen)
        told = parameters.description if description is None else description
        return FunctionTool(
            FunctionSpec(chosen, parameters.schema, told or None),
            callee=function,
            reader=parameters,
            is_strict=strict,
            timeout=timeout,
        )

    return make if function is None else make(function)


def _checked_timeout(timeout: Any, what: str) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"{what} must be seconds, not {type(timeout).__name__}")
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"{what} must be above 0 seconds, not {timeout}")


def as_tools(tools: Any) -> dict[str, FunctionTool[..., Any]]:
    """What ``run_tools(tools=...)`` takes, by name; functions become tools.

    Raises:
        TypeError: no list, or something in it that cannot run.
        ValueError: no tool, or two of one name.
    """
    if not is_list(tools):
        raise TypeError(f"tools must be a list, not {type(tools).__name__}: tools=[get_weather]")
    named: dict[str, FunctionTool[..., Any]] = {}
    for each in tools:
        if is_mapping(each) or (isinstance(each, Tool) and not isinstance(each, FunctionTool)):
            raise TypeError(
                "run_tools() needs functions that it can call; chat_stream(tools=...) takes "
                "definitions and leaves the calls to you"
            )
        made = cast(
            "FunctionTool[..., Any]", each if isinstance(each, FunctionTool) else tool(each)
        )
        if made.name in named:
            raise ValueError(f"two tools are called {made.name!r}: tool(name=...) renames one")
        named[made.name] = made
    if not named:
        raise ValueError("tools is empty: chat() answers without tools")
    return named


# --- the loop ------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ToolOptions:
    """How a tool run runs.

    Raises:
        TypeError, ValueError: a value that means nothing; it is named.
    """

    max_steps: int = 8
    """Requests at most, the last answer's included."""
    max_calls: int = 128
    """Tool calls at most, those of all steps together."""
    parallel: int = 4
    """Tools that run at once."""
    tool_timeout: float | None = None
    """Seconds for one call of a tool that has no ``timeout=`` of its own; ``None``: no limit."""
    on_tool_error: OnToolError = "report"
    """See :data:`OnToolError`."""

    def __attrs_post_init__(self) -> None:
        for name in ("max_steps", "max_calls", "parallel"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        _checked_timeout(self.tool_timeout, "tool_timeout")
        if self.on_tool_error not in ("report", "raise") and not callable(self.on_tool_error):
            raise ValueError('on_tool_error must be "report", "raise" or a function (error, call)')


class Start(Protocol):
    """How a run asks: a client's ``chat_stream`` with all else filled in."""

    def __call__(
        self,
        messages: Sequence[AnyMessage],
        /,
        *,
        tool_choice: str | None,
        handlers: Iterable[Dispatcher],
    ) -> ChatStream: ...


class ToolRun(Run[Event | StepEvent, ChatResponse]):
    """Answers and tool calls until the model is content. Made by :meth:`streamchat.Client.run_tools`.

    Iterating gives the events of every answer, and around them a :class:`streamchat.StepStart` before
    each request, a :class:`streamchat.ToolResult` for each call, in the order of the calls, and a
    :class:`streamchat.StepEnd`. Awaiting gives the last answer. Handlers of all of them can be
    registered on the run itself (``@run.on_tool_result``) until it is consumed.

    Raises (while it is consumed): what a stream raises; :class:`~streamchat.ToolLoopLimitError` when
    the model wants more than ``max_steps`` or ``max_calls``; :class:`~streamchat.ToolError` when a tool
    returns what JSON cannot say; with ``on_tool_error="raise"``, what a tool raised.
    """

    def __init__(
        self,
        start: Start,
        messages: Sequence[AnyMessage],
        tools: Mapping[str, FunctionTool[..., Any]],
        options: ToolOptions,
        *,
        tool_choice: str | None,
        dispatchers: Sequence[Dispatcher],
        data: Any,
    ) -> None:
        super().__init__(dispatchers, data)
        self._start = start
        self._tools = tools
        self._options = options
        # Made now, so that what is wrong with the call is said where it stands; nothing is sent.
        self._first = start(messages, tool_choice=tool_choice, handlers=self._own_handlers)
        # The caller's own, and not what middleware made of them: it stands around each request anew.
        self._messages: list[dict[str, Any]] = list(plain_messages(messages))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The whole history so far, plain data, ready for the next request once the run has ended.

        (After a ``ToolLoopLimitError`` its last turn asks for tools that were not run.)
        """
        return list(self._messages)

    def __repr__(self) -> str:
        return f"<ToolRun tools={list(self._tools)} messages={len(self._messages)}>"

    async def _events(self) -> AsyncGenerator[Event | StepEvent, None]:
        stream, step, called = self._first, 1, 0
        while True:
            self._check_open()
            self._stream = stream
            yield await self._heard(StepStart(step, stream.request), stream.request)
            async with stream:
                async for event in stream:
                    yield event
            response = await stream
            self._messages.append(response.message.to_dict())
            results: list[ToolResult] = []
            if response.finish_reason == "TOOL_CALL" and response.tool_calls:
                if step == self._options.max_steps:
                    words = f"the model still wants tools after {step} steps"
                    raise await self._told(_limit(words, "max_steps", response))
                called += len(response.tool_calls)
                if called > self._options.max_calls:
                    most = self._options.max_calls
                    words = f"the model wants {called} tool calls in all, and {most} are allowed"
                    raise await self._told(_limit(words, "max_calls", response))
                async with aclosing(self._results(response)) as answers:
                    async for result in answers:
                        results.append(result)
                        self._messages.append(result.message.to_dict())
                        yield await self._heard(result, stream.request)
            if not results:
                self._result = response  # before the last event: whoever leaves there has it all
            yield await self._heard(StepEnd(step, response, results), stream.request)
            if not results:
                return
            # A choice forced again would never let the model answer.
            stream, step = (
                self._start(self._messages, tool_choice=None, handlers=self._own_handlers),
                step + 1,
            )

    async def _results(self, response: ChatResponse) -> AsyncGenerator[ToolResult, None]:
        """Run the tools, some at a time; results in the order of the calls, as soon as may be."""
        gate = asyncio.Semaphore(self._options.parallel)

        async def one(call: ToolCall) -> ToolResult:
            async with gate:
                return await self._answer(call, response)

        tasks = [self._task(one(call)) for call in response.tool_calls]
        try:
            for task in tasks:
                yield await self._result_of(task)
        finally:
            await self._cancel_tasks()

    async def _answer(self, call: ToolCall, response: ChatResponse) -> ToolResult:
        clock = asyncio.get_running_loop().time
        started = clock()
        value: Any = None
        failure: Exception
        try:
            chosen = self._tools.get(call.name)
            if chosen is None:
                raise ToolError(
                    f"there is no tool {call.name[:64]!r}; there are {', '.join(self._tools)}"
                )
            value = await chosen.run(call, timeout=self._options.tool_timeout)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failure = ToolError(f"tool {call.name} was cancelled from within")
        except Exception as error:  # noqa: BLE001  # whatever a tool raises is the caller's choice
            failure = error
        else:
            seconds = clock() - started
            content, problem = _content_or_problem(value)
            if content is None:  # a mistake of the developer's, not of the model's
                unsayable = ToolError(
                    f"tool {call.name} returned {_article(value)}, which the model cannot be told: "
                    f"{problem}; return what JSON can say"
                )
                unsayable.partial = response
                raise await self._told(unsayable)
            return ToolResult(call, content, value, seconds=seconds)
        try:
            told = repair_surrogates(self._tell_model(failure, call))
            return ToolResult(call, told, exception=failure, seconds=clock() - started)
        finally:
            del failure  # its traceback holds this frame

    def _tell_model(self, error: Exception, call: ToolCall) -> str:
        """What the model is told of a failure; what it did wrong itself is never raised."""
        how = self._options.on_tool_error
        if isinstance(error, ToolArgumentsError) or call.name not in self._tools:
            return f"error: {error}"
        if how == "report":
            return f"error: {type(error).__name__}: {_words(error)}"
        if how == "raise":
            error.add_note(f"raised by tool {call.name}, called as {call.id}")
            raise error
        told = how(error, call)
        if not isinstance(told, str):
            raise TypeError(f"on_tool_error must return a str, not {type(told).__name__}")
        return told


def _limit(words: str, option: str, response: ChatResponse) -> ToolLoopLimitError:
    error = ToolLoopLimitError(f"{words}; raise {option}, or ask for less")
    error.partial = response
    return error


def _words(error: Exception) -> str:
    """The words of an exception, cut."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001  # __str__ is the tool's code
        return "(its words cannot be read)"
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _content_or_problem(value: Any) -> tuple[Result | None, str]:
    """A tool's value as the content of its message, or why JSON cannot say it."""
    try:
        return _content(value), ""
    except Exception as error:  # noqa: BLE001  # values may have methods of the caller's
        return None, _words(error)


def _content(value: Any) -> Result:
    """A tool's value as the content of its message (protocol.md 2.2, 2.4).

    Text is told as it is. Everything else is a document, because a document can be cited; of a list of
    objects each is one.

    Raises:
        TypeError, ValueError: JSON cannot say it.
    """
    content: Result
    if isinstance(value, str):
        content = value
    elif is_list(value) and value and all(_is_object(item) for item in value):
        content = [_part(item) for item in value]
    else:
        content = [_part(value)]
    to_plain(content, "the value", levels=MAX_DEPTH)
    return content


def _is_object(value: Any) -> bool:
    if isinstance(value, TextContent | DocumentContent | Document) or is_mapping(value):
        return True
    if value is None or isinstance(value, str | int | float | list | tuple):
        return False
    with suppress(TypeError, ValueError):
        return isinstance(plain_value(value), dict)
    return False


def _part(value: Any) -> TextContent | DocumentContent:
    if isinstance(value, TextContent):
        return value
    if isinstance(value, DocumentContent):
        return attrs.evolve(value, document=_document(value.document))
    if isinstance(value, Document):
        return DocumentContent(_document(value))
    plain = plain_value(value)
    return DocumentContent(Document(plain if is_mapping(plain) else {"result": plain}))


def _document(document: Document) -> Document:
    return attrs.evolve(document, data=plain_value(document.data))
