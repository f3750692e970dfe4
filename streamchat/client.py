"""``Client``: settings, connections and handlers for many streams."""

from __future__ import annotations

import ipaddress
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast
from urllib.parse import urlsplit

import attrs

from streamchat._version import __version__
from streamchat.credentials import (
    Secret,
    checked_headers,
    checked_key,
    hidden,
    merged_headers,
    veiled,
)
from streamchat.dispatcher import Dispatcher, Handler, Listeners, as_dispatchers
from streamchat.middleware import Middleware, chain, checked_middleware
from streamchat.plan import Pacer, Plan
from streamchat.policy import Retry, RetryBudget, Timeout
from streamchat.protocol.errors import ConfigurationError
from streamchat.protocol.request import (
    AnyMessage,
    ChatOptions,
    ChatRequest,
    CommonOptions,
    Messages,
    plain_messages,
)
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES
from streamchat.routes import Registration
from streamchat.stream import ChatStream
from streamchat.transport import LOOPBACK, Session, SslContext, Transport

if TYPE_CHECKING:  # imported by the methods that need them: see streamchat/__init__.py
    from streamchat.fanout import FanOut, OnError, Requests
    from streamchat.limiter import Limiter
    from streamchat.structured import ParsedAnswer
    from streamchat.tools import FunctionTool, OnToolError, ToolRun

__all__ = ["Client"]

M = TypeVar("M", bound=Middleware)
T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.cohere.com"
_COHERE_HOSTS = ("cohere.com", "cohere.ai")


class Client(Listeners):
    """A client for Cohere's Chat v2 API.

    Args:
        api_key: ``None`` reads ``CO_API_KEY``; an empty one sends no ``Authorization``, for private
            deployments.
        base_url: ``None`` reads ``CO_API_URL``, then ``https://api.cohere.com``; a path is kept.
        model: for requests that name none.
        timeout: limits in seconds; see :class:`~streamchat.Timeout`.
        retry: tries until the first event; see :class:`~streamchat.Retry`.
        session: an ``aiohttp.ClientSession`` of your own; it is used as it is and never closed.
        max_connections: at most so many connections at once; ``None``, the default, is no limit.
        headers: sent with each request, over the client's own.
        client_name: the name of your project, sent as ``X-Client-Name``.
        proxy: a proxy's URL; ``None`` reads the proxy variables of the environment, never netrc.
        ssl: an ``ssl.SSLContext``; the system's certificates by default.
        max_event_bytes: the largest event, 16 MiB by default; a citation repeats its document.
        allow_http: allow plain http to other hosts than this machine.

    Raises:
        ConfigurationError: no key for Cohere's own host, or a setting that cannot work; the message
            says what to set.

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
        proxy: str | None = None,
        ssl: SslContext | bool = True,
        max_event_bytes: int = DEFAULT_MAX_BYTES,
        allow_http: bool = False,
    ) -> None:
        # Wrapped before anything can fail, and the argument is overwritten: a traceback shows
        # local variables to whoever collects them.
        self._model, self._base_url = model, ""
        if api_key is not None and not isinstance(api_key, str):
            kind, api_key = type(api_key).__name__, None  # type: ignore[unreachable]
            raise TypeError(f"api_key must be a str, not {kind}")
        api_key = Secret(os.environ.get("CO_API_KEY", "") if api_key is None else api_key)
        headers, proxy = hidden(headers), veiled(proxy)
        base_url = veiled(base_url or os.environ.get("CO_API_URL") or DEFAULT_BASE_URL)
        headers = checked_headers(headers)
        key = checked_key(api_key)
        self._base_url = _checked_base_url(base_url, allow_http=allow_http)
        if key is None and _is_cohere(self._base_url):
            raise ConfigurationError(
                "no API key: set the environment variable CO_API_KEY or pass api_key=; "
                "to try without one, run `streamchat serve` and set CO_API_URL as it says"
            )
        if ssl is not True and not isinstance(ssl, SslContext):
            raise ConfigurationError("ssl must be an ssl.SSLContext; it cannot be switched off")
        if max_connections is not None and max_connections < 1:
            raise ValueError("max_connections must be at least 1, or None for no limit")
        if max_event_bytes < 1:
            raise ValueError("max_event_bytes must be at least 1")
        self._timeout = _instance("timeout", timeout, Timeout, Timeout())
        self._retry = _instance("retry", retry, Retry, Retry())
        self._max_event_bytes = max_event_bytes
        self._headers = _request_headers(key, client_name, headers)
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
        on_error: OnError = "return",
        adaptive: bool = False,
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
                :class:`~streamchat.Limiter`.
            on_error: ``"return"`` a failure as a result, or ``"raise"`` the first and cancel the rest.
            adaptive: after a 429 run half as many, then slowly more again.
            model, handlers, data, timeout, retry, headers, **options: as for :meth:`chat_stream`, for
                each of the requests.

        Raises:
            TypeError, ValueError: an argument that means nothing. What is wrong with a single request
                is its result's ``error``.
        """
        headers = hidden(headers)  # a traceback shows local variables
        from streamchat.fanout import FanOut, FanOutOptions

        given = as_dispatchers(handlers)
        most = self._transport.max_connections
        chosen = FanOutOptions(
            concurrency=concurrency,
            is_ordered=ordered,
            limiter=limiter,
            on_error=on_error,
            is_adaptive=adaptive,
            data=data,
        )
        if most:
            chosen = attrs.evolve(chosen, concurrency=min(concurrency, most))
        common: dict[str, Any] = {
            "model": model,
            "data": data,
            "timeout": timeout,
            "retry": retry,
            "headers": headers,
            **options,
        }

        def start(keywords: Mapping[str, Any], /, *, index: int, pacer: Pacer | None) -> ChatStream:
            merged = {**common, **keywords}
            own = as_dispatchers(merged.pop("handlers", ()))
            messages = merged.pop("messages")
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
        strict_tools: bool | None = None,
        tool_choice: str | None = None,
        model: str | None = None,
        handlers: Iterable[Dispatcher | Handler] = (),
        data: Any = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
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
            strict_tools: the server's own check (beta).
            tool_choice: ``"REQUIRED"`` is sent with the first request only.
            model, handlers, data, timeout, retry, headers, **options: as for :meth:`chat_stream`, for
                each of the requests.

        Raises:
            ConfigurationError, TypeError, ValueError: as :meth:`chat_stream`, and for a tool that
                cannot be one.
        """
        headers = hidden(headers)  # a traceback shows local variables
        from streamchat.tools import ToolOptions, ToolRun, as_tools

        _check_common(options, "run_tools")
        named = as_tools(tools)
        chosen = ToolOptions(
            max_steps=max_steps,
            max_calls=max_calls,
            parallel=parallel,
            tool_timeout=tool_timeout,
            on_tool_error=on_tool_error,
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
        **options: Unpack[CommonOptions],
    ) -> ParsedAnswer[T]:
        """An answer as a value of a type: ``order = await client.parse("...", into=Order)``.

        The type's JSON Schema is sent as ``response_format``. If no message says JSON, a system line
        does, because a model may otherwise write on until its tokens are used up (protocol.md 2.6).

        Args:
            messages: as for :meth:`chat_stream`.
            into: an attrs class, a dataclass, a ``TypedDict``, a ``NamedTuple``, a ``msgspec.Struct`` or a
                pydantic class, nested at will.
            repair: if the answer does not fit, tell the model why and ask once more.
            model, handlers, data, timeout, retry, headers, **options: as for :meth:`chat_stream`;
                ``documents`` cannot go with it.

        Raises:
            ConfigurationError, TypeError, ValueError: as :meth:`chat_stream`, and for a type that JSON
                cannot hold.
        """
        headers = hidden(headers)  # a traceback shows local variables
        from streamchat.structured import ParsedAnswer, asking_for_json, response_format

        _check_common(options, "parse")
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
        self._middleware.append(function)
        self._make = chain(self._middleware)
        return function

    @property
    def base_url(self) -> str:
        """Where requests go, without ``/v2/chat``."""
        return self._base_url

    def include(self, other: Dispatcher | Handler) -> None:
        """Let these handlers hear every stream of this client, after those registered so far."""
        self._dispatcher.include(other)

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
        index: int | None = None,
        pacer: Pacer | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        headers = hidden(headers)  # first: a traceback shows local variables
        chosen = model if model is not None else self._model
        if chosen is None:
            raise ConfigurationError(
                "no model: pass model= here or to Client(), for example command-a-03-2025"
            )
        request = ChatRequest.build(messages, chosen, options)
        headers = checked_headers(headers)
        plan = Plan(
            transport=self._transport,
            request=request,
            headers=merged_headers(self._headers, headers),
            dispatchers=(self._dispatcher, *as_dispatchers(handlers)),
            timeout=_instance("timeout", timeout, Timeout, self._timeout),
            retry=_instance("retry", retry, Retry, self._retry),
            budget=self._budget,
            max_event_bytes=self._max_event_bytes,
            data=data,
            index=index,
            pacer=pacer,
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


def _check_common(options: Mapping[str, Any], method: str) -> None:
    """Refuse what the method sets itself, or does without."""
    for name in options:
        if name in ChatOptions.__annotations__ and name not in CommonOptions.__annotations__:
            raise TypeError(f"{method}() takes no {name}")


def _instance(name: str, value: Any, cls: type[Any], default: Any) -> Any:
    if value is None:
        return default
    if not isinstance(value, cls):
        example = {"timeout": "Timeout(total=30)", "retry": "Retry(attempts=5)"}[name]
        raise TypeError(
            f"{name} must be a {cls.__name__}, not {type(value).__name__}: {name}={example}"
        )
    return value


def _request_headers(
    key: Secret | None, client_name: str | None, extra: Mapping[str, str]
) -> Mapping[str, str]:
    """Headers of every request (protocol.md 1.2; faults.md 8)."""
    headers = {
        "Accept": "text/event-stream",
        # Nothing to gain for small events, and a cut gzip stream ends without an error (F60).
        "Accept-Encoding": "identity",
        "Cache-Control": "no-cache",
        "Content-Type": "application/json",
        "User-Agent": f"streamchat/{__version__}",
    }
    if client_name:
        headers |= checked_headers({"X-Client-Name": client_name})
    if key is not None:
        headers["Authorization"] = Secret(f"Bearer {key}")
    return merged_headers(headers, extra)


def _checked_base_url(base_url: str, *, allow_http: bool) -> str:
    """The base URL without a trailing slash.

    Raises:
        ConfigurationError: no http(s) URL with a host, user or password in it, a query, or plain
            http to another machine. The message does not repeat the URL: it may hold a secret.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a str, not {type(base_url).__name__}")
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
    if _is_cohere(url):
        # As the official SDK does: settings written for it may name the version.
        url = url.removesuffix("/v1").removesuffix("/v2")
    return url


def _is_disguised_address(host: str) -> bool:
    """Whether a resolver would read it as an IPv4 address although it is not written as one: a
    number, hexadecimal, octal or with parts left out (faults.md F12)."""
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
