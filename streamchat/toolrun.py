"""``ToolRun``: ask, run the tools that the model wants, tell it their results, until it answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Literal, Protocol

import attrs

from streamchat.approval import Approval
from streamchat.context import Context
from streamchat.dispatcher import Dispatcher
from streamchat.protocol.errors import (
    ToolArgumentsError,
    ToolError,
    ToolLoopLimitError,
    ToolRefusedError,
)
from streamchat.protocol.events import Event
from streamchat.protocol.messages import ToolCall
from streamchat.protocol.plain import repair_surrogates
from streamchat.protocol.request import AnyMessage, ChatRequest, plain_messages
from streamchat.protocol.response import ChatResponse
from streamchat.runs import Run
from streamchat.steps import StepEnd, StepEvent, StepStart, ToolProgress, ToolResult
from streamchat.stream import ChatStream
from streamchat.toolresults import article, content_or_problem, words_of
from streamchat.tools import FunctionTool, checked_timeout

__all__ = ["OnToolError", "ToolOptions", "ToolRun"]

PROGRESS_AHEAD = 16
"""Progress events that the tools of a step may be ahead of the consumer; then they wait."""

OnToolError = Literal["report", "raise"] | Callable[[Exception, ToolCall], str]
"""What becomes of a tool's exception: its class and words are told to the model (``"report"``), it is
raised and ends the run (``"raise"``), or a function says what the model is told, or raises itself.

With ``"report"`` the class and the first 4,096 characters of the message are sent to the model: pass a
function if exceptions may hold secrets. Arguments that do not fit and names of unknown tools are always
reported to the model."""


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
    approval: Approval | None = None
    """Asked before a tool runs."""

    def __attrs_post_init__(self) -> None:
        for name in ("max_steps", "max_calls", "parallel"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        checked_timeout(self.tool_timeout, "tool_timeout")
        if self.on_tool_error not in ("report", "raise") and not callable(self.on_tool_error):
            raise ValueError('on_tool_error must be "report", "raise" or a function (error, call)')


@attrs.define(eq=False)
class _Arrivals:
    """Progress events, and positions of calls that ended, in the order in which they arrive."""

    _items: deque[ToolProgress | int] = attrs.field(factory=deque[ToolProgress | int], init=False)
    _slots: asyncio.Semaphore = attrs.field(init=False)
    _news: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = asyncio.Semaphore(PROGRESS_AHEAD)

    async def add(self, event: ToolProgress) -> None:
        """Add an event; waits while the consumer is too far behind."""
        await self._slots.acquire()
        self._items.append(event)
        self._news.set()

    def add_end(self, position: int, _: object) -> None:
        """Add the end of a call."""
        self._items.append(position)
        self._news.set()

    async def next(self) -> ToolProgress | int:
        """The next of them; waits for it."""
        while not self._items:
            self._news.clear()
            await self._news.wait()
        item = self._items.popleft()
        if isinstance(item, ToolProgress):
            self._slots.release()
        return item


@attrs.frozen(eq=False)
class _Step:
    """What the calls of one answer share."""

    response: ChatResponse
    context: Context
    gate: asyncio.Semaphore
    arrivals: _Arrivals = attrs.Factory(_Arrivals)


@attrs.frozen(eq=False)
class _Prepared:
    """A call whose tool exists and whose arguments fit."""

    call: ToolCall
    tool: FunctionTool[..., Any]
    arguments: Mapping[str, Any]


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
    :class:`streamchat.StepEnd`. :class:`streamchat.ToolProgress` events arrive while tools run. Awaiting
    gives the last answer. Handlers of all of them can be registered on the run itself
    (``@run.on_tool_result``) until it is consumed.

    Raises (while it is consumed): what a stream raises; :class:`~streamchat.ToolLoopLimitError` when
    the model wants more than ``max_steps`` or ``max_calls``; :class:`~streamchat.ToolError` when a tool
    returns what JSON cannot say; with ``on_tool_error="raise"``, what a tool raised; what ``approve=``
    raised.
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
                async with aclosing(self._results(response, stream.request)) as answers:
                    async for each in answers:
                        if isinstance(each, ToolResult):
                            results.append(each)
                            self._messages.append(each.message.to_dict())
                        yield await self._heard(each, stream.request)
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

    async def _results(
        self, response: ChatResponse, request: ChatRequest
    ) -> AsyncGenerator[ToolResult | ToolProgress, None]:
        """Run the tools, some at a time; results in the order of the calls, progress at once."""
        gate = asyncio.Semaphore(self._options.parallel)
        step = _Step(response, self._context_of(request), gate)
        approval = self._options.approval
        tasks: list[asyncio.Task[ToolResult]] = []
        ended: set[int] = set()
        given = 0
        try:
            for position, call in enumerate(response.tool_calls):
                task = self._task(self._answer(call, step))
                task.add_done_callback(partial(step.arrivals.add_end, position))
                tasks.append(task)
            while given < len(tasks):
                item = await step.arrivals.next()
                if isinstance(item, ToolProgress):
                    yield item
                    continue
                ended.add(item)
                if approval is not None and approval.has_failed:
                    await self._result_of(tasks[item])  # raises now, not in the order of the calls
                while given in ended:
                    yield await self._result_of(tasks[given])
                    given += 1
        finally:
            await self._cancel_tasks()

    async def _answer(self, call: ToolCall, step: _Step) -> ToolResult:
        ready = self._prepared(call)
        if isinstance(ready, ToolResult):
            return ready
        if self._options.approval is not None:
            reason = await self._options.approval.ask(call, step.context)
            if reason is not None:
                refused = ToolRefusedError(reason, name=call.name)
                return ToolResult(call, repair_surrogates(f"error: {refused}"), exception=refused)
        async with step.gate:
            return await self._run_tool(ready, step)

    def _prepared(self, call: ToolCall) -> _Prepared | ToolResult:
        """The tool and its arguments, or the result that says what is wrong with the call."""
        failure: Exception
        try:
            chosen = self._tools.get(call.name)
            if chosen is None:
                raise ToolError(
                    f"there is no tool {call.name[:64]!r}; there are {', '.join(self._tools)}"
                )
            return _Prepared(call, chosen, chosen.read(call))
        except Exception as error:  # noqa: BLE001  # converters of a type may be the caller's code
            failure = error
        try:
            return self._failed(failure, call, 0.0)
        finally:
            del failure  # its traceback holds this frame

    async def _run_tool(self, ready: _Prepared, step: _Step) -> ToolResult:
        call, clock = ready.call, asyncio.get_running_loop().time
        started = clock()
        value: Any = None
        failure: Exception

        async def report(value: Any) -> None:
            await step.arrivals.add(ToolProgress(call, value))

        try:
            value = await ready.tool.run_with(
                ready.arguments,
                timeout=self._options.tool_timeout,
                context=step.context,
                progress=report,
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failure = ToolError(f"tool {call.name} was cancelled from within")
        except Exception as error:  # noqa: BLE001  # whatever a tool raises is the caller's choice
            failure = error
        else:
            return await self._returned(value, call, step.response, clock() - started)
        try:
            return self._failed(failure, call, clock() - started)
        finally:
            del failure  # its traceback holds this frame

    async def _returned(
        self, value: Any, call: ToolCall, response: ChatResponse, seconds: float
    ) -> ToolResult:
        content, problem = content_or_problem(value)
        if content is None:  # a mistake of the developer's, not of the model's
            unsayable = ToolError(
                f"tool {call.name} returned {article(value)}, which the model cannot be told: "
                f"{problem}; return what JSON can say"
            )
            unsayable.partial = response
            raise await self._told(unsayable)
        return ToolResult(call, content, value, seconds=seconds)

    def _failed(self, failure: Exception, call: ToolCall, seconds: float) -> ToolResult:
        told = repair_surrogates(self._tell_model(failure, call))
        return ToolResult(call, told, exception=failure, seconds=seconds)

    def _tell_model(self, error: Exception, call: ToolCall) -> str:
        """What the model is told of a failure; what it did wrong itself is never raised."""
        how = self._options.on_tool_error
        if isinstance(error, ToolArgumentsError) or call.name not in self._tools:
            return f"error: {error}"
        if how == "report":
            return f"error: {type(error).__name__}: {words_of(error)}"
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
