"""Events to the answer: the folding table, completed ends, and what must not corrupt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol import Accumulator, ChatResponse
from streamchat.protocol.errors import DecodeError
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Debug,
    Event,
    GrowingText,
    MessageEnd,
    MessageStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolPlanDelta,
    UnknownEvent,
)
from streamchat.protocol.messages import (
    AssistantMessage,
    BilledUnits,
    Citation,
    LogprobItem,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallFunction,
    Usage,
)

from .helpers import examples
from .strategies import events as any_event


def call(name: str = "f", arguments: str = "", identity: str = "c") -> ToolCall:
    return ToolCall(identity, ToolCallFunction(name, arguments))


def fold(*events: Event) -> ChatResponse:
    accumulator = Accumulator()
    for event in events:
        accumulator.add(event)
    return accumulator.snapshot()


def thinking(piece: str, index: int = 0) -> ContentDelta:
    return ContentDelta("", index, piece, "thinking")


def message(**fields: Any) -> ChatResponse:
    return ChatResponse(message=AssistantMessage(**fields))


USAGE = Usage(BilledUnits(1, 2), extra={"warnings": ["w"]})
CITED = Citation(0, 1, "x", type="TEXT_CONTENT")
LOGPROB = LogprobItem([1], "a", [-0.5])

FOLDING: dict[str, tuple[ChatResponse, tuple[Event, ...]]] = {
    "nothing": (ChatResponse(), ()),
    "message-start": (ChatResponse("m"), (MessageStart("m"),)),
    "message-start with values": (
        ChatResponse(
            "m",
            AssistantMessage(
                [TextContent("ab"), ThinkingContent("t")], "pq", [call(arguments="{}")], [CITED]
            ),
        ),
        (
            MessageStart(
                "m",
                AssistantMessage(
                    [TextContent("a"), ThinkingContent("t")], "p", [call(arguments="{")], [CITED]
                ),
            ),
            ContentDelta("b"),
            ToolPlanDelta("q"),
            ToolCallDelta("}"),
        ),
    ),
    "content-start": (message(content=[TextContent("")]), (ContentStart(),)),
    "content-start with text": (
        message(content=[TextContent("ab")]),
        (ContentStart(0, "text", "a"), ContentDelta("b")),
    ),
    "content-start with thinking": (
        message(content=[ThinkingContent("ab")]),
        (ContentStart(0, "thinking", "", "a"), thinking("b")),
    ),
    "content-delta": (
        message(content=[TextContent("Hi there")]),
        (ContentStart(), ContentDelta("Hi"), ContentDelta(" "), ContentDelta("there")),
    ),
    "content-delta of a block that never started": (
        message(content=[TextContent("a"), ThinkingContent("b")]),
        (ContentDelta("a"), thinking("b", 1)),
    ),
    "content-delta that is empty": (
        message(content=[TextContent("")]),
        (ContentStart(), ContentDelta("")),
    ),
    "an empty delta of the other kind": (
        message(content=[TextContent("a")]),
        (ContentDelta("a"), thinking("")),
    ),
    "logprobs in order of arrival": (
        ChatResponse(
            message=AssistantMessage([TextContent("ab")]), logprobs=[LOGPROB, LogprobItem([2])]
        ),
        (ContentDelta("a", logprobs=LOGPROB), ContentDelta("b", logprobs=LogprobItem([2]))),
    ),
    "thinking, then text": (
        message(content=[ThinkingContent("t"), TextContent("x")]),
        (
            ContentStart(0, "thinking"),
            thinking("t"),
            ContentEnd(0),
            ContentStart(1),
            ContentDelta("x", 1),
            ContentEnd(1),
        ),
    ),
    "blocks interleaved and out of order": (
        message(content=[TextContent("ac"), TextContent("bd")]),
        (
            ContentDelta("b", 7),
            ContentDelta("a", 2),
            ContentDelta("d", 7),
            ContentDelta("c", 2),
        ),
    ),
    "a giant index": (message(content=[TextContent("x")]), (ContentDelta("x", 10**300),)),
    "a negative index": (message(content=[TextContent("x")]), (ContentDelta("x", -1),)),
    "tool-plan-delta": (message(tool_plan="I will"), (ToolPlanDelta("I"), ToolPlanDelta(" will"))),
    "a tool call": (
        message(tool_calls=[call(arguments='{"a": 1}')]),
        (ToolCallStart(call()), ToolCallDelta('{"a"'), ToolCallDelta(": 1}"), ToolCallEnd()),
    ),
    "a tool call without arguments": (
        message(tool_calls=[call()]),
        (ToolCallStart(call()), ToolCallEnd()),
    ),
    "a tool call with initial arguments": (
        message(tool_calls=[call(arguments="{}")]),
        (ToolCallStart(call(arguments="{")), ToolCallDelta("}")),
    ),
    "tool calls interleaved": (
        message(tool_calls=[call("f", "ac"), call("g", "bd", "d")]),
        (
            ToolCallStart(call()),
            ToolCallStart(call("g", "", "d"), 1),
            ToolCallDelta("a"),
            ToolCallDelta("b", 1),
            ToolCallDelta("c"),
            ToolCallDelta("d", 1),
        ),
    ),
    "three index spaces": (
        message(
            content=[ThinkingContent("t")], tool_calls=[call(arguments="{}")], citations=[CITED]
        ),
        (
            ContentStart(0, "thinking"),
            thinking("t"),
            ToolCallStart(call(), 0),
            CitationStart(CITED, 0),
            CitationEnd(0),
            ToolCallDelta("{}", 0),
        ),
    ),
    "citations in order of arrival": (
        message(citations=[CITED, Citation(1, 2, "y")]),
        (CitationStart(CITED, 5), CitationStart(Citation(1, 2, "y"), 2)),
    ),
    "message-end": (
        ChatResponse(finish_reason="COMPLETE", usage=USAGE),
        (MessageEnd("COMPLETE", USAGE),),
    ),
    "a failure leaves everything open": (
        ChatResponse(
            message=AssistantMessage([TextContent("a")], tool_calls=[call(arguments="{")]),
            finish_reason="ERROR",
            error="e",
            error_type="T",
        ),
        (
            ContentStart(),
            ContentDelta("a"),
            ToolCallStart(call()),
            ToolCallDelta("{"),
            MessageEnd("ERROR", Usage(), "e", "T"),
        ),
    ),
    "debug and unknown events": (
        ChatResponse("m"),
        (Debug("p"), MessageStart("m"), UnknownEvent("x", {"type": "x"}), Debug()),
    ),
}


@pytest.mark.parametrize("name", FOLDING)
def test_events_fold_as_the_table_says(name: str) -> None:
    """Each row of the folding table: these events, this answer."""
    expected, events = FOLDING[name]
    assert expected == fold(*events)


@pytest.mark.parametrize("name", FOLDING)
def test_an_event_comes_back_as_itself(name: str) -> None:
    """``add`` returns the event it was given, where there was nothing to repair."""
    accumulator = Accumulator()
    for event in FOLDING[name][1]:
        assert accumulator.add(event) is event


# --- ends ----------------------------------------------------------------------------------------


def added(*events: Event) -> Any:
    """The last of these events, after the accumulator had it."""
    accumulator = Accumulator()
    return [accumulator.add(event) for event in events][-1]


def test_content_end_carries_its_block() -> None:
    """The completed block, text or thinking; an empty text where none ever started."""
    assert TextContent("ab") == added(ContentDelta("a"), ContentDelta("b"), ContentEnd()).content
    assert ThinkingContent("t") == added(thinking("t", 1), ContentEnd(1)).content
    assert TextContent("") == added(ContentEnd(3)).content


def test_tool_call_end_carries_its_call() -> None:
    """The complete call with the arguments as the model wrote them."""
    end = added(ToolCallStart(call(), 2), ToolCallDelta("{ }", 2), ToolCallEnd(2))
    assert call(arguments="{ }") == end.tool_call
    assert end.tool_call.parsed == {}


def test_citation_end_carries_its_citation_and_its_block() -> None:
    """What its start brought, and the cited text."""
    end = added(ContentDelta("x!"), CitationStart(CITED, 4), CitationEnd(4))
    assert (end.citation, end.block) == (CITED, "x!")


def test_message_end_carries_the_answer() -> None:
    """The whole answer, equal to the snapshot."""
    events = (MessageStart("m"), ContentDelta("x"), MessageEnd("COMPLETE", USAGE))
    assert fold(*events) == added(*events).response


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (ContentEnd(), "content"),
        (ToolCallEnd(), "tool_call"),
        (CitationStart(CITED), "block"),
        (CitationEnd(), "citation"),
        (CitationEnd(), "block"),
        (MessageEnd("COMPLETE"), "response"),
    ],
)
def test_an_end_that_was_not_completed_says_so(event: Event, name: str) -> None:
    """Reading what only the accumulator knows is a LookupError that names it."""
    with pytest.raises(LookupError, match=f"{type(event).__name__}.{name} is known only after"):
        getattr(event, name)


@pytest.mark.parametrize(
    ("fresh", "before"),
    [
        (ContentEnd, [ContentDelta("x")]),
        (ToolCallEnd, [ToolCallStart(call())]),
        (lambda: CitationStart(CITED), [ContentDelta("x")]),
        (CitationEnd, [ContentDelta("x"), CitationStart(CITED)]),
        (lambda: MessageEnd("COMPLETE"), [ContentDelta("x")]),
    ],
)
def test_what_was_added_is_outside_equality_and_repr(
    fresh: Callable[[], Event], before: list[Event]
) -> None:
    """A completed event equals, and shows as, the one that was received."""
    completed = added(*before, fresh())
    assert fresh() == completed
    assert repr(fresh()) == repr(completed)


# --- the cited block -----------------------------------------------------------------------------


def blocks_cited(*events: Event) -> list[str]:
    accumulator = Accumulator()
    return [
        event.block
        for event in map(accumulator.add, events)
        if isinstance(event, CitationStart | CitationEnd)
    ]


def cite(
    kind: str | None = None, content_index: int | None = None, index: int = 0
) -> CitationStart:
    return CitationStart(Citation(0, 1, "x", [], kind, content_index), index)


MIXED = (ToolPlanDelta("plan"), thinking("think"), ContentDelta("text", 1))
CITED_BLOCKS: dict[str, tuple[list[str], tuple[Event, ...]]] = {
    "text": (["text"], (*MIXED, cite("TEXT_CONTENT"))),
    "no type": (["text"], (*MIXED, cite())),
    "plan": (["plan"], (*MIXED, cite("PLAN"))),
    "plan, whatever the content index": (["plan"], (*MIXED, cite("PLAN", 1))),
    "thinking": (["think"], (*MIXED, cite("THINKING_CONTENT"))),
    "the last thinking block": (
        ["two"],
        (thinking("one"), thinking("two", 1), cite("THINKING_CONTENT")),
    ),
    "by content index": (["think"], (*MIXED, cite("TEXT_CONTENT", 0))),
    "by an index that is not there": (["text"], (*MIXED, cite("TEXT_CONTENT", 9))),
    "the last text block": (
        ["two"],
        (ContentDelta("one"), ContentDelta("two", 1), cite("TEXT_CONTENT")),
    ),
    "a type of the future": (["text"], (*MIXED, cite("IMAGE"))),
    "no text, no type: the plan": (["plan"], (*MIXED[:2], cite())),
    "no text": ([""], (*MIXED[:2], cite("TEXT_CONTENT"))),
    "no thinking": ([""], (*MIXED[2:], cite("THINKING_CONTENT"))),
    "nothing at all": (["", ""], (cite(), CitationEnd())),
    "interleaved: so far": (
        ["a", "a", "ab", "ab"],
        (
            ContentStart(),
            ContentDelta("a"),
            cite(),
            CitationEnd(),
            ContentDelta("b"),
            cite(index=1),
            CitationEnd(1),
        ),
    ),
    "after content-end": (["ab"], (ContentDelta("ab"), ContentEnd(), cite())),
    "of a filled message-start": (
        ["a"],
        (MessageStart("", AssistantMessage([TextContent("a")])), cite()),
    ),
}


@pytest.mark.parametrize("name", CITED_BLOCKS)
def test_a_citation_knows_its_block(name: str) -> None:
    """The text that offsets count in: by type, by content index, or the last text block."""
    expected, events = CITED_BLOCKS[name]
    assert expected == blocks_cited(*events)


def test_a_block_grows_after_its_citation() -> None:
    """``block`` is built when read: later it shows what came later too."""
    accumulator = Accumulator()
    accumulator.add(ContentDelta("a"))
    event = accumulator.add(cite())
    accumulator.add(ContentDelta("b"))
    assert isinstance(event, CitationStart)
    assert event.block == "ab"


# --- halves of characters ------------------------------------------------------------------------

HIGH, LOW, WHOLE, LOST = "\ud83d", "\ude00", "\U0001f600", "\ufffd"


def pieces(kind: str, *texts: str) -> list[Event]:
    """Deltas of one kind."""
    return [
        {
            "text": lambda text: ContentDelta(text),
            "thinking": thinking,
            "plan": ToolPlanDelta,
            "arguments": lambda text: ToolCallDelta(text),
        }[kind](text)
        for text in texts
    ]


def text_of(event: Event) -> str:
    match event:
        case ContentDelta() | ContentStart():
            return event.text or event.thinking
        case ToolPlanDelta():
            return event.tool_plan
        case ToolCallDelta():
            return event.arguments
        case _:
            raise AssertionError(event)


HALVES = [
    ((["", WHOLE]), [HIGH, LOW]),
    ((["a", WHOLE + "b"]), ["a" + HIGH, LOW + "b"]),
    ((["", "", WHOLE]), [HIGH, "", LOW]),
    ((["", LOST + "a"]), [HIGH, "a"]),
    ((["", LOST, WHOLE]), [HIGH, HIGH, LOW]),
    (([LOST]), [LOW]),
    (([WHOLE]), [HIGH + LOW]),
    ((["a" + LOST + "b"]), ["a" + HIGH + "b"]),
    ((["é", "東"]), ["é", "東"]),
]


@pytest.mark.parametrize("kind", ["text", "thinking", "plan", "arguments"])
@pytest.mark.parametrize(("expected", "texts"), HALVES)
def test_halves_of_a_character_meet(kind: str, expected: list[str], texts: list[str]) -> None:
    """A half waits for the next piece of its text; each event shows whole characters alone."""
    accumulator = Accumulator()
    if kind == "arguments":
        accumulator.add(ToolCallStart(call()))
    shown = [accumulator.add(event) for event in pieces(kind, *texts)]
    assert expected == [text_of(event) for event in shown]
    body = accumulator.snapshot()
    got = {
        "text": body.text,
        "thinking": body.thinking,
        "plan": body.tool_plan,
        "arguments": body.tool_calls[0].arguments if body.tool_calls else "",
    }[kind]
    assert "".join(expected) == got


def test_a_repaired_delta_keeps_what_else_it_has() -> None:
    """Index, kind and logprobs of a delta survive the repair of its text."""
    event = ContentDelta("a" + HIGH, 3, logprobs=LOGPROB)
    assert ContentDelta("a", 3, logprobs=LOGPROB) == Accumulator().add(event)
    assert ContentDelta("", 3, "a", "thinking") == Accumulator().add(thinking("a" + HIGH, 3))
    assert event.text == "a" + HIGH, "the event itself is left as it was"


def test_halves_of_two_texts_do_not_meet() -> None:
    """A half waits for its own text, whatever comes in between."""
    answer = fold(
        ContentDelta(HIGH),
        ToolPlanDelta(LOW),
        thinking(HIGH, 1),
        ToolPlanDelta(HIGH),
        ContentDelta(LOW),
        thinking(LOW, 1),
        ToolPlanDelta(LOW),
    )
    assert (answer.text, answer.thinking, answer.tool_plan) == (WHOLE, WHOLE, LOST + WHOLE)


@pytest.mark.parametrize(
    ("start", "delta"),
    [
        (ContentStart(0, "text", "a" + HIGH), ContentDelta(LOW)),
        (ContentStart(0, "thinking", "", "a" + HIGH), thinking(LOW)),
    ],
)
def test_a_start_may_end_in_a_half_too(start: Event, delta: Event) -> None:
    """The initial text of a block is joined like any other piece, and shown whole."""
    accumulator = Accumulator()
    assert text_of(accumulator.add(start)) == "a"
    accumulator.add(delta)
    answer = accumulator.snapshot()
    assert answer.text + answer.thinking == "a" + WHOLE


def test_a_call_may_start_with_a_half_too() -> None:
    """The initial arguments of a call are joined like any other piece, and shown whole."""
    accumulator = Accumulator()
    started = accumulator.add(ToolCallStart(call(arguments="{" + HIGH), 1))
    assert ToolCallStart(call(arguments="{"), 1) == started
    accumulator.add(ToolCallDelta(LOW, 1))
    assert [item.arguments for item in accumulator.snapshot().tool_calls] == ["{" + WHOLE]


@pytest.mark.parametrize(
    ("expected", "events"),
    [
        (message(content=[TextContent("a" + LOST)]), (ContentDelta("a" + HIGH), ContentEnd())),
        (
            message(tool_calls=[call(arguments=LOST)]),
            (ToolCallStart(call()), ToolCallDelta(HIGH), ToolCallEnd()),
        ),
        (
            ChatResponse(
                message=AssistantMessage([TextContent("a" + LOST)], LOST), finish_reason="X"
            ),
            (ContentDelta("a" + HIGH), ToolPlanDelta(HIGH), MessageEnd("X")),
        ),
    ],
)
def test_a_half_that_stays_alone_is_replaced(
    expected: ChatResponse, events: tuple[Event, ...]
) -> None:
    """When its text ends, a lone half becomes U+FFFD: the text can always be encoded."""
    accumulator = Accumulator()
    last = [accumulator.add(event) for event in events][-1]
    assert expected == accumulator.snapshot()
    match last:
        case ContentEnd():
            assert expected.message.content == [last.content]
        case ToolCallEnd():
            assert expected.tool_calls == [last.tool_call]
        case MessageEnd():
            assert expected == last.response
        case _:
            pytest.fail("each row ends with an end")


@examples(500)
@given(st.lists(st.text("a" + HIGH + LOW, max_size=3), max_size=8))
def test_delivered_text_is_the_answer(texts: list[str]) -> None:
    """Joined deltas, plus a half lost at the end, are the text, and that is how UTF-16 reads."""
    accumulator = Accumulator()
    shown = "".join(text_of(accumulator.add(ContentDelta(text))) for text in texts)
    accumulator.add(ContentEnd())
    expected = "".join(texts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = accumulator.snapshot().text
    assert expected == text
    assert text in (shown, shown + LOST)
    shown.encode()


# --- contradictions ------------------------------------------------------------------------------

CONTRADICTIONS: dict[str, tuple[str, str, tuple[Event, ...], Event]] = {
    # name: (reason, path, before, event)
    "second start": ("a second message-start", "$", (MessageStart("m"),), MessageStart("n")),
    "block starts twice": (
        "content block 1 starts twice",
        "$.index",
        (ContentStart(1), ContentDelta("a", 1)),
        ContentStart(1, "thinking"),
    ),
    "block starts after its delta": (
        "content block 0 starts twice",
        "$.index",
        (ContentDelta("a"),),
        ContentStart(),
    ),
    "thinking inside text": (
        "thinking for content block 0, which is text",
        "$.delta.message.content.thinking",
        (ContentDelta("a"),),
        thinking("b"),
    ),
    "text inside thinking": (
        "text for content block 0, which is thinking",
        "$.delta.message.content.text",
        (ContentStart(0, "thinking"),),
        ContentDelta("b", logprobs=LOGPROB),
    ),
    "call starts twice": (
        "tool call 0 starts twice",
        "$.index",
        (ToolCallStart(call()), ToolCallDelta("{")),
        ToolCallStart(call("g")),
    ),
    "delta of no call": ("tool call 1 never started", "$.index", (), ToolCallDelta("x", 1)),
    "citation starts twice": (
        "citation 0 starts twice",
        "$.index",
        (CitationStart(CITED),),
        CitationStart(Citation(1, 2, "y")),
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_an_error_and_changes_nothing(name: str) -> None:
    """What would corrupt the answer is a DecodeError that names the place; the answer stays."""
    reason, path, before, event = CONTRADICTIONS[name]
    accumulator = Accumulator()
    for earlier in before:
        accumulator.add(earlier)
    snapshot = accumulator.snapshot()
    with pytest.raises(DecodeError) as caught:
        accumulator.add(event)
    error = caught.value
    assert (reason, event.type, path) == (error.reason, error.event_type, error.path)
    assert error.__context__ is None is error.__cause__
    assert snapshot == accumulator.snapshot()


def test_after_the_end_events_pass_without_effect() -> None:
    """Nothing after message-end changes the answer, not even a second end or a contradiction."""
    accumulator = Accumulator()
    accumulator.add(ContentDelta("a"))
    accumulator.add(MessageEnd("COMPLETE"))
    answer = accumulator.snapshot()
    for event in (ContentDelta("b"), MessageEnd("ERROR"), MessageStart("m"), ToolCallDelta("x", 9)):
        assert accumulator.add(event) is event
    assert answer == accumulator.snapshot()


# --- snapshots -----------------------------------------------------------------------------------


@examples(300)
@given(st.lists(any_event, max_size=10), st.lists(any_event, max_size=10))
def test_a_snapshot_does_not_change_later(before: list[Event], after: list[Event]) -> None:
    """A snapshot is independent of the events that come after it."""
    accumulator = Accumulator()

    def add(events: list[Event]) -> None:
        for event in events:
            try:
                accumulator.add(event)
            except DecodeError:
                continue

    add(before)
    snapshot = accumulator.snapshot()
    shown = repr(snapshot)
    add(after)
    assert shown == repr(snapshot)


@examples(300)
@given(st.lists(any_event, max_size=12))
def test_the_response_at_the_end_is_the_snapshot(events: list[Event]) -> None:
    """Whatever came before, message-end carries what the snapshot then shows."""
    accumulator = Accumulator()
    for event in events:
        try:
            accumulator.add(event)
        except DecodeError:
            continue
    end = accumulator.add(MessageEnd("COMPLETE"))
    again = accumulator.snapshot()
    if isinstance(end, MessageEnd) and not any(isinstance(event, MessageEnd) for event in events):
        assert end.response == again
    assert again.finish_reason is not None
    again.to_dict()


def test_usage_is_always_an_object() -> None:
    """Before the end, and after a failure, the counts are there and ``None``."""
    for answer in (ChatResponse(), fold(ContentDelta("a")), fold(MessageEnd("ERROR"))):
        assert answer.usage.billed_units.output_tokens is None
        assert answer.usage.tokens.input_tokens is None


# --- linear work, counted ------------------------------------------------------------------------


class CountedText(str):
    """Text that counts what ``+`` copies."""

    __slots__ = ()
    copied = 0

    def __add__(self, other: str) -> str:
        CountedText.copied += len(self) + len(other)
        return CountedText(str(self) + other)

    def __radd__(self, other: str) -> str:
        CountedText.copied += len(self) + len(other)
        return CountedText(other + str(self))


def calls_of(act: Callable[[], object]) -> int:
    """How many calls an act makes, of Python and of C."""
    count = 0

    def profile(frame: Any, kind: str, argument: Any) -> None:
        nonlocal count
        count += kind in ("call", "c_call")

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


STREAMS: dict[str, Callable[[], tuple[list[Event], Callable[[int], Event]]]] = {
    "text": lambda: ([ContentStart()], lambda n: ContentDelta(CountedText("word "))),
    "emoji": lambda: ([ContentStart()], lambda n: ContentDelta(CountedText("é🚢"))),
    "plan": lambda: ([], lambda n: ToolPlanDelta(CountedText("word "))),
    "arguments": lambda: ([ToolCallStart(call())], lambda n: ToolCallDelta(CountedText('"a"'))),
    "citations": lambda: ([ContentDelta("a")], lambda n: CitationStart(CITED, n)),
    "blocks": lambda: ([], lambda n: ContentDelta("a", n)),
    "tool calls": lambda: ([], lambda n: ToolCallStart(call(), n)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_an_event_costs_the_same_whatever_came_before(name: str) -> None:
    """Twice the events are twice the calls, and no text is copied to append to it."""

    def cost(count: int) -> int:
        first, make = STREAMS[name]()
        accumulator = Accumulator()
        for event in first:
            accumulator.add(event)
        events = [make(number) for number in range(count)]
        CountedText.copied = 0
        calls = calls_of(lambda: [accumulator.add(event) for event in events])
        assert CountedText.copied == 0
        return calls

    once, twice = cost(500), cost(1000)
    assert 1.9 < twice / once < 2.1


def test_reading_the_text_joins_it_once() -> None:
    """After a read the pieces are one, so that reading again does not join them again."""
    growing = GrowingText("a", "", "b")
    growing.pieces += ["c"] * 100
    assert str(growing) == "ab" + "c" * 100
    assert growing.pieces == ["ab" + "c" * 100]
    assert str(growing) is str(growing)
    assert str(GrowingText()) == ""


# --- the lane's pieces ---------------------------------------------------------------------------


def test_pieces_for_is_where_the_next_delta_goes() -> None:
    """The fast lane gets the list of the right text, and none where it must not append."""
    accumulator = Accumulator()
    assert accumulator.pieces_for(ContentDelta("a")) is None
    accumulator.add(ContentDelta("a"))
    accumulator.add(ToolCallStart(call()))
    for event, expected in (
        (ContentDelta("b"), "ab"),
        (ToolPlanDelta("b"), "b"),
        (ToolCallDelta("b"), "b"),
    ):
        pieces = accumulator.pieces_for(event)
        assert pieces is not None
        pieces.append("b")
        answer = accumulator.snapshot()
        assert expected in (answer.text, answer.tool_plan, answer.tool_calls[0].arguments)
    assert accumulator.pieces_for(ContentDelta("b", 1)) is None
    assert accumulator.pieces_for(ContentEnd()) is None
    accumulator.add(ContentDelta(HIGH))
    assert accumulator.pieces_for(ContentDelta("b")) is None


# --- the wire's spelling -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "event", "path"),
    [
        ("Hi", ContentDelta("Hi"), "delta.message.content.text"),
        ("", ContentDelta("Hi"), "delta.message.content.thinking"),
        ("", thinking("t"), "delta.message.content.text"),
        ("t", thinking("t"), "delta.message.content.thinking"),
        ("a", ContentStart(0, "text", "a"), "delta.message.content.text"),
        ("thinking", ContentStart(0, "thinking"), "delta.message.content.type"),
        ("p", ToolPlanDelta("p"), "delta.message.tool_plan"),
        ("f", ToolCallStart(call()), "delta.message.tool_calls.function.name"),
        ("c", ToolCallStart(call()), "delta.message.tool_calls.id"),
        ("{", ToolCallDelta("{"), "delta.message.tool_calls.function.arguments"),
        ("x", CitationStart(CITED), "delta.message.citations.text"),
        ("assistant", MessageStart("m"), "delta.message.role"),
        ([], MessageStart("m"), "delta.message.tool_calls"),
        ("ERROR", MessageEnd("ERROR"), "delta.finish_reason"),
        (1, MessageEnd("X", USAGE), "delta.usage.billed_units.input_tokens"),
        ("e", MessageEnd("X", error="e"), "delta.error"),
        ("T", MessageEnd("X", error_type="T"), "delta.error_type"),
        ("", UnknownEvent("x"), "delta.message.content.text"),
    ],
)
def test_the_spelling_of_the_wire_works(expected: object, event: Event, path: str) -> None:
    """Code written after Cohere's documentation reads the same values."""
    value: Any = event
    for name in path.split("."):
        value = getattr(value, name)
    assert expected == value


@pytest.mark.parametrize("event", [item for _, events in FOLDING.values() for item in events])
def test_events_are_true_and_closed(event: Event) -> None:
    """An event is always truthy, even with empty text, and takes no attribute it does not have."""
    assert event
    with pytest.raises(AttributeError):
        event.txt = "x"  # type: ignore[union-attr]
    assert attrs.has(type(event))
