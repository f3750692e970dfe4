"""Whole answers with the requests that asked for them: an own-made mix, and the recordings if they are there.

``python -m benchmarks.mix`` prints how large they are.

The mix is deterministic. Its kinds, event counts and request sizes follow genuine answers: text, tool plans
with calls, cited answers to tool results and documents, thinking. Half of the genuine answers have 50 events
or fewer, and half of the requests are smaller than 2.5 KB: opening, closing and request building weigh more
there than they do in one answer of 5,000 events.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.harness import ROOT, percentile, print_table

RECORDINGS = ROOT.parent / "shared" / "recordings"
WORDS = (
    *("the", "value", "of", "each", "row", "is", "compared", "with", "its", "average", "and"),
    *("movie", "ratings", "are", "read", "from", "a", "file", "before", "one", "result"),
    *("per", "column", "is", "printed", "again", "in", "order"),
)
MODEL = "command-a-03-2025"
SYSTEM = "You are a helpful assistant. Answer in full sentences."


@attrs.frozen
class Exchange:
    """One request and its answer."""

    name: str
    body: Mapping[str, Any]
    """The JSON body without ``stream``: the keywords of ``chat_stream``."""
    frames: Sequence[bytes]
    """The raw frames of the answer, ``[DONE]`` included."""

    @property
    def messages(self) -> Any:
        """``messages`` of the body."""
        return self.body["messages"]

    @property
    def options(self) -> dict[str, Any]:
        """The body without ``messages``."""
        return {name: value for name, value in self.body.items() if name != "messages"}


# --- answers ----------------------------------------------------------------------------------------

Pieces = Iterator[str]


def _frame(kind: str, index: int | None = None, message: object = None) -> bytes:
    body: dict[str, Any] = {"type": kind}
    if index is not None:
        body["index"] = index
    if message is not None:
        body["delta"] = {"message": message}
    return _raw(kind, body)


def _raw(kind: str, body: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


def _around(number: int, middle: Sequence[bytes], reason: str) -> list[bytes]:
    """The start and the end of every answer, with these frames between."""
    message = {
        "role": "assistant",
        "content": [],
        "tool_plan": "",
        "tool_calls": [],
        "citations": [],
    }
    start = {
        "id": f"5d4b07c2-16aa-4a4b-9d34-{number:012x}",
        "type": "message-start",
        "delta": {"message": message},
    }
    tokens = {"input_tokens": 300 + number, "output_tokens": len(middle)}
    end = {"finish_reason": reason, "usage": {"billed_units": tokens, "tokens": tokens}}
    return [
        _raw("message-start", start),
        *middle,
        _raw("message-end", {"type": "message-end", "delta": end}),
        b"data: [DONE]\n\n",
    ]


def _content(
    kind: str, texts: Sequence[str], index: int, inside: Sequence[bytes] = ()
) -> list[bytes]:
    """One content block."""
    return [
        _frame("content-start", index, {"content": {"type": kind, kind: ""}}),
        *(_frame("content-delta", index, {"content": {kind: text}}) for text in texts),
        *inside,
        _frame("content-end", index),
    ]


def _take(pieces: Pieces, count: int) -> list[str]:
    return [next(pieces) for _ in range(count)]


def text_answer(number: int, events: int, pieces: Pieces) -> list[bytes]:
    """One text block."""
    return _around(number, _content("text", _take(pieces, events - 5), 0), "COMPLETE")


def cited_answer(number: int, events: int, pieces: Pieces) -> list[bytes]:
    """One text block with citations, each of which repeats its source."""
    count = max(1, events // 12)
    texts = _take(pieces, events - 5 - 2 * count)
    citations: list[bytes] = []
    for place in range(count):
        before = len("".join(texts[: place * 2]))
        cited = texts[place * 2]
        output = {"output": f"The average of column {place} is {number}.5, read from 42 rows."}
        source = {"type": "tool", "id": f"call_{number}:{place}", "tool_output": output}
        citation = {
            "start": before,
            "end": before + len(cited),
            "text": cited,
            "sources": [source],
            "type": "TEXT_CONTENT",
        }
        citations.append(_frame("citation-start", place, {"citations": citation}))
        citations.append(_frame("citation-end", place))
    return _around(number, _content("text", texts, 0, citations), "COMPLETE")


def calling_answer(number: int, events: int, pieces: Pieces) -> list[bytes]:
    """A tool plan, then one call, or two in answers of more than 80 events."""
    calls = 2 if events > 80 else 1
    rest = events - 3 - 2 * calls
    plan = min(32, rest // 3)
    middle = [_frame("tool-plan-delta", None, {"tool_plan": text}) for text in _take(pieces, plan)]
    rest -= plan
    for index in range(calls):
        count = rest // calls + (rest % calls if index == 0 else 0)
        arguments = ['{"', "code", '":', ' "', *_take(pieces, count - 6), '"', "}"]
        call = {
            "id": f"python_interpreter_{number:04d}{index}",
            "type": "function",
            "function": {"name": "python_interpreter", "arguments": ""},
        }
        middle.append(_frame("tool-call-start", index, {"tool_calls": call}))
        middle += [
            _frame("tool-call-delta", index, {"tool_calls": {"function": {"arguments": text}}})
            for text in arguments
        ]
        middle.append(_frame("tool-call-end", index))
    return _around(number, middle, "TOOL_CALL")


def thinking_answer(number: int, events: int, pieces: Pieces) -> list[bytes]:
    """A thinking block, then a text block."""
    thought = (events - 7) * 2 // 3
    middle = _content("thinking", _take(pieces, thought), 0)
    middle += _content("text", _take(pieces, events - 7 - thought), 1)
    return _around(number, middle, "COMPLETE")


# --- requests ---------------------------------------------------------------------------------------


def tool(number: int) -> dict[str, Any]:
    """One tool with three parameters."""
    properties = {
        "filename": {"type": "string", "description": "The name of the attached file to read."},
        "code": {"type": "string", "description": "Python code to execute in a sandbox."},
        "rows": {"type": "integer", "description": "The number of rows to show, 5 by default."},
    }
    return {
        "type": "function",
        "function": {
            "name": f"file_tool_{number}",
            "description": "Returns the textual contents of an uploaded file, in text chunks.",
            "parameters": {"type": "object", "properties": properties, "required": ["filename"]},
        },
    }


def document(number: int) -> dict[str, Any]:
    """One document of 150 words."""
    text = " ".join(WORDS[(number + i) % len(WORDS)] for i in range(150))
    return {"id": f"doc-{number}", "data": {"title": f"Report {number}", "text": text}}


def turn(number: int) -> list[dict[str, Any]]:
    """One question and its answer, a history's two messages."""
    said = " ".join(WORDS[(number + i) % len(WORDS)] for i in range(16))
    return [
        {"role": "user", "content": f"Question {number}: {said}?"},
        {"role": "assistant", "content": f"Answer {number}: {said}."},
    ]


def step(number: int) -> list[dict[str, Any]]:
    """One step of an agent: the model's call and the tool's result."""
    said = " ".join(WORDS[(number + i) % len(WORDS)] for i in range(20))
    arguments = json.dumps({"code": f"print({number})  # {said}", "rows": number})
    function = {"name": "file_tool_0", "arguments": arguments}
    result = {"type": "document", "document": {"data": {"output": f"{number}: {said}"}}}
    return [
        {
            "role": "assistant",
            "tool_plan": f"I will run step {number}: {said}.",
            "tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": f"call_{number}", "content": [result]},
    ]


def _plain(steps: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "What is an LLM?"}]}


def _history(steps: int) -> dict[str, Any]:
    asked = {"role": "user", "content": "And now?"}
    return {"messages": [_system(), *(m for i in range(steps) for m in turn(i)), asked]}


def _with_tools(steps: int) -> dict[str, Any]:
    asked = {"role": "user", "content": "Which movie has the highest average rating?"}
    messages = [_system(), asked, *(m for i in range(steps) for m in step(i))]
    return {"messages": messages, "tools": [tool(i) for i in range(3)]}


def _with_documents(steps: int) -> dict[str, Any]:
    asked = {"role": "user", "content": "What do the reports say?"}
    return {"messages": [_system(), asked], "documents": [document(i) for i in range(steps)]}


def _system() -> dict[str, Any]:
    return {"role": "system", "content": SYSTEM}


def _sized(body: dict[str, Any], size: int) -> dict[str, Any]:
    """The body with a system message that makes it so many bytes, if it has one and is smaller."""
    first = body["messages"][0]
    missing = size - len(json.dumps(body))
    if first["role"] == "system" and missing > 0:
        words = " ".join(WORDS) + ". "
        first["content"] += (words * (missing // len(words) + 1))[:missing]
    return body


Answer = Callable[[int, int, Pieces], list[bytes]]
PLAN: Sequence[
    tuple[str, Answer, Callable[[int], dict[str, Any]], Sequence[tuple[int, int, int]]]
] = (
    (
        "text",
        text_answer,
        _plain,
        [(n, 0, 0) for n in (35, 38, 43, 50, 58, 74, 98, 108, 159, 219)],
    ),
    ("chat", text_answer, _history, [(30, 2, 2500), (50, 6, 2900), (64, 10, 4000)]),
    (
        "call",
        calling_answer,
        _with_tools,
        [(n, 0, 2500) for n in (25, 27, 27, 40, 49, 58, 59, 68)]
        + [(n, 0, 2520) for n in (87, 90, 93, 97)],
    ),
    (
        "next call",
        calling_answer,
        _with_tools,
        [
            *((155, 1, 3130), (190, 2, 4180), (221, 2, 4220)),
            *((256, 4, 5740), (297, 8, 8660), (315, 9, 10120)),
        ],
    ),
    (
        "cited tools",
        cited_answer,
        _with_tools,
        [
            *((16, 1, 0), (16, 1, 0), (16, 1, 0), (19, 2, 4100), (20, 2, 4130)),
            *((20, 3, 5330), (21, 3, 5600), (22, 4, 5670), (25, 10, 11620), (31, 3, 4450)),
        ],
    ),
    (
        "cited documents",
        cited_answer,
        _with_documents,
        [(14, 2, 0), (16, 3, 0), (40, 5, 0), (60, 8, 0)],
    ),
    ("thinking", thinking_answer, _plain, [(47, 0, 0), (51, 0, 0), (110, 0, 0)]),
)
"""For each kind: its answers and requests, then events, steps of history (or documents) and bytes of each."""


def mix() -> list[Exchange]:
    """The own-made answers, in an order that does not put equal kinds together."""
    chance = random.Random(16)
    made: list[Exchange] = []
    for kind, answer, request, sizes in PLAN:
        for events, steps, size in sizes:
            pieces = (f" {chance.choice(WORDS)}" for _ in iter(int, 1))
            body = {"model": MODEL, **_sized(request(steps), size)}
            frames = answer(len(made), events, pieces)
            assert len(frames) == events, (kind, events, len(frames))
            made.append(Exchange(f"{kind} {events}", body, frames))
    chance.shuffle(made)
    return made


def recordings() -> list[Exchange]:
    """Genuine answers with their requests; empty if the folder is not there."""
    found = []
    for path in sorted(RECORDINGS.glob("*/*.sse")):
        about = json.loads(path.with_suffix(".json").read_text())
        request = about.get("request")
        if not (about["real"] and request and about["kind"] != "error"):
            continue
        body = {name: value for name, value in request.items() if name != "stream"}
        frames = [frame + b"\n\n" for frame in path.read_bytes().split(b"\n\n") if frame]
        found.append(Exchange(_name(path), body, frames))
    return found


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


SOURCES: Mapping[str, Callable[[], list[Exchange]]] = {"mix": mix, "recordings": recordings}


def there() -> list[str]:
    """The sources that have answers on this machine."""
    return [name for name, make in SOURCES.items() if make()]


def main() -> None:
    """Print the sizes of each source."""
    rows = []
    for name in there():
        exchanges = SOURCES[name]()
        events = [len(each.frames) for each in exchanges]
        requests = [len(json.dumps({**each.body, "stream": True})) for each in exchanges]
        for what, sizes in (("events", events), ("bytes of the request", requests)):
            spread = [percentile(sizes, percent) for percent in (0, 10, 50, 90, 100)]
            mean = sum(sizes) / len(sizes)
            rows.append([f"{name}: {what}", str(len(sizes)), *map(str, spread), f"{mean:.0f}"])
    print_table(["", "answers", "least", "p10", "p50", "p90", "most", "mean"], rows)


if __name__ == "__main__":
    main()
