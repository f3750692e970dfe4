"""Where the lines of a batch come from: a file, stdin or a pipe, plain or compressed, read twice."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, cast

import attrs
import click

from streamchat.cli.options import bad
from streamchat.cli.places import unusable
from streamchat.journal.packing import zstandard

__all__ = ["MAX_LINE", "Source"]

MAX_LINE = 64 * 2**20
"""Bytes of a line; a longer one is a row of the errors file, and is never held in memory as a whole."""

_HINT = "IN.jsonl"
_HEAD = 1 << 16
_FRAME_CHUNK = 1 << 12
"""Small, as a frame may grow 30,000-fold."""
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
        except OSError as error:
            if error.errno is not None:
                raise _unreadable(error, self.name) from None
            raise self._broken(number) from None  # gzip.BadGzipFile
        except (EOFError, zlib.error) as error:
            raise self._broken(number) from error
        except click.BadParameter:
            raise
        except Exception as error:
            # ZstdError; the module may not be installed, so its class has no name here.
            if self._packing != "zstd" or type(error).__name__ != "ZstdError":
                raise
            raise self._broken(number) from None

    def _broken(self, number: int) -> click.BadParameter:
        return bad(
            _HINT, self.name, f"the {self._packing} data is broken or cut off behind line {number}"
        )

    def _reader(self) -> IO[bytes]:
        self._file.seek(self._start)
        if self._packing == "gzip":
            return cast("IO[bytes]", gzip.GzipFile(fileobj=self._file, mode="rb"))
        if self._packing == "zstd":
            make = zstandard(self.name).ZstdDecompressor().decompressobj
            return cast("IO[bytes]", io.BufferedReader(_Frames(self._file, make)))
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
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):  # lines() says where
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
        except EOFError:
            return False
        except Exception as error:
            if type(error).__name__ != "ZstdError":  # as in lines()
                raise
            return False
        return True


class _Frames(io.RawIOBase):
    """What zstd frames hold, one behind the other; zstandard's own reader takes a cut one for whole."""

    def __init__(self, file: IO[bytes], make: Callable[[], Any]) -> None:
        self._file = file
        self._make = make
        self._frame: Any = None
        self._ready = io.BytesIO()

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as it goes.

        Raises:
            EOFError: the last frame is cut off.
        """
        while not (size := self._ready.readinto(buffer)):
            data = self._file.read(_FRAME_CHUNK)
            if not data and self._frame is not None:
                raise EOFError("the last frame is cut off")
            if not data:
                return 0
            pieces: list[bytes] = []
            while data:
                self._frame = self._frame or self._make()
                pieces.append(self._frame.decompress(data))
                data = b""
                if self._frame.eof:
                    data, self._frame = self._frame.unused_data, None
            self._ready = io.BytesIO(b"".join(pieces))
        return size


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
