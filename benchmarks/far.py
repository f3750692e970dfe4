"""The server of ``stream``, ``scale``, ``memory`` and ``peers``: a process of its own, on a core of its own.

The first part of a path says what is wanted: the name of an answer made beforehand (or of several, which
each connection gets in turn; an empty one is never sent), ``paced-20`` for a
stream that gets an event each 20 ms, ``finish`` to end all of those at their next event, ``report`` for
how many each was sent and how late. Over TLS with a throw-away authority, which clients trust by the
variable ``SSL_CERT_FILE``.

The text of a paced event is the time it was due, on ``time.monotonic``, one clock for all processes of a
machine: so whoever reads it knows how late it is.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import random
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import attrs

from benchmarks import wires
from benchmarks.harness import ROOT, percentile, pin, raise_descriptor_limit, run_on

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TIME_SIGNS = 17
"""How long the text of a paced event is: the same for all, so that bytes can be counted as events."""
AT_ONCE = 200
"""Events that are sent before the server listens again."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


START, CONTENT_START, DELTA, *END = wires.cohere(["~"])
OPENING = chunk(START + CONTENT_START)
BEFORE, AFTER = (part.decode() for part in DELTA.split(b"~"))
CLOSING = chunk(b"".join(END)) + b"0\r\n\r\n"
PACED_BYTES = len(BEFORE) + TIME_SIGNS + len(AFTER)
OTHER_BYTES = len(START + CONTENT_START) + len(b"".join(END))
"""Bytes of an answer's body without its paced events."""


@attrs.define(eq=False)
class Paced:
    """A stream that gets events."""

    name: str
    gap: float
    transport: asyncio.Transport
    sent: int = 0


class Pacer:
    """All paced streams, and when each gets its next event."""

    def __init__(self) -> None:
        self.due: list[tuple[float, int, Paced]] = []
        self.opened = 0
        self.ending = False
        self.sent: dict[str, int] = {}
        self.late: list[float] = []
        self.chance = random.Random(1)
        self.task = asyncio.ensure_future(self._run())

    def open(self, stream: Paced) -> None:
        """Send the start at once, and the first text within a gap: no two streams are in step."""
        stream.transport.write(HEAD + OPENING)
        self._later(stream, time.monotonic() + stream.gap * self.chance.random())

    def finish(self) -> object:
        """End each stream in place of its next event."""
        self.ending = True
        return None

    def report(self) -> object:
        """How many events each stream was sent, and how late the server was; then all is forgotten."""
        late = {f"p{percent}": 1000 * percentile(self.late, percent) for percent in (50, 99)}
        report = {"sent": self.sent, "still open": len(self.due), "server late, ms": late}
        self.ending, self.sent, self.late = False, {}, []
        return report

    def _later(self, stream: Paced, at: float) -> None:
        self.opened += 1
        heapq.heappush(self.due, (at, self.opened, stream))

    async def _run(self) -> None:
        while True:
            for _ in range(AT_ONCE):
                now = time.monotonic()
                if not self.due or self.due[0][0] > now:
                    break
                at, _, stream = heapq.heappop(self.due)
                self._send(stream, at)
                self.late.append(time.monotonic() - at)
            pause = self.due[0][0] - time.monotonic() if self.due else 0.01
            await asyncio.sleep(max(0.0, min(pause, 0.01)))

    def _send(self, stream: Paced, at: float) -> None:
        if stream.transport.is_closing():
            return
        if self.ending:
            self.sent[stream.name] = stream.sent
            stream.transport.write(CLOSING)
            return
        stream.sent += 1
        text = f"{at:0{TIME_SIGNS}.6f}"
        stream.transport.write(chunk(f"{BEFORE}{text}{AFTER}".encode()))
        self._later(stream, at + stream.gap)


class Connection(asyncio.Protocol):
    """Requests one after another, each answered by what its path names."""

    def __init__(self, answers: Mapping[str, Sequence[bytes]], pacer: Pacer) -> None:
        self.answers, self.pacer = answers, pacer
        self.received = b""
        self.turns: dict[str, int] = {}
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(x[15:]) for x in lines if x.startswith(b"content-length:")]
        if not separator or len(body) < sum(lengths):
            return
        self.received = b""
        what = head.split(b" ", 2)[1].decode().strip("/").partition("/")[0]
        if what.startswith("paced-"):
            name = json.loads(body)["messages"][0]["content"]
            gap = float(what.removeprefix("paced-")) / 1000
            self.pacer.open(Paced(name, gap, self.transport))
        elif what in ("finish", "report"):
            text = json.dumps(getattr(self.pacer, what)()).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text
            )
        else:
            several, turn = self.answers[what], self.turns.get(what, 0)
            self.turns[what] = turn + 1
            self.transport.write(several[turn % len(several)])


async def serve(folder: Path, *, tls: bool) -> None:
    """Until whoever started it is gone."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
    answers: dict[str, list[bytes]] = {}
    for path in sorted(folder.glob("*.answer")):
        answers.setdefault(path.stem.partition(".")[0], []).append(path.read_bytes())
    loop, pacer = asyncio.get_running_loop(), Pacer()
    server = await loop.create_server(
        lambda: Connection(answers, pacer), "127.0.0.1", 0, ssl=context, backlog=16_384
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@attrs.frozen
class Far:
    """A running server."""

    url: str
    env: Mapping[str, str]
    """What a client's process needs in its environment to trust it, and to ask no proxy for it."""


@contextmanager
def far_side(
    answers: Mapping[str, bytes | Sequence[bytes]] | None = None, *, tls: bool = False
) -> Iterator[Far]:
    """A server with these answers, in a process of its own while the block runs."""
    env = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for what, given in (answers or {}).items():
            for place, data in enumerate([given] if isinstance(given, bytes) else given):
                (folder / f"{what}.{place:05}.answer").write_bytes(data)
        if tls:
            import trustme

            authority = trustme.CA()
            certificate = authority.issue_cert("127.0.0.1")
            certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
            authority.cert_pem.write_to_path(folder / "authority.pem")
            env["SSL_CERT_FILE"] = str(folder / "authority.pem")
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.far", str(folder), *(["tls"] if tls else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline())
                yield Far(f"{'https' if tls else 'http'}://127.0.0.1:{port}", env)
            finally:
                process.kill()


def main() -> None:
    """The server's process."""
    pin(1)
    raise_descriptor_limit()
    # uvloop whatever the clients run on: the server must never be what keeps them waiting.
    run_on("uvloop", serve(Path(sys.argv[1]), tls=sys.argv[2:] == ["tls"]))


if __name__ == "__main__":
    main()
