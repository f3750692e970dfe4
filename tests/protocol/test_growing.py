"""``ToolCall.partial``: arguments that are still arriving."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamchat.protocol.accumulator import Accumulator
from streamchat.protocol.errors import ConfigurationError, ToolArgumentsError
from streamchat.protocol.events import ToolCallDelta, ToolCallStart
from streamchat.protocol.messages import ToolCall, ToolCallFunction
from tests.frames import START

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(st.text(), json_values, max_size=4)


def call(arguments: str) -> ToolCall:
    return ToolCall("x", ToolCallFunction("f", arguments))


def grows(before: Any, after: Any) -> bool:
    """Whether the later value says what the earlier one said, and perhaps more."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and grows(item, after[key]) for key, item in before.items())
    if isinstance(before, list) and isinstance(after, list):
        pairs = zip(before, after, strict=False)
        return len(before) <= len(after) and all(grows(*pair) for pair in pairs)
    if isinstance(before, str) and isinstance(after, str):
        return after.startswith(before)
    return bool(before == after)


@given(objects, st.booleans(), st.sampled_from([None, 1]))
def test_each_beginning_of_an_object_has_a_value(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    """It never raises, only grows, and ends as ``parsed``."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    before: dict[str, Any] = {}
    for end in range(len(text) + 1):
        partial = call(text[:end]).partial
        assert grows(before, partial), text[:end]
        before = partial
    assert call(text).partial == call(text).parsed == value


BEGINNINGS: list[tuple[str, Any]] = [
    ("", {}),
    (" \n", {}),
    ("nul", {}),
    ("null", {}),
    (" {", {}),
    ('{"ci', {}),
    ('{"city', {}),
    ('{"city": "Li', {"city": "Li"}),
    ('{"city": "Lima", "days": 1', {"city": "Lima"}),
    ('{"city": "Lima", "days": 12,', {"city": "Lima", "days": 12}),
    ('{"places": [{"a": "}"}, {"b": "1', {"places": [{"a": "}"}, {"b": "1"}]}),
    ('{"a": "}} {} ', {"a": "}} {} "}),
    ('{"a": "\\ud83d', {"a": ""}),
    ('{"a": "\\ud83d\\ud', {"a": ""}),
    ('{"a": "\\ud83dx', {"a": "\ufffdx"}),
    ('{"a": "\\\\ud83dx', {"a": "\\ud83dx"}),
    ('{"a": "\\ude00', {"a": "\ufffd"}),
    ('{"a": "x\\', {"a": "x"}),
    ('{"a": "12', {"a": "12"}),
    ('{"a": tru', {}),
]


@pytest.mark.parametrize(("text", "expected"), BEGINNINGS, ids=[row[0] for row in BEGINNINGS])
def test_partial_arguments(text: str, expected: dict[str, Any]) -> None:
    """Complete keys, and strings as far as they came."""
    assert call(text).partial == expected


UNUSABLE = [
    *("tru", "[1", '"x', "12", "x", "\xa0{}", "\ufeff{", "nullx", "NaN"),
    *('{a', '{,', '{"a": b', '{"a": 1,}', '{"a": "\\q', '{"a": -}', '{"a": NaN', '{"a": "\t'),
    *('{} x', '{"a": 1}}', '{"a": NaN}', '{"a": 1e999}', '{"a": "x"} "'),
    '{"a":' * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", UNUSABLE, ids=lambda text: text[:20])
def test_text_that_does_not_begin_an_object_is_refused(text: str) -> None:
    """As ``parsed`` refuses it: with name and raw text, and with no words of the text or of jiter."""
    with pytest.raises(ToolArgumentsError) as caught:
        _ = call(text).partial
    assert (caught.value.name, caught.value.arguments) == ("f", text)
    assert caught.value.__cause__ is None is caught.value.__context__


def test_the_snapshot_has_partial_arguments() -> None:
    """While the deltas of a call arrive."""
    accumulator = Accumulator()
    accumulator.add(START)
    accumulator.add(ToolCallStart(call(""), 0))
    seen: list[Any] = []
    for piece in ('{"ci', 'ty": "Li', 'ma", "days"', ": 1", "2}"):
        accumulator.add(ToolCallDelta(piece, 0))
        seen.append(accumulator.snapshot().tool_calls[0].partial)
    assert seen == [{}, {"city": "Li"}, {"city": "Lima"}, {"city": "Lima"},
                    {"city": "Lima", "days": 12}]  # fmt: skip


class Counting(SimpleNamespace):
    """jiter, with a count of what it was given."""

    characters = 0

    def from_json(self, data: bytes, /, **options: Any) -> Any:
        self.characters += len(data)
        return jiter.from_json(data, **options)


@pytest.mark.parametrize("text", ['{"a": "' + "word " * 1000, '{"a": [' + '{"b": "}"},' * 1000])
def test_a_look_parses_the_text_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is."""
    counting = Counting()
    monkeypatch.setitem(sys.modules, "jiter", counting)
    assert call(text).partial["a"]
    assert counting.characters <= len(text)


def test_without_jiter_partial_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of its own class; ``parsed`` needs nothing."""
    monkeypatch.setitem(sys.modules, "jiter", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'streamchat\[partial\]'"):
        _ = call('{"city": "Li').partial
    assert call('{"city": 1}').parsed == {"city": 1}
