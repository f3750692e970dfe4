"""Answers of our own making, as bytes: what the tests' servers say."""

from __future__ import annotations

from collections.abc import Iterable

from streamchat import (
    BilledUnits,
    Citation,
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Event,
    MessageEnd,
    MessageStart,
    Source,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallFunction,
    ToolCallStart,
    ToolPlanDelta,
    Usage,
)
from streamchat.protocol import DONE, encode_event, encode_frame

START = MessageStart("c1c1c1c1-0000-4000-8000-000000000000")
USAGE = Usage(BilledUnits(input_tokens=3, output_tokens=5))


def end(reason: str = "COMPLETE", **fields: str) -> MessageEnd:
    return MessageEnd(reason, USAGE, **fields)


def text_events(*pieces: str, index: int = 0) -> list[Event]:
    return [
        ContentStart(index),
        *(ContentDelta(piece, index) for piece in pieces),
        ContentEnd(index),
    ]


def plain(*pieces: str) -> list[Event]:
    """A plain answer."""
    return [START, *text_events(*(pieces or ("Hello", " there", "!"))), end()]


def cited() -> list[Event]:
    """An answer with one citation between its deltas."""
    citation = Citation(
        0, 5, "Lions", [Source("document", "doc:0", {"id": "doc:0", "text": "x"})], "TEXT_CONTENT"
    )
    return [
        START,
        ContentStart(),
        ContentDelta("Lions"),
        CitationStart(citation),
        CitationEnd(),
        ContentDelta(" roar."),
        ContentEnd(),
        end(),
    ]


def thinking() -> list[Event]:
    """A thinking block, then a text block."""
    return [
        START,
        ContentStart(0, "thinking"),
        ContentDelta("", 0, "Let", "thinking"),
        ContentDelta("", 0, " me see", "thinking"),
        ContentEnd(0),
        *text_events("Four", ".", index=1),
        end(),
    ]


def tools() -> list[Event]:
    """A plan and two calls, the second without arguments."""
    return [
        START,
        ToolPlanDelta("I will"),
        ToolPlanDelta(" look."),
        ToolCallStart(ToolCall("weather_1", ToolCallFunction("weather", ""))),
        ToolCallDelta('{"city'),
        ToolCallDelta('": "Lima"}'),
        ToolCallEnd(),
        ToolCallStart(ToolCall("clock_1", ToolCallFunction("clock", "")), 1),
        ToolCallEnd(1),
        end("TOOL_CALL"),
    ]


def failed(error: str = "invalid tool generation") -> list[Event]:
    """A failure inside a 200 answer."""
    return [
        START,
        ToolPlanDelta("I will"),
        MessageEnd("ERROR", Usage(), error, "INVALID_TOOL_GENERATION"),
    ]


def body(events: Iterable[Event], *, done: bool = True) -> bytes:
    """The events on the wire, with the terminator."""
    frames = [encode_frame(encode_event(event)) for event in events]
    return b"".join(frames) + (encode_frame(DONE) if done else b"")


def pieces(events: Iterable[Event], *, done: bool = True) -> list[bytes]:
    """The same, a piece an event."""
    frames = [encode_frame(encode_event(event)) for event in events]
    return [*frames, encode_frame(DONE)] if done else frames
