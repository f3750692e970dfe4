"""Hostile responses from a seed: ``make(seed, number)`` gives the bytes that a server sends.

Each is an answer of some kind, spoilt in one of the ways of ``KINDS``; a third of the bodies are then
damaged byte by byte, and a seventh are sent in a content coding. No event is larger than 1 MiB.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.fuzz import inputs

MIB = 1024 * 1024
LARGEST = MIB - 2048
"""Bytes that are put into one event, at most."""


class Hostile(NamedTuple):
    """One response."""

    kind: str
    wire: bytes
    """Head and body as they are sent."""
    mode: str
    """How the client reads it: ``chat``, ``events``, ``text``, ``tools`` or ``parse``."""
    stalls: bool
    """Whether the server neither sends more nor closes."""


class Body(NamedTuple):
    """A body and what its head says of it."""

    data: bytes
    content_type: str = "text/event-stream"
    status: int = 200
    headers: tuple[str, ...] = ()


def event(text: str | bytes, name: str = "") -> bytes:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def said(value: Any) -> bytes:
    return event(json.dumps(value))


START = said(inputs.START)
OPEN = said(inputs.content("content-start", 0, type="text", text=""))
HELLO = said(inputs.text("Hello"))
CLOSE = said(inputs.stop("content-end", 0))
END = said(inputs.finish()) + b"data: [DONE]\n\n"
HOLE = "@@"
"""Where a template takes something hostile."""

CITED = '{"start":0,"end":1,"text":"a","sources":[{"type":"document","id":"d","document":@@}]}'
TEMPLATES = (
    '{"type":"message-start","id":"x","delta":{"message":{"content":@@}}}',
    '{"type":"message-start","id":"x","delta":{"message":{"tool_calls":@@}}}',
    '{"type":"message-start","id":"x","delta":{"message":{"citations":@@}}}',
    '{"type":"message-start","id":@@,"delta":{"message":{"role":"assistant"}}}',
    '{"type":"message-start","id":"x","delta":@@}',
    '{"type":"content-start","index":0,"delta":{"message":{"content":@@}}}',
    '{"type":"content-delta","index":0,"delta":{"message":{"content":@@}}}',
    '{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":@@}}}}',
    '{"type":"content-delta","index":0,"delta":{"message":{"content":{"type":"audio","x":@@}}}}',
    '{"type":"content-delta","index":0,"delta":{"message":{"content":{"thinking":@@}}}}',
    '{"type":"content-delta","index":@@,"delta":{"message":{"content":{"text":"a"}}}}',
    '{"type":"content-delta","index":0,"logprobs":@@,"delta":{"message":{"content":{"text":"a"}}}}',
    (
        '{"type":"content-delta","index":0,"logprobs":{"token_ids":@@},"delta":{"message":{"content":'
        '{"text":"a"}}}}'
    ),
    (
        '{"type":"content-delta","index":0,"logprobs":{"token_ids":[1],"logprobs":@@},"delta":'
        '{"message":{"content":{"text":"a"}}}}'
    ),
    '{"type":"content-end","index":@@}',
    '{"type":"tool-plan-delta","delta":{"message":{"tool_plan":@@}}}',
    '{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":@@}}}',
    (
        '{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"c","type":@@,'
        '"function":{"name":"look","arguments":@@}}}}}'
    ),
    (
        '{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":'
        '{"arguments":@@}}}}}'
    ),
    '{"type":"tool-call-end","index":@@}',
    '{"type":"citation-start","index":0,"delta":{"message":{"citations":@@}}}',
    (
        '{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":@@,"end":@@,'
        '"text":"a"}}}}'
    ),
    (
        '{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"end":1,'
        '"text":"a","sources":@@}}}}'
    ),
    f'{{"type":"citation-start","index":0,"delta":{{"message":{{"citations":{CITED}}}}}}}',
    '{"type":"citation-end","index":@@}',
    '{"type":"message-end","delta":{"finish_reason":@@}}',
    '{"type":"message-end","delta":{"finish_reason":"ERROR","error":@@,"error_type":@@}}',
    '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":@@}}',
    (
        '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"x":@@,"tokens":'
        '{"input_tokens":@@,"output_tokens":@@}}}}'
    ),
    '{"type":"debug","prompt":@@}',
    '{"type":"new","x":@@}',
    '{"type":@@}',
    '{"message":@@}',
    '{"error":@@}',
    '{"type":"error","error":{"message":@@,"type":@@,"code":@@}}',
    '{"detail":@@}',
    "@@",
)


# --- what is put into a template -----------------------------------------------------------------

ITEMS = ("{}", "[]", "1", "null", '""', "1.5", "true", '{"a":1}', '"a"', "[[]]", '{"text":"a"}')
ITEMS += ('{"type":"text","text":"a"}', '{"start":0,"end":1,"text":"a"}', '{"document":{}}', "1e3")
ITEMS += ('{"function":{"name":"look","arguments":"{}"}}', "99999", "-1", '{"id":"c"}', '{"x":{}}')
HASHED_ALIKE = 2**61 - 1
"""CPython hashes an integer modulo this: its multiples collide."""
NUMBERS = ("1e999", "-1e999", "1e-999", "NaN", "Infinity", "-Infinity", "-0", "-0.0", "1e308", "01")
NUMBERS += (*map(str, (2**31, 2**53, 2**53 + 1, 2**63, 2**64, 2**70, -(2**63), 10**20, 100_001)),)
NUMBERS += ("9" * 308, "9" * 309, "-" + "9" * 400, "9" * 4301, "9" * 10_000, "0." + "1" * 5000)
NUMBERS += (
    "1." + "0" * 400,
    "1" * 400 + ".5",
    "1e" + "9" * 400,
    "1E+2",
    "0x10",
    "1_000",
    "+1",
    ".5",
)
STRINGS = ("a", " ", "é", "東", "\U0001f600", "\\n", "\\u00e9", "\\ud83d", "\\ud83d\\ude00", "\\\\")
STRINGS += ('\\"', "\\u0000", "\\u001b]52;c;x\\u0007", "[", "{", "\x7f", "\\u202e", "ab\\u2028")


def size(draw: Random, most: int = LARGEST) -> int:
    """Mostly small: one in thirty is above 100 KiB, one in three hundred the largest."""
    roll = draw.random()
    if roll < 0.003:
        return most
    if roll < 0.03:
        return draw.randint(min(most, 100_000), most)
    return min(most, int(10 ** draw.uniform(0.5, 4.5)))


def an_array(draw: Random) -> str:
    item = draw.choice(ITEMS)
    count = max(1, size(draw) // (len(item) + 1))
    if draw.random() < 0.2:
        pairs = (f'"{number:x}":{item}' for number in range(max(1, count // 3)))
        return "{" + ",".join(pairs) + "}"
    last = draw.choice((item, item, draw.choice(ITEMS)))
    return "[" + (item + ",") * (count - 1) + last + "]"


def a_nest(draw: Random) -> str:
    depth = draw.choice((1, 9, 190, 198, 199, 200, 201, 205, 250, 330, 1000, 5000, 100_000))
    if draw.random() < 0.5:
        depth = draw.randint(1, 400)
    left, right = draw.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[1,", "]")))
    depth = min(depth, LARGEST // len(left + right))
    inner = draw.choice(("1", "[]", "", '"x"', "null"))
    return left * depth + inner + right * (depth if draw.random() < 0.8 else depth // 2)


def a_number(draw: Random) -> str:
    return draw.choice(NUMBERS)


def a_string(draw: Random) -> str:
    piece = draw.choice(STRINGS)
    length = max(1, size(draw) // max(1, len(piece.encode())))
    return '"' + piece * length + draw.choice(("", "a", "\\ud83d", "\U0001f600")) + '"'


def any_value(draw: Random) -> str:
    return draw.choice((an_array, a_nest, a_number, a_string, lambda d: d.choice(ITEMS)))(draw)


def filled(draw: Random, make_one: Callable[[Random], str]) -> Body:
    """An answer one of whose events has something hostile in it, before or behind other events."""
    template = draw.choice(TEMPLATES)
    while HOLE in template:
        template = template.replace(HOLE, make_one(draw), 1)
        make_one = a_small_one if len(template) > 10_000 else make_one
    name = draw.choice(("", "", "", "error", "message", "ping", "content-delta"))
    one = event(template[: MIB - 1024], name)
    before = draw.choice((b"", START, START + OPEN, START + OPEN + HELLO))
    return Body(before + one + draw.choice((b"", END, CLOSE + END, HELLO + CLOSE + END, one)))


def a_small_one(draw: Random) -> str:
    return draw.choice(ITEMS)


# --- bodies of many events -----------------------------------------------------------------------


def indices(draw: Random) -> Body:
    """Places that are far apart, collide, repeat, or come in an unkind order."""
    count = int(10 ** draw.uniform(0.5, 3.3))
    order: list[int] = draw.choice(
        (
            [number * HASHED_ALIKE for number in range(count)],
            [number * HASHED_ALIKE % 100_001 for number in range(count)],
            list(range(count)),
            list(range(count, 0, -1)),
            [0] * count,
            [100_000] * count,
            [number * 64 % 100_001 for number in range(count)],
            draw.sample(range(100_001), count),
            [-1, *range(count)],
            [2**40] * count,
        )
    )
    shape = draw.randrange(4)
    parts = [START]
    for index in order:
        if shape == 0:
            parts.append(said(inputs.content("content-start", index, type="text", text="")))
            parts.append(said(inputs.text("a", index)))
        elif shape == 1:
            parts.append(said(inputs.call(index, "look", '{"city":"x"}')))
            parts.append(said(inputs.stop("tool-call-end", index)))
        elif shape == 2:
            parts.append(said(inputs.citation(index, index, index + 1, "a", sources=[])))
        else:
            kind = draw.choice(("content-end", "tool-call-end", "citation-end"))
            parts.append(said(inputs.stop(kind, index)))
    return Body(b"".join([*parts, said(inputs.finish("TOOL_CALL")), b"data: [DONE]\n\n"]))


FILLERS = (b":\n", b":\n\n", b": keep-alive\n\n", b"\n", b"\r", b"\r\n", b"id: 1\n", b"retry: 1\n")
FILLERS += (
    b"x\n",
    b"data\n",
    b"data:\n\n",
    b"event: ping\ndata: {}\n\n",
    b'data: {"type":"new"}\n\n',
)
FILLERS += (b"event: content-delta\n", b":" + b"c" * 4000 + b"\n", b"\0\n", b"retry: " + b"9" * 400)


def floods(draw: Random) -> Body:
    """Comments, fields and frames that mean nothing, many of them."""
    filler = draw.choice(FILLERS)
    flood = filler * max(1, size(draw) // len(filler))
    before = draw.choice((b"", START, START + OPEN + HELLO))
    return Body(before + flood + draw.choice((b"", b"\n", b"\n\n")) + draw.choice((b"", END)))


def deltas(draw: Random) -> Body:
    """An answer of many deltas, some of them a little unlike the others."""
    piece = json.loads('"' + draw.choice(STRINGS) + '"', strict=False)
    count = int(10 ** draw.uniform(0.5, 3.6))
    usual = said(inputs.text(piece, 0))
    odd = draw.choice((usual, said(inputs.thinking(piece)), HELLO[:-1], b"data: {\n\n", usual * 2))
    run = [odd if draw.random() < 0.01 else usual for _ in range(count)]
    return Body(START + OPEN + b"".join(run) + CLOSE + END)


def mutated(draw: Random) -> Body:
    """What the comparison with the slow reference makes up."""
    made = inputs.make(draw)
    return Body(made.body, "application/x-ndjson" if made.lines else "text/event-stream")


def refusals(draw: Random) -> Body:
    """An error body, or something else that is not an answer."""
    value = any_value(draw)
    shapes = ("%s", '{"message":%s}', '{"error":{"message":%s}}', '{"detail":[{"msg":%s}]}', "<%s>")
    text = draw.choice(shapes).replace("%s", value)
    status = draw.choice(
        (200, 201, 204, 301, 400, 401, 404, 422, 429, 498, 499, 500, 503, 529, 999)
    )
    headers = draw.choice(
        (
            (),
            (f"retry-after: {draw.choice(('9' * 15, '9' * 400, '-1', '1e9', 'x'))}",),
            ("retry-after: Tue, 01 Jan 2999 00:00:00 GMT",),
            ("x-debug-trace-id: " + "t" * 4000,),
            ("location: http://" + "a" * 4000,),
            tuple(f"x-{number}: {'h' * 60}" for number in range(90)),
        )
    )
    kind = draw.choice(("application/json", "text/html", "text/plain", "x/" + "y" * 900, ""))
    return Body(text.encode("utf-8", "surrogatepass"), kind, status, headers)


KINDS: dict[str, tuple[float, Callable[[Random], Body]]] = {
    "mutated": (0.3, mutated),
    "arrays": (0.12, lambda draw: filled(draw, an_array)),
    "nesting": (0.12, lambda draw: filled(draw, a_nest)),
    "numbers": (0.1, lambda draw: filled(draw, a_number)),
    "strings": (0.08, lambda draw: filled(draw, a_string)),
    "mixed": (0.05, lambda draw: filled(draw, any_value)),
    "indices": (0.04, indices),
    "floods": (0.08, floods),
    "deltas": (0.03, deltas),
    "refusals": (0.08, refusals),
}


# --- damage, codings and framing -----------------------------------------------------------------


def damaged(data: bytes, draw: Random) -> bytes:
    """A few bytes changed, left out, doubled or put in."""
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        place = draw.randrange(len(data))
        length = min(len(data) - place, draw.choice((1, 1, 2, 8, 64)))
        data = draw.choice(
            (
                data[:place] + draw.randbytes(length) + data[place + length :],
                data[:place] + data[place + length :],
                data[: place + length] + data[place:],
                data[:place] + draw.choice(inputs.TOKENS) + data[place:],
            )
        )
    return data


def deflated(data: bytes, wbits: int, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


def brotli(data: bytes) -> bytes | None:
    try:
        import brotli as package
    except ImportError:
        return None
    packed: bytes = package.compress(data, quality=4)
    return packed


def zstd(data: bytes) -> bytes | None:
    try:
        from backports import zstd as package
    except ImportError:
        return None
    packed: bytes = package.compress(data, 3)
    return packed


PACKERS: dict[str, Callable[[bytes], bytes | None]] = {
    "gzip": lambda data: deflated(data, 31),
    "deflate": lambda data: deflated(data, 15),
    "br": brotli,
    "zstd": zstd,
}


@functools.cache
def bomb(coding: str, filler: bytes, mib: int) -> bytes | None:
    """A good beginning and so many MiB of the same bytes behind it, in a coding."""
    return PACKERS[coding](START + OPEN + HELLO + filler * (mib * MIB // len(filler)) + END)


BOMB_FILLERS = (b":\n", b":\n\n", b"\n", b"\0", HELLO, b'data: {"type":"new"}\n\n', b"[")


def coded(body: Body, draw: Random) -> Body:
    """The body in a coding, or a bomb in its place; sometimes not what it claims to be."""
    coding = draw.choice(tuple(PACKERS))
    roll = draw.random()
    if roll < 0.08:
        data = bomb(coding, draw.choice(BOMB_FILLERS), draw.choice((2, 2, 2, 2, 8, 8, 32)))
        if data is not None and roll < 0.02:
            data = damaged(data, draw)
    elif roll < 0.15 and coding == "gzip":
        data = gzip.compress(b"") * draw.randint(2, 2000) + gzip.compress(body.data)
    elif roll < 0.2:
        data = PACKERS[coding](PACKERS["gzip"](body.data) or b"")
    elif roll < 0.3:
        data = draw.randbytes(size(draw, 50_000))
    else:
        data = PACKERS[coding](body.data)
        if data is not None and roll < 0.6:
            data = data[: draw.randrange(len(data) + 1)] if roll < 0.5 else damaged(data, draw)
    if data is None:  # the package is not installed
        return body
    name = draw.choice((coding,) * 9 + ("x-gzip", "gzip, gzip", "compress", "utf-8", "identity"))
    return body._replace(data=data, headers=(*body.headers, f"content-encoding: {name}"))


def framed(body: Body, draw: Random, *, stalls: bool) -> bytes:
    """A whole response; by a length, in chunks, or to the end of the connection."""
    lines = [f"HTTP/1.1 {body.status} X"]
    if body.content_type:
        lines.append(f"content-type: {body.content_type}")
    lines += body.headers
    roll, data = draw.random(), body.data
    if roll < 0.6:
        length = len(data) + (1000 if stalls else 0)
        lines.append(f"content-length: {length}")
    elif roll < 0.9:
        lines.append("transfer-encoding: chunked")
        step = draw.choice((1, 7, 100, 4096, 65536)) if len(data) < 5000 else 65536
        parts = [data[start : start + step] for start in range(0, len(data), step)]
        extension = b";x=" + b"y" * draw.choice((0, 0, 0, 3, 900))
        data = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
        data += b"" if stalls else b"0\r\n\r\n"
    lines.append("connection: close")
    head = "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
    wire = head + data
    return damaged(wire[:2000], draw) + wire[2000:] if draw.random() < 0.02 else wire


def make(seed: int, number: int) -> Hostile:
    """The response with this number."""
    draw = Random(f"{seed}:{number}")  # not for secrets
    kind = draw.choices(tuple(KINDS), [share for share, _ in KINDS.values()])[0]
    body = KINDS[kind][1](draw)
    if draw.random() < 0.3:
        body = body._replace(data=damaged(body.data, draw))
    if draw.random() < 0.15:
        body, kind = coded(body, draw), f"{kind}, coded"
    stalls = draw.random() < 0.003
    mode = draw.choices(("chat", "events", "text", "tools", "parse"), (60, 20, 8, 8, 4))[0]
    return Hostile(kind, framed(body, draw, stalls=stalls), mode, stalls)
