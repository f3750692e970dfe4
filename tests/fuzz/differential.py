"""The library against the reference: ``python -m tests.fuzz.differential --count N --seed S``.

For each input three ways must agree: ``FrameDecoder`` (of JSON lines ``LineDecoder``) with
``decode_events`` and ``Accumulator``, ``EventReader`` with its fast lane, and
:mod:`tests.fuzz.reference`. Compared are the frames, the events as plain dicts with what the
accumulator added, the class of each failure and where it came, the answer in the unary shape, and the
reader's flags. No exception but a ``StreamChatError`` may come out, no input may take a second, and
memory must not grow.

Prints one line of JSON; the exit code is 1 if it tells of anything wrong.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from streamchat.protocol import Accumulator, EventReader, Frame, FrameDecoder, decode_events
from streamchat.protocol.codec import is_terminator
from streamchat.protocol.errors import FrameTooLargeError, StreamChatError
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Debug,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.protocol.json_lines import LineDecoder
from streamchat.protocol.plain import as_dict, to_plain
from streamchat.protocol.reader import Item
from streamchat.protocol.response import ChatResponse
from streamchat.protocol.sse import DEFAULT_MAX_BYTES
from tests.fuzz import inputs
from tests.fuzz.inputs import Input
from tests.fuzz.reference import expected

SLOW = 1.0
"""Seconds of processor time that no input may take."""

Difference = tuple[str, Any, Any]
"""What differs, what the reference says, what the library says."""

# --- the library's objects as plain data ---------------------------------------------------------


def plain(value: Any) -> Any:
    return to_plain(value)


def message_of(event: MessageStart) -> Any:
    message = event.message
    return {
        "content": plain(message.content),
        "tool_plan": message.tool_plan,
        "tool_calls": [call_of(call) for call in message.tool_calls],
        "citations": plain(message.citations),
    }


def call_of(call: Any) -> Any:
    return {
        "id": call.id,
        "type": call.type,
        "function": {"name": call.name, "arguments": call.arguments},
    }


def piece_of(event: ContentStart | ContentDelta) -> str:
    assert not (event.text if event.kind == "thinking" else event.thinking)
    return event.thinking if event.kind == "thinking" else event.text


def end_of(event: MessageEnd, answer: dict[str, Any]) -> dict[str, Any]:
    assert event.usage is event.response.usage
    return {
        "type": event.type,
        "finish_reason": event.finish_reason,
        "usage": answer["usage"],
        "error": event.error,
        "error_type": event.error_type,
        "ended": answer,
    }


def answer_of(answer: ChatResponse, end: MessageEnd | None, outcomes: list[Any]) -> dict[str, Any]:
    """The answer in the unary shape; the end's own where it is the same, because that is faster."""
    if end is not None and answer == end.response:
        whole: dict[str, Any] = next(o for o in reversed(outcomes) if type(o) is dict)["ended"]
        return whole
    return answer.to_dict()


PLAIN: dict[type, Callable[[Any], dict[str, Any]]] = {
    MessageStart: lambda e: {"type": e.type, "id": e.id, "message": message_of(e)},
    ContentStart: lambda e: {
        "type": e.type,
        "index": e.index,
        "kind": e.kind,
        "is_open": e.kind_is_open,
        "piece": piece_of(e),
    },
    ContentDelta: lambda e: {
        "type": e.type,
        "index": e.index,
        "kind": e.kind,
        "piece": piece_of(e),
        "logprobs": None if e.logprobs is None else plain(as_dict(e.logprobs)),
    },
    ContentEnd: lambda e: {"type": e.type, "index": e.index, "ended": as_dict(e.content)},
    ToolPlanDelta: lambda e: {"type": e.type, "piece": e.tool_plan},
    ToolCallStart: lambda e: {
        "type": e.type,
        "index": e.index,
        "tool_call": call_of(e.tool_call),
    },
    ToolCallDelta: lambda e: {"type": e.type, "index": e.index, "piece": e.arguments},
    ToolCallEnd: lambda e: {"type": e.type, "index": e.index, "ended": call_of(e.tool_call)},
    CitationStart: lambda e: {
        "type": e.type,
        "index": e.index,
        "citation": plain(e.citation),
        "block": e.block,
    },
    CitationEnd: lambda e: {
        "type": e.type,
        "index": e.index,
        "ended": plain(e.citation),
        "block": e.block,
    },
    MessageEnd: lambda e: end_of(e, e.response.to_dict()),
    Debug: lambda e: {"type": e.type, "prompt": e.prompt},
    UnknownEvent: lambda e: {"type": "?", "name": e.type, "data": e.data},
}


def whole(event: Event) -> tuple[Any, ...]:
    """An event with what the accumulator added, as it reads now; equality leaves that out."""
    match event:
        case ContentEnd():
            return event, event.content
        case ToolCallEnd():
            return event, event.tool_call
        case CitationStart():
            return event, event.block
        case CitationEnd():
            return event, event.citation, event.block
        case MessageEnd():
            return event, event.response
        case _:
            return (event,)


# --- two ways through the library ----------------------------------------------------------------


class Heard:
    """What one way through the library said."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, str, str, int | None]] = []
        self.events: list[Any] = []
        """Events with what was added, and the names of failures."""
        self.answer = ChatResponse()
        self.terminated = False
        self.too_large = False
        self.last_event_id = ""

    def note(self, read: Callable[[], Event | None]) -> Event | None:
        """Note what a read gives."""
        try:
            event = read()
        except StreamChatError as error:
            self.note_failure(error)
            return None
        if event is not None:
            self.events.append(whole(event))
        return event

    def note_failure(self, error: StreamChatError) -> None:
        if not error.__context__ is None is error.__cause__:
            raise RuntimeError("the exception of another library is chained")
        self.events.append(type(error).__name__)


def read_plainly(case: Input) -> tuple[Heard, list[Any], dict[str, Any]]:
    """Decoder, decode_events and Accumulator, called one after the other; also as plain data."""
    heard = Heard()
    decoder: FrameDecoder | LineDecoder = (LineDecoder if case.lines else FrameDecoder)(
        DEFAULT_MAX_BYTES if case.limit is None else case.limit
    )
    accumulator = Accumulator()
    frames: list[Frame] = []
    for chunk in case.chunks():
        try:
            frames += decoder.feed(chunk)
        except FrameTooLargeError as error:
            if not heard.too_large:
                frames += error.frames
            heard.too_large = True
    if isinstance(decoder, LineDecoder):
        frames += decoder.finish()
    outcomes: list[Any] = []
    end: MessageEnd | None = None
    for frame in frames:
        try:
            events = decode_events(frame)
        except StreamChatError as error:
            heard.note_failure(error)
            outcomes.append(heard.events[-1])
            continue
        if not events and is_terminator(frame):
            heard.terminated = True
            break
        for event in events:
            known = len(heard.events)
            completed = heard.note(lambda event=event: folded(accumulator, event))  # type: ignore[misc]
            if len(heard.events) > known:
                outcomes.append(
                    heard.events[-1] if completed is None else PLAIN[type(completed)](completed)
                )
            if isinstance(completed, MessageEnd):
                end = completed
        if end is not None:
            break
    heard.answer = accumulator.snapshot()
    heard.frames = [(frame.event, frame.text, frame.id, frame.retry) for frame in frames]
    if isinstance(decoder, FrameDecoder):
        heard.last_event_id = decoder.last_event_id
    return heard, outcomes, answer_of(heard.answer, end, outcomes)


def folded(accumulator: Accumulator, event: Event) -> Event | None:
    """An event, folded in; ``None`` for the end of what never started."""
    completed = accumulator.add(event)
    if isinstance(completed, UnknownEvent) and not isinstance(event, UnknownEvent):
        return None
    return completed


def read_fast(case: Input) -> tuple[Heard, EventReader]:
    """EventReader, as the stream calls it."""
    heard = Heard()
    limit = DEFAULT_MAX_BYTES if case.limit is None else case.limit
    reader = EventReader(limit, lines=case.lines)

    def read(items: Sequence[Item]) -> None:
        for item in items:
            event = heard.note(lambda item=item: reader.read(item))  # type: ignore[misc]
            if event is None:
                for each in reader.take_several():
                    heard.note(lambda each=each: reader.read(each))  # type: ignore[misc]

    for chunk in case.chunks():
        items = reader.split(chunk)
        reader.holds_answer_event(items)  # may raise nothing
        read(items)
    read(reader.finish())
    heard.answer = reader.snapshot
    heard.terminated = reader.terminated
    heard.too_large = reader.too_large is not None
    return heard, reader


# --- the comparison ------------------------------------------------------------------------------


def compare(case: Input) -> Difference | None:
    """The first difference between the library and the reference, ``None`` where they agree.

    Raises whatever foreign exception the library lets out.
    """
    plain_way, outcomes, answer = read_plainly(case)
    fast, reader = read_fast(case)
    for name in ("events", "answer", "terminated", "too_large"):
        if getattr(plain_way, name) != getattr(fast, name):
            return f"the two ways: {name}", getattr(plain_way, name), getattr(fast, name)
    right = expected(case.body, case.limit, lines=case.lines)
    if plain_way.frames != right.frames:
        return "frames", right.frames, plain_way.frames
    if plain_way.too_large != right.too_large:
        return "too large", right.too_large, plain_way.too_large
    if not right.too_large and plain_way.last_event_id != right.last_event_id:
        return "last event id", right.last_event_id, plain_way.last_event_id
    if right.is_open:
        return None
    if outcomes != right.outcomes:
        for number, (a, b) in enumerate(zip(right.outcomes, outcomes, strict=False)):
            if a != b:
                return f"outcome {number}", a, b
        return "outcomes", right.outcomes, outcomes
    if answer != right.answer:
        return "answer", right.answer, answer
    if (fast.answer.error, fast.answer.error_type) != right.error:
        return "error", right.error, (fast.answer.error, fast.answer.error_type)
    if fast.terminated != right.terminated:
        return "terminated", right.terminated, fast.terminated
    events = [item for item in right.outcomes if type(item) is not str]
    flags = {
        "has_events": right.has_events,
        "has_text": any(
            item["type"] in ("content-start", "content-delta")
            and item["kind"] == "text"
            and item["piece"] != ""
            for item in events
        ),
    }
    for name, value in flags.items():
        if getattr(reader, name) != value:
            return f"reader.{name}", value, getattr(reader, name)
    if (reader.end is not None) != any(item["type"] == "message-end" for item in events):
        return "reader.end", reader.end is None, reader.end is not None
    return None


def verdict(case: Input) -> str | None:
    """What is wrong with an input, in words; ``None`` where nothing is."""
    started = time.process_time()
    try:
        difference = compare(case)
    except Exception as error:
        return f"foreign: {type(error).__name__}: {error}"[:300]
    if difference is not None:
        what, right, said = difference
        return f"difference: {what}: expected {right!r:.1500}, got {said!r:.1500}"
    seconds = time.process_time() - started
    return f"slow: {seconds:.2f} s" if seconds > SLOW else None


def shrink(case: Input, seconds: float = 3.0) -> Input:
    """A smaller input that is wrong in the same way (by the first word of the verdict)."""
    kind = (verdict(case) or "").partition(":")[0]
    deadline = time.monotonic() + seconds

    def is_wrong(candidate: Input) -> bool:
        return (verdict(candidate) or "").partition(":")[0] == kind

    for simpler in (case._replace(cuts=(), limit=None), case._replace(cuts=())):
        if is_wrong(simpler):
            case = simpler
            break
    size = len(case.body) // 2
    while size and time.monotonic() < deadline:
        position, shrunk = 0, False
        while position < len(case.body) and time.monotonic() < deadline:
            body = case.body[:position] + case.body[position + size :]
            cuts = tuple(min(cut, len(body)) for cut in case.cuts)
            candidate = case._replace(body=body, cuts=cuts)
            if is_wrong(candidate):
                case, shrunk = candidate, True
            else:
                position += size
        size = size if shrunk and size == 1 else size // 2
    return case


def repro(case: Input, what: str) -> dict[str, Any]:
    """A wrong input as it can be printed and read back."""
    small = shrink(case) if not what.startswith("slow") else case
    return {
        "what": verdict(small) or what,
        "body": base64.b64encode(small.body).decode(),
        "cuts": small.cuts,
        "limit": small.limit,
        "lines": small.lines,
    }


def run(count: int, seed: int, most: int = 20) -> dict[str, Any]:
    """Compare so many inputs of a seed; stop at ``most`` wrong ones."""
    draw = Random(seed)
    started = time.perf_counter()
    busy = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong: dict[str, list[dict[str, Any]]] = {"difference": [], "foreign": [], "slow": []}
    done = total = 0
    while done < count:
        case = inputs.make(draw)
        done += 1
        total += len(case.body)
        what = verdict(case)
        if what is not None:
            wrong[what.partition(":")[0]].append(repro(case, what))
            if sum(map(len, wrong.values())) >= most:
                break
    return {
        "count": done,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(time.process_time() - busy, 2),
        "bytes": total,
        "differences": wrong["difference"],
        "foreign_exceptions": wrong["foreign"],
        "slower_than_1_s": wrong["slow"],
        "memory_growth_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory,
    }


def is_clean(result: dict[str, Any]) -> bool:
    """Whether a run found nothing."""
    return not any(result[key] for key in ("differences", "foreign_exceptions", "slower_than_1_s"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = run(arguments.count, arguments.seed)
    print(json.dumps(result))
    return 0 if is_clean(result) else 1


if __name__ == "__main__":
    sys.exit(main())
