"""Which function hears which event: registration by decorator or by class.

Nothing here runs a handler: a stream binds what is registered when it starts (:mod:`streamchat.binding`),
and its pump calls them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

import attrs

from streamchat.binding import KeptRoutes, compile_routes
from streamchat.context import Context, StreamView
from streamchat.finite import is_finite, shown
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Debug,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.routes import ALL_EVENTS, MAX_QUEUE, Registration, Role, Routes
from streamchat.signatures import (
    checked_callable,
    is_async,
    is_defined_again,
    name_of,
    put_or_replace,
    takes_context,
)
from streamchat.steps import STEP_CLASSES, StepEnd, StepStart, ToolProgress, ToolResult

__all__ = ["Context", "Dispatcher", "Handler", "Listeners", "StreamView", "routes_of"]

E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
R = TypeVar("R")
M = TypeVar("M", bound="EventMiddleware")
X = TypeVar("X", bound=Exception)


@attrs.frozen(kw_only=True, eq=False)
class _Options:
    """What a decorator takes beside the handler; checked when it is applied."""

    where: Callable[[Any], bool] | None = None
    once: bool = False
    timeout: float | None = None
    background: bool = False
    every: float | None = None
    max_queue: int = MAX_QUEUE

    def check(self, what: str, *, takes: str, is_awaited: bool) -> None:
        """Refuse what means nothing.

        Raises:
            TypeError, ValueError: an option; ``what`` names the handler.
        """
        if self.where is not None and (not callable(self.where) or is_async(self.where)):
            raise TypeError(f"where= of {what} must be a plain function of the {takes}")
        if self.timeout is not None:
            _check_seconds("timeout", self.timeout, what)
            if not is_awaited:
                raise TypeError(f"timeout= needs an async function; {what} is plain")
        if self.every is not None:
            _check_seconds("every", self.every, what)
        if isinstance(self.max_queue, bool) or not isinstance(self.max_queue, int):
            raise TypeError(f"max_queue= of {what} must be an int")
        if self.max_queue < 1:
            raise ValueError(f"max_queue= of {what} must be at least 1, not {self.max_queue}")
        if self.max_queue != MAX_QUEUE and not (self.background or self.every is not None):
            raise TypeError(f"max_queue= of {what} needs background=True or every=")


def _check_seconds(name: str, value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}= of {what} must be seconds")
    if not (value > 0 and is_finite(value)):
        raise ValueError(f"{name}= of {what} must be above 0 seconds, not {shown(value)}")


_NO_OPTIONS = _Options()


def _registration(
    role: Role,
    function: Any,
    types: tuple[type, ...] = (),
    *,
    takes: str = "event",
    options: _Options = _NO_OPTIONS,
) -> Registration:
    """A function with how to call it.

    Raises:
        TypeError: it cannot be called with an event, or an option does not fit it.
        ValueError: an option that is out of range.
    """
    checked_callable(function, role)
    awaited = is_async(function)
    options.check(f"{role} {name_of(function)}", takes=takes, is_awaited=awaited)
    return Registration(
        role=role,
        types=types,
        function=function,
        takes_context=takes_context(function, role, takes),
        is_async=awaited,
        where=options.where,
        once=options.once,
        timeout=options.timeout,
        background=options.background or options.every is not None,
        every=options.every,
        max_queue=options.max_queue,
    )


# --- decorators ----------------------------------------------------------------------------------


EventMiddleware = (
    Callable[[Any], "Changed | Awaitable[Changed]"]
    | Callable[[Any, Context], "Changed | Awaitable[Changed]"]
)
"""See :meth:`Listeners.event_middleware`."""
Changed = Event | list[Event] | tuple[Event, ...] | None
"""What becomes of an event: itself or another, several, or nothing."""


class _Decorator(Protocol[E]):
    """A decorator that returns the function unchanged, type included."""

    @overload
    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, handler: Callable[[E, Context], R], /) -> Callable[[E, Context], R]: ...


class _BoundOn(Generic[E]):
    """``@x.on_content_delta`` or ``@x.on_content_delta(every=1.0)``; see :class:`Listeners`."""

    __slots__ = ("_add", "_types")

    def __init__(self, add: Callable[[Registration], None], types: tuple[type, ...]) -> None:
        self._add = add
        self._types = types

    @overload
    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, handler: Callable[[E, Context], R], /) -> Callable[[E, Context], R]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        where: Callable[[E], bool] | None = None,
        once: bool = False,
        timeout: float | None = None,
        background: bool = False,
        every: float | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> _Decorator[E]: ...

    def __call__(
        self,
        handler: Callable[..., Any] | None = None,
        /,
        *,
        where: Callable[[E], bool] | None = None,
        once: bool = False,
        timeout: float | None = None,
        background: bool = False,
        every: float | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> Any:
        options = _Options(
            where=where,
            once=once,
            timeout=timeout,
            background=background,
            every=every,
            max_queue=max_queue,
        )

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            self._add(_registration("handler", handler, self._types, options=options))
            return handler

        return register if handler is None else register(handler)


class _On(Generic[E]):
    """The descriptor behind one ``on_...`` name: typed by its event class."""

    def __init__(self, *types: type[E]) -> None:
        self.types = types

    def __get__(self, owner: Listeners, _: type[Listeners]) -> _BoundOn[E]:
        return _BoundOn(owner.add, self.types)


class Listeners:
    """The decorators, for whatever can be listened to: a dispatcher, a client, a stream.

    Each returns the function unchanged. Handlers are ``async def`` or plain ``def`` and take
    ``(event)`` or ``(event, ctx)``. They run in wire order, one at a time a stream, in the order of
    registration; each is awaited before the next, which also slows the stream down to their pace.

    Options of each:

    * ``where=``: a plain function of the event; the handler receives only events for which it is true.
    * ``once=True``: only the first such event of each stream.
    * ``timeout=``: seconds that one call of an async handler may take before it fails with
      ``TimeoutError``.
    * ``background=True``: the handler receives its events in order, from a queue, in a task of its
      own for each stream, so that it may be slow without slowing the stream. When ``max_queue``
      events wait (256 by default), the stream waits for it, and so does the end of the stream.
    * ``every=``: seconds; implies ``background``. Neighbouring deltas of one block (text, thinking, a
      tool plan, arguments) that arrive within this time of the first come as one event with their
      text joined; sooner at the end of the block, of the message, and when the stream fails. They
      count as one event in the queue.

    A background handler sees its stream as it is now: ``ctx.snapshot`` may be ahead of the event. Its
    failure goes to ``on_error`` and stops the stream like that of any other handler; a further failure
    is named in a note of the first. A stream that is closed or left early waits until the handler has
    received its events, unless the handler closes the stream itself; cancelling the stream, or dropping
    it without closing it, cancels the handler.

    Raises:
        TypeError, ValueError: at registration, if the handler takes other parameters, or an option
            means nothing.
    """

    __slots__ = ()

    on_message_start = _On[MessageStart](MessageStart)
    on_content_start = _On[ContentStart](ContentStart)
    on_content_delta = _On[ContentDelta](ContentDelta)
    on_content_end = _On[ContentEnd](ContentEnd)
    on_tool_plan_delta = _On[ToolPlanDelta](ToolPlanDelta)
    on_tool_call_start = _On[ToolCallStart](ToolCallStart)
    on_tool_call_delta = _On[ToolCallDelta](ToolCallDelta)
    on_tool_call_end = _On[ToolCallEnd](ToolCallEnd)
    on_citation_start = _On[CitationStart](CitationStart)
    on_citation_end = _On[CitationEnd](CitationEnd)
    on_message_end = _On[MessageEnd](MessageEnd)
    on_debug = _On[Debug](Debug)
    on_unknown = _On[UnknownEvent](UnknownEvent)
    """Events that this version does not know."""
    on_event: _On[Event] = _On(*ALL_EVENTS)
    """All events of a stream; those of a tool run have handlers of their own."""
    on_step_start = _On[StepStart](StepStart)
    """A tool run is about to send a request."""
    on_tool_progress = _On[ToolProgress](ToolProgress)
    """A tool of a tool run has yielded a value, and another followed."""
    on_tool_result = _On[ToolResult](ToolResult)
    """A tool of a tool run has answered."""
    on_step_end = _On[StepEnd](StepEnd)
    """An answer of a tool run is complete, its tools included."""

    @overload
    def on(self, first: type[E], /) -> _BoundOn[E]: ...
    @overload
    def on(self, first: type[E], second: type[E2], /) -> _BoundOn[E | E2]: ...
    @overload
    def on(self, first: type[E], second: type[E2], third: type[E3], /) -> _BoundOn[E | E2 | E3]: ...
    @overload
    def on(self, *types: type[Any]) -> _BoundOn[Any]: ...

    def on(self, *types: type[Any]) -> _BoundOn[Any]:
        """Events of these classes: ``@client.on(ToolCallStart, ToolCallEnd)``.

        Raises:
            TypeError: no class, or one that is no event.
        """
        if not types:
            raise TypeError("on() needs at least one event class: @client.on(ContentDelta)")
        for event_class in types:
            if event_class not in (*ALL_EVENTS, *STEP_CLASSES):
                raise TypeError(f"on() takes event classes, not {event_class!r}")
        return _BoundOn(self.add, types)

    @overload
    def on_error(self) -> _ErrorDecorator[Exception]: ...
    @overload
    def on_error(self, *types: type[X]) -> _ErrorDecorator[X]: ...
    def on_error(self, *types: type[Any]) -> _ErrorDecorator[Any]:
        """Failures of these classes (``Exception`` if none is named), of handlers and of the stream.

        The handler takes ``(error)`` or ``(error, ctx)``. If it returns ``True`` for a handler's
        failure, the next handler runs as if nothing had been; a failure of the stream itself is
        raised all the same. Write ``@client.on_error()``, with parentheses.

        Raises:
            TypeError: something other than exception classes.
        """
        classes: tuple[type[Exception], ...] = types or (Exception,)
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, Exception)):
                raise TypeError(
                    f"on_error() takes exception classes, not {cls!r}; "
                    "write @client.on_error() or @client.on_error(SomeError)"
                )

        def register(handler: Any) -> Any:
            self.add(_registration("on_error handler", handler, classes, takes="error"))
            return handler

        return register

    def event_middleware(self, function: M) -> M:
        """What each event goes through before handlers and iterators see it.

        A function of ``(event)`` or ``(event, ctx)``, plain or async, that returns the event, another
        one, a list of events to put in its place, or ``None`` to drop it. Several run in the order of
        registration, each on what the one before returned::

            @client.event_middleware
            def redact(event):
                return ContentDelta("***", event.index) if is_secret(event) else event

        The answer itself (``snapshot``, ``response``) is what the server said. A failure is treated
        like a handler's; if ``on_error`` returns ``True``, the event goes on as it was.

        Raises:
            TypeError: at registration, if it takes other parameters.
        """
        self.add(_registration("event middleware", function))
        return function

    def add(self, registration: Registration) -> None:
        """Where the decorators put a function; each kind of listener has its own."""
        raise TypeError(f"{type(self).__name__} takes no handlers")


class _ErrorDecorator(Protocol[E]):
    """A decorator for ``on_error`` handlers; returns the function unchanged."""

    @overload
    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, handler: Callable[[E, Context], R], /) -> Callable[[E, Context], R]: ...


class Dispatcher(Listeners):
    """A set of handlers, to be given to clients and streams or included in another set.

    It belongs to no stream: one dispatcher serves any number of them at once.
    """

    __slots__ = ("_entries", "kept")

    def __init__(self) -> None:
        self._entries: list[Registration | _Included] = []
        self.kept = KeptRoutes()
        """What its streams have in common; for :func:`routes_of`."""

    def include(self, other: Dispatcher | Handler) -> None:
        """Call the other's handlers too, at this place in the order; also those it gets later.

        Raises:
            TypeError: not a dispatcher or handler.
            ValueError: the other includes this one.
        """
        dispatcher = as_dispatcher(other)
        if dispatcher is self or self in dispatcher._all_included():
            raise ValueError("a dispatcher cannot include itself")
        self._entries.append(_Included(other, dispatcher))

    def remove(self, registered: Callable[..., Any] | Dispatcher | Handler) -> None:
        """Take back a function, however often and for whatever it was registered here, or an
        included dispatcher or handler. Streams that have started keep what they started with.

        Raises:
            ValueError: it is not registered here.
        """
        # By equality for functions, because a method is another object each time it is looked up.
        kept = [
            entry
            for entry in self._entries
            if not (
                entry.origin is registered
                if isinstance(entry, _Included)
                else entry.function == registered
            )
        ]
        if len(kept) == len(self._entries):
            raise ValueError(f"{name_of(registered)} is not registered here")
        self._entries[:] = kept

    def registrations(self) -> list[Registration]:
        """All that is registered, that of included dispatchers at their place."""
        flat: list[Registration] = []
        if not self._entries:
            return flat
        for entry in self._entries:
            if isinstance(entry, _Included):
                flat += entry.dispatcher.registrations()
            else:
                flat.append(entry)
        return flat

    def _all_included(self) -> list[Dispatcher]:
        found: list[Dispatcher] = []
        for entry in self._entries:
            if isinstance(entry, _Included):
                found += [entry.dispatcher, *entry.dispatcher._all_included()]
        return found

    def add(self, registration: Registration) -> None:
        """Put a function behind those registered so far; the decorators call it.

        A function of a module that is registered again, as by a notebook cell that is run twice,
        replaces its earlier self, with a warning. Those that a loop defines, or that are all named
        ``_``, are kept.
        """
        put_or_replace(
            self._entries,
            registration,
            lambda entry: isinstance(entry, Registration) and _is_again(entry, registration),
            registration.role,
            registration.function,
        )


def _is_again(old: Registration, new: Registration) -> bool:
    """Whether a function is registered a second time for the same events.

    The same function with other options is meant to be called twice.
    """
    if (old.role, old.types) != (new.role, new.types):
        return False
    if old.function is new.function and attrs.astuple(old, recurse=False) != attrs.astuple(
        new, recurse=False
    ):
        return False
    return is_defined_again(old.function, new.function)


@attrs.frozen(eq=False, repr=False)
class _Included:
    """What was included, as it was given and as it is asked."""

    origin: Dispatcher | Handler
    dispatcher: Dispatcher


# --- class style ---------------------------------------------------------------------------------


def _types_of(descriptor: Any) -> tuple[type, ...]:
    types: tuple[type, ...] = descriptor.types
    return types


_HANDLER_NAMES: Mapping[str, tuple[type, ...]] = {
    name: _types_of(descriptor)
    for name, descriptor in vars(Listeners).items()
    if isinstance(descriptor, _On)
}


class Handler:
    """Handlers as a class: subclass it and define ``async def on_content_delta(self, event)``.

    The names are those of the decorators, ``on_event``, ``on_unknown`` and ``on_error`` (any
    exception) included; methods take ``(self, event)`` or ``(self, event, ctx)``.

    Raises:
        TypeError: at class definition, for an ``on_...`` method that is no event, with the name that
            was probably meant, or for one that takes other parameters.
    """

    handled: ClassVar[tuple[str, ...]] = ()
    """The names defined, in the order of definition."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # All classes but Handler itself, so that mixins count, in the order of definition.
        inherited = [vars(base) for base in reversed(cls.__mro__) if base not in Handler.__mro__]
        names = dict.fromkeys(n for base in inherited for n in base if n.startswith("on_"))
        for name in names:
            value = getattr(cls, name)
            if name not in _HANDLER_NAMES and name != "on_error":
                from difflib import get_close_matches  # for this mistake alone

                close = get_close_matches(name, [*_HANDLER_NAMES, "on_error"], n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise TypeError(f"{cls.__name__}.{name} is no event of Chat v2{hint}")
            if not callable(value):
                raise TypeError(f"{cls.__name__}.{name} must be a method")
            if inspect.isroutine(value):
                # A plain function in a class gets the instance first; static and class methods do not.
                is_plain = inspect.isfunction(inspect.getattr_static(cls, name))
                called = functools.partial(value, None) if is_plain else value
                takes = "error" if name == "on_error" else "event"
                takes_context(called, "handler", takes)
        cls.handled = tuple(names)


def as_dispatchers(handlers: Any) -> tuple[Dispatcher, ...]:
    """What ``handlers=`` may be, as dispatchers.

    Raises:
        TypeError: no list, or something in it that is neither dispatcher nor handler instance.
    """
    if isinstance(handlers, str | Dispatcher | Handler) or not hasattr(handlers, "__iter__"):
        raise TypeError(f"handlers must be a list, not {type(handlers).__name__}: handlers=[...]")
    return tuple(as_dispatcher(each) for each in handlers)


def routes_of(
    dispatchers: Sequence[Dispatcher],
    make_context: Callable[[], Context],
    interrupt: Callable[[], None],
) -> Routes:
    """What one stream uses of these dispatchers, in this order; see :func:`compile_routes`."""
    registrations: list[Registration] = []
    for dispatcher in dispatchers:
        registrations += dispatcher.registrations()
    return compile_routes(
        registrations,
        make_context,
        interrupt,
        dispatchers[-1].kept if dispatchers else None,
    )


def as_dispatcher(handlers: Any) -> Dispatcher:
    """A dispatcher, or a handler instance as one.

    Raises:
        TypeError: anything else.
    """
    if isinstance(handlers, Dispatcher):
        return handlers
    if not isinstance(handlers, Handler):
        hint = ": pass an instance" if isinstance(handlers, type) else ""
        raise TypeError(f"handlers takes Dispatcher and Handler instances, not {handlers!r}{hint}")
    dispatcher = Dispatcher()
    for name in handlers.handled:
        method = getattr(handlers, name)
        if name == "on_error":
            dispatcher.on_error()(method)
        else:
            _BoundOn[Any](dispatcher.add, _HANDLER_NAMES[name])(method)
    return dispatcher
