"""Answers as bytes, made without the library, and what of them has arrived after n bytes.

The model that the library is held against: events are dicts, frames and HTTP framing are written
here by hand, and the number of complete events is counted from offsets alone.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs

Wire = dict[str, Any]
"""An event as it stands on the wire."""

DONE = b"data: [DONE]\n\n"
CHUNKED, LENGTH, EOF, HTTP10 = "chunked", "length", "eof", "http10"
FRAMINGS = (CHUNKED, LENGTH, EOF)


def message(**parts: Any) -> Wire:
    return {"message": parts}


def start() -> Wire:
    empty: Wire = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return {"type": "message-start", "id": "f0", "delta": message(role="assistant", **empty)}


def end(reason: str = "COMPLETE") -> Wire:
    usage = {"billed_units": {"input_tokens": 3, "output_tokens": 5}}
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}}


def block(index: int, kind: str, pieces: Sequence[str]) -> list[Wire]:
    """A content block, text or thinking."""
    opened = {"type": kind, kind: ""}
    return [
        {"type": "content-start", "index": index, "delta": message(content=opened)},
        *(
            {"type": "content-delta", "index": index, "delta": message(content={kind: piece})}
            for piece in pieces
        ),
        {"type": "content-end", "index": index},
    ]


def citation(index: int, first: int, last: int, text: str) -> list[Wire]:
    """A citation's start and end."""
    document = {"id": "doc:0", "text": "a document"}
    source = {"type": "document", "id": "doc:0", "document": document}
    cited = {"start": first, "end": last, "text": text, "sources": [source]}
    cited["type"] = "TEXT_CONTENT"
    return [
        {"type": "citation-start", "index": index, "delta": message(citations=cited)},
        {"type": "citation-end", "index": index},
    ]


def tool_call(index: int, pieces: Sequence[str]) -> list[Wire]:
    """A tool call's start, its arguments in pieces, its end."""
    opened = {"name": "weather", "arguments": ""}
    call = {"id": f"weather_{index}", "type": "function", "function": opened}
    return [
        {"type": "tool-call-start", "index": index, "delta": message(tool_calls=call)},
        *(
            {
                "type": "tool-call-delta",
                "index": index,
                "delta": message(tool_calls={"function": {"arguments": piece}}),
            }
            for piece in pieces
        ),
        {"type": "tool-call-end", "index": index},
    ]


def plain(count: int) -> list[Wire]:
    """A whole answer of ``count`` events, at least 4."""
    return [start(), *block(0, "text", [f"word{n} " for n in range(count - 4)]), end()]


def cited() -> list[Wire]:
    """About 2 KB with a bit of everything: a thought, a citation, emoji."""
    text = block(1, "text", ["Lions", " roar", " \N{LION FACE}\N{FAMILY}", *[" at night"] * 3, "."])
    return [
        start(),
        *block(0, "thinking", ["Let me", " see"]),
        *text[:-1],
        *citation(0, 0, 5, "Lions"),
        text[-1],
        end(),
    ]


def frame(event: Wire, *, escaped: bool = False) -> bytes:
    """An event as a block of server-sent events."""
    data = json.dumps(event, separators=(",", ":"), ensure_ascii=escaped)
    return f"event: {event['type']}\ndata: {data}\n\n".encode()


def frames(events: Sequence[Wire], *, escaped: bool = False) -> list[bytes]:
    return [frame(event, escaped=escaped) for event in events]


def body(events: Sequence[Wire]) -> bytes:
    return b"".join(frames(events))


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(framing: str, *more: bytes, length: int = 0) -> bytes:
    """Status line and headers of a stream."""
    line = b"HTTP/1.0 200 OK" if framing == HTTP10 else b"HTTP/1.1 200 OK"
    own = {
        CHUNKED: b"transfer-encoding: chunked",
        LENGTH: b"content-length: %d" % length,
        EOF: b"connection: close",
        HTTP10: b"server: old",
    }[framing]
    return b"\r\n".join((line, b"content-type: text/event-stream", own, *more, b"", b""))


@attrs.frozen
class Response:
    """A whole response with a known inside: which bytes are body, and where events end."""

    events: Sequence[Wire]
    raw: bytes = attrs.field(repr=False)
    head_size: int
    spans: Sequence[tuple[int, int]] = attrs.field(repr=False)
    """Where body bytes stand in ``raw``: start and end of each run."""
    ends: Sequence[int] = attrs.field(repr=False)
    """After how many body bytes each event is complete."""

    def body_bytes(self, cut: int) -> int:
        """How many bytes of the body the first ``cut`` bytes hold."""
        return sum(min(cut, last) - first for first, last in self.spans if first < cut)

    def complete(self, cut: int) -> int:
        """How many events the first ``cut`` bytes hold in full."""
        return bisect_right(self.ends, self.body_bytes(cut))

    def in_body(self, cut: int) -> bool:
        """Whether the byte at ``cut`` would be read as body, not as framing."""
        return any(first <= cut < last for first, last in self.spans)


def respond(
    events: Sequence[Wire],
    framing: str,
    *,
    sizes: Sequence[int] = (),
    escaped: bool = False,
    comments: bool = False,
) -> Response:
    """The whole response; a chunked one in chunks of these sizes in turn, else an event a chunk."""
    parts = [
        (b": ping\n\n" if comments and position % 3 == 1 else b"") + part
        for position, part in enumerate(frames(events, escaped=escaped))
    ]
    ends = [sum(map(len, parts[: position + 1])) for position in range(len(parts))]
    whole = b"".join(parts) + DONE
    opened = head(framing, length=len(whole))
    if framing != CHUNKED:
        raw = opened + whole
        return Response(events, raw, len(opened), [(len(opened), len(raw))], ends)
    pieces: list[bytes] = [*parts, DONE]
    if sizes:
        pieces, position = [], 0
        while position < len(whole):
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(whole[position : position + size])
            position += size
    raw, spans = opened, []
    for piece in pieces:
        first = len(raw) + len(b"%x\r\n" % len(piece))
        spans.append((first, first + len(piece)))
        raw += chunk(piece)
    return Response(events, raw + b"0\r\n\r\n", len(opened), spans, ends)


_WORDS = (
    "a",
    " the",
    " Lima",
    " caf\u00e9",
    "\n",
    ' "q"',
    " \\",
    "\t",
    " \U0001f981",
    " \U0001f46a",
    "\u2028",
    "\u0085",
    "data: x",
    " [DONE]",
    "\u65e5",
    "\x7f",
    " word" * 30,
)


def random_events(random: Random) -> list[Wire]:
    """An answer: plain, cited, with tools, with thinking, full of emoji."""

    def words(most: int) -> list[str]:
        return [random.choice(_WORDS) for _ in range(random.randint(0, most))]

    kind = random.choice(("plain", "cited", "tools", "thinking", "emoji"))
    match kind:
        case "tools":
            plans = [
                {"type": "tool-plan-delta", "delta": message(tool_plan=word)} for word in words(6)
            ]
            calls = [
                event
                for index in range(random.randint(1, 3))
                for event in tool_call(
                    index, ['{"city', '": "Li', "ma\U0001f981", '"}'][: random.choice((0, 4))]
                )
            ]
            return [start(), *plans, *calls, end("TOOL_CALL")]
        case "cited":
            text = block(0, "text", ["Lions", *words(30)])
            place = random.randint(2, len(text) - 1)
            return [start(), *text[:place], *citation(0, 0, 5, "Lions"), *text[place:], end()]
        case "thinking":
            return [start(), *block(0, "thinking", words(20)), *block(1, "text", words(20)), end()]
        case "emoji":
            return [
                start(),
                *block(0, "text", ["\U0001f981\U0001f30f"] * random.randint(1, 40)),
                end(),
            ]
        case _:
            return [start(), *block(0, "text", words(60)), end()]
