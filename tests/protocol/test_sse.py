"""Bytes to frames and back: every case of the standard, under every chunking."""

from __future__ import annotations

import base64
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol import Frame, FrameDecoder, encode_frame
from streamchat.protocol.errors import FrameTooLargeError
from streamchat.protocol.sse import DEFAULT_MAX_BYTES

from .helpers import SHARED, cut, cut_at, cut_randomly, examples, needs_shared
from .reference_sse import ReferenceDecoder, decode_slowly

# --- the cases -----------------------------------------------------------------------------------

OWN_CASES: dict[str, tuple[bytes, list[tuple[str, str, str, int | None]]]] = {
    "two lines, as every recorded event": (
        b'event: content-delta\ndata: {"a":1}\n\n',
        [("content-delta", '{"a":1}', "", None)],
    ),
    "no event line is a message": (b"data: [DONE]\n\n", [("message", "[DONE]", "", None)]),
    "an empty event line is a message": (b"event: \ndata: x\n\n", [("message", "x", "", None)]),
    "the type is not kept for the next event": (
        b"event: a\n\ndata: x\n\n",
        [("message", "x", "", None)],
    ),
    "field order does not matter": (b"data: x\nevent: a\n\n", [("a", "x", "", None)]),
    "the last event line counts": (b"event: a\nevent: b\ndata: x\n\n", [("b", "x", "", None)]),
    "data lines are joined": (b"data: a\ndata\ndata: b\n\n", [("message", "a\n\nb", "", None)]),
    "empty data is an event": (b"data:\n\n", [("message", "", "", None)]),
    "only the last LF is dropped": (b"data: a\ndata:\ndata:\n\n", [("message", "a\n\n", "", None)]),
    "no data is no event": (b"event: a\nid: 1\nretry: 5\n\n", []),
    "one space is dropped, and only one": (b"data:  a \n\n", [("message", " a ", "", None)]),
    "a tab is not a space": (b"data:\ta\n\n", [("message", "\ta", "", None)]),
    "names are compared exactly": (b"Data: a\n data: b\ndata : c\n\n", []),
    "comments": (b": hi\n\n:\ndata: a\n: more\n\n", [("message", "a", "", None)]),
    "CR alone": (b"data: a\rdata: b\r\r", [("message", "a\nb", "", None)]),
    "CRLF": (b"event: e\r\ndata: a\r\n\r\n", [("e", "a", "", None)]),
    "mixed line ends": (b"data: a\n\r\ndata: b\r\n\ndata: c\r\r\n", [
        ("message", "a", "", None),
        ("message", "b", "", None),
        ("message", "c", "", None),
    ]),
    "no other character ends a line": (
        "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        [("message", "a\u2028b\u0085c\x0bd\x0ce", "", None)],
    ),
    "many blank lines": (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [
        ("message", "a", "", None),
        ("message", "b", "", None),
    ]),
    "a leading BOM": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "", None)]),
    "half a BOM": (b"\xef\xbbdata: a\n\ndata: b\n\n", [("message", "b", "", None)]),
    "two BOMs": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("message", "b", "", None)]),
    "a BOM inside": (b"data: \xef\xbb\xbf\n\n", [("message", "\ufeff", "", None)]),
    "ids stay": (b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\n", [
        ("message", "a", "1", None),
        ("message", "b", "1", None),
        ("message", "c", "2", None),
    ]),
    "an empty id resets": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [
        ("message", "a", "1", None),
        ("message", "b", "", None),
    ]),
    "an id with NUL is ignored": (b"id: 1\nid: a\0\ndata: a\n\n", [("message", "a", "1", None)]),
    "retry stays": (b"retry: 10\ndata: a\n\ndata: b\n\nretry: 0020\ndata: c\n\n", [
        ("message", "a", "", 10),
        ("message", "b", "", 10),
        ("message", "c", "", 20),
    ]),
    "retry takes ASCII digits only": (
        "retry: +1\nretry: -1\nretry: 1_0\nretry:  1\nretry: 1.0\nretry: \u00b2\nretry: \u0661\n"
        "retry\nretry: \ndata: a\n\n".encode(),
        [("message", "a", "", None)],
    ),
    "ill-formed UTF-8 is replaced": (
        b"event: \xff\nid: \xc3\ndata: \xf0\x9f\x9a\ndata: \xe2\x82\xacx\xc0\xaf\n\n",
        [("\ufffd", "\ufffd\n\u20acx\ufffd\ufffd", "\ufffd", None)],
    ),
    "an unfinished block is discarded": (b"data: a\n\nid: 9\ndata: b\n", [
        ("message", "a", "", None),
    ]),
}  # fmt: skip

Expected = tuple[str, str, str, int | None]


def as_expected(events: list[dict[str, Any]]) -> list[Expected]:
    return [
        (event["event"], event["data"], event.get("id", ""), event.get("retry")) for event in events
    ]


def shared_cases(*layers: str) -> list[Any]:
    path = SHARED / "sse_cases.json"
    cases = json.loads(path.read_text()) if path.is_file() else []
    return [case for case in cases if case["layer"] in (layers or ("parser", "http"))]


def facts(frames: Iterable[Frame]) -> list[Expected]:
    return [(frame.event, frame.text, frame.id, frame.retry) for frame in frames]


def decode(chunks: Iterable[bytes], last_event_id: str = "") -> list[Expected]:
    decoder = FrameDecoder(last_event_id=last_event_id)
    return facts(frame for chunk in chunks for frame in decoder.feed(chunk))


def chunkings(body: bytes) -> Iterator[list[bytes]]:
    """Whole, every single cut of a short body, sizes 1 to 8, and fifty random ones."""
    yield [body]
    if len(body) <= 600:
        for position in range(len(body) + 1):
            yield cut_at(body, [position])
    for size in range(1, 9):
        yield cut(body, size)
    for seed in range(50):
        yield cut_randomly(body, seed)


def eager_offsets(body: bytes, last_event_id: str = "") -> list[int]:
    decoder = FrameDecoder(last_event_id=last_event_id)
    return [
        offset for offset, byte in enumerate(body, start=1) for _ in decoder.feed(bytes([byte]))
    ]


@pytest.mark.parametrize("name", OWN_CASES)
def test_the_standard_holds_whatever_the_chunking(name: str) -> None:
    """The events of a body are those of the standard, and do not depend on how it is cut."""
    body, expected = OWN_CASES[name]
    for chunks in chunkings(body):
        assert expected == decode(chunks), chunks


@pytest.mark.parametrize("name", OWN_CASES)
def test_the_reference_decoder_agrees_with_the_table(name: str) -> None:
    """The reference that judges the fuzzed streams gives what the table was written to give."""
    body, expected = OWN_CASES[name]
    assert expected == decode_slowly(body)[0]


@needs_shared
@pytest.mark.parametrize("case", shared_cases(), ids=lambda case: case["name"])
def test_a_shared_case_holds_whatever_the_chunking(case: dict[str, Any]) -> None:
    """Event, data, id and retry of every collected case come out under every chunking."""
    body = base64.b64decode(case["input_b64"])
    initial = case.get("initial_last_event_id", "")
    wanted = case["body_events"] if case["layer"] == "http" else case["expected"]
    expected = as_expected(wanted)
    for chunks in chunkings(body):
        assert expected == decode(chunks, initial), [len(chunk) for chunk in chunks]


@needs_shared
@pytest.mark.parametrize("case", shared_cases("parser"), ids=lambda case: case["name"])
def test_a_shared_case_leaves_the_state_it_should(case: dict[str, Any]) -> None:
    """After the end, the last event ID and the reconnection time are those of the standard."""
    body = base64.b64decode(case["input_b64"])
    decoder = FrameDecoder(last_event_id=case.get("initial_last_event_id", ""))
    decoder.feed(body)
    assert case["final"]["last_event_id"] == decoder.last_event_id
    # The time in force shows on the next frame; a line that the end cut off does not count.
    lines = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    probe = FrameDecoder().feed(lines + b"\n\ndata: probe\n\n")[-1]
    assert case["final"]["reconnection_time"] == probe.retry


@needs_shared
@pytest.mark.parametrize("case", shared_cases(), ids=lambda case: case["name"])
def test_a_shared_case_is_never_held_back(case: dict[str, Any]) -> None:
    """Byte by byte, each event is out exactly after its last byte."""
    body = base64.b64decode(case["input_b64"])
    initial = case.get("initial_last_event_id", "")
    assert case["eager_offsets"] == eager_offsets(body, initial)


# --- against the reference -----------------------------------------------------------------------

PIECES = [
    *(b":", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\t", b"\0", b"x", b"7", b"{", b"-"),
    *(b"data", b"id", b"event", b"retry", b"data:", b"data: ", b"id: ", b"event: ", b"retry: "),
    *(b"dat", b"Data: ", b"event: content-delta\ndata: ", b"data: [DONE]\n\n"),
    *(b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"),
    *("é".encode(), "東".encode(), "🚢".encode(), "🚢".encode()[:2], "🚢".encode()[2:]),
    *("\u2028".encode(), "\u0661".encode(), b"\x80"),
]
streams = st.lists(
    st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), st.binary(max_size=3)), max_size=40
).map(b"".join)
cuts = st.lists(st.integers(0, 200), max_size=12)


def test_a_reconnection_time_has_a_size() -> None:
    """Leading zeros are any number; a time that no one could mean is ignored, not a crash."""
    decoder = FrameDecoder()
    (frame,) = decoder.feed(b"retry: " + b"0" * 5000 + b"7\ndata: x\n\n")
    assert frame.retry == 7
    (frame,) = decoder.feed(b"retry: " + b"1" * 5000 + b"\ndata: x\n\n")
    assert frame.retry == 7


@examples(1500)
@given(streams, cuts)
def test_any_bytes_give_what_the_reference_gives(body: bytes, positions: list[int]) -> None:
    """On any bytes and any chunking the decoder equals a slow reading of the standard."""
    expected, _ = decode_slowly(body)
    decoder = FrameDecoder()
    frames = [frame for chunk in cut_at(body, positions) for frame in decoder.feed(chunk)]
    assert expected == facts(frames)


@examples(500)
@given(streams)
def test_any_bytes_are_out_as_early_as_in_the_reference(body: bytes) -> None:
    """On any bytes each event is out with the very byte that completes it."""
    assert decode_slowly(body)[1] == eager_offsets(body)


@examples(500)
@given(streams, st.text(alphabet="ab1", max_size=3))
def test_the_last_event_id_is_that_of_the_reference(body: bytes, initial: str) -> None:
    """The last event ID string starts as given and changes with completed blocks alone."""
    reference = ReferenceDecoder(initial)
    for byte in body:
        list(reference.push(byte))
    decoder = FrameDecoder(last_event_id=initial)
    decoder.feed(body)
    assert reference.last_event_id == decoder.last_event_id


@examples(500)
@given(streams, cuts)
def test_split_and_parse_are_feed(body: bytes, positions: list[int]) -> None:
    """``feed`` is ``split`` and ``parse`` in one."""
    decoder = FrameDecoder()
    frames = [
        decoder.parse(block) for chunk in cut_at(body, positions) for block in decoder.split(chunk)
    ]
    assert decode([body]) == facts(frame for frame in frames if frame is not None)


# --- limits --------------------------------------------------------------------------------------


def test_the_default_limit_is_16_mib() -> None:
    """A block may be as large as the documents that a citation repeats."""
    assert DEFAULT_MAX_BYTES == 16 * 1024 * 1024
    assert FrameDecoder().feed(b"data: " + bytes(DEFAULT_MAX_BYTES - 6)) == []
    with pytest.raises(FrameTooLargeError):
        FrameDecoder().feed(b"data: " + bytes(DEFAULT_MAX_BYTES - 5))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_byte_is_refused(limit: int) -> None:
    """A decoder that could take nothing cannot be made."""
    with pytest.raises(ValueError, match=f"max_bytes must be at least 1, not {limit}"):
        FrameDecoder(max_bytes=limit)


LIMITED_BLOCKS = {
    "one long line": lambda size: b"data: " + b"x" * (size - 6),
    "many lines": lambda size: (b"data: x\n" * size)[: size - 1] + b"y",
    "data between comments": lambda size: b": c\ndata: " + b"x" * (size - 6) + b"\n:",
    "data behind a long comment": lambda size: b":" + b"c" * 50 + b"\ndata: " + b"x" * (size - 6),
    "an event name": lambda size: b"event: " + b"e" * (size - 7),
}


@pytest.mark.parametrize("name", LIMITED_BLOCKS)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_the_limit_is_exact_whatever_the_chunking(name: str, end: bytes) -> None:
    """A block of the limit passes and one of a byte more does not, however it is cut."""
    before = b"data: before\n\n"
    for limit in (20, 21):
        for extra, wanted in ((0, None), (1, limit)):
            body = before + LIMITED_BLOCKS[name](limit + extra) + end
            for chunks in chunkings(body):
                decoder = FrameDecoder(max_bytes=limit)
                raised = None
                frames: list[Frame] = []
                for chunk in chunks:
                    try:
                        frames += decoder.feed(chunk)
                    except FrameTooLargeError as error:
                        frames += error.frames
                        raised = error.limit
                        break
                assert wanted == raised, chunks
                assert frames[0] == Frame(data=b"before"), chunks


def test_the_error_holds_what_the_chunk_completed() -> None:
    """``frames`` are the complete events before the large one, in order, and none after it."""
    decoder = FrameDecoder(max_bytes=10)
    with pytest.raises(FrameTooLargeError) as caught:
        decoder.feed(b"data: 1\n\n:\n\ndata: 2\n\ndata: 23456\n\ndata: 3\n\n")
    assert [Frame(data=b"1"), Frame(data=b"2")] == caught.value.frames
    assert caught.value.limit == 10


def test_after_the_limit_every_call_raises() -> None:
    """The decoder is of no use after it gave up: it says so each time, with no old frames."""
    decoder = FrameDecoder(max_bytes=10)
    with pytest.raises(FrameTooLargeError):
        decoder.feed(b"data: 1\n\n" + b"x" * 11)
    with pytest.raises(FrameTooLargeError) as caught:
        decoder.feed(b"data: 2\n\n")
    assert (caught.value.frames, caught.value.limit) == ([], 10)


def test_split_reports_the_limit_without_raising() -> None:
    """``split`` returns the blocks before the large one, sets ``error``, and takes no more."""
    decoder = FrameDecoder(max_bytes=10)
    assert decoder.split(b"data: 1\n\n" + b"x" * 11 + b"\n\ndata: 2\n\n") == [b"data: 1"]
    assert isinstance(decoder.error, FrameTooLargeError)
    assert decoder.split(b"data: 2\n\n") == []


def traced(feed: Callable[[], object]) -> int:
    """Bytes that are held after ``feed`` ran."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        feed()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


ENDLESS = {
    "a line without end": b"x" * 1000,
    "data lines without a blank line": b"data: xxxxxxxxxxxx\n" * 50,
    "comments": b": keep-alive\n\n" * 80,
    "blank lines": b"\n" * 999,
    "small events": b"data: x\n\n" * 100,
    "ids": b"id: 123456\n\n" * 80,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_memory_is_bounded(name: str) -> None:
    """Whatever an endless stream consists of, the decoder holds no more than its limit."""
    limit, chunk = 64 * 1024, ENDLESS[name]
    decoder = FrameDecoder(max_bytes=limit)

    def feed() -> None:
        for _ in range(1000):
            decoder.split(chunk)

    assert traced(feed) < 2 * limit


# --- linear time, counted ------------------------------------------------------------------------


class Counted(bytes):
    """A chunk that counts what ``+`` copies."""

    copied = 0

    def __add__(self, other: Any) -> bytes:
        Counted.copied += len(self) + len(other)
        return bytes(self) + other

    def __radd__(self, other: bytes | bytearray) -> bytes | bytearray:
        if isinstance(other, bytearray):  # ``tail += chunk`` grows in place, and would come here
            Counted.copied += len(self)
            other += bytes(self)
            return other
        Counted.copied += len(self) + len(other)
        return other + bytes(self)

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        piece = super().__getitem__(key)
        Counted.copied += len(piece) if isinstance(piece, bytes) else 0
        return piece


def work(body: bytes, size: int) -> int:
    """Bytes looked at or copied to decode a body in such pieces."""
    touched = 0

    def profile(frame: Any, kind: str, function: Any) -> None:
        nonlocal touched
        owner = getattr(function, "__self__", None)
        if kind == "c_call" and isinstance(owner, bytes):
            touched += len(owner)

    chunks = [Counted(chunk) for chunk in cut(body, size)]
    Counted.copied = 0
    decoder = FrameDecoder()
    sys.setprofile(profile)
    try:
        for chunk in chunks:
            decoder.split(chunk)
    finally:
        sys.setprofile(None)
    return touched + Counted.copied


@pytest.mark.parametrize("line", [b"x", b"x" * 98 + b"\n", b"x" * 98 + b"\r"])
def test_a_large_block_in_small_pieces_is_looked_at_a_few_times(line: bytes) -> None:
    """1 MiB in 100-byte pieces: linear work."""
    body = (line * (1 << 20))[: 1 << 20].rstrip() + b"\n\n"
    assert work(body, 100) <= 6 * len(body)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_an_unfinished_block_costs_its_bytes_and_little_more(size: int) -> None:
    """However small the pieces that it comes in."""
    decoder = FrameDecoder()
    for _ in range((1 << 18) // size):
        decoder.split(b"x" * size)
    assert sys.getsizeof(decoder._tail) <= 1.2 * (1 << 18)


def test_the_work_grows_with_the_bytes() -> None:
    """Twice the bytes are twice the work, for one block and for many."""
    for make in (lambda n: b"data: " + b"x" * n + b"\n\n", lambda n: b"data: x\n\n" * (n // 9)):
        once, twice = work(make(100_000), 64), work(make(200_000), 64)
        assert 1.9 < twice / once < 2.1


# --- frames to bytes -----------------------------------------------------------------------------

one_line = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=8
)
frames = st.builds(
    Frame,
    event=one_line,
    data=st.binary(max_size=30).map(lambda data: data.replace(b"\r", b"\n")),
    id=st.just("") | one_line.filter(lambda text: "\0" not in text),
    retry=st.none() | st.integers(0, 10**6),
)


@examples(500)
@given(frames, cuts)
def test_an_encoded_frame_decodes_to_itself(frame: Frame, positions: list[int]) -> None:
    """``encode_frame`` undoes the decoder, whatever the chunking."""
    decoder = FrameDecoder()
    chunks = cut_at(encode_frame(frame), positions)
    assert [frame] == [decoded for chunk in chunks for decoded in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("expected", "frame"),
    [
        (b"data: [DONE]\n\n", Frame(data=b"[DONE]")),
        (b"event: a\ndata: x\n\n", Frame("a", b"x")),
        (b"data: \n\n", Frame()),
        (b"data: a\ndata: \ndata: b\n\n", Frame(data=b"a\n\nb")),
        (b"event: a\nid: 7\nretry: 0\ndata: x\n\n", Frame("a", b"x", "7", 0)),
    ],
)
def test_frames_are_written_as_the_server_writes_them(expected: bytes, frame: Frame) -> None:
    """LF, one space after each colon, no event line for the default type."""
    assert expected == encode_frame(frame)


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("event holds a line end", Frame("a\nb")),
        ("event holds a line end", Frame("a\r")),
        ("id holds a line end", Frame(id="1\n2")),
        ("id holds a line end", Frame(id="1\r2")),
        ("U\\+0000", Frame(id="1\0")),
        ("data holds a CR", Frame(data=b"a\rb")),
        ("surrogates", Frame("\ud83d")),
    ],
)
def test_what_a_stream_cannot_say_is_refused(reason: str, frame: Frame) -> None:
    """A frame that would not come back as itself is a ``ValueError``, not a broken stream."""
    with pytest.raises(ValueError, match=reason):
        encode_frame(frame)
