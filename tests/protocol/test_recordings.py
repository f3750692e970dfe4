"""Genuine Chat v2 streams, and our own: cut anyhow they give the same events and the right answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamchat.protocol import (
    DONE,
    FrameDecoder,
    decode_event,
    decode_response,
    encode_event,
    encode_frame,
)
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentEnd,
    MessageEnd,
    ToolCallEnd,
    UnknownEvent,
)
from streamchat.protocol.messages import TextContent, ThinkingContent

from .helpers import (
    DATA,
    SHARED,
    cut,
    cut_per_event,
    cut_randomly,
    events_of,
    needs_shared,
    read_all,
)
from .reference_fold import fold, json_events

OWN = sorted(DATA.glob("*.sse"))
RECORDED = sorted((SHARED / "recordings").glob("*/*.sse"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def sidecar(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return facts


def chosen(**wanted: Any) -> list[Path]:
    """The recordings whose sidecar says so."""
    return [
        path
        for path in RECORDED
        if all(sidecar(path)[key] == value for key, value in wanted.items())
    ]


every_stream = pytest.mark.parametrize("path", OWN + RECORDED, ids=name)


def test_there_are_streams_to_test() -> None:
    """Our own fixtures are found: a moved folder must not make this suite pass by being empty."""
    assert len(OWN) == 8


@needs_shared
def test_the_recordings_are_found() -> None:
    """All v2 event streams of the collection are read, 57 of them byte by byte as received."""
    assert len(RECORDED) >= 67
    assert len(chosen(fidelity="verbatim")) >= 57


@every_stream
def test_the_answer_is_that_of_a_plain_fold(path: Path) -> None:
    """The snapshot at the end equals a fold on plain dicts, usage and unknown keys included."""
    data = path.read_bytes()
    expected = fold(json_events(data))
    _, snapshot, _ = read_all([data], fast=False)
    assert expected == snapshot.to_dict()
    assert list(expected) == list(snapshot.to_dict()), "the order of keys is the wire's"


@pytest.mark.parametrize("path", OWN, ids=name)
def test_the_answer_of_our_own_streams_is_as_written(path: Path) -> None:
    """The answer to each of our own streams is the one written down beside it."""
    _, snapshot, _ = read_all([path.read_bytes()], fast=True)
    assert sidecar(path) == snapshot.to_dict()


@every_stream
def test_cutting_changes_nothing(path: Path) -> None:
    """Whole, per event, in small or random pieces: the same events, the same answer, both ways."""
    data = path.read_bytes()
    expected = read_all([data], fast=False)
    assert expected == read_all([data], fast=True)
    for chunks in (
        cut_per_event(data),
        cut(data, 1),
        cut(data, 2),
        cut(data, 7),
        *(cut_randomly(data, seed) for seed in range(5)),
    ):
        assert expected == read_all(chunks, fast=True)
        assert expected == read_all(chunks, fast=False)


@every_stream
def test_both_ways_agree_after_every_event(path: Path) -> None:
    """The snapshot in the middle of a stream is the same by the fast way and by the full one."""
    blocks = cut_per_event(path.read_bytes())
    stops = sorted({1, 2, 3, len(blocks) // 2, len(blocks) - 2, len(blocks) - 1})
    for stop in stops:
        assert read_all(blocks[:stop], fast=False) == read_all(blocks[:stop], fast=True)


@every_stream
def test_a_stream_cut_short_gives_a_beginning_of_the_answer(path: Path) -> None:
    """What was received is in the snapshot: text, plan and arguments are prefixes of the whole."""
    data = path.read_bytes()
    _, full, _ = read_all([data], fast=True)
    for stop in range(0, len(data), max(1, len(data) // 23)):
        _, part, _ = read_all([data[:stop]], fast=True)
        assert full.text.startswith(part.text)
        assert full.thinking.startswith(part.thinking)
        assert full.tool_plan.startswith(part.tool_plan)
        assert part.citations == full.citations[: len(part.citations)]
        for whole, call in zip(full.tool_calls, part.tool_calls, strict=False):
            assert whole.arguments.startswith(call.arguments)
        assert part.finish_reason is None or stop > data.index(b"event: message-end")


@every_stream
def test_every_end_carries_what_it_ended(path: Path) -> None:
    """Each end event has its block, call, citation or answer, as the unary shape has it."""
    data = path.read_bytes()
    expected = fold(json_events(data))
    message = expected["message"]
    blocks, calls, citations = [], [], []
    for event in events_of(data):
        match event:
            case ContentEnd(content=TextContent() as part):
                blocks.append({"type": "text", "text": part.text})
            case ContentEnd(content=ThinkingContent() as part):
                blocks.append({"type": "thinking", "thinking": part.thinking})
            case ToolCallEnd(tool_call=call):
                function = {"name": call.name, "arguments": call.arguments}
                calls.append({"id": call.id, "type": call.type, "function": function})
            case CitationEnd(citation=citation):
                citations.append((citation.start, citation.end, citation.text))
            case MessageEnd():
                assert expected == event.response.to_dict()
            case UnknownEvent():
                pytest.fail("every event of the recordings is known")
            case _:
                pass
    if b"event: content-end" in data:  # the recorded tail ends without
        assert message.get("content", []) == blocks
    assert message.get("tool_calls", []) == calls
    spans = [(item["start"], item["end"], item["text"]) for item in message.get("citations", [])]
    assert spans == citations


@pytest.mark.parametrize("path", OWN + chosen(real=True), ids=name)
def test_a_citation_cites_its_block(path: Path) -> None:
    """``block[start:end]`` is the cited text, in code points, at the start and at the end."""
    for event in events_of(path.read_bytes()):
        if isinstance(event, CitationStart | CitationEnd):
            citation = event.citation
            assert citation.text == event.block[citation.start : citation.end]


def test_the_streams_hold_citations_to_test() -> None:
    """Our own fixtures cite text, thinking and plan, beyond the BMP, within and after the text."""
    kinds = [
        event.citation.type
        for path in OWN
        for event in events_of(path.read_bytes())
        if isinstance(event, CitationEnd)
    ]
    assert {"TEXT_CONTENT", "THINKING_CONTENT", "PLAN", None} == set(kinds)


@needs_shared
@pytest.mark.parametrize("path", chosen(fidelity="verbatim"), ids=name)
def test_writing_the_events_gives_the_recorded_bytes(path: Path) -> None:
    """Decoded and encoded again, event by event, a stream is byte for byte what was recorded."""
    data = path.read_bytes()
    written = []
    for frame in FrameDecoder().feed(data):
        event = decode_event(frame)
        again = DONE if event is None else encode_event(event)
        assert frame == again
        written.append(encode_frame(again))
    assert data == b"".join(written)


@every_stream
def test_writing_the_events_gives_the_same_events(path: Path) -> None:
    """Decoded and encoded again, every event of every stream is equal to itself."""
    events = events_of(path.read_bytes())
    written = [encode_frame(encode_event(event)) for event in events]
    assert events == events_of(b"".join(written))


@every_stream
def test_the_answer_survives_the_unary_shape(path: Path) -> None:
    """An answer written as unary JSON and read again is the same answer."""
    _, snapshot, _ = read_all([path.read_bytes()], fast=True)
    again = decode_response(json.loads(json.dumps(snapshot.to_dict())))
    again.error, again.error_type = snapshot.error, snapshot.error_type  # not part of the shape
    assert snapshot == again


@needs_shared
def test_the_recorded_failure_names_itself() -> None:
    """The failure inside a 200 stream is a message-end with its reason, its words and its type."""
    path = SHARED / "recordings/langchain-ai__langchain-cohere/test_sql_agent.0.sse"
    event = events_of(path.read_bytes())[-1]
    assert isinstance(event, MessageEnd)
    assert (event.finish_reason, event.error_type) == ("ERROR", "INVALID_TOOL_GENERATION")
    assert (event.error or "").startswith("your request resulted in an invalid tool generation")
    assert event.usage.tokens.input_tokens is None
    assert event.response.tool_plan
