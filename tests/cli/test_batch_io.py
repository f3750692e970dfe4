"""What a batch reads from and writes to: pipes, compressed files, devices; whose answers rows are; limits."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamchat import FanOutResult, Stop, StopReachedError
from streamchat.cli.batch import DEMO, counted, until_stopped
from streamchat.stops import StopCount
from tests import packages
from tests.cli.command import COMMAND, Ran, environment, on_terminal, run, run_async, started
from tests.cli.test_batch import Changing, asked, batch, echo, env, failing, rows, write
from tests.frames import body, plain
from tests.wire.server import EVENT_STREAM, Request, Wire, chunked, serve

PROMPTS = [{"prompt": name} for name in "abcde"]
NOWHERE = {"CO_API_URL": "http://127.0.0.1:9"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", PROMPTS)


def texts(lines: bytes) -> list[str]:
    found = [json.loads(line) for line in lines.splitlines()]
    return [row["response"]["message"]["content"][0]["text"] for row in found]


async def shell(wire: Wire, script: str, folder: Path) -> tuple[int, bytes, str]:
    """Run a line of bash in which ``$batch`` is the command."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"set -o pipefail; {script}"),
        cwd=folder,
        env={**environment(env(wire)), "batch": f"{sys.executable} -m streamchat batch"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert b"Traceback" not in err, err
    assert process.returncode is not None
    return process.returncode, out, err.decode()


# --- where lines come from, where rows go ------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        "$batch - -o - < in.jsonl",
        "cat in.jsonl | $batch - -o -",
        "cat in.jsonl | $batch /dev/stdin -o /dev/stdout | cat",
        "$batch <(cat in.jsonl) -o -",
        "$batch in.jsonl -o >(cat > got; touch done); until [ -e done ]; do sleep 0.05; done; cat got",
        "mkfifo f; cat f > got & $batch in.jsonl -o f; wait; cat got",
        "mkfifo f; cat in.jsonl > f & $batch f -o -",
        "gzip -c in.jsonl | $batch - -o -",
        "gzip -k in.jsonl; $batch in.jsonl.gz -o -",
        "(gzip -c in.jsonl; printf '' | gzip -c) > two.gz; $batch two.gz -o -",
        "cat in.jsonl | $batch - -o out.jsonl.gz; zcat out.jsonl.gz",
        "$batch in.jsonl -o - > out.jsonl; cat out.jsonl",
        "(printf '\\xef\\xbb\\xbf'; cat in.jsonl) | $batch - -o -",
        "(read -r line; $batch - -o -) < <(echo skipped; cat in.jsonl)",
        "ln -s in.jsonl link; mkdir -m 700 d; ln -s ../o.jsonl d/o; $batch link -o d/o; cat o.jsonl",
    ],
)
async def test_every_line_has_its_row(tmp_path: Path, source: Path, script: str) -> None:
    async with serve(echo) as wire:
        code, out, err = await shell(wire, script, tmp_path)
    assert code == 0, err
    assert sorted(texts(out)) == list("abcde")


async def test_a_closed_stdout_matters_only_where_rows_go_there(
    tmp_path: Path, source: Path
) -> None:
    """A daemon may have none: ``>&-``."""
    async with serve(echo) as wire:
        code, _, err = await shell(wire, "$batch in.jsonl -o out.jsonl >&-", tmp_path)
        assert code == 0, err
        assert sorted(texts((tmp_path / "out.jsonl").read_bytes())) == list("abcde")
        both, _, _ = await shell(wire, "$batch in.jsonl -o o.jsonl >&- 2>&-", tmp_path)
        assert both == 0
        assert sorted(texts((tmp_path / "o.jsonl").read_bytes())) == list("abcde")
        code, _, err = await shell(wire, "$batch in.jsonl -o - >&-", tmp_path)
    assert (code, "standard output is closed" in err) == (1, True), err


async def test_ordered_rows_come_in_order_where_they_cannot_be_sorted(
    tmp_path: Path, source: Path
) -> None:
    turn = {name: asyncio.Event() for name in "abcde"}
    turn["e"].set()

    async def backwards(writer: asyncio.StreamWriter, request: Request) -> None:
        name = asked(request)
        await turn[name].wait()
        await echo(writer, request)
        if name != "a":
            turn[chr(ord(name) - 1)].set()

    async with serve(backwards) as wire:
        _, out, _ = await shell(wire, "$batch in.jsonl -o - --ordered", tmp_path)
    assert texts(out) == list("abcde")


async def test_errors_go_to_stderr_where_rows_go_to_stdout(tmp_path: Path) -> None:
    """As JSON, a line each, and nothing else is written anywhere."""
    write(tmp_path / "in.jsonl", [{"prompt": "a"}, "bad", {"prompt": "b"}])
    async with serve(failing("b")) as wire:
        code, out, err = await shell(wire, "$batch in.jsonl -o -", tmp_path)
    assert code == 1
    assert texts(out) == ["a"]
    errors = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [row["line"] for row in errors] == [2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


async def test_a_terminal_gets_rows_that_cannot_control_it(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "\u202e \x9b31m \x1b]52;c;aGk=\x07"}])
    async with serve(echo) as wire:

        def work() -> tuple[int, str]:
            with on_terminal("batch", str(source), "-o", "-", env=env(wire)) as term:
                return term.wait(), term.seen

        code, seen = await asyncio.to_thread(work)
    assert code == 0
    assert not {"\u202e", "\x9b", "\x07"} & set(seen)
    assert "\x1b]" not in seen
    assert "\\u202e" in seen


async def test_a_reader_that_leaves_ends_the_batch(tmp_path: Path) -> None:
    """Exit code 141, as of other tools."""
    write(tmp_path / "in.jsonl", [{"prompt": "x" * 20_000} for _ in range(300)])
    async with serve(echo) as wire:
        code, _, err = await shell(wire, "$batch in.jsonl -o - | head -c 5", tmp_path)
    assert code == 141, err


async def test_ctrl_c_ends_a_batch_whose_rows_nobody_reads(tmp_path: Path, source: Path) -> None:
    """Rows wait for the pipe without holding the loop."""
    write(source, [{"prompt": "x" * 300_000} for _ in range(3)])
    async with serve(echo) as wire:

        def work() -> int:
            with started("batch", str(source), "-o", "-", env=env(wire)) as process:
                assert process.stdout is not None
                assert process.stdout.read(9) == b'{"index":'
                process.send_signal(signal.SIGINT)
                return process.wait(20)

        assert await asyncio.to_thread(work) == 130


SOCKET = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('p'); s.close()"


@pytest.mark.parametrize(
    ("prepare", "out", "said"),
    [
        ("mkfifo p", "p", "is a FIFO that nobody reads"),
        ("mkdir p", "p", "is a directory"),
        (f'{sys.executable} -c "{SOCKET}"', "p", "takes no rows"),
        ("true", "no/p", "there is no folder"),
        ("mkfifo p; rm in.jsonl; ln -s p in.jsonl", "p", "are the same file"),
    ],
)
async def test_a_place_that_takes_no_rows_is_wrong_usage(
    tmp_path: Path, source: Path, prepare: str, out: str, said: str
) -> None:
    """Exit code 2 and a sentence that names the path; never a hang."""
    async with serve(echo) as wire:
        code, _, err = await shell(wire, f"{prepare}; $batch in.jsonl -o {out}", tmp_path)
        assert wire.requests == []
    assert (code, said in " ".join(err.split()), out in err) == (2, True, True), err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_utf16_is_refused_with_a_sentence(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(pack('{"prompt": "a"}\n{"prompt": "b"}\n'.encode(encoding)))
    ran = run("batch", source, "-o", tmp_path / "o.jsonl", env=NOWHERE)
    assert (ran.code, "is UTF-16" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.jsonl.gz", b'{"prompt": "a"}\n', "is not gzip data"),
        ("in.jsonl.zst", b'{"prompt": "a"}\n', "is not zstd data"),
        ("in.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n' * 9, mtime=0)[:-9], "broken or cut off"),
        ("in.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n', mtime=0) + b"xyz", "cut off behind line 1"),
        ("in.jsonl", gzip.compress(b'{"prompt": "a"}\n', mtime=0)[:-2] + b"xx", "broken or cut off"),
        ("in.jsonl", gzip.compress(b'{"prompt": "a"}\n' * 9999, mtime=0)[:-20], "cut off behind line"),
        ("in.jsonl.zst", b"\x28\xb5\x2f\xfd\0", "zst"),
        ("in.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(40), "zst"),
        ("in.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 40, "zst"),
        ("in.jsonl", b"\x28\xb5\x2f\xfd\x20\x10\x10\0\0{\n", "zst"),
    ],
)  # fmt: skip
def test_broken_compression_is_found_before_anything_is_sent(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    source = tmp_path / name
    source.write_bytes(content)
    ran = run("batch", source, "-o", tmp_path / "o.jsonl", env=NOWHERE)
    assert (ran.code, said in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    "line",
    [
        b"\x1f\x8b",
        b"\x1f\x8b\x08",
        b"\x1f\x8b\x07\0\0\0\0\0\0\0",
        b"\x1f\x8b\x08\xe0\0\0\0\0\0\0",
        b"\x1f\x8b\x08\0\0\0\0\0\0\3",
        b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b'{"prompt": "x"}',
        b"\x1f\x8b\x08\x08\0\0\0\0\0\3a name without an end",
        b"\x1f\x8b\x08\0\0\0\0\0\0\3\x4b\x4c\x4a\x06\xff\xff\xff",
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfd\0",
        b"\x28\xb5\x2f\xfd\x08\0\0\0\0",
        b"\x28\xb5\x2f\xfd" + b'{"prompt": "x"}',
        b"\x28\xb5\x2f\xfd\x20\x01\xff\xff\xff",
    ],
)
async def test_a_line_that_begins_as_compressed_data_is_an_error_of_its_own(
    tmp_path: Path, source: Path, line: bytes
) -> None:
    """Whatever bytes come, the good lines are answered."""
    source.write_bytes(line + b"\n" + source.read_bytes())
    out = tmp_path / "out.jsonl"
    async with serve(echo) as wire:
        ran = await batch(wire, source, "-o", out)
    assert ran.code == 1, ran.err
    assert sorted(texts(out.read_bytes())) == list("abcde")
    assert [row["line"] for row in rows(tmp_path / "out.errors.jsonl")] == [1]


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/random"])
def test_a_device_is_no_input(tmp_path: Path, name: str) -> None:
    """It would never end."""
    ran = run("batch", name, "-o", tmp_path / "o.jsonl", env=NOWHERE)
    assert (ran.code, "is a device" in ran.err) == (2, True)


async def test_zst_files(tmp_path: Path, source: Path) -> None:
    """Read and written where the package is there, and resumed; a cut input is not taken for a whole one."""
    zstd = packages.zstd()
    packed = tmp_path / "in.jsonl.zst"
    packed.write_bytes(zstd.compress(source.read_bytes()[:20]))
    with packed.open("ab") as file:
        file.write(zstd.compress(source.read_bytes()[20:]))
    out = tmp_path / "out.jsonl.zst"
    async with serve(echo) as wire:
        assert (await batch(wire, packed, "-o", out)).code == 0
        assert (await batch(wire, packed, "-o", out, "--ordered")).code == 0
        assert len(wire.requests) == 5
        packed.write_bytes(packed.read_bytes()[:-5])
        assert "cut off" in (await batch(wire, packed, "-o", tmp_path / "o.jsonl")).err
    assert texts(zstd.decompress(out.read_bytes())) == list("abcde")


@pytest.mark.parametrize("name", ["in.jsonl.zst", "in.jsonl"])
@pytest.mark.parametrize(
    "broken",
    [
        lambda whole: whole[:-9],
        lambda whole: whole + b"xyz",
        lambda whole: whole[:9000] + bytes(100) + whole[9100:],
    ],
    ids=["cut off", "more behind it", "changed in the second frame"],
)
def test_broken_zst_is_found_before_anything_is_sent(
    tmp_path: Path, name: str, broken: Callable[[bytes], bytes]
) -> None:
    """As broken gzip is, and with the last line that could be read."""
    zstd, draw = packages.zstd(), random.Random(5)
    lines = [b'{"prompt": "%s"}\n' % draw.randbytes(300).hex().encode() for _ in range(40)]
    whole = zstd.compress(b"".join(lines[:20])) + zstd.compress(b"".join(lines[20:]))
    (tmp_path / name).write_bytes(broken(whole))
    ran = run("batch", tmp_path / name, "-o", tmp_path / "o.jsonl", env=NOWHERE)
    assert (ran.code, "zstd data is broken or cut off behind line " in ran.err) == (2, True), (
        ran.err
    )
    assert not (tmp_path / "o.jsonl").exists()


async def test_zst_on_a_pipe(tmp_path: Path, source: Path) -> None:
    """Found out by its first bytes, as it has no name; empty frames too."""
    zstd = packages.zstd()
    (tmp_path / "packed").write_bytes(zstd.compress(b"") + zstd.compress(source.read_bytes()))
    async with serve(echo) as wire:
        code, out, err = await shell(wire, "cat packed | $batch - -o -", tmp_path)
    assert code == 0, err
    assert sorted(texts(out)) == list("abcde")


async def test_gzip_rows_are_resumed_moved_and_sorted(tmp_path: Path, source: Path) -> None:
    """As plain rows are; also after another program compressed the file anew, and a torn end."""
    out = tmp_path / "out.jsonl.gz"
    server = Changing(failing("b", "d"))
    async with serve(server) as wire:
        assert (await batch(wire, source, "-o", out)).code == 1
        server.reply = echo
        with out.open("ab") as file:
            file.write(gzip.compress(b'{"index":1,"torn":true}\n')[:-9])
        assert (await batch(wire, source, "-o", out)).code == 0
        wire.requests.clear()
        out.write_bytes(gzip.compress(gzip.decompress(out.read_bytes())))
        write(source, [{"prompt": name} for name in "xabcde"])
        assert (await batch(wire, source, "-o", out, "--ordered")).code == 0
        assert list(map(asked, wire.requests)) == ["x"]
    assert texts(gzip.decompress(out.read_bytes())) == list("xabcde")


async def test_a_broken_gzip_output_is_not_overwritten(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    async with serve(echo) as wire:
        await batch(wire, source, "-o", out)
        whole = bytearray(out.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        out.write_bytes(whole)
        ran = await batch(wire, source, "-o", out)
    assert ran.code == 2, ran.err
    assert out.read_bytes() == whole


async def test_a_full_disk_ends_the_batch_with_the_rows_kept(tmp_path: Path, source: Path) -> None:
    """Exit code 1, the path is named, and with room again it goes on."""
    write(source, [{"prompt": f"{number} {'x' * 500}"} for number in range(60)])
    out = tmp_path / "out.jsonl"

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, resource.RLIM_INFINITY))

    async with serve(echo) as wire:
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, "batch", source, "-o", out],
            env=environment(env(wire)),
            capture_output=True,
            timeout=50,
            preexec_fn=small,
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (1, False), done.stderr
        assert str(out).encode() in done.stderr
        kept = rows(out)
        assert 0 < len(kept) < 60
        wire.requests.clear()
        assert (await batch(wire, source, "-o", out)).code == 0
        assert len(wire.requests) == 60 - len(kept)
    assert rows(out)[: len(kept)] == kept


def test_a_device_that_is_full(tmp_path: Path, source: Path) -> None:
    ran = run("batch", source, "-o", "/dev/full", "--demo")
    assert (ran.code, "/dev/full" in ran.err) == (1, True), ran.err
    assert not list(Path("/dev").glob("full.*"))


# --- whose answers they are ----------------------------------------------------------------------


def test_without_a_key_it_is_wrong_usage(tmp_path: Path, source: Path) -> None:
    """The message names what to set, and nothing is created."""
    ran = run("batch", source, "-o", tmp_path / "out.jsonl")
    assert ran.code == 2
    assert all(name in ran.err for name in ("CO_API_KEY", "CO_API_URL", "--demo"))
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("first", ["demo", "server"])
async def test_rows_of_another_server_are_refused(tmp_path: Path, source: Path, first: str) -> None:
    """In either direction; a demo row never passes for an answer."""
    out = tmp_path / "out.jsonl"

    async def ask(wire: Wire, who: str, *flags: str) -> Ran:
        return await run_async(
            *("batch", source, "-o", out, *flags, *(["--demo"] if who == "demo" else [])),
            env=env(wire),
        )

    second = "server" if first == "demo" else "demo"
    async with serve(echo) as wire, serve(echo) as other:
        assert (await ask(wire, first)).code == 0
        before = out.read_bytes()
        names = {"demo": DEMO, "server": wire.url}
        refused = {names[second]: await ask(wire, second)}
        if first == "server":
            refused[other.url] = await ask(other, first)
        for name, wrong in refused.items():
            assert wrong.code == 2, wrong.err
            assert f"are answers of {names[first]}, not of {name}: " in wrong.err
        assert out.read_bytes() == before
        asked_before = len(wire.requests)
        assert (await ask(wire, first)).code == 0
        assert len(wire.requests) == asked_before
        assert (await ask(wire, second, "--no-resume")).code == 0
    assert len(rows(out)) == 5


@pytest.mark.parametrize("change", [["--model", "other"], []])
async def test_rows_of_another_model_or_body_are_not_taken(
    tmp_path: Path, source: Path, change: list[str]
) -> None:
    """A changed request is asked again; rows of none of the requests are refused as a whole."""
    out = tmp_path / "out.jsonl"
    write(source, [*PROMPTS, {"prompt": "own", "model": "mine"}])
    async with serve(echo) as wire:
        assert (await batch(wire, source, "-o", out)).code == 0
        wire.requests.clear()
        if not change:
            write(
                source,
                [{**row, "seed": 1} for row in PROMPTS] + [{"prompt": "own", "model": "mine"}],
            )
        ran = await batch(wire, source, "-o", out, *change)
        assert ran.code == 0, ran.err
        assert sorted(map(asked, wire.requests)) == list("abcde")
        assert "5 rows answer no line" in ran.err


async def test_a_journal_of_the_first_version_is_resumed_only_on_purpose(
    tmp_path: Path, source: Path
) -> None:
    """It does not say who answered; once that is said, it is noted."""
    out = tmp_path / "out.jsonl"
    log = tmp_path / "out.jsonl.journal"
    async with serve(echo) as wire:
        await batch(wire, source, "-o", out)
        noted, _, old = log.read_text().partition("\n")
        assert json.loads(noted) == {"source": wire.url}
        log.write_text(old)
        before = out.read_bytes()
        ran = await batch(wire, source, "-o", out)
        assert (ran.code, "--resume" in ran.err, out.read_bytes()) == (2, True, before)
        assert (await batch(wire, source, "-o", out, "--resume")).code == 0
        assert json.loads(log.read_text().partition("\n")[0]) == {"source": wire.url}
        assert (await batch(wire, source, "-o", out)).code == 0
        assert len(wire.requests) == 5


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 402, 403, 498])
async def test_a_refusal_that_all_would_get_stops_the_batch(tmp_path: Path, status: int) -> None:
    names = [str(number) for number in range(200)]
    source = write(tmp_path / "in.jsonl", [{"prompt": name} for name in names])
    async with serve(failing(*names, status=status)) as wire:
        ran = await batch(wire, source, "-o", tmp_path / "o.jsonl", "--concurrency", "4")
    assert ran.code == 1
    assert len(wire.requests) < 20
    assert str(status) in ran.err
    assert "no further request" in ran.err


@pytest.mark.parametrize(
    ("flags", "most"),
    [(["--max-failures", "3"], 3), (["--max-tokens-total", "1"], 1), (["--deadline", "0.001"], 1)],
)
async def test_limits_stop_a_batch_and_the_same_command_goes_on(
    tmp_path: Path, flags: list[str], most: int
) -> None:
    names = [str(number) for number in range(50)]
    source, out = write(tmp_path / "in.jsonl", [{"prompt": name} for name in names]), tmp_path / "o"
    server = Changing(failing(*names) if "failures" in flags[0] else echo)
    async with serve(server) as wire:
        ran = await batch(wire, source, "-o", out, "--concurrency", "1", *flags)
        assert ran.code == 1, ran.err
        assert "no further request" in ran.err
        assert 1 <= len(wire.requests) <= most
        server.reply = echo
        assert (await batch(wire, source, "-o", out)).code == 0
    assert len(rows(out)) == 50


async def test_a_limit_that_the_last_answer_reaches_is_success(tmp_path: Path) -> None:
    """Every line has its answer."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "a"}])
    async with serve(echo) as wire:
        ran = await batch(wire, source, "-o", tmp_path / "o.jsonl", "--max-tokens-total", "1")
    assert ran.code == 0, ran.err


async def test_an_answer_that_json_cannot_say_is_an_error_row(tmp_path: Path) -> None:
    """The others have theirs; its text is kept."""
    deep = "[" * 250 + "]" * 250
    event = (
        'data: {"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"end":1,'
        f'"text":"x","sources":[{{"type":"document","id":"d","document":{{"x":{deep}}}}}]}}}}}}}}\n\n'
    ).encode()

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        if asked(request) != "b":
            await echo(writer, request)
            return
        answer = body(plain("b")).replace(b"event: content-end", event + b"event: content-end", 1)
        head = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
        writer.write(head + chunked(answer) + b"0\r\n\r\n")

    source = write(tmp_path / "in.jsonl", PROMPTS)
    out = tmp_path / "out.jsonl"
    async with serve(reply) as wire:
        ran = await batch(wire, source, "-o", out)
    assert ran.code == 1
    assert sorted(row["index"] for row in rows(out)) == [0, 2, 3, 4]
    (error,) = rows(tmp_path / "out.errors.jsonl")
    assert error["line"] == 2
    assert os.fspath(out) not in error["message"]


@pytest.mark.parametrize("count", [str(2**70), "9" * 400, "-1", "1e300", "2.5"])
async def test_a_count_of_tokens_that_is_nonsense_stops_nothing(
    tmp_path: Path, source: Path, count: str
) -> None:
    """Every line has its row, in one of the two files, and the sums stay readable."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        answer = body(plain(asked(request)))
        if asked(request) == "b":
            answer = answer.replace(
                b'"output_tokens":', b'"x":1,"output_tokens":%b,"y":' % count.encode()
            )
        head = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
        writer.write(head + chunked(answer) + b"0\r\n\r\n")

    out = tmp_path / "out.jsonl"
    async with serve(reply) as wire:
        ran = await batch(
            wire, source, "-o", out, "--tpm", "1000000", "--max-tokens-total", "100000"
        )
    failed = [row["index"] for row in rows(tmp_path / "out.errors.jsonl")]
    answered = [row["index"] for row in rows(out)]
    assert sorted(answered + failed) == [0, 1, 2, 3, 4]
    assert ran.code == (1 if failed else 0), ran.err
    assert len(ran.err) < 3000


async def test_limits_hold_for_results_of_another_kind() -> None:
    """As of a cluster: no further request is given out, and the rest is ended."""
    ended: list[str] = []

    class Results:
        def __init__(self, requests: Iterator[dict[str, Any]]) -> None:
            self.requests = requests

        async def __aiter__(self) -> AsyncIterator[FanOutResult]:
            for index, request in enumerate(self.requests):
                yield FanOutResult(index=index, request="x", error=ValueError(), data=request)

        async def aclose(self) -> None:
            ended.append("closed")

    count = StopCount(Stop(failures=3))
    results = counted(Results(until_stopped(iter([{}] * 10), count)), count)
    seen = 0
    with pytest.raises(StopReachedError):
        async for _ in results:
            seen += 1
    assert (seen, ended) == (3, ["closed"])
