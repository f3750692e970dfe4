"""A process that runs short of file descriptors: what is open goes on, and the rest is not lost at once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fanout import FIGURES
from tests.frames import pieces, plain
from tests.wire.server import EVENT_STREAM, Request, chunked, serve

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import asyncio, json, resource, sys
from collections import Counter
import uvloop
from streamchat import Client, ConnectError, Retry

async def main(url):
    kinds, last, said = Counter(), 0, ""
    async with Client("k" * 9, base_url=url, model="m") as chat:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        prompts = (str(n) for n in range(300))
        async for result in chat.fan_out(prompts, concurrency=200, retry=Retry(base=0.05)):
            if result.ok:
                kinds["whole" if result.response.text == "Hello there!" else "wrong"] += 1
            elif isinstance(result.error, ConnectError) and result.error.kind == "resources":
                if not kinds["short"]:
                    print("short", flush=True)
                kinds["short"] += 1
                last, said = max(last, result.index), str(result.error)
            else:
                kinds[repr(result.error)] += 1
        kinds["after"] = (await chat.chat("300")).text == "Hello there!"
    print(json.dumps([kinds, last, said, len(asyncio.all_tasks())]))

loop = uvloop.new_event_loop if sys.argv[2] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=loop) as runner:
    runner.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_short_of_descriptors(loop: str) -> None:
    """64 descriptors for 200 at once: some fail by name, and of those after them hardly any.

    No answer ends before the first has failed, so that there is no room for it however slow we are.
    """
    frames = pieces(plain())
    asked, short = Counter[str](), asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter, request: Request) -> None:
        asked[json.loads(request.body)["messages"][0]["content"]] += 1
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n" + chunked(frames[0]))
        await short.wait()
        writer.write(chunked(b"".join(frames[1:])) + b"0\r\n\r\n")
        await writer.drain()

    async with serve(slowly) as wire:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", CODE, wire.url, loop),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"short\n"
        short.set()
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    kinds, last, said, tasks = json.loads(out)
    assert set(kinds) == {"whole", "short", "after"}
    assert kinds["whole"] + kinds["short"] == 300
    assert "the limit is 64" in said
    assert "ulimit -n" in said
    assert (kinds["after"], tasks) == (1, 1)
    assert max(asked.values()) == 1, "what is refused was never sent"
    assert kinds["short"] <= 200
    FIGURES.append((f"64 descriptors, 300 requests, 200 at once ({loop})", f"{kinds}, last {last}"))
