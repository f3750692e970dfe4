"""Call a function of the caller's, async or plain, without blocking the event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import copy_context
from threading import Thread
from typing import Any

from streamchat.signatures import is_async, name_of

__all__ = ["Report", "called", "last_of", "makes_generator", "suspending"]

Report = Callable[[Any], Awaitable[None]]
"""Receives the progress of an async generator tool; the tool waits until it returns."""


def makes_generator(function: Any) -> str:
    """``"async"`` or ``"plain"`` if calling it makes a generator of that kind, else ``""``."""
    called = getattr(function, "__call__", None)  # noqa: B004  # its kind matters, not its presence
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(called):
        return "async"
    if inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(called):
        return "plain"
    return ""


async def called(
    function: Callable[..., Any],
    positional: Sequence[Any] = (),
    keywords: Mapping[str, Any] | None = None,
    *,
    name: str,
) -> Any:
    """Call a function and await its result. A plain function runs in a thread of its own.

    The thread cannot be stopped: a cancelled call does not wait for it.

    Args:
        function: async, or plain; an async generator function is called, not iterated.
        positional: its positional arguments.
        keywords: its keyword arguments.
        name: names the thread.

    Raises:
        RuntimeError: it raised ``StopIteration`` or ``StopAsyncIteration``, which a future cannot
            carry (PEP 479).
        Exception: any other exception of the function.
    """
    arguments = keywords or {}
    try:
        if is_async(function):
            return await function(*positional, **arguments)
        if makes_generator(function):
            return function(*positional, **arguments)
        result, failure = await _in_thread(lambda: function(*positional, **arguments), name)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame: no cycle through it
        return await result if inspect.isawaitable(result) else result
    except (StopIteration, StopAsyncIteration) as error:
        raise _stopped(function, error) from error


async def last_of(values: AsyncGenerator[Any, Any], report: Report) -> Any:
    """Report each value of a generator at once, and return the last. None if there are no values."""
    last: Any = None
    async with aclosing(values):
        async for value in values:
            await report(value)
            last = value
    return last


def suspending(report: Report | None, scope: asyncio.Timeout) -> Report:
    """The report, with the timeout suspended while it is awaited: a slow consumer is not a slow tool."""

    async def suspended(value: Any) -> None:
        if report is None:
            return
        ends = scope.when()
        if ends is None or scope.expired():
            await report(value)
            return
        clock = asyncio.get_running_loop().time
        left = ends - clock()
        scope.reschedule(None)
        await report(value)
        scope.reschedule(clock() + left)

    return suspended


def _stopped(function: Any, error: Exception) -> RuntimeError:
    """The error for a function that raised the end of an iterator."""
    words = f": {error}" if str(error) else ""
    return RuntimeError(f"{name_of(function)} raised {type(error).__name__}{words}")


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
