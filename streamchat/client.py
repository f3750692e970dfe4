"""``Client``: settings, connections and handlers for many streams."""

from __future__ import annotations

import ipaddress
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from ssl import CERT_NONE
from stringprep import in_table_b1
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar, Unpack, cast
from urllib.parse import urlsplit

import attrs

from streamchat._version import __version__
from streamchat.asynchronous import AsyncContext
from streamchat.credentials import (
    Secret,
    checked_headers,
    checked_key,
    hidden,
    key_in,
    merged_headers,
    veiled,
)
from streamchat.dispatcher import Dispatcher, Handler, Listeners, as_dispatchers
from streamchat.middleware import Middleware, chain, checked_middleware
from streamchat.plan import MAX_ANSWER_BYTES, Pacer, Plan
from streamchat.policy import Retry, RetryBudget, Timeout
from streamchat.protocol.errors import ConfigurationError
from streamchat.protocol.keywords import wrong_setting
from streamchat.protocol.models import DEFAULT_MODEL
from streamchat.protocol.plain import is_list, is_mapping, repair_surrogates
from streamchat.protocol.request import (
    AnyMessage,
    ChatOptions,
    ChatRequest,
    CommonOptions,
    Messages,
    check_names,
    checked_extra_body,
    plain_messages,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES
from streamchat.routes import Registration
from streamchat.signatures import is_defined_again, put_or_replace
from streamchat.stream import ChatStream
from streamchat.transport import LOOPBACK, Session, SslContext, Transport

if TYPE_CHECKING:  # imported by the methods that need them: see streamchat/__init__.py
    from streamchat.approval import Approve
    from streamchat.fanout import FanOut, OnError, Requests
    from streamchat.limiter import Limiter
    from streamchat.stops import Stop
    from streamchat.structured import ParsedAnswer
    from streamchat.toolrun import OnToolError, ToolRun
    from streamchat.tools import FunctionTool

__all__ = ["Client"]

M = TypeVar("M", bound=Middleware)
T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.cohere.com"
_COHERE_HOSTS = ("cohere.com", "cohere.ai")


class Client(Listeners, AsyncContext):
    """A client for Cohere's Chat v2 API.

    Args:
        api_key: ``None`` reads ``CO_API_KEY``, then ``COHERE_API_KEY``; an empty one sends no
            ``Authorization``, for private deployments.
        base_url: ``None`` reads ``CO_API_URL``, then ``https://api.cohere.com``; a path is kept.
        model: for requests that name none.
        timeout: limits in seconds; see :class:`~streamchat.Timeout`.
        retry: tries until the first event; see :class:`~streamchat.Retry`.
        session: an ``aiohttp.ClientSession`` of your own; it is used as it is and never closed.
        max_connections: at most so many connections at once; ``None``, the default, is no limit.
        headers: sent with each request, over the client's own.
        client_name: the name of your project, sent as ``X-Client-Name``.
        proxy: a proxy's URL; ``False`` connects directly; ``None`` reads ``HTTPS_PROXY``, ``HTTP_PROXY``,
            ``ALL_PROXY`` and ``NO_PROXY``, never netrc. With a ``session``, that decides instead.
        ssl: an ``ssl.SSLContext``; the system's certificates by default.
        max_event_bytes: the largest event, 16 MiB by default; a citation repeats its document.
        allow_http: allow plain http to other hosts than this machine.
        query: parameters added to the URL of every request, such as ``{"api-version": "..."}``. They
            are not secrets: keep keys in ``headers``.
        extra_body: body fields that this version does not know, sent with every request.
        insecure_tls: allow an ``ssl`` context that does not check the server's certificate or name.
        limiter: requests and tokens a minute of everything that this client sends, unless a call
            names another; may be shared with other clients.
        max_answer_bytes: the largest answer, in bytes of its body, decoded; 256 MiB by default.

    Raises:
        ConfigurationError: no key for Cohere's own host, or a setting that cannot work; the message
            says what to set.
        TypeError: a setting of the wrong type, or unknown; the message names the one that was meant.

    Usable without ``async with`` when ``await client.aclose()`` is called; from several event loops
    in turn, and after a fork, with connections for each. The environment is read here, once.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        model: str | None = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        session: Session | None = None,
        max_connections: int | None = None,
        headers: Mapping[str, str] | None = None,
        client_name: str | None = None,
        proxy: str | Literal[False] | None = None,
        ssl: SslContext | bool = True,
        max_event_bytes: int = DEFAULT_MAX_BYTES,
        allow_http: bool = False,
        query: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        insecure_tls: bool = False,
        limiter: Limiter | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        **unknown: Never,
    ) -> None:
        # Wrapped before anything can fail, and the argument is overwritten: a traceback shows
        # local variables to whoever collects them.
        self._model, self._base_url = model, ""
        names = tuple(unknown)
        unknown.clear()  # a value may be a key
        if api_key is not None and not isinstance(api_key, str):
            kind, fix = type(api_key).__name__, ""  # type: ignore[unreachable]
            if callable(api_key):
                fix = ": call it, and pass what it returns"
            api_key = None
            raise TypeError(f"api_key must be a str, not {kind}{fix}")
        api_key = Secret(key_in(os.environ) if api_key is None else api_key)
        headers = hidden(headers)
        if isinstance(cast("object", proxy), bytes):
            proxy = None
            raise TypeError("proxy must be a str, not bytes; os.fsdecode() makes it one")
        if isinstance(cast("object", base_url), bytes):
            base_url = None
            raise TypeError("base_url must be a str, not bytes")
        if isinstance(proxy, str):
            proxy = veiled(proxy)
        base_url = veiled(base_url or os.environ.get("CO_API_URL") or DEFAULT_BASE_URL)
        if names:
            settings: Any = Client.__init__.__kwdefaults__
            raise wrong_setting(names[0], ("api_key", *settings), ChatOptions.__annotations__)
        headers = checked_headers(headers)
        key = checked_key(api_key)
        self._base_url = _checked_base_url(base_url, allow_http=allow_http)
        if key is None and _is_cohere(self._base_url):
            raise ConfigurationError(
                "no API key: set the environment variable CO_API_KEY (or COHERE_API_KEY), or pass "
                "api_key=; "
                "to try without one, run `streamchat serve` and set CO_API_URL as it says"
            )
        _check_ssl(ssl, insecure_tls=insecure_tls)
        if max_connections is not None and max_connections < 1:
            raise ValueError("max_connections must be at least 1, or None for no limit")
        if max_event_bytes < 1:
            raise ValueError("max_event_bytes must be at least 1")
        self._timeout = _instance("timeout", timeout, Timeout, Timeout())
        self._retry = _instance("retry", retry, Retry, Retry())
        self._max_event_bytes = max_event_bytes
        self._headers = _request_headers(key, client_name, headers)
        self._extra_body = checked_extra_body(extra_body)
        self._limiter = _checked_limiter(limiter)
        self._max_answer_bytes = _checked_bytes(max_answer_bytes)
        self._budget = RetryBudget()
        self._dispatcher = Dispatcher()
        self._middleware: list[Middleware] = []
        self._make: Callable[[Plan], ChatStream] = chain(())
        self._transport = Transport(
            self._base_url,
            max_connections=max_connections or 0,
            session=session,
            proxy=proxy,
            ssl=ssl,
            query=_checked_query(query),
        )

    def chat_stream(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        max_answer_bytes: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        """An answer, streamed. Nothing is sent before it is entered, iterated or awaited.

        Args:
            messages: a ``str``, or a list of dicts, message classes and earlier answers.
            model: the model's id; the client's by default.
            handlers: dispatchers and handler instances for this stream, after the client's own.
            data: anything of yours; handlers find it as ``ctx.data``.
            timeout: instead of the client's.
            retry: instead of the client's.
            headers: sent over the client's.
            limiter: instead of the client's; every attempt waits for its turn.
            max_answer_bytes: instead of the client's.
            **options: any other field of Chat v2; see :class:`~streamchat.ChatOptions`.

        Raises:
            ConfigurationError: no model anywhere.
            TypeError, ValueError: an argument that is unknown, of the wrong type, or that no server
                accepts; it is named.
        """
        headers = hidden(headers)  # first: a traceback shows local variables
        return self._stream(
            messages,
            model=model,
            handlers=handlers,
            data=data,
            timeout=timeout,
            retry=retry,
            headers=headers,
            limiter=limiter,
            max_answer_bytes=max_answer_bytes,
            **options,
        )

    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        max_answer_bytes: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse:
        """The whole answer; takes and raises what :meth:`chat_stream` does.

        It is streamed all the same, so that handlers hear it as it comes and a failure carries what
        had arrived.
        """
        headers = hidden(headers)  # a traceback shows local variables
        stream = self.chat_stream(
            messages,
            model=model,
            handlers=handlers,
            data=data,
            timeout=timeout,
            retry=retry,
            headers=headers,
            limiter=limiter,
            max_answer_bytes=max_answer_bytes,
            **options,
        )
        return await stream

    def fan_out(
        self,
        requests: Requests,
        *,
        concurrency: int = 64,
        ordered: bool = False,
        limiter: Limiter | None = None,
        max_answer_bytes: int | None = None,
        on_error: OnError = "return",
        adaptive: bool = False,
        stop: Stop | None = None,
        into: type[Any] | None = None,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Unpack[ChatOptions],
    ) -> FanOut:
        """Many answers at once, as they complete; every request ends as a result.

        Nothing is taken from ``requests`` before it is iterated, and never more than ``concurrency``
        ahead of the results taken: a million of them need no more memory than a hundred.

        Args:
            requests: an iterable or asynchronous iterable of requests: a ``str``, a list of messages,
                or a dict of :meth:`chat_stream`'s keywords with ``messages``, which win over those
                given here. Handlers of a request come after those given here; they find its position
                as ``ctx.index``.
            concurrency: streams at once; no more than ``max_connections``, where that is set.
            ordered: results in the order of the requests; those that come early wait, and count as
                running.
            limiter: requests and tokens a minute, and a pause for all after a 429; see
                :class:`~streamchat.Limiter`. Default: the client's.
            on_error: ``"return"`` a failure as a result, or ``"raise"`` the first and cancel the rest.
            adaptive: after a 429 run half as many, then slowly more again.
            stop: when to take no further request; see :class:`~streamchat.Stop`.
            into: ask for answers of this type, as :meth:`parse` does, and give each as the result's
                ``value``. An answer that does not fit is a failure.
            model, handlers, data, timeout, retry, headers, **options: as for :meth:`chat_stream`, for
                each of the requests.

        Raises:
            TypeError, ValueError: an argument that is unknown or means nothing. What is wrong with a
                single request is its result's ``error``.
        """
        headers = hidden(headers)  # a traceback shows local variables
        from streamchat.fanout import FanOut, FanOutOptions

        read: Callable[[ChatResponse], Any] | None = None
        if into is not None:
            from streamchat.structured import read_answer, response_format

            _check_common(options, "fan_out(into=...)")
            read = partial(read_answer, into=into)
            options = {**options, "response_format": response_format(into)}
        # Now, and not once for each of the requests.
        _make_tools(options)
        ChatRequest.build("-", model or self._model or "-", options)
        _instance("timeout", timeout, Timeout, self._timeout)
        _instance("retry", retry, Retry, self._retry)
        checked_headers(headers)
        given = as_dispatchers(handlers)
        most = self._transport.max_connections
        chosen = FanOutOptions(
            concurrency=concurrency,
            is_ordered=ordered,
            limiter=_checked_limiter(limiter) or self._limiter,
            on_error=on_error,
            is_adaptive=adaptive,
            data=data,
            stop=stop,
            read=read,
        )
        if most:
            chosen = attrs.evolve(chosen, concurrency=min(concurrency, most))
        common: dict[str, Any] = {
            "model": model,
            "data": data,
            "timeout": timeout,
            "retry": retry,
            "headers": headers,
            "max_answer_bytes": max_answer_bytes,
            **options,
        }

        def start(keywords: Mapping[str, Any], /, *, index: int, pacer: Pacer | None) -> ChatStream:
            merged = {**common, **keywords}
            own = as_dispatchers(merged.pop("handlers", ()))
            messages = merged.pop("messages")
            if "limiter" in keywords:
                raise TypeError("limiter= is of the whole fan-out, not of one request")
            if into is not None:
                from streamchat.structured import asking_for_json

                _check_common(keywords, "a request of fan_out(into=...)")
                messages = asking_for_json(plain_messages(messages))
            merged["headers"] = hidden(merged["headers"])
            return self._stream(
                messages, handlers=(*given, *own), index=index, pacer=pacer, **merged
            )

        return FanOut(start, requests, chosen)

    def run_tools(
        self,
        messages: Messages,
        *,
        tools: Sequence[FunctionTool[..., Any] | Callable[..., Any]],
        max_steps: int = 8,
        max_calls: int = 128,
        parallel: int = 4,
        tool_timeout: float | None = None,
        on_tool_error: OnToolError = "report",
        approve: Approve | None = None,
        strict_tools: bool | None = None,
        tool_choice: str | None = None,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        max_answer_bytes: int | None = None,
        **options: Unpack[CommonOptions],
    ) -> ToolRun:
        """Ask, call the tools that the model wants, tell it their results, until it answers.

        Nothing is sent before the run is iterated or awaited.

        Args:
            messages: as for :meth:`chat_stream`; with ``run.messages`` a conversation goes on.
            tools: functions, made by :func:`streamchat.tool` or to be made tools here.
            max_steps: requests at most.
            max_calls: tool calls at most, those of all steps together: one answer may ask for
                thousands. Beyond, none of that answer's calls is run.
            parallel: tools that run at once.
            tool_timeout: seconds for a call of a tool without a limit of its own; none by default.
            on_tool_error: ``"report"`` a tool's exception to the model, ``"raise"`` it, or a function
                ``(error, call)`` that says what the model is told.
            approve: a function ``(call)`` or ``(call, ctx)`` that is asked before a tool runs, about
                one call at a time, in the order of the calls. ``True`` runs the tool; ``False``, or a
                text that says why not, is told to the model as a
                :class:`~streamchat.ToolRefusedError`; an exception ends the run. It is async, or plain
                (then it runs in a thread, so that ``input()`` does not block the event loop). Unknown
                tools and arguments that do not fit are not asked about.
            strict_tools: the server's own check (beta).
            tool_choice: ``"REQUIRED"`` is sent with the first request only.
            model, handlers, data, timeout, retry, headers, limiter, max_answer_bytes, **options: as for
                :meth:`chat_stream`, for each of the requests.

        Raises:
            ConfigurationError, TypeError, ValueError: as :meth:`chat_stream`, and for a tool that
                cannot be one.
        """
        headers = hidden(headers)  # a traceback shows local variables
        from streamchat.approval import Approval
        from streamchat.toolrun import ToolOptions, ToolRun
        from streamchat.tools import as_tools

        check_names(options)
        _check_common(options, "run_tools()")
        named = as_tools(tools)
        chosen = ToolOptions(
            max_steps=max_steps,
            max_calls=max_calls,
            parallel=parallel,
            tool_timeout=tool_timeout,
            on_tool_error=on_tool_error,
            approval=None if approve is None else Approval(approve),
        )
        given = as_dispatchers(handlers)

        def start(
            messages: Sequence[AnyMessage],
            /,
            *,
            tool_choice: str | None,
            handlers: Iterable[Dispatcher],
        ) -> ChatStream:
            return self.chat_stream(
                messages,
                tools=list(named.values()),
                strict_tools=strict_tools,
                tool_choice=tool_choice,
                model=model,
                handlers=(*given, *handlers),
                data=data,
                timeout=timeout,
                retry=retry,
                headers=headers,
                limiter=limiter,
                max_answer_bytes=max_answer_bytes,
                **options,
            )

        return ToolRun(
            start,
            cast("Sequence[AnyMessage]", messages),
            named,
            chosen,
            tool_choice=tool_choice,
            dispatchers=(self._dispatcher, *given),
            data=data,
        )

    def parse(
        self,
        messages: Messages,
        *,
        into: type[T],
        repair: bool = False,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        max_answer_bytes: int | None = None,
        **options: Unpack[CommonOptions],
    ) -> ParsedAnswer[T]:
        """An answer as a value of a type: ``order = await client.parse("...", into=Order)``.

        The type's JSON Schema is sent as ``response_format``. If no message says JSON, a system line
        does, because a model may otherwise write on until its tokens are used up.

        Args:
            messages: as for :meth:`chat_stream`.
            into: an attrs class, a dataclass, a ``TypedDict``, a ``NamedTuple``, a ``msgspec.Struct`` or a
                pydantic class, nested at will.
            repair: if the answer does not fit, tell the model why and ask once more.
            model, handlers, data, timeout, retry, headers, limiter, max_answer_bytes, **options: as for
                :meth:`chat_stream`; ``documents`` cannot go with it.

        Raises:
            ConfigurationError, TypeError, ValueError: as :meth:`chat_stream`, and for a type that JSON
                cannot hold.
        """
        headers = hidden(headers)  # a traceback shows local variables
        from streamchat.structured import ParsedAnswer, asking_for_json, response_format

        check_names(options)
        _check_common(options, "parse()")
        format_ = response_format(into)
        given = as_dispatchers(handlers)

        def start(
            messages: Sequence[AnyMessage],
            /,
            *,
            first: Dispatcher,
            handlers: Iterable[Dispatcher],
        ) -> ChatStream:
            return self.chat_stream(
                messages,
                response_format=format_,
                model=model,
                handlers=(first, *given, *handlers),
                data=data,
                timeout=timeout,
                retry=retry,
                headers=headers,
                limiter=limiter,
                max_answer_bytes=max_answer_bytes,
                **options,
            )

        return ParsedAnswer(
            start,
            asking_for_json(plain_messages(messages)),
            into,
            repair=repair,
            dispatchers=(self._dispatcher, *given),
            data=data,
        )

    def middleware(self, function: M) -> M:
        """Put a function around every request of this client, ``run_tools`` and ``parse`` included.

        It takes the request and what sends it on, and returns the stream, of which nothing has been
        sent yet::

            @client.middleware
            def stay_short(request: ChatRequest, send: Send) -> ChatStream:
                stream = send(attrs.evolve(request, max_tokens=500), headers={"X-Trace": trace_id()})
                stream.on_message_end(count_tokens)
                return stream

        The first that is registered is the outermost. It is a plain function: nothing is awaited
        before a stream is consumed.

        Raises:
            TypeError: at registration, if it is async or takes other parameters.
        """
        checked_middleware(function)
        new: Middleware = function
        put_or_replace(
            self._middleware, new, lambda old: is_defined_again(old, new), "middleware", new
        )
        self._make = chain(self._middleware)
        return function

    @property
    def base_url(self) -> str:
        """Where requests go, without ``/v2/chat``."""
        return self._base_url

    def include(self, other: Dispatcher | Handler) -> None:
        """Let these handlers hear every stream of this client, after those registered so far."""
        self._dispatcher.include(other)

    def remove(self, registered: Callable[..., Any] | Dispatcher | Handler) -> None:
        """Take back a handler function, middleware, or an included dispatcher or handler.

        See :meth:`Dispatcher.remove`. Streams that have begun to hand out events keep it.

        Raises:
            ValueError: it is not registered with this client.
        """
        if registered in self._middleware:
            self._middleware = [each for each in self._middleware if each != registered]
            self._make = chain(self._middleware)
        else:
            self._dispatcher.remove(registered)

    def add(self, registration: Registration) -> None:
        """Register for every stream of this client; the decorators call it."""
        self._dispatcher.add(registration)

    def _stream(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        max_answer_bytes: int | None = None,
        index: int | None = None,
        pacer: Pacer | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        headers = hidden(headers)  # first: a traceback shows local variables
        chosen = model if model is not None else self._model
        if chosen is None:
            raise ConfigurationError(
                f"no model: pass model= here or to Client(), for example {DEFAULT_MODEL}"
            )
        if self._extra_body is not None:
            options["extra_body"] = _merged_body(self._extra_body, options.get("extra_body"))
        _make_tools(options)
        request = ChatRequest.build(messages, chosen, options)
        headers = checked_headers(headers)
        limiter = _checked_limiter(limiter) or self._limiter
        if pacer is None and limiter is not None:
            from streamchat.pacing import LimiterTurn

            pacer = LimiterTurn(limiter)
        plan = Plan(
            transport=self._transport,
            request=request,
            headers=merged_headers(self._headers, headers),
            dispatchers=(self._dispatcher, *as_dispatchers(handlers)),
            timeout=_instance("timeout", timeout, Timeout, self._timeout),
            retry=_instance("retry", retry, Retry, self._retry),
            budget=self._budget,
            max_event_bytes=self._max_event_bytes,
            max_answer_bytes=_checked_bytes(max_answer_bytes, self._max_answer_bytes),
            data=data,
            index=index,
            pacer=pacer,
            is_untouched=not self._middleware,
        )
        return self._make(plan)

    async def aclose(self) -> None:
        """Close the connections; streams that still run end with an error. Idempotent."""
        await self._transport.aclose()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Client base_url={self._base_url!r} model={self._model!r}>"

    def __del__(self) -> None:
        transport: Transport | None = getattr(self, "_transport", None)
        if transport is not None and transport.is_open:
            warnings.warn(
                f"{self!r} was dropped open; use `async with`, or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )


def _make_tools(options: ChatOptions) -> None:
    """Replace functions in ``tools=`` by tools."""
    tools = options.get("tools")
    if is_list(tools) and any(callable(each) for each in tools):
        from streamchat.tools import as_definitions

        options["tools"] = as_definitions(tools)


def _checked_bytes(value: int | None, default: int = MAX_ANSWER_BYTES) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_answer_bytes must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"max_answer_bytes must be at least 1, not {value}")
    return value


def _checked_limiter(limiter: Limiter | None) -> Limiter | None:
    if limiter is None:
        return None
    from streamchat.limiter import Limiter

    if not isinstance(limiter, Limiter):
        raise TypeError(
            f"limiter must be a Limiter, not {type(limiter).__name__}: limiter=Limiter(rpm=500)"
        )
    return limiter


def _check_ssl(ssl: SslContext | bool, *, insecure_tls: bool) -> None:
    """Refuse what is no context, or one that does not check, unless that is wanted.

    Raises:
        ConfigurationError: the message says which.
    """
    if ssl is True:
        return
    if not isinstance(ssl, SslContext):
        raise ConfigurationError("ssl must be an ssl.SSLContext; it cannot be switched off")
    if not insecure_tls:
        _check_context(ssl)


def _check_context(context: SslContext) -> None:
    """Refuse a context with which anybody in between could read the key.

    Raises:
        ConfigurationError: it does not check the certificate, or not the host's name.
    """
    if context.verify_mode is CERT_NONE:
        problem = "does not check the server's certificate (verify_mode is CERT_NONE)"
    elif not context.check_hostname:
        problem = "does not check that the certificate is the host's (check_hostname is False)"
    else:
        return
    raise ConfigurationError(
        f"the ssl.SSLContext {problem}: the key and the prompts could be read on the way; trust your "
        "own authority with ssl.create_default_context(cafile=...), or pass insecure_tls=True"
    )


def _checked_query(query: Mapping[Any, Any] | None) -> Mapping[str, str]:
    """A copy of the query parameters.

    Raises:
        TypeError: not a mapping of ``str`` to ``str``.
        ValueError: a parameter without a name, or text that is not Unicode.
    """
    if query is None:
        return {}
    if not is_mapping(query):
        raise TypeError(f"query must be a dict of str to str, not {type(query).__name__}")
    parameters: dict[str, str] = {}
    for name, value in query.items():
        if not isinstance(name, str):
            raise TypeError(f"query must have str names, not {type(name).__name__}")
        if not name:
            raise ValueError("query has a parameter without a name")
        if not isinstance(value, str):
            raise TypeError(f"query[{name!r}] must be a str, not {type(value).__name__}")
        if repair_surrogates(name + value) != name + value:
            raise ValueError(f"query[{name!r}] holds a lone surrogate, which is not text")
        parameters[name] = value
    return parameters


def _merged_body(common: Mapping[str, Any], own: Any) -> Any:
    """The client's extra fields with those of a call over them."""
    return {**common, **(checked_extra_body(own) or {})}


def _check_common(options: Mapping[str, Any], call: str) -> None:
    """Refuse what the call sets itself, or does without."""
    for name in options:
        if name in ChatOptions.__annotations__ and name not in CommonOptions.__annotations__:
            raise TypeError(f"{call} takes no {name}")


def _instance(name: str, value: Any, cls: type[Any], default: Any) -> Any:
    if value is None:
        return default
    if not isinstance(value, cls):
        example = {"timeout": "Timeout(total=30)", "retry": "Retry(attempts=5)"}[name]
        if cls is Timeout and type(value) in (int, float):
            example = f"Timeout(total={value})"
        raise TypeError(
            f"{name} must be a {cls.__name__}, not {type(value).__name__}: {name}={example}"
        )
    return value


def _request_headers(
    key: Secret | None, client_name: str | None, extra: Mapping[str, str]
) -> Mapping[str, str]:
    """Headers of every request of this client, over which those of the caller go."""
    headers = {
        "Accept": "text/event-stream",
        # Nothing to gain for small events, and a cut gzip stream ends without an error.
        "Accept-Encoding": "identity",
        "Cache-Control": "no-cache",
        "Content-Type": "application/json",
        "User-Agent": f"streamchat/{__version__}",
    }
    if client_name:
        headers |= checked_headers({"X-Client-Name": client_name})
    if key is not None:
        headers["Authorization"] = "Bearer " + key
    return merged_headers(headers, extra)


def _checked_base_url(base_url: str, *, allow_http: bool) -> str:
    """The base URL without a trailing slash.

    Raises:
        ConfigurationError: no http(s) URL with a host that can exist, user or password in it, a query,
            or plain http to another machine. The message does not repeat the URL: it may hold a secret.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, not {type(base_url).__name__}")
    base_url = veiled(base_url.strip())  # files and .env leave a line end
    if any(c in "\t\r\n" for c in base_url):  # urlsplit() would leave them out, aiohttp not
        raise ConfigurationError("base_url (CO_API_URL) must not hold a tab or a line end")
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    scheme, has_more = parts.scheme, bool(parts.query or parts.fragment)
    has_user = parts.username is not None or parts.password is not None
    del parts  # a traceback shows local variables
    if scheme not in ("http", "https") or not host:
        raise ConfigurationError("base_url (CO_API_URL) must look like https://host/path")
    if has_user:
        raise ConfigurationError("base_url (CO_API_URL) must not hold a user name or password")
    if has_more:
        raise ConfigurationError("base_url must not hold a query or a fragment")
    if (wrong := _wrong_with_host(host)) is not None:
        raise ConfigurationError(f"base_url (CO_API_URL) must name a host that can exist: {wrong}")
    if _is_disguised_address(host):
        raise ConfigurationError("base_url must name its host, not a number")
    if scheme == "http" and host not in LOOPBACK and not allow_http:
        raise ConfigurationError(
            f"base_url is plain http to {host}: the key and the prompts could be read on the way; "
            "use https, or pass allow_http=True"
        )
    url = base_url.rstrip("/")
    if url.endswith("/v2/chat"):
        raise ConfigurationError(
            "base_url (CO_API_URL) must not hold /v2/chat: that is added to it"
        )
    # Settings written for another SDK may name the version.
    if _is_cohere(url):
        url = url.removesuffix("/v1")
    return url.removesuffix("/v2").rstrip("/")


def _wrong_with_host(host: str) -> str | None:
    """Why a host name cannot exist (RFC 1035 2.3.4); None if it can, or is an IPv6 address."""
    if ":" in host:
        return None
    if _NOT_IN_HOSTS.search(host):
        return "a character in it is in no host name"
    # In octets as sent: RFC 3492 for other letters than ASCII, and their full stops are dots.
    labels = _DOTS.split(unicodedata.normalize("NFKC", host).lower())
    if labels[-1] == "" and len(labels) > 1:
        del labels[-1]  # the dot of the root
    # IDNA leaves out letters that mean nothing (RFC 3454 B.1), perhaps all of a label.
    labels = ["".join(c for c in label if not in_table_b1(c)) for label in labels]
    sizes = [
        len(label) if label.isascii() else len(b"xn--" + label.encode("punycode"))
        for label in labels
    ]
    if 0 in sizes:
        return "between two dots, or before the first, is nothing"
    if max(sizes) > 63:
        return f"a label of it is {max(sizes)} octets long, and 63 is the limit"
    total = sum(sizes) + len(sizes) - 1
    return f"it is {total} octets long, and 253 is the limit" if total > 253 else None


_DOTS = re.compile("[.\u3002]")
_NOT_IN_HOSTS = re.compile(r"[\x00-\x20\x7f\s#%*/<>?@\[\\\]^|]")
"""The forbidden code points of the URL standard (4.3, "forbidden domain code point"), and ``*``."""


def _is_disguised_address(host: str) -> bool:
    """Whether a resolver would read it as an IPv4 address although it is not written as one: a
    number, hexadecimal, octal or with parts left out"""
    last = unicodedata.normalize("NFKC", host).rstrip(".").rpartition(".")[2]
    if not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", last, re.ASCII):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _is_cohere(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return any(host == own or host.endswith(f".{own}") for own in _COHERE_HOSTS)
