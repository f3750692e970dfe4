"""Does the cost grow with the work, and no faster? Slopes of the pure core, by what grows.

``python -m benchmarks.growth [--scale 1.0] [--repeat 5]``

Each row makes one thing larger and leaves the rest alone, at sizes a factor of four apart; two ways
read it: ``EventReader``, and ``FrameDecoder`` + ``decode_event`` + ``Accumulator``. The slope is that
of the logarithms: 1 is linear, 2 quadratic, and below 1 is a cost that does not depend on the size.
``last`` is the slope of the last step alone, where a growing term would begin to show. Each figure
is the least of some repeats: noise only adds. Exit code 1 if a slope is over the limit.

Chunk sizes from a byte to 64 KiB come last: the bytes are the same, and only their cutting differs.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import answer, pin, print_table, write_results
from streamchat import ChatResponse
from streamchat.protocol import Accumulator, EventReader, FrameDecoder, decode_event

LIMIT = 1.1
LAST_LIMIT = 1.4
"""Of the last step: two sizes are noisier than four, and where text is only copied, megabytes leave
the caches (1.3 from 1 to 4 MiB, flat again from 4 to 32). Quadratic would be 2."""
CHUNK = 16 * 1024
MAX_BYTES = 64 * 1024 * 1024


def _frame(body: dict[str, Any]) -> bytes:
    data = json.dumps(body, separators=(",", ":"))
    return f"event: {body['type']}\ndata: {data}\n\n".encode()


def _in_message(kind: str, fields: dict[str, Any], index: int = 0) -> bytes:
    return _frame({"type": kind, "index": index, "delta": {"message": fields}})


def _end(kind: str, index: int) -> bytes:
    return _frame({"type": kind, "index": index})


def _around(*middle: bytes) -> bytes:
    """A whole answer with these frames between its start and its end."""
    frames = answer(0)
    return b"".join([frames[0], *middle, *frames[-2:]])


# --- what grows: from a size to the bytes of an answer ---------------------------------------------

WORD = 'tokens, one at a time: "quoted", and so on'


def events(size: int) -> bytes:
    """So many deltas of one word."""
    return b"".join(answer(size))


def delta_bytes(size: int) -> bytes:
    """Sixteen deltas whose text is so many bytes."""
    text = (WORD * (size // len(WORD) + 1))[:size]
    delta = _in_message("content-delta", {"content": {"text": text}})
    return _around(answer(0)[1], *[delta] * 16, _end("content-end", 0))


def frame_bytes(size: int) -> bytes:
    """One frame of so many bytes, in chunks of 1 KiB."""
    delta = _in_message("content-delta", {"content": {"text": "x" * size}})
    return _around(answer(0)[1], delta, _end("content-end", 0))


def citation_bytes(size: int) -> bytes:
    """One citation that repeats a document of so many bytes."""
    return _around(answer(0)[1], *_citation(0, "x" * size), _end("content-end", 0))


def citations(size: int) -> bytes:
    """So many citations of one small document."""
    made = [frame for i in range(size) for frame in _citation(i, "A short document.")]
    return _around(answer(0)[1], *answer(8)[2:-3], *made, _end("content-end", 0))


def _citation(index: int, text: str) -> list[bytes]:
    source = {"type": "document", "id": "doc:0", "document": {"id": "doc:0", "text": text}}
    cited = {"start": 0, "end": 3, "text": "The", "sources": [source], "type": "TEXT_CONTENT"}
    start = _in_message("citation-start", {"citations": cited}, index)
    return [start, _end("citation-end", index)]


def arguments(size: int) -> bytes:
    """One tool call whose arguments come in so many pieces."""
    pieces = ['{"rows":[0', *[",123456789"] * size, "]}"]
    return _around(*_call(0, pieces))


def tool_calls(size: int) -> bytes:
    """So many tool calls, one after another."""
    return _around(*[frame for i in range(size) for frame in _call(i, ['{"city":', '"Rome"}'])])


def _call(index: int, pieces: Sequence[str]) -> list[bytes]:
    call = {"id": f"c{index}", "type": "function", "function": {"name": "f", "arguments": ""}}
    return [
        _in_message("tool-call-start", {"tool_calls": call}, index),
        *[
            _in_message("tool-call-delta", {"tool_calls": {"function": {"arguments": p}}}, index)
            for p in pieces
        ],
        _end("tool-call-end", index),
    ]


def blocks(size: int) -> bytes:
    """So many content blocks of three deltas each."""
    return _around(
        *[
            frame
            for i in range(size)
            for frame in (
                _in_message("content-start", {"content": {"type": "text", "text": ""}}, i),
                *[_in_message("content-delta", {"content": {"text": " word"}}, i)] * 3,
                _end("content-end", i),
            )
        ]
    )


def alternating(size: int) -> bytes:
    """So many deltas that take turns between two blocks, as no recorded stream does."""
    return _around(
        *[_in_message("content-delta", {"content": {"text": " word"}}, i % 2) for i in range(size)]
    )


KIB, MIB = 1024, 1024 * 1024
GROWING: dict[str, tuple[Callable[[int], bytes], Sequence[int], int, str]] = {
    "events": (events, (500, 2000, 8000, 32_000), CHUNK, "event"),
    "bytes of a delta": (delta_bytes, (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB), CHUNK, "KiB"),
    "bytes of a frame": (frame_bytes, (64 * KIB, 256 * KIB, MIB, 4 * MIB), KIB, "KiB"),
    "bytes of a citation": (citation_bytes, (64 * KIB, 256 * KIB, MIB, 4 * MIB), CHUNK, "KiB"),
    "citations": (citations, (125, 500, 2000, 8000), CHUNK, "citation"),
    "pieces of arguments": (arguments, (500, 2000, 8000, 32_000), CHUNK, "piece"),
    "tool calls": (tool_calls, (125, 500, 2000, 8000), CHUNK, "call"),
    "content blocks": (blocks, (125, 500, 2000, 8000), CHUNK, "block"),
    "two blocks by turns": (alternating, (500, 2000, 8000, 32_000), CHUNK, "event"),
}
CHUNKS = (1, 4, 16, 64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB)

# --- who reads it ----------------------------------------------------------------------------------


def by_reader(chunks: Sequence[bytes]) -> ChatResponse:
    """What the library does."""
    reader = EventReader(MAX_BYTES)
    for chunk in chunks:
        for block in reader.split(chunk):
            reader.read(block)
    return reader.snapshot


def by_parts(chunks: Sequence[bytes]) -> ChatResponse:
    """What the pure core's parts do in a row, for other transports."""
    decoder, answered = FrameDecoder(MAX_BYTES), Accumulator()
    for chunk in chunks:
        for frame in decoder.feed(chunk):
            event = decode_event(frame)
            if event is not None:
                answered.add(event)
    return answered.snapshot()


READERS: dict[str, Callable[[Sequence[bytes]], ChatResponse]] = {
    "EventReader": by_reader,
    "parts": by_parts,
}


def _use(response: ChatResponse) -> None:
    """Look at everything that may have been put off."""
    _ = response.text
    for call in response.message.tool_calls:
        json.loads(call.arguments)


def measure(
    read: Callable[[Sequence[bytes]], ChatResponse], body: bytes, chunk: int, n: int
) -> float:
    """Least CPU seconds of so many repeats."""
    chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]
    least = math.inf
    for _ in range(n):
        gc.collect()
        begin = time.process_time()
        _use(read(chunks))
        least = min(least, time.process_time() - begin)
    return least


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent that fits best: least squares of the logarithms."""
    xs, ys = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return over / sum((a - x) ** 2 for a in xs)


def main() -> None:
    """Measure, print both tables, and write ``results/growth.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="factor for all sizes")
    parser.add_argument("--repeat", type=int, default=5, help="repeats; the least counts")
    options = parser.parse_args()
    pin(0)
    by_reader([events(500)])  # the interpreter rewrites code while it warms up
    by_parts([events(500)])
    curves, over = {}, []
    rows = []
    for what, (make, full_sizes, chunk, unit) in GROWING.items():
        sizes = [max(8, round(size * options.scale)) for size in full_sizes]
        bodies = [make(size) for size in sizes]
        per = 1 / KIB if unit == "KiB" else 1.0
        for name, read in READERS.items():
            costs = [measure(read, body, chunk, options.repeat) for body in bodies]
            us = [cost * 1e6 / (size * per) for cost, size in zip(costs, sizes, strict=True)]
            fitted, last = slope(sizes, costs), slope(sizes[-2:], costs[-2:])
            curves[f"{what}, {name}"] = {
                "sizes": sizes,
                "seconds": costs,
                "unit": unit,
                "us_a_unit": us,
                "slope": fitted,
                "last": last,
            }
            if fitted > LIMIT or last > LAST_LIMIT:
                over.append(f"{what}, {name}")
            shown = [f"{value:.2f}" for value in us]
            rows.append(
                [
                    what,
                    name,
                    f"{sizes[0]:,}-{sizes[-1]:,}",
                    *shown,
                    unit,
                    f"{fitted:.2f}",
                    f"{last:.2f}",
                ]
            )
    head = ["what grows", "read by", "sizes", *["us each"] * 4, "unit", "slope", "last"]
    print_table(head, rows)
    number = max(100, round(2000 * options.scale))
    body = events(number)
    cut = {
        name: [measure(read, body, chunk, options.repeat) * 1e6 / number for chunk in CHUNKS]
        for name, read in READERS.items()
    }
    print(
        f"\nus an event, {number:,} events of {len(body) / number:.0f} bytes, by the bytes of a chunk"
    )
    print_table(
        ["", *[f"{chunk:,}" for chunk in CHUNKS]],
        [[name, *[f"{us:.2f}" for us in costs]] for name, costs in cut.items()],
    )
    write_results(
        "growth",
        {
            "scale": options.scale,
            "limit": LIMIT,
            "curves": curves,
            "chunk_bytes": list(CHUNKS),
            "us_an_event_by_chunk": cut,
            "table": {
                "head": ["what grows", "from", "to", "cost at the end", "slope"],
                "rows": [
                    [
                        what,
                        *[f"{curves[key]['sizes'][i]:,}" for i in (0, -1)],
                        f"{curves[key]['us_a_unit'][-1]:.2f} us per {curves[key]['unit']}",
                        f"{curves[key]['slope']:.2f}",
                    ]
                    for what in GROWING
                    for key in [f"{what}, EventReader"]
                ],
            },
        },
    )
    for name in over:
        print(f"growth: {name}: more than linear")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
