"""One response in a process of its own: ``python -m tests.hostile.probe NAME [uvloop]``.

A raw socket answers with the bytes of a row of ``ROWS``; printed is one line of JSON: the outcome, for how
long the loop was held, the seconds, and by how much the process grew at its peak.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from streamchat import ChatResponse, Client, Retry, Timeout
from streamchat.protocol.errors import StreamChatError
from tests.hostile.answers import CLOSE, END, HELLO, MIB, OPEN, PACKERS, START, event
from tests.hostile.measure import Beat, forget_peak, peak_mib

__all__ = ["ROWS", "Probed", "Row", "probe"]

LIMITS = Timeout(connect=5, first_event=1, idle=1, total=1)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"


@attrs.frozen(kw_only=True)
class Row:
    """A response and what the client is told about it."""

    make: Callable[[], list[bytes]]
    """What the server writes, one after the other; made before anything is measured."""
    timeout: Timeout = LIMITS
    stays: bool = False
    """Whether the connection stays open behind it."""
    options: dict[str, Any] = attrs.field(factory=dict)
    """More of the client's settings."""


@attrs.frozen(kw_only=True)
class Probed:
    """What became of a row."""

    outcome: str
    message: str
    seconds: float
    held: float
    """Seconds."""
    grown: float
    """MiB."""
    text: int
    """Characters of the answer or of the partial answer."""


def plain(*parts: bytes) -> list[bytes]:
    return [HEAD + b"\r\n" + b"".join(parts)]


def packed(coding: str, data: bytes) -> list[bytes]:
    body = PACKERS[coding](data)
    if body is None:
        raise ModuleNotFoundError(coding)
    return [HEAD + f"content-encoding: {coding}\r\n\r\n".encode() + body]


def filled(template: str, item: str, count: int) -> bytes:
    """An event with an array of so many items."""
    return event(template.replace("@@", ",".join([item] * count)))


def growing(coding: str, ratio: int, mib: int) -> list[bytes]:
    """Deltas that shrink by about ``ratio``: a random letter between so many equal ones."""
    letters = (b"%d" % (number * 7919 % 100_000) for number in range(mib * MIB // (ratio * 2)))
    data = b"".join(
        b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"%b%b"}}}}\n\n'
        % (letter, b"a" * (ratio * 2))
        for letter in letters
    )
    return packed(coding, START + OPEN + data + CLOSE + END)


def comments(coding: str, filler: bytes, mib: int) -> list[bytes]:
    return packed(coding, START + OPEN + HELLO + filler * (mib * MIB // len(filler)))


def numbered(mib: int) -> bytes:
    """Comments that differ, so that they do not shrink much."""
    made = bytearray()
    number = 0
    while len(made) < mib * MIB:
        made += b": %d\n" % (number * 7919 % 1_000_003)
        number += 1
    return bytes(made)


MESSAGE_START = '{"type":"message-start","id":"x","delta":{"message":{"%s":[@@]}}}'
CITATION = (
    '{"type":"citation-start","index":0,"delta":{"message":{"citations":'
    '{"start":0,"end":1,"text":"a","sources":[@@]}}}}'
)
IN_DOCUMENT = CITATION.replace("[@@]", '[{"type":"document","id":"d","document":{"x":[@@]}}]')
USAGE = '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"x":[@@]}}}'
LOGPROBS = (
    '{"type":"content-delta","index":0,"logprobs":{"token_ids":[@@]},'
    '"delta":{"message":{"content":{"text":"a"}}}}'
)
UNKNOWN = '{"type":"new","x":[@@]}'
ERROR = '{"type":"error","error":{"message":"no","details":[@@]}}'
ALIKE = 2**61 - 1
OUTPUT = '{"type":"content-delta","index":%d,"delta":{"message":{"content":{"text":"a"}}}}'
CALL = (
    '{"type":"tool-call-start","index":%d,"delta":{"message":{"tool_calls":{"id":"c%d",'
    '"type":"function","function":{"name":"f","arguments":"{}"}}}}}'
)


def each(template: str, indices: Iterator[int]) -> bytes:
    return b"".join(event(template.replace("%d", str(index))) for index in indices)


MALFORMED: dict[str, bytes] = {
    "content of a start": filled(MESSAGE_START % "content", "{}", 300_000),
    "calls of a start": filled(MESSAGE_START % "tool_calls", "1", 450_000),
    "citations of a start": filled(MESSAGE_START % "citations", '{"start":0,"text":1}', 45_000),
    "sources": filled(CITATION, "1", 450_000),
    "empty sources": filled(CITATION, "{}", 300_000),
    "a document": filled(IN_DOCUMENT, "{}", 300_000),
    "usage": filled(USAGE, "{}", 300_000),
    "token ids": filled(LOGPROBS, '"a"', 240_000),
    "an unknown event": filled(UNKNOWN, "[]", 300_000),
    "an error event": filled(ERROR, "{}", 300_000),
    "a list": filled("[@@]", "{}", 300_000),
}
"""Events of just under 1 MiB whose items are of the wrong kind, or many."""

LARGE = 15 * MIB
VALID: dict[str, Callable[[], bytes]] = {
    "lists of an unknown event": lambda: filled(UNKNOWN, "[]", LARGE // 3),
    "numbers of an unknown event": lambda: filled(UNKNOWN, "1.5", LARGE // 4),
    "a document": lambda: filled(IN_DOCUMENT, "{}", LARGE // 3),
    "empty sources": lambda: filled(CITATION, "{}", LARGE // 3),
    "token ids": lambda: filled(LOGPROBS, "99999", LARGE // 6),
    "usage": lambda: filled(USAGE, "{}", LARGE // 3),
    "escaped text": lambda: event(OUTPUT.replace("%d", "0").replace('"a"', '"@@"')).replace(
        b"@@", b"\\u00e9" * (LARGE // 6)
    ),
    "lines of data": lambda: (
        b'data:{"type":"new","x":[\n' + b"data:1,\n" * (LARGE // 8) + b"data:1]}\n\n"
    ),
}
"""Events of 15 MiB, under the default limit of 16."""

ROWS: dict[str, Row] = {
    **{
        f"malformed: {name}": Row(make=lambda data=data: plain(data))
        for name, data in MALFORMED.items()
    },
    **{
        f"malformed, gzip: {name}": Row(make=lambda data=data: packed("gzip", data))
        for name, data in MALFORMED.items()
    },
    **{
        f"large: {name}": Row(
            make=lambda make=make: plain(START, OPEN, make(), END),
            timeout=Timeout(first_event=30, idle=30, total=30),
        )
        for name, make in VALID.items()
    },
    **{
        f"comments: {coding}": Row(
            make=lambda coding=coding: comments(coding, b":\n", 300), stays=True
        )
        for coding in PACKERS
    },
    **{
        f"unknown frames: {coding}": Row(
            make=lambda coding=coding: comments(coding, b'data: {"type":"new"}\n\n', 300),
            stays=True,
        )
        for coding in PACKERS
    },
    "comments that hardly shrink": Row(
        make=lambda: packed("gzip", START + OPEN + HELLO + numbered(48)), stays=True
    ),
    "comments before the first event": Row(make=lambda: plain(numbered(48)), stays=True),
    "comments in plain": Row(
        make=lambda: plain(START, OPEN, HELLO, b":\n" * (48 * MIB // 2)), stays=True
    ),
    "fields in plain": Row(
        make=lambda: plain(START, OPEN, HELLO, b"x\n" * (15 * MIB // 2)), stays=True
    ),
    "blank lines": Row(make=lambda: plain(START, OPEN, HELLO, b"\n" * (48 * MIB)), stays=True),
    "carriage returns": Row(make=lambda: plain(START, OPEN, HELLO, b"\r" * (48 * MIB)), stays=True),
    "pings in plain": Row(
        make=lambda: plain(START, OPEN, HELLO, b"event: ping\ndata: {}\n\n" * (48 * MIB // 22)),
        stays=True,
    ),
    "a plain beginning": Row(
        make=lambda: packed("gzip", START + b":" + b"\0" * (64 * MIB)), stays=True
    ),
    "a bomb of deltas": Row(
        make=lambda: packed("gzip", START + OPEN + HELLO * (400 * MIB // len(HELLO)) + END),
        timeout=Timeout(total=30),
    ),
    "a bomb of one string": Row(
        make=lambda: packed("gzip", START + OPEN + HELLO[:-10] + b"a" * (64 * MIB)),
    ),
    "a bomb in a bomb": Row(
        make=lambda: packed("gzip", zlib.compress(START + b":\n" * (32 * MIB), 9)),
    ),
    "an answer over the limit": Row(
        make=lambda: plain(START, OPEN, HELLO * (4 * MIB // len(HELLO)), END),
        options={"max_answer_bytes": MIB},
        timeout=Timeout(total=30),
    ),
    "an answer over the limit, gzip": Row(
        make=lambda: growing("gzip", 40, 4),
        options={"max_answer_bytes": MIB},
        timeout=Timeout(total=30),
    ),
    "indices that collide": Row(
        make=lambda: plain(START, each(OUTPUT, iter(k * ALIKE for k in range(10_000))), END)
    ),
    "all indices": Row(
        make=lambda: plain(START, each(OUTPUT, iter(range(10_000))), END),
        timeout=Timeout(total=30),
    ),
    "calls": Row(
        make=lambda: plain(START, each(CALL, iter(range(10_000))), END), timeout=Timeout(total=30)
    ),
    "overlapping citations": Row(
        make=lambda: plain(
            START,
            OPEN,
            each(
                '{"type":"citation-start","index":%d,"delta":{"message":{"citations":'
                '{"start":0,"end":%d,"text":"a","sources":[]}}}}',
                iter(range(5000)),
            ),
            END,
        ),
        timeout=Timeout(total=30),
    ),
}
"""What is probed, by name."""


async def read(row: Row) -> dict[str, Any]:
    """Serve the row once and read it."""
    steps = row.make()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for step in steps:
                for start in range(0, len(step), 65536):
                    writer.write(step[start : start + 65536])
                    await writer.drain()
            if row.stays:
                await asyncio.sleep(60)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gc.collect()
    forget_peak()  # making the row may have taken more than reading it
    beat, before, answer, message = Beat(), peak_mib(), None, ""
    async with Client(
        "", base_url=url, model="m", retry=Retry(attempts=1), **row.options
    ) as client:
        beat.start()
        started = time.perf_counter()
        try:
            answer = await client.chat("Hi", timeout=row.timeout)
            outcome = type(answer).__name__
        except StreamChatError as error:
            answer, outcome, message = error.partial, type(error).__name__, str(error)
        seconds = time.perf_counter() - started
        beat.stop()
    server.close()
    return {
        "outcome": outcome,
        "message": message,
        "seconds": seconds,
        "held": beat.worst,
        "grown": peak_mib() - before,
        "text": len(answer.text) if isinstance(answer, ChatResponse) else 0,
    }


def probe(name: str, loop: str = "asyncio") -> Probed:
    """Read a row in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.probe", name, loop],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return Probed(**json.loads(done.stdout))


if __name__ == "__main__":
    if sys.argv[2:] == ["uvloop"]:
        import uvloop

        result = uvloop.run(read(ROWS[sys.argv[1]]))
    else:
        result = asyncio.run(read(ROWS[sys.argv[1]]))
    print(json.dumps(result))
