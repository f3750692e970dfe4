"""Content codings in any chunking, cut, damaged and expanding: the decoder alone."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable

import pytest

from streamchat import ProtocolError, TruncatedStreamError
from streamchat.transport.decoding import STEP_BYTES, Decoder, codings
from tests import packages
from tests.frames import body, plain

ANSWER = body(plain())
BOMB = b"x" * 50_000_000


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(b"") + gzip.compress(data[100:])


def _stored(data: bytes) -> bytes:
    packer = zlib.compressobj(0, wbits=-15)
    return packer.compress(data) + packer.flush()


def _brotli(data: bytes) -> bytes:
    packed: bytes = pytest.importorskip("brotli").compress(data, quality=5)
    return packed


def _zstd(data: bytes) -> bytes:
    packed: bytes = packages.zstd().compress(data)
    return packed


def _zstd_frames(data: bytes) -> bytes:
    return _zstd(data[:50]) + _zstd(data[50:])


CODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip members": ("gzip", _members),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", _raw_deflate),
    "raw deflate, stored": ("deflate", _stored),
    "br": ("br", _brotli),
    "zstd": ("zstd", _zstd),
    "zstd frames": ("zstd", _zstd_frames),
    "unknown": ("utf-8", bytes),
}


def decoded(coding: str, data: bytes, size: int) -> bytes:
    """The body, fed in chunks of this size; no step is larger than it may be."""
    decoder, received = Decoder(codings([coding]), "host:1"), b""
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
        while step := decoder.read():
            assert len(step) <= STEP_BYTES
            received += step
        assert not decoder.has_more
    decoder.check_end()
    return received


@pytest.mark.parametrize("size", [1, 2, 7, 32 * 1024])
@pytest.mark.parametrize("name", CODED)
def test_any_chunking_gives_the_same_bytes(name: str, size: int) -> None:
    coding, pack = CODED[name]
    assert decoded(coding, pack(ANSWER), size) == ANSWER


@pytest.mark.parametrize("name", CODED)
def test_a_large_body_comes_in_bounded_steps(name: str) -> None:
    """A megabyte that hardly compresses, and 200 KB that does, within the ratio."""
    coding, pack = CODED[name]
    mixed = os.urandom(20_000).hex().encode() * 5 + os.urandom(400_000).hex().encode()
    assert decoded(coding, pack(mixed), 32 * 1024) == mixed


def test_a_flushed_event_is_decoded_at_once() -> None:
    """What was sync-flushed needs no further input, as a gateway flushes each event."""
    for wbits, coding in ((31, "gzip"), (15, "deflate"), (-15, "deflate")):
        packer, decoder = zlib.compressobj(wbits=wbits), Decoder([coding], "host:1")
        for event in plain():
            frame = repr(event).encode()
            decoder.feed(packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH))
            assert decoder.read() == frame


@pytest.mark.parametrize("name", ["gzip", "zlib", "raw deflate", "br", "zstd"])
def test_a_cut_coding_is_truncated(name: str) -> None:
    """The end inside a coding is an error, however the chunking ended."""
    coding, pack = CODED[name]
    with pytest.raises(TruncatedStreamError, match="ended inside its Content-Encoding") as caught:
        decoded(coding, pack(ANSWER)[:-6], 100)
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("name", ["gzip", "zlib", "br", "zstd"])
def test_a_bomb_ends_after_a_mebibyte(name: str) -> None:
    """The ratio is named, and what was decoded by then is bounded."""
    coding, pack = CODED[name]
    decoder, received = Decoder([coding], "host:1"), 0
    decoder.feed(pack(BOMB))
    with pytest.raises(ProtocolError, match=f"{coding} expands more than 200 times"):
        while step := decoder.read():
            received += len(step)
    assert received <= 2 * 1024 * 1024
    assert not decoder.has_more
    assert decoder.read() == b""


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd"])
def test_what_was_decoded_before_an_error_is_returned_first(name: str) -> None:
    """Garbage behind the end of a coding costs nothing of what came before it."""
    coding, pack = CODED[name]
    decoder = Decoder([coding], "host:1")
    decoder.feed(pack(ANSWER) + b"garbage behind the end of the body")
    assert decoder.read() == ANSWER
    with pytest.raises(TruncatedStreamError, match="not what its Content-Encoding says") as caught:
        decoder.read()
    assert caught.value.kind == "encoding"


def test_an_empty_body_is_complete() -> None:
    for coding in ("gzip", "deflate", "br", "zstd", "utf-8"):
        assert decoded(coding, b"", 1) == b""


def test_very_many_members_are_refused() -> None:
    """Each costs a decompressor; 512 in one chunk are no answer's."""
    decoder = Decoder(["gzip"], "host:1")
    decoder.feed(gzip.compress(b":\n") * 1_000)
    assert decoder.read() == b":\n" * 512
    with pytest.raises(TruncatedStreamError, match="not what its Content-Encoding says"):
        decoder.read()


@pytest.mark.parametrize(
    "start", [b"\x1f\x8b", b"\x00", b"BZh91AY&SY\x11", b"\xff\xfe", b"\x7fELF\x02"]
)
def test_binary_under_an_unknown_name_is_refused(start: bytes) -> None:
    decoder = Decoder(["odd"], "host:1")
    decoder.feed(start + ANSWER)
    with pytest.raises(ProtocolError, match=r"Content-Encoding 'odd'.*cannot be decoded"):
        decoder.read()


def test_text_under_an_unknown_name_may_be_cut_inside_a_character() -> None:
    text = "\ufeffdata: \u00e9\U0001f600\n\n".encode() * 100
    for size in (1, 3, 512):
        assert decoded("utf-16", text, size) == text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["gzip"], ["gzip"]),
        ([" X-GZIP "], ["gzip"]),
        (["None"], []),
        (["identity, none", ""], []),
        (["identity", "gzip"], ["gzip"]),
        (["br, x-gzip"], ["br", "gzip"]),
        (["x-compress"], ["compress"]),
        (["x-deflate"], ["x-deflate"]),
        (["nonesuch"], ["nonesuch"]),
    ],
)
def test_names_of_codings(values: list[str], expected: list[str]) -> None:
    """Any case; lists and repeated headers alike; RFC 9110 8.4.1 has two aliases."""
    assert codings(values) == expected
