"""Events as gateways and other servers send them: what each shape means, as a table.

A body is given as its JSON objects; what is compared is the whole answer, because a shape that is read
must end where its usual spelling ends.
"""

# ruff: noqa: E501, PT006 - tables

from __future__ import annotations

import json
from typing import Any

import pytest

from streamchat.protocol import EventReader, Frame, decode_event, decode_events
from streamchat.protocol.errors import DecodeError, GenerationError
from streamchat.protocol.events import (
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentStart,
    Event,
    ToolCallEnd,
    ToolCallStart,
    UnknownEvent,
)
from streamchat.protocol.messages import Citation, ToolCall, ToolCallFunction, Usage
from streamchat.protocol.response import ChatResponse

from .helpers import CANARY, read_all


def event(kind: str, index: int | None = 0, **message: Any) -> dict[str, Any]:
    """One event's object; ``message`` is what stands under ``delta.message``."""
    given: dict[str, Any] = {"type": kind}
    if index is not None:
        given["index"] = index
    if message:
        given["delta"] = {"message": message}
    return given


def started(kind: str = "text", index: int | None = 0) -> dict[str, Any]:
    return event("content-start", index, content={"type": kind, kind: ""})


def delta(text: str, index: int | None = 0, kind: str = "text") -> dict[str, Any]:
    return event("content-delta", index, content={kind: text})


def call(index: int | None, id_: Any, name: str, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": ""} | more}
    if id_ is not None:
        given["id"] = id_
    return event("tool-call-start", index, tool_calls=given)


def arguments(text: Any, index: int | None = 0) -> dict[str, Any]:
    return event("tool-call-delta", index, tool_calls={"function": {"arguments": text}})


def cite(index: int | None, text: str, start: int = 0) -> dict[str, Any]:
    citation = {"start": start, "end": start + len(text), "text": text, "sources": []}
    return event("citation-start", index, citations=citation)


def ended(what: str, index: int | None = 0) -> dict[str, Any]:
    return event(f"{what}-end", index)


START = {"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant"}}}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}
HELLO = [started(), delta("Hel"), delta("lo"), ended("content")]


def answer(*objects: Any) -> ChatResponse:
    """The answer of these events, which must be read to their end; the fast path must agree."""
    lines = [item if isinstance(item, str) else json.dumps(item) for item in objects]
    body = "".join(f"data: {line}\n\n" for line in lines).encode()
    outcomes, response, _ = read_all([body], fast=False)
    assert not [out for out in outcomes if isinstance(out[0], str) and out[0].endswith("Error")]
    for size in (len(body), 7):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        assert read_all(chunks, fast=True)[:2] == (outcomes, response)
    return response


def calls(*objects: Any) -> list[tuple[str, str, str]]:
    found = answer(START, *objects, END).tool_calls
    return [(each.id, each.name, each.arguments) for each in found]


def cited(*objects: Any) -> list[tuple[int, int, str]]:
    found = answer(START, *HELLO, *objects, END).citations
    return [(each.start, each.end, each.text) for each in found]


def test_pieces_of_several_calls_need_an_index() -> None:
    """They would all go to the call that was started last."""
    two = [{"function": {"arguments": "{1"}}, {"function": {"arguments": "{2"}}]
    for index, is_read in ((0, True), (None, False)):
        frame = Frame(data=json.dumps(event("tool-call-delta", index, tool_calls=two)).encode())
        if is_read:
            assert [each.index for each in decode_events(frame)] == [0, 1]  # type: ignore[union-attr]
        else:
            with pytest.raises(DecodeError, match="without an index"):
                decode_events(frame)


# --- what adds nothing ---------------------------------------------------------------------------

NOTHING = {
    "content is null": event("content-delta", content=None),
    "content is empty": event("content-delta", content={}),
    "content is an empty list": event("content-delta", content=[]),
    "content is a list of null": event("content-delta", content=[None]),
    "text is null": event("content-delta", content={"text": None}),
    "text and thinking are null": event("content-delta", content={"text": None, "thinking": None}),
    "a type and no text": event("content-delta", content={"type": "text"}),
    "no content": {
        "type": "content-delta",
        "index": 0,
        "delta": {"message": {"role": "assistant"}},
    },
    "message is null": {"type": "content-delta", "index": 0, "delta": {"message": None}},
    "delta is empty": {"type": "content-delta", "index": 0, "delta": {}},
    "delta is null": {"type": "content-delta", "index": 0, "delta": None},
    "no delta": {"type": "content-delta"},
    "a plan of null": event("tool-plan-delta", None, tool_plan=None),
    "no plan": {"type": "tool-plan-delta"},
    "the end of a call that never started": ended("tool-call", 3),
    "the end of a citation that never started": ended("citation", 3),
    "a delta of no call, without arguments": event("tool-call-delta", 5),
}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 5])
def test_what_adds_nothing_changes_nothing(name: str, place: int) -> None:
    """Wherever it comes: before the first block, inside it, and behind it."""
    usual = [START, *HELLO, END]
    assert answer(*usual[:place], NOTHING[name], *usual[place:]) == answer(*usual)


@pytest.mark.parametrize(
    "given", [event("tool-call-delta"), arguments(None), arguments(""), arguments(None, None)]
)
def test_arguments_of_null_add_nothing(given: dict[str, Any]) -> None:
    """Also for a call that is open."""
    expected = [("a", "f", '{"x":1}')]
    assert expected == calls(call(0, "a", "f"), given, arguments('{"x":1}'), given)
    assert calls(call(0, "a", "f", arguments=None), given) == [("a", "f", "")]


# --- one, or a list ------------------------------------------------------------------------------


def test_a_list_of_one_is_that_one() -> None:
    """Content, tool calls and citations; under a plural name a list is a natural mistake."""
    as_lists = [
        event("content-start", 0, content=[{"type": "text"}]),
        event("content-delta", 0, content=[{"type": "text", "text": "Hel"}]),
        event("content-delta", 0, content=[{"text": "lo"}, None]),
        ended("content"),
    ]
    assert answer(START, *as_lists, END) == answer(START, *HELLO, END)
    one = call(0, "a", "f")["delta"]["message"]["tool_calls"]
    assert calls(
        event("tool-call-start", 0, tool_calls=[one]),
        event("tool-call-delta", 0, tool_calls=[{"function": {"arguments": '{"x":1}'}}]),
        ended("tool-call"),
    ) == [("a", "f", '{"x":1}')]
    citation = cite(0, "Hel")["delta"]["message"]["citations"]
    assert cited(event("citation-start", 0, citations=[citation])) == [(0, 3, "Hel")]


def test_a_list_of_several_is_that_many_events() -> None:
    """In order; each is a call or a citation of its own."""
    one, two = (call(0, id_, "f")["delta"]["message"]["tool_calls"] for id_ in ("a", "b"))
    pieces = [{"function": {"arguments": text}} for text in ('{"x":1}', '{"y":2}')]
    expected = [("a", "f", '{"x":1}'), ("b", "f", '{"y":2}')]
    assert expected == calls(
        event("tool-call-start", 0, tool_calls=[one, two]),
        event("tool-call-delta", 0, tool_calls=pieces),
    )
    numbered = [piece | {"index": index} for index, piece in enumerate(pieces)]
    assert expected == calls(
        event("tool-call-start", None, tool_calls=[one, two]),
        event("tool-call-delta", None, tool_calls=numbered),
    )
    both = [cite(0, text)["delta"]["message"]["citations"] for text in ("Hel", "Hell")]
    for index in (0, None):
        assert cited(
            event("citation-start", index, citations=both),
            ended("citation", index),
            cite(1 if index == 0 else None, "Hello"),
        ) == [(0, 3, "Hel"), (0, 4, "Hell"), (0, 5, "Hello")]
    content = [{"text": "Hel"}, {"text": "lo"}]
    assert answer(START, started(), event("content-delta", content=content), END).text == "Hello"


def test_each_of_several_events_is_delivered() -> None:
    """The reader gives them one by one; the pure function refuses to hand out the first alone."""
    citations = [cite(0, text)["delta"]["message"]["citations"] for text in ("a", "b")]
    data = json.dumps(event("citation-start", 4, citations=citations)).encode()
    assert [
        CitationStart(Citation(0, 1, "a"), 4),
        CitationStart(Citation(0, 1, "b"), 0),
    ] == list(decode_events(Frame(data=data)))
    with pytest.raises(DecodeError, match="decode_events"):
        decode_event(Frame(data=data))
    reader, seen = EventReader(), []
    for block in reader.split(b"data: " + data + b"\n\n"):
        assert reader.read(block) is None
        seen += [reader.read(item) for item in reader.take_several()]
    assert [CitationStart(Citation(0, 1, "a"), 4), CitationStart(Citation(0, 1, "b"), 5)] == seen
    assert reader.take_several() == ()


# --- without an index, or with the same ----------------------------------------------------------


@pytest.mark.parametrize("index", [0, None])
def test_a_start_that_comes_again_begins_something_new(index: int | None) -> None:
    """Never a merge: 0 for each block, call and citation, or no index at all."""
    response = answer(
        START,
        started("thinking", index),
        delta("hm", index, "thinking"),
        ended("content", index),
        started("text", index),
        delta("Hel", index),
        delta("lo", index),
        ended("content", index),
        END,
    )
    assert (response.thinking, response.text) == ("hm", "Hello")
    assert calls(
        call(index, "a", "f"),
        arguments('{"x":', index),
        arguments("1}", index),
        ended("tool-call", index),
        call(index, "b", "g"),
        arguments('{"y":2}', index),
        ended("tool-call", index),
        call(index, "c", "h"),
    ) == [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}'), ("c", "h", "")]
    assert cited(
        cite(index, "Hel"), ended("citation", index), cite(index, "el", 1), ended("citation", index)
    ) == [(0, 3, "Hel"), (1, 3, "el")]


def test_events_carry_their_place_and_not_the_repeated_index() -> None:
    """Handlers that keep what they receive by index do not merge two calls."""
    reader = EventReader()
    seen = [
        reader.read(b"data: " + json.dumps(each).encode())
        for each in (
            *(call(0, "a", "f"), arguments("{}"), ended("tool-call")),
            *(call(0, "b", "g"), arguments("{}"), ended("tool-call")),
        )
    ]
    assert [getattr(each, "index", None) for each in seen] == [0, 0, 0, 1, 1, 1]
    second = seen[5]
    assert isinstance(second, ToolCallEnd)
    assert (
        second.tool_call.id,
        second.tool_call.name,
        second.tool_call.arguments,
    ) == ("b", "g", "{}")


def test_calls_without_ends_are_told_apart_by_their_ids() -> None:
    """Servers that send 0 for each call and no ends: a merge would garble both."""
    assert calls(call(0, "a", "f"), arguments("{}"), call(0, "b", "g"), arguments("[]")) == [
        ("a", "f", "{}"),
        ("b", "g", "[]"),
    ]


@pytest.mark.parametrize("places", [(0, 1), (1, 0), (3, 2)])
def test_two_calls_open_at_once_keep_their_index(places: tuple[int, int]) -> None:
    """What has an index that is free is kept by it, whatever the order."""
    one, two = places
    found = calls(
        call(one, "a", "f"), call(two, "b", "g"), arguments("2", two), arguments("1", one)
    )
    assert sorted([(one, ("a", "f", "1")), (two, ("b", "g", "2"))]) == sorted(
        zip(sorted(places), found, strict=True)
    )


def test_an_index_of_a_place_that_was_given_away_is_another_part() -> None:
    """Call 0 comes twice, so the second is at place 1; then call 1 comes, and is a third."""
    assert calls(
        *(call(0, "a", "f"), arguments("x"), ended("tool-call")),
        *(call(0, "b", "g"), arguments("y"), ended("tool-call")),
        *(call(1, "c", "h"), arguments("z", 1), ended("tool-call", 1)),
    ) == [("a", "f", "x"), ("b", "g", "y"), ("c", "h", "z")]


def test_deltas_without_an_index_follow_the_start() -> None:
    """Also where starts have one and deltas do not, and a lane was found for the block before."""
    response = answer(
        START,
        started("text", 0),
        *(delta(text, None) for text in ("a", "b", "c")),
        started("text", 1),
        *(delta(text, None) for text in ("x", "y")),
        END,
    )
    assert [part.text for part in response.message.content] == ["abc", "xy"]  # type: ignore[union-attr]


def test_a_start_that_repeats_an_open_one_is_an_error() -> None:
    """Nothing says which of the two the next piece belongs to."""
    for first, again in (
        (started("text"), started("thinking")),
        (call(0, "a", "f"), call(0, "a", "f")),
        (call(0, "a", "f"), call(0, None, "g")),
        (cite(0, "Hel"), cite(0, "el", 1)),
    ):
        reader = EventReader()
        reader.read(b"data: " + json.dumps(first).encode())
        with pytest.raises(DecodeError, match="starts twice"):
            reader.read(b"data: " + json.dumps(again).encode())


# --- what the specification calls optional -------------------------------------------------------


@pytest.mark.parametrize("given", [None, ""])
def test_a_call_without_an_id_gets_one(given: str | None) -> None:
    """``call_<n>``, which no other call of the answer or of earlier turns has."""
    response = answer(
        START,
        call(0, given, "f"),
        ended("tool-call"),
        call(1, "call_1", "g"),
        call(2, given, "h"),
        END,
    )
    assert [each.id for each in response.tool_calls] == ["call_0", "call_1", "call_2"]
    assert [each.has_made_up_id for each in response.tool_calls] == [True, False, True]
    reader = EventReader(used_call_ids=lambda: {"call_0", "call_1"})
    first = reader.read(b"data: " + json.dumps(call(0, given, "f")).encode())
    assert isinstance(first, ToolCallStart)
    assert (first.tool_call.id, first.tool_call.has_made_up_id) == ("call_2", True)


def test_a_made_up_id_is_not_sent_back_as_anything_else() -> None:
    """The mark is ours: the next request has the id alone."""
    response = answer(START, call(0, None, "f"), END)
    plain = response.to_message().to_dict()["tool_calls"]
    assert plain == [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": ""}}
    ]
    assert response.tool_calls == [ToolCall("call_0", ToolCallFunction("f", ""))]


def test_a_call_may_lack_everything_but_itself() -> None:
    """Function, name, arguments and type are optional."""
    bare = event("tool-call-start", 0, tool_calls={})
    assert calls(bare) == [("call_0", "", "")]
    assert calls(event("tool-call-start", 0, tool_calls={"id": "a"})) == [("a", "", "")]


def test_arguments_as_an_object_are_its_text() -> None:
    """In a start and in a delta; an empty object in a start is a place-holder."""
    assert calls(call(0, "a", "f", arguments={"x": [1, "é"]})) == [("a", "f", '{"x":[1,"é"]}')]
    assert calls(call(0, "a", "f"), arguments({"x": 1})) == [("a", "f", '{"x":1}')]
    assert calls(call(0, "a", "f", arguments={}), arguments('{"x":'), arguments("1}")) == [
        ("a", "f", '{"x":1}')
    ]


def test_a_citation_may_lack_everything_but_itself() -> None:
    """Start, end, text and sources; one source may stand for a list of one."""
    assert cited(event("citation-start", 0, citations={})) == [(0, 0, "")]
    assert cited(event("citation-start", 0, citations={"text": "Hel"})) == [(0, 0, "Hel")]
    one = {"sources": {"type": "document", "id": "d", "document": {"a": 1}}}
    (found,) = answer(START, *HELLO, event("citation-start", 0, citations=one), END).citations
    assert (
        found.sources[0].type,
        found.sources[0].id,
        found.sources[0].document,
    ) == ("document", "d", {"a": 1})


def test_a_block_may_start_without_a_kind() -> None:
    """Its first piece tells; a block that declares one keeps it."""
    for content in ([], {}, None, [None]):
        response = answer(
            START,
            event("content-start", 0, content=content),
            delta("hm", 0, "thinking"),
            ended("content"),
            END,
        )
        assert (response.thinking, response.text) == ("hm", "")
    reader = EventReader()
    reader.read(b"data: " + json.dumps(started("text")).encode())
    with pytest.raises(DecodeError, match="thinking for content block 0, which is text"):
        reader.read(b"data: " + json.dumps(delta("hm", 0, "thinking")).encode())


def test_content_as_text_is_text() -> None:
    """A bare string where the wire has an object."""
    assert answer(START, started(), event("content-delta", content="Hello"), END).text == "Hello"


@pytest.mark.parametrize(
    "finish", [{"delta": {}}, {"delta": {"finish_reason": None}}, {"delta": None}, {}]
)
def test_an_end_without_a_reason_is_complete(finish: dict[str, Any]) -> None:
    """The reason is then empty."""
    response = answer(START, *HELLO, {"type": "message-end", **finish})
    assert (response.text, response.finish_reason) == ("Hello", "")


@pytest.mark.parametrize(
    "expected, usage",
    [
        ((1, 2.5), {"tokens": {"input_tokens": "1", "output_tokens": "2.5"}}),
        ((1, 2), {"tokens": {"input_tokens": 1.0, "output_tokens": 2}}),
        ((None, 2), {"tokens": {"input_tokens": "many", "output_tokens": 2}}),
        ((None, None), {"tokens": {"input_tokens": -1, "output_tokens": 10**300}}),
        ((None, None), {"tokens": {"input_tokens": True, "output_tokens": "1e3"}}),
        ((None, None), {"tokens": {"input_tokens": "٣", "output_tokens": "9" * 400}}),
        ((None, None), {"tokens": [1, 2]}),
        ((None, None), {"tokens": "x", "billed_units": 7}),
        ((None, None), {}),
    ],
)
def test_counts_are_read_where_they_can_be(expected: Any, usage: dict[str, Any]) -> None:
    """Numbers as text are numbers; what is no count is none."""
    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}
    found = answer(START, *HELLO, end).usage
    assert expected == (found.tokens.input_tokens, found.tokens.output_tokens)


@pytest.mark.parametrize("usage", [None, "n/a", 7, [], [{"tokens": 1}], True])
def test_a_usage_that_cannot_be_read_is_empty(usage: Any) -> None:
    """The answer is complete; it does not fail for the sake of its bill."""
    end = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}
    response = answer(START, *HELLO, end)
    assert (Usage(), "Hello", "COMPLETE") == (response.usage, response.text, response.finish_reason)


@pytest.mark.parametrize(
    "expected, end",
    [
        (("boom", "500", 500), {"error": {"message": "boom", "code": 500}}),
        (("boom", "server_error", 500), {"error": {"message": "boom", "type": "server_error", "code": "500"}}),
        (("boom", None, None), {"finish_reason": "ERROR", "error": "boom"}),
        (("boom", "T", None), {"finish_reason": "ERROR", "error": "boom", "error_type": "T"}),
        (("boom", None, None), {"error": [{"message": "boom"}]}),
    ],
)  # fmt: skip
def test_an_error_of_the_end_is_read_as_text_or_as_an_object(expected: Any, end: Any) -> None:
    """Words, type and code, for the exception that the stream raises."""
    data = json.dumps({"type": "message-end", "delta": end}).encode()
    found: Any = decode_event(Frame(data=data))
    assert expected == (found.error, found.error_type, found.status)


# --- keep-alives ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expected, name, data",
    [
        (None, "message", ""),
        (None, "message", " \t\n "),
        (None, "ping", ""),
        (None, "content-delta", ""),
        ({}, "ping", "{}"),
        ({"ts": 1}, "heartbeat", '{"ts":1}'),
        ({"message": "alive"}, "keepalive", '{"message":"alive"}'),
        ({"detail": "queued"}, "status", '{"detail":"queued"}'),
        ({"error": None, "errors": []}, "ping", '{"error":null,"errors":[]}'),
        ({"type": None}, "ping", '{"type":null}'),
        ({"type": 7}, "ping", '{"type":7}'),
        ({"data": "ping"}, "ping", "ping"),
        ({"data": "2026-01-01T00:00:00Z"}, "keepalive", "2026-01-01T00:00:00Z"),
        ({"data": None}, "ping", "null"),
        ({"data": [1, "x"]}, "ping", '[1,"x"]'),
        ({"data": "{cut"}, "ping", "{cut"),
        ({"data": "a\nb"}, "ping", "a\nb"),
    ],
)
def test_a_keep_alive_is_no_event_of_the_answer(expected: Any, name: str, data: str) -> None:
    """Skipped without data, else an unknown event of the frame's name; never an error."""
    event = decode_event(Frame(name, data.encode()))
    assert (None if expected is None else UnknownEvent(name, expected)) == event


@pytest.mark.parametrize("name", ["message", "content-delta", "message-end"])
@pytest.mark.parametrize("data", ["ping", "null", "[]", "7", "{}", '{"type":7}', "{cut"])
def test_garbage_under_a_name_of_chat_v2_is_an_error(name: str, data: str) -> None:
    """Or under no name at all: it may have been text of the answer."""
    with pytest.raises(DecodeError) as caught:
        decode_event(Frame(name, data.encode()))
    assert caught.value.payload == data.encode()


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expected, name, data",
    [
        (("slow", "rate_limit_error", 429), "message", {"error": {"message": "slow", "type": "rate_limit_error", "code": 429}}),
        (("slow", "rate_limit_error", None), "error", {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}),
        (("boom", "InternalServerError", None), "message", {"error": {"code": "InternalServerError", "message": "boom"}}),
        (("loading", None, None), "message", {"error": "loading"}),
        (("boom", None, None), "message", {"errors": [{"message": "boom"}]}),
        (("timed out", None, None), "message", {"detail": "timed out"}),
        (("boom", "X", None), "message", {"message": "boom", "error_type": "X"}),
        (("down", "503", 503), "message", {"statusCode": 503, "message": "down"}),
        (("bad", "BadRequestError", 400), "message", {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}),
        (("over", "overloaded_error", None), "message", {"type": "overloaded_error", "message": "over"}),
        (("boom", None, None), "upstream", {"error": "boom"}),
        (("boom", None, None), "upstream", {"error": {"message": "boom"}}),
        (("boom", "503", 503), "message-start", {"error": {"message": "boom", "code": "503"}}),
        (("", None, None), "error", None),
    ],
)  # fmt: skip
def test_an_error_in_the_stream_keeps_its_words(expected: Any, name: str, data: Any) -> None:
    """Words, type (or code) and numeric code, in the shapes that gateways use."""
    with pytest.raises(GenerationError) as caught:
        decode_event(Frame(name, json.dumps(data).encode()))
    error = caught.value
    assert expected == (error.error, error.error_type, error.status)
    assert error.finish_reason == "ERROR"


@pytest.mark.parametrize(
    "looks_like, data",
    [
        ("a whole answer that was not streamed", {"id": "u", "message": {"role": "assistant", "content": [{"type": "text", "text": CANARY}]}, "finish_reason": "COMPLETE"}),
        ("an event of Chat v1", {"event_type": "text-generation", "text": CANARY}),
        ("an event of OCI's Chat API", {"index": 0, "message": {"role": "ASSISTANT", "content": [{"text": CANARY}]}}),
        ("an event of OCI's Chat API", {"message": {"content": [CANARY]}, "finishReason": "COMPLETE"}),
        ("a chunk of an OpenAI-compatible server", {"choices": [{"delta": {"content": CANARY}}]}),
        ("an answer of Chat v1", {"generation_id": "g", "text": CANARY}),
    ],
)  # fmt: skip
def test_another_protocol_is_named_and_not_quoted(looks_like: str, data: Any) -> None:
    """Who pointed base_url at the wrong thing learns what answered."""
    with pytest.raises(DecodeError) as caught:
        decode_event(Frame(data=json.dumps(data).encode()))
    assert looks_like in str(caught.value)
    assert CANARY not in str(caught.value)


# --- still errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        delta(7),  # type: ignore[arg-type]
        delta([CANARY]),  # type: ignore[arg-type]
        delta(True),  # type: ignore[arg-type]
        event("content-delta", content=[{"text": "a"}, 7]),
        event("content-delta", content=[["a"]]),
        event("tool-plan-delta", tool_plan={"text": CANARY}),
        call(0, 7, "f"),
        call(0, "a", ["f"]),  # type: ignore[arg-type]
        call(0, "a", "f", arguments=[1]),
        arguments(7),
        event("tool-call-start", 0, tool_calls=CANARY),
        event("tool-call-start", 0, tool_calls=[]),
        event("citation-start", 0, citations=[]),
        event("citation-start", 0, citations={"text": 7}),
        event("citation-start", 0, citations={"start": "0"}),
        {"type": "message-end", "delta": {"finish_reason": ["COMPLETE"]}},
        ended("content", -1),
        ended("content", 100_001),
        ended("content", 2**61 - 1),
    ],
)
def test_what_would_corrupt_the_answer_is_an_error(given: dict[str, Any]) -> None:
    """Text of a wrong type, a place that is not one: nothing is coerced, and nothing quoted."""
    with pytest.raises(DecodeError) as caught:
        decode_event(Frame(data=json.dumps(given).encode()))
    assert CANARY not in str(caught.value)


def test_events_that_are_read_are_events() -> None:
    """The table above decodes to the classes of Chat v2, not to unknown events."""
    kinds: tuple[type[Event], ...] = (ContentStart, ContentDelta, ToolCallStart, CitationStart)
    usual = (started(), delta("x"), call(0, "a", "f"), cite(0, "x"))
    assert list(kinds) == [
        type(decode_event(Frame(data=json.dumps(each).encode()))) for each in usual
    ]
    assert isinstance(decode_event(Frame(data=json.dumps(ended("citation")).encode())), CitationEnd)


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        '{"type":"new","x":[%s]}',
        '{"type":"message-start","delta":{"message":{"content":[%s]}}}',
        '{"type":"message-end","delta":{"usage":{"x":[%s]}}}',
        '{"type":"citation-start","delta":{"message":{"citations":{"sources":[%s]}}}}',
        '{"message":[%s]}',
        "[%s]",
    ],
)
@pytest.mark.parametrize("item", ["{}", "1", "[]", '"\\""', '{"a":1}'])
def test_an_event_of_too_many_values_is_an_error(template: str, item: str) -> None:
    """Each takes a hundred bytes of memory, and none is a token that a model reads."""
    data = (template % ",".join([item] * 100_001)).encode()
    with pytest.raises(DecodeError, match="more than 100000 JSON values"):
        decode_event(Frame(data=data))


def test_text_with_many_commas_is_not_many_values() -> None:
    """What stands inside of strings is not counted."""
    text = ",[{" * 200_000
    found = decode_event(Frame(data=json.dumps(delta(text)).encode()))
    assert ContentDelta(text) == found
    quoted = '\\",[{\\\\' * 100_000
    found = decode_event(Frame(data=json.dumps(delta(quoted)).encode()))
    assert ContentDelta(quoted) == found


def test_a_large_document_is_read() -> None:
    """Half a context of numbers in a citation's document."""
    document = {"rows": [[n, n + 1, n + 2] for n in range(24_000)]}
    citation = {
        "start": 0,
        "end": 1,
        "text": "x",
        "sources": [{"type": "tool", "tool_output": document}],
    }
    found = decode_event(
        Frame(data=json.dumps(event("citation-start", citations=citation)).encode())
    )
    assert isinstance(found, CitationStart)
    assert found.citation.sources[0].tool_output == document
