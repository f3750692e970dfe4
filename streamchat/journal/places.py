"""How files are opened and created: never through the link of somebody else, never over a foreign file.

A file that holds answers is created with mode 0600. Its side files (``.journal``, ``.new``) have names
that anybody can guess, so a symbolic link in their place is refused and not followed (CWE-59).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from streamchat.journal.packing import PLAIN, Packing
from streamchat.protocol.errors import ConfigurationError
from streamchat.protocol.plain import MAX_COPIED_DEPTH, decode_json, is_mapping

__all__ = [
    "NO_WAIT",
    "Shape",
    "checked_file",
    "created",
    "followed",
    "holds_lines",
    "opened_for_appending",
]

PRIVATE = 0o600
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LINKS = 40
"""Symbolic links in a row; Linux gives up at the same number."""
_NUMBER = re.compile(rb"(?<=:)[0-9]+")
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Opening a FIFO does not block, and a terminal does not become the controlling one; 0 on Windows."""


def followed(path: str | os.PathLike[str]) -> Path:
    """The file that a path of the user's leads to, with symbolic links resolved.

    Raises:
        ConfigurationError: a link on the way is in a folder that others can write, and could be theirs.
        OSError: links that lead in a circle.
    """
    place = Path(os.path.abspath(path))
    for _ in range(_LINKS):
        if not place.is_symlink():
            return place.resolve()
        if _is_exposed(place):
            raise ConfigurationError(
                f"{place} is a symbolic link in a folder that others can write: name the file itself"
            )
        place = place.parent / os.readlink(place)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_exposed(link: Path) -> bool:
    """Whether somebody else could have put this link here."""
    if os.name != "posix":
        return False
    folder = link.parent.stat()
    if folder.st_uid not in (0, os.geteuid()):
        return True
    is_sticky = folder.st_mode & stat.S_ISVTX and link.lstat().st_uid == os.geteuid()
    return bool(folder.st_mode & _OTHERS_WRITE) and not is_sticky


def checked_file(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        ConfigurationError: it is a symbolic link, a device or another thing than a regular file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise ConfigurationError(f"{path} is a symbolic link, which is not followed: remove it")
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{path} is not a regular file: remove it, or name another output")
    return True


def opened_for_appending(path: Path) -> int:
    """A descriptor for appending; a new file has the mode 0600.

    Raises:
        ConfigurationError: as :func:`checked_file`.
        OSError: it cannot be opened.
    """
    checked_file(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_FOLLOW | NO_WAIT
    descriptor = os.open(path, flags, PRIVATE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"{path} is not a regular file: name another output")
    except BaseException:  # an exit too; raised again
        os.close(descriptor)
        raise
    return descriptor


def created(path: Path, *, mode: int = PRIVATE) -> int:
    """A descriptor of a new file that nobody else can have opened before it had its mode.

    Raises:
        OSError: it cannot be created; also if something has this name.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, PRIVATE & mode)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)
    except BaseException:  # an exit too; raised again
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


@attrs.frozen
class Shape:
    """How a line of one of our files looks: enough of it that no other program's line passes for ours."""

    start: bytes
    """How it begins, with 0 for each number; what is left of a line that was cut off has no more."""
    fits: Callable[[Mapping[str, Any]], bool]
    """Whether the whole line is one."""


def holds_lines(path: Path, *shapes: Shape, packing: Packing = PLAIN) -> bool:
    """Whether a file is empty or begins with a line of one of these shapes.

    Args:
        path: the file.
        *shapes: what its first line may be.
        packing: how it stores its lines.

    What a killed process or a power failure leaves counts too: a first line that was cut off, or zeros.
    """
    line = packing.first_line(path)
    if line is None:
        return False
    left = line.rstrip(b"\0")
    if not left:
        return True
    try:
        value = decode_json(left, levels=MAX_COPIED_DEPTH)
    except ValueError:
        start = _NUMBER.sub(b"0", left)
        return not left.endswith(b"\n") and any(
            start.startswith(shape.start) or shape.start.startswith(start) for shape in shapes
        )
    return is_mapping(value) and any(shape.fits(value) for shape in shapes)
