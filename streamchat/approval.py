"""``run_tools(approve=)``: a function is asked before a tool runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from streamchat.calling import called
from streamchat.context import Context
from streamchat.protocol.errors import ToolError
from streamchat.protocol.messages import ToolCall
from streamchat.signatures import checked_callable, name_of, takes_context

__all__ = ["Approval", "Approve"]

Verdict = bool | str
"""True runs the tool; False, or a text that says why not, refuses the call."""
Approve = (
    Callable[[ToolCall], Verdict | Awaitable[Verdict]]
    | Callable[[ToolCall, Context], Verdict | Awaitable[Verdict]]
)
"""See :meth:`streamchat.Client.run_tools`."""


class Approval:
    """Asks about one call at a time, in the order of the calls.

    Raises:
        TypeError: the function cannot be called with ``(call)`` or ``(call, ctx)``.
    """

    def __init__(self, function: Approve) -> None:
        checked_callable(function, "approve function")
        self._takes_context = takes_context(function, "approve function", "call")
        self._function: Callable[..., Any] = function
        self._turn = asyncio.Lock()
        self.has_failed = False
        """Whether the function raised or returned something else than a verdict."""

    async def ask(self, call: ToolCall, context: Context) -> str | None:
        """Ask about a call, after those that were asked about before.

        Returns:
            None if the call is approved, otherwise the reason of the refusal, which may be empty.

        Raises:
            TypeError: the function returned something else.
            ToolError: the function was cancelled, and not by the run.
            Exception: any exception of the function.
        """
        # Not released after a failure: the run ends, and nobody is asked about the other calls.
        await self._turn.acquire()
        try:
            verdict = await self._asked(call, context)
        except BaseException:
            self.has_failed = True
            raise
        self._turn.release()
        if verdict is True:
            return None
        return verdict or ""

    async def _asked(self, call: ToolCall, context: Context) -> Verdict:
        given = (call, context) if self._takes_context else (call,)
        name = name_of(self._function)
        try:
            verdict = await called(self._function, given, name="approve")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except Exception as error:
            error.add_note(f"raised by approve={name}, asked about call {call.id} of {call.name}")
            raise
        else:
            if not isinstance(verdict, bool | str):
                raise TypeError(
                    f"approve={name} must return True to run the tool, or False or a str that says "
                    f"why not; it returned {type(verdict).__name__}"
                )
            return verdict
        raise ToolError(f"approve={name} was cancelled from within, asked about {call.name}")
