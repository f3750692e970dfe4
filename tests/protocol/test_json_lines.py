"""JSON lines to frames: any chunking, the frames of an event stream, exact limits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol import EventReader, Frame, FrameDecoder, encode_event, encode_frame
from streamchat.protocol.errors import FrameTooLargeError
from streamchat.protocol.events import ContentDelta, Event, MessageEnd
from streamchat.protocol.json_lines import LineDecoder

from .helpers import FullPath, blocks_of, cut, cut_at, cut_randomly, examples, outcome
from .strategies import events as any_event
from .strategies import sent_objects

ENDS = [b"\n", b"\r\n", b"\n\n", b" \n", b"\r\n \t\n"]
"""Line ends, and blank lines after them."""
PIECES = [
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xff",
        b"7",
        b"{",
        b"}",
        b'"',
        b"[]",
    ),
    *(
        b'{"type":"debug"}',
        b'{"type":"x"}\n',
        b'{"a":1}\r\n',
        b'{"type":7}',
        b"[DONE]\n",
        b"nonsense",
    ),
]
bodies = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=20).map(b"".join)
cuts = st.lists(st.integers(0, 400), max_size=12)


def decode(chunks: Iterable[bytes], limit: int = 1000) -> tuple[list[Frame], bool]:
    """The frames, and whether a line passed the limit."""
    decoder = LineDecoder(limit)
    frames: list[Frame] = []
    for chunk in chunks:
        try:
            frames += decoder.feed(chunk)
        except FrameTooLargeError as error:
            return [*frames, *error.frames], True
    return frames + decoder.finish(), False


def as_lines(frames: Iterable[Frame], end: bytes = b"\n") -> bytes:
    return b"".join(frame.data + end for frame in frames)


# --- frames --------------------------------------------------------------------------------------


@examples(1500)
@given(bodies, cuts, st.sampled_from([1, 3, 16, 1000]))
def test_any_bytes_give_the_same_frames_in_any_chunks(
    body: bytes, positions: list[int], limit: int
) -> None:
    """On any bytes and under any limit, how they are cut does not matter."""
    assert decode(cut_at(body, positions), limit) == decode([body], limit)
    assert decode(cut(body, 1), limit) == decode([body], limit)


@examples(500)
@given(st.lists(any_event, max_size=6), st.sampled_from(ENDS), cuts, st.booleans(), st.booleans())
def test_events_have_the_same_frames_as_in_an_event_stream(
    events: list[Event], end: bytes, positions: list[int], has_mark: bool, is_ended: bool
) -> None:
    """``event`` and ``data`` are those of the event stream, whatever ends the lines."""
    frames = [encode_event(event) for event in events]
    body = as_lines(frames, end)
    body = (b"\xef\xbb\xbf" if has_mark else b"") + (body if is_ended else body.removesuffix(end))
    streamed = FrameDecoder().feed(b"".join(map(encode_frame, frames)))
    received, _ = decode(cut_at(body, positions), 1 << 20)
    assert [frame.data.strip() for frame in received] == [frame.data for frame in streamed]
    for line, frame in zip(received, streamed, strict=True):
        # A type that no event line can say, or an empty one, is "message" in both.
        assert line.event == frame.event or frame.event == "message"


@examples(500)
@given(st.lists(sent_objects, max_size=8), cuts)
def test_the_shapes_of_gateways_read_as_in_an_event_stream(
    objects: list[dict[str, Any]], positions: list[int]
) -> None:
    """The same events, errors and answer from JSON lines as from an event stream."""
    texts = [json.dumps(each).encode() for each in objects]
    full = FullPath()
    stream = b"".join(b"data: " + text + b"\n\n" for text in texts)
    expected = [outcome(full, block) for block in blocks_of([stream])]
    reader = EventReader(lines=True)
    lines = b"".join(text + b"\n" for text in texts)
    received = [
        outcome(reader, item) for chunk in cut_at(lines, positions) for item in reader.split(chunk)
    ]
    received += [outcome(reader, item) for item in reader.finish()]
    assert [item for item in received if item != ("nothing",)] == [
        item for item in expected if item != ("nothing",)
    ]
    assert reader.snapshot == full.snapshot


@pytest.mark.parametrize(
    ("expected", "line"),
    [
        ("content-delta", b'{"type":"content-delta"}'),
        ("x", b'{"a":{"type":"y"},"type":"x"}'),
        ("message", b'{"a":1}'),
        ("message", b'{"type":null}'),
        ("message", b'{"type":7}'),
        ("message", b'{"type":""}'),
        ("message", b"[1]"),
        ("message", b"[DONE]"),
        ("message", b'{"type":"x"'),
        ("x", b'{"text":"\xff","type":"x"}'),
        ("x", b'{"text":"\\ud83d","type":"x"}'),
    ],
)
def test_a_frame_has_the_name_of_its_type(expected: str, line: bytes) -> None:
    """Half an emoji or ill-formed UTF-8 in a text does not hide the type."""
    assert decode([line + b"\n"]) == ([Frame(expected, line)], False)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"x"}',
        b'{"type":"x","text":"\\ud83d"}',
        b'{"type":"x","text":"\xff"}',
        b'{"type":"x","n":1e400}',
        b' {"type" : "x"}\t',
    ],
)
def test_a_whole_last_line_needs_no_line_end(line: bytes) -> None:
    """A value that is complete is not lost with its LF."""
    assert decode([line]) == ([Frame("x", line)], False)
    assert decode([line + b"\r"]) == ([Frame("x", line)], False)


@pytest.mark.parametrize(
    "rest", [b"", b" ", b'{"type":"x"', b'{"type":"x"},', b"tru", b"[" * 100_000]
)
def test_a_last_line_that_was_cut_off_is_discarded(rest: bytes) -> None:
    """Half a value is not an event, however deep it is nested."""
    decoder = LineDecoder()
    assert decoder.feed(b'{"type":"x"}\n' + rest) == [Frame("x", b'{"type":"x"}')]
    assert decoder.finish() == []


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("limit", [12, 13, 50])
def test_the_limit_is_exact_whatever_the_chunking(limit: int, end: bytes) -> None:
    """A line of the limit passes and one of a byte more does not, however it is cut."""
    before = b'{"type":"a"}' + end
    for size, is_too_large in ((limit, False), (limit + 1, True)):
        line = b'{"a":"' + b"x" * (size - 8) + b'"}'
        for whole in (line + end, line):
            body = before + whole + end
            wanted = [Frame("a", b'{"type":"a"}')] + [Frame(data=line)] * (not is_too_large)
            chunkings = [cut(body, each) for each in range(1, 9)]
            chunkings += [cut_at(body, [each]) for each in range(len(body) + 1)]
            chunkings += [cut_randomly(body, seed) for seed in range(20)]
            for chunks in chunkings:
                assert decode(chunks, limit) == (wanted, is_too_large), chunks


def test_an_endless_line_is_given_up_and_every_later_call_raises() -> None:
    """What was complete comes with the error; then the decoder is of no use."""
    decoder = LineDecoder(16)
    with pytest.raises(FrameTooLargeError) as caught:
        decoder.feed(b'{"type":"x"}\n' + b"y" * 17)
    assert (caught.value.frames, caught.value.limit) == ([Frame("x", b'{"type":"x"}')], 16)
    with pytest.raises(FrameTooLargeError) as caught:
        decoder.feed(b"{}\n")
    assert caught.value.frames == []
    assert decoder.finish() == []


def test_an_answer_without_a_final_line_end_is_complete() -> None:
    """``message-end`` is the last line; its LF may never come."""
    body = as_lines([encode_event(ContentDelta("x")), encode_event(MessageEnd("COMPLETE"))])
    reader = EventReader(lines=True)
    for item in [*reader.split(body.removesuffix(b"\n")), *reader.finish()]:
        reader.read(item)
    assert reader.end == MessageEnd("COMPLETE")
    assert reader.snapshot.text == "x"
