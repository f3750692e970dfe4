"""What the benchmarks share: a byte server on one core, clients on the other, medians, a table.

Every figure is CPU time of a fresh client process (``time.process_time``), so the server's work does
not count. Contestants alternate round by round, and only ratios inside one round are compared:
machines are noisy, ratios are not. Each measured process first frees an 8 MiB buffer, because
asyncio's 256 KiB receive buffer is otherwise mapped afresh at each read, which hides what is
compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
_KEPT = RESULTS


def pin(core: int) -> None:
    """Keep this process on one core, where the system can and there is more than one."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


def free_buffer() -> None:
    """Allocate 8 MiB and free them, so that smaller buffers are not mapped afresh at each read."""
    buffer = bytearray(8 * 1024 * 1024)
    del buffer


def run_on(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    """Run it on ``asyncio`` or ``uvloop``."""
    if loop == "uvloop":
        import uvloop

        return uvloop.run(main)
    return asyncio.run(main)


def raise_descriptor_limit() -> None:
    """As many sockets as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident() -> int:
    """Bytes of memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of them do not pass; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def answer(events: int, *, spaced: bool = False) -> list[bytes]:
    """The frames of one plain answer with so many content deltas, in the recorded shape.

    With ``spaced`` the JSON has a space after each colon, so that no event takes the fast lane.
    """
    words = ["The", " model", " reads", " tokens", ",", " one", " after", " another", ".", "\\n"]
    colon = ": " if spaced else ":"

    def frame(kind: str, body: str) -> bytes:
        return f"event: {kind}\ndata: {body.replace('~', colon)}\n\n".encode()

    frames = [
        frame(
            "message-start",
            '{"id"~"c9216b71-fc8a-4107-be45-168630df7a3f","type"~"message-start","delta"~{"message"~'
            '{"role"~"assistant","content"~[],"tool_plan"~"","tool_calls"~[],"citations"~[]}}}',
        ),
        frame(
            "content-start",
            '{"type"~"content-start","index"~0,"delta"~{"message"~{"content"~'
            '{"type"~"text","text"~""}}}}',
        ),
    ]
    frames += [
        frame(
            "content-delta",
            '{"type"~"content-delta","index"~0,"delta"~{"message"~{"content"~'
            f'{{"text"~"{words[i % len(words)]}"}}}}}}}}',
        )
        for i in range(events)
    ]
    frames += [
        frame("content-end", '{"type"~"content-end","index"~0}'),
        frame(
            "message-end",
            '{"type"~"message-end","delta"~{"finish_reason"~"COMPLETE","usage"~{"billed_units"~'
            '{"input_tokens"~5,"output_tokens"~77},"tokens"~{"input_tokens"~500,"output_tokens"~77'
            "}}}}",
        ),
        b"data: [DONE]\n\n",
    ]
    return frames


def chunked(frames: Sequence[bytes], chunk_bytes: int | None) -> bytes:
    """An HTTP response with the frames in chunks of so many bytes, or one chunk a frame."""
    body = b"".join(frames)
    pieces: Sequence[bytes] = frames
    if chunk_bytes is not None:
        pieces = [body[i : i + chunk_bytes] for i in range(0, len(body), chunk_bytes)]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


async def _serve(responses: dict[str, bytes]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                lines = head.lower().split(b"\r\n")
                length = next(int(x[15:]) for x in lines if x.startswith(b"content-length:"))
                await reader.readexactly(length)
                writer.write(responses[path.strip("/").partition("/")[0]])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def serve_main(events: int) -> None:
    """The server's process: four shapes of the same answer under four path prefixes."""
    pin(1)
    frames, spaced = answer(events), answer(events, spaced=True)
    asyncio.run(
        _serve(
            {
                "large": chunked(frames, 64 * 1024),
                "each": chunked(frames, None),
                "spaced": chunked(spaced, 64 * 1024),
                "warm": chunked(answer(3), 64 * 1024),
            }
        )
    )


@contextmanager
def byte_server(events: int) -> Iterator[str]:
    """A server in a process of its own; yields its base URL."""
    code = f"from benchmarks.harness import serve_main; serve_main({events})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def run_client(
    module: str,
    *arguments: str,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a module as a fresh process and return the JSON it prints last.

    ``quiet`` keeps what it complains of for the ``CalledProcessError``.
    """
    output = subprocess.run(
        [python, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "CO_API_KEY": "benchmark", **(env or {})},
    ).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def median_ratios(rounds: Sequence[dict[str, float]], base: str) -> dict[str, float]:
    """For each contestant the median over the rounds of its ratio to ``base`` in that round."""
    return {
        name: statistics.median(round_[name] / round_[base] for round_ in rounds)
        for name in rounds[0]
    }


def in_turns(names: Sequence[str], round_: int) -> Sequence[str]:
    """Who comes when: forwards, then backwards, so that a drift of the machine meets all alike."""
    return names if round_ % 2 == 0 else names[::-1]


def spread(values: Sequence[float]) -> list[float]:
    """The least, the median and the most."""
    return [min(values), statistics.median(values), max(values)]


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    packages = {}
    for name in ("aiohttp", "attrs", "cattrs", "msgspec", "orjson", "cohere", "uvloop"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "-"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "load average": f"{os.getloadavg()[0]:.2f}",
        "openssl": ssl.OPENSSL_VERSION,
        **packages,
    }


def _processor() -> str:
    """The model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "-")


def write_results(name: str, results: dict[str, Any], *, quick: bool = False) -> None:
    """``benchmarks/results/NAME.json``: the figures and the machine.

    Figures of a quick run are worth nothing, and replace none: they go to a temporary folder.
    """
    folder = RESULTS
    if quick and folder == _KEPT:
        folder = Path(tempfile.gettempdir()) / "streamchat-benchmarks"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **results}, indent=2)
    (folder / f"{name}.json").write_text(text + "\n")
    print(f"written: {folder / name}.json")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table, first column to the left."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def show(row: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )

    for row in [head, ["-" * width for width in widths], *rows]:
        print(show(row))


Runner = Callable[[str, int], Any]
