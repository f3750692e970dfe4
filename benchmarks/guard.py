"""Did a core path get slower? Instructions an event, counted by callgrind, against stored bounds.

``python -m benchmarks.guard [--update [PATH ...]]``

One process runs under ``valgrind --tool=callgrind``, hash seed fixed, collector off. Each path runs
with N and with 2 N events, and the difference counts: starting up, opening and closing cancel out.
Instructions do not change with the machine's load, but with CPython's build and version; so what is
compared is the ratio to a loop in the same process: the dict loop of ``contestants.py`` without its
network. Requests, openings and whole answers have references of their own (``guard_answers.py``) and are
counted per request, stream or answer. ``bounds.json`` holds a ratio a path for each Python version that was
measured, with head-room. ``import streamchat`` is held in the same way to the import of what it is built on.

Exit code 1 names the path that got slower. Without valgrind it says so and succeeds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks import guard_answers
from benchmarks.harness import ROOT, answer, print_table, write_results
from benchmarks.in_memory import Network, chunks_of

EVENTS = 500
WARM = 100
HEAD_ROOM = 1.15
"""Ratios of one build are equal to the last instruction from run to run, but move by 1.2 % with the
environment's size, the folder and ``EVENTS``; CPython 3.11 of pyenv and of Debian differ by 6 %."""
IMPORT_HEAD_ROOM = 1.05
"""This ratio holds the base on both sides, and what is ours is a fifth of it."""
BOUNDS = Path(__file__).with_name("bounds.json")
REFERENCE = "dict loop"
BASE_IMPORTS = "import aiohttp, attrs, cattrs, msgspec"
IMPORT = "import streamchat, beside " + BASE_IMPORTS.removeprefix("import ")

# --- what is counted: each path takes a number of events and reads an answer of that many ----------


def _numbered(events: int) -> list[bytes]:
    """An answer each of whose deltas has other bytes around its text: no event takes a lane."""
    frames = answer(events)
    return frames[:2] + [
        frame.replace(b'"index":0', b'"index":0,"id":"%08d"' % place)
        for place, frame in enumerate(frames[2:])
    ]


async def dict_loop(events: int) -> Callable[[], Awaitable[object]]:
    """The reference: split, orjson, an async handler, a join."""
    import orjson

    chunks = chunks_of(answer(events))

    async def handler(event: dict[str, object]) -> None:
        pass

    async def read() -> str:
        parts: list[str] = []
        tail = b""
        for chunk in chunks:
            blocks = (tail + chunk).split(b"\n\n")
            tail = blocks.pop()
            for block in blocks:
                data = block[block.index(b"data: ") + 6 :]
                if data == b"[DONE]":
                    continue
                event = orjson.loads(data)
                if event["type"] == "content-delta":
                    await handler(event)
                    parts.append(event["delta"]["message"]["content"]["text"])
        return "".join(parts)

    return read


async def frames(events: int) -> Callable[[], Awaitable[object]]:
    """Bytes to frames."""
    from streamchat.protocol import FrameDecoder

    chunks = chunks_of(answer(events))

    async def read() -> None:
        decoder = FrameDecoder()
        for chunk in chunks:
            decoder.feed(chunk)

    return read


async def _reader(made: Sequence[bytes]) -> Callable[[], Awaitable[object]]:
    from streamchat.protocol import EventReader

    chunks = chunks_of(made)

    async def read() -> None:
        reader = EventReader()
        for chunk in chunks:
            for block in reader.split(chunk):
                reader.read(block)

    return read


async def fast_lane(events: int) -> Callable[[], Awaitable[object]]:
    """Bytes to events, recognised by the bytes around their text."""
    return await _reader(answer(events))


async def full_path(events: int) -> Callable[[], Awaitable[object]]:
    """Bytes to events, none recognised."""
    return await _reader(_numbered(events))


async def encode(events: int) -> Callable[[], Awaitable[object]]:
    """Events to bytes, as a server of ours sends them."""
    from streamchat import ContentDelta
    from streamchat.protocol import encode_event, encode_frame

    made = [ContentDelta(f" word {i % 10}") for i in range(events)]

    async def read() -> None:
        for event in made:
            encode_frame(encode_event(event))

    return read


def _new_stream(chunks: Sequence[bytes], *handlers: Any) -> Any:
    from streamchat import ChatStream, Retry, Timeout
    from streamchat.plan import Plan
    from streamchat.policy import RetryBudget
    from streamchat.protocol import ChatRequest
    from streamchat.transport import Transport

    return ChatStream(
        Plan(
            transport=cast(Transport, Network(chunks)),
            request=ChatRequest.build("Hi", "m", {}),
            headers={},
            dispatchers=handlers,
            timeout=Timeout(),
            retry=Retry(),
            budget=RetryBudget(),
            max_event_bytes=1024 * 1024,
            clock=lambda: 0.0,
        )
    )


async def no_handler(events: int) -> Callable[[], Awaitable[object]]:
    """A ChatStream under ``async for``, nobody listening."""
    chunks = chunks_of(answer(events))

    async def read() -> None:
        async for _ in _new_stream(chunks):
            pass

    return read


async def async_handler(events: int) -> Callable[[], Awaitable[object]]:
    """The whole way but for the network: typed, folded, dispatched, iterated."""
    from streamchat import ContentDelta, Dispatcher

    handlers = Dispatcher()

    @handlers.on_content_delta
    async def heard(event: ContentDelta) -> None:
        pass

    chunks = chunks_of(answer(events))

    async def read() -> str:
        stream = _new_stream(chunks, handlers)
        async for _ in stream:
            pass
        return str(stream.snapshot.text)

    return read


async def middleware(events: int) -> Callable[[], Awaitable[object]]:
    """The same with one event middleware that changes nothing."""
    from streamchat import Dispatcher, Event

    handlers = Dispatcher()

    @handlers.event_middleware
    def passed_on(event: Event) -> Event:
        return event

    chunks = chunks_of(answer(events))

    async def read() -> None:
        async for _ in _new_stream(chunks, handlers):
            pass

    return read


PATHS: dict[str, Callable[[int], Awaitable[Callable[[], Awaitable[object]]]]] = {
    REFERENCE: dict_loop,
    "FrameDecoder": frames,
    "EventReader, fast lane": fast_lane,
    "EventReader, full path": full_path,
    "ChatStream, no handler": no_handler,
    "ChatStream, one async handler": async_handler,
    "ChatStream, one event middleware": middleware,
    "encode": encode,
    **guard_answers.PATHS,
}
REFERENCES = {
    name: guard_answers.REFERENCES.get(name, REFERENCE)
    for name in PATHS
    if name != REFERENCE and name not in guard_answers.REFERENCES.values()
}
"""Each path that is compared, and with which."""


def _units(name: str) -> tuple[int, int]:
    """How many events (or requests, streams, answers) warm a path up, and how many are counted."""
    if name in guard_answers.PATHS:
        return guard_answers.REPEATS, guard_answers.REPEATS
    return WARM, EVENTS


async def _run_paths() -> None:
    for name, make in PATHS.items():
        to_warm, events = _units(name)
        warm = await make(to_warm)
        for _ in range(3):  # CPython 3.11 and later rewrite code while it warms up
            await warm()
        for number in (events, 2 * events):
            read = await make(number)
            os.getppid()
            await read()
            os.getppid()


def counted_main() -> None:
    """What runs under callgrind; every call of ``getppid`` ends a count."""
    gc.disable()
    asyncio.run(_run_paths())


PROGRAM = f"""
import os
os.getppid()
{BASE_IMPORTS}
os.getppid()
import streamchat
os.getppid()
from benchmarks.guard import counted_main
counted_main()
"""

# --- counting -------------------------------------------------------------------------------------


def counts_between_marks(program: str, marks: int) -> list[int]:
    """Instructions that a program runs before each of its calls of ``os.getppid``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CO_"))}
    environment |= {"PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"}
    command = [sys.executable, "-c", program]
    # Once without: modules are compiled, and a failure is said in its own words.
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    with tempfile.TemporaryDirectory() as folder:
        valgrind = [
            *("valgrind", "--tool=callgrind", "--quiet"),
            # getppid is in libc, so that its name is known however CPython was built, and nothing
            # else here calls it. A dump holds what was counted since the one before.
            *("--dump-before=getppid", f"--callgrind-out-file={folder}/out"),
        ]
        subprocess.run([*valgrind, *command], check=True, cwd=ROOT, env=environment)
        return [_total(Path(folder, f"out.{i + 1}")) for i in range(marks)]


def count() -> dict[str, float]:
    """Instructions an event for each path, and for both imports."""
    dumps = counts_between_marks(PROGRAM, 3 + 4 * len(PATHS))
    counts = {"base imports": float(dumps[1]), IMPORT: float(dumps[1] + dumps[2])}
    for place, name in enumerate(PATHS):
        _, once, _, twice = dumps[3 + 4 * place : 7 + 4 * place]
        counts[name] = (twice - once) / _units(name)[1]
    return counts


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None, f"no totals in {dump}"
    return int(found[1])


def ratios(counts: Mapping[str, float]) -> dict[str, float]:
    """Each path beside the reference, the import beside the imports that it rests on."""
    found = {IMPORT: counts[IMPORT] / counts["base imports"]}
    for name, reference in REFERENCES.items():
        found[name] = counts[name] / counts[reference]
    return found


def main() -> None:
    """Count, print a table, write ``results/guard.json``; fail if a bound is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--update", nargs="*", metavar="PATH", help="store new bounds from this run: all, or these"
    )
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("guard: skipped, valgrind is not installed")
        return
    counts = count()
    found = ratios(counts)
    build = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    bounds: dict[str, Any] = json.loads(BOUNDS.read_text()) if BOUNDS.exists() else {}
    if options.update is not None:
        bounds[build] = bounds.get(build, {}) | {
            name: round(ratio * (IMPORT_HEAD_ROOM if name == IMPORT else HEAD_ROOM), 3)
            for name, ratio in found.items()
            if name in (options.update or found)
        }
        BOUNDS.write_text(json.dumps(bounds, indent=2, sort_keys=True) + "\n")
    held: dict[str, float] = bounds.get(build, {})
    print(f"instructions an event, {build}; {REFERENCE}: {counts[REFERENCE]:,.0f}")
    print_table(
        ["path", "instructions", "x its reference", "bound", ""],
        [
            [
                name,
                f"{counts[name]:,.0f}",
                f"{ratio:.3f}",
                f"{held[name]:.3f}" if name in held else "-",
                "SLOWER" if ratio > held.get(name, ratio) else "",
            ]
            for name, ratio in found.items()
        ],
    )
    write_results("guard", {"instructions": counts, "ratios": found, "bounds": held})
    slower = [name for name, ratio in found.items() if ratio > held.get(name, ratio)]
    if not held:
        print(f"guard: no bounds are stored for {build}; --update stores these")
    for name in slower:
        print(f"guard: {name} got slower: {found[name]:.3f} x, at most {held[name]:.3f} x")
    if slower:
        print("guard: if that is meant, say why in the commit, and run it with --update")
        sys.exit(1)


if __name__ == "__main__":
    main()
