"""Write the corpus of our own making: ``python -m tests.fuzz.make_corpus``.

Each file is a body. What a fuzzing run found is named ``found-...`` and stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from tests.fuzz import inputs
from tests.fuzz.replay import CORPUS


def bodies() -> Iterator[tuple[str, bytes]]:
    """File names and bodies, of event streams and of JSON lines."""
    for name, body in event_streams():
        yield f"{name}.sse", body
    for name, body in json_lines():
        yield f"{name}.jsonl", body


def json_lines() -> Iterator[tuple[str, bytes]]:
    """A flow as JSON lines, and each way to be different."""
    lines = [json.dumps(event).encode() for event in inputs.FLOWS[0]]
    usual = b"".join(line + b"\n" for line in lines)
    yield "lines", usual
    yield "lines-crlf", usual.replace(b"\n", b"\r\n")
    yield "lines-blank", b"\n \n".join(lines)
    yield "lines-mark", b"\xef\xbb\xbf" + usual
    yield "lines-cut", usual[: len(usual) // 2]
    yield "lines-no-json", b"\n".join([*lines[:2], b"nonsense", b"\xff", b"7", b"[DONE]", b""])
    halves = [json.dumps(event).encode() for event in inputs.FLOWS[4]]
    yield "lines-halves", b"\n".join(halves[1:5])
    lists = [json.dumps(event).encode() for event in inputs.FLOWS[9]]
    yield "lines-lists", b"\n".join(lists)


def event_streams() -> Iterator[tuple[str, bytes]]:
    """Each flow as the server writes it, and each way to be different."""
    names = [
        "text",
        "citations",
        "tools",
        "thinking",
        "halves",
        "failure",
        "filled",
        "middle",
        "unknown",
        "lists",
        "repeated",
        "indexless",
    ]
    flows = dict(zip(names, inputs.PLAIN, strict=True))
    for name, blocks in flows.items():
        yield f"flow-{name}", b"".join(blocks)
    usual = b"".join(flows["text"])
    yield "ends-crlf", usual.replace(b"\n", b"\r\n")
    yield "ends-cr", usual.replace(b"\n", b"\r")
    yield "ends-mixed", usual.replace(b"\n\n", b"\r\n\r").replace(b"\ndata", b"\rdata")
    yield "mark", b"\xef\xbb\xbf" + usual
    yield "no-event-lines", b"".join(block.partition(b"\n")[2] for block in flows["citations"])
    yield "twice", usual + usual
    yield "comments", usual.replace(b"\n", b"\n:" + b"c" * 300 + b"\n")
    yield "cut", usual[: len(usual) // 2]
    yield (
        "between",
        b"".join(a + b for a, b in zip(inputs.BETWEEN, flows["tools"] * 3, strict=False)),
    )
    yield "terminators", b"".join(inputs.DONES)
    crowd = b"{}," * 200
    yield "crowd-content", usual.replace(b'"content":[]', b'"content":[%b1]' % crowd)
    cited = b"".join(flows["citations"])
    yield "crowd-sources", cited.replace(b'"sources":[', b'"sources":[' + crowd)
    alike = (inputs.text("a", number * inputs.HASHED_ALIKE) for number in range(9))
    yield "indices-alike", b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in alike)
    yield "flood", flows["text"][0] + b":\n" * 500 + b"id: 1\n" * 200 + b"".join(flows["text"][1:])
    for spelling, write in enumerate(inputs.SPELLINGS[1:], 1):
        lines = [write(event).replace("\n", "\ndata: ") for event in inputs.FLOWS[2]]
        yield f"spelling-{spelling}", "".join(f"data: {line}\n\n" for line in lines).encode()
    for number, (before, after) in enumerate(inputs.LANES[::2]):
        deltas = (before + piece + after for piece in inputs.PIECES)
        start = flows["tools"][5] if after == b'"}}}}}' else b""
        yield f"lane-{number}", start + b"\n\n".join(deltas) + b"\n\n"
    numbers = (
        b'data: {"type":"content-end","index":%s}\n\n' % value.encode()
        for value in inputs.NUMBER_TEXTS
        if len(value) < 100
    )
    yield "numbers", b"".join(numbers)
    yield "depth-150", b'data: {"type":"x","a":' + b"[" * 150 + b"]" * 150 + b"}\n\n"
    yield "depth-3000", b'data: {"type":"x","a":' + b"[" * 3000 + b"]" * 3000 + b"}\n\n"
    late = {"type": "message-start", "delta": {"message": inputs.FILLED}}
    yield (
        "late-start",
        b"".join(
            [*flows["thinking"][1:4], f"data: {json.dumps(late)}\n\n".encode(), flows["text"][2]]
        ),
    )
    extra = inputs.finish(
        usage={"extra": {"a": 1}, "api_version": {"version": "2"}, "tokens": None}
    )
    yield "usage-extra", f"data: {json.dumps(extra)}\n\n".encode()
    starts = [
        inputs.content("content-start", 0, type="text", text=half) for half in ("a\ud83d", "")
    ]
    yield "start-half", "".join(f"data: {json.dumps(start)}\n\n" for start in starts).encode()
    draw = Random(7)
    for number in range(8):
        yield f"bent-{number}", b"".join(inputs.bent_events(draw) for _ in range(4))
        yield f"bent-loose-{number}", b"".join(inputs.loose(draw) for _ in range(4))


def main() -> None:
    CORPUS.mkdir(exist_ok=True)
    for name, body in bodies():
        (CORPUS / name).write_bytes(body)


if __name__ == "__main__":
    main()
