"""Which handler hears which event: registration by decorator or class; imports the protocol only.

Nothing here awaits or runs a handler. A stream compiles what is registered when it starts into one
table, event class to handlers, and its pump calls them; an event without handlers costs one
dictionary look-up.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

import attrs

from streamchat.protocol.events import (
    EVENT_CLASSES,
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
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.response import ChatResponse
from streamchat.timing import Timing

__all__ = ["Context", "Dispatcher", "Handler", "Listeners", "StreamView"]

E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
R = TypeVar("R")
X = TypeVar("X", bound=Exception)

_ALL_EVENTS: tuple[type, ...] = (*EVENT_CLASSES, UnknownEvent)


class StreamView(Protocol):
    """What a handler may know of its stream; the real one is :class:`streamchat.ChatStream`."""

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far."""
        ...

    @property
    def request_id(self) -> str | None:
        """``x-debug-trace-id`` of the response."""
        ...

    @property
    def status(self) -> int | None:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers, names in lower case."""
        ...

    @property
    def attempts(self) -> int:
        """How many times the request was sent."""
        ...

    @property
    def timing(self) -> Timing:
        """When things happened, in seconds from the request."""
        ...

    async def aclose(self) -> None:
        """Close the stream; it ends after this event."""
        ...


class Context:
    """What a handler with two parameters gets beside the event; one for each stream.

    ``ctx.data``: what the caller gave as ``data=``. ``ctx.snapshot``: the answer so far.
    ``ctx.stream``: the stream, to look at or to close. ``ctx.request``: what was asked.
    ``ctx.index``: position in a fan-out, ``None`` outside one.
    """

    __slots__ = ("_stream", "data", "index", "request")

    def __init__(
        self,
        stream: Callable[[], StreamView | None],
        request: ChatRequest,
        data: Any,
        index: int | None,
    ) -> None:
        # A weak reference: a cycle would keep the socket of a dropped stream open until the
        # collector runs.
        self._stream = stream
        self.request = request
        """The request that is answered."""
        self.data = data
        """The caller's own: what was given as ``data=``."""
        self.index = index
        """Position in a fan-out, from 0; ``None`` outside one."""

    @property
    def stream(self) -> StreamView:
        """The stream.

        Raises:
            ReferenceError: the stream was dropped; a handler never sees that.
        """
        stream = self._stream()
        if stream is None:
            raise ReferenceError("the stream of this context is gone")
        return stream

    @property
    def snapshot(self) -> ChatResponse:
        """The answer so far, this event included."""
        return self.stream.snapshot


@attrs.frozen
class Registration:
    """One handler and when to call it."""

    types: tuple[type, ...]
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

    @property
    def name(self) -> str:
        """How an error names the handler."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)


Call = tuple[Callable[[Any], Any], bool, Registration]
"""A handler as the pump calls it: with the event alone, awaited or not."""


@attrs.frozen
class Routes:
    """What was registered when a stream started."""

    events: Mapping[type, tuple[Call, ...]]
    """Every event class to its handlers, in registration order; empty where there are none."""
    errors: tuple[Call, ...]
    """``on_error`` handlers, in registration order."""


def compile_routes(
    registrations: Iterable[Registration],
    error_registrations: Iterable[Registration],
    context: Context,
) -> Routes:
    """Freeze registrations into the table that one stream uses."""
    table: dict[type, list[Call]] = {event_class: [] for event_class in _ALL_EVENTS}
    for registration in registrations:
        call = _bind(registration, context)
        for event_class in registration.types:
            table[event_class].append(call)
    return Routes(
        {event_class: tuple(calls) for event_class, calls in table.items()},
        tuple(_bind(registration, context) for registration in error_registrations),
    )


def _bind(registration: Registration, context: Context) -> Call:
    """The handler as a function of the event alone."""
    function, where = registration.function, registration.where
    call: Callable[[Any], Any] = function
    if registration.takes_context:
        call = _with_context(function, context)
    if where is None and not registration.once:
        return call, registration.is_async, registration
    inner, spent = call, False

    def filtered(event: Any) -> Any:
        nonlocal spent
        if spent or (where is not None and not where(event)):
            return _nothing() if registration.is_async else None
        spent = registration.once
        return inner(event)

    return filtered, registration.is_async, registration


def _with_context(function: Callable[..., Any], context: Context) -> Callable[[Any], Any]:
    return lambda event: function(event, context)


async def _nothing() -> None:
    """What a filtered asynchronous handler awaits."""


# --- reading a handler's signature ---------------------------------------------------------------


def _read_handler(
    function: Any, *, takes: str = "event", where: Callable[[Any], bool] | None, once: bool
) -> dict[str, Any]:
    """How to call a handler.

    Raises:
        TypeError: not callable, or it takes neither ``(event)`` nor ``(event, ctx)``.
    """
    name = getattr(function, "__qualname__", None) or repr(function)
    if not callable(function):
        raise TypeError(f"a handler must be callable, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"handler {name} is a generator: nobody would iterate over it")
    if where is not None and (not callable(where) or _is_async(where)):
        raise TypeError(f"where= of handler {name} must be a plain function of the {takes}")
    return {
        "function": function,
        "takes_context": _takes_context(function, name, takes),
        "is_async": _is_async(function),
        "where": where,
        "once": once,
    }


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # its kind matters, not its presence
    )


def _takes_context(function: Callable[..., Any], name: str, takes: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature; they get the event
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if keywords or len(required) > 2 or not (positional or open_ended):
        raise TypeError(
            f"handler {name}{inspect.signature(function)} must take ({takes}) or ({takes}, ctx)"
        )
    return len(required) == 2


# --- decorators ----------------------------------------------------------------------------------


class _Decorator(Protocol[E]):
    """A decorator that returns the function unchanged, type included."""

    @overload
    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, handler: Callable[[E, Context], R], /) -> Callable[[E, Context], R]: ...


class _BoundOn(Generic[E]):
    """``@x.on_content_delta`` or ``@x.on_content_delta(where=..., once=True)``."""

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
        self, /, *, where: Callable[[E], bool] | None = None, once: bool = False
    ) -> _Decorator[E]: ...

    def __call__(
        self,
        handler: Callable[..., Any] | None = None,
        /,
        *,
        where: Callable[[E], bool] | None = None,
        once: bool = False,
    ) -> Any:
        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            details = _read_handler(handler, where=where, once=once)
            self._add(Registration(self._types, **details))
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

    Options of each: ``where=`` a plain function of the event, the handler hears only events for
    which it is true; ``once=True``, only the first such event of each stream.

    Raises:
        TypeError: at registration, if the handler takes other parameters.
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
    on_event: _On[Event] = _On(*_ALL_EVENTS)
    """All events."""

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
            if event_class not in _ALL_EVENTS:
                raise TypeError(f"on() takes event classes, not {event_class!r}")
        return _BoundOn(self.add, types)

    def on_error(self, *types: type[X]) -> _ErrorDecorator[X]:
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
            details = _read_handler(handler, takes="error", where=None, once=False)
            self.add_error(Registration(classes, **details))
            return handler

        return register

    def add(self, registration: Registration) -> None:
        """Where the decorators put an event's handler; each kind of listener has its own."""
        raise TypeError(f"{type(self).__name__} takes no handlers")

    def add_error(self, registration: Registration) -> None:
        """Where ``on_error`` puts a handler; each kind of listener has its own."""
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

    __slots__ = ("_entries", "_error_entries")

    def __init__(self) -> None:
        self._entries: list[Registration | Dispatcher] = []
        self._error_entries: list[Registration | Dispatcher] = []

    def include(self, other: Dispatcher | Handler) -> None:
        """Call the other's handlers too, at this place in the order; also those it gets later.

        Raises:
            TypeError: not a dispatcher or handler.
            ValueError: the other includes this one.
        """
        dispatcher = as_dispatcher(other)
        if dispatcher is self or self in dispatcher._included():
            raise ValueError("a dispatcher cannot include itself")
        self._entries.append(dispatcher)
        self._error_entries.append(dispatcher)

    def registrations(self) -> list[Registration]:
        """All event handlers, those of included dispatchers at their place."""
        return _flatten(self._entries, Dispatcher.registrations)

    def error_registrations(self) -> list[Registration]:
        """All ``on_error`` handlers, those of included dispatchers at their place."""
        return _flatten(self._error_entries, Dispatcher.error_registrations)

    def _included(self) -> list[Dispatcher]:
        found: list[Dispatcher] = []
        for entry in self._entries:
            if isinstance(entry, Dispatcher):
                found += [entry, *entry._included()]
        return found

    def add(self, registration: Registration) -> None:
        """Put a handler behind those registered so far; the decorators call it."""
        self._entries.append(registration)

    def add_error(self, registration: Registration) -> None:
        """Put a handler behind those registered so far; ``on_error`` calls it."""
        self._error_entries.append(registration)


def _flatten(
    entries: list[Registration | Dispatcher],
    of: Callable[[Dispatcher], list[Registration]],
) -> list[Registration]:
    flat: list[Registration] = []
    for entry in entries:
        if isinstance(entry, Dispatcher):
            flat += of(entry)
        else:
            flat.append(entry)
    return flat


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
                close = get_close_matches(name, [*_HANDLER_NAMES, "on_error"], n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise TypeError(f"{cls.__name__}.{name} is no event of Chat v2{hint}")
            if not callable(value):
                raise TypeError(f"{cls.__name__}.{name} must be a method")
            if inspect.isfunction(value):
                takes = "error" if name == "on_error" else "event"
                _takes_context(functools.partial(value, None), value.__qualname__, takes)
        cls.handled = tuple(names)


def as_dispatchers(handlers: Any) -> tuple[Dispatcher, ...]:
    """What ``handlers=`` may be, as dispatchers.

    Raises:
        TypeError: no list, or something in it that is neither dispatcher nor handler instance.
    """
    if isinstance(handlers, str | Dispatcher | Handler) or not hasattr(handlers, "__iter__"):
        raise TypeError(f"handlers must be a list, not {type(handlers).__name__}: handlers=[...]")
    return tuple(as_dispatcher(each) for each in handlers)


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
