"""Lines of a file, plain or compressed: ``.gz`` (RFC 1952) and ``.zst`` (RFC 8878).

Each line is a member (gzip) or frame (zstd) of its own. A file of them is what every tool reads, it can be
cut after any line, and a process that is killed leaves at most one member that is not complete.
"""

from __future__ import annotations

import importlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

import attrs

from streamchat.protocol.errors import ConfigurationError

__all__ = ["PLAIN", "Packing", "packing_of", "zstd"]

_CHUNK = 1 << 18
_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 6


class _Unpacker(Protocol):
    """Decompresses one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@attrs.frozen
class Packing:
    """How a file stores its lines."""

    name: str = ""
    pack: Callable[[bytes], bytes] = bytes
    """A line to the bytes of its member."""
    _unpacker: Callable[[], _Unpacker] | None = None
    _error: type[Exception] = zlib.error

    def lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """Each line with the offset of its end; the last may be incomplete.

        The offset is -1 for a line that shares its member: another program compressed the file.

        Raises:
            ConfigurationError: it is not compressed so, or broken before its end.
        """
        with path.open("rb") as file:
            if self._unpacker is not None:
                yield from self._members(path, file)
                return
            end = 0
            for line in file:
                end += len(line)
                yield end, line

    def line_at(self, file: BufferedReader, offset: int) -> bytes:
        """The line that begins there, in a file whose lines have members of their own."""
        file.seek(offset)
        if self._unpacker is None:
            return file.readline()
        unpacker = self._unpacker()
        pieces: list[bytes] = []
        while not unpacker.eof and (data := file.read(_CHUNK)):
            pieces.append(unpacker.decompress(data))
        return b"".join(pieces)

    def first_line(self, path: Path) -> bytes | None:
        """The first line as far as it is there; None if the file is not compressed so."""
        with path.open("rb") as file:
            if self._unpacker is None:
                return file.readline()
            unpacker, text = self._unpacker(), b""
            while b"\n" not in text and not unpacker.eof and (data := file.read(_CHUNK)):
                if not text and not data.strip(b"\0"):
                    return b""
                try:
                    text += unpacker.decompress(data)
                except self._error:
                    return None
            return text[: text.find(b"\n") + 1] or text

    def _members(self, path: Path, file: BufferedReader) -> Iterator[tuple[int, bytes]]:
        assert self._unpacker is not None
        start, data = 0, file.read(_CHUNK)
        while data:
            unpacker, size, is_shared, text = self._unpacker(), 0, False, b""
            while data and not unpacker.eof:
                size += len(data)
                try:
                    text += unpacker.decompress(data)
                except self._error:
                    if _are_zeros(data, file):
                        return  # a file that grew before a power failure
                    raise ConfigurationError(
                        f"{path}, byte {start}: not {self.name} data, or broken"
                    ) from None
                *lines, text = _lines(text)
                for line in lines:
                    is_shared = True
                    yield -1, line
                data = b"" if unpacker.eof else file.read(_CHUNK)
            if not unpacker.eof:
                return  # the last member, cut off
            start += size - len(unpacker.unused_data)
            data = unpacker.unused_data or file.read(_CHUNK)
            if text:
                yield -1 if is_shared else start, text


def _lines(text: bytes) -> list[bytes]:
    """The lines of a text, at least one; the last may be empty or incomplete."""
    return io.BytesIO(text).readlines() or [b""]


def _are_zeros(data: bytes, file: BufferedReader) -> bool:
    """Whether there is nothing but zeros to the end of the file."""
    while data and not data.strip(b"\0"):
        data = file.read(_CHUNK)
    return not data


def _gzipped(line: bytes) -> bytes:
    # zlib's own header has no time: the same rows are the same bytes.
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(line) + packer.flush()


def _gunzipper() -> Any:
    return zlib.decompressobj(_GZIP)


PLAIN = Packing()
_GZ = Packing("gzip", _gzipped, _gunzipper)


def zstd(path: object) -> Any:
    """The module that reads and writes ``.zst``: Python 3.14's own, or its backport.

    Raises:
        ConfigurationError: neither is installed.
    """
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise ConfigurationError(f"{path}: .zst needs a package: pip install backports.zstd")


def packing_of(path: Path) -> Packing:
    """How a file of this name stores its lines.

    Raises:
        ConfigurationError: ``.zst`` without the package.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return _GZ
    if suffix == ".zst":
        module = zstd(path)
        return Packing("zstd", module.compress, module.ZstdDecompressor, module.ZstdError)
    return PLAIN
