"""The quick ways of a request beside the long ones: the same copies, the same errors, the same bytes."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, UserDict
from types import MappingProxyType
from typing import Any

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat import (
    AssistantMessage,
    ChatRequest,
    Document,
    DocumentContent,
    ImageContent,
    ImageUrl,
    SystemMessage,
    TextContent,
    ToolCall,
    ToolCallFunction,
    ToolMessage,
    UserMessage,
)
from streamchat.protocol import plain, request
from streamchat.protocol.plain import MAX_COPIED_DEPTH, encode_json, to_plain
from streamchat.protocol.record import Record
from streamchat.protocol.request import plain_message, plain_messages

from .helpers import examples


class Color(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    DARK = "dark"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    """A text of the caller's own class."""


@attrs.define
class Place:
    name: str
    tags: list[str] = attrs.Factory(list[str])
    role: str | None = None
    extra: dict[str, Any] = attrs.Factory(dict[str, Any])
    size: Any = attrs.Factory(lambda self: self.name, takes_self=True)
    _hidden: int = 1


@attrs.define(eq=False, repr=False)
class Part(Record):
    """As a record of the wire: what equals its default is left out, and ``extra`` is merged."""

    name: Any
    tags: list[Any] = attrs.Factory(list[Any])
    role: str | None = None
    extra: Any = attrs.Factory(dict[str, Any])
    size: Any = attrs.Factory(lambda self: self.name, takes_self=True)
    _hidden: int = 1


class Model(pydantic.BaseModel):
    name: str
    note: str | None = None


class Refusing(pydantic.BaseModel):
    name: str

    @pydantic.model_serializer
    def refuse(self) -> Any:
        raise ValueError("no")


class Odd:
    """Nothing that JSON can say."""


TEXTS = st.one_of(
    st.text(max_size=5), st.sampled_from(["", "a", "é", "\ud800", "x\udfffy", "data", "🐧"])
)
SCALARS = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**61, max_value=2**65),
    st.floats(),
    TEXTS.map(Text),
    st.builds(lambda: 10**4301),  # too long to be shown
    st.sampled_from([Shade.DARK, Level.HIGH, Color.RED, b"bytes", 1j, Odd(), {1}, math.nan]),
)
KEYS = st.one_of(TEXTS, st.sampled_from([1, None, Shade.DARK, Text("key")]))


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=3)
    dicts = st.dictionaries(KEYS, inner, max_size=3)
    return st.one_of(
        lists,
        lists.map(tuple),
        dicts,
        dicts.map(OrderedDict),
        dicts.map(UserDict),
        dicts.map(MappingProxyType),
        st.builds(Place, inner, lists, st.none() | TEXTS, dicts),
        st.builds(Part, inner, lists, st.none() | TEXTS, dicts | inner),
        st.builds(Document, inner, st.none() | TEXTS),
        st.builds(TextContent, inner),
        st.builds(UserMessage, inner),
        st.builds(Model, name=st.text("ab"), note=st.none() | st.text("ab")),
        st.builds(Refusing, name=st.text("ab")),
    )


VALUES = st.recursive(SCALARS, _objects, max_leaves=12)


def outcome(function: Any, *args: Any, **options: Any) -> Any:
    """What it returns with its types, or which error with which words."""
    try:
        return _typed(function(*args, **options))
    except Exception as error:  # compared
        return type(error), str(error)


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return dict, [(type(key), key, _typed(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [_typed(item) for item in value]
    return type(value), value


@examples(1000)
@given(VALUES, st.integers(0, 4), st.booleans())
def test_the_copy_is_that_of_the_long_way(value: Any, levels: int, omit_none: bool) -> None:
    """Equal in values, types and order of keys, or the same error for the same place."""
    for limit in (levels, MAX_COPIED_DEPTH):
        options = {"levels": limit, "omit_none": omit_none}
        long = outcome(plain._plain_or_why_not, value, "here", **options)
        assert outcome(to_plain, value, "here", **options) == long


def test_the_quick_way_is_taken() -> None:
    """Else the property above would compare the long way with itself."""
    value = {"a": [1, 2.5, "é", None, True, {"b": ("c",)}], "p": Place("x", ["y"])}
    assert plain.copied(value, 9, False) == plain._plain_or_why_not(value, "$", levels=9)
    for wrong in ("\ud800", math.inf, 10**4301, {1: 2}, Odd(), {"a": {"\ud800": 1}}):
        assert issubclass(outcome(plain.copied, wrong, 9, False)[0], TypeError | ValueError)


def test_the_copy_is_the_callers_no_more() -> None:
    """Nothing of it is shared that can be changed."""
    value: dict[str, Any] = {"a": {"b": [1]}, "c": [[2]]}
    copy = to_plain(value)
    value["a"]["b"].append(3)
    value["c"][0].append(3)
    assert copy == {"a": {"b": [1]}, "c": [[2]]}


ROLES = st.sampled_from(["user", "system", "assistant", "tool", Text("user"), "bot", None, 1, [1]])
CALL = ToolCall("t_1", ToolCallFunction("t", "{}"))
CONTENTS = st.one_of(VALUES, st.just([TextContent("a"), ImageContent(ImageUrl("http://x"))]))
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "role": ROLES,
            "content": CONTENTS,
            "tool_call_id": TEXTS,
            "tool_calls": VALUES,
            "message": VALUES,
        },
    ),
    st.builds(UserMessage, CONTENTS),
    st.builds(SystemMessage, TEXTS),
    st.builds(ToolMessage, TEXTS, CONTENTS),
    st.builds(ToolMessage, TEXTS, st.just([DocumentContent(Document({"a": 1}))])),
    st.builds(AssistantMessage, tool_plan=TEXTS, tool_calls=st.lists(st.just(CALL), max_size=2)),
    VALUES,
)


@examples(1000)
@given(st.lists(MESSAGES, min_size=1, max_size=4))
def test_messages_are_those_of_the_long_way(messages: list[Any]) -> None:
    def one_by_one() -> Any:
        return tuple(plain_message(each, f"messages[{n}]") for n, each in enumerate(messages))

    assert outcome(plain_messages, messages) == outcome(one_by_one)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 1),
        "seed": st.integers(0, 2**64 - 1),
        "documents": st.lists(st.builds(Document, TEXTS) | TEXTS, max_size=2),
        "tools": st.lists(st.just(TOOL), max_size=2),
        "safety_mode": st.sampled_from(["STRICT", Shade.DARK, Text("OFF")]),
        "extra_body": st.dictionaries(st.text("xy", min_size=1), VALUES, max_size=2),
        "stop_sequences": st.lists(TEXTS, max_size=2),
    },
)


@examples(500)
@given(st.lists(MESSAGES, min_size=1, max_size=3), OPTIONS, TEXTS)
def test_the_bytes_are_those_of_a_request_that_is_checked_again(
    messages: list[Any], options: dict[str, Any], model: str
) -> None:
    try:
        asked = ChatRequest.build(messages, model, options)
    except (TypeError, ValueError):
        return
    assert outcome(asked.encode, is_untouched=True) == outcome(encode_json_of, asked)


def encode_json_of(asked: ChatRequest) -> bytes:
    return encode_json(asked.to_dict())


def test_a_request_that_was_changed_in_place_is_checked_again() -> None:
    """What JSON would bend is an error, and never null or base64 on the wire."""
    for wrong in (math.nan, b"bytes", Odd(), "\ud800", {1: 2}):
        asked = ChatRequest.build([{"role": "user", "content": "Hi"}], "m", {})
        asked.messages[0]["content"] = wrong
        with pytest.raises((TypeError, ValueError), match="messages"):
            asked.encode()


def test_a_usual_request_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of the words for what may be wrong are made."""
    made: list[object] = []
    long_way = plain._plain_or_why_not
    monkeypatch.setattr(
        plain,
        "_plain_or_why_not",
        lambda *args, **more: (made.append(args), long_way(*args, **more))[1],
    )
    monkeypatch.setattr(request, "plain_message", made.append)
    asked = ChatRequest.build(
        [{"role": "user", "content": "Hi"}, UserMessage("é"), AssistantMessage(tool_calls=[CALL])],
        "m",
        {"tools": [TOOL], "documents": [Document({"a": 1})], "temperature": 0.5},
    )
    assert b'"messages":[{"role":"user","content":"Hi"}' in asked.encode(is_untouched=True)
    assert made == []


def _copies(value: Any, *, omit_none: bool = False) -> list[Any]:
    """The copy, alone and beside what only the long way copies."""
    return [
        to_plain(value, omit_none=omit_none),
        to_plain([value, OrderedDict()], omit_none=omit_none)[0],
        plain._plain_or_why_not(value, "$", levels=MAX_COPIED_DEPTH, omit_none=omit_none),
    ]


class Aliased(pydantic.BaseModel):
    name_: str = pydantic.Field("x", alias="name")
    note: str | None = None


@attrs.define(eq=False, repr=False)
class WithExtra(Record):
    a: int = 1
    extra: Any = None


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"b": 2}, {"b": 2}),
        (MappingProxyType({"b": 2}), {"b": 2}),
        (WithExtra(5, {"c": 3}), {"extra": {"a": 5, "c": 3}}),
        (Aliased(), {"name": "x", "note": None}),
        (None, {}),
        ("abc", {"extra": "abc"}),
        ("", {"extra": ""}),
        ("\xe9", {"extra": "\xe9"}),
        (7, {"extra": 7}),
        ([1, "x"], {"extra": [1, "x"]}),
        ([("b", 2)], {"extra": [["b", 2]]}),
    ],
)
def test_extra_is_merged_if_it_is_a_dict_and_a_field_otherwise(
    extra: Any, expected: dict[str, Any]
) -> None:
    for value in (WithExtra(extra=extra), {"k": WithExtra(extra=extra)}):
        for copy in _copies(value):
            assert (copy if value.__class__ is WithExtra else copy["k"]) == expected


def test_extra_of_a_pydantic_class_leaves_out_none_as_elsewhere() -> None:
    assert _copies(WithExtra(extra=Aliased()), omit_none=True) == [{"name": "x"}] * 3


def test_extra_that_holds_its_own_object_is_too_deep() -> None:
    value = WithExtra()
    value.extra = value
    with pytest.raises(ValueError, match="nested too deeply, or contains itself"):
        to_plain(value)


class WithAny(pydantic.BaseModel):
    value: Any = None


def test_an_extra_that_cannot_write_itself_is_named_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"^tools\[0\]\.extra is of type WithAny"):
        to_plain([WithExtra(extra=WithAny(value=object()))], "tools")


def test_a_default_that_a_function_makes_is_asked_for_each_time() -> None:
    locale = "en"

    @attrs.define(eq=False, repr=False)
    class Localised(Record):
        locale: str = attrs.field(factory=lambda: locale)
        tags: list[str] = attrs.field(factory=lambda: [locale])

    assert _copies(Localised()) == [{}] * 3
    english, locale = Localised(), "de"
    assert _copies(english) == [{"locale": "en", "tags": ["en"]}] * 3
    assert _copies(Localised()) == [{}] * 3
