"""What the tests of the pure core share: where fixtures are, how to cut bytes, two ways to read."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from streamchat.protocol import Accumulator, ChatResponse, EventReader, FrameDecoder, decode_events
from streamchat.protocol.codec import is_terminator
from streamchat.protocol.errors import DecodeError, GenerationError
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Event,
    MessageEnd,
    ToolCallEnd,
    UnknownEvent,
)
from streamchat.protocol.schema import Parameters

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"
CANARY = "canary-7431"
"""A value that no message may repeat."""
FUZZ = int(os.environ.get("STREAMCHAT_FUZZ", "1"))
"""Times as many examples as usual, and other ones each time; 1 in CI: the same ones each time."""

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the recordings and cases of ../shared are not here"
)


def examples(count: int) -> settings:
    """Hypothesis settings: so many examples, the same ones each time, no clock."""
    return settings(
        max_examples=count * FUZZ,
        derandomize=FUZZ == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def parameters(kind: Any, names: dict[str, Any] | None = None) -> Parameters:
    """Those of a function with one parameter of the type; ``names`` are its module's, for references."""

    def f(x: Any) -> None: ...

    f = FunctionType(f.__code__, names or {}, "f")
    f.__annotations__ = {"x": kind}
    return Parameters.of(f, "f")


# --- cutting -------------------------------------------------------------------------------------


def cut(data: bytes, size: int) -> list[bytes]:
    """Pieces of ``size`` bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def cut_at(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """Pieces between these positions, in any order; the same one twice gives an empty piece."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def cut_randomly(data: bytes, seed: int) -> list[bytes]:
    """Pieces of random sizes, a few of them empty."""
    draw = random.Random(seed)
    return cut_at(data, [draw.randint(0, len(data)) for _ in range(draw.randint(1, 40))])


def cut_per_event(data: bytes) -> list[bytes]:
    """One piece an event, as a server that flushes after each would send it."""
    blocks = data.split(b"\n\n")
    return [block + b"\n\n" for block in blocks[:-1]] + blocks[-1:]


# --- reading -------------------------------------------------------------------------------------


def whole(event: Event) -> tuple[Any, ...]:
    """An event with what the accumulator added, which equality leaves out."""
    added: tuple[Any, ...] = ()
    match event:
        case ContentEnd():
            added = (event.content,)
        case ToolCallEnd():
            added = (event.tool_call,)
        case CitationStart():
            added = (event.block,)
        case CitationEnd():
            added = (event.citation, event.block)
        case MessageEnd():
            added = (event.response,)
        case _:
            pass
    return (event, *added)


def blocks_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    decoder = FrameDecoder()
    for chunk in chunks:
        yield from decoder.split(chunk)


class FullPath:
    """The straightforward reader: decoder, codec and accumulator called one after the other."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.accumulator = Accumulator()
        self.end: MessageEnd | None = None
        self.terminated = False
        self.has_events = False
        self.has_text = False

    def read(self, block: bytes) -> list[Event]:
        if self.end is not None or self.terminated:
            return []
        frame = self.decoder.parse(block)
        if frame is None:
            return []
        self.terminated = is_terminator(frame)
        return [event for each in decode_events(frame) if (event := self.add(each, frame.data))]

    def add(self, event: Event, data: bytes) -> Event | None:
        try:
            completed = self.accumulator.add(event)
        except DecodeError as error:
            error.payload = data
            raise
        self.has_events = True
        if isinstance(completed, UnknownEvent) and not isinstance(event, UnknownEvent):
            return None  # the end of something that never started
        self.has_text = self.has_text or (
            isinstance(completed, ContentStart | ContentDelta) and bool(completed.text)
        )
        if isinstance(completed, MessageEnd):
            self.end = completed
        return completed

    @property
    def snapshot(self) -> ChatResponse:
        return self.accumulator.snapshot()


def outcome(reader: FullPath | EventReader, block: Any) -> tuple[Any, ...]:
    """What reading a block did, comparable: events in full, nothing, or an error's facts."""
    try:
        if isinstance(reader, FullPath):
            events = reader.read(block)
        else:
            events = [event for event in [reader.read(block)] if event is not None]
            events += [event for each in reader.take_several() if (event := reader.read(each))]
    except DecodeError as error:
        return ("DecodeError", error.reason, error.event_type, error.path, error.payload)
    except GenerationError as error:
        return ("GenerationError", error.finish_reason, error.error, error.error_type, error.status)
    if len(events) == 1:
        return whole(events[0])
    return ("nothing",) if not events else tuple(whole(event) for event in events)


def read_all(
    chunks: Iterable[bytes], *, fast: bool
) -> tuple[list[tuple[Any, ...]], ChatResponse, bool]:
    """Every event in full, the answer, and whether the terminator came."""
    reader: EventReader | FullPath
    if fast:
        fast_reader = reader = EventReader()
        outcomes = [outcome(reader, item) for chunk in chunks for item in fast_reader.split(chunk)]
    else:
        reader = FullPath()
        outcomes = [outcome(reader, block) for block in blocks_of(chunks)]
    return [item for item in outcomes if item != ("nothing",)], reader.snapshot, reader.terminated


def events_of(data: bytes) -> list[Event]:
    """The events of a whole stream."""
    return [item[0] for item in read_all([data], fast=False)[0]]
