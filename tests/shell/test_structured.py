"""Parsed answers: what is asked, what comes of it, and what is known while it grows."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import attrs
import jiter
import msgspec
import pydantic
import pytest

from streamchat import (
    ConfigurationError,
    ContentDelta,
    Dispatcher,
    MessageEnd,
    StructureError,
    SystemMessage,
    TextContent,
    UserMessage,
)
from tests.fakes import Answer, FakeTransport
from tests.frames import START, body, end, pieces, plain, text_events, thinking
from tests.shell.test_runs import client_over, collect

CANARY = "canary-7431"
ASK = "Answer with a JSON object that fits the given schema, and with nothing else."


class Size(enum.Enum):
    SMALL = "S"
    LARGE = "L"


@attrs.define
class Item:
    """A thing."""

    name: str
    size: Size = Size.SMALL


@attrs.define
class Order:
    item: str
    count: int
    due: date | None = None
    items: list[Item] = attrs.Factory(list)


@dataclasses.dataclass
class Ticket:
    title: str
    at: datetime
    tags: list[str] = dataclasses.field(default_factory=list)
    kind: Literal["bug", "wish"] = "bug"


class Row(TypedDict):
    key: int


class Noted(Row, total=False):
    note: str


class Marked(Row):
    note: NotRequired[str]


def bodies(transport: FakeTransport) -> list[dict[str, Any]]:
    return [json.loads(sent) for _, sent in transport.requests]


# --- what is asked -------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"key": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["key"],
}


async def test_the_schema_goes_into_the_response_format() -> None:
    """Protocol.md 2.6, word for word; all other options as for any request."""
    client, transport = client_over(Answer(*pieces(plain('{"key": 1}'))))
    await client.parse("Hi", into=Noted, temperature=0.1, max_tokens=99, headers={"X-Mine": "1"})
    assert bodies(transport) == [
        {
            "model": "command-test",
            "messages": [{"role": "system", "content": ASK}, {"role": "user", "content": "Hi"}],
            "response_format": {"type": "json_object", "json_schema": SCHEMA},
            "max_tokens": 99,
            "temperature": 0.1,
            "stream": True,
        }
    ]
    assert transport.requests[0][0]["X-Mine"] == "1"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAjsonAA"}}

MESSAGES: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("str", "Hi", [system(ASK), user("Hi")]),
    ("str that says it", "As JSON, please", [user("As JSON, please")]),
    ("any case", "as Json", [user("as Json")]),
    ("system", [system("Be."), user("Hi")], [system(f"Be.\n{ASK}"), user("Hi")]),
    (
        "system of one part",
        [system({"type": "text", "text": "Be."}), user("Hi")],
        [system([{"type": "text", "text": "Be."}, {"type": "text", "text": ASK}]), user("Hi")],
    ),
    (
        "system without content",
        [system(None), user("Hi")],
        [system([{"type": "text", "text": ASK}]), user("Hi")],
    ),
    (
        "system in parts",
        [system([text("Be.")]), user("Hi")],
        [system([text("Be."), text(ASK)]), user("Hi")],
    ),
    ("system that says it", [system("JSON!"), user("Hi")], [system("JSON!"), user("Hi")]),
    ("part that says it", [user([text("json")])], [user([text("json")])]),
    ("an image says nothing", [user([text("a"), IMAGE])], [system(ASK), user([text("a"), IMAGE])]),
    (
        "classes",
        [SystemMessage([TextContent("Be.")]), UserMessage("Hi")],
        [system([text("Be."), text(ASK)]), user("Hi")],
    ),
    (
        "system later",
        [user("Hi"), system("Be.")],
        [system(ASK), user("Hi"), system("Be.")],
    ),
    (
        "no content",
        [user("Hi"), {"role": "assistant"}, user("Hi")],
        [system(ASK), user("Hi"), {"role": "assistant"}, user("Hi")],
    ),
]


@pytest.mark.parametrize(("given", "sent"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES])
async def test_the_prompt_asks_for_json(given: Any, sent: list[dict[str, Any]]) -> None:
    """A system line where no text says JSON; the caller's own messages are left alone."""
    before = copy.deepcopy(given)
    client, transport = client_over(Answer(*pieces(plain('{"key": 1}'))))
    await client.parse(given, into=Row)
    assert bodies(transport)[0]["messages"] == sent
    assert given == before


@pytest.mark.parametrize("into", [int, str, list, dict, list[Order], dict[str, int], None, "Order"])
def test_only_classes_with_fields_can_be_asked_for(into: Any) -> None:
    """A TypeError from the call itself."""
    client, _ = client_over()
    with pytest.raises(TypeError, match="into="):
        client.parse("Hi", into=into)


@attrs.define
class Unsayable:
    anything: object


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"into": Unsayable}, TypeError, "cannot describe"),
    ({"response_format": {"type": "text"}}, TypeError, "response_format"),
    ({"documents": ["a"]}, ValueError, "cannot go with tools or documents"),
    ({"temprature": 1}, TypeError, "did you mean 'temperature'"),
    ({"handlers": Dispatcher()}, TypeError, "handlers must be a list"),
    ({"messages": ""}, ValueError, "nothing to ask"),
    ({"messages": []}, ValueError, "nothing to ask"),
    ({"messages": [{"role": "nobody"}]}, ValueError, "role"),
    ({"messages": 3}, TypeError, "messages"),
]


@pytest.mark.parametrize(("options", "kind", "words"), BAD, ids=[row[2] for row in BAD])
def test_what_cannot_be_asked_is_refused(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """Before anything is sent, by the call itself."""
    client, transport = client_over()
    with pytest.raises(kind, match=words):
        client.parse(**{"messages": "Hi", "into": Row, **options})
    assert transport.requests == []


@pytest.mark.parametrize("given", [{"tools": [{"type": "function", "function": {"name": "x"}}]}])
def test_tools_cannot_go_with_it(given: dict[str, Any]) -> None:
    """Refused too; the typed signature does not have them."""
    client, _ = client_over()
    with pytest.raises((TypeError, ValueError), match="tools"):
        client.parse("Hi", into=Row, **given)


# --- the value -----------------------------------------------------------------------------------


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.Factory(list)


@attrs.define
class Many:
    maybe: int | None
    either: int | str
    place: Item | None
    table: dict[str, Item]
    numbers: dict[int, float]
    pair: tuple[int, str]
    unique: set[str]
    anything: Any
    level: Annotated[int, "how much"] = 3


class Spot(NamedTuple):
    x: int
    y: int = 0


class Struct(msgspec.Struct):
    a: int
    spots: list[Spot] = []


@pydantic.dataclasses.dataclass
class Made:
    at: date


@attrs.define
class Twice:
    name: str = attrs.field(converter=str.upper)
    again: str = attrs.Factory(lambda self: self.name * 2, takes_self=True)


@attrs.define
class Either:
    either: Item | list[Item]


VALUES: list[tuple[Any, str, Any]] = [
    (Spot, '{"x": 1}', Spot(1)),
    (Struct, '{"a": 1, "spots": [{"x": 2}]}', Struct(1, [Spot(2)])),
    (Made, '{"at": "2024-01-02"}', Made(date(2024, 1, 2))),
    (Twice, '{"name": "a"}', Twice("a", "AA")),
    (Either, '{"either": {"name": "n"}}', Either(Item("n"))),
    (Either, '{"either": [{"name": "n"}]}', Either([Item("n")])),
    (Order, '{"item": "pen", "count": 2}', Order("pen", 2)),
    (
        Order,
        '{"item":"pen","count":2,"due":"2024-01-02","items":[{"name":"cap","size":"L"}]}',
        Order("pen", 2, date(2024, 1, 2), [Item("cap", Size.LARGE)]),
    ),
    (Order, ' {"item": "\\u00e9\\ud83d\\ude00", "count": 2, "other": 1}\n', Order("é😀", 2)),
    (
        Ticket,
        '{"title": "t", "at": "2024-01-02T03:04:05Z", "tags": ["a"], "kind": "wish"}',
        Ticket("t", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), ["a"], "wish"),
    ),
    (Noted, '{"key": 1, "note": "n"}', {"key": 1, "note": "n"}),
    (Noted, '{"key": 1}', {"key": 1}),
    (Row, '{"key": 1}', {"key": 1}),
    (Tree, '{"value": 1, "children": [{"value": 2}]}', Tree(1, [Tree(2)])),
    (
        Many,
        (
            '{"maybe": null, "either": "x", "place": {"name": "n"}, "table": {"a": {"name": "m"}},'
            ' "numbers": {"1": 2}, "pair": [1, "b"], "unique": ["u", "u"], "anything": [{"z": 0}]}'
        ),
        Many(None, "x", Item("n"), {"a": Item("m")}, {1: 2.0}, (1, "b"), {"u"}, [{"z": 0}]),
    ),
]


@pytest.mark.parametrize(("into", "said", "value"), VALUES, ids=lambda each: str(each)[:30])
async def test_the_answer_becomes_a_value(into: Any, said: str, value: Any) -> None:
    """attrs, dataclass or TypedDict, nested, with dates and enums."""
    client, _ = client_over(Answer(*pieces(plain(*said))))
    run = client.parse("Hi", into=into)
    assert run.response is None
    result = await run
    assert result == value
    assert type(result) is type(value)
    assert run.response is not None
    assert run.response.text == said


@pytest.mark.parametrize(
    ("kind", "said", "value"),
    [
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678123456781234567812345678")),
        (Decimal, "1.50", Decimal("1.50")),
        (time, "03:04:05", time(3, 4, 5)),
        (timedelta, "P1D", timedelta(1)),
        (bytes, "YWI=", b"ab"),
    ],
)
async def test_every_type_of_the_schema_can_be_read(kind: Any, said: str, value: Any) -> None:
    """What ``response_format`` asks for is read again."""
    into = attrs.make_class("Into", {"x": attrs.field(type=kind)})
    client, _ = client_over(Answer(*pieces(plain(json.dumps({"x": said})))))
    assert (await client.parse("Hi", into=into)).x == value


async def test_a_key_that_is_not_required_may_be_absent() -> None:
    """``NotRequired`` written as text means the same."""
    client, _ = client_over(Answer(*pieces(plain('{"key": 1}'))))
    assert await client.parse("Hi", into=Marked) == {"key": 1}


@pytest.mark.parametrize("flow", ["thinking", "two blocks"])
async def test_thinking_does_not_disturb(flow: str) -> None:
    """The text alone is read, all blocks of it."""
    said = '{"key": 1}'
    events = {
        "thinking": [*thinking()[:5], *text_events(*said, index=1), end()],
        "two blocks": [
            START,
            *text_events('{"key"', index=0),
            *text_events(": 1}", index=1),
            end(),
        ],
    }[flow]
    client, _ = client_over(Answer(*pieces(events)))
    assert await client.parse("Hi", into=Row) == {"key": 1}


# --- what does not fit ---------------------------------------------------------------------------


@attrs.define
class Picky:
    code: str = attrs.field()

    @code.validator
    def _three_letters(self, attribute: Any, value: str) -> None:
        raise ValueError("code must have three letters")


@attrs.define
class Angry:
    code: str

    def __attrs_post_init__(self) -> None:
        raise LookupError(self.code)


MISFITS: list[tuple[Any, str, str, str]] = [
    (Order, "", "not JSON", "$"),
    (Order, f"Sure! {CANARY}", "not JSON", "$"),
    (Order, f'```json\n{{"item": "{CANARY}"}}\n```', "not JSON", "$"),
    (Order, f'{{"item": "{CANARY}', "not JSON", "$"),
    (Order, f'{{"item": "{CANARY}", "count": NaN}}', "not usable JSON", "$"),
    (Order, "3", "expected an object, got a number", "$"),
    (Order, f'["{CANARY}"]', "expected an object, got an array", "$"),
    (Order, "null", "expected an object, got null", "$"),
    (Order, f'{{"item": "{CANARY}"}}', "misses 'count'", "$"),
    (
        Order,
        f'{{"item": "a", "count": "{CANARY}"}}',
        "expected an integer, got a string",
        "$.count",
    ),
    (
        Order,
        '{"item": "a", "count": 1.5}',
        "expected an integer, got a number with a fraction",
        "$.count",
    ),
    (Order, '{"item": "a", "count": true}', "expected an integer, got a boolean", "$.count"),
    (Order, '{"item": null, "count": 1}', "expected a string, got null", "$.item"),
    (
        Order,
        f'{{"item": "a", "count": 1, "due": "{CANARY}"}}',
        "expected a date (RFC 3339), got another string",
        "$.due",
    ),
    (
        Order,
        f'{{"item": "a", "count": 1, "items": [{{"name": "n"}}, {{"name": "n", "size": "{CANARY}"}}]}}',
        "expected one of 'S', 'L'",
        "$.items[1].size",
    ),
    (
        Ticket,
        f'{{"title": "t", "at": "2024-01-02T03:04:05Z", "kind": "{CANARY}"}}',
        "expected one of 'bug', 'wish'",
        "$.kind",
    ),
    (Row, f'{{"key": "{CANARY}"}}', "expected an integer, got a string", "$.key"),
    (Picky, f'{{"code": "{CANARY}"}}', "code must have three letters", "$.code"),
    (Angry, f'{{"code": "{CANARY}"}}', "a value that its class refuses (LookupError)", "$"),
]


@pytest.mark.parametrize(
    ("into", "said", "reason", "path"), MISFITS, ids=[f"{m[2]} {m[3]}"[:50] for m in MISFITS]
)
async def test_an_answer_that_does_not_fit_is_an_error(
    into: Any, said: str, reason: str, path: str
) -> None:
    """Reason and place; the text in .text, the answer in .partial, nothing of it in the message."""
    client, transport = client_over(Answer(*pieces(plain(*said or [""]))))
    run = client.parse("Hi", into=into)
    seen: list[Any] = []
    with pytest.raises(StructureError) as caught:
        async for event in run:
            seen.append(event)
    error = caught.value
    assert isinstance(error, ValueError)
    assert isinstance(seen[-1], MessageEnd)
    assert reason in error.reason
    assert (error.path, error.text) == (path, said)
    assert error.partial is not None
    assert error.partial.text == said
    assert error.partial is run.response
    assert f"the answer does not fit {into.__name__}: " in str(error)
    assert CANARY not in f"{error} {error!r}"
    assert error.__cause__ is None is error.__context__
    assert pickle.loads(pickle.dumps(error)).text == said
    assert len(transport.requests) == 1
    with pytest.raises(StructureError) as again:
        await run
    assert (str(again.value), again.value.text) == (str(error), said)


async def test_a_cut_answer_says_what_to_raise() -> None:
    """Finish reason MAX_TOKENS and no JSON: the hint; fitting JSON is taken all the same."""
    cut = [START, *text_events('{"key": '), end("MAX_TOKENS")]
    client, _ = client_over(Answer(*pieces(cut)))
    with pytest.raises(StructureError, match="cut off by the limit of tokens, raise max_tokens"):
        await client.parse("Hi", into=Row)
    whole = [START, *text_events('{"key": 1}'), end("MAX_TOKENS")]
    client, _ = client_over(Answer(*pieces(whole)))
    assert await client.parse("Hi", into=Row) == {"key": 1}


# --- one more try --------------------------------------------------------------------------------


async def test_a_repair_round_tells_the_model_what_was_wrong() -> None:
    """The first answer and a complaint with reason and place are added; all else is the same."""
    wrong, right = '{"key": "one"}', '{"key": 1}'
    client, transport = client_over(Answer(*pieces(plain(wrong))), Answer(*pieces(plain(right))))
    heard: list[str] = []
    run = client.parse("Hi", into=Row, repair=True, seed=7)
    run.on_content_delta(lambda event: heard.append(event.text))
    run.on_error()(lambda error: heard.append("error"))
    seen = await collect(run)
    assert seen == [*plain(wrong), *plain(right)]
    assert heard == [wrong, right]
    assert await run == {"key": 1}
    assert run.response is not None
    assert run.response.text == right
    first, second = bodies(transport)
    assert second.pop("messages") == [
        *first.pop("messages"),
        {"role": "assistant", "content": [{"type": "text", "text": wrong}]},
        {
            "role": "user",
            "content": (
                "That does not fit the schema: expected an integer, got a string (at $.key). Answer with the "
                "whole JSON object again, corrected, and with nothing else."
            ),
        },
    ]
    assert first == second


class Line(pydantic.BaseModel):
    item: str
    quantity: int = pydantic.Field(alias="qty")

    @pydantic.field_validator("quantity")
    @classmethod
    def _by_the_dozen(cls, value: int) -> int:
        if value % 6:
            raise ValueError("qty must come in dozens or half dozens")
        return value


@attrs.define
class Lines:
    lines: list[Line]
    total: int = attrs.field()

    @total.validator
    def _adds_up(self, attribute: Any, value: int) -> None:
        if value != sum(line.quantity for line in self.lines):
            raise ValueError("total must be the sum of all qty")


REPAIRS: list[tuple[str, str, str]] = [
    ('{"lines": [{"item": "egg", "qty": 7}], "total": 7}', "qty must come in dozens or half dozens",
     "$.lines[0].qty"),
    ('{"lines": [{"item": "egg", "qty": 6}], "total": 7}', "total must be the sum of all qty",
     "$.total"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "words", "path"), REPAIRS)
async def test_a_repair_round_sees_the_words_of_a_validator(
    wrong: str, words: str, path: str
) -> None:
    """Of attrs and pydantic, with the field's path: in the complaint, and in StructureError."""
    right = '{"lines": [{"item": "egg", "qty": 12}], "total": 12}'
    client, transport = client_over(Answer(*pieces(plain(wrong))), Answer(*pieces(plain(right))))
    value = await client.parse("Hi", into=Lines, repair=True)
    assert value == Lines([Line(item="egg", qty=12)], 12)
    assert f"schema: {words} (at {path})." in bodies(transport)[1]["messages"][-1]["content"]
    client, _ = client_over(Answer(*pieces(plain(wrong))))
    with pytest.raises(StructureError) as caught:
        await client.parse("Hi", into=Lines)
    assert (caught.value.reason, caught.value.path) == (words, path)
    assert caught.value.__cause__ is None is caught.value.__context__


async def test_a_second_failure_is_the_end() -> None:
    """Two requests and no more; the error is that of the second answer."""
    client, transport = client_over(
        Answer(*pieces(plain("no"))), Answer(*pieces(plain("{}"))), Answer(*pieces(plain("{}")))
    )
    run = client.parse("Hi", into=Row, repair=True)
    with pytest.raises(StructureError) as caught:
        await run
    assert (caught.value.text, len(transport.requests)) == ("{}", 2)


async def test_a_fitting_answer_needs_no_repair() -> None:
    """One request."""
    client, transport = client_over(Answer(*pieces(plain('{"key": 1}'))))
    assert await client.parse("Hi", into=Row, repair=True) == {"key": 1}
    assert len(transport.requests) == 1


async def test_middleware_stands_around_each_request_anew() -> None:
    """What it adds is added once to each of both requests."""
    client, transport = client_over(
        Answer(*pieces(plain("no"))), Answer(*pieces(plain('{"key": 1}')))
    )
    extra = user("Be brief.")

    @client.middleware
    def brief(request: Any, send: Any) -> Any:
        return send(attrs.evolve(request, messages=[*request.messages, extra]))

    await client.parse("Hi", into=Row, repair=True)
    assert [request["messages"].count(extra) for request in bodies(transport)] == [1, 1]


# --- while it grows ------------------------------------------------------------------------------

TEXTS = {
    "flat": '{"item": "a pen", "count": 1200, "cost": -1.5e3, "paid": true, "by": null, "no": false}',
    "nested": '{"a": [1, [2.5, -3], {"b": {"c": ["x", {}]}}], "d": {"e": []}, "f": [true, null, 40]}',
    "text": '{"a": "quote \\" slash \\\\ end\\\\", "b": "\\n\\u00e9\\ud83d\\ude00é😀", "c: 12": ": 12, [3"}',
    "spaced": ' \n{ "a" : [ 1 , 22 ] , "b" : { "c" : "d" } } \n',
    "keys": '{"": 1, "e": 2, "1": 3, "a\\"b": 4}',
    "large": json.dumps({"rows": [{"id": n, "name": f"row {n}"} for n in range(150)]}),
}


def grew(before: Any, after: Any) -> bool:
    """Whether the later value says all that the earlier said."""
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            key in after and grew(item, after[key]) for key, item in before.items()
        )
    if isinstance(before, list):
        return (
            isinstance(after, list) and len(after) >= len(before) and all(map(grew, before, after))
        )
    if isinstance(before, str):
        return isinstance(after, str) and after.startswith(before)
    return before is None or (type(before) is type(after) and before == after)


@pytest.mark.parametrize("name", TEXTS)
async def test_partial_grows_at_every_cut(name: str) -> None:
    """Read at each character: it never takes anything back, and ends as the whole value."""
    said = TEXTS[name]
    client, _ = client_over(Answer(body(plain(*said))))
    run = client.parse("Hi", into=Row)
    snapshots: list[Any] = []
    assert run.partial is None
    with pytest.raises(StructureError):
        async for event in run:
            if isinstance(event, ContentDelta):
                snapshots.append(run.partial)
    assert run.partial == json.loads(said)
    assert len(snapshots) == len(said)
    last: Any = None
    for position, snapshot in enumerate(snapshots):
        if snapshot is not last:
            assert grew(last, snapshot), f"at {position}: {last} became {snapshot}"
        last = snapshot
    assert grew(last, json.loads(said))


@pytest.mark.parametrize("listen", ["run", "call", "iterator"])
async def test_partial_is_up_to_date_for_handlers(listen: str) -> None:
    """Whoever hears a piece of text finds it in ``partial``."""
    client, _ = client_over(Answer(body(plain('{"item": "', *"abcdef", '", "count": 1}'))))
    dispatcher, found = Dispatcher(), []

    def look(event: ContentDelta) -> None:
        found.append(run.partial.get("item"))

    run = client.parse("Hi", into=Order, handlers=[dispatcher])
    if listen == "run":
        run.on_content_delta(look)
    elif listen == "call":
        dispatcher.on_content_delta(look)
    async for event in run:
        if listen == "iterator" and isinstance(event, ContentDelta):
            look(event)
    assert found == ["", "a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdef"]


async def test_unfinished_numbers_are_not_there_yet() -> None:
    """12 may be the beginning of 1200, and a price that changes is worse than none."""
    client, _ = client_over(
        Answer(body(plain('{"item": "pen 1', '2", "count": 1', "2", "00", "}")))
    )
    run = client.parse("Hi", into=Order)
    seen = [dict(run.partial) async for event in run if isinstance(event, ContentDelta)]
    assert seen == [{"item": "pen 1"}, *[{"item": "pen 12"}] * 3, {"item": "pen 12", "count": 1200}]


async def test_partial_begins_anew_with_a_repair() -> None:
    """The second answer's JSON has nothing of the first's."""
    client, _ = client_over(
        Answer(body(plain('{"note": "old"', "}"))), Answer(body(plain('{"key": 1', "}")))
    )
    run = client.parse("Hi", into=Row, repair=True)
    seen = [copy.copy(run.partial) async for event in run if isinstance(event, ContentDelta)]
    assert seen == [{"note": "old"}, {"note": "old"}, {}, {"key": 1}]


@pytest.mark.parametrize("said", ["Sure!", "```json\n{}\n```", '{"a" 1}', "]"])
async def test_partial_of_what_is_no_json_is_nothing(said: str) -> None:
    """No error before the end: the model may be saying something else."""
    client, _ = client_over(Answer(body(plain(*said))))
    run = client.parse("Hi", into=Row)
    with pytest.raises(StructureError):
        async for _ in run:
            assert run.partial in (None, {})


class Counting(SimpleNamespace):
    """jiter, with a count of what it was given."""

    characters = 0
    calls = 0

    def from_json(self, data: bytes, /, **options: Any) -> Any:
        self.characters += len(data)
        self.calls += 1
        return jiter.from_json(data, **options)


LONG: dict[str, Callable[[], str]] = {
    "one long text": lambda: json.dumps({"item": "word " * 200_000, "count": 1}),
    "many rows": lambda: json.dumps({"rows": [{"id": n, "t": "x" * 50} for n in range(14_500)]}),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", LONG)
async def test_reading_partial_at_each_delta_costs_a_constant_factor(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 MB in deltas of eight characters, read at each: 20 times the text is parsed at most."""
    said = LONG[name]()
    assert len(said) > 1_000_000
    counting = Counting()
    monkeypatch.setitem(sys.modules, "jiter", counting)
    deltas = [said[start : start + 8] for start in range(0, len(said), 8)]
    client, _ = client_over(Answer(body(plain(*deltas))))
    run = client.parse("Hi", into=Row)
    looks = received = 0
    with pytest.raises(StructureError):
        async for event in run:
            if isinstance(event, ContentDelta):
                looks += run.partial is not None
                received += len(event.text)
                known = len((run.partial or {}).get("item", ""))
                # A look is a sixteenth behind at most; the text around the field is 12 characters.
                assert name != "one long text" or known >= received / 17 * 16 - 32
    assert run.partial == json.loads(said)
    assert looks >= len(deltas) - 3
    assert counting.characters <= 20 * len(said), counting.characters / len(said)
    assert counting.calls < 3000


async def test_nothing_is_parsed_that_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at ``partial``, and behind the same text, jiter is not called."""
    counting = Counting()
    monkeypatch.setitem(sys.modules, "jiter", counting)
    client, _ = client_over(Answer(body(plain(*'{"key": 1}'))))
    run = client.parse("Hi", into=Row)
    await run
    assert counting.calls == 0
    assert run.partial == run.partial == {"key": 1}
    assert counting.calls == 1


async def test_without_jiter_only_partial_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; the value comes all the same."""
    monkeypatch.setitem(sys.modules, "jiter", None)
    client, _ = client_over(Answer(body(plain('{"key": ', "1}"))))
    run = client.parse("Hi", into=Row)
    async for event in run:
        if isinstance(event, ContentDelta):
            with pytest.raises(ConfigurationError, match=r"pip install 'streamchat\[partial\]'"):
                _ = run.partial
    assert await run == {"key": 1}


async def test_handlers_of_client_call_and_run_hear_the_events() -> None:
    """In this order, with the caller's data."""
    client, _ = client_over(Answer(body(plain('{"key": 1}'))))
    dispatcher, heard = Dispatcher(), []
    client.on_content_delta(lambda event, ctx: heard.append(("client", event.text, ctx.data)))
    dispatcher.on_content_delta(lambda event, ctx: heard.append(("call", event.text, ctx.data)))
    run = client.parse("Hi", into=Row, handlers=[dispatcher], data=7)
    run.on_content_delta(lambda event, ctx: heard.append(("run", event.text, ctx.data)))
    await run
    assert heard == [(who, '{"key": 1}', 7) for who in ("client", "call", "run")]
