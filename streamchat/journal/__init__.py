"""What a long batch job has done, on disk at every moment; imports no network and no shell.

Two files, both JSON lines that only ever grow while the job runs. ``OUT.jsonl`` holds the results (with
``.gz`` or ``.zst`` behind its name: compressed, line by line).
``OUT.jsonl.journal`` says which request each index is, and is written before that request is sent.
A row of ``OUT`` is the only commit: it counts if the journal knows its index. Each line is with the
operating system when :meth:`Journal.start` or :meth:`Journal.finish` returns, so SIGKILL loses
nothing; ``fsync`` comes in batches, so a power failure costs the rows of the last batch at most.

A changed input gives rows new indexes, which changes both files as one. First ``OUT.jsonl.new`` is
written, then ``OUT.jsonl.journal.new``, whose appearance under that name is the commit; from there
on whoever opens the job puts both in place before anything else (``files.roll_forward``).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import attrs

from streamchat.journal.files import (
    FIELDS,
    NOT_RESUMABLE,
    Lines,
    beside,
    key_line,
    lines_at,
    open_locked,
    read_indexes,
    read_keys,
    read_row,
    refuse_results,
    replace,
    replaced,
    roll_forward,
    scan,
    size_of,
    source_line,
    sync_folder,
    write_whole,
)
from streamchat.journal.keys import Keys, checked_index, checked_key, match, request_key
from streamchat.journal.places import followed
from streamchat.protocol.errors import ConfigurationError
from streamchat.protocol.plain import encode_json

__all__ = ["EVERY", "FIELDS", "Journal", "SyncEvery", "request_key"]

_STARTED, _DONE = 1, 2


@attrs.frozen(kw_only=True)
class SyncEvery:
    """When rows are forced to the disk: at the first of the two limits.

    Raises:
        ValueError: a limit that is not positive.
    """

    rows: int = attrs.field(default=64, validator=attrs.validators.ge(1))
    """Rows finished since the last time."""
    seconds: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    """Age of the oldest row that is not forced yet."""
    clock: Callable[[], float] = time.monotonic
    """Gives seconds that never go back."""


EVERY = SyncEvery()
"""The default: 64 rows, 1 second."""


@attrs.define(eq=False)
class Journal:
    """An open job; made by :meth:`create` or :meth:`resume`, closed by ``with`` or :meth:`close`.

    One process at a time: the journal file is locked with ``flock``. Where there is none (Windows)
    nothing is locked, and running a job twice at once ruins it.

    All methods but :meth:`sync` belong to one thread. An ``OSError`` (the disk is full) leaves both
    files valid: what was written before stays, of the failed line nothing does.
    """

    path: Path
    """``OUT``, symbolic links resolved."""
    dropped: int
    """Rows that :meth:`resume` took out, because no request of the input wants them."""
    _every: SyncEvery
    source: str
    """Who answers, as given; empty if it is not noted."""
    _log: Lines
    _out: Lines
    _states: bytearray
    _finished: int = 0
    _synced: int = 0
    _oldest: float = 0.0
    _syncing: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        fresh: bool = False,
        every: SyncEvery = EVERY,
        source: str = "",
    ) -> Self:
        """Begin a job.

        Args:
            path: where the results go; the journal is ``path`` + ``.journal``.
            fresh: whether to replace results that are there. Default: refuse.
            every: see :class:`SyncEvery`. Default: 64 rows or 1 second.
            source: who answers, for example the server's URL; see :meth:`resume`. Default: not noted.

        Raises:
            ConfigurationError: there are results, or another process runs this job.
            OSError: a file cannot be opened or written.
        """
        out = followed(path)
        refuse_results(out, fresh=fresh)
        with ExitStack() as opened:
            log = open_locked(out, opened)
            refuse_results(out, fresh=fresh)  # again: only now is nobody else writing any
            results = Lines.open(out, opened)
            # In this order: keys without rows mean nothing, rows without keys are refused.
            results.cut(0)
            log.cut(0)
            if source:
                log.append(source_line(source))
            return cls(out, 0, every, source, log, results, bytearray())._begin(opened)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        keys: Iterable[str],
        *,
        every: SyncEvery = EVERY,
        source: str = "",
        adopts: bool = False,
    ) -> Self:
        """Go on with a job, or begin it if there is none.

        A last line that was cut off is dropped, from either file. Rows are then matched to the
        input by key: lines may have been added, removed, edited or moved. If that moved or dropped
        a row, ``OUT`` is replaced atomically, rows as they are but for the index; otherwise it is
        left alone. About 70 bytes of memory per row and request; 1 byte once it is open.

        Args:
            path: where the results go; the journal is ``path`` + ``.journal``.
            keys: :func:`request_key` of each request of the input, in order; read once.
            every: see :class:`SyncEvery`. Default: 64 rows or 1 second.
            source: who answers. Rows of another source are refused: they answer the same questions,
                but not as this one would. Default: not compared.
            adopts: whether rows of a journal that notes no source are taken as rows of this one.
                Default: refuse them.

        Raises:
            ConfigurationError: another process runs this job; a line in the middle of a file is
                broken; there are results and no journal, or of another source, or none of them fits
                the input (which is then probably the wrong one). Nothing was changed.
            ValueError: one of ``keys`` is no key. Nothing was changed.
            OSError: a file cannot be opened, read or written.
        """
        out = followed(path)
        if size_of(out) and not beside(out, ".journal").exists():
            raise ConfigurationError(f"{out} has no journal beside it: {NOT_RESUMABLE}")
        # Before anything is opened: a bad key, or an iterator that raises, leaves no journal behind.
        wanted = Keys()
        for index, text in enumerate(keys):
            wanted[index] = checked_key(text)
        with ExitStack() as opened:
            log = open_locked(out, opened)
            known, log_end, noted = read_keys(log.path)
            rows, out_end, is_addressable = read_indexes(out)
            if rows and source:
                _check_source(out, len(rows), noted, source, adopts=adopts)
            places = match(rows, known, wanted)
            states = bytearray(len(wanted))
            for place in places:
                if place >= 0:
                    states[place] = _DONE
            dropped = len(rows) - states.count(_DONE)
            if rows and dropped == len(rows):
                raise ConfigurationError(
                    f"none of the {dropped} rows of {out} fits this input: {NOT_RESUMABLE}"
                )
            log.cut(log_end)
            moves = places != rows or not is_addressable
            source = source or noted or ""
            if moves:
                write_whole(beside(out, ".new"), replaced(out, rows, places), like=out)
            if moves or known.differ_from(wanted) or source != (noted or ""):
                # Keys of other inputs go even if they have no row yet: should a power failure take
                # the next key of that index and leave its row, the row would pass for theirs.
                notes = _notes_of(source, states, wanted)
                write_whole(beside(log.path, ".tmp"), notes, like=log.path)
                replace(beside(log.path, ".tmp"), beside(log.path, ".new"))
                roll_forward(out, log)
            results = Lines.open(out, opened)
            if not moves:
                results.cut(out_end)
            return cls(out, dropped, every, source, log, results, states)._begin(opened)

    def _begin(self, opened: ExitStack) -> Self:
        # What was cut must be gone from the disk before other bytes take its place.
        self.sync()
        sync_folder(self.path)
        opened.pop_all()
        return self

    @property
    def done(self) -> int:
        """How many rows ``OUT`` has."""
        return self._states.count(_DONE)

    def is_done(self, index: int) -> bool:
        """Whether ``OUT`` has the row of this request."""
        return self._state(index) == _DONE

    def start(self, index: int, key: str) -> None:
        """Note which request an index is; call it before the request is sent.

        Raises:
            ValueError: no index, no key, or the row is there already. Nothing was written.
            OSError: see the class; do not send the request.
        """
        line = key_line(checked_index(index), checked_key(key))
        if self.is_done(index):
            raise ValueError(f"request {index} has its row already")
        self._log.append(line)
        if index >= len(self._states):
            self._states += bytes(index + 1 - len(self._states))
        self._states[index] = _STARTED

    def finish(self, row: Mapping[str, Any]) -> None:
        """Append a row to ``OUT``; from its return on, no kill of this process loses the row.

        Args:
            row: plain data with the keys :data:`FIELDS`.

        Raises:
            TypeError, ValueError: other keys, something that JSON cannot say, or an index that was
                not started, or that has its row. Nothing was written.
            OSError: see the class; the row may be handed in again.
        """
        if set(row) != set(FIELDS):
            raise ValueError(f"a row holds {', '.join(FIELDS)}, not {', '.join(map(str, row))}")
        index = checked_index(row["index"])
        if self._state(index) != _STARTED:
            raise ValueError(f"request {index} was not started, or has its row already")
        self._out.append(encode_json({name: row[name] for name in FIELDS}) + b"\n")
        self._states[index] = _DONE
        if self._finished == self._synced:
            self._oldest = self._every.clock()
        self._finished += 1

    def sync(self) -> None:
        """Force everything to the disk; blocks for as long as that takes, in any thread.

        Raises:
            OSError: the disk failed. Rows since the last success may be lost even if a later call
                succeeds: end the job, and resume it.
        """
        with self._lock:
            finished = self._finished
            # Keys first: a row that is durable without its key would be dropped.
            os.fsync(self._log.file.fileno())
            os.fsync(self._out.file.fileno())
            self._synced = finished

    async def sync_if_due(self) -> None:
        """:meth:`sync` in a thread once :class:`SyncEvery` says so; else return at once.

        Call it after each row, and from a timer if the last rows shall not wait for the next one.
        Only the call that finds the time come waits, and raises.
        """
        waiting = self._finished - self._synced
        if self._syncing or not waiting:
            return
        age = self._every.clock() - self._oldest
        if waiting >= self._every.rows or age >= self._every.seconds:
            self._syncing = True
            try:
                await asyncio.to_thread(self.sync)
            finally:
                self._syncing = False

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Read the rows of ``OUT``, in the order of the file, also after :meth:`close`.

        Raises:
            ConfigurationError: somebody else broke the file.
            OSError: it cannot be read.
        """
        for _, row in scan(self.path, read_row):
            yield row

    def sort(self) -> None:
        """Put ``OUT`` into the order of the indexes, atomically; call it when the job is complete.

        This is what ordered output is: rows are always appended as they complete, because rows that
        were held back for their turn would be lost at a kill. A file in order is left alone.
        8 bytes of memory per row.

        Raises:
            ConfigurationError, OSError: as :meth:`rows`, or the copy cannot be written; the file is
                then as it was.
        """
        offsets = array("q", [-1]) * len(self._states)
        start, last, in_order = 0, -1, True
        for end, row in scan(self.path, read_row):
            index = row["index"]
            offsets[index] = start
            in_order = in_order and last < index
            start, last = end, index
        if in_order:
            return
        new = beside(self.path, ".new")
        write_whole(new, lines_at(self.path, offsets), like=self.path)
        with self._lock:
            self._out.file.close()  # Windows replaces no open file
            try:
                replace(new, self.path)
            finally:
                with ExitStack() as opened:
                    self._out = Lines.open(self.path, opened)
                    opened.pop_all()

    def close(self) -> None:
        """Force everything to the disk and let go of the files; a second time does nothing.

        Raises:
            OSError: as :meth:`sync`; the files are closed nevertheless.
        """
        try:
            if not self._out.file.closed:
                self.sync()
        finally:
            with self._lock:
                self._out.file.close()
                self._log.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _state(self, index: int) -> int:
        return self._states[index] if 0 <= index < len(self._states) else 0


def _notes_of(source: str, states: bytearray, keys: Keys) -> Iterator[bytes]:
    if source:
        yield source_line(source)
    for index, state in enumerate(states):
        if state == _DONE:
            yield key_line(index, keys[index])


def _check_source(out: Path, rows: int, noted: str | None, source: str, *, adopts: bool) -> None:
    """Refuse rows of another source.

    Raises:
        ConfigurationError: it is another one, or not known and not adopted.
    """
    if noted == source or (noted is None and adopts):
        return
    if noted is None:
        raise ConfigurationError(
            f"the journal of {out} does not say whose answers its {rows} rows are, as it was written "
            f"by an earlier version: resume it explicitly (--resume) if they are of {source}, or "
            "name another output"
        )
    raise ConfigurationError(
        f"the {rows} rows of {out} are answers of {noted}, not of {source}: name another output, "
        "or replace them on purpose (fresh)"
    )
