"""Objects to plain JSON data and back: nothing coerced, nothing quoted, nothing foreign chained."""

from __future__ import annotations

import enum
import json
import math
import re
import sys
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol.messages import (
    Citation,
    Document,
    DocumentContent,
    TextContent,
    ToolCall,
    ToolCallFunction,
    ToolMessage,
    Usage,
    UserMessage,
)
from streamchat.protocol.plain import (
    MAX_COPIED_DEPTH,
    MAX_DEPTH,
    TOO_DEEP,
    as_dict,
    decode_json,
    encode_json,
    is_list,
    is_mapping,
    is_nested_deeper,
    nested_too_deeply,
    repair_surrogates,
    to_plain,
)
from streamchat.protocol.request import ChatRequest

from .helpers import examples
from .strategies import json_values

CANARY = "canary-7431"


class Colour(str, enum.Enum):  # noqa: UP042 - the old kind, whose str() is its name
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 7


class Ratio(float):
    """A float of somebody else's, as numpy's are."""


@attrs.define
class Holder:
    inner: Any
    _private: int = 3


PLAIN: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (7, 7),
    (0.5, 0.5),
    ("é", "é"),
    ([1, [2]], (1, [2])),
    ({"a": [1]}, {"a": (1,)}),
    ({"a": 1}, MappingProxyType({"a": 1})),
    ({"b": 1, "a": 2}, OrderedDict(b=1, a=2)),
    ("red", Colour.RED),
    ({"red": "red"}, {Colour.RED: Colour.RED}),
    (7, Level.HIGH),
    (0.5, Ratio(0.5)),
    ({"text": "x", "type": "text"}, TextContent("x")),
    ({"inner": {"data": {"k": 1}}}, Holder(Document({"k": 1}))),
    ({"content": [{"text": "x", "type": "text"}], "role": "user"}, UserMessage([TextContent("x")])),
    ({}, Usage()),
    ({"x": None}, Usage(extra={"x": None})),
]


@pytest.mark.parametrize(("expected", "value"), PLAIN)
def test_plain_data_is_what_json_can_say(expected: Any, value: Any) -> None:
    """Tuples, mappings, attrs objects and enum members become dicts, lists and their values."""
    plain = to_plain(value)
    assert expected == plain
    assert type(expected) is type(plain)
    assert list(expected) == list(plain) if isinstance(expected, dict) else True
    assert expected == json.loads(encode_json(value))


REFUSED: list[tuple[type[Exception], str, Any]] = [
    (TypeError, "$ is of type bytes", b"x"),
    (TypeError, "$ is of type set", {1}),
    (TypeError, "$ is of type object", object()),
    (TypeError, "$ is of type type", TextContent),
    (TypeError, "$.a[1] is of type bytes", {"a": [1, b"x"]}),
    (TypeError, "$ has a key that is not a str: int", {1: "x"}),
    (TypeError, "$.a has a key that is not a str: NoneType", {"a": {None: 1}}),
    (TypeError, "$.content[0] is of type bytes", UserMessage([b"x"])),  # type: ignore[list-item]
    (ValueError, "$ is nan", math.nan),
    (ValueError, "$[0] is inf", [math.inf]),
    (ValueError, "$.a[0] is a number of more than 4,300 digits", {"a": [10**4300]}),
    (ValueError, "$[0] is -inf", [Ratio("-inf")]),
    (ValueError, "$.a holds a lone surrogate", {"a": "\ud83d" + CANARY}),
    (ValueError, "a key of $ holds a lone surrogate", {"\ude00" + CANARY: 1}),
]


@pytest.mark.parametrize(("kind", "words", "value"), REFUSED)
def test_what_json_cannot_say_is_refused(kind: type[Exception], words: str, value: Any) -> None:
    """The error names the place and the type, quotes nothing, and chains nothing."""
    for refuse in (to_plain, encode_json):
        with pytest.raises(kind) as caught:
            refuse(value)
        assert words in str(caught.value)
        assert CANARY not in str(caught.value)
        assert caught.value.__context__ is None is caught.value.__cause__


def test_the_path_may_be_given() -> None:
    """An argument is called by its own name."""
    with pytest.raises(TypeError, match=r"^documents\[0\]\.data is of type bytes"):
        to_plain([{"data": b""}], "documents")


def test_an_object_that_contains_itself_is_refused() -> None:
    """A loop ends in an error that can be read, not in a crash."""
    loop: list[Any] = []
    loop.append(loop)
    table: dict[str, Any] = {}
    table["again"] = table
    holder = Holder(None)
    holder.inner = [holder]
    for value in (loop, table, holder):
        with pytest.raises(ValueError, match="nested too deeply, or contains itself") as caught:
            to_plain(value)
        assert len(str(caught.value)) < 200


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_the_depth_is_limited_exactly() -> None:
    """So many levels, and not one more."""
    assert nested(MAX_COPIED_DEPTH) == to_plain(nested(MAX_COPIED_DEPTH))
    with pytest.raises(ValueError, match="nested too deeply"):
        to_plain(nested(MAX_COPIED_DEPTH + 1))
    assert nested(3) == to_plain(nested(3), levels=3)
    with pytest.raises(ValueError, match="nested too deeply"):
        to_plain(nested(4), levels=3)


# --- nesting of JSON -----------------------------------------------------------------------------

QUIET = r'"]]}}\\\"[[{{[[\u005b"'
"""A string full of brackets, all of which are text."""

TEMPLATES: dict[str, tuple[str, str, str]] = {
    # name: (what opens a level, what is innermost, what closes a level)
    "arrays": ("[", "1", "]"),
    "objects": ('{"a":', "null", "}"),
    "spaced": ("\n[ ", "1.5", " ]\t"),
    "both": ('[{"a":', '""', "}]"),
    "strings before": (f"[{QUIET},", QUIET, "]"),
    "strings behind": ('{"a":', QUIET, f",{QUIET}:{QUIET}}}"),
    "keys": (f"{{{QUIET}:", "[]", "}"),
    "siblings": ("[[],[[]],{},", "0", ",{}]"),
    "lone surrogates": (r'["\ud83d",', r'"\ude00"', "]"),
    "emoji": ('["\U0001f600[",', "true", "]"),
}


def json_of_depth(name: str, depth: int) -> str:
    """Valid JSON that nests exactly so deep."""
    opening, innermost, closing = TEMPLATES[name]
    levels = 2 if name == "both" else 1
    inner = {"keys": 1, "siblings": 2}.get(name, 0)
    count, rest = divmod(depth - inner, levels)
    return "[" * rest + opening * count + innermost + closing * count + "]" * rest


def depth_of(value: Any) -> int:
    """The depth, counted in another way."""
    parts = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if parts is None else 1 + max(map(depth_of, parts), default=0)


@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "str"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_json_is_read_to_the_limit_of_nesting_and_no_level_further(
    name: str, as_bytes: bool
) -> None:
    """Whatever stands in strings, keys and siblings; and the reason is in our words."""
    for depth in (3, 150, MAX_DEPTH - 1, MAX_DEPTH):
        text = json_of_depth(name, depth)
        value = decode_json(text.encode() if as_bytes else text)
        assert depth == depth_of(value)
        assert not is_nested_deeper(value)
        if name != "lone surrogates":  # they are read and not written
            assert [value] == decode_json(encode_json([value]), levels=MAX_COPIED_DEPTH)
    for depth in (MAX_DEPTH + 1, MAX_DEPTH + 2, 500, 2_000, 100_000):
        text = json_of_depth(name, depth)
        with pytest.raises(ValueError, match=f"not usable JSON: {re.escape(TOO_DEEP)}$"):
            decode_json(text.encode() if as_bytes else text)


@examples(300)
@given(json_values, st.integers(0, 12))
def test_the_depth_of_text_is_the_depth_of_its_value(value: Any, levels: int) -> None:
    """Counted on the text, on the value, and by a recursive function: all the same."""
    text = encode_json(value)
    deeper = depth_of(value) > levels
    assert deeper == is_nested_deeper(value, levels)
    padded = text + b" " * (2 * levels)
    assert deeper == nested_too_deeply(padded, levels) == nested_too_deeply(padded.decode(), levels)


@examples(500)
@given(
    st.text(r'[]{}"\\,:u0aé ', max_size=60)
    | st.lists(st.sampled_from(["[", "]", '"', "\\", '\\"', "{"])).map("".join),
    st.integers(0, 5),
)
def test_text_that_passed_never_takes_a_parser_deeper(text: str, levels: int) -> None:
    """Also if it is not JSON: up to its first mistake no parser opens more than was counted."""
    opened, in_string, position = 0, False, 0
    deepest = 0
    while position < len(text):
        character = text[position]
        if in_string:
            position += character == "\\"
            in_string = character != '"'
        elif character == '"':
            in_string = True
        elif character == "\\":
            break  # a mistake: a parser stops here
        elif character in "[{":
            opened += 1
            deepest = max(deepest, opened)
        elif character in "]}":
            opened -= 1
            if opened < 0:
                break
        position += 1
    if deepest > levels and len(text) > 2 * levels:
        assert nested_too_deeply(text, levels)
        assert nested_too_deeply(text.encode(), levels)


MIB = 1 << 20
COSTLY = {
    "opening": b"[" * MIB,
    "closing": b"[" * 201 + b"]" * MIB,
    "pairs": b"[]" * (MIB // 2),
    "combs": (b"[" * 200 + b"]" * 200) * (MIB // 400),
    "quotes": b"[" * 201 + b'"' * MIB,
    "backslashes": b"[" * 201 + b'"' + b"\\" * MIB,
    "escaped quotes": b"[" * 201 + b'"' + b'\\"' * (MIB // 2),
    "an open string": b"[" * 150 + b'"' + b"[" * MIB,
    "small objects": b"[" + b'{"a":1},' * (MIB // 8),
    "brackets in strings": b"[" * 190 + b'"[",' * (MIB // 4),
}


@pytest.mark.parametrize("name", COSTLY)
def test_judging_the_nesting_is_linear(name: str) -> None:
    """Steps of the interpreter, not seconds: the same for a text and for eight times as much of it."""

    def steps(text: bytes) -> int:
        count = 0

        def seen(*_: Any) -> Any:
            nonlocal count
            count += 1
            return seen

        before = sys.gettrace()
        sys.settrace(seen)
        try:
            nested_too_deeply(text)
        finally:
            sys.settrace(before)
        return count

    whole = COSTLY[name]
    assert steps(whole) <= 8 * steps(whole[: len(whole) // 8]) + 100


def test_a_value_with_shared_parts_is_judged_in_linear_time() -> None:
    """Two references to each part are one part, or sixty levels would be 2 ** 60."""
    value: Any = []
    for _ in range(60):
        value = [value, value]
    assert not is_nested_deeper(value)
    assert is_nested_deeper(value, 60)
    assert not is_nested_deeper(value, 61)
    value.append(value)
    assert is_nested_deeper(value)


def test_a_plain_copy_is_independent() -> None:
    """What happens to the original later does not reach the copy, at any depth."""
    original = {"a": [{"b": 1}], "t": Holder({"c": [1]})}
    copy = to_plain(original)
    shown = json.dumps(copy)
    original["a"][0]["b"] = 2  # type: ignore[index]
    original["t"].inner["c"].append(2)  # type: ignore[attr-defined]
    assert shown == json.dumps(copy)


@examples(300)
@given(json_values)
def test_plain_data_is_left_as_it_is(value: Any) -> None:
    """``to_plain`` of plain data is equal data; as JSON and back it is still that."""
    assert value == to_plain(value)
    assert value == decode_json(encode_json(value))
    assert value == decode_json(encode_json(value).decode())


@pytest.mark.parametrize(
    ("expected", "instance"),
    [
        ({"text": "", "type": "text"}, TextContent("")),
        ({"start": 0, "end": 1, "text": "x"}, Citation(0, 1, "x")),
        (
            {"start": 0, "end": 1, "text": "x", "type": "PLAN", "content_index": 0},
            Citation(0, 1, "x", [], "PLAN", 0),
        ),
        ({"cached_tokens": 0, "w": 1}, Usage(cached_tokens=0, extra={"w": 1})),
        (
            {"id": "i", "function": ToolCallFunction("n", ""), "type": "function"},
            ToolCall("i", ToolCallFunction("n", "")),
        ),
        ({"inner": 1}, Holder(1)),
    ],
)
def test_the_fields_of_the_wire(expected: dict[str, Any], instance: Any) -> None:
    """Defaults and private fields are left out; discriminators and extra keys stay."""
    assert expected == as_dict(instance)
    assert list(expected) == list(as_dict(instance))


# --- reading JSON --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (None, b"null"),
        ({"a": [1, 2.5, "x", True]}, b' {"a" : [1, 2.5, "x", true]} '),
        (2**70, str(2**70)),
        (10**307, "1" + "0" * 307),
        (["1" * 400], '["%s"]' % ("1" * 400)),
        (['"' + "1" * 400], '["\\"%s"]' % ("1" * 400)),
        (0.0, "0." + "0" * 400 + "1"),
        ("\ud83d", r'"\ud83d"'),
        ("\U0001f600", rb'"\ud83d\ude00"'),
        ("a\ufffd", b'"a\xff"'),
        ({"a": 2}, b'{"a":1,"a":2}'),
        (1e308, b"1e308"),
        (0.0, b"1e-400"),
    ],
)
def test_json_is_read_strictly(expected: Any, text: bytes | str) -> None:
    """RFC 8259, with two things forgiven that models really produce."""
    assert expected == decode_json(text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("not JSON: empty", b""),
        ("not JSON: unreadable at character 0", CANARY),
        ("not JSON: unreadable at character 2", "1 " + CANARY),
        ("not JSON: unreadable at character 0", f'"{CANARY}'),
        ("not JSON: unreadable at character 1", '"\x01"'),
        ("not JSON: unreadable at character 1", b"{'a':1}"),
        ("a number is out of range, or not a JSON number", "NaN"),
        ("a number is out of range, or not a JSON number", b"[Infinity]"),
        ("a number is out of range, or not a JSON number", "-Infinity"),
        ("a number is out of range, or not a JSON number", b"1e400"),
        ("a number is out of range, or not a JSON number", "-1e400"),
        ("a number is out of range, or not a JSON number", b"1" * 4301),
        ("a number is out of range, or not a JSON number", b"1" * 309),
        ("a number is out of range, or not a JSON number", "-" + "9" * 400),
        ("a number is out of range, or not a JSON number", '{"a":[1.5,%s]}' % ("9" * 400)),
        ("a number is out of range, or not a JSON number", '["\\\\",%s]' % ("9" * 400)),
        ("a number is out of range, or not a JSON number", '["\\\\\\"[",%s]' % ("9" * 400)),
        (
            "a number is out of range, or not a JSON number",
            '{"' + "1" * 400 + '":' + "1" * 309 + "}",
        ),
        ("not JSON", b"01"),
        ("not JSON", "1."),
        ("not JSON", b"+1"),
        ("nested too deeply", "[" * 100_000),
        ("nested too deeply", b'{"a":' * 100_000),
        ("not JSON", b"\xef\xbb\xbf1"),
    ],
)
def test_what_is_not_json_is_a_value_error(words: str, text: bytes | str) -> None:
    """The error says what and where, quotes nothing, and chains no parser's exception."""
    with pytest.raises(ValueError, match="JSON") as caught:
        decode_json(text)
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None is caught.value.__cause__


@examples(500)
@given(st.binary(max_size=20) | st.text('[]{}",:0123456789eE+-.\\ud8ntrfalse ', max_size=20))
def test_any_text_is_json_or_a_value_error(text: bytes | str) -> None:
    """No other exception ever comes out; what comes out agrees with the standard library."""
    try:
        value = decode_json(text)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 - one outcome of two
    else:
        source = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        assert json.loads(source) == value


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("abc", "abc"),
        ("é🚢", "é🚢"),
        ("\U0001f600", "\ud83d\ude00"),
        ("\ufffda", "\ud83da"),
        ("a\ufffd", "a\ude00"),
        ("\ufffd\ufffd", "\ude00\ud83d"),
        ("é\U0001f600\ufffd", "é\ud83d\ude00\ud83d"),
    ],
)
def test_halves_are_joined_or_replaced(expected: str, text: str) -> None:
    """Two halves become their character, a half alone U+FFFD; whole text is the same object."""
    assert expected == repair_surrogates(text)
    assert (repair_surrogates(text) is text) == (text == expected)


@pytest.mark.parametrize(
    ("value", "mapping", "sequence"),
    [
        ({}, True, False),
        (MappingProxyType({}), True, False),
        ([], False, True),
        ((), False, True),
        ("x", False, False),
        (b"x", False, False),
        (None, False, False),
        ({1}, False, False),
        (range(1), False, False),
    ],
)
def test_what_reads_as_an_object_or_an_array(value: Any, mapping: bool, sequence: bool) -> None:
    """Text is no list, a set is none either."""
    assert (mapping, sequence) == (is_mapping(value), is_list(value))


# --- attrs classes of the user's -----------------------------------------------------------------


@attrs.define
class Rating:
    """Each field means something, equal to its default or not."""

    stars: int = 5
    note: str | None = None
    type: str | None = None
    extra: str = "free"
    tags: list[str] = attrs.Factory(list[str])
    _hidden: int = 0


@attrs.frozen
class Shop:
    name: str
    rating: Rating = attrs.Factory(Rating)


RATING: dict[str, Any] = {"stars": 5, "note": None, "type": None, "extra": "free", "tags": []}


def test_an_object_of_the_users_is_written_whole() -> None:
    """Only the classes of the wire leave out what equals its default: the server knows that."""
    shop = Shop("Lima")
    expected = {"name": "Lima", "rating": RATING}
    assert to_plain(shop) == expected
    assert to_plain({"a": [shop]}) == {"a": [expected]}
    for document in ({"data": shop}, Document(shop)):  # type: ignore[arg-type]
        request = ChatRequest(model="m", messages="Hi", documents=[document])
        assert request.to_dict()["documents"] == [{"data": expected}]
    part = DocumentContent(Document({"shop": shop}))
    turn = ChatRequest(model="m", messages=[ToolMessage("c", [part])]).messages[0]
    assert turn["content"][0]["document"]["data"] == {"shop": expected}


def test_none_of_the_users_object_is_left_out_of_a_request() -> None:
    """As with pydantic's objects: the API refuses null for some fields."""
    body = {"rating": Rating()}
    sent = ChatRequest(model="m", messages="Hi", extra_body=body).to_dict()["rating"]
    assert sent == {name: value for name, value in RATING.items() if value is not None}
