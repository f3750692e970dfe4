"""The fast lane reads what the full path reads, on every block that tries to tell them apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol import EventReader, encode_event, encode_frame
from streamchat.protocol import lane as lane_module
from streamchat.protocol.errors import DecodeError, GenerationError
from streamchat.protocol.events import (
    MAX_INDEX,
    ContentDelta,
    ContentStart,
    Event,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallStart,
    ToolPlanDelta,
)
from streamchat.protocol.messages import LogprobItem, ToolCall, ToolCallFunction
from tests.frames import body, plain

from .helpers import FullPath, cut_at, examples, outcome, read_all
from .strategies import events as any_event
from .strategies import sent_objects

# --- blocks --------------------------------------------------------------------------------------

TEMPLATES: dict[str, tuple[bytes, bytes]] = {}
"""Kind and index to the bytes before and after the string of such a delta, without the quotes."""
for number in (0, 1, 63, 64, -1):
    TEMPLATES |= {
        f"text {number}": (
            b'event: content-delta\ndata: {"type":"content-delta","index":%d,"delta":{"message":'
            b'{"content":{"text":' % number,
            b"}}}}",
        ),
        f"thinking {number}": (
            b'event: content-delta\ndata: {"type":"content-delta","index":%d,"delta":{"message":'
            b'{"content":{"thinking":' % number,
            b"}}}}",
        ),
        f"arguments {number}": (
            b'event: tool-call-delta\ndata: {"type":"tool-call-delta","index":%d,"delta":'
            b'{"message":{"tool_calls":{"function":{"arguments":' % number,
            b"}}}}}",
        ),
    }
TEMPLATES["plan"] = (
    b'event: tool-plan-delta\ndata: {"type":"tool-plan-delta","delta":{"message":{"tool_plan":',
    b"}}}",
)
LANES = ["text 0", "text 1", "thinking 0", "thinking 1", "arguments 0", "arguments 1", "plan"]

STRING_PIECES = [
    *(b"a", b" the", b".", b"", b"\xc3\xa9", "東".encode(), "🚢".encode(), b"[DONE]"),
    *(b'\\"', b"\\\\", b"\\n", b"\\u00e9", b"\\/", b"\\u2028", b"\\u0000", b"\\ud83d\\ude00"),
    *(b"\\ud83d", b"\\ude00", b"\\uD83D", b"\\uDE00", b"\\udc00\\ud800"),
    *(b'"', b"\\", b"\\u12", b"\\q", b"\n", b"\r", b"\x01", b"\t", b"\x7f", b"\xff", b"\xe2\x82"),
    *(b"\xed\xa0\xbd", b"\xed\xb8\x80", b"}}}}", b'"}}}}', b'"}}}', b'"}}}}}', b"{", b'","x":"'),
    *(b"\nid: 7", b"\nevent: x", b"\n: c", b"\ndata: ", b'"}}}}\ndata: ', b'","thinking":"y'),
]
STARTS = [
    MessageStart("m"),
    ContentStart(0),
    ContentStart(1, "thinking"),
    ContentStart(1),
    ContentStart(0, "text", "x"),
    ToolCallStart(ToolCall("c", ToolCallFunction("f", "")), 0),
    ToolCallStart(ToolCall("d", ToolCallFunction("g", "{")), 1),
]


def block_of(event: Event) -> bytes:
    return encode_frame(encode_event(event)).removesuffix(b"\n\n")


OTHER_BLOCKS = [
    *map(block_of, STARTS),
    b'event: content-end\ndata: {"type":"content-end","index":0}',
    b'event: tool-call-end\ndata: {"type":"tool-call-end","index":0}',
    (
        b'event: citation-start\ndata: {"type":"citation-start","index":0,"delta":{"message":'
        b'{"citations":{"start":0,"end":1,"text":"a"}}}}'
    ),
    b'event: citation-end\ndata: {"type":"citation-end","index":0}',
    b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"COMPLETE"}}',
    b'event: future\ndata: {"type":"future","n":1}',
    (
        b'event: tool-call-start\ndata: {"type":"tool-call-start","index":0,"delta":{"message":'
        b'{"tool_calls":{"id":"c","function":{"name":"f","arguments":"\\ud83d"}}}}}'
    ),
    (
        b'event: content-start\ndata: {"type":"content-start","index":0,"delta":{"message":{"content":'
        b'{"type":"text","text":"\\ud83d"}}}}'
    ),
    b"data: [DONE]",
    b'event: error\ndata: {"message":"no"}',
    b": keep-alive",
    b"id: 7",
    b"",
    b"data: nonsense",
]


@st.composite
def delta_blocks(draw: st.DrawFn, favourite: str) -> bytes:
    """A delta block, usually of the favourite lane and usually as our encoder writes it."""
    name = draw(st.sampled_from([favourite] * 60 + LANES + list(TEMPLATES)))
    before, after = TEMPLATES[name]
    if draw(st.integers(0, 4)) == 2:
        middle = b"".join(draw(st.lists(st.sampled_from(STRING_PIECES), max_size=4)))
    else:
        usual = [b"a", b" b", b"\\n", "é".encode(), b'\\"', b"c\\ud83d", b"\\ude00d"]
        middle = draw(st.sampled_from(usual))
    block = before + b'"' + middle + b'"' + after
    match draw(st.integers(0, 60)):  # hypothesis is fond of both ends
        case 20:
            block = b"id: 9\n" + block
        case 21:
            block = block + b"\nid: 9"
        case 22:
            block = block.partition(b"\n")[2]  # no event line
        case 23:
            block = block.replace(b'":', b'": ').replace(b",", b", ")
        case 24:
            block = block.replace(b"data: ", b"data:", 1)
        case 25:
            block = b"\n" + block
        case 26:
            position = draw(st.integers(0, len(block)))
            block = block[:position] + draw(st.binary(max_size=2)) + block[position + 1 :]
        case 27:
            block = before + draw(st.sampled_from([b'"', b"", b"null", b"7", b"[]"])) + after
        case 28:
            block = block.replace(b'"index":0,', b"").replace(b'"index":1,', b'"index":1.0,')
        case 29:
            block = block.replace(b'{"type"', b'{"logprobs":{"token_ids":[1]},"type"', 1)
        case 30:
            block = block.replace(b"\n", b"\n: c\n")
        case 31:
            block = block.replace(b"event: c", b"event: error\nx: c", 1)
        case _:
            pass
    return block


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    favourite = draw(st.sampled_from(LANES))
    deltas = delta_blocks(favourite)
    blocks = [block_of(event) for event in STARTS[:1]] if draw(st.booleans()) else []
    if favourite.startswith("arguments"):
        blocks += map(block_of, STARTS[5:])
    blocks += draw(
        st.lists(
            st.one_of(deltas, deltas, deltas, deltas, deltas, st.sampled_from(OTHER_BLOCKS)),
            min_size=3,
            max_size=14,
        )
    )
    return blocks


def state(reader: EventReader | FullPath) -> tuple[Any, ...]:
    return (reader.snapshot, reader.end, reader.terminated, reader.has_events, reader.has_text)


@pytest.mark.timeout(300)  # many examples: 11 s of CPU, on a machine that may be busy
@examples(3000)
@given(streams())
def test_the_lane_is_never_noticed(blocks: list[bytes]) -> None:
    """On any blocks: the same events and errors, one by one, and the same answer at the end."""
    fast, full = EventReader(), FullPath()
    for block in blocks:
        assert outcome(full, block) == outcome(fast, block)
    assert state(full) == state(fast)


@examples(400)
@given(streams())
def test_the_answer_is_the_same_after_every_block(blocks: list[bytes]) -> None:
    """The snapshot in between is the same too: text of the lane is not held back."""
    fast, full = EventReader(), FullPath()
    for block in blocks:
        outcome(full, block)
        outcome(fast, block)
        assert state(full) == state(fast)


@examples(400)
@given(streams(), st.lists(st.integers(0, 3000), max_size=10))
def test_bytes_may_come_in_any_pieces(blocks: list[bytes], positions: list[int]) -> None:
    """Both ways agree on a stream of bytes, whatever its blocks and its chunks."""
    chunks = cut_at(b"\n\n".join(blocks) + b"\n\n", positions)
    assert read_all(chunks, fast=False) == read_all(chunks, fast=True)


@examples(400)
@given(st.lists(any_event, max_size=12))
def test_any_events_are_read_alike(events: list[Event]) -> None:
    """Streams in no sensible order are read alike, with their errors."""
    blocks = [block_of(event) for event in events]
    fast, full = EventReader(), FullPath()
    assert [outcome(full, block) for block in blocks] == [outcome(fast, block) for block in blocks]
    assert state(full) == state(fast)


@examples(600)
@given(st.lists(sent_objects, max_size=8), st.lists(st.integers(0, 2000), max_size=6))
def test_the_shapes_of_gateways_are_read_alike(
    objects: list[dict[str, Any]], positions: list[int]
) -> None:
    """Lists, optional indexes, ends of nothing, errors: both ways agree, however they are cut."""
    body = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in objects)
    chunks = cut_at(body, positions)
    assert read_all(chunks, fast=False) == read_all(chunks, fast=True)


STRINGS = [
    b"a",
    b" the",
    b"",
    b'\\"',
    b"\\n",
    b'"',
    b"\\",
    b'","',
    b',"b',
    b'\\",',
    b'"\n\n,"',
    b"\n",
    b"\r",
]


@examples(1500)
@given(
    st.sampled_from(LANES),
    st.lists(
        st.one_of(
            st.sampled_from(STRINGS[:3]),
            st.lists(st.sampled_from(STRINGS), max_size=3).map(b"".join),
            st.lists(st.sampled_from(STRING_PIECES), max_size=3).map(b"".join),
        ),
        min_size=2,
        max_size=6,
    ),
    st.sampled_from([b"", b"", b"", b": c", b"\n", b"data: [DONE]"]),
    st.integers(0, 6),
)
def test_a_run_is_never_noticed(
    lane: str, middles: list[bytes], between: bytes, position: int
) -> None:
    """Neighbours that are decoded together: whatever stands between their quotes."""
    before, after = TEMPLATES[lane]
    start = STARTS[6 if lane.endswith("1") else 5] if "arg" in lane else STARTS[0]
    blocks = [before + b'"' + middle + b'"' + after for middle in middles]
    if between:
        blocks.insert(position, between)
    chunks = [
        block_of(start) + b"\n\n" + before + b'"x"' + after + b"\n\n",
        b"".join(block + b"\n\n" for block in blocks),
        before + b'"y"' + after + b"\n\n",
    ]
    assert read_all(chunks, fast=False) == read_all(chunks, fast=True)


@pytest.mark.parametrize(
    "middles",
    [
        [b"a\\", b',"b'],  # as many strings as blocks, when joined
        [b"a\\", b',"b', b"c"],
        [b'a","b'],
        [b'a","b', b"c\\", b"d"],
        [b"a\\", b"b\\", b',","c'],
        [b'a"\n\n,"b', b"c"],
        [b"a\\\\", b"b"],
        [b'\\"', b'\\",\\"'],
        [b'"', b'"'],
        [b'a"\n,\n"b', b"c"],
    ],
)
def test_strings_of_a_run_do_not_flow_into_each_other(middles: list[bytes]) -> None:
    """Blocks that are wrong alone, and right when their strings are joined."""
    before, after = TEMPLATES["text 0"]
    chunks = [
        before + b'"x"' + after + b"\n\n",
        b"".join(before + b'"' + middle + b'"' + after + b"\n\n" for middle in middles),
    ]
    assert read_all(chunks, fast=False) == read_all(chunks, fast=True)


@pytest.mark.parametrize("text", ["", "é", "\n", 'say "x"', "\\", "東京🚢", "x" * 300])
def test_neighbours_of_a_lane_are_decoded_together(text: str) -> None:
    """As texts, and as many as there are; of a run with an odd block in it, as blocks."""
    reader = EventReader()
    for item in reader.split(block_of(ContentDelta("x")) + b"\n\n"):
        reader.read(item)
    block = block_of(ContentDelta(text)) + b"\n\n"
    assert reader.split(block * 3) == [text] * 3
    assert [reader.read(text)] * 2 == [ContentDelta(text)] * 2
    assert reader.split(block * 3 + b": c\n\n") == [block[:-2]] * 3 + [b": c"]


def test_who_leaves_a_run_for_frames_gets_the_rest_of_it() -> None:
    """Byte by byte as it came, though it was decoded already."""
    reader = EventReader()
    for item in reader.split(block_of(ContentDelta("x")) + b"\n\n"):
        reader.read(item)
    blocks = [block_of(ContentDelta(text)).replace(b"b", b"\\u0062") for text in "abc"]
    items = iter(reader.split(b"".join(block + b"\n\n" for block in blocks)))
    assert reader.read(next(items)) == ContentDelta("a")
    rest = reader.unread(items)
    assert list(reader.unread(rest)) == blocks[1:]
    assert list(reader.unread(iter(()))) == []


def test_a_block_of_the_lane_is_held_to_the_limit() -> None:
    """Also where it comes alone, and is not cut from anything."""
    delta = block_of(ContentDelta("x" * 30))
    reader = EventReader(len(delta) + 2)
    assert [reader.read(item) for item in reader.split(delta + b"\n\n")] == [ContentDelta("x" * 30)]
    assert reader.split(delta + b"\n\n") == ("x" * 30,)
    assert not reader.is_over
    assert reader.split(block_of(ContentDelta("x" * 33)) + b"\n\n") == ()
    assert reader.too_large is not None
    assert reader.is_over


@pytest.mark.parametrize("before", [b"", b"\n", b"\r", b"\r\n", b"i", b"id: 7\n", b": c\n\n"])
def test_a_block_that_comes_alone_is_not_taken_from_what_came_before(before: bytes) -> None:
    """Half a block, half a line end or a blank line before it: the lane is for whole blocks."""
    delta = block_of(ContentDelta("x")) + b"\n\n"
    chunks = [delta, before, delta, delta]
    assert read_all(chunks, fast=False) == read_all(chunks, fast=True)


# --- what the lane is for ------------------------------------------------------------------------


def full_reads(monkeypatch: pytest.MonkeyPatch, blocks: list[bytes]) -> list[int]:
    """The positions of the blocks that go the full way."""
    decoded: list[int] = []
    original = EventReader._read_fully

    def noting(reader: EventReader, block: bytes) -> Event | None:
        decoded.append(position)
        return original(reader, block)

    monkeypatch.setattr(EventReader, "_read_fully", noting)
    reader = EventReader()
    for position in range(len(blocks)):
        reader.read(blocks[position])
    return decoded


CALL = ToolCallStart(ToolCall("c", ToolCallFunction("f", "")), 1)


@pytest.mark.parametrize(
    ("first", "delta"),
    [
        (ContentStart(), ContentDelta("é")),
        (ContentStart(1), ContentDelta("x", 1)),
        (ContentStart(63), ContentDelta("x", MAX_INDEX)),
        (ContentStart(), ContentDelta("text")),
        (ContentStart(), ContentDelta("content-delta")),
        (ContentStart(0, "thinking"), ContentDelta("", 0, "x", "thinking")),
        (ContentStart(2, "thinking"), ContentDelta("", 2, '"x"', "thinking")),
        (MessageStart(), ToolPlanDelta("x")),
        (ToolCallStart(CALL.tool_call), ToolCallDelta('{"')),
        (CALL, ToolCallDelta("\\", 1)),
    ],
)
def test_all_deltas_but_the_first_take_the_lane(
    monkeypatch: pytest.MonkeyPatch, first: Event, delta: Event
) -> None:
    """Deltas of every kind are read fast from the second one on: the lane is really taken."""
    blocks = [block_of(first)] + [block_of(delta)] * 5
    assert full_reads(monkeypatch, blocks) == [0, 1]


def test_other_events_leave_the_lane_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A citation or a comment between two deltas does not cost the lane."""
    delta = block_of(ContentDelta("x"))
    blocks = [delta, delta, OTHER_BLOCKS[9], OTHER_BLOCKS[10], b": c", delta, delta]
    assert full_reads(monkeypatch, blocks) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    "delta",
    [
        ContentDelta(""),
        ContentDelta("x", logprobs=LogprobItem([1])),
    ],
)
def test_some_deltas_have_no_lane(monkeypatch: pytest.MonkeyPatch, delta: Event) -> None:
    """Empty and annotated deltas go the full way: there is no text to learn from, or more than it."""
    assert full_reads(monkeypatch, [block_of(delta)] * 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b":{", b": {"),
        (b'"index":0,', b""),
        (b"event: content-delta\n", b""),
        (b"event: content-delta\n", b"id: 7\nevent: other\n"),
        (b'"type":"content-delta","index":0,', b'"x":"x","index":0,"type":"content-delta",'),
        (b"}}}}", b'}}},\ndata: "y":[1]}'),
    ],
)
def test_another_spelling_has_a_lane_as_well(
    monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    """Spaces, other keys, other lines: learnt from the first delta, and proven."""
    blocks = [block_of(ContentDelta(text)).replace(old, new) for text in ("x", "y", "é", "")]
    assert full_reads(monkeypatch, blocks) == [0]


def test_a_text_that_stands_elsewhere_too_is_not_mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same string in an ignored field: only the place that changes the text is the lane."""
    blocks = [
        block_of(ContentDelta(text)).replace(b'{"type"', b'{"raw":"x","type"') for text in "xyz"
    ]
    assert full_reads(monkeypatch, blocks) == [0]


def test_lessons_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deltas that never fit a lane (each with other log probabilities) are not learnt for ever."""
    lessons = 0
    original = lane_module._says

    def counted(block: bytes, event: Event) -> bool:
        nonlocal lessons
        lessons += 1
        return original(block, event)

    monkeypatch.setattr(lane_module, "_says", counted)
    reader = EventReader()
    for number in range(100):
        reader.read(block_of(ContentDelta("x", logprobs=LogprobItem([number]))))
    assert 1 <= lessons <= 16


def test_half_an_emoji_is_not_overtaken_by_the_lane() -> None:
    """While one half waits for the other, following text must not be appended before it."""
    before, after = TEMPLATES["text 0"]
    reader = EventReader()
    texts = []
    for piece in (b"a", b"b\\ud83d", b"c", b"d", b"\\ud83d", b"\\ude00"):
        event = reader.read(before + b'"' + piece + b'"' + after)
        assert isinstance(event, ContentDelta)
        texts.append(event.text)
    assert texts == ["a", "b", "\ufffdc", "d", "", "\U0001f600"]
    assert reader.snapshot.text == "ab\ufffdcd\U0001f600"


def test_text_that_ends_in_half_an_emoji_is_text() -> None:
    """``has_text`` counts what was delivered, also from a delta that was repaired."""
    before, after = TEMPLATES["text 0"]
    reader = EventReader()
    reader.read(before + b'"\\ud83d"' + after)
    assert not reader.has_text
    reader.read(before + b'"a\\ud83d"' + after)
    assert reader.has_text


# --- the ends ------------------------------------------------------------------------------------

END = block_of(MessageEnd("COMPLETE"))


def test_after_message_end_nothing_is_decoded() -> None:
    """Not even nonsense after the end is an error: the answer is complete."""
    reader = EventReader()
    reader.read(block_of(ContentDelta("x")))
    assert reader.read(END) is reader.end
    for block in (block_of(ContentDelta("y")), b"data: nonsense", END, b"data: [DONE]"):
        assert reader.read(block) is None
    assert reader.snapshot.text == "x"


def test_the_terminator_alone_is_no_end() -> None:
    """``[DONE]`` without message-end is noted, and ends what is decoded: the answer is cut off."""
    reader = EventReader()
    reader.read(block_of(ContentDelta("x")))
    assert reader.read(b"data: [DONE]") is None
    assert (reader.terminated, reader.end) == (True, None)
    assert reader.read(block_of(ContentDelta("y"))) is None
    assert (reader.snapshot.finish_reason, reader.snapshot.text) == (None, "x")


def test_an_event_that_contradicts_has_its_payload() -> None:
    """The accumulator's error gets the data of the event, so that it can be looked at."""
    reader = EventReader()
    block = block_of(ToolCallDelta("x", 5))
    with pytest.raises(DecodeError, match="tool call 5 never started") as caught:
        reader.read(block)
    assert caught.value.payload == block.partition(b"data: ")[2]
    assert (caught.value.event_type, caught.value.path) == ("tool-call-delta", "$.index")
    assert caught.value.__context__ is None is caught.value.__cause__


def test_an_error_event_is_raised_from_the_reader() -> None:
    """A stray error in the middle is the stream's failure."""
    reader = EventReader()
    reader.read(block_of(ContentDelta("x")))
    with pytest.raises(GenerationError, match="no"):
        reader.read(b'event: error\ndata: {"message":"no"}')
    assert reader.snapshot.text == "x"


def test_the_limit_is_reported_after_the_blocks_before_it() -> None:
    """``split`` gives what was complete, then ``too_large`` is set."""
    reader = EventReader(max_bytes=200)
    assert reader.too_large is None
    (block,) = reader.split(block_of(ContentDelta("x")) + b"\n\n" + b"y" * 201)
    assert ContentDelta("x") == reader.read(block)
    assert reader.too_large is not None
    assert reader.too_large.limit == 200


@pytest.mark.parametrize(
    ("expected", "blocks"),
    [
        (False, []),
        (False, [b": keep-alive", b"", b"id: 7", b": data: x", b"event: x"]),
        (True, [b": keep-alive", b"data: x"]),
        (True, [b"event: x\ndata:"]),
        (True, [b"\ndata: x"]),
    ],
)
def test_comments_are_no_events(expected: bool, blocks: list[bytes]) -> None:
    """What feeds the idle timer is data; comments and ids do not."""
    assert expected is EventReader().holds_data(blocks)


def test_raw_frames_are_given_as_they_are() -> None:
    """``read_frame`` hands on every frame undecoded, and looks for the end alone."""
    reader = EventReader()
    blocks = [b"data: nonsense", b": c", b'data: {"a":"\\"message-end\\""}', END, b"data: [DONE]"]
    frames = [reader.read_frame(block) for block in blocks]
    data = [frame and frame.data for frame in frames]
    assert [
        b"nonsense",
        None,
        b'{"a":"\\"message-end\\""}',
        END.partition(b"data: ")[2],
        b"[DONE]",
    ] == data
    assert reader.end == MessageEnd("COMPLETE")
    assert reader.terminated


def test_the_end_is_found_without_an_event_line() -> None:
    """A message-end frame whose event line is missing is still the end; a citation of it is not."""
    reader = EventReader()
    reader.read_frame(b'data: {"type":"future","name":"message-end"}')
    assert reader.end is None
    reader.read_frame(END.partition(b"\n")[2])
    assert reader.end is not None


def test_an_error_of_a_block_in_the_lane_is_chained_to_no_other() -> None:
    """Another library's error quotes what it was given."""
    blocks = body(plain("a", "b")).split(b"\n\n")[:4]
    reader = EventReader()
    for block in blocks[:3]:
        reader.read(block)
    broken = blocks[3].replace(b'"b"', b'"b"x"')
    assert broken != blocks[3]
    with pytest.raises(DecodeError) as caught:
        reader.read(broken)
    assert caught.value.__context__ is None and caught.value.__cause__ is None
