"""The files of a batch: compared, created for their owner, and never in the place of something else."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from streamchat.cli import cli
from streamchat.cli.places import Places, errors_path
from streamchat.journal import Journal, request_key
from streamchat.journal.files import JOURNAL, RESULTS, write_whole
from streamchat.journal.places import Shape, followed, holds_lines
from streamchat.local import LocalServer
from streamchat.protocol.errors import ConfigurationError
from tests.cli.command import on_terminal, run_async

LINE = '{"prompt": "a"}\n'


def checked(source: Path, out: Path, picture: Path | None = None) -> Places:
    return Places.checked(str(source), str(out), None if picture is None else str(picture))


def tried(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and message of a batch that is refused before anything is sent."""
    ran = CliRunner().invoke(
        cli, ["batch", *map(str, arguments)], env={"CO_API_URL": "http://127.0.0.1:9"}
    )
    return ran.exit_code, " ".join(ran.stderr.split())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(LINE)
    return path


def link(source: Path, out: Path) -> tuple[Path, Path]:
    out.symlink_to(source)
    return source, out


def hard_link(source: Path, out: Path) -> tuple[Path, Path]:
    out.hardlink_to(source)
    return source, out


def loop(source: Path, out: Path) -> tuple[Path, Path]:
    """The input leads to the output, which is not there yet."""
    source.unlink()
    out.write_text(LINE)
    source.symlink_to(out)
    return source, out


def side(suffix: str) -> Callable[[Path, Path], tuple[Path, Path]]:
    def make(source: Path, out: Path) -> tuple[Path, Path]:
        return source.rename(source.with_name(f"{out.name}{suffix}")), out

    return make


def errors(source: Path, out: Path) -> tuple[Path, Path]:
    return source.rename(errors_path(out)), out


@pytest.mark.parametrize("flags", [(), ("--no-resume",), ("--ordered",)], ids=str)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda source, _: (source, source), id="the same path"),
        pytest.param(lambda source, _: (source, source.parent / "." / source.name), id="spelt so"),
        pytest.param(link, id="a symbolic link"),
        pytest.param(hard_link, id="a hard link"),
        pytest.param(loop, id="a symbolic link to the output"),
        pytest.param(errors, id="the errors file"),
        pytest.param(side(".journal"), id="the journal"),
        pytest.param(side(".new"), id="the replacement"),
        pytest.param(side(".journal.new"), id="the journal's replacement"),
        pytest.param(side(".journal.tmp"), id="the journal's copy"),
    ],
)
def test_an_input_that_is_written_is_refused(
    tmp_path: Path,
    source: Path,
    make: Callable[[Path, Path], tuple[Path, Path]],
    flags: tuple[str, ...],
) -> None:
    """Exit code 2 whatever the flags; nothing is opened, and the input is as it was."""
    source, out = make(source, tmp_path / "out.jsonl")
    before = sorted(tmp_path.iterdir())
    code, err = tried(source, "-o", out, *flags)
    assert (code, "are the same file" in err) == (2, True), err
    assert source.read_text() == LINE
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["in.jsonl", "out.jsonl", "out.errors.jsonl", "OUT.jsonl"])
def test_a_picture_in_place_of_another_file_is_refused(
    tmp_path: Path, source: Path, name: str
) -> None:
    """Also where only the case of the name differs, before either file is there."""
    with pytest.raises(click.UsageError, match="are the same file"):
        checked(source, tmp_path / "out.jsonl", tmp_path / name)


def test_a_picture_does_not_replace_what_is_not_one(tmp_path: Path, source: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    with pytest.raises(click.BadParameter, match="holds something else than SVG"):
        checked(source, tmp_path / "out.jsonl", notes)
    notes.write_text("<svg></svg>")
    checked(source, tmp_path / "out.jsonl", notes)


def test_names_that_differ_in_case_are_two_files_where_they_are(
    tmp_path: Path, source: Path
) -> None:
    """An input beside an output of the same letters is fine once the file system tells them apart."""
    out = tmp_path / "IN.jsonl"
    if out.exists():
        pytest.skip("this file system ignores case")
    assert checked(source, out, None).out == out


def test_terminals_and_null_may_be_used_twice() -> None:
    """They hold nothing that could be destroyed."""
    assert checked(Path("/dev/null"), Path("/dev/null")).is_stream


def test_two_outputs_never_share_an_errors_file() -> None:
    names = [
        "e",
        "e.jsonl",
        "e.errors",
        "e.errors.jsonl",
        "e.jsonl.gz",
        "e.gz",
        ".jsonl",
        "E.JSONL",
    ]
    assert len({errors_path(Path(name)) for name in names}) == len(names)
    assert errors_path(Path("a/e.jsonl")) == Path("a/e.errors.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("out.errors.jsonl", b"my notes\n", "does not hold the errors"),
        ("out.errors.jsonl", b'{"index":0,"id":null}\n', "does not hold the errors"),
        ("out.errors.jsonl", b'{"a":1}', "does not hold the errors"),
        ("out.errors.jsonl.journal", b"", "output of another batch"),
        ("out.jsonl.journal", b"my notes\n", "does not hold rows of a job"),
        ("out.jsonl.new", b"my notes\n", "does not hold rows of a job"),
        ("out.jsonl.journal.new", b'["mine"]\n', "does not hold rows of a job"),
        ("out.jsonl", b"a thesis\n", ""),
        # One key of ours is not enough.
        ("out.errors.jsonl", b'{"line": "my only copy"}\n', "does not hold the errors"),
        ("out.errors.jsonl", b'{"index":0,"line":1,"id":7}\n', "does not hold the errors"),
        ("out.errors.jsonl", b'{"index":0,"text":"cut o', "does not hold the errors"),
        ("out.jsonl.journal", b'{"source": "a", "n": 1}\n', "does not hold rows of a job"),
        ("out.jsonl.journal", b'{"index": 0, "text": "b"}\n', "does not hold rows of a job"),
        ("out.jsonl.journal", b'{"index":0,"key":"c"}\n', "does not hold rows of a job"),
        ("out.jsonl.new", b'{"index": 0, "text": "d"}\n', "does not hold rows of a job"),
        ("out.jsonl.new", b'{"index":0,"id":7}', "does not hold rows of a job"),
        ("out.jsonl.journal.new", b'{"source": 1}\n', "does not hold rows of a job"),
        ("out.jsonl.journal.tmp", b'{"index": 0}\n', "does not hold rows of a job"),
        ("out.jsonl", b'{"index": 0, "text": "e"}\n', ""),
        ("out.jsonl", b'{"index":0,"te', ""),
    ],
)
@pytest.mark.parametrize("flag", ["--resume", "--no-resume"])
def test_a_foreign_file_is_never_replaced(
    tmp_path: Path, source: Path, name: str, content: bytes, problem: str, flag: str
) -> None:
    """Exit code 2 names it; its bytes stay, and nothing else is left."""
    foreign = tmp_path / name
    foreign.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    code, err = tried(source, "-o", tmp_path / "out.jsonl", flag)
    assert code == 2, err
    assert problem in err
    assert foreign.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("shapes", "line"),
    [
        (RESULTS, b'{"index":12,"id":{"a":3},"response":{},"attempts":1,"timing":{}}\n'),
        (JOURNAL, b'{"source":"http://127.0.0.1:9"}\n'),
        (JOURNAL, b'{"index":12,"key":"%032x"}\n' % 7),
    ],
)
def test_our_line_is_ours_wherever_it_was_cut(
    tmp_path: Path, shapes: tuple[Shape, ...], line: bytes
) -> None:
    """Also with zeros behind it, as a power failure leaves them."""
    path = tmp_path / "file"
    for size in range(len(line) + 1):
        for zeros in (b"", bytes(7)):
            path.write_bytes(line[:size] + zeros)
            assert holds_lines(path, *shapes), line[:size]


@pytest.mark.parametrize(
    "name", ["out.errors.jsonl", "out.jsonl.journal", "out.jsonl.new", "out.jsonl.journal.new"]
)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_place_of_a_side_file_is_not_followed(
    tmp_path: Path, source: Path, name: str, dangling: bool
) -> None:
    """Anybody can guess the names."""
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_text("victim")
    (tmp_path / name).symlink_to(victim)
    code, err = tried(source, "-o", tmp_path / "out.jsonl")
    assert (code, "symbolic link" in err) == (2, True), err
    assert (tmp_path / name).is_symlink()
    assert victim.exists() is not dangling
    assert dangling or victim.read_text() == "victim"


def test_an_errors_file_with_a_second_name_is_replaced_not_emptied(
    tmp_path: Path, source: Path
) -> None:
    """A backup made of hard links keeps its content."""
    out, backup = tmp_path / "out.jsonl", tmp_path / "backup"
    row = '{"index":0,"line":1,"id":null,"error":"BadLine","message":"x"}\n'
    errors_path(out).write_text(row)
    backup.hardlink_to(errors_path(out))
    os.close(checked(source, out, None).create_errors(errors_path(out)))
    assert backup.read_text() == row
    assert errors_path(out).read_text() == ""


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_an_output_link_is_followed_only_where_nobody_else_could_put_it(
    tmp_path: Path, mode: int
) -> None:
    """In a sticky folder one's own link is one's own."""
    shared, target = tmp_path / "shared", tmp_path / "target.jsonl"
    shared.mkdir()
    (shared / "out.jsonl").symlink_to(target)
    assert followed(shared / "out.jsonl") == target
    shared.chmod(mode)
    if mode & stat.S_ISVTX:
        assert followed(shared / "out.jsonl") == target
    else:
        with pytest.raises(ConfigurationError, match="others can write"):
            followed(shared / "out.jsonl")


def test_links_in_a_circle_end(tmp_path: Path, source: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(click.BadParameter, match="symbolic links"):
        checked(source, one, None)


def test_answers_are_created_for_their_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask; a copy has its final mode before it holds a byte."""
    before = os.umask(0)
    try:
        out = tmp_path / "out.jsonl"
        with Journal.create(out) as job:
            key = request_key({"a": 1})
            job.start(0, key)
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
        source = tmp_path / "in.jsonl"
        source.write_text(LINE)
        os.close(checked(source, out, None).create_errors(errors_path(out)))
        assert stat.S_IMODE(errors_path(out).stat().st_mode) == 0o600
        out.chmod(0o640)
        seen: list[tuple[int, int]] = []
        fchmod = os.fchmod

        def watched(fd: int, mode: int) -> None:
            seen.append((stat.S_IMODE(os.fstat(fd).st_mode), mode))
            fchmod(fd, mode)

        monkeypatch.setattr(os, "fchmod", watched)
        write_whole(tmp_path / "copy", [b"answers\n"], like=out)
        assert seen == [(0o600, 0o640)]
        assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", ["folder", "missing folder", "file as folder", "loop"])
def test_an_output_that_cannot_be_is_wrong_usage(tmp_path: Path, source: Path, kind: str) -> None:
    """Exit code 2, and the path is named."""
    out = {
        "folder": tmp_path,
        "missing folder": tmp_path / "no" / "out.jsonl",
        "file as folder": source / "out.jsonl",
        "loop": tmp_path / "loop.jsonl",
    }[kind]
    if kind == "loop":
        out.symlink_to(out)
    code, err = tried(source, "-o", out)
    assert code == 2, err
    assert str(out) in err


NAME = "e[red]f[bold]\x1b]52;c;aGk=\x07\x9b31m\u202e\u200b\U000e0041\n.jsonl"


@pytest.mark.parametrize(
    ("name", "markup"),
    [(NAME, "e[red]f[bold]"), ("g[link=file:evil]h.jsonl", "g[link=file:evil]h")],
)
async def test_a_file_name_cannot_control_the_terminal(
    tmp_path: Path, name: str, markup: str
) -> None:
    """It is neither an escape sequence nor rich's markup, in the table or in a message."""
    source = tmp_path / name
    source.write_text(LINE + "bad\n")
    async with LocalServer() as server:

        def work() -> tuple[int, str]:
            arguments = ("batch", str(source), "-o", str(tmp_path / f"out{name}"))
            with on_terminal(*arguments, env={"CO_API_URL": server.url, "COLUMNS": "300"}) as term:
                return term.wait(), term.seen

        code, seen = await asyncio.to_thread(work)
        missing = await run_async("batch", tmp_path / f"no{name}", "-o", tmp_path / "o.jsonl")
    assert code == 1
    assert missing.code == 2
    for text in (seen, missing.err):
        assert not {"\x1b]", "\x07", "\x9b", "\u202e", "\u200b", "\U000e0041"} & set(text)
        assert "\x1b]" not in text
        assert markup in text
