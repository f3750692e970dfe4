"""Secrets: canaries are given to clients, everything goes wrong, and everything visible is searched.

The canaries are globals and never local variables of the tests, because tracebacks with locals are
searched too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import pickle
import ssl
import sys
import traceback
import warnings
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp

from streamchat import ChatStream, Client, Dispatcher, Event, Retry, Timeout
from tests.resources.far import ROOT, WISHES, Far, far_side

KEY = "canary-key-4f1d0c"
PROXY_PASSWORD = "canary-proxy-9a7e"
HEADER = "canary-header-2b6c"
NEEDLES = (
    KEY,
    PROXY_PASSWORD,
    HEADER,
    b64encode(f"user:{PROXY_PASSWORD}".encode()).decode(),
    b64encode(f"Bearer {KEY}".encode()).decode().rstrip("="),
)
TIGHT = Timeout(connect=0.3, first_event=0.15, idle=0.1, total=2.0)
TWICE = Retry(attempts=2, base=0.001, cap=0.002)
ENDLESS = {"trickle", "flood", "pings", "silent", "stall", "early_hints"}


class Search:
    """Looks for canaries, and counts where."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def text(self, place: str, text: str | bytes) -> None:
        """One visible thing."""
        shown = text.decode("latin-1") if isinstance(text, bytes) else text
        self.places[place.partition(":")[0]] += 1
        for needle in NEEDLES:
            position = shown.find(needle)
            if position >= 0:
                self.hits[place] += 1
                start = max(0, position - 90)
                self.examples.setdefault(place, shown[start : position + len(needle) + 20])

    def thing(self, place: str, thing: object) -> None:
        """What an object shows of itself: ``str``, ``repr``, ``format``, attributes, pickles."""
        self.text(f"str: {place}", str(thing))
        self.text(f"repr: {place}", repr(thing))
        self.text(f"format: {place}", f"{thing}")
        self.text(f"attributes: {place}", repr(getattr(thing, "__dict__", "")))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            try:
                self.text(f"pickle: {place}", pickle.dumps(thing, protocol))
            except Exception as refused:
                self.text(f"pickle refused: {place}", repr(refused))

    def error(self, place: str, error: BaseException) -> None:
        """An exception and all that hangs on it."""
        waiting, seen = [error], set[int]()
        while waiting:
            current = waiting.pop()
            if id(current) in seen:
                continue
            seen.add(id(current))
            self.thing(place, current)
            self.text(f"args: {place}", repr(current.args))
            self.text(f"notes: {place}", repr(getattr(current, "__notes__", ())))
            waiting += [
                linked for linked in (current.__cause__, current.__context__) if linked is not None
            ]
            waiting += getattr(current, "exceptions", ())
        self.text(f"chained: {place}", str(len(seen)))
        for locals_too in (False, True):
            report = traceback.TracebackException.from_exception(error, capture_locals=locals_too)
            kind = "traceback with locals" if locals_too else "traceback"
            self.text(f"{kind}: {place}", "".join(report.format(chain=True)))
        printed = io.StringIO()
        traceback.print_exception(error, file=printed)
        self.text(f"printed: {place}", printed.getvalue())


class Records(logging.Handler):
    """Every record of every logger."""

    def __init__(self, search: Search) -> None:
        super().__init__(logging.DEBUG)
        self.search = search

    def emit(self, record: logging.LogRecord) -> None:
        self.search.text(f"log: {record.name}", record.getMessage())
        self.search.text(f"log: {record.name}", repr(record.__dict__))
        self.search.text(f"log: {record.name}", logging.Formatter().format(record))


def client_of(far: Far, **options: Any) -> Client:
    """A client that knows all canaries but the proxy's."""
    usual: dict[str, Any] = {"base_url": far.url, "timeout": TIGHT, "retry": TWICE, "ssl": far.ssl}
    options = usual | options
    return Client(KEY, model="command-test", headers={"x-secret": HEADER}, **options)


def through_proxy(far: Far, base_url: str) -> Client:
    """The same through a proxy with a password."""
    return Client(
        KEY,
        model="command-test",
        base_url=base_url,
        proxy=f"http://user:{PROXY_PASSWORD}@{far.url.partition('//')[2]}",
        allow_http=True,
        timeout=TIGHT,
        retry=TWICE,
    )


async def _outcome(search: Search, place: str, stream: ChatStream, how: str = "await") -> None:
    """Consume a stream and search all it shows, before, meanwhile and after."""
    search.thing(place, stream)
    try:
        if how == "frames":
            async for _ in stream.frames():
                pass
        elif how == "enter":
            async with stream:
                search.thing(place, stream)
                async for _ in stream.text():
                    pass
        else:
            await stream
    except BaseException as error:
        search.error(place, error)
    search.thing(place, stream)
    search.thing(f"{place} request", stream.request)
    search.thing(f"{place} snapshot", stream.snapshot)
    search.text(f"headers: {place}", repr(dict(stream.headers)))
    try:
        await stream  # says again how it ended
    except BaseException as error:
        search.error(f"{place}, asked again", error)


async def _every_fault(search: Search, far: Far) -> None:
    """Whatever the other side can do, and every way to read it."""
    async with client_of(far) as client:
        search.thing("client", client)
        search.text("attributes: client", repr(vars(client)))
        for wish in WISHES:
            waits: dict[str, Any] = {"retry": Retry(attempts=1)} if wish in ENDLESS else {}
            hows = ("await", "enter", "frames") if wish not in ENDLESS else ("await",)
            for how in hows:
                timeout = Timeout(total=0.15) if wish == "flood" else TIGHT
                headers = {"x-do": wish}
                stream = client.chat_stream("Hi", headers=headers, timeout=timeout, **waits)
                await _outcome(search, f"{wish} ({how})", stream, how)
        await _handlers(search, client)
        await _arguments(search, client)
        closing = asyncio.ensure_future(
            _outcome(
                search, "closed meanwhile", client.chat_stream("Hi", headers={"x-do": "stall"})
            )
        )
        await asyncio.sleep(0.03)
    await closing
    await _cancellations(search, far)
    await _outcome(search, "closed client", client.chat_stream("Hi"))
    search.thing("closed client", client)


async def _cancellations(search: Search, far: Far) -> None:
    client = client_of(far, timeout=None, retry=Retry(attempts=5, base=30, cap=30))
    for name, wish in (("open", "silent"), ("read", "trickle"), ("backoff", "status_503")):
        stream = client.chat_stream("Hi", headers={"x-do": wish})
        task = asyncio.ensure_future(_run(stream))
        await asyncio.sleep(0.05)
        search.text("task", repr(task))
        printed = io.StringIO()
        task.print_stack(file=printed)
        search.text("task stack", printed.getvalue())
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            search.error(f"cancelled in {name}", error)
        search.thing(f"cancelled in {name}", stream)
    await client.aclose()


async def _run(stream: ChatStream) -> None:
    await stream


async def _handlers(search: Search, client: Client) -> None:
    for error in (
        ValueError("handler"),
        asyncio.CancelledError(),
        StopAsyncIteration(),
        OSError(5),
    ):
        handlers = Dispatcher()

        def fail(event: Event, error: BaseException = error) -> None:
            raise error

        handlers.on_event(fail)
        handlers.on_error(Exception)(lambda error: search.error("on_error", error))
        stream = client.chat_stream("Hi", handlers=[handlers], headers={"x-do": "whole"})
        await _outcome(search, f"handler raised {type(error).__name__}", stream)


async def _arguments(search: Search, client: Client) -> None:
    """Calls that fail at once, with a secret among their arguments."""
    calls: dict[str, Callable[[], Any]] = {
        "header with a line end": lambda: client.chat_stream("Hi", headers={"x": f"{HEADER}\r\n"}),
        "header name": lambda: client.chat_stream("Hi", headers={"x y": HEADER}),
        "header of bytes": lambda: client.chat_stream("Hi", headers={"x": HEADER.encode()}),  # type: ignore[dict-item]
        "headers as pairs": lambda: client.chat_stream("Hi", headers=[("x", HEADER)]),  # type: ignore[arg-type]
        "unknown option": lambda: client.chat_stream("Hi", headers={"x": HEADER}, colour=1),  # type: ignore[call-arg]
        "bad message": lambda: client.chat_stream([{"role": 1}], headers={"x": HEADER}),
        "bad timeout": lambda: client.chat_stream("Hi", headers={"x": HEADER}, timeout=3),  # type: ignore[arg-type]
        "key with a space": lambda: Client(f"{KEY} x"),
        "key of bytes": lambda: Client(KEY.encode()),  # type: ignore[arg-type]
        "key too long": lambda: Client(KEY * 500),
        "client header": lambda: Client(KEY, headers={"x": f"{HEADER}\0"}),
        "client headers as pairs": lambda: Client(KEY, headers=[("x", HEADER)]),  # type: ignore[arg-type]
        "client header of bytes": lambda: Client(KEY, headers={"x": HEADER.encode()}),  # type: ignore[dict-item]
        "client name": lambda: Client(KEY, client_name="a\nb"),
        "bad ssl": lambda: Client(KEY, ssl=False),
        "bad retry": lambda: Client(KEY, headers={"x": HEADER}, retry=3),  # type: ignore[arg-type]
        "bad limit": lambda: Client(KEY, headers={"x": HEADER}, max_connections=0),
        "plain http": lambda: Client(KEY, base_url="http://elsewhere.example"),
        "password in base_url": lambda: Client(
            KEY, base_url=f"https://user:{PROXY_PASSWORD}@a.example"
        ),
        "query in base_url": lambda: Client(KEY, base_url=f"https://a.example/?key={HEADER}"),
        "base_url without scheme": lambda: Client(KEY, base_url=f"user:{PROXY_PASSWORD}@a.example"),
        "base_url with a bad port": lambda: Client(
            KEY, base_url=f"https://u:{PROXY_PASSWORD}@a.example:x"
        ),
        "SOCKS proxy": lambda: Client(KEY, proxy=f"socks5://user:{PROXY_PASSWORD}@a.example"),
        "proxy with a bad port": lambda: Client(
            KEY, proxy=f"http://user:{PROXY_PASSWORD}@a.example:x"
        ),
        "proxy without host": lambda: Client(KEY, proxy=f"http://user:{PROXY_PASSWORD}@"),
        "no model": lambda: Client(KEY, headers={"x": HEADER}).chat_stream("Hi"),
        "unknown client option": lambda: Client(KEY, headers={"x": HEADER}, colour=1),  # type: ignore[call-arg]
    }
    for place, call in calls.items():
        try:
            call()
        except Exception as error:
            search.error(place, error)
        else:
            search.text(f"no error: {place}", "")
        try:
            await client.chat("Hi", headers={"x": HEADER}, colour=1)  # type: ignore[call-arg]
        except TypeError as error:
            search.error("chat with an unknown option", error)


async def _connections(search: Search, far: Far) -> None:
    """Failures before a connection stands."""
    with far_side(tls=True) as secure:
        places = {
            "DNS": client_of(far, base_url="https://no-such-host.invalid", ssl=True),
            "refused": client_of(far, base_url="http://127.0.0.1:9"),
            "TLS untrusted": client_of(far, base_url=secure.url, ssl=True),
            "TLS wrong host": client_of(far, base_url=secure.url.replace("127.0.0.1", "localhost")),
            "TLS to a plain port": client_of(
                far, base_url=far.url.replace("http", "https"), ssl=ssl.create_default_context()
            ),
            "plain to a TLS port": client_of(far, base_url=secure.url.replace("https", "http")),
            "proxy 407": through_proxy(far, "https://status-407.example"),
            "proxy 502": through_proxy(far, "https://status-502.example"),
            "proxy 200 and silence": through_proxy(far, "https://status-200.example"),
            "plain through a proxy": through_proxy(far, "http://plain.example/do/status_407"),
            "cut through a proxy": through_proxy(far, "http://plain.example/do/cut"),
        }
        for place, client in places.items():
            search.thing(place, client)
            search.text(f"attributes: {place}", repr(vars(client._transport)))
            async with client:
                for how in ("await", "enter"):
                    await _outcome(search, place, client.chat_stream("Hi"), how)
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b")) as session:
        client = client_of(far, session=session, ssl=True)
        await _outcome(search, "session with auth", client.chat_stream("Hi"))
        await client.aclose()


async def _dropped(search: Search, far: Far) -> None:
    """Warnings of what was dropped open."""
    client = client_of(far)
    stream = client.chat_stream("Hi", headers={"x-do": "trickle"})
    await stream.__aenter__()
    del stream
    gc.collect()
    await asyncio.sleep(0)
    another = client_of(far)
    await another.chat("Hi")
    keepers = another._transport._keepers.copy()
    del another
    gc.collect()
    for keeper in keepers.values():
        await keeper.aclose()
    await client.aclose()


CLI_WISHES = (
    "whole",
    "status_401",
    "status_400",
    "cut",
    "reset_headers",
    "binary",
    "no_json",
    "html",
)


async def _command(search: Search, far: Far) -> None:
    """The command line, as a user runs it."""
    gate = asyncio.Semaphore(2)

    async def run(place: str, more: dict[str, str], *arguments: str) -> None:
        async with gate:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-X", "dev", "-m", "streamchat", "chat", "Hi", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "CO_API_KEY": KEY, "PYTHONASYNCIODEBUG": "1", **more},
                cwd=ROOT,
            )
            out, err = await process.communicate()
        search.text(f"command's stdout: {place}", out)
        search.text(f"command's stderr: {place}", err)

    await asyncio.gather(
        *(run(wish, {"CO_API_URL": f"{far.url}/do/{wish}"}) for wish in CLI_WISHES),
        run("as JSON", {"CO_API_URL": f"{far.url}/do/cut"}, "--json"),
        run("refused", {"CO_API_URL": "http://127.0.0.1:9"}),
        run("wrong option", {}, "--no-such-option"),
        run("bad key", {"CO_API_KEY": f"{KEY} x", "CO_API_URL": far.url}),
        run("password in the URL", {"CO_API_URL": f"https://u:{PROXY_PASSWORD}@a.example"}),
        run(
            "proxy 407",
            {
                "CO_API_URL": "https://status-407.example",
                "HTTPS_PROXY": f"http://user:{PROXY_PASSWORD}@{far.url.partition('//')[2]}",
            },
        ),
        run("SOCKS", {"HTTPS_PROXY": f"socks5://user:{PROXY_PASSWORD}@a.example"}),
    )


async def secrets(far: Far, rounds: int) -> dict[str, Any]:
    """Search everything; ``hits`` must be empty."""
    search, loop = Search(), asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # logs every callback with its arguments
    records = Records(search)
    logging.getLogger().addHandler(records)
    logging.getLogger().setLevel(logging.DEBUG)
    loop.set_exception_handler(lambda _, context: search.text("loop's complaint", repr(context)))

    def unraisable(event: Any) -> None:
        search.text("unraisable", f"{event.err_msg} {event.object!r}")
        search.error("unraisable", event.exc_value)

    def warned(message: object, category: object, *where: object, **more: object) -> None:
        search.text("warning", f"{message} {category} {where} {more}")
        search.text("warning", repr(vars(message)) if hasattr(message, "__dict__") else "")

    sys.unraisablehook = unraisable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
        warnings.simplefilter("always")
        warnings.showwarning = warned
        with contextlib.redirect_stderr(io.StringIO()) as err:
            for _ in range(rounds):
                await _every_fault(search, far)
                await _connections(search, far)
                await _dropped(search, far)
                gc.collect()
            await _command(search, far)
    loop.set_debug(False)
    logging.getLogger().removeHandler(records)
    search.text("stdout", out.getvalue())
    search.text("stderr", err.getvalue())
    echo = Search()
    async with client_of(far) as client:
        stream = client.chat_stream("Hi", headers={"x-do": "echo"})
        await _outcome(echo, "a server that repeats the key", stream)
    return {
        "places searched": sum(search.places.values()),
        "by kind": dict(search.places.most_common()),
        "hits": dict(search.hits),
        "examples": search.examples,
        "hits when the server repeats the key": sum(echo.hits.values()),
    }
