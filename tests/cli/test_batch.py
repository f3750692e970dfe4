"""``streamchat batch``: rows, errors, resuming after anything, and twenty kills."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from streamchat import MessageStart
from streamchat.journal.packing import packing_of
from streamchat.local import LocalServer
from tests.cli.command import COMMAND, Ran, environment, on_terminal, run, run_async
from tests.fanout import FIGURES
from tests.frames import body, plain
from tests.wire.server import EVENT_STREAM, Reply, Request, Wire, chunked, serve

ROW = ["index", "id", "response", "attempts", "timing"]


def write(path: Path, rows: Iterable[Any]) -> Path:
    """A file of lines: text as it is, anything else as JSON."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def asked(request: Request) -> str:
    """The prompt of a request."""
    text: str = json.loads(request.body)["messages"][-1]["content"]
    return text


def answering(request: Request, name: str) -> bytes:
    """A whole answer that repeats the prompt, with an id of its own."""
    events = [MessageStart(name), *plain(asked(request))[1:]]
    return (
        EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n" + chunked(body(events)) + b"0\r\n\r\n"
    )


def env(wire: Wire | LocalServer, **more: str) -> Mapping[str, str]:
    return {"CO_API_KEY": "k", "CO_API_URL": wire.url, **more}


async def echo(writer: asyncio.StreamWriter, request: Request) -> None:
    writer.write(answering(request, f"id of {asked(request)}"))


def failing(*prompts: str, status: int = 422) -> Reply:
    """Answers all but these."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        if asked(request) not in prompts:
            await echo(writer, request)
        else:
            told = b'{"message":"no"}'
            writer.write(b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\n" % status)
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(told), told))

    return reply


@attrs.define
class Changing:
    """Replies with whatever it is set to."""

    reply: Reply

    async def __call__(self, writer: asyncio.StreamWriter, request: Request) -> None:
        await self.reply(writer, request)


async def batch(wire: Wire | LocalServer, *arguments: str | Path) -> Ran:
    return await run_async("batch", *arguments, env=env(wire))


async def test_rows_are_the_designs(tmp_path: Path) -> None:
    """Prompts and bodies, ids of their own, the index is the line; exit code 0."""
    source = write(
        tmp_path / "in.jsonl",
        [
            {"prompt": "a", "id": "first"},
            "",
            {"messages": [{"role": "user", "content": "b"}], "temperature": 0.2, "stream": False},
            {"prompt": "c", "model": "other"},
            {"prompt": "d", "model": None},
        ],
    )
    out = tmp_path / "out.jsonl"
    async with serve(echo) as wire:
        ran = await batch(wire, source, "-o", out, "--model", "m", "--ordered")
    assert ran.code == 0, ran.err
    found = rows(out)
    assert [list(row) for row in found] == [ROW] * 4
    ids = [(row["index"], row["id"]) for row in found]
    assert ids == [(0, "first"), (2, None), (3, None), (4, None)]
    texts = [row["response"]["message"]["content"][0]["text"] for row in found]
    assert texts == ["a", "b", "c", "d"]
    assert all(row["attempts"] == 1 and row["timing"]["total"] > 0 for row in found)
    sent = sorted((json.loads(each.body) for each in wire.requests), key=str)
    assert sorted(each["model"] for each in sent) == ["m", "m", "m", "other"]
    assert [each["temperature"] for each in sent if "temperature" in each] == [0.2]
    assert rows(tmp_path / "out.errors.jsonl") == []


BAD = {
    "nonsense": "not JSON",
    "[1]": "not a JSON object",
    '{"a":1}': "has neither",
    '{"prompt":1}': "prompt must be a text",
    '{"prompt":"x","messages":[]}': "has both",
    '{"prompt":"x","tempature":1}': "'tempature' is no field",
    '{"prompt":"x","temperature":7}': "temperature must be from 0 to 1",
    '{"messages":[{"role":"nobody"}]}': "role",
}


async def test_bad_lines_are_reported_and_do_not_stop(tmp_path: Path) -> None:
    """With their numbers, in OUT.errors.jsonl; the others are answered; exit code 1."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "a"}, *BAD, {"prompt": "b"}])
    out = tmp_path / "out.jsonl"
    async with serve(echo) as wire:
        ran = await batch(wire, source, "-o", out)
    assert ran.code == 1
    assert sorted(row["index"] for row in rows(out)) == [0, len(BAD) + 1]
    assert len(wire.requests) == 2
    errors = sorted(rows(tmp_path / "out.errors.jsonl"), key=lambda row: row["line"])
    assert [row["line"] for row in errors] == list(range(2, len(BAD) + 2))
    for row, problem in zip(errors, BAD.values(), strict=True):
        assert problem in row["message"]
    assert "out.errors.jsonl" in ran.err


async def test_what_failed_is_tried_again_and_nothing_else(tmp_path: Path) -> None:
    """A second run sends only what has no row; a third has nothing to do."""
    source = write(tmp_path / "in.jsonl", [{"prompt": name} for name in "abcde"])
    out = tmp_path / "out.jsonl"
    server = Changing(failing("b", "d"))
    async with serve(server) as wire:
        assert (await batch(wire, source, "-o", out)).code == 1
        assert {row["error"] for row in rows(tmp_path / "out.errors.jsonl")} == {
            "UnprocessableEntityError"
        }
        first = rows(out)
        server.reply = echo
        wire.requests.clear()
        assert (await batch(wire, source, "-o", out)).code == 0
        assert sorted(map(asked, wire.requests)) == ["b", "d"]
        assert (await batch(wire, source, "-o", out)).code == 0
        assert len(wire.requests) == 2
    assert rows(out)[: len(first)] == first
    assert sorted(row["index"] for row in rows(out)) == list(range(5))


async def test_no_resume_begins_anew(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "a"}])
    out = tmp_path / "out.jsonl"
    async with serve(echo) as wire:
        await batch(wire, source, "-o", out)
        await batch(wire, source, "-o", out, "--no-resume")
        assert len(wire.requests) == 2
    assert len(rows(out)) == 1


async def test_inserted_lines_do_not_repeat_the_others(tmp_path: Path) -> None:
    """Rows belong to requests, not to line numbers."""
    source = write(tmp_path / "in.jsonl", [{"prompt": name} for name in "abc"])
    out = tmp_path / "out.jsonl"
    async with serve(echo) as wire:
        await batch(wire, source, "-o", out)
        write(source, [{"prompt": name} for name in "xabc"])
        ran = await batch(wire, source, "-o", out, "--ordered")
        assert sorted(map(asked, wire.requests)) == ["a", "b", "c", "x"]
    assert ran.code == 0
    assert [row["response"]["id"] for row in rows(out)] == [f"id of {name}" for name in "xabc"]


async def test_a_refused_key_stops_the_job(tmp_path: Path) -> None:
    """It would be refused a million times."""
    source = write(tmp_path / "in.jsonl", [{"prompt": str(number)} for number in range(500)])
    async with serve(failing(*map(str, range(500)), status=401)) as wire:
        ran = await batch(wire, source, "-o", tmp_path / "out.jsonl", "--concurrency", "4")
    assert ran.code == 1
    assert len(wire.requests) < 20
    assert "401" in ran.err or "key" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jsonl", "-o", "out.jsonl"], "no such file"),
        (["in.jsonl"], "Missing option"),
        (["in.jsonl", "-o", "out.jsonl", "--concurrency", "0"], "--concurrency"),
        (["in.jsonl", "-o", "out.jsonl", "--rpm", "0"], "--rpm"),
        *(
            (["in.jsonl", "-o", "out.jsonl", name, value], name)
            for name, value in [
                *[("--deadline", "nan"), ("--deadline", "inf"), ("--deadline", "-1")],
                *[("--rpm", "0.5"), ("--rpm", "nan"), ("--rpm", "inf"), ("--tpm", "1e400")],
                ("--max-failures", "0"),
            ]
        ),
    ],
)
def test_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """Exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", [{"prompt": "a"}])
    ran = run("batch", *arguments)
    assert (ran.code, said in ran.err) == (2, True), ran.err
    assert not (tmp_path / "out.jsonl").exists()


async def test_a_terminal_shows_a_bar_and_a_table(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": name} for name in "abc"])
    async with LocalServer() as server:

        def work() -> tuple[int, str]:
            with on_terminal(
                "batch", str(source), "-o", str(tmp_path / "o"), env=env(server)
            ) as term:
                return term.wait(), term.seen

        code, seen = await asyncio.to_thread(work)
    assert code == 0
    assert "3/3" in seen
    assert "answered" in seen


async def test_ctrl_c_stops_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """130, the rows stay, the rest is done later; each item once."""
    source = write(tmp_path / "in.jsonl", [{"prompt": str(number)} for number in range(40)])
    out = tmp_path / "out.jsonl"
    reached, stopped = asyncio.Event(), asyncio.Event()

    async def half(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(wire.requests) <= 10:
            await echo(writer, request)
        else:
            reached.set()
            await stopped.wait()

    server = Changing(half)
    async with serve(server) as wire:
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, "batch", source, "-o", out, "--concurrency", "2"),
            env=environment(env(wire)),
            stderr=asyncio.subprocess.PIPE,
        )
        await reached.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        stopped.set()
        await asyncio.sleep(0)
        assert (process.returncode, b"Traceback" in err) == (130, False), err
        assert b"goes on from here" in err
        assert len(rows(out)) >= 9
        server.reply = echo
        assert (await batch(wire, source, "-o", out)).code == 0
    assert sorted(row["index"] for row in rows(out)) == list(range(40))


KILLS, ITEMS = 20, 500
GZIP_KILLS = int(os.environ.get("STREAMCHAT_GZIP_KILLS", "6"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("suffix", "kills"), [("", KILLS), (".gz", GZIP_KILLS)])
async def test_kills_lose_nothing_and_repeat_nothing(
    tmp_path: Path, suffix: str, kills: int
) -> None:
    """SIGKILL after a random number of answers, again and again: each item once in the end, and a row
    that was there at a kill is never asked for again. Compressed, the input comes through a pipe."""
    chance = random.Random(5)
    source = write(tmp_path / "in.jsonl", [{"prompt": str(number)} for number in range(ITEMS)])
    lines = gzip.compress(source.read_bytes())
    out = tmp_path / f"out.jsonl{suffix}"
    given = ("-" if suffix else str(source), "-o", str(out), "--concurrency", "8")
    limit, served = 0, 0
    enough = asyncio.Event()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        nonlocal served
        served += 1
        if served == limit:
            enough.set()
        writer.write(answering(request, f"{asked(request)} at {served}"))

    def found() -> dict[int, str]:
        """The whole rows."""
        if not out.exists():
            return {}
        whole = [line for _, line in packing_of(out).lines(out) if line.endswith(b"\n")]
        return {row["index"]: row["response"]["id"] for row in map(json.loads, whole)}

    kept: dict[int, str] = {}
    async with serve(reply) as wire:
        for _ in range(kills):
            enough.clear()
            limit = served + chance.randrange(1, 40)
            process = await asyncio.create_subprocess_exec(
                *(*COMMAND, "batch", *given),
                env=environment(env(wire)),
                stdin=asyncio.subprocess.PIPE if suffix else None,
                stderr=asyncio.subprocess.DEVNULL,
            )
            if process.stdin is not None:
                process.stdin.write(lines)
                process.stdin.close()
            ended = asyncio.ensure_future(process.wait())
            cut = asyncio.ensure_future(enough.wait())
            await asyncio.wait([ended, cut], return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            if not ended.done():
                process.kill()
            await ended
            now = found()
            assert kept.items() <= now.items()
            kept = now
        before = served
        ran = await run_async("batch", *given, stdin=lines if suffix else b"", env=env(wire))
        assert ran.code == 0, ran.err
        assert served - before == ITEMS - len(kept)
    whole = gzip.decompress(out.read_bytes()) if suffix else out.read_bytes()
    final = [json.loads(line) for line in whole.splitlines()]
    assert sorted(row["index"] for row in final) == list(range(ITEMS))
    assert kept.items() <= {row["index"]: row["response"]["id"] for row in final}.items()
    FIGURES.append(
        (
            f"batch{suffix} under SIGKILL",
            f"{kills} kills, {ITEMS} items: each once, {served} answers served",
        )
    )


async def test_a_picture(tmp_path: Path) -> None:
    """--plot draws; without matplotlib it says what to install, before anything is sent."""
    source = write(tmp_path / "in.jsonl", [{"prompt": name} for name in "abc"])
    picture = tmp_path / "p.svg"
    async with serve(echo) as wire:
        ran = await batch(wire, source, "-o", tmp_path / "out.jsonl", "--plot", picture)
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            assert (ran.code, "streamchat[plot]" in ran.err, wire.requests) == (2, True, [])
        else:
            assert ran.code == 0, ran.err
            assert picture.read_text(encoding="utf-8").count("<svg") == 1
