"""The journal of a batch job: no kill, no power failure and no edit loses a row or gives one twice."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamchat.journal import FIELDS, Journal, SyncEvery, request_key
from streamchat.journal import keys as keys_of_journal
from streamchat.journal.packing import packing_of
from streamchat.protocol.errors import ConfigurationError
from tests import packages

ROOT = Path(__file__).resolve().parents[2]


def key(request: str) -> str:
    return request_key({"message": request})


def keys(requests: Sequence[str]) -> Iterator[str]:
    return map(key, requests)


def row(index: int, request: str) -> dict[str, Any]:
    """The row whose response says what was asked, so that a mix-up shows."""
    return {"index": index, "id": None, "response": {"q": request}, "attempts": 1, "timing": {}}


def line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def log_of(out: Path) -> Path:
    return out.with_name(out.name + ".journal")


def content(out: Path) -> list[tuple[int, str]]:
    return [
        (r["index"], r["response"]["q"]) for r in map(json.loads, out.read_bytes().splitlines())
    ]


def work(job: Journal, requests: Sequence[str], *, only: Sequence[int] | None = None) -> list[str]:
    """Do what is not done, and say what that was."""
    redone: list[str] = []
    for index in only if only is not None else range(len(requests)):
        if not job.is_done(index):
            job.start(index, key(requests[index]))
            job.finish(row(index, requests[index]))
            redone.append(requests[index])
    return redone


def begun(out: Path, requests: Sequence[str], *, only: Sequence[int] | None = None) -> None:
    """A job that was ended after these indexes."""
    with Journal.create(out) as job:
        work(job, requests, only=only)


def only_the_files(out: Path) -> bool:
    return {file.name for file in out.parent.iterdir()} == {out.name, log_of(out).name}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many files are made and no power fails."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# Keys


def test_a_key_does_not_depend_on_key_order() -> None:
    """Equal requests have equal keys, others have others."""
    assert request_key({"a": 1, "b": {"c": 2, "d": "\u00e9"}}) == request_key(
        {"b": {"d": "\u00e9", "c": 2}, "a": 1}
    )
    assert request_key({"a": 1}) != request_key({"a": 1.0})
    assert request_key({"a": [1, 2]}) != request_key({"a": [2, 1]})


def test_a_key_is_the_same_in_every_version() -> None:
    """A key that changed would do paid work twice."""
    assert request_key({"message": "a", "k": 1.5}) == "a71016c0f6098d2f0a20e4453bfd301e"


# Resuming, case by case


@attrs.frozen
class Case:
    before: str
    """Requests of the first run, one letter each."""
    finished: list[int]
    after: str
    """Requests of the second run."""
    todo: str
    """What the second run has to do."""
    left_alone: bool = True
    """Whether OUT is the same file, its rows untouched."""
    dropped: int = 0


CASES = {
    "nothing": Case("", [], "abc", "abc"),
    "none finished": Case("abc", [], "abc", "abc"),
    "all": Case("abc", [0, 1, 2], "abc", ""),
    "some": Case("abcd", [3, 1], "abcd", "ac"),
    "one line added at the end": Case("ab", [1, 0], "abc", "c"),
    "one line added at the start": Case("abc", [0, 2], "xabc", "xb", left_alone=False),
    "a line removed": Case("abcd", [3, 0], "acd", "c", left_alone=False),
    "turned round": Case("abc", [0, 1, 2], "cba", "", left_alone=False),
    "an edited line, done": Case("abc", [0, 1], "axc", "xc", left_alone=False, dropped=1),
    "an edited line, not done": Case("abc", [0, 2], "axc", "x"),
    "done lines removed from the end": Case("abc", [0, 2], "a", "", left_alone=False, dropped=1),
    "equal requests, one of them done": Case("aaa", [1], "aaa", "aa"),
    "equal requests, one more": Case("aa", [0, 1], "aaa", "a"),
    "equal requests, one fewer": Case("aaa", [2, 0, 1], "aa", "", left_alone=False, dropped=1),
    "equal requests that moved": Case("aab", [0, 1], "baa", "b", left_alone=False),
    "edited and moved": Case("abcd", [0, 1, 2, 3], "dxbb", "xb", left_alone=False, dropped=2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_resume(out: Path, case: Case) -> None:
    """A resumed job does what is missing, once, whatever became of the input."""
    if case.before:
        begun(out, case.before, only=case.finished)
    before = out.read_bytes() if out.exists() else b""
    inode = out.stat().st_ino if out.exists() else None
    with Journal.resume(out, keys(case.after)) as job:
        assert job.dropped == case.dropped
        assert job.done == len(case.after) - len(case.todo)
        assert "".join(work(job, case.after)) == case.todo
        assert job.done == len(case.after)
    assert sorted(content(out)) == list(enumerate(case.after))
    if case.left_alone and inode is not None:
        assert out.stat().st_ino == inode
        assert out.read_bytes().startswith(before)
    assert only_the_files(out)
    with Journal.resume(out, keys(case.after)) as job:
        assert (job.done, job.dropped) == (len(case.after), 0)


def test_rows_of_one_index_twice(out: Path) -> None:
    """The second goes; of equal requests that both lack a row it answers the other."""
    begun(out, "ab", only=[0, 1])
    out.write_bytes(out.read_bytes() + line(row(0, "a")))
    with Journal.resume(out, keys("aba")) as job:
        assert (job.done, job.dropped) == (3, 0)
    assert content(out) == [(0, "a"), (1, "b"), (2, "a")]
    out.write_bytes(out.read_bytes() + line(row(0, "a")))
    with Journal.resume(out, keys("aba")) as job:
        assert (job.done, job.dropped) == (3, 1)
    assert content(out) == [(0, "a"), (1, "b"), (2, "a")]


def test_a_row_without_a_key_does_not_count(out: Path) -> None:
    """A power failure may have kept a row and lost its key."""
    begun(out, "ab")
    first = log_of(out).read_bytes().splitlines(keepends=True)[0]
    log_of(out).write_bytes(first)
    with Journal.resume(out, keys("ab")) as job:
        assert work(job, "ab") == ["b"]
    assert content(out) == [(0, "a"), (1, "b")]


def test_a_key_of_an_old_input_is_forgotten(out: Path) -> None:
    """Once an input without it was seen, no row can pass for its answer."""
    begun(out, "ab", only=[0])
    with Journal.resume(out, keys("ab")) as job:
        job.start(1, key("b"))
    with Journal.resume(out, keys("ax")):
        pass
    assert log_of(out).read_bytes() == line({"index": 0, "key": key("a")})


TORN: dict[str, bytes] = {
    "half a line": b'{"index":2,"id":nu',
    "no newline": line(row(2, "c")).rstrip(b"\n"),
    "not JSON": b'{"index":2,"id"\n',
    "zeros": bytes(5000),
}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_torn_results(out: Path, torn: bytes) -> None:
    """The cut line goes, and its request is done again."""
    begun(out, "abc", only=[0, 1])
    whole = out.read_bytes()
    out.write_bytes(whole + torn)
    with Journal.resume(out, keys("abc")) as job:
        assert out.read_bytes() == whole
        assert work(job, "abc") == ["c"]
    assert content(out) == list(enumerate("abc"))


@pytest.mark.parametrize("torn", [b'{"index":2,"k', line({"index": 2, "key": key("c")})[:-1]])
def test_torn_journal(out: Path, torn: bytes) -> None:
    """The cut line goes; its request cannot have been sent."""
    begun(out, "abc", only=[0, 1])
    whole = log_of(out).read_bytes()
    log_of(out).write_bytes(whole + torn)
    with Journal.resume(out, keys("abc")) as job:
        assert log_of(out).read_bytes() == whole
        assert work(job, "abc") == ["c"]


def test_torn_results_of_a_changed_input(out: Path) -> None:
    """The cut line does not come along when the rows move."""
    begun(out, "ab")
    out.write_bytes(out.read_bytes() + b'{"index":2')
    with Journal.resume(out, keys("xab")):
        assert content(out) == [(1, "a"), (2, "b")]


BROKEN: dict[str, tuple[Callable[[Path], Path], int, bytes, str]] = {
    "results": (lambda out: out, 1, b'{"index":1,"id\n', "line 2: not JSON, and not the last"),
    "results, blank": (lambda out: out, 1, b"\n", "line 2: not JSON, and not the last"),
    "results, no object": (lambda out: out, 1, b"[]\n", "line 2: not a JSON object"),
    "results, no index": (lambda out: out, 2, b"{}\n", "line 3: an index is a number"),
    "journal": (log_of, 1, b'{"index":1,"ke\n', "line 2: not JSON, and not the last"),
    "journal, bad index": (log_of, 1, line({"index": -1, "key": key("a")}), "line 2: an index is"),
    "journal, bad key": (log_of, 2, line({"index": 1, "key": "a"}), "line 3: a key is"),
    "journal, true": (log_of, 1, line({"index": True, "key": key("a")}), "line 2: an index is"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_line_in_the_middle(
    out: Path, broken: tuple[Callable[[Path], Path], int, bytes, str]
) -> None:
    """An error that names file and line; both files are as they were, torn ends included."""
    of, number, text, problem = broken
    begun(out, "abc")
    lines = of(out).read_bytes().splitlines(keepends=True)
    lines[number] = text
    of(out).write_bytes(b"".join(lines))
    for file in (out, log_of(out)):
        if number < 2 or file != of(out):
            file.write_bytes(file.read_bytes() + b'{"in')
    before = out.read_bytes(), log_of(out).read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        Journal.resume(out, keys("abc"))
    assert f"{of(out)}, {problem}" in str(caught.value)
    assert (out.read_bytes(), log_of(out).read_bytes()) == before


def test_results_without_a_journal_are_not_touched(out: Path) -> None:
    """They may be anything; no journal is made for them."""
    out.write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match="no journal beside it"):
        Journal.resume(out, keys("abc"))
    assert out.read_bytes() == b"precious"
    assert not log_of(out).exists()


def test_results_of_another_input_are_not_touched(out: Path) -> None:
    """If no row fits, the input is more likely wrong than all results."""
    begun(out, "abc")
    before = out.read_bytes(), log_of(out).read_bytes()
    with pytest.raises(ConfigurationError, match="none of the 3 rows"):
        Journal.resume(out, keys("xyz"))
    assert (out.read_bytes(), log_of(out).read_bytes()) == before


def test_a_key_that_is_none(out: Path) -> None:
    """What the caller computes differently is refused before anything is changed."""
    begun(out, "ab")
    before = out.read_bytes()
    for bad in ("", "abc", key("a").upper(), key("a") + "00"):
        with pytest.raises(ValueError, match="request_key"):
            Journal.resume(out, [key("b"), bad])
    assert out.read_bytes() == before


def _broken_keys() -> Iterator[str]:
    yield key("a")
    raise RuntimeError("the input is gone")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
@pytest.mark.parametrize(
    ("given", "error"),
    [
        (_broken_keys, RuntimeError),
        (lambda: [key("a"), "abc"], ValueError),
        (lambda: [key("a"), 5], ValueError),
        (lambda: None, TypeError),
    ],
    ids=["raises", "no key", "no text", "no iterable"],
)
def test_wrong_keys_leave_no_file_behind(
    tmp_path: Path, name: str, given: Callable[[], Any], error: type[Exception]
) -> None:
    """The keys are read before a file is opened: there is nothing to clean up."""
    with pytest.raises(error):
        Journal.resume(tmp_path / name, given())
    assert not list(tmp_path.iterdir())


def test_rows_are_moved_as_they_are(out: Path) -> None:
    """Whatever program wrote the line: only the index changes."""
    begun(out, "ab")
    odd = b'{ "index" : 0, "x": 1.50, "response": {"q": "\\u0061"} }\n'
    turned = b'{"id":null,"index":1,"response":{"q":"b"}}\n'
    out.write_bytes(odd + turned)
    with Journal.resume(out, keys("xab")) as job:
        assert [r["index"] for r in job.rows()] == [1, 2]
    first, second = out.read_bytes().splitlines(keepends=True)
    assert first == b'{"index":1, "x": 1.50, "response": {"q": "\\u0061"} }\n'
    assert second == b'{"id":null,"index":2,"response":{"q":"b"}}\n'


def test_permissions_and_links_stay(out: Path, tmp_path: Path) -> None:
    """A private file is private after rows moved, and a link is a link."""
    begun(out, "ab")
    out.chmod(0o600)
    link = tmp_path / "elsewhere" / "link.jsonl"
    link.parent.mkdir()
    link.symlink_to(out)
    with Journal.resume(link, keys("xab")) as job:
        work(job, "xab")
    assert link.is_symlink()
    assert out.stat().st_mode & 0o777 == 0o600
    assert len(content(out)) == 3


# Beginning anew


def test_create_refuses_results(out: Path) -> None:
    """Results are replaced on purpose only."""
    begun(out, "ab")
    before = out.read_bytes(), log_of(out).read_bytes()
    with pytest.raises(ConfigurationError, match="holds results"):
        Journal.create(out)
    assert (out.read_bytes(), log_of(out).read_bytes()) == before
    with Journal.create(out, fresh=True) as job:
        assert not job.is_done(0)
        work(job, "xy")
    assert content(out) == list(enumerate("xy"))


# Running


def test_rows_are_on_disk_when_finish_returns(out: Path) -> None:
    """Nothing waits in the process; rows keep the order in which they completed."""
    with Journal.create(out) as job:
        job.start(1, key("b"))
        job.start(0, key("a"))
        assert log_of(out).read_bytes() == b"".join(
            line({"index": i, "key": key(q)}) for i, q in [(1, "b"), (0, "a")]
        )
        job.finish(dict(reversed(row(1, "b").items())))
        assert out.read_bytes() == line(row(1, "b"))
        assert tuple(next(iter(job.rows()))) == FIELDS


def test_misuse_writes_nothing(out: Path) -> None:
    """A row that resuming would drop, or find twice, is refused."""
    with Journal.create(out) as job:
        job.start(0, key("a"))
        before = log_of(out).read_bytes()
        for index in (-1, True, 1.0, keys_of_journal.MAX_REQUESTS):
            with pytest.raises(ValueError, match="an index"):
                job.start(index, key("a"))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a key"):
            job.start(1, "a")
        for bad in (row(0, "a") | {"extra": 1}, {"index": 0}):
            with pytest.raises(ValueError, match="a row holds"):
                job.finish(bad)
        with pytest.raises(ValueError, match="not started"):
            job.finish(row(1, "b"))
        with pytest.raises(TypeError):
            job.finish(row(0, "a") | {"response": object()})
        assert out.read_bytes() == b""
        job.finish(row(0, "a"))
        with pytest.raises(ValueError, match="has its row already"):
            job.finish(row(0, "a"))
        with pytest.raises(ValueError, match="has its row already"):
            job.start(0, key("a"))
        assert log_of(out).read_bytes() == before
    assert content(out) == [(0, "a")]


def test_a_request_may_be_started_again(out: Path) -> None:
    """A retry is the same request, another one takes the index over."""
    with Journal.create(out) as job:
        for request in "aab":
            job.start(0, key(request))
        job.finish(row(0, "b"))
    with Journal.resume(out, keys("b")) as job:
        assert job.is_done(0)


def test_close_twice(out: Path) -> None:
    """And what comes after it is an error, not a lost row."""
    job = Journal.create(out)
    job.start(0, key("a"))
    job.close()
    job.close()
    with pytest.raises(ValueError, match="closed"):
        job.finish(row(0, "a"))


@attrs.define
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


async def test_syncs_come_in_batches(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many rows or so many seconds, whichever is first; keys before rows."""
    synced: list[Path] = []
    clock = Clock()
    with Journal.create(out, every=SyncEvery(rows=3, seconds=10, clock=clock)) as job:
        monkeypatch.setattr(
            os, "fsync", lambda fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        )
        both = [log_of(out), out]
        await job.sync_if_due()
        for index, now, expected in [
            (0, 0, []),
            (1, 9, []),
            (2, 9, both),
            (3, 9, []),
            (4, 20, both),
        ]:
            clock.now = now
            job.start(index, key("a"))
            job.finish(row(index, "a"))
            await job.sync_if_due()
            assert synced == expected, index
            synced.clear()
        clock.now = 99
        await job.sync_if_due()
        assert synced == []
    assert synced == both


async def test_rows_finished_during_a_sync_count_for_the_next(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came too late for an fsync is not taken for durable."""
    with Journal.create(out, every=SyncEvery(rows=1)) as job:
        for index in range(2):
            job.start(index, key("a"))
        job.finish(row(0, "a"))
        calls: list[int] = []

        def fsync(fd: int) -> None:
            calls.append(fd)
            if len(calls) == 2:
                job.finish(row(1, "a"))

        monkeypatch.setattr(os, "fsync", fsync)
        await job.sync_if_due()
        assert len(calls) == 2
        await job.sync_if_due()
        assert len(calls) == 4


def test_limits_are_positive() -> None:
    """0 rows or 0 seconds would mean never or always, who knows."""
    with pytest.raises(ValueError, match="rows"):
        SyncEvery(rows=0)
    with pytest.raises(ValueError, match="seconds"):
        SyncEvery(seconds=0)


def test_sort(out: Path) -> None:
    """Rows come into the order of the input, byte by byte as they were; the job can go on."""
    begun(out, "abcde", only=[3, 0, 4, 1])
    with Journal.resume(out, keys("abcde")) as job:
        job.sort()
        assert content(out) == [(0, "a"), (1, "b"), (3, "d"), (4, "e")]
        inode = out.stat().st_ino
        job.sort()
        assert out.stat().st_ino == inode
        work(job, "abcde")
        job.sort()
        assert [r["index"] for r in job.rows()] == [0, 1, 2, 3, 4]
    assert out.read_bytes() == b"".join(line(row(i, q)) for i, q in enumerate("abcde"))
    assert only_the_files(out)
    with Journal.resume(out, keys("abcde")) as job:
        assert work(job, "abcde") == []


# The lock


HOLDER = """
import sys
from streamchat.journal import Journal
with Journal.resume(sys.argv[1], []):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(out: Path) -> None:
    """The second is told, whichever way it opens the job; the end of the first sets it free."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, out], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for begin in (
            lambda: Journal.resume(out, keys("a")),
            lambda: Journal.create(out),
            lambda: Journal.create(out, fresh=True),
        ):
            with pytest.raises(ConfigurationError, match="another process runs this job"):
                begin()
        holder.kill()
    with Journal.resume(out, keys("a")) as job:
        assert work(job, "a") == ["a"]
        with pytest.raises(ConfigurationError, match="another process"):
            Journal.resume(out, keys("a"))


def test_without_locks(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no ``flock``, the job runs."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    begun(out, "a")
    assert content(out) == [(0, "a")]


# The disk


def test_a_full_disk(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failed line leaves nothing behind; with space again, the job goes on."""
    write, room = os.write, 30

    def full(fd: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[:room])
        room -= written
        return written

    with Journal.create(out) as job:
        work(job, "a")
        job.start(1, key("b"))
        before = out.read_bytes(), log_of(out).read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            job.finish(row(1, "b"))
        room = 30
        with pytest.raises(OSError, match="No space left"):
            job.start(2, key("c"))
        assert (out.read_bytes(), log_of(out).read_bytes()) == before
        room = 10_000
        job.finish(row(1, "b"))
    assert content(out) == list(enumerate("ab"))
    monkeypatch.undo()
    with Journal.resume(out, keys("abc")) as job:
        assert work(job, "abc") == ["c"]


def test_short_writes_are_completed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take a line in pieces."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    begun(out, "abc")
    monkeypatch.undo()
    assert content(out) == list(enumerate("abc"))


def test_a_disk_that_fails_to_cut_back(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tail that could not be removed is removed before the next line, or no line is written."""
    write, ftruncate = os.write, os.ftruncate

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    def half(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", fail)
        return write(fd, data[:9])

    with Journal.create(out) as job:
        job.start(0, key("a"))
        monkeypatch.setattr(os, "write", half)
        monkeypatch.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="broken"):
            job.finish(row(0, "a"))
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError, match="broken"):
            job.finish(row(0, "a"))
        monkeypatch.setattr(os, "ftruncate", ftruncate)
        job.finish(row(0, "a"))
    assert content(out) == [(0, "a")]


def test_a_full_disk_while_rows_move(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that did not fit is removed, and the files are as they were."""
    begun(out, "ab")
    before = out.read_bytes(), log_of(out).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Journal.resume(out, keys("xab"))
    monkeypatch.undo()
    assert (out.read_bytes(), log_of(out).read_bytes()) == before
    assert only_the_files(out)


class Dead(BaseException):
    """The process is gone: of what it calls from now on, nothing happens."""


@contextmanager
def dying(after: int) -> Iterator[Callable[[], bool]]:
    """Let so many calls that change the disk happen, and no further; say whether that was all."""
    left = after

    def limited(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Dead
            return call(*arguments, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "ftruncate", "replace", "unlink", "fsync"):
            patch.setattr(os, name, limited(getattr(os, name)))
        yield lambda: left < 0


@pytest.mark.parametrize("act", ["resume", "sort", "fresh"])
def test_killed_between_any_two_steps_of_a_replacement(
    tmp_path: Path, act: str, no_fsync: None
) -> None:
    """Rows and keys move as one: before or after, never one without the other."""
    for steps in range(1000):
        out = tmp_path / str(steps) / "out.jsonl"
        out.parent.mkdir()
        begun(out, "abc", only=[2, 0, 1])
        killed = True
        with dying(steps) as is_dead:
            job = None
            try:
                if act == "fresh":
                    job = Journal.create(out, fresh=True)
                else:
                    job = Journal.resume(out, keys("zcxab" if act == "resume" else "abc"))
                    if act == "sort":
                        job.sort()
                job.close()
            except Dead:
                if job is not None:
                    with suppress(Dead):
                        job.close()
            killed = is_dead()
        # Turned round: rows with the keys of the other input would show.
        with Journal.resume(out, keys("cab")) as job:
            todo = work(job, "cab")
            assert job.dropped == 0
        assert todo == [] or (act == "fresh" and todo == ["c", "a", "b"])
        assert sorted(content(out)) == list(enumerate("cab"))
        assert only_the_files(out)
        if not killed:
            assert steps > 5
            return
    raise AssertionError("it never ended")


# Interrupted anywhere


Writes = list[tuple[str, bytes]]


def play(folder: Path, requests: str, order: Sequence[int]) -> Writes:
    """Start and finish requests in an order of events (each index twice); what was written when."""
    out = folder / "out.jsonl"
    writes: Writes = []
    seen: set[int] = set()
    sizes = {"out.jsonl": 0, "out.jsonl.journal": 0}
    with Journal.create(out) as job:
        for index in order:
            if index in seen:
                job.finish(row(index, requests[index]))
            else:
                job.start(index, key(requests[index]))
                seen.add(index)
            for name, size in sizes.items():
                written = (folder / name).read_bytes()[size:]
                sizes[name] += len(written)
                if written:
                    writes.append((name, written))
    return writes


def cut_at(folder: Path, writes: Writes, size: int) -> list[str]:
    """The files as they are after so many bytes in all; what was asked in the rows that are whole."""
    folder.mkdir()
    whole: list[str] = []
    files = {"out.jsonl": b"", "out.jsonl.journal": b""}
    for name, data in writes:
        files[name] += data[:size]
        if name == "out.jsonl" and len(data) <= size:
            whole.append(json.loads(data)["response"]["q"])
        size = max(0, size - len(data))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return whole


def check_resumed(folder: Path, whole: list[str], requests: str) -> None:
    out = folder / "out.jsonl"
    kept = Counter(whole) & Counter(requests)
    if whole and not kept:
        with pytest.raises(ConfigurationError, match="none of the"):
            Journal.resume(out, keys(requests))
        return
    with Journal.resume(out, keys(requests)) as job:
        assert Counter(work(job, requests)) == Counter(requests) - kept
    assert sorted(content(out)) == list(enumerate(requests))
    assert only_the_files(out)


def test_interrupted_at_every_byte(tmp_path: Path, no_fsync: None) -> None:
    """A finished row is neither lost nor done again, and each request has one row in the end."""
    writes = play(tmp_path, "aba", [0, 1, 1, 2, 0, 2])
    for size in range(sum(len(data) for _, data in writes) + 1):
        folder = tmp_path / str(size)
        whole = cut_at(folder, writes, size)
        check_resumed(folder, whole, "aba" if size % 2 else "xaab")
        shutil.rmtree(folder)


@st.composite
def interrupted(draw: st.DrawFn) -> tuple[str, list[int], str]:
    requests = draw(st.text("abcd", min_size=1, max_size=8))
    order = draw(st.permutations([*range(len(requests))] * 2))
    again = draw(st.one_of(st.just(requests), st.permutations(requests), st.text("abcde")))
    return requests, order, "".join(again)


@given(run=interrupted(), data=st.data())
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_run_interrupted_anywhere(
    no_fsync: None, run: tuple[str, list[int], str], data: st.DataObject
) -> None:
    """The same for any order of events and any edit of the input, repeats included."""
    requests, order, again = run
    with tempfile.TemporaryDirectory() as folder:
        writes = play(Path(folder), requests, order)
        total = sum(len(text) for _, text in writes)
        for number in range(3):
            copy = Path(folder) / str(number)
            whole = cut_at(copy, writes, data.draw(st.integers(0, total)))
            check_resumed(copy, whole, again)


# Killed for real


NURSERY = """
import os, sys
from tests.fanout.test_journal import a_job

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        a_job(*line.split())
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def inputs(seed: int, total: int) -> list[str]:
    """The same requests in each run, in an order of its own; each fifth is asked twice."""
    requests = [str(number - (number % 5 == 0)) for number in range(1, total + 1)]
    if seed % 3 == 0:
        random.Random(seed).shuffle(requests)
    return requests


def a_job(path: str, reports: str, seed: str, total: str) -> None:
    """A job of 8 requests at a time that tells what it sends and what it has; slowed by the pipe."""
    requests = inputs(int(seed), int(total))
    told = os.open(reports, os.O_WRONLY)
    fcntl.fcntl(told, fcntl.F_SETPIPE_SZ, 4096)  # 64 reports: so far it runs ahead of the kill
    with Journal.resume(path, keys(requests)) as job:
        todo = iter([index for index in range(len(requests)) if not job.is_done(index)])
        running: list[int] = []
        choose = random.Random(int(seed))
        while True:
            for index in todo:
                job.start(index, key(requests[index]))
                os.write(told, f"sent {requests[index]}".ljust(63).encode() + b"\n")
                running.append(index)
                if len(running) == 8:
                    break
            if not running:
                break
            index = running.pop(choose.randrange(len(running)))
            job.finish(row(index, requests[index]))
            os.write(told, f"done {requests[index]}".ljust(63).encode() + b"\n")
    os.write(told, b"complete".ljust(63) + b"\n")


def test_killed_twenty_times(out: Path, tmp_path: Path) -> None:
    """Each request ends with one row, and none that was on disk before a kill was sent again."""
    total, reports, rng = 1500, tmp_path / "reports", random.Random(20)
    os.mkfifo(reports)
    sent: Counter[str] = Counter()
    wanted = Counter(inputs(1, total))
    kills = complete = 0
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(NURSERY)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as nursery:  # fmt: skip
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for seed in range(1, 100):
            durable = Counter(q for _, q in content(out)) if out.exists() else Counter()
            nursery.stdin.write(f"{out} {reports} {seed} {total}\n")
            nursery.stdin.flush()
            child = int(nursery.stdout.readline())
            acknowledged = Counter[str]()
            sent.clear()
            # Opening it waits for the job to open the other end.
            with reports.open("rb", buffering=0) as pipe:
                countdown = rng.randrange(110) if kills < 20 else -1
                while True:
                    if countdown == 0:
                        os.kill(child, signal.SIGKILL)
                        kills += 1
                    countdown -= 1
                    word, _, request = pipe.read(64).decode().strip().partition(" ")
                    if not word:
                        break
                    complete += word == "complete"
                    sent[request] += word == "sent"
                    acknowledged[request] += word == "done"
            assert nursery.stdout.readline() == "gone\n"
            # Sent are those that were not durable, and durable are those that were told.
            assert not sent - (wanted - durable)
            torn = out.read_bytes().rpartition(b"\n")[2]
            out.with_suffix(".whole").write_bytes(out.read_bytes().removesuffix(torn))
            now = Counter(q for _, q in content(out.with_suffix(".whole")))
            assert not (durable + +acknowledged) - now
            out.with_suffix(".whole").rename(tmp_path / "seen")
            if complete:
                break
        nursery.stdin.close()
    assert (kills, complete) == (20, 1)
    assert sorted(content(out)) == list(enumerate(inputs(seed, total)))


# Size


MEASURED = """
import os, resource, sys
from streamchat.journal import Journal

os.fsync = lambda fd: None
total = int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Journal.resume(sys.argv[1], (f"{number:032x}" for number in range(total))) as job:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * 1024 // total, job.done, job.dropped)
"""
"""``tracemalloc`` would say the same, ten times slower."""


def test_memory_of_many_rows(out: Path) -> None:
    """At most 100 bytes a row while a job of 200,000 is matched and every row moves."""
    total = 200_000
    filler = b'","response":{"text":"' + b"x" * 40 + b'"},"attempts":1,"timing":{}}\n'
    with out.open("wb") as results, log_of(out).open("wb") as log:
        for index in range(total):
            log.write(b'{"index":%d,"key":"%032x"}\n' % (index, index + 1))
            results.write(b'{"index":%d,"id":"%d' % (index, index) + filler)
    command = [sys.executable, "-c", MEASURED, str(out), str(total + 1)]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    per_row, done, dropped = map(int, told.split())
    assert (done, dropped) == (total, 0)
    assert per_row < 100
    with out.open("rb") as results:
        assert results.readline() == b'{"index":1,"id":"0' + filler


def test_equal_requests_are_matched_in_linear_time(out: Path) -> None:
    """100,000 rows of one request that all moved: a chain walked for each would never end."""
    total = 100_000
    known, wanted = keys_of_journal.Keys(), keys_of_journal.Keys()
    for index in range(total):
        known[index] = b"a" * 16
        wanted[index] = b"%016d" % index
        wanted[total + index] = b"a" * 16
    places = keys_of_journal.match(range(total), known, wanted)
    assert list(places) == list(range(total, 2 * total))


# Whose answers, and compressed files


def test_rows_of_another_source_are_refused(out: Path) -> None:
    """Nothing is changed; with the same source, or none given, the job goes on."""
    with Journal.create(out, source="one") as job:
        work(job, "ab")
    before = out.read_bytes(), log_of(out).read_bytes()
    with pytest.raises(ConfigurationError, match="answers of one, not of two"):
        Journal.resume(out, keys("abc"), source="two")
    with pytest.raises(ConfigurationError, match="answers of one, not of two"):
        Journal.resume(out, keys("abc"), source="two", adopts=True)
    assert (out.read_bytes(), log_of(out).read_bytes()) == before
    for source in ("one", ""):
        with Journal.resume(out, keys("abc"), source=source) as job:
            assert (job.done, job.source) == (2, "one")


def test_a_source_survives_a_moved_input_and_a_new_one_needs_no_rows(out: Path) -> None:
    with Journal.create(out, source="one") as job:
        work(job, "ab")
    with Journal.resume(out, keys("xab"), source="one") as job:
        assert job.source == "one"
    assert json.loads(log_of(out).read_bytes().splitlines()[0]) == {"source": "one"}
    out.write_bytes(b"")
    with Journal.resume(out, keys("xab"), source="two") as job:
        assert job.source == "two"
    with Journal.resume(out, keys("xab"), source="one") as job:
        work(job, "xab")
    with pytest.raises(ConfigurationError, match="answers of one"):
        Journal.resume(out, keys("xab"), source="two")


def test_a_journal_without_a_source_is_adopted_on_purpose_only(out: Path) -> None:
    """The first version wrote none."""
    begun(out, "ab")
    with pytest.raises(ConfigurationError, match="does not say whose answers"):
        Journal.resume(out, keys("abc"), source="one")
    with Journal.resume(out, keys("abc"), source="one", adopts=True) as job:
        assert work(job, "abc") == ["c"]
    with Journal.resume(out, keys("abc"), source="one") as job:
        assert job.done == 3


@pytest.fixture(params=["gz", "zst"])
def packed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An output that is compressed."""
    if request.param == "zst":
        packages.zstd()
    return tmp_path / f"out.jsonl.{request.param}"


def unpacked(out: Path) -> list[tuple[int, str]]:
    return [
        (r["index"], r["response"]["q"])
        for r in (json.loads(line) for _, line in packing_of(out).lines(out))
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_resume_compressed(packed: Path, case: Case) -> None:
    """As plain files are."""
    if case.before:
        begun(packed, case.before, only=case.finished)
    before = packed.read_bytes() if packed.exists() else b""
    with Journal.resume(packed, keys(case.after)) as job:
        assert packed.read_bytes().startswith(before) or not case.left_alone
        assert job.dropped == case.dropped
        assert work(job, case.after) == list(case.todo)
        job.sort()
        assert [found["index"] for found in job.rows()] == list(range(len(case.after)))
    assert unpacked(packed) == list(enumerate(case.after))
    assert only_the_files(packed)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_compressed_row_cut_anywhere_is_done_again(packed: Path, zeros: bool) -> None:
    """Or followed by the zeros of a power failure; the rows before it stay."""
    begun(packed, "ab")
    first = next(iter(packing_of(packed).lines(packed)))[0]
    whole = packed.read_bytes()
    for size in range(len(whole)):
        packed.write_bytes(whole[:size] + bytes(40 if zeros else 0) * (size in (0, first)))
        with Journal.resume(packed, keys("ab")) as job:
            assert job.done == (size >= first)
            assert work(job, "ab") == (["b"] if size >= first else ["a", "b"])
        assert sorted(unpacked(packed)) == list(enumerate("ab"))


def test_rows_in_one_member_are_resumed(packed: Path) -> None:
    """Another program compressed the file anew: it is written line by line again."""
    begun(packed, "abc")
    packing = packing_of(packed)
    lines = [line for _, line in packing.lines(packed)]
    packed.write_bytes(packing.pack(b"".join(lines[:2])) + packing.pack(lines[2]))
    assert [end >= 0 for end, _ in packing.lines(packed)] == [False, False, True]
    with Journal.resume(packed, keys("abcd")) as job:
        assert work(job, "abcd") == ["d"]
        job.sort()
    assert unpacked(packed) == list(enumerate("abcd"))
    assert all(end >= 0 for end, _ in packing.lines(packed))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_broken_member_is_refused_and_left(packed: Path, place: int) -> None:
    """Nothing behind it could be found again, so nothing is cut off."""
    begun(packed, "abc")
    starts = [0, *(end for end, _ in packing_of(packed).lines(packed))]
    broken = bytearray(packed.read_bytes())
    broken[starts[place]] ^= 0xFF
    packed.write_bytes(broken)
    with pytest.raises(ConfigurationError):
        Journal.resume(packed, keys("abc"))
    assert packed.read_bytes() == broken


@pytest.mark.parametrize(
    "content", [b'{"index":0}\n', b"PK\3\4 a zip file", b"\x1f\x8b but no gzip"]
)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_that_is_not_compressed_so_is_not_replaced(
    packed: Path, content: bytes, fresh: bool
) -> None:
    packed.write_bytes(content)
    log_of(packed).write_bytes(b"")
    with pytest.raises(ConfigurationError):
        if fresh:
            Journal.create(packed, fresh=True)
        else:
            Journal.resume(packed, keys("a"))
    assert packed.read_bytes() == content


def test_zst_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it, and no file is made."""
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(ConfigurationError, match=r"pip install backports\.zstd"):
        Journal.create(tmp_path / "out.zst")
    with pytest.raises(ConfigurationError, match=r"pip install backports\.zstd"):
        Journal.resume(tmp_path / "out.zst", keys("a"))
    assert not list(tmp_path.iterdir())
