"""Lines of a batch that nobody would write on purpose: none of them stops the others.

``STREAMCHAT_FUZZ_LINES=200000`` runs the whole batch over so many of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path

import pytest

from streamchat.cli.rows import Line, read_lines
from streamchat.cli.sources import MAX_LINE
from streamchat.protocol.plain import encode_json
from tests.cli.command import run_async
from tests.cli.test_batch import echo, env, rows
from tests.fanout import FIGURES
from tests.wire.server import Request, serve

LINES = int(os.environ.get("STREAMCHAT_FUZZ_LINES", "1500"))
WORDS = (
    "a",
    "\u00e9",
    "\u65e5\u672c",
    "\U0001f600",
    "\\u0000",
    "\u2028",
    "\x7f",
    "\u202e",
    "\\\\",
    "[red]",
)
NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "9" * 5000,
    "1e400",
    "0x1",
    "01",
    ".5",
)
VALUES = (
    *(
        "null",
        "true",
        "7",
        "-1",
        "2.5",
        '""',
        '"x"',
        "[]",
        "{}",
        "[[]]",
        '{"a":1}',
        '[{"role":"user"}]',
    ),
    *('"\\ud83e"', '"\\udd99\\ud83e"', '["\\ud800"]', '{"\\udc00":1}', "[" * 300 + "]" * 300),
    *('{"a":' * 300 + "1" + "}" * 300, "[" * 100_000, "9" * 400, *NUMBERS),
)
FIELDS = (
    "prompt",
    "messages",
    "model",
    "temperature",
    "seed",
    "tools",
    "documents",
    "id",
    "stop_sequences",
)


def good(chance: random.Random, number: int) -> bytes:
    """A line that must have its answer."""
    words = " ".join(chance.choices(WORDS, k=chance.randrange(1, 6)))
    text = f'"{number} {words}"'
    ids = ("null", '"own"', "7", str(2**70), '{"a":[1,null]}', '"\\ud83e\\udd99"', "1.5")
    body = chance.choice(
        (
            f'{{"prompt": {text}}}',
            f'{{"id": {chance.choice(ids)}, "prompt": {text}}}',
            f'{{"messages": [{{"role": "user", "content": {text}}}], "temperature": 0.5}}',
            f' \t{{"prompt":{text},"stream":false,"model":"m"}}\r',
            f'\ufeff{{"prompt":{text}}}',
        )
    )
    return body.encode()


def odd(chance: random.Random, number: int) -> bytes:
    """A line that may be anything, but no two lines."""
    line = good(chance, number)
    kind = chance.randrange(12)
    if kind == 0:
        line = chance.randbytes(chance.randrange(1, 200))
    elif kind == 1:
        line = line[: chance.randrange(len(line))]
    elif kind == 2:
        line = line.decode().encode(chance.choice(("utf-16", "utf-16-be", "utf-32", "utf-16-le")))
    elif kind == 3:
        line = b"\0" * chance.randrange(1, 50) + line
    elif kind == 4:
        place = chance.randrange(len(line))
        line = line[:place] + chance.randbytes(chance.randrange(1, 4)) + line[place + 1 :]
    elif kind == 5:
        line = chance.choice(VALUES).encode()
    elif kind <= 9:
        pairs = [
            f'"{chance.choice(FIELDS)}":{chance.choice(VALUES)}'
            for _ in range(chance.randrange(1, 4))
        ]
        line = ("{" + ",".join([f'"prompt":"{number}"', *pairs]) + "}").encode()
    elif kind == 10:
        line = f'{{"prompt":"x","id":{chance.choice(VALUES)}}}'.encode()
    else:
        line = f'{{"prompt":"x","{chance.choice(WORDS)}":1}}'.encode()
    return line.replace(b"\n", b" ")


def read(*lines: bytes) -> list[Line]:
    return list(read_lines(lines, "m"))


@pytest.mark.parametrize("seed", range(4))
def test_any_line_is_a_request_or_has_a_problem_that_can_be_written(seed: int) -> None:
    """Nothing is raised; what is said of it, and its id, are JSON."""
    chance = random.Random(seed)
    for number in range(1500):
        is_good = number % 3 == 0
        (line,) = read(good(chance, number) if is_good else odd(chance, number))
        encode_json({"id": line.id, "problem": line.problem})
        assert len(line.key) == 32
        if is_good:
            assert line.request is not None, line.problem
        if line.request is not None:
            encode_json({key: value for key, value in line.request.items() if key != "data"})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"prompt":"cut \\ud83e"}', "lone surrogate"),
        (b'{"prompt":"x","\\ud83e":1}', "is no field"),
        (b'{"prompt":"x","id":"\\udd99"}', "id holds a lone surrogate"),
        (b'{"prompt":"x","id":{"a":["\\udd99"]}}', "id.a[0] holds a lone surrogate"),
        (b'{"prompt":"x","temperature":NaN}', "not a JSON number"),
        (b'{"prompt":"x","id":-Infinity}', "not a JSON number"),
        (b'{"prompt":"x","seed":1e999}', "out of range"),
        (b'{"prompt":"x","seed":' + b"9" * 5000 + b"}", "out of range"),
        (b'{"prompt":"x","documents":' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt":"caf\xe9"}', "not UTF-8 at byte 14"),
        ('{"prompt":"x"}'.encode("utf-16"), "not UTF-8 at byte 0"),
        ('{"prompt":"x"}'.encode("utf-16-le"), "not JSON"),
        (b"\0\0\0", "not JSON"),
        (b'{"prompt":"x"}\0', "not JSON"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(line: bytes, problem: str) -> None:
    (found,) = read(line)
    assert found.request is None
    assert problem in found.problem


def test_ids_keep_their_value() -> None:
    """Whatever JSON value they are, beyond 64 bits too."""
    for own in (None, 2**70, -(2**70), "\U0001f999", [1, {"a": None}], 1.5, True):
        (line,) = read(json.dumps({"prompt": "x", "id": own}).encode())
        assert line.id == own
        assert json.loads(encode_json({"id": line.id})) == {"id": own}


def test_concatenated_files_may_have_marks_in_the_middle() -> None:
    """A UTF-8 byte order mark before a line is not part of it."""
    first, second = read(b'\xef\xbb\xbf{"prompt":"a"}\n', b'\xef\xbb\xbf{"prompt":"b"}\n')
    assert first.request is not None
    assert second.request is not None


@pytest.mark.timeout(3600)
async def test_no_line_kills_a_batch(tmp_path: Path) -> None:
    """Every good line has its answer, every other one a row somewhere; exit code 1, no traceback."""
    chance = random.Random(14)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    is_good: list[bool] = []
    blank = 0
    with source.open("wb") as file:
        for number in range(LINES):
            is_good.append(chance.random() < 0.4)
            line = good(chance, number) if is_good[-1] else odd(chance, number)
            file.write(line + b"\n")
            blank += not line.removeprefix(b"\xef\xbb\xbf").strip()
        for line in (
            b'{"prompt":"' + b"x" * 20_000_000 + b'"}',
            b"y" * 20_000_000,
            b"z" * (MAX_LINE + 2),
            b'{"prompt":"the last"}',
        ):
            file.write(line + b"\n")
            is_good.append(line.endswith(b"}"))

    async def quick(writer: asyncio.StreamWriter, request: Request) -> None:
        if len(request.body) < 10_000:
            await echo(writer, request)
        else:
            short = json.dumps({"messages": [{"content": "long"}]}).encode()
            await echo(writer, Request(request.line, request.headers, short, request.connection))
        wire.requests.clear()

    async with serve(quick) as wire:
        ran = await run_async("batch", source, "-o", out, env=env(wire), seconds=3000)
    assert ran.code == 1, ran.err
    answered = {row["index"]: row for row in rows(out)}
    failed = {row["index"]: row for row in rows(tmp_path / "out.errors.jsonl")}
    assert [
        number for number, good_one in enumerate(is_good) if good_one and number not in answered
    ] == []
    assert not answered.keys() & failed.keys()
    assert len(answered) + len(failed) == len(is_good) - blank
    assert all(row["line"] == row["index"] + 1 for row in failed.values())
    figures = f"{len(is_good):,} lines: {sum(is_good):,} good and answered, {len(failed):,} errors"
    FIGURES.append(("fuzzed batch", f"{figures}, 0 tracebacks"))
