"""A transport in memory: scripted answers, virtual pauses, and a record of what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, cast

from streamchat import ChatStream, Context, Dispatcher, Handler, Retry, Timeout
from streamchat.dispatcher import as_dispatcher
from streamchat.plan import Plan
from streamchat.policy import RetryBudget
from streamchat.protocol.errors import StreamChatError, TransportError
from streamchat.protocol.request import ChatRequest
from streamchat.transport import Transport

Step = bytes | float | TransportError
"""Bytes that arrive, seconds of silence, or the connection's failure."""

__all__ = ["Answer", "Context", "FakeTransport", "Step", "make_stream"]


class Answer:
    """One scripted response; the exchange and its script in one."""

    def __init__(
        self,
        *steps: Step,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        before_headers: float = 0,
    ) -> None:
        self.steps = list(steps)
        self.status = status
        self.headers = {"content-type": "text/event-stream", "x-debug-trace-id": "ab" * 16}
        self.headers |= dict(headers or {})
        self.before_headers = before_headers
        self.bytes_received = 0
        self.closed = False
        self.drained = False
        self._failure: TransportError | None = None
        self._woken: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")

    async def read(self) -> bytes:
        while True:
            if self._failure is not None and not self.steps:
                raise self._failure
            if not self.steps:
                return b""
            step = self.steps.pop(0)
            if isinstance(step, bytes):
                self.bytes_received += len(step)
                return step
            if isinstance(step, TransportError):
                self._failure, self.steps = step, []
                continue
            self._woken = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait([self._woken], timeout=step)
            finally:
                self._woken = None

    async def read_error_body(self) -> bytes:
        return b"".join(step for step in self.steps if isinstance(step, bytes))

    def abort(self, error: TransportError) -> None:
        # What had arrived is read all the same, and what would have come later is not.
        arrived = takewhile(lambda step: isinstance(step, bytes), self.steps)
        self.steps = [] if self._woken is not None else list(arrived)
        self._failure = error
        self.close()
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def drain(self) -> None:
        self.drained = True
        self.close()

    def close(self) -> None:
        self.closed = True


class FakeTransport:
    """Answers in order; an exception in the script is raised instead of an answer."""

    host = "api.test:443"

    def __init__(self, *script: Answer | StreamChatError) -> None:
        self.script = list(script)
        self.requests: list[tuple[Mapping[str, str], bytes]] = []
        self.opened_at: list[float] = []
        self.users: list[Any] = []

    def attach(self, user: Any) -> None:
        self.users = [*self.users, user]

    async def open(
        self,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float | None,
        use: Any = None,
    ) -> Answer:
        self.requests.append((headers, body))
        self.opened_at.append(asyncio.get_running_loop().time())
        answer = self.script.pop(0)
        if isinstance(answer, StreamChatError):
            raise answer
        await asyncio.sleep(answer.before_headers)
        return answer


def make_stream(
    *script: Answer | StreamChatError,
    handlers: Iterable[Dispatcher | Handler] = (),
    data: Any = None,
    timeout: Timeout | None = None,
    retry: Retry | None = None,
    budget: RetryBudget | None = None,
    random: Callable[[], float] = lambda: 1.0,
    transport: FakeTransport | None = None,
    messages: str | Sequence[Mapping[str, Any]] = "Hi",
    headers: Mapping[str, str] | None = None,
) -> ChatStream:
    """A stream over a scripted transport, on the running loop's clock."""
    request = ChatRequest.build(messages, "command-test", {})
    return ChatStream(
        Plan(
            transport=cast(Transport, transport or FakeTransport(*script)),
            request=request,
            headers=headers or {},
            dispatchers=tuple(map(as_dispatcher, handlers)),
            timeout=timeout or Timeout(),
            retry=retry or Retry(),
            budget=budget or RetryBudget(),
            max_event_bytes=1024 * 1024,
            data=data,
            clock=asyncio.get_running_loop().time,
            wall_clock=lambda: 1_700_000_000.0,
            random=random,
        )
    )
