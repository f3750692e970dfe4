"""A server that is often unkind, in a process of its own: ``python -m tests.fanout.unkind SEED``.

What it does to a request follows from the seed, the prompt and how often that was asked: 5 % are
refused with 429, 5 % reset, 2 % cut off. ``GET`` tells what was done to each prompt, in order.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
import struct
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.frames import pieces, plain
from tests.wire.server import EVENT_STREAM, chunked

ROOT = Path(__file__).resolve().parents[2]
HEAD = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after-ms: 50\r\n"
    b'content-length: 16\r\n\r\n{"message":"no"}'
)


def fate(seed: int, prompt: str, number: int) -> tuple[str, int]:
    """What happens to the n-th request of a prompt, and after how many events."""
    chance = random.Random(f"{seed}:{prompt}:{number}")
    drawn = chance.random()
    cut = chance.randrange(6)  # 0: before the status line
    if drawn < 0.05:
        return "429", 0
    if drawn < 0.10:
        return "reset", cut
    if drawn < 0.12:
        return "cut", cut
    return "whole", 0


async def handle(
    seed: int,
    done: dict[str, list[str]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                text = json.dumps(done).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + text)
                return
            length = next(x[15:] for x in head.split(b"\r\n") if x.startswith(b"content-length:"))
            asked = json.loads(await reader.readexactly(int(length)))
            prompt: str = asked["messages"][0]["content"]
            what, events = fate(seed, prompt, len(done[prompt]))
            done[prompt].append(what if events or what in ("429", "whole") else f"{what} at once")
            await answer(writer, prompt, what, events)
            if what in ("reset", "cut"):
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(writer: asyncio.StreamWriter, prompt: str, what: str, events: int) -> None:
    if what == "429":
        writer.write(REFUSAL)
        return
    frames = pieces(plain("The", " answer", " to ", prompt))
    for frame in frames[: events or len(frames)] if what == "whole" or events else ():
        writer.write(chunked(frame) if frame is not frames[0] else HEAD + chunked(frame))
        await asyncio.sleep(0.01)
    if what == "whole":
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    elif what == "reset":
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def main(seed: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    done: dict[str, list[str]] = defaultdict(list)
    server = await asyncio.start_server(
        lambda reader, writer: handle(seed, done, reader, writer), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def unkind(seed: int) -> Iterator[str]:
    """The server while the block runs; its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fanout.unkind", str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def done_to(url: str) -> dict[str, list[str]]:
    """What was done to each prompt, in order."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as said:
        result: dict[str, list[str]] = json.load(said)
        return result


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
