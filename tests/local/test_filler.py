"""A filled value validates: by the ``jsonschema`` package, over generated schemas."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

import annotated_types as at
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamchat.local.filler import fill
from streamchat.local.formats import example_of_format, fits_format
from streamchat.local.hints import Hints
from streamchat.local.model import answer
from streamchat.local.pattern import Pattern, UnsupportedPatternError
from streamchat.local.schema import Schemas, Work
from streamchat.local.unary import fold
from streamchat.protocol.schema import Parameters

jsonschema = pytest.importorskip("jsonschema")

Schema = dict[str, Any]
QUESTIONS = [
    "",
    "Extract the order: 3 large pizzas for Ana and Bob on 2026-05-01, code LIM, mail a@b.co",
    "k1 with 0.5 and -7 and 12345 then 'some quote' at 25:61:61 on 2026-13-45",
    "p0: red, p1=5, value 9, ip 999.1.1.1, see https://example.com/ and x.y",
    "x" * 3_000,
]


def problems(schema: Schema, value: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    json.dumps(value, allow_nan=False)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


# --- schemas that some value satisfies -----------------------------------------------------------

PATTERNS = [
    r"^[A-Z]{3}$",
    r"^\d{5}(-\d{4})?$",
    r"^[a-z]+$",
    r"^(?=.*\d)(?=.*[a-z]).{8,}$",
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
    r"ab+c",
    r"^\S+@\S+$",
    r"\bx\b",
    r"^(?:Mon|Tue|Wed)$",
    r"^(a+)+$",
]
FORMATS = [
    *("date-time", "date", "time", "duration", "email", "uuid", "ipv4", "ipv6", "uri"),
    *("uri-reference", "hostname", "json-pointer", "regex", "idn-email", "iri", "unheard-of"),
]


@st.composite
def texts(draw: st.DrawFn) -> Schema:
    low = draw(st.integers(0, 60))
    return draw(
        st.sampled_from(
            [
                {"type": "string"},
                {"type": "string", "minLength": low, "maxLength": low + low % 7},
                {"type": "string", "minLength": low},
                {"type": "string", "maxLength": low},
                {"type": ["null", "string"]},
                {"type": "string", "contentEncoding": "base64"},
            ]
        )
        | st.builds(
            lambda pattern: {"type": "string", "pattern": pattern}, st.sampled_from(PATTERNS)
        )
        | st.builds(lambda name: {"type": "string", "format": name}, st.sampled_from(FORMATS))
    )


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    whole = draw(st.booleans())
    low = draw(st.integers(-50, 50) if whole else st.sampled_from([-3, -0.25, 0, 0.5, 10, 1e6]))
    span = draw(st.integers(12, 40) if whole else st.sampled_from([1, 2.5, 100]))
    schema: Schema = {"type": "integer" if whole else "number"}
    if lower := draw(st.sampled_from(["minimum", "exclusiveMinimum", None])):
        schema[lower] = low
    if upper := draw(st.sampled_from(["maximum", "exclusiveMaximum", None])):
        schema[upper] = low + span
    step = draw(st.none() | st.sampled_from([1, 2, 3, 5, 7] if whole else [0.25, 0.5, 0.125]))
    return schema if step is None else schema | {"multipleOf": step}


VALUES = [1, 2, "a", "b", None, True, 1.5, "long text", [1], {"a": 1}]


def plain() -> st.SearchStrategy[Schema]:
    return (
        texts()
        | numbers()
        | st.builds(lambda value: {"const": value}, st.sampled_from(VALUES))
        | st.builds(
            lambda values: {"enum": values},
            st.lists(st.sampled_from(VALUES), min_size=1, max_size=4, unique_by=str),
        )
        | st.sampled_from(
            [{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, {}, True]
        ).map(lambda schema: schema if isinstance(schema, dict) else {})
    )


DIFFERENT: list[Schema] = [
    {"type": "integer", "minimum": 0},
    {"type": "integer", "multipleOf": 3, "exclusiveMaximum": 0},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "string"},
    {"type": "string", "maxLength": 3},
    {"type": "string", "pattern": r"^\d{5}$"},
    *({"type": "string", "format": name} for name in FORMATS[:9]),
    {"enum": list(range(9))},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
    },
    {"type": "array", "items": {"type": "integer"}, "minItems": 2},
]


def containers(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def some(size: int = 3) -> st.SearchStrategy[list[Schema]]:
        return st.lists(inner, min_size=1, max_size=size)

    def record(parts: list[Schema], count: int, closed: bool) -> Schema:
        properties = {f"p{place}": part for place, part in enumerate(parts)}
        required = list(properties)[:count]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": not closed,
        }

    def tagged(parts: list[Schema], word: str) -> Schema:
        return {
            word: [
                {
                    "type": "object",
                    "properties": {"kind": {"const": f"k{place}"}, "value": part},
                    "required": ["kind", "value"],
                }
                for place, part in enumerate(parts)
            ]
        }

    def both(first: Schema, second: Schema) -> Schema:
        parts = {"a": first, "b": second}
        return {
            "allOf": [
                {"type": "object", "properties": {name: part}, "required": [name]}
                for name, part in parts.items()
            ]
        }

    return (
        st.builds(
            lambda items, low, more: {
                "type": "array",
                "items": items,
                "minItems": low,
                "maxItems": low + more,
            },
            inner,
            st.integers(0, 4),
            st.integers(0, 3),
        )
        | st.builds(
            lambda items, low: {
                "type": "array",
                "items": items,
                "minItems": low,
                "uniqueItems": True,
            },
            st.sampled_from(DIFFERENT),
            st.integers(0, 9),
        )
        | st.builds(
            lambda parts, rest: {
                "type": "array",
                "prefixItems": parts,
                "items": rest,
                "minItems": len(parts),
            },
            some(),
            st.just(False) | inner,
        )
        | st.builds(
            lambda values, low, names: {
                "type": "object",
                "additionalProperties": values,
                "minProperties": low,
                **names,
            },
            inner,
            st.integers(0, 4),
            st.sampled_from([{}, {"propertyNames": {"pattern": "^[a-z_]{2,}$"}}]),
        )
        | st.builds(record, some(4), st.integers(0, 4), st.booleans())
        | st.builds(tagged, some(), st.sampled_from(["oneOf", "anyOf"]))
        | st.builds(both, inner, inner)
        | st.builds(lambda part: {"anyOf": [part, {"type": "null"}]}, inner)
        | st.builds(lambda parts: {"anyOf": parts}, some())
    )


@st.composite
def recursive(draw: st.DrawFn) -> Schema:
    """A definition that refers to itself, in the ways that class libraries write it."""
    itself = {"$ref": "#/$defs/Node"}
    leaf = draw(plain())
    node = draw(
        st.sampled_from(
            [
                {
                    "properties": {"value": leaf, "next": {"anyOf": [itself, {"type": "null"}]}},
                    "required": ["value", "next"],
                },
                {
                    "properties": {"value": leaf, "all": {"type": "array", "items": itself}},
                    "required": ["all"],
                },
                {"properties": {"value": leaf, "next": itself}, "required": ["value"]},
                {"additionalProperties": itself},
                {
                    "properties": {"kind": {"const": "pair"}, "left": OPERAND, "right": OPERAND},
                    "required": ["kind", "left", "right"],
                },
            ]
        )
    )
    definitions = {"Node": {"type": "object", **node}, "Leaf": {"type": "string"}}
    return {"$defs": definitions, "type": "array", "items": itself, "minItems": 1}


OPERAND = {"anyOf": [{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Leaf"}]}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    schema=st.recursive(plain(), containers, max_leaves=8) | recursive(),
    question=st.sampled_from(QUESTIONS),
    everything=st.booleans(),
)
def test_a_filled_value_validates(schema: Schema, question: str, everything: bool) -> None:
    value = fill(schema, Hints(question), everything=everything)
    assert problems(schema, value) == []
    assert Schemas(schema, Work()).accepts(schema, value)  # our own view is the same


@settings(max_examples=40, deadline=None)
@given(schema=st.recursive(plain(), containers, max_leaves=4), question=st.sampled_from(QUESTIONS))
def test_a_filled_value_comes_whole_out_of_an_answer(schema: Schema, question: str) -> None:
    """As a JSON answer and as arguments of a tool, the first with all optional values."""
    whole: Schema = {"type": "object", "properties": {"it": schema}, "required": ["it"]}
    asked = {"model": "m", "messages": [{"role": "user", "content": question}]}
    style = {"type": "json_object", "json_schema": whole}
    message = fold(answer(asked | {"response_format": style}))["message"]
    assert problems(whole, json.loads(message["content"][0]["text"])) == []
    function = {"name": "f", "parameters": whole}
    tools = [{"type": "function", "function": function}]
    message = fold(answer(asked | {"tools": tools, "tool_choice": "REQUIRED"}))["message"]
    for call in message["tool_calls"]:
        assert problems(whole, json.loads(call["function"]["arguments"])) == []


# --- schemas as class libraries write them -------------------------------------------------------

WRITTEN: dict[str, Schema] = {
    "pydantic decimal": {
        "anyOf": [
            {"type": "number"},
            {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},
        ]
    },
    "a discriminator in oneOf": {
        "$defs": {
            name: {
                "type": "object",
                "properties": {"kind": {"const": name}, name: {"type": "integer"}},
                "required": ["kind", name],
                "additionalProperties": False,
            }
            for name in ("cat", "dog")
        },
        "discriminator": {"propertyName": "kind"},
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
    },
    "a discriminator in an enum": {
        "oneOf": [
            {"properties": {"kind": {"enum": [name]}, "v": {}}, "required": ["kind", "v"]}
            for name in "ab"
        ]
    },
    "number or integer": {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    "text, but not these": {"type": "string", "not": {"enum": ["text", ""]}},
    "not of this type": {"type": ["string", "integer"], "not": {"type": "string"}},
    "not a whole number": {"type": "number", "not": {"type": "integer"}},
    "closed by a second part": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}},
            {"properties": {"a": {"maximum": 3}}, "required": ["a"]},
        ]
    },
    "a bound beside an option": {"minimum": 10, "anyOf": [{"type": "integer"}, {"type": "null"}]},
    "two patterns": {
        "type": "string",
        "allOf": [{"pattern": r"^[a-z0-9]+$"}, {"pattern": r"\d"}, {"minLength": 5}],
    },
    "two steps": {"type": "integer", "minimum": 1, "allOf": [{"multipleOf": 4}, {"multipleOf": 6}]},
    "names by pattern": {
        "type": "object",
        "patternProperties": {"^x-[a-z]+$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 2,
    },
    "names by pattern, and others": {
        "type": "object",
        "patternProperties": {"^a$": {"type": "integer"}},
        "additionalProperties": {"type": "string"},
        "minProperties": 3,
    },
    "JSON as text": {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"type": "array", "items": {"type": "integer"}},
    },
    "dependent names": {
        "properties": {"a": {"const": 1}, "b": {"const": 2}},
        "required": ["a"],
        "dependentRequired": {"a": ["b"], "b": ["c"]},
    },
    "at most one": {
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "maxProperties": 1,
    },
    "contains": {
        "type": "array",
        "items": {"type": "integer"},
        "contains": {"minimum": 100},
        "minContains": 2,
        "minItems": 3,
    },
    "an enum with a type": {"type": "string", "enum": [1, None, "b"]},
    "a default that is not valid": {"type": "integer", "default": 5, "minimum": 10},
    "booleans, all different": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
    "a fixed exponent": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-9},
    "cents": {"type": "number", "minimum": 0.07, "maximum": 0.3, "multipleOf": 0.01},
    "a pointer with escapes": {
        "$defs": {"a/b": {"type": "integer"}, "c~d": {"$ref": "#/$defs/a~1b"}},
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/c~0d"}},
        "required": ["x"],
    },
}


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", WRITTEN)
def test_written_schemas_are_filled(name: str, question: str, everything: bool) -> None:
    value = fill(WRITTEN[name], Hints(question), everything=everything)
    assert problems(WRITTEN[name], value) == []


def test_the_option_that_the_question_names_is_taken() -> None:
    schema = WRITTEN["a discriminator in oneOf"]
    assert fill(schema, Hints("I have a dog and 2 birds")) == {"kind": "dog", "dog": 2}
    assert fill(schema, Hints("I have a cat"))["kind"] == "cat"


def test_a_draft_7_tuple_is_filled() -> None:
    schema = {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "minItems": 2}
    first, second = fill(schema, Hints("Ana 5"))
    assert (first, second) == (5, "Ana")


def test_values_of_the_question_are_taken_only_if_they_are_valid() -> None:
    schema = {
        "properties": {
            "day": {"type": "string", "format": "date"},
            "ip": {"type": "string", "format": "ipv4"},
            "count": {"type": "integer", "maximum": 10},
        },
        "required": ["day", "ip", "count"],
    }
    good = fill(schema, Hints("On 2026-05-01 from 10.0.0.1, count: 7"))
    assert good == {"day": "2026-05-01", "ip": "10.0.0.1", "count": 7}
    bad = fill(schema, Hints("On 2026-13-45 from 999.0.0.1, count: 70"))
    assert problems(schema, bad) == []
    assert bad["count"] == 10


def test_entries_have_the_names_that_a_pattern_says() -> None:
    """A map of pydantic's is open: its reader refuses other names all the same."""
    schema = {"type": "object", "patternProperties": {"^[a-c]+$": {"type": "integer"}}}
    filled = fill({**schema, "minProperties": 2}, Hints(""))
    assert len(filled) == 2
    assert all(re.fullmatch("[a-c]+", name) for name in filled)
    assert len(fill(schema, Hints(""), everything=True)) == 1


def test_json_as_text_fits_its_own_schema() -> None:
    inner = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": inner}
    assert json.loads(fill(schema, Hints("n 7"))) == {"n": 7}
    assert isinstance(json.loads(fill({**schema, "contentSchema": {}}, Hints(""))), str)


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (2, 2), (3, 3), (0, 1), (4, 5), (50, 50), (99, None)]
)
def test_bytes_are_as_many_as_is_said(low: int, high: int | None) -> None:
    """In base64, whose own length leaves up to two bytes open; different ones where asked."""

    def f(x: Any) -> None: ...

    several = list[Annotated[bytes, at.Len(low, high)]]  # type: ignore[valid-type]
    f.__annotations__ = {"x": Annotated[several, at.Len(5, 5)]}
    read = Parameters.of(f, "f")
    schema = read.schema
    schema["properties"]["x"]["uniqueItems"] = True
    filled = read.read(fill(schema, Hints("")), strict=True)["x"]
    assert len(set(filled)) == 5
    assert all(low <= len(each) <= (high or math.inf) for each in filled)


# --- patterns ------------------------------------------------------------------------------------

MATCHED = [
    *PATTERNS,
    r"^#?([a-f0-9]{6}|[a-f0-9]{3})$",
    r"^v?\d+\.\d+\.\d+(-[\w.]+)?$",
    r"[^abc]+",
    r"^$",
    r"x{",
    r"^a{2,}b{,3}$",
    r"^[]a]+$",
    r"^[\w.+-]+@[\w-]+\.[\w.-]+$",
    r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
    r"(?i)^abc$",
    r"^\u00e9\x41$",
    r"^(?P<year>\d{4})-\d\d$",
    r"^a|b$",
    r"^.*\Bx$",
    r"^(a|b|ab)*c??$",
]


@pytest.mark.parametrize("source", MATCHED)
def test_generated_texts_match(source: str) -> None:
    pattern = Pattern(source)
    for variant in range(12):
        for least, most in ((0, 400), (0, 12), (12, 400)):
            for text in pattern.examples(least, most, variant):
                assert re.search(source, text)
                assert pattern.accepts(text)
                assert least <= len(text) <= most
    assert next(pattern.examples(0, 400), None) is not None


@settings(max_examples=300, deadline=None)
@given(source=st.sampled_from(MATCHED), text=st.text("abcxABC019-+.@ _é#v", max_size=12))
def test_matching_agrees_with_python(source: str, text: str) -> None:
    assert Pattern(source).accepts(text) == (re.search(source, text, re.ASCII) is not None)


@pytest.mark.parametrize(
    "source", ["(", ")", "[", "[b-a]", "a**", "*", r"(a)\1", r"(?<=a)b", r"\p{L}", "a{3,2}", "(?z)"]
)
def test_unsupported_patterns_are_refused_and_do_not_stop_the_filler(source: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        Pattern(source)
    assert isinstance(fill({"type": "string", "pattern": source}, Hints("")), str)


# --- formats -------------------------------------------------------------------------------------

GOOD = {
    "date-time": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789+05:30"],
    "date": ["2024-02-29"],
    "time": ["23:59:59Z", "00:00:00.5-03:00"],
    "duration": ["P1Y2M3DT4H5M6S", "PT0.5S", "P2W"],
    "email": ["a.b+c@d-e.f"],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
    "ipv4": ["127.0.0.1"],
    "ipv6": ["::1"],
    "uri": ["urn:a:b", "https://x.y/z?q=1#f"],
    "hostname": ["a", "a-b.c"],
    "json-pointer": ["", "/a~1b/0"],
    "decimal": ["-1.50", "1E+3"],
    "base64": ["", "YQ=="],
    "base64url": ["_-8="],
    "uuid1": ["3b241101-e2bb-1255-8caf-4136c566a962"],
    "uuid3": ["3b241101-e2bb-3255-8caf-4136c566a962"],
    "uuid4": ["3b241101-e2bb-4255-8caf-4136c566a962"],
    "uuid5": ["3b241101-e2bb-5255-8caf-4136c566a962"],
    "ipvanyaddress": ["::1", "127.0.0.1"],
    "ipvanynetwork": ["10.0.0.0/8", "2001:db8::/32"],
    "ipvanyinterface": ["10.0.0.1/8", "2001:db8::1/32"],
    "ipv4network": ["10.0.0.0/8"],
    "ipv6network": ["2001:db8::/32"],
    "ipv4interface": ["10.0.0.1/8"],
    "ipv6interface": ["2001:db8::1/32"],
    "multi-host-uri": ["postgres://a:b@c:1,d:2/e"],
    "unheard-of": ["anything"],
}
BAD = {
    "date-time": ["2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00"],
    "date": ["2023-02-29", "1 May 2026", "2026-1-1"],
    "time": ["24:00:00Z", "12:00"],
    "duration": ["P", "PT", "1H", "P1H"],
    "email": ["a@", "a b@c.d", "@"],
    "uuid": ["0"],
    "ipv4": ["1.2.3", "256.0.0.1"],
    "ipv6": ["1::2::3"],
    "uri": ["no scheme", "/path"],
    "hostname": ["-a", "a..b", "a_b"],
    "json-pointer": ["a", "/~2"],
    "decimal": ["", "NaN", "Infinity", "one"],
    "base64": ["YQ", "!"],
    "base64url": ["YQ", "!"],
    "uuid1": ["3b241101-e2bb-4255-8caf-4136c566a962"],
    "uuid5": ["00000000-0000-0000-0000-000000000000"],
    "ipvanyaddress": ["a"],
    "ipvanynetwork": ["10.0.0.1/8"],
    "ipv4network": ["2001:db8::/32", "10.0.0.1/8"],
    "ipv6interface": ["10.0.0.1/8"],
    "multi-host-uri": ["example.com"],
}


@pytest.mark.parametrize("kind", GOOD)
def test_formats_are_checked(kind: str) -> None:
    for text in GOOD[kind]:
        assert fits_format(kind, text), text
    for text in BAD.get(kind, []):
        assert not fits_format(kind, text), text


@pytest.mark.parametrize("kind", [*GOOD, *FORMATS])
def test_examples_of_a_format_fit_and_differ(kind: str) -> None:
    examples = [example_of_format(kind, variant) for variant in range(100)]
    texts = [text for text in examples if text is not None]
    assert len(set(texts)) == len(texts)
    assert all(fits_format(kind, text) for text in texts)
    assert bool(texts) is (kind != "unheard-of")
