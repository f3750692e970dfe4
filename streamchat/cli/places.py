"""The files of a batch: compared before any of them is opened, so that none is read and written at once."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import attrs
import click

from streamchat.cli.terminal import visible_name
from streamchat.journal.places import checked_file, created, followed, holds_lines

__all__ = ["Places", "errors_path", "unusable"]

_UNUSABLE = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EINVAL),
    )
)
"""What another path would cure; a full or broken disk is not among them."""


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


def bad(hint: str, path: object, problem: str) -> click.BadParameter:
    """A usage error about a path."""
    return click.BadParameter(f"{visible_name(path)}: {problem}", param_hint=hint)


@attrs.frozen
class Places:
    """What a batch reads and writes.

    Raises:
        click.BadParameter: two of the paths are the same file, or one of them cannot be used.
        ConfigurationError: as :func:`streamchat.journal.places.followed`.
    """

    source: Path
    """The input."""
    out: Path
    """The results; symbolic links resolved."""
    picture: Path | None = None
    """The plot."""

    @classmethod
    def checked(cls, source: Path, out: Path, picture: Path | None) -> Places:
        """Compare the paths and look at what is there; nothing is opened for writing."""
        try:
            os.stat(source)
        except OSError as error:
            reason = "no such file" if error.errno == errno.ENOENT else error.strerror
            raise bad("IN.jsonl", source, reason or "cannot be read") from None
        try:
            places = cls(source, followed(out), None if picture is None else followed(picture))
        except OSError as error:
            raise unusable(error, out, "-o") from None
        for (one, first), (other, second) in combinations(places._named(), 2):
            if _are_same(first, second):
                raise click.UsageError(
                    f"{one} and {other} are the same file, {visible_name(second)}: nothing was opened"
                )
        places._check_output()
        places._check_picture()
        return places

    @property
    def errors(self) -> Path:
        """Lines and requests that failed."""
        return errors_path(self.out)

    def _named(self) -> Iterator[tuple[str, Path]]:
        yield "the input", self.source
        yield "the output", self.out
        yield "the errors file", self.errors
        for suffix in (".journal", ".new", ".journal.new", ".journal.tmp"):
            yield f"OUT{suffix}", self.out.with_name(self.out.name + suffix)
        if self.picture is not None:
            yield "--plot", self.picture

    def _check_output(self) -> None:
        _check_folder("-o", self.out)
        if self.out.exists() and not self.out.is_file():
            raise bad("-o", self.out, "is not a regular file")

    def _check_picture(self) -> None:
        if self.picture is None:
            return
        _check_folder("--plot", self.picture)
        if checked_file(self.picture) and not _is_picture(self.picture):
            raise bad("--plot", self.picture, "holds something else than SVG; it is not replaced")

    def create_errors(self) -> int:
        """A new errors file, for its owner alone, in place of that of an earlier run.

        Raises:
            click.BadParameter: what is there is not an errors file, or it cannot be created.
        """
        path = self.errors
        try:
            if checked_file(path) and not holds_lines(path, "line"):
                raise bad("-o", path, "is in the way: it does not hold the errors of a batch")
            if path.with_name(f"{path.name}.journal").exists():
                raise bad("-o", path, "is in the way: it is the output of another batch")
            path.unlink(missing_ok=True)
            return created(path)
        except OSError as error:
            raise unusable(error, path, "-o") from None


def _check_folder(hint: str, path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise bad(hint, path, f"there is no folder {visible_name(folder)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise bad(hint, path, f"the folder {visible_name(folder)} cannot be written")


def _are_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by whatever links, or would become one."""
    try:
        first = os.stat(one)
    except OSError:
        first = None
    try:
        second = os.stat(other)
    except OSError:
        second = None
    if first is not None and second is not None:
        return _holds_data(first) and os.path.samestat(first, second)
    # A file system that ignores case and one that does not look alike before the file is there.
    return (first is None) is (second is None) and _folded(one) == _folded(other)


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
