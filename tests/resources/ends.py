"""Every way a stream can end, one function each: what is run to see what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from streamchat import (
    AuthenticationError,
    ChatStream,
    Client,
    ConcurrencyError,
    ContentDelta,
    DecodeError,
    Dispatcher,
    ProtocolError,
    RateLimitError,
    Retry,
    ServerError,
    StatusError,
    StreamChatError,
    StreamTimeoutError,
    Timeout,
    TransportError,
    TruncatedStreamError,
    UnexpectedContentTypeError,
)
from streamchat.policy import RetryBudget

End = Callable[[Client], Awaitable[None]]
ENDS: dict[str, End] = {}
SHORT = 0.06
"""Seconds: the limits of streams that stall."""


class Expected(Exception):
    """What a handler raises here."""


def ask(client: Client, wish: str, **options: Any) -> ChatStream:
    """A stream that gets what it wishes; see ``far``."""
    options.setdefault("retry", Retry(attempts=1))
    if wish == "flood":
        options.setdefault("max_answer_bytes", 1 << 40)  # it ends when the client has had enough
    headers = {"x-do": wish} | options.pop("headers", {})
    return client.chat_stream("Hi", headers=headers, **options)


def end(function: End) -> End:
    ENDS[function.__name__] = function
    return function


def raises(wish: str, error: type[BaseException], **options: Any) -> None:
    """An end that is an error of ours."""

    async def run(client: Client) -> None:
        try:
            await ask(client, wish, **options)
        except error:
            return
        raise AssertionError(f"{wish} did not fail")

    ENDS[wish] = run


AGAIN = Retry(attempts=3, base=0.001, cap=0.002)
raises("cut", TruncatedStreamError)
raises("cut_inside", TruncatedStreamError)
raises("eof", TruncatedStreamError)
raises("reset", TruncatedStreamError)
raises("reset_headers", TransportError, retry=AGAIN)
raises("fin_headers", TransportError, retry=AGAIN)
raises("garbage", StreamChatError)  # in one segment with the headers it is a ProtocolError
raises("stall", StreamTimeoutError, timeout=Timeout(idle=SHORT))
raises("pings", StreamTimeoutError, timeout=Timeout(idle=SHORT))
raises("silent", StreamTimeoutError, timeout=Timeout(first_event=SHORT))
raises("early_hints", StreamTimeoutError, timeout=Timeout(first_event=SHORT))
raises("trickle;pause=0.01", StreamTimeoutError, timeout=Timeout(total=SHORT))
raises("binary", ProtocolError)
raises("no_json", DecodeError)
raises("html", UnexpectedContentTypeError)
raises("redirect", StatusError)
raises("status_401", AuthenticationError)
raises("status_429", RateLimitError)
raises("status_500", ServerError, retry=AGAIN)


@end
async def complete(client: Client) -> None:
    assert (await ask(client, "whole")).text == "one two three four five"


@end
async def complete_and_closed(client: Client) -> None:
    assert (await ask(client, "whole_close")).text == "one two"


@end
async def cancelled(client: Client) -> None:
    task = asyncio.ensure_future(_run(ask(client, "trickle;pause=0.01")))
    await asyncio.sleep(0.03)
    await _cancel(task)


@end
async def cancelled_while_opening(client: Client) -> None:
    task = asyncio.ensure_future(_run(ask(client, "silent")))
    await asyncio.sleep(0.01)
    await _cancel(task)


@end
async def cancelled_at_once(client: Client) -> None:
    task = asyncio.ensure_future(_run(ask(client, "whole")))
    await asyncio.sleep(0)
    await _cancel(task)


@end
async def cancelled_in_backoff(client: Client) -> None:
    client._budget = RetryBudget()  # the ends before may have used it up
    stream = ask(client, "status_503", retry=Retry(attempts=5, base=60, cap=60))
    task = asyncio.ensure_future(_run(stream))
    await asyncio.sleep(0.03)
    await _cancel(task)


@end
async def cancelled_in_a_handler(client: Client) -> None:
    async def wait(event: ContentDelta) -> None:
        await asyncio.sleep(60)

    task = asyncio.ensure_future(_run(ask(client, "whole", handlers=[_deltas(wait)])))
    await asyncio.sleep(0.03)
    await _cancel(task)


@end
async def closed_early(client: Client) -> None:
    async with ask(client, "trickle;pause=0.01") as stream:
        async for _ in stream.text():
            break


@end
async def closed_by_another_task(client: Client) -> None:
    stream = ask(client, "trickle;pause=0.01")
    task = asyncio.ensure_future(_run(stream))
    await asyncio.sleep(0.03)
    await stream.aclose()
    await asyncio.wait([task])
    assert isinstance(task.exception(), TransportError)


@end
async def handler_raised(client: Client) -> None:
    def fail(event: ContentDelta) -> None:
        raise Expected

    try:
        await ask(client, "trickle;pause=0.01", handlers=[_deltas(fail)])
    except Expected:
        return
    raise AssertionError("the handler's exception was lost")


@end
async def two_consumers(client: Client) -> None:
    stream = ask(client, "trickle;pause=0.01")
    async with stream:
        await anext(stream)
        task = asyncio.ensure_future(_run(stream))
        await asyncio.sleep(0)
        with contextlib.suppress(ConcurrencyError):
            for _ in range(100):
                await anext(stream)
            raise AssertionError("two consumers were let in")
        await _cancel(task)


async def _run(stream: ChatStream) -> None:
    await stream


async def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
    raise AssertionError("a cancelled stream ended well")


def _deltas(handler: Callable[[ContentDelta], Any]) -> Dispatcher:
    dispatcher = Dispatcher()
    dispatcher.on_content_delta(handler)
    return dispatcher
