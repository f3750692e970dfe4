"""The two files of a job: lines that survive the process, and replacements that are whole or not there."""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any, Self, TypeVar

import attrs

from streamchat.journal.keys import Keys, checked_index, checked_key
from streamchat.journal.packing import PLAIN, Packing, packing_of
from streamchat.journal.places import (
    Shape,
    checked_file,
    created,
    holds_lines,
    opened_for_appending,
)
from streamchat.protocol.errors import ConfigurationError
from streamchat.protocol.plain import MAX_COPIED_DEPTH, decode_json, encode_json, is_mapping

__all__ = [
    "FIELDS",
    "JOURNAL",
    "NOT_RESUMABLE",
    "RESULTS",
    "Lines",
    "beside",
    "key_line",
    "lines_at",
    "open_locked",
    "read_indexes",
    "read_keys",
    "read_row",
    "refuse_foreign",
    "refuse_results",
    "replace",
    "replaced",
    "roll_forward",
    "scan",
    "size_of",
    "source_line",
    "sync_folder",
    "write_whole",
]

T = TypeVar("T")
_INDEX = re.compile(rb'\{\s*"index"\s*:\s*[0-9]+')
FIELDS: tuple[str, ...] = ("index", "id", "response", "attempts", "timing")
"""What a row of ``OUT`` holds: these keys, in this order, and no other."""
NOT_RESUMABLE = "check both names, or replace the results on purpose (fresh)"


@attrs.define
class Lines:
    """A file that grows by whole lines."""

    path: Path
    file: FileIO
    size: int
    torn: bool = False
    packing: Packing = PLAIN

    @classmethod
    def open(cls, path: Path, opened: ExitStack) -> Self:
        """Open it for appending, created for its owner alone; ``opened`` closes it.

        Raises:
            ConfigurationError: it is a symbolic link or not a regular file.
        """
        # Unbuffered: what write() took survives the process.
        file = opened.enter_context(FileIO(opened_for_appending(path), "ab"))
        size = os.fstat(file.fileno()).st_size
        return cls(path, file, size, packing=packing_of(path))

    def append(self, line: bytes) -> None:
        """Write a line, whole or not at all."""
        line = self.packing.pack(line)
        if self.torn:
            self.cut(self.size)
        self.torn = True
        try:
            written = 0
            while written < len(line):
                written += os.write(self.file.fileno(), line[written:])
        except BaseException:  # a cancellation or an exit too; raised again
            self.cut(self.size)
            raise
        self.size += len(line)
        self.torn = False

    def cut(self, size: int) -> None:
        """Drop what is behind so many bytes."""
        os.ftruncate(self.file.fileno(), size)
        self.size, self.torn = size, False


# --- opening and replacing


def beside(path: Path, suffix: str) -> Path:
    """The file of the same name with something behind it."""
    return path.with_name(path.name + suffix)


def size_of(path: Path) -> int:
    """Bytes; 0 if there is no file."""
    return path.stat().st_size if path.exists() else 0


def refuse_results(out: Path, *, fresh: bool) -> None:
    """Do not replace results by accident, and never what is not ours."""
    if not size_of(out):
        return
    if not fresh:
        raise ConfigurationError(
            f"{out} holds results: resume that job, or replace them on purpose (fresh)"
        )
    refuse_foreign(out)


def _is_result(row: Mapping[str, Any]) -> bool:
    # Other programs may have sorted the keys, or added some.
    return row.keys() >= set(FIELDS) and _is(checked_index, row["index"])


def _is_source(row: Mapping[str, Any]) -> bool:
    return set(row) == {"source"} and isinstance(row["source"], str)


def _is_key(row: Mapping[str, Any]) -> bool:
    return (
        set(row) == {"index", "key"}
        and _is(checked_index, row["index"])
        and _is(checked_key, row["key"])
    )


def _is(check: Callable[[Any], object], value: Any) -> bool:
    try:
        check(value)
    except ValueError:
        return False
    return True


RESULTS = (Shape(b'{"index":0,"id":', _is_result),)
"""The lines of ``OUT``."""
# The first version began its journals with an index.
JOURNAL = (Shape(b'{"source":"', _is_source), Shape(b'{"index":0,"key":"', _is_key))
"""The lines of ``OUT.journal``."""


def refuse_foreign(
    path: Path, *, like: Path | None = None, shapes: tuple[Shape, ...] = RESULTS
) -> None:
    """Refuse to replace a file that does not hold rows or keys of a job.

    Args:
        path: what would be replaced.
        like: a file of the same kind, whose name says how lines are stored. Default: itself.
        shapes: what its first line may be.

    Raises:
        ConfigurationError: it holds something else, or is not a regular file.
    """
    if not checked_file(path):
        return
    packing = packing_of(like or path)
    if not holds_lines(path, *shapes, packing=packing):
        raise ConfigurationError(
            f"{path} does not hold rows of a job, so it is not replaced: remove it, or name another"
        )


def open_locked(out: Path, opened: ExitStack) -> Lines:
    """The journal of ``out``, ours alone, with every replacement that was begun completed."""
    place = beside(out, ".journal")
    packing_of(out)  # refused before a file is made
    refuse_foreign(beside(out, ".new"), like=out)
    for path in (place, beside(place, ".new"), beside(place, ".tmp")):
        refuse_foreign(path, shapes=JOURNAL)
    log = Lines.open(place, opened)
    _lock(log)
    log.size = os.fstat(log.file.fileno()).st_size  # now it grows no more
    roll_forward(out, log)
    return log


def _lock(log: Lines) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(log.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return
    raise ConfigurationError(f"another process runs this job: it holds {log.path}")


def roll_forward(out: Path, log: Lines) -> None:
    """Put replacements in place once the journal's is complete, else throw them away.

    Doing it twice, or again after half of it, does no harm. The journal is overwritten and not
    replaced, because its file carries the lock.
    """
    new, redo = beside(out, ".new"), beside(log.path, ".new")
    if not redo.exists():
        new.unlink(missing_ok=True)
        return
    if new.exists():
        replace(new, out)
    log.cut(0)
    with redo.open("rb") as file:  # never compressed
        while piece := file.read(1 << 20):
            log.append(piece)
    os.fsync(log.file.fileno())
    os.unlink(redo)
    sync_folder(out)  # or it comes back at a power failure, and takes later keys with it


def replace(source: Path, target: Path) -> None:
    """Put a file in another's place, on the disk too."""
    os.replace(source, target)
    sync_folder(target)


def sync_folder(path: Path) -> None:
    """Force names to the disk; Windows has no such call."""
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: Path, lines: Iterable[bytes], *, like: Path) -> None:
    """A new file with these lines, on the disk, stored and with the permissions as ``like``; or none."""
    path.unlink(missing_ok=True)
    pack = packing_of(like).pack
    try:
        with open(created(path, mode=stat.S_IMODE(like.stat().st_mode)), "wb") as file:
            file.writelines(map(pack, lines))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # a cancellation or an exit too; raised again
        path.unlink(missing_ok=True)
        raise


# --- reading


def scan(path: Path, read: Callable[[Any], T]) -> Iterator[tuple[int, T]]:
    """What each whole line says, with the offset of its end; a torn last line is left out.

    The offset is -1 where lines cannot be found again by it; see :meth:`Packing.lines`.
    """
    if not path.exists():
        return
    torn = 0
    for number, (end, line) in enumerate(packing_of(path).lines(path), 1):
        if torn:
            raise ConfigurationError(f"{path}, line {torn}: not JSON, and not the last line")
        try:
            value = decode_json(line, levels=MAX_COPIED_DEPTH)
        except ValueError:
            torn = number
            continue
        if not line.endswith(b"\n"):
            torn = number
            continue
        try:
            said = read(value)
        except ValueError as error:
            # A line that was cut off is never whole JSON: this is not ours.
            raise ConfigurationError(f"{path}, line {number}: {error}") from None
        yield end, said


def read_keys(path: Path) -> tuple[Keys, int, str | None]:
    """The last key of each index, where the last whole line ends, and whose answers the rows are.

    The last is None if the journal does not say it, as the first version's.
    """
    keys, end, source = Keys(), 0, None
    for at, said in scan(path, _read_note):
        if isinstance(said, str):
            if end:
                raise ConfigurationError(f"{path}: two journals in one")
            source = said
        else:
            keys[said[0]] = said[1]
        end = at
    return keys, end, source


def read_indexes(path: Path) -> tuple[array[int], int, bool]:
    """The index of each row, where the last whole row ends, and whether rows can be found by offset."""
    indexes, end, is_ours = array("q"), 0, True
    for at, row in scan(path, read_row):
        indexes.append(row["index"])
        end, is_ours = at, is_ours and at >= 0
    return indexes, end, is_ours


def _read_note(value: Any) -> str | tuple[int, bytes]:
    """A line of the journal."""
    if is_mapping(value) and isinstance(source := value.get("source"), str):
        return source
    row = read_row(value)
    return row["index"], checked_key(row.get("key"))


def read_row(value: Any) -> Mapping[str, Any]:
    """A row of results, or of the journal; ``ValueError`` if it is none."""
    if not is_mapping(value):
        raise ValueError("not a JSON object")
    checked_index(value.get("index"))
    return value


def lines_at(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """The lines that begin there, in this order; none for -1."""
    packing = packing_of(path)
    with path.open("rb") as file:
        for offset in offsets:
            if offset >= 0:
                yield packing.line_at(file, offset)


def replaced(out: Path, rows: Sequence[int], places: Sequence[int]) -> Iterator[bytes]:
    """The rows that are kept, each with its new index."""
    lines = packing_of(out).lines(out)
    for index, place, (_, line) in zip(rows, places, lines, strict=False):  # the file may be torn
        if place == index:
            yield line
        elif place >= 0 and (head := _INDEX.match(line)):
            yield b'{"index":%d' % place + line[head.end() :]
        elif place >= 0:  # another program sorted the keys
            yield encode_json(decode_json(line, levels=MAX_COPIED_DEPTH) | {"index": place}) + b"\n"


def key_line(index: int, key: bytes) -> bytes:
    """A line of the journal."""
    return b'{"index":%d,"key":"%s"}\n' % (index, key.hex().encode())


def source_line(source: str) -> bytes:
    """The first line of a journal."""
    return encode_json({"source": source}) + b"\n"
