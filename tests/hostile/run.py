"""Mutated hostile answers on loopback: ``python -m tests.hostile.run --count 100000 --seed 1``.

One client reads them one after the other from a server in the same event loop, which writes bytes that
were made before. For each: the loop is not held for more than 100 ms, the limits of ``Timeout`` are
kept within 0.1 s, the result is an answer or a ``StreamChatError``, and what was received can be
written, shown and pickled. At the end: the peak of the process is under 300 MiB.

A late beat or limit counts if it is late three times: other processes make timers late as well.
Prints one line of JSON; the exit code is 1 if it tells of anything wrong.
``--first N --count 1`` repeats the answer with the number N.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
import sys
import time
import unicodedata
from collections import Counter
from typing import Any

import attrs

from streamchat import ChatResponse, Client, Retry, Timeout, tool
from streamchat.protocol.errors import StreamChatError
from streamchat.protocol.plain import encode_json
from tests.hostile.answers import Hostile, make
from tests.hostile.measure import Beat, peak_mib

HELD = 0.1
"""Seconds for which the loop may be held: no event is larger than 1 MiB. The tests allow more."""
LATE = 0.1
"""Seconds after its moment in which a limit has ended the stream."""
MOST_MIB = 300
LONGEST_MESSAGE = 2000
LIMITS = Timeout(connect=5, first_event=1, idle=0.5, total=2)
WITHIN = 2.0
"""The largest of the limits."""
STALLED = Timeout(connect=5, first_event=0.2, idle=0.1, total=0.3)


@attrs.define
class Place:
    """What ``parse`` asks for."""

    city: str


@tool
def look(city: str) -> str:
    """Look. city: where"""
    return city


class Server(asyncio.Protocol):
    """Writes the response that is due, whatever was asked."""

    due = b""
    closes = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._request = b""

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, end, body = self._request.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._request = b""
            self._transport.write(Server.due)
            if Server.closes:
                self._transport.close()


@attrs.define
class Seen:
    """What one answer did."""

    outcome: str
    held: float
    late_beat: float
    seconds: float
    problem: str = ""


class Hammer:
    """Sends a client one answer after the other."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._beat = Beat()
        self._unhandled: list[str] = []
        asyncio.get_running_loop().set_exception_handler(self._note)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(f"{context.get('message')}: {context.get('exception')!r}"[:300])

    async def once(self, hostile: Hostile) -> Seen:
        Server.due, Server.closes = hostile.wire, not hostile.stalls
        limits = STALLED if hostile.stalls else LIMITS
        problem = ""
        self._beat.start()
        started = time.perf_counter()
        result: Any = None
        try:
            async with asyncio.timeout(20):
                result = await self._read(hostile.mode, limits)
            outcome = "answer" if isinstance(result, ChatResponse) else type(result).__name__
        except StreamChatError as error:
            result, outcome = error, type(error).__name__
        except TimeoutError:
            outcome = problem = "no end within 20 s"
        except Exception as error:  # that is what is looked for
            outcome = problem = f"foreign: {type(error).__name__}: {error}"[:300]
        seconds = time.perf_counter() - started
        self._beat.stop()
        held, late_beat = self._beat.worst, self._beat.latest
        try:
            problem = problem or wrong_with(result)
        except Exception as error:  # that is what is looked for
            problem = f"foreign, of the result: {type(error).__name__}: {error}"[:300]
        await asyncio.sleep(0)
        if self._unhandled:
            problem = problem or f"unhandled: {self._unhandled[0]}"
            self._unhandled.clear()
        steps = 2 if hostile.mode in ("tools", "parse") else 1
        within = (0.3 if hostile.stalls else WITHIN) * steps + LATE
        if not problem and seconds > within:
            problem = f"late: {seconds:.2f} s where {within:g} s are the limit"
        if not problem and held > HELD:
            problem = f"held: {held * 1000:.0f} ms"
        return Seen(outcome, held, late_beat, seconds, problem)

    async def _read(self, mode: str, limits: Timeout) -> Any:
        client = self._client
        if mode == "tools":
            return await client.run_tools("Hi", tools=[look], max_steps=2, timeout=limits)
        if mode == "parse":
            return await client.parse("Hi in JSON", into=Place, timeout=limits)
        stream = client.chat_stream("Hi", timeout=limits)
        if mode == "events":
            async with stream:
                async for event in stream:
                    _ = event.type
            return stream.snapshot
        if mode == "text":
            async with stream:
                async for piece in stream.text():
                    piece.encode()
            return stream.snapshot
        return await stream

    async def judged(self, hostile: Hostile) -> Seen:
        """What it did; of what is a matter of time the best of three."""
        seen = await self.once(hostile)
        for _ in range(2):
            if not seen.problem.startswith(("held", "late")):
                break
            seen = min(
                seen, await self.once(hostile), key=lambda one: (bool(one.problem), one.held)
            )
        return seen


def wrong_with(result: Any) -> str:
    """What is wrong with an answer or an error; empty if nothing is."""
    answer = result
    if isinstance(result, StreamChatError):
        words = str(result)
        if len(words) > LONGEST_MESSAGE:
            return f"a message of {len(words)} characters: {words[:200]!r}"
        controls = [c for c in words if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"]
        if controls:
            return f"a control character in a message: {words[:200]!r}"
        pickle.loads(pickle.dumps(result))  # our own
        if result.__cause__ is not None or result.__context__ is not None:
            return f"chained: {result.__cause__ or result.__context__!r}"
        answer = result.partial
    if isinstance(answer, ChatResponse):
        encode_json(answer.to_dict())
        answer.text.encode()
        answer.cited_spans()
        encode_json(answer.to_message())
    return ""


async def run(count: int, seed: int, first: int, most: int, *, uvloop: bool) -> dict[str, Any]:
    """Read so many answers; stop at ``most`` problems."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    problems: list[dict[str, Any]] = []
    growth: list[tuple[float, int, str]] = []
    held = late_beat = slowest = 0.0
    sent = done = 0
    started, peak = time.perf_counter(), peak_mib()
    async with Client("", base_url=url, model="m", retry=Retry(attempts=1)) as client:
        hammer = Hammer(client)
        for number in range(first, first + count):
            hostile = make(seed, number)
            seen = await hammer.judged(hostile)
            done += 1
            sent += len(hostile.wire)
            kinds[hostile.kind] += 1
            outcomes[seen.outcome.partition(":")[0]] += 1
            held, late_beat = max(held, seen.held), max(late_beat, seen.late_beat)
            slowest = max(slowest, seen.seconds)
            if (now := peak_mib()) > peak + 8:
                growth.append((round(now - peak, 1), number, hostile.kind))
            peak = peak_mib()
            if seen.problem:
                place = {"number": number, "kind": hostile.kind, "mode": hostile.mode}
                problems.append(place | {"problem": seen.problem, "bytes": len(hostile.wire)})
                if len(problems) >= most:
                    break
    server.close()
    return {
        "count": done,
        "seed": seed,
        "first": first,
        "loop": "uvloop" if uvloop else "asyncio",
        "seconds": round(time.perf_counter() - started, 1),
        "mib_sent": round(sent / 2**20, 1),
        "loop_held_ms": round(held * 1000, 1),
        "latest_beat_ms": round(late_beat * 1000, 1),
        "slowest_s": round(slowest, 2),
        "peak_mib": round(peak, 1),
        "growth_mib": sorted(growth, reverse=True)[:5],
        "outcomes": dict(outcomes.most_common()),
        "kinds": dict(kinds.most_common()),
        "problems": problems,
    }


def is_clean(result: dict[str, Any]) -> bool:
    """Whether a run found nothing."""
    return not result["problems"] and result["peak_mib"] < MOST_MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--most", type=int, default=50, help="problems after which it stops")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--asyncio", dest="uvloop", action="store_false")
    given = parser.parse_args()
    work = run(given.count, given.seed, given.first, given.most, uvloop=given.uvloop)
    if given.uvloop:
        import uvloop

        result = uvloop.run(work)
    else:
        result = asyncio.run(work)
    print(json.dumps(result))
    return 0 if is_clean(result) else 1


if __name__ == "__main__":
    sys.exit(main())
