"""What one stream uses of what is registered: each event class to its handlers, bound and called.

A stream compiles its routes once, when it hands out its first event. An event without handlers costs
one look-up in a dictionary: nothing is awaited and nothing allocated for it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

from streamchat.context import Context
from streamchat.protocol.events import EVENT_CLASSES, UnknownEvent
from streamchat.protocol.plain import is_list
from streamchat.signatures import name_of
from streamchat.steps import STEP_CLASSES

__all__ = [
    "ALL_EVENTS",
    "NO_CALLS",
    "Call",
    "KeptTable",
    "Registration",
    "Role",
    "Routes",
    "compile_routes",
]

ALL_EVENTS: tuple[type, ...] = (*EVENT_CLASSES, UnknownEvent)
"""The classes of a stream's own events."""

Role = Literal["handler", "on_error handler", "event middleware"]
"""What a registered function is for; errors call it so."""


@attrs.frozen(kw_only=True, eq=False)
class Registration:
    """One registered function and when to call it."""

    role: Role
    types: tuple[type, ...] = ()
    """Event classes, or exception classes for ``on_error``."""
    function: Callable[..., Any]
    """As it was registered."""
    takes_context: bool
    """Whether it takes ``(event, ctx)``; read from its signature once."""
    is_async: bool
    """Whether its result is to be awaited; read once."""
    where: Callable[[Any], bool] | None = None
    """Only for events for which this is true."""
    once: bool = False
    """Only for the first such event of each stream."""
    timeout: float | None = None
    """Seconds that one call may take."""

    @property
    def name(self) -> str:
        """How an error names the function."""
        return name_of(self.function)


Call = tuple[Callable[[Any], Any], bool, Registration]
"""A registration as it is called: with the event alone, awaited or not."""
Table = Mapping[type, tuple[Call, ...]]
"""Every event class to its handlers, in registration order; empty where there are none."""


@attrs.define(eq=False)
class Routes:
    """What was registered when a stream started, bound to its context."""

    events: Table
    """What to call for an event."""
    errors: tuple[Call, ...]
    """``on_error`` handlers, in registration order."""
    middleware: tuple[Call, ...]
    """Event middleware, in registration order."""
    _raised: Exception | None = attrs.field(default=None, init=False)

    async def deliver(self, event: Any) -> None:
        """Call the handlers of an event, one after the other.

        (The pump of a stream holds the same loop, because a coroutine more costs 0.2 us an event.)
        """
        for call, is_async, registration in self.events[type(event)]:
            try:
                result = call(event)
                if is_async or inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001  # raised again below
                failure = await self.judge(error, registration, event)
                if failure is not None:
                    try:
                        raise failure  # the handler's own
                    finally:
                        del failure  # its traceback holds this frame

    async def changed(self, event: Any) -> Sequence[Any]:
        """What the event middleware makes of an event: itself, others, or none."""
        events: list[Any] = [event]
        for call, _, registration in self.middleware:
            given, events = events, []
            for each in given:
                try:
                    result = call(each)
                    if type(result) not in _EVENTS:  # as it nearly always is
                        if inspect.isawaitable(result):
                            result = await result
                        events += self._checked(result, each, registration)
                    else:
                        _carry_over(each, result)
                        events.append(result)
                except Exception as error:  # noqa: BLE001  # raised again below
                    failure = await self.judge(error, registration, each)
                    if failure is not None:
                        try:
                            raise failure  # the middleware's own
                        finally:
                            del failure  # its traceback holds this frame
                    events.append(each)
        return events

    def _checked(self, result: Any, given: Any, registration: Registration) -> Sequence[Any]:
        if result is None:
            return ()
        events: Sequence[Any] = result if is_list(result) else (result,)
        for event in events:
            if type(event) not in _EVENTS:
                raise TypeError(
                    f"event middleware {registration.name} returned a {type(event).__name__}; it "
                    "must return an event, a list of events, or None to drop it"
                )
            _carry_over(given, event)
        return events

    async def judge(
        self, error: Exception, registration: Registration, event: Any
    ) -> Exception | None:
        """What to raise for a handler's failure; ``None`` if ``on_error`` takes it upon itself."""
        error = _no_stop(error, registration)
        error.add_note(
            f"raised by {registration.role} {registration.name} for a {event.type} event"
        )
        try:
            if await self.tell(error):
                return None
        except Exception as failure:
            self._raised = failure
            raise
        self._raised = error
        return error

    def was_raised(self, error: BaseException) -> bool:
        """Whether it is a handler's own that :meth:`judge` let through; asked once, then forgotten,
        because its traceback holds the stream."""
        raised, self._raised = self._raised, None
        return error is raised

    async def tell(self, error: Exception) -> bool:
        """Call the ``on_error`` handlers; whether one of them returned ``True``."""
        recovered = False
        for call, is_async, registration in self.errors:
            if not isinstance(error, registration.types):
                continue
            try:
                result = call(error)
                if is_async or inspect.isawaitable(result):
                    result = await result
            except Exception as error_of_its_own:  # noqa: BLE001  # raised here, or a better one
                failure = _no_stop(error_of_its_own, registration)
                failure.add_note(f"raised by {registration.role} {registration.name}")
                try:
                    raise failure
                finally:
                    del failure  # its traceback holds this frame
            recovered = recovered or result is True
        return recovered


def _no_stop(error: Exception, registration: Registration) -> Exception:
    """An error that does not end the consumer's ``async for`` as if the answer were complete."""
    if not isinstance(error, StopAsyncIteration | StopIteration):
        return error
    return RuntimeError(f"{registration.role} {registration.name} raised {type(error).__name__}")


_EVENTS = frozenset(ALL_EVENTS)


def _carry_over(old: Any, new: Any) -> None:
    """What an end event ended goes with a changed copy of it (``attrs.evolve`` leaves it behind)."""
    if new is old or type(new) is not type(old):
        return
    for name in _ADDED[type(old)]:
        if getattr(new, name) is None:
            setattr(new, name, getattr(old, name))


_ADDED: Mapping[type, tuple[str, ...]] = {
    cls: tuple(field.name for field in attrs.fields(cls) if not field.init) for cls in ALL_EVENTS
}
"""What the accumulator adds to an event."""


NO_CALLS: Table = dict.fromkeys((*ALL_EVENTS, *STEP_CLASSES), ())
"""Nobody listens. Shared by all streams without handlers: a waiting one would be a twenty-fifth larger."""


@attrs.define(eq=False)
class KeptTable:
    """The last table of calls that streams of a dispatcher used; the next ones mostly use the same.

    A waiting stream with a table of its own would be a twentieth larger (benchmarks/memory.py).
    """

    last: tuple[Sequence[Registration], Table] | None = None
    """Both in one, because streams in other threads may read it now."""


def compile_routes(
    registrations: Sequence[Registration],
    make_context: Callable[[], Context],
    kept: KeptTable | None = None,
) -> Routes:
    """Freeze registrations into what one stream uses.

    Args:
        registrations: in the order in which they are called.
        make_context: called if one of them takes a context.
        kept: where a table is found and left, unless something in it is for this stream alone.
    """
    takes_context = any(registration.takes_context for registration in registrations)
    context = make_context() if takes_context else None
    is_own = takes_context or any(registration.once for registration in registrations)
    errors = _calls("on_error handler", registrations, context)
    middleware = _calls("event middleware", registrations, context)
    if is_own or kept is None:
        return Routes(_table(registrations, context), errors, middleware)
    last = kept.last
    if last is None or last[0] != registrations:
        last = kept.last = registrations, _table(registrations, context)
    return Routes(last[1], errors, middleware)


def _calls(
    role: Role, registrations: Sequence[Registration], context: Context | None
) -> tuple[Call, ...]:
    return tuple(_bind(entry, context) for entry in registrations if entry.role == role)


def _table(registrations: Sequence[Registration], context: Context | None) -> Table:
    table: dict[type, tuple[Call, ...]] = {}
    for registration in registrations:
        if registration.role == "handler":
            call = _bind(registration, context)
            for event_class in registration.types:
                table[event_class] = (*table.get(event_class, ()), call)
    return {**NO_CALLS, **table} if table else NO_CALLS


def _bind(registration: Registration, context: Context | None) -> Call:
    """The function as one of the event alone."""
    function = registration.function
    call: Callable[[Any], Any] = function
    if context is not None and registration.takes_context:
        call = _with_context(function, context)
    if registration.timeout is not None:
        call = _limited(call, registration.timeout, registration.name)
    if registration.where is None and not registration.once:
        return call, registration.is_async, registration
    # Not awaited unless it is called: whether it is a coroutine is seen from what it returns.
    return _filtered(call, registration), False, registration


def _with_context(function: Callable[..., Any], context: Context) -> Callable[[Any], Any]:
    return lambda event: function(event, context)


def _filtered(call: Callable[[Any], Any], registration: Registration) -> Callable[[Any], Any]:
    where, spent = registration.where, False

    def filtered(event: Any) -> Any:
        nonlocal spent
        if spent or (where is not None and not where(event)):
            return None
        spent = registration.once
        return call(event)

    return filtered


def _limited(
    call: Callable[[Any], Awaitable[Any]], seconds: float, name: str
) -> Callable[[Any], Awaitable[Any]]:
    async def limited(event: Any) -> Any:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await call(event)
        except TimeoutError:
            if not scope.expired():
                raise  # the handler's own
        raise TimeoutError(f"handler {name} took longer than its timeout of {seconds:g} s")

    return limited
