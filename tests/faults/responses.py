"""The raw responses of faults.md 5.1 and the failures of 5.3, and what must come of each: data only.

Outcomes are derived from the table of faults.md 3 and the contract (design.md 4), not from what the
library happened to do.
"""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec

from streamchat import TruncatedStreamError
from tests.faults import answers
from tests.faults.answers import CHUNKED, EOF, HTTP10, LENGTH, body, chunk, frames, head, plain
from tests.faults.cases import (
    Case,
    Expect,
    closed,
    complete,
    lost,
    not_http,
    refused,
    stalled,
    truncated,
    undecodable,
)
from tests.faults.rawserver import Fin, Hold, Rst, Script, Send, Settle, Step, Trickle

__all__ = ["LARGE_ANSWERS", "LATER_FAILURES", "RAW_RESPONSES"]

ANSWER = plain(12)
ALL = len(ANSWER)
PIECES = frames(ANSWER)
BODY = body(ANSWER) + answers.DONE
WHOLE = answers.respond(ANSWER, CHUNKED).raw
"""A complete answer, an event a chunk."""
LAST = b"0\r\n\r\n"
"""The last chunk."""


def _some(count: int) -> bytes:
    return b"".join(chunk(piece) for piece in PIECES[:count])


def _raw(head_: bytes, *rest: bytes) -> bytes:
    return b"".join((head_, *rest))


def _case(name: str, script: Script | bytes, *expect: Expect, end: Step | None = None) -> Case:
    steps: Script = [Send(script), end or Hold()] if isinstance(script, bytes) else script
    return Case(name, steps, ANSWER, expect)


def _gzip_cut() -> bytes:
    """Three events and half of the rest, flushed where the three end."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(b"".join(PIECES[:3])) + packer.flush(zlib.Z_SYNC_FLUSH)


_STREAM = head(CHUNKED)
_GZIP = head(CHUNKED, b"content-encoding: gzip")
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_PLAIN_BODY = head(LENGTH, length=len(BODY)) + BODY

RAW_RESPONSES: list[Case] = [
    # --- before and inside the headers (F16, F18, F19, F20) ---
    _case("RST before headers", [Rst()], lost()),
    _case("RST inside headers", _OK, lost(), end=Rst()),
    _case("FIN before headers", [Fin()], lost()),
    _case("FIN inside headers", _OK, lost(), end=Fin()),
    _case("no headers", [Hold()], stalled(0)),
    _case("headers 1 byte per 20 ms", [Trickle(WHOLE, 0.02), Hold()], stalled(0)),
    _case("silent body", _STREAM, stalled(0)),
    # --- chunked bodies that break off (F41, F42) ---
    _case("chunked: FIN with no chunk", _STREAM, truncated(0), end=Fin()),
    _case("chunked: FIN after a chunk", _STREAM + _some(3), truncated(3), end=Fin()),
    _case("chunked: FIN inside a chunk", _STREAM + _some(4)[:-9], truncated(3), end=Fin()),
    _case("chunked: FIN inside the size line", _STREAM + _some(3) + b"5", truncated(3), end=Fin()),
    _case("chunked: FIN after 0 CRLF", _STREAM + _some(3) + b"0\r\n", truncated(3), end=Fin()),
    _case("chunked: RST inside a chunk", _STREAM + _some(4)[:-9], truncated(3), end=Rst()),
    _case("chunked: RST after a chunk", _STREAM + _some(3), truncated(3), end=Rst()),
    # --- other bodies that break off (F43, F44) ---
    _case("Content-Length short", _PLAIN_BODY[: -len(BODY) // 2], truncated(5), end=Fin()),
    _case("EOF-delimited + FIN, whole", head(EOF) + BODY, complete(ALL), end=Fin()),
    _case("EOF-delimited + FIN, cut", head(EOF) + body(ANSWER[:5]), truncated(5), end=Fin()),
    _case("EOF-delimited + RST, cut", head(EOF) + body(ANSWER[:5]), truncated(5), end=Rst()),
    _case("HTTP/1.0 + FIN, whole", head(HTTP10) + BODY, complete(ALL), end=Fin()),
    _case("HTTP/1.0 + FIN, cut", head(HTTP10) + body(ANSWER[:5]), truncated(5), end=Fin()),
    _case(
        "HTTP/1.0 with chunked",
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        complete(ALL),
        end=Fin(),
    ),
    # --- chunk framing in the segment of the headers (F48): aiohttp gives no response at all ---
    _case("bad chunk size", _STREAM + _some(3) + b"xyz\r\nabc\r\n", not_http()),
    _case("negative chunk size", _STREAM + _some(3) + b"-5\r\nabc\r\n", not_http()),
    # The pure-Python parser takes 2^64 as a size and waits for so much.
    _case(
        "chunk size 2^64",
        _STREAM + _some(3) + b"10000000000000000\r\nabc\r\n",
        not_http(),
        stalled(3),
    ),
    _case("data longer than its size", _STREAM + _some(3) + b"3\r\nabcdef\r\n", not_http()),
    # --- extensions and trailers (F50, F51) ---
    # 100 KB come in more than one read; either parser takes the extension or refuses it.
    _case(
        "chunk extension of 100 KB",
        _raw(_STREAM, _some(3), b"5;x=" + b"y" * 100_000 + b"\r\n", b": hi\n\r\n", WHOLE[-5:]),
        truncated(3),
        not_http(3),
        not_http(),
    ),
    _case("trailers", WHOLE[:-2] + b"x-sum: 1\r\nx-more: 2\r\n\r\n", complete(ALL)),
    # In the segment of the headers the whole response is refused (F48), later it is complete.
    _case(
        "200 trailer lines",
        WHOLE[:-2] + b"".join(b"x-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        not_http(),
        complete(ALL),
    ),
    _case(
        "trailer line of 100 KB",
        WHOLE[:-2] + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
        not_http(),
        complete(ALL),
    ),
    # --- headers out of bounds (F25) ---
    _case(
        "header line of 9,000 bytes",
        WHOLE.replace(b"\r\n", b"\r\nx: " + b"y" * 9000 + b"\r\n", 1),
        not_http(),
    ),
    _case(
        "129 headers",
        WHOLE.replace(b"\r\n", b"\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(129)), 1),
        not_http(),
    ),
    _case("header of 2 MB without end", _OK + b"x: " + b"y" * 2_000_000, not_http()),
    # --- not HTTP (F23, F24, F26, F39) ---
    _case("garbage status line", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", not_http()),
    _case("binary", bytes(range(256)) * 4 + b"\r\n\r\n", not_http()),
    _case(
        "HTTP/2 frame",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00\x03\x00\x00\x00\x80" * 3 + b"\r\n\r\n",
        not_http(),
    ),
    _case("status 999", b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", refused(999)),
    _case("NUL in a header", _OK + b"x: a\x00b\r\n\r\n", not_http()),
    _case(
        "Content-Length and chunked",
        _OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + _some(2),
        not_http(),
    ),
    _case(
        "two Content-Lengths",
        _OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        not_http(),
    ),
    _case("negative Content-Length", _OK + b"content-length: -5\r\n\r\n", not_http()),
    _case("bare LF headers", _STREAM.replace(b"\r\n", b"\n") + _some(ALL) + LAST, complete(ALL)),
    _case(
        "obs-fold",
        _OK + b"x: a\r\n b\r\ntransfer-encoding: chunked\r\n\r\n" + _some(ALL) + LAST,
        complete(ALL),
    ),
    _case("100 then 200", b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, complete(ALL)),
    _case("103 then 200", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + WHOLE, complete(ALL)),
    # 10,000 may take the pure-Python parser longer than the limit for the first event (F22).
    _case(
        "10,000 x 103 then 200",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000 + WHOLE,
        complete(ALL),
        stalled(0),
    ),
    _case(
        "101",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        refused(101),
    ),
    # A 204 has no body: what follows is refused as a second response, or ignored.
    _case(
        "204 with body",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
        not_http(),
        stalled(0),
        refused(204),
    ),
    # --- codings (F40, F59, F60, F62) ---
    _case(
        "unknown Transfer-Encoding",
        _OK + b"transfer-encoding: odd\r\n\r\n" + BODY,
        complete(ALL),
        end=Fin(),
    ),
    _case("gzip, whole", _GZIP + chunk(gzip.compress(BODY)) + LAST, complete(ALL)),
    _case("gzip announced, plain body", _GZIP + chunk(BODY) + LAST, undecodable(0)),
    _case(
        "garbage after gzip",
        _GZIP + chunk(gzip.compress(BODY)) + chunk(b"garbage" * 9) + LAST,
        complete(ALL),
    ),
    _case("gzip cut, chunking complete", _GZIP + chunk(_gzip_cut()) + LAST, truncated(3)),
    _case(
        "br, with Brotli or without",
        head(CHUNKED, b"content-encoding: br") + chunk(b"\xff" * 16) + LAST,
        undecodable(0) if find_spec("brotli") or find_spec("brotlicffi") else not_http(),
    ),
    _case(
        "unknown Content-Encoding",
        head(CHUNKED, b"content-encoding: odd") + chunk(b"\x0b\x02") + LAST,
        not_http(),
    ),
    # --- around the end (F47, F52, F64) ---
    _case("no [DONE] after message-end", _STREAM + _some(ALL) + LAST, complete(ALL)),
    _case("bytes after the last chunk", WHOLE + b"HTTP/1.1 200 OK\r\n\r\n", complete(ALL)),
    _case("kept open after message-end", _STREAM + _some(ALL), complete(ALL)),
]
"""faults.md 5.1, with the whole and the cut form of a body where both exist."""

TEN = 10
_ten: list[Step] = [Send(_STREAM + _some(TEN)), Settle()]
_ten_gzip = zlib.compressobj(wbits=31)
_TEN_PACKED = _ten_gzip.compress(b"".join(PIECES[:TEN])) + _ten_gzip.flush(zlib.Z_SYNC_FLUSH)


def _later(name: str, data: bytes, *expect: Expect, end: Step | None = None) -> Case:
    """Ten events, then, in a segment of its own, a failure."""
    return Case(name, [*_ten, Send(data), end or Hold()], ANSWER, expect)


LATER_FAILURES: list[Case] = [
    _later("ten, clean end", LAST, truncated(TEN)),
    _later("ten, clean end and FIN", LAST, truncated(TEN), end=Fin()),
    _later("ten, FIN without the last chunk", b"", truncated(TEN), end=Fin()),
    _later("ten, RST", b"", truncated(TEN), end=Rst()),
    _later("ten, silence", b"", stalled(TEN)),
    Case(
        "ten, comments for ever",
        [*_ten, Trickle(chunk(b": ping\n\n"), 0.05, 64, True)],
        ANSWER,
        [stalled(TEN)],
    ),
    Case(
        "ten, one byte at a time for ever",
        [*_ten, Trickle(chunk(b"x"), 0.05, 64, True)],
        ANSWER,
        [stalled(TEN)],
    ),
    _later("ten, bad chunk size later", b"xyz\r\nabc\r\n", not_http(TEN)),
    _later("ten, missing CRLF after a chunk later", b"3\r\nabcdef", not_http(TEN)),
    # The pure-Python parser takes 2^64 as a size and waits for so much.
    _later(
        "ten, chunk size 2^64 later", b"10000000000000000\r\nabc\r\n", not_http(TEN), stalled(TEN)
    ),
    _later(
        "ten, trailer line of 20 KB later",
        b"0\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        not_http(TEN),
    ),
    _later("ten, 300 trailer lines later", b"0\r\n" + b"x: 1\r\n" * 300 + b"\r\n", not_http(TEN)),
    Case(
        "ten, gzip error later",
        [Send(_GZIP + chunk(_TEN_PACKED)), Settle(), Send(chunk(b"\xff" * 64)), Hold()],
        ANSWER,
        [undecodable(TEN)],
    ),
    Case(
        "ten, client closed while reading",
        [*_ten, Hold()],
        ANSWER,
        [closed(TEN)],
        close_client=True,
    ),
    Case(
        "last data and FIN back to back",
        [Send(_STREAM + _some(TEN)), Fin()],
        ANSWER,
        [truncated(TEN)],
    ),
    Case(
        "last data and RST back to back",
        [Send(_STREAM + _some(TEN)), Rst()],
        ANSWER,
        [truncated(TEN)],
    ),
]
"""faults.md 5.3, and the two ways to keep aiohttp's own timer quiet (5.2)."""

MANY = 2500
LARGE = plain(MANY)
_LARGE = _STREAM + b"".join(chunk(piece) for piece in frames(LARGE)[:-1])
_LARGE_EOF = head(EOF) + body(LARGE[:-1])
_LARGE_LAST = chunk(PIECES[-1])
_LARGE_RST = Expect(TruncatedStreamError, None, frozenset({"truncated", "reset"}))


def _large(name: str, data: bytes, expect: Expect, end: Step | None = None) -> Case:
    return Case(f"large, {name}", [Send(data), end or Hold()], LARGE, [expect])


LARGE_ANSWERS: list[Case] = [
    _large("whole", _LARGE + _LARGE_LAST + LAST, complete(MANY)),
    _large("whole, FIN", _LARGE + _LARGE_LAST + LAST, complete(MANY), Fin()),
    _large("whole, goodbye and FIN", _LARGE + _LARGE_LAST + LAST, complete(MANY), Fin(notify=True)),
    _large("FIN without the last chunk", _LARGE, truncated(MANY - 1), Fin()),
    _large("goodbye and FIN without the last chunk", _LARGE, truncated(MANY - 1), Fin(notify=True)),
    _large("EOF-delimited, FIN", _LARGE_EOF, truncated(MANY - 1), Fin()),
    _large("silence", _LARGE, stalled(MANY - 1)),
    _large("bad chunk size later", _LARGE + b"xyz\r\n", not_http(MANY - 1)),
    # What the server had not got rid of yet is dropped by the server's own kernel.
    _large("RST", _LARGE, _LARGE_RST, Rst()),
]
"""0.3 MB, more than all buffers of the client: the transport pauses while the consumer is behind, and
the end comes in the middle of that (5.3, last paragraph). A goodbye is TLS's close_notify."""
