"""Content codings of a response body, decoded in bounded steps (RFC 9110 8.4).

The requests ask for ``identity``, so a coded body is the choice of a gateway in between. aiohttp is told
not to decode: it knows fewer names, and the limits here are the same for every coding.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Protocol

from streamchat.protocol.errors import ProtocolError, TruncatedStreamError

__all__ = ["Decoder", "codings"]

STEP_BYTES = 64 * 1024
"""Decoded bytes per step, at most."""
LEAST_ROOM = 32 * 1024
"""A decompressor is called again in a step while this much may still come: Brotli 1.2 decodes into
blocks of 32 KiB, whatever limit it is given."""
SLICE_BYTES = 4 * 1024
"""Coded bytes that a decompressor receives at once. zlib copies what is behind the end of a member, and
a decompressor may hold its input, which the ratio would count as decoded."""
MAX_RATIO = 200
"""Decoded bytes per coded byte. Recorded Chat v2 streams of 20 to 40 KB have 22 to 34 (gzip, level 9)."""
RATIO_FROM_BYTES = 1024 * 1024
"""Decoded bytes from which on the ratio is checked."""
MAX_MEMBERS = 512
"""gzip members (or zstd frames) per chunk of 32 KiB: the shortest member has 20 bytes and costs as much
as a long one to set up."""
ZSTD_WINDOW_LOG = 23
"""A zstd window of 8 MiB is the most that a content coding may ask for (RFC 9659 3)."""
SAMPLE_BYTES = 512
"""What is looked at to tell text from a coding with an unknown name."""

_IDENTITY = frozenset({"", "identity", "none"})
"""``none`` is not registered, but a usual way to keep proxies from compressing an event stream."""
_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}
"""RFC 9110 8.4.1: the only two aliases. There is no ``x-deflate``."""


def codings(values: Iterable[str]) -> list[str]:
    """The codings of ``Content-Encoding``, in the order they were applied; identity is left out.

    Args:
        values: the header's values; a repeated header is one list (RFC 9110 5.3).
    """
    names = [name.strip().lower() for value in values for name in value.split(",")]
    return [_ALIASES.get(name, name) for name in names if name not in _IDENTITY]


class _Engine(Protocol):
    """One member of a coding being decompressed."""

    pending: bool
    """Whether there may be more output without more input."""
    ended: bool
    """Whether the member has ended."""
    complete: bool
    """Whether the body may end here."""
    left: bytes
    """Input behind the end of the member."""

    def decompress(self, data: bytes, limit: int) -> bytes:
        """At most ``limit`` decoded bytes. Input is given only while nothing is pending."""
        ...


class Decoder:
    """The decoded form of one response body.

    Args:
        coding: what :func:`codings` found, not empty.
        host: host and port, for messages.
    """

    def __init__(self, coding: list[str], host: str) -> None:
        self._host = host
        self._name = ", ".join(coding)
        self._make = self._maker(coding)
        self._engine: _Engine | None = None
        self._input = b""
        self._position = 0
        self._members = 0
        self._coded = 0
        self._decoded = 0
        self._has_failed = False
        self._failure: ProtocolError | TruncatedStreamError | None = None

    def feed(self, data: bytes) -> None:
        """Take the next chunk of the body, when :meth:`read` has returned ``b""``."""
        self._input, self._position, self._members = data, 0, 0

    @property
    def has_more(self) -> bool:
        """Whether :meth:`read` may return something without :meth:`feed`."""
        if self._has_failed:
            return self._failure is not None
        is_pending = self._engine is not None and self._engine.pending
        return is_pending or self._position < len(self._input)

    def read(self) -> bytes:
        """At most 64 KiB of the body; ``b""`` if more input is needed.

        Raises:
            ProtocolError: the coding cannot be decoded here, or the body expands beyond the limit; all
                that was decoded before has been returned.
            TruncatedStreamError: the body is not what its ``Content-Encoding`` says (``encoding``).
        """
        parts: list[bytes] = []
        room = STEP_BYTES
        while room >= LEAST_ROOM and not self._has_failed and self.has_more:
            try:
                part = self._step(room)
            except (ProtocolError, TruncatedStreamError) as error:
                self._has_failed = True
                self._failure = error
            else:
                room -= len(part)
                parts.append(part)
        if self._failure is not None and not any(parts):
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame: no cycle through it
        return b"".join(parts)

    def check_end(self) -> None:
        """Called at the end of the body.

        Raises:
            TruncatedStreamError: the body ended inside its coding.
        """
        if self._engine is not None and not self._engine.complete and not self._has_failed:
            raise TruncatedStreamError(
                f"the body that {self._host} sent ended inside its Content-Encoding ({self._name})",
                kind="truncated",
                host=self._host,
            )

    def _step(self, room: int) -> bytes:
        """One call of a decompressor."""
        engine, data = self._engine, b""
        if engine is None or not engine.pending:
            if engine is None or engine.ended:
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise self._undecodable()
                engine = self._engine = self._make()
            data = self._input[self._position : self._position + SLICE_BYTES]
            self._position += len(data)
        try:
            decoded = engine.decompress(data, room)
        except (ProtocolError, TruncatedStreamError):
            raise
        except Exception:  # noqa: BLE001  # each package has an exception class of its own
            decoded = None
        if decoded is None:
            raise self._undecodable()
        left = len(engine.left) if engine.ended else 0
        self._position -= left
        self._coded += len(data) - left
        self._decoded += len(decoded)
        if self._decoded > max(RATIO_FROM_BYTES, MAX_RATIO * self._coded):
            raise ProtocolError(
                f"the body that {self._host} sent with Content-Encoding {self._name} expands more "
                f"than {MAX_RATIO} times: {self._coded} bytes to over {self._decoded}"
            )
        return decoded

    def _undecodable(self) -> TruncatedStreamError:
        return TruncatedStreamError(
            f"the body that {self._host} sent is not what its Content-Encoding says ({self._name})",
            kind="encoding",
            host=self._host,
        )

    def _maker(self, coding: list[str]) -> Callable[[], _Engine]:
        """How to make an engine for each member."""
        if len(coding) > 1:
            return self._refuse
        match coding[0]:
            case "gzip":
                return lambda: _Zlib(16 + zlib.MAX_WBITS)
            case "deflate":
                return _Deflate
            case "br":
                return self._brotli
            case "zstd":
                return self._zstd
            case _:
                return lambda: _Text(self._refuse)

    def _refuse(self) -> _Engine:
        raise self._refusal("cannot be decoded")

    def _refusal(self, why: str) -> ProtocolError:
        return ProtocolError(
            f"{self._host} answered with Content-Encoding {self._name[:80]!r}, which was not asked "
            f"for and {why}"
        )

    def _brotli(self) -> _Engine:
        module = _first_module("brotlicffi", "brotli")
        if module is None:
            raise self._refusal("needs a package: pip install Brotli")
        engine, is_limited = _Brotli(module.Decompressor()), True
        try:
            engine.decompress(b"", 1)
        except TypeError:
            is_limited = False
        if not is_limited:
            raise self._refusal(
                "needs a version that can limit its output: pip install --upgrade 'Brotli>=1.2'"
            )
        return engine

    def _zstd(self) -> _Engine:
        module = _first_module("compression.zstd", "backports.zstd")
        if module is None:
            raise self._refusal("needs a package: pip install backports.zstd")
        options = {module.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        return _Zstd(module.ZstdDecompressor(options=options))


def _first_module(*names: str) -> Any:
    """The first of these modules that is installed; None if none is."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


class _Zlib:
    """gzip, zlib or raw deflate, according to ``wbits``."""

    __slots__ = ("_object", "complete", "ended", "left", "pending")

    def __init__(self, wbits: int) -> None:
        self._object = zlib.decompressobj(wbits)
        self.pending = self.ended = self.complete = False
        self.left = b""

    def decompress(self, data: bytes, limit: int) -> bytes:
        decoded = self._object.decompress(self._object.unconsumed_tail + data, limit)
        self.ended = self.complete = self._object.eof
        self.left = self._object.unused_data
        # With the output full, more may be inside even though the input is used up.
        self.pending = not self.ended and len(decoded) == limit
        return decoded


class _Deflate:
    """deflate is the zlib format; some servers send it without zlib's header (RFC 9110 8.4.1.2)."""

    __slots__ = ("_inner", "_start", "complete", "ended", "left", "pending")

    def __init__(self) -> None:
        self._inner: _Zlib | None = None
        self._start = b""

        self.pending = self.ended = self.complete = False
        self.left = b""

    def decompress(self, data: bytes, limit: int) -> bytes:
        if self._inner is None:
            self._start = data = self._start + data
            if len(data) < 2:
                return b""
            # RFC 1950 2.2: method 8, and the two bytes as a number are a multiple of 31.
            has_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._inner = _Zlib(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        inner = self._inner
        decoded = inner.decompress(data, limit)
        self.pending, self.left = inner.pending, inner.left
        self.ended = self.complete = inner.ended
        return decoded


class _Brotli:
    """Brotli or brotlicffi, 1.2 or later: earlier versions cannot limit their output."""

    __slots__ = ("_object", "complete", "ended", "left", "pending")

    def __init__(self, decompressor: Any) -> None:
        self._object = decompressor
        self.pending = self.ended = self.complete = False
        self.left = b""

    def decompress(self, data: bytes, limit: int) -> bytes:
        decoded: bytes = self._object.process(data, output_buffer_limit=min(limit, LEAST_ROOM // 2))
        self.ended = self.complete = self._object.is_finished()
        self.pending = not self.ended and not self._object.can_accept_more_data()
        return decoded


class _Zstd:
    """One zstd frame."""

    __slots__ = ("_object", "complete", "ended", "left", "pending")

    def __init__(self, decompressor: Any) -> None:
        self._object = decompressor
        self.pending = self.ended = self.complete = False
        self.left = b""

    def decompress(self, data: bytes, limit: int) -> bytes:
        decoded: bytes = self._object.decompress(data, max_length=limit)
        self.ended = self.complete = self._object.eof
        self.left = self._object.unused_data
        self.pending = not self.ended and not self._object.needs_input
        return decoded


class _Text:
    """An unknown name, mostly a charset or a transfer coding in the wrong place: read as it is if it is
    text, refused otherwise. Browsers and other clients ignore unknown names altogether."""

    __slots__ = ("_is_checked", "_refuse", "complete", "ended", "left", "pending")

    def __init__(self, refuse: Callable[[], _Engine]) -> None:
        self._refuse = refuse
        self._is_checked = self.pending = self.ended = False
        self.complete = True
        self.left = b""

    def decompress(self, data: bytes, limit: int) -> bytes:
        if not self._is_checked and not _is_text(data[:SAMPLE_BYTES]):
            self._refuse()
        self._is_checked = True
        return data


def _is_text(sample: bytes) -> bool:
    """Whether it can be the start of UTF-8 text without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return all(character >= " " or character in "\t\r\n" for character in text)
