"""Where the lines of a batch come from: a file, stdin or a pipe, plain or compressed, read twice."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, cast

import attrs

from streamchat.cli.options import bad
from streamchat.cli.places import unusable
from streamchat.journal.packing import zstd

__all__ = ["MAX_LINE", "Source"]

MAX_LINE = 64 * 2**20
"""Bytes of a line; a longer one is a row of the errors file, and is never held in memory as a whole."""

_HINT = "IN.jsonl"
_HEAD = 1 << 16
_FRAME_CHUNK = 1 << 12
"""Read at a time while it is found out whether data are compressed."""
_HEADER = 21
"""Bytes of a zstd frame's longest header and its first block's; the fixed part of gzip's has 10."""
_SAMPLE = 4096
_MAX_BLOCK = 1 << 17
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_GZIP_RESERVED = 0xE0
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@attrs.define
class Source:
    """An input that can be read more than once; made by :meth:`open`, closed by its ``opened``."""

    name: str
    _file: IO[bytes]
    _start: int
    _packing: str = ""

    @classmethod
    def open(cls, place: Path | None, opened: contextlib.ExitStack) -> Source:
        """Open a file, or stdin for ``None``; what cannot be read twice is copied to a temporary file.

        Raises:
            click.BadParameter: it cannot be read, is UTF-16, or is compressed otherwise than its name says.
            OSError: the copy does not fit on the disk.
        """
        name = "stdin" if place is None else str(place)
        try:
            file = opened.enter_context(_opened(place))
            mode = os.fstat(file.fileno()).st_mode
        except (OSError, ValueError) as error:
            raise _unreadable(error, name) from None
        if not stat.S_ISREG(mode):
            _check_kind(mode, file, name)
            file = opened.enter_context(_copied(file, name))
        source = cls(name, file, file.tell())
        source._look()
        return source

    def lines(self) -> Iterator[bytes | None]:
        """The lines from the first; ``None`` for one that is longer than :data:`MAX_LINE`.

        Raises:
            click.BadParameter: the file cannot be read, or its compressed data are broken.
        """
        number = 0
        try:
            reader = self._reader()
            while line := reader.readline(MAX_LINE + 1):
                number += 1
                if len(line) <= MAX_LINE:
                    yield line
                    continue
                while line and not line.endswith(b"\n"):
                    line = reader.readline(1 << 20)
                yield None
        except self._errors() as error:  # one of them is an OSError
            shown = f"the {self._packing} data is broken or cut off behind line {number}"
            raise bad(_HINT, self.name, shown) from error
        except OSError as error:
            raise _unreadable(error, self.name) from None

    def _errors(self) -> tuple[type[Exception], ...]:
        """The exceptions of compressed data that are broken or cut off."""
        if self._packing == "gzip":
            return EOFError, zlib.error, gzip.BadGzipFile
        if self._packing == "zstd":
            return EOFError, zstd(self.name).ZstdError
        return ()

    def _reader(self) -> IO[bytes]:
        self._file.seek(self._start)
        if self._packing == "gzip":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=self._file, mode="rb"))
        if self._packing == "zstd":
            return cast("IO[bytes]", zstd(self.name).ZstdFile(self._file))
        return self._file

    def _look(self) -> None:
        """Find out what it holds by its first bytes.

        Any bytes may be a line: what only begins as compressed data do is plain, unless its name says
        otherwise.
        """
        self._file.seek(self._start)
        head = self._file.read(_HEADER)
        suffix = Path(self.name).suffix.lower()
        is_named = suffix in (".gz", ".zst")
        if _is_gzip(head):
            self._packing = "gzip" if is_named or self._inflates() else ""
        elif head.startswith(_ZSTD_MAGIC) and (is_named or _is_zstd(head)):
            self._packing = "zstd" if is_named or self._decompresses() else ""
        elif head and is_named:
            raise bad(_HINT, self.name, f"is not {'gzip' if suffix == '.gz' else 'zstd'} data")
        with contextlib.suppress(*self._errors()):  # lines() says where
            if _is_utf16(self._reader().read(_HEAD)):
                raise bad(
                    _HINT,
                    self.name,
                    "is UTF-16, and JSON lines are UTF-8: iconv -f UTF-16 -t UTF-8 converts it",
                )

    def _inflates(self) -> bool:
        """Whether a first line can be read from gzip data, or as much as :data:`_SAMPLE` of it.

        Data that are cut off count if anything can be read from them.
        """
        self._file.seek(self._start)
        unpacker, data, text = zlib.decompressobj(16 + zlib.MAX_WBITS), b"", b""
        while not unpacker.eof and len(text) < _SAMPLE and b"\n" not in text:
            data = unpacker.unconsumed_tail or self._file.read(_FRAME_CHUNK)
            if not data:
                return bool(text)
            try:
                # In small pieces: what stands before an error is not given with it.
                text += unpacker.decompress(data, 64)
            except zlib.error as error:
                # A wrong checksum stands behind data that could be read.
                return str(error).endswith(("incorrect data check", "incorrect length check"))
        return True

    def _decompresses(self) -> bool:
        """Whether anything can be read from zstd data."""
        self._packing = "zstd"
        try:
            self._reader().read(1)
        except self._errors():
            return False
        return True


def _opened(place: Path | None) -> IO[bytes]:
    if place is not None:
        return place.open("rb")
    if sys.stdin is None:
        raise OSError("it is closed")
    # A descriptor of our own: stdin itself stays open, and nothing of it is buffered elsewhere.
    return open(os.dup(sys.stdin.fileno()), "rb")


def _check_kind(mode: int, file: IO[bytes], name: str) -> None:
    """Refuse devices that never end."""
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not (file.isatty() or _is_null(file))):
        raise bad(_HINT, name, "is a device, not a file of lines")


def _is_null(file: IO[bytes]) -> bool:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(os.devnull))


@contextlib.contextmanager
def _copied(file: IO[bytes], name: str) -> Generator[IO[bytes]]:
    """A private copy of all that comes, which has no name and goes with the process."""
    with tempfile.TemporaryFile(prefix="streamchat-") as copy:
        while True:
            try:
                data = file.read(1 << 20)
            except OSError as error:
                raise _unreadable(error, name) from None
            if not data:
                break
            copy.write(data)
        copy.seek(0)
        yield cast("IO[bytes]", copy)


def _unreadable(error: Exception, name: str) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return unusable(error, Path(name), _HINT)
    return bad(_HINT, name, str(error))


def _is_gzip(head: bytes) -> bool:
    """Whether this may be the header of a member (RFC 1952, 2.3.1)."""
    return head.startswith(_GZIP_MAGIC) and len(head) >= 10 and not head[3] & _GZIP_RESERVED


def _is_zstd(head: bytes) -> bool:
    """Whether this may be the header of a frame and of its first block (RFC 8878, 3.1.1)."""
    if len(head) < 5 or (kind := head[4]) & 0x08:
        return False
    has_window = not kind & 0x20
    size_bytes = (0 if has_window else 1, 2, 4, 8)[kind >> 6]
    start = 5 + has_window + (0, 1, 2, 4)[kind & 3] + size_bytes
    block = int.from_bytes(head[start : start + 3], "little")
    return len(head) >= start + 3 and block >> 1 & 3 != 3 and block >> 3 <= _MAX_BLOCK


def _is_utf16(head: bytes) -> bool:
    """Whether this is how a UTF-16 file begins; a single odd line does not make it one."""
    looks_so = head.startswith(_UTF16_BOMS) or head[:2].count(0) == 1
    return looks_so and all(b"\0" in line for line in head.splitlines() if line.strip())
