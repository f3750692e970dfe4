"""The files of a batch: compared before any of them is opened, so that none is read and written at once."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import click

from streamchat import ConfigurationError
from streamchat.cli.options import bad
from streamchat.cli.terminal import visible_name
from streamchat.journal.places import Shape, checked_file, created, followed, holds_lines

__all__ = ["Places", "errors_path", "unusable"]

STANDARD = "-"
"""stdin or stdout in place of a path."""
_STDIN, _STDOUT = 0, 1
_UNUSABLE = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EINVAL),
    )
)
"""What another path would cure; a full or broken disk is not among them."""


def _is_error(row: Mapping[str, Any]) -> bool:
    index, line = row.get("index"), row.get("line")
    return (
        row.keys() >= {"index", "line", "id", "error", "message"}
        and type(index) is int
        and type(line) is int
        and line == index + 1
    )


_ERRORS = Shape(b'{"index":0,"line":0,"id":', _is_error)
"""A line of the errors file, as ``rows.error_row`` has written it in all versions."""


def errors_path(out: Path) -> Path:
    """Where errors go: ``OUT.errors.jsonl`` beside ``OUT.jsonl``, and ``OUT.errors`` beside ``OUT``.

    Two outputs never share one.
    """
    stem = out.name.removesuffix(".jsonl")
    return out.with_name(f"{stem}.errors.jsonl" if stem != out.name else f"{stem}.errors")


def unusable(error: OSError, path: Path, hint: str) -> Exception:
    """A usage error if another path would help, else the error; both name the path."""
    error.filename = error.filename if error.filename is not None else os.fspath(path)
    if error.errno in _UNUSABLE:
        return bad(hint, error.filename, error.strerror or "cannot be used")
    return error


@attrs.frozen
class Places:
    """What a batch reads and writes.

    Raises:
        click.BadParameter: two of the paths are the same file, or one of them cannot be used.
        ConfigurationError: as :func:`streamchat.journal.places.followed`.
    """

    source: Path | None
    """The input; ``None`` is stdin."""
    out: Path | None
    """The results, symbolic links resolved; ``None`` is stdout."""
    is_stream: bool
    """Whether the output cannot be resumed: stdout, a FIFO or a device."""
    picture: Path | None = None
    """The plot."""

    @classmethod
    def checked(cls, source: str, out: str, picture: str | None) -> Places:
        """Compare the paths and look at what is there; nothing is opened for writing."""
        given = None if source == STANDARD else Path(source)
        try:
            if given is not None:
                os.stat(given)
        except (OSError, ValueError) as error:
            is_missing = isinstance(error, FileNotFoundError)
            reason = "no such file" if is_missing else getattr(error, "strerror", None)
            raise bad("IN.jsonl", source, reason or "is not a file name") from None
        try:
            is_stream = out == STANDARD or _is_stream(Path(out))
            places = cls(
                given,
                None if out == STANDARD else Path(out) if is_stream else followed(out),
                is_stream,
                None if picture is None else followed(picture),
            )
        except ValueError as error:
            if isinstance(error, ConfigurationError):
                raise
            raise bad("-o", out, "is not a file name") from None
        except OSError as error:
            raise unusable(error, Path(out), "-o") from None
        for (one, first), (other, second) in combinations(places._named(), 2):
            if _are_same(first, second):
                shown = visible_name(second if isinstance(second, Path) else first)
                raise click.UsageError(
                    f"{one} and {other} are the same file, {shown}: nothing was opened"
                )
        places._check_output()
        places._check_picture()
        return places

    @property
    def title(self) -> str:
        """What the output is called, for a person."""
        return "stdout" if self.out is None else visible_name(self.out)

    @property
    def errors(self) -> Path | None:
        """Lines and requests that failed; ``None`` is stderr."""
        return None if self.out is None or self.is_stream else errors_path(self.out)

    def _named(self) -> Iterator[tuple[str, Path | int]]:
        """Each file with what it is called; a number is a descriptor."""
        yield "the input", _STDIN if self.source is None else self.source
        yield "the output", _STDOUT if self.out is None else self.out
        if self.out is not None and self.errors is not None:
            yield "the errors file", self.errors
            for suffix in (".journal", ".new", ".journal.new", ".journal.tmp"):
                yield f"OUT{suffix}", self.out.with_name(self.out.name + suffix)
        if self.picture is not None:
            yield "--plot", self.picture

    def _check_output(self) -> None:
        if self.out is not None and not self.is_stream:
            _check_folder("-o", self.out)
            try:
                _check_errors(errors_path(self.out))
            except OSError as error:
                raise unusable(error, errors_path(self.out), "-o") from None

    def _check_picture(self) -> None:
        if self.picture is None:
            return
        _check_folder("--plot", self.picture)
        if checked_file(self.picture) and not _is_picture(self.picture):
            raise bad("--plot", self.picture, "holds something else than SVG; it is not replaced")

    def create_errors(self, path: Path) -> int:
        """A new errors file, for its owner alone, in place of that of an earlier run.

        Raises:
            click.BadParameter: what is there is not an errors file, or it cannot be created.
        """
        try:
            _check_errors(path)  # again: nobody else runs this job now
            path.unlink(missing_ok=True)
            return created(path)
        except OSError as error:
            raise unusable(error, path, "-o") from None


def _check_errors(path: Path) -> None:
    """Refuse to replace what is not an errors file."""
    if checked_file(path) and not holds_lines(path, _ERRORS):
        raise bad("-o", path, "is in the way: it does not hold the errors of a batch")
    if path.with_name(f"{path.name}.journal").exists():
        raise bad("-o", path, "is in the way: it is the output of another batch")


def _is_stream(path: Path) -> bool:
    """Whether it is there, and a FIFO or a device.

    Raises:
        click.BadParameter: a folder or a disk.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # said when it is opened
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        raise bad("-o", path, f"is a {'folder' if stat.S_ISDIR(mode) else 'disk'}, not a file")
    return not stat.S_ISREG(mode)


def _check_folder(hint: str, path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise bad(hint, path, f"there is no folder {visible_name(folder)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise bad(hint, path, f"the folder {visible_name(folder)} cannot be written")


def _are_same(one: Path | int, other: Path | int) -> bool:
    """Whether two files are one, by whatever links, or would become one."""
    first, second = _found(one), _found(other)
    if first is not None and second is not None:
        return _holds_data(first) and os.path.samestat(first, second)
    # A file system that ignores case and one that does not look alike before the file is there.
    return (
        isinstance(one, Path)
        and isinstance(other, Path)
        and first is second
        and _folded(one) == _folded(other)
    )


def _found(place: Path | int) -> os.stat_result | None:
    """What is there; ``None`` for nothing."""
    try:
        return os.stat(place)
    except OSError:
        return None


def _holds_data(found: os.stat_result) -> bool:
    """Terminals and ``/dev/null`` may be used twice."""
    return stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def _is_picture(path: Path) -> bool:
    """Whether it is empty or SVG."""
    with path.open("rb") as file:
        head = file.read(4096)
    return not head or b"<svg" in head
