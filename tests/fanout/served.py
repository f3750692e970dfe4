"""A client in memory whose transport answers each request by its prompt, on a virtual clock."""

from __future__ import annotations

import asyncio
import functools
import json
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

import attrs

from streamchat import ChatStream, Client
from streamchat.protocol.errors import StreamChatError, TransportError
from streamchat.transport import Transport
from tests.fakes import Answer
from tests.frames import body, plain
from tests.virtual import run_virtual

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, None]])
Script = Callable[[str, int], Answer | StreamChatError]
"""A prompt and the number of the try, from 1, to what is answered."""


def says(prompt: str, number: int = 1) -> Answer:
    """The prompt again, after a second."""
    return Answer(body(plain(prompt)), before_headers=1.0)


def virtual(test: F) -> F:
    """Run a test on a virtual clock; nothing may be left running."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs))

    return cast(F, run)


class Served:
    """A transport: what is open, what was asked, and when."""

    host = "api.test:443"
    is_open = False

    def __init__(self, script: Script = says, max_connections: int = 0) -> None:
        self.script = script
        self.max_connections = max_connections
        self.tries: Counter[str] = Counter()
        self.opened_at: list[tuple[float, str]] = []
        self.headers: dict[str, Mapping[str, str]] = {}
        self.bodies: dict[str, dict[str, Any]] = {}
        self.answers: list[Answer] = []
        self.opening = 0
        self.most = 0
        """The most that was open at once."""
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()

    def attach(self, user: Any) -> None:
        self.users.add(user)

    @property
    def open_now(self) -> int:
        self.answers = [answer for answer in self.answers if not answer.closed]
        return self.opening + len(self.answers)

    def forget(self) -> None:
        """Forget what was asked."""
        for record in (self.tries, self.opened_at, self.headers, self.bodies):
            record.clear()

    async def open(
        self,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float | None,
        use: Any = None,
    ) -> Answer:
        asked = json.loads(body)
        prompt = str(asked["messages"][-1]["content"])
        self.bodies[prompt] = asked
        self.tries[prompt] += 1
        self.opened_at.append((asyncio.get_running_loop().time(), prompt))
        self.headers[prompt] = headers
        self.opening += 1
        self.most = max(self.most, self.open_now)
        try:
            answer = self.script(prompt, self.tries[prompt])
            if isinstance(answer, StreamChatError):
                await asyncio.sleep(1)
                raise answer
            await asyncio.sleep(answer.before_headers)
            self.answers.append(answer)
            return answer
        finally:
            self.opening -= 1

    async def aclose(self) -> None:
        for user in list(self.users):
            user.abort(TransportError("the client was closed", kind="closed"))


def client(served: Served, **options: Any) -> Client:
    """A client over it, its streams on the running loop's clock and without jitter."""
    clock = asyncio.get_running_loop().time
    chat = Client("key", model="command-test", **options)
    chat._transport = cast(Transport, served)
    chat._make = lambda plan: ChatStream(attrs.evolve(plan, clock=clock, random=lambda: 1.0))
    return chat


async def turns(count: int = 10) -> None:
    """Let others run."""
    for _ in range(count):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    """What runs beside the current task."""
    return asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
