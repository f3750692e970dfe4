"""What one stream uses of what is registered: each event class to its handlers, and how they are called.

A stream makes its routes once, when it hands out its first event (:mod:`streamchat.binding`). An event
without handlers costs one look-up in a dictionary: nothing is awaited and nothing allocated for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import attrs

from streamchat.protocol.events import EVENT_CLASSES, UnknownEvent
from streamchat.protocol.plain import is_list
from streamchat.signatures import name_of
from streamchat.steps import STEP_CLASSES

__all__ = [
    "ALL_EVENTS",
    "MAX_QUEUE",
    "NO_CALLS",
    "BackgroundHandlers",
    "Call",
    "Registration",
    "Role",
    "Routes",
    "Table",
    "failure_of",
]

MAX_QUEUE = 256
"""Events that may wait for a background handler, by default."""

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
    background: bool = False
    """Whether it is called in a task of its own."""
    every: float | None = None
    """Seconds within which neighbouring deltas of one block become one event; background only."""
    max_queue: int = MAX_QUEUE
    """Events that may wait for it; background only."""

    @property
    def name(self) -> str:
        """How an error names the function."""
        return name_of(self.function)


Call = tuple[Callable[[Any], Any], bool, Registration]
"""A registration as it is called: with the event alone, awaited or not."""
Table = Mapping[type, tuple[Call, ...]]
"""Every event class to its handlers, in registration order; empty where there are none."""


class BackgroundHandlers(Protocol):
    """The handlers of a stream that run in tasks of their own; see :mod:`streamchat.background`."""

    @property
    def is_at_work(self) -> bool:
        """Whether one of them has not received all events so far."""
        ...

    @property
    def has_failed(self) -> bool:
        """Whether there is a failure to take."""
        ...

    def take_failure(self) -> BaseException | None:
        """What one of them raised, and ``on_error`` did not recover from; given once."""
        ...

    async def drain(self) -> None:
        """Wait until they have received all events; cancelling this cancels them."""
        ...

    async def idle(self) -> None:
        """Wait until they have received all events so far."""
        ...

    def cancel_soon(self) -> None:
        """Cancel them; nobody waits."""
        ...

    async def end(self, error: BaseException | None) -> BaseException | None:
        """Wait until they have received all events, or cancel them if the error is a cancellation.

        Returns what one of them raised, unless ``error`` names it in a note."""
        ...


@attrs.define(eq=False)
class Routes:
    """What was registered when a stream started, bound to its context."""

    events: Table
    """What to call for an event."""
    errors: tuple[Call, ...]
    """``on_error`` handlers, in registration order."""
    middleware: tuple[Call, ...]
    """Event middleware, in registration order."""
    background: BackgroundHandlers | None = None
    """Those handlers that run in tasks of their own; most streams have none."""
    _raised: Exception | None = attrs.field(default=None, init=False)

    def for_another_stream(self) -> Routes:
        """The same for a stream of its own; of this one nothing is kept."""
        return Routes(self.events, self.errors, self.middleware)

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
        try:
            failure = await failure_of(error, registration, event, self.errors)
        except Exception as of_on_error:
            self._raised = of_on_error
            raise
        if failure is not None:
            self._raised = failure
        return failure

    def was_raised(self, error: BaseException) -> bool:
        """Whether it is a handler's own that :meth:`judge` let through; asked once, then forgotten,
        because its traceback holds the stream."""
        raised, self._raised = self._raised, None
        return error is raised

    async def tell(self, error: Exception) -> bool:
        """Call the ``on_error`` handlers; whether one of them returned ``True``."""
        return await _tell(error, self.errors)


async def failure_of(
    error: Exception, registration: Registration, event: Any, on_error: tuple[Call, ...]
) -> Exception | None:
    """What a handler's failure does to the stream: raised, or ``None`` if ``on_error`` recovers.

    Raises:
        Exception: whatever an ``on_error`` handler raises itself.
    """
    error = _no_stop(error, registration)
    error.add_note(f"raised by {registration.role} {registration.name} for a {event.type} event")
    return None if await _tell(error, on_error) else error


async def _tell(error: Exception, on_error: tuple[Call, ...]) -> bool:
    recovered = False
    for call, is_async, registration in on_error:
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
