"""Types of the caller's: what is said of them, what is read as them, what is refused at the call."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import InitVar
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Optional,
    Required,
    Self,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import annotated_types as at
import attrs
import jsonschema
import msgspec
import pytest
import typing_extensions

from streamchat.protocol.kinds import Misfit
from streamchat.protocol.plain import MAX_DEPTH
from streamchat.protocol.schema import Answer, Parameters
from tests.timed import SOON

from . import helpers
from .helpers import CANARY

parameters = functools.partial(helpers.parameters, names=globals())


def said(kind: Any) -> dict[str, Any]:
    """The schema of one parameter of the type."""
    whole = parameters(kind).schema
    jsonschema.Draft202012Validator.check_schema(whole)
    schema: dict[str, Any] = whole["properties"]["x"]
    return schema


def holder(kind: Any) -> Any:
    """A class with one field of the type."""
    return attrs.make_class("Holder", {"x": attrs.field(type=kind)})


def read(kind: Any, data: Any, *, strict: bool = True) -> Any:
    """Data as an argument of the type; an answer reads it alike."""
    value = parameters(kind).read({"x": data}, strict=strict)["x"]
    if strict:
        answered = Answer.of(holder(kind), "into=").read({"x": data}).x
        assert answered == value
        assert type(answered) is type(value)
    return value


def refusal(kind: Any, data: Any, *, strict: bool = True) -> str:
    """Why data is refused as an argument, and where; an answer refuses it alike."""
    with pytest.raises(ValueError, match=r"\(at \$") as caught:
        parameters(kind).read({"x": data}, strict=strict)
    assert caught.value.__context__ is None is caught.value.__cause__
    if strict:
        with pytest.raises(Misfit) as misfit:
            Answer.of(holder(kind), "into=").read({"x": data})
        assert str(caught.value) == f"{misfit.value.reason} (at {misfit.value.path})"
    return str(caught.value)


# --- references ----------------------------------------------------------------------------------


@attrs.define
class Quoted:
    v: int
    kids: list["Quoted"] = attrs.Factory(list)  # noqa: UP037
    table: dict[str, "Leaf | None"] = attrs.Factory(dict)  # noqa: UP037


@attrs.define
class Leaf:
    v: int


@dataclasses.dataclass
class Chained:
    v: int
    child: Optional["Chained"] = None  # noqa: UP037, UP045
    me: Self | None = None


class ChainedDict(TypedDict):
    v: int
    child: NotRequired["ChainedDict | None"]  # noqa: UP037


class ChainedTuple(NamedTuple):
    v: int
    child: ChainedTuple | None = None


class ChainedStruct(msgspec.Struct):
    v: int
    child: ChainedStruct | None = None


JsonValue = Union[dict[str, "JsonValue"], list["JsonValue"], str, int, None]  # noqa: UP007
LEVELS: list[Any] = [Quoted, Chained, ChainedDict, ChainedTuple, ChainedStruct]


def test_quoted_references_inside_other_types_are_resolved() -> None:
    """In containers, in unions, to classes that are defined later, and ``Self``."""
    data = {"v": 1, "kids": [{"v": 2}], "table": {"a": {"v": 3}, "b": None}}
    assert read(Quoted, data) == Quoted(1, [Quoted(2)], {"a": Leaf(3), "b": None})
    assert read(Chained, {"v": 1, "child": {"v": 2}, "me": {"v": 3}}) == Chained(
        1, Chained(2), Chained(3)
    )
    assert refusal(Quoted, {"v": 1, "kids": [{"v": "a"}]}).endswith("(at $.x.kids[0].v)")


def test_a_local_class_may_hold_itself() -> None:
    """Its own name means it, although no module has that name."""

    @attrs.define
    class Local:
        kids: list[Local] = attrs.Factory(list)

    assert read(Local, {"kids": [{}]}) == Local([Local()])


def test_an_alias_may_hold_itself() -> None:
    """A union that names itself is one definition."""
    data = {"a": [1, {"b": None}], "c": "d"}
    assert read(JsonValue, data) == data
    assert refusal(JsonValue, {"a": [1.5]}).startswith(
        "expected an object or an array or a string or an integer or null"
    )
    schema = parameters(JsonValue).schema
    jsonschema.validate({"x": data}, schema)
    assert len(schema["$defs"]) == 1


def nested(kind: Any, depth: int) -> Any:
    data: Any = {"v": 1}
    for _ in range(depth - 1):
        data = {"v": 1, "kids": [data]} if kind is Quoted else {"v": 1, "child": data}
    return data


@pytest.mark.parametrize("kind", LEVELS)
def test_recursive_types_are_read_to_the_limit(kind: Any) -> None:
    """All levels that JSON may have here, on the stack that is left in any program; then a refusal."""
    most = MAX_DEPTH // 2 if kind is Quoted else MAX_DEPTH - 1
    value = parameters(kind).read({"x": nested(kind, most)}, strict=False)["x"]
    count = 0
    while value is not None:
        count += 1
        if kind is Quoted:
            value = value.kids[0] if value.kids else None
        else:
            value = value.get("child") if isinstance(value, dict) else value.child
    assert count == most
    assert "nested deeper than 200 levels" in refusal(kind, nested(kind, MAX_DEPTH + 1))


def test_a_stack_that_is_nearly_used_up_is_a_refusal() -> None:
    """No RecursionError leaves."""
    reader = Answer.of(Chained, "into=")

    def deep(left: int) -> Any:
        return reader.read(nested(Chained, 190)) if not left else deep(left - 1)

    with pytest.raises(Misfit, match="stack"):
        deep(sys.getrecursionlimit() - 300)


# --- growth --------------------------------------------------------------------------------------


def module_of(source: str) -> Any:
    """A module made of text, as classes that hold each other need one."""
    module = types.ModuleType("made_for_a_test")
    sys.modules["made_for_a_test"] = module
    exec("from __future__ import annotations\nimport attrs\n" + source, module.__dict__)
    return module


def mutual(n: int) -> str:
    """Classes each of which holds all."""
    return "".join(
        f"@attrs.define\nclass C{i}:\n    v: int\n"
        + "".join(f"    f{j}: C{j} | None = None\n" for j in range(n))
        for i in range(n)
    )


def tower(n: int) -> str:
    """Classes each of which holds the next twice."""
    return "".join(
        f"@attrs.define\nclass C{i}:\n"
        + (f"    a: C{i + 1}\n    b: C{i + 1}\n" if i < n - 1 else "    v: int\n")
        for i in range(n)
    )


@pytest.fixture
def made() -> Iterator[Callable[[str], Any]]:
    """Makes a module, and forgets it."""
    yield module_of
    sys.modules.pop("made_for_a_test", None)


@pytest.mark.parametrize(("shape", "each"), [(mutual, 85), (tower, 200)])
def test_schemas_grow_with_the_number_of_classes(
    shape: Callable[[int], str], each: int, made: Callable[[str], Any]
) -> None:
    """Not factorially, nor by powers of two: so many characters per class and reference."""
    for n in (3, 8, 20, 40):
        schema = Answer.of(made(shape(n)).C0, "into=").schema
        references = n * n if shape is mutual else n
        assert len(json.dumps(schema)) < 400 + each * references + 200 * n
        jsonschema.Draft202012Validator.check_schema(schema)


def test_a_small_class_that_occurs_twice_is_written_out() -> None:
    """Models read it better so; only a large schema has definitions."""
    schema = said(tuple[Leaf, Leaf, Leaf])
    assert [item["type"] for item in schema["prefixItems"]] == ["object"] * 3


def test_classes_of_one_name_are_two_definitions() -> None:
    """The second has a number."""

    def make(kind: Any) -> Any:
        default = dataclasses.field(default_factory=list)
        return dataclasses.make_dataclass("Same", [("v", kind), ("kids", list["Same"], default)])  # type: ignore[name-defined]  # noqa: F821

    schema = said(tuple[make(int), make(str)])
    assert schema["prefixItems"] == [{"$ref": "#/$defs/Same"}, {"$ref": "#/$defs/Same_2"}]


# --- one reader ----------------------------------------------------------------------------------


def refuse_negative(instance: Any, attribute: Any, value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} is negative: {value}")


@attrs.define
class Converted:
    name: str = attrs.field(converter=str.upper)
    whole: int = attrs.field(default=0, validator=refuse_negative)
    twin: int = attrs.Factory(lambda self: self.whole, takes_self=True)
    _private: int = 0
    made: int = attrs.field(default=7, init=False)


@attrs.define
class OwnInit:
    a: int

    def __init__(self, a: int, b: str = "own") -> None:
        if a < 0:
            raise ValueError("negative")
        self.a, self.b = a + 100, b

    b: str = "field"


@dataclasses.dataclass(kw_only=True, slots=True)
class Posted:
    a: int
    scale: InitVar[int] = 10
    tags: list[str] = dataclasses.field(default_factory=lambda: ["made"])
    total: int = dataclasses.field(default=0, init=False)

    def __post_init__(self, scale: int) -> None:
        if scale == 0:
            raise AssertionError("scale must not be 0")
        self.total = self.a * scale


class Marked(TypedDict, total=False):
    a: Required[int]
    b: Annotated[NotRequired[str], "a word"]
    c: date


class Point(NamedTuple):
    x: int
    y: date = date(2024, 1, 2)


class Renamed(
    msgspec.Struct, rename="camel", forbid_unknown_fields=True, tag="r", tag_field="kind"
):
    long_name: int
    other_name: list[int] = []  # msgspec copies it

    def __post_init__(self) -> None:
        if self.long_name == 13:
            raise ValueError("unlucky")


T = TypeVar("T")


@attrs.define
class Pair(Generic[T]):
    left: T
    rest: list[T] = attrs.Factory(list)


@attrs.define
class Dates(Pair[date]):
    more: int = 0


READ: list[tuple[Any, Any, Any]] = [
    (Converted, {"name": "ada"}, Converted("ada")),
    (Converted, {"name": "a", "whole": 3}, Converted("A", 3, 3)),
    (Converted, {"name": "a", "_private": 4}, Converted("A", private=4)),
    (Posted, {"a": 2}, Posted(a=2)),
    (Posted, {"a": 2, "scale": 3, "tags": []}, Posted(a=2, scale=3, tags=[])),
    (Marked, {"a": 1}, {"a": 1}),
    (Marked, {"a": 1, "c": "2024-01-02", "z": 1}, {"a": 1, "c": date(2024, 1, 2)}),
    (Point, {"x": 1}, Point(1)),
    (Point, [1, "2024-05-06"], Point(1, date(2024, 5, 6))),
    (Renamed, {"kind": "r", "longName": 1}, Renamed(1)),
    (Pair[int], {"left": 1, "rest": [2]}, Pair(1, [2])),
    (Pair[Pair[date]], {"left": {"left": "2024-01-02"}}, Pair(Pair(date(2024, 1, 2)))),
    (Dates, {"left": "2024-01-02", "more": 1}, Dates(date(2024, 1, 2), [], 1)),
    (Pair, {"left": [1]}, Pair([1])),
]


@pytest.mark.parametrize("row", READ, ids=lambda row: f"{row[0]} {row[1]}"[:60])
def test_classes_are_made_by_their_own_init(row: tuple[Any, Any, Any]) -> None:
    """Converters, factories, ``__post_init__`` run, for arguments and answers alike."""
    kind, data, value = row
    assert read(kind, data) == value
    assert parameters(kind).read({"x": data}, strict=False) == {"x": value}


def test_an_init_of_the_classs_own_is_called() -> None:
    """Its parameters decide what is required."""
    assert read(OwnInit, {"a": 1}).a == 101
    assert said(OwnInit)["required"] == ["a"]
    assert refusal(OwnInit, {"a": -1}) == "negative (at $.x)"


WORDS: list[tuple[Any, Any, str]] = [
    (Converted, {"name": "a", "whole": -1}, "whole is negative: -1 (at $.x.whole)"),
    (Posted, {"a": 1, "scale": 0}, "scale must not be 0 (at $.x)"),
    (Renamed, {"kind": "r", "longName": 13}, "unlucky (at $.x)"),
    (Renamed, {"kind": "s", "longName": 1}, "expected one of 'r' (at $.x.kind)"),
    (Renamed, {"longName": 1}, "misses 'kind' (at $.x)"),
    (
        Renamed,
        {"kind": "r", "longName": 1, "z": 2},
        "has a field that its class does not know; there are kind, longName, otherName (at $.x)",
    ),
    (Point, [1, "2024-05-06", 3], "expected an object, got an array (at $.x)"),
    (Point, ["a"], "expected an integer, got a string (at $.x.x)"),
    (list[Converted], [{"name": "a", "whole": -2}], "whole is negative: -2 (at $.x[0].whole)"),
]


@pytest.mark.parametrize("row", WORDS, ids=lambda row: row[2][:40])
def test_the_words_of_a_validator_are_the_reason(row: tuple[Any, Any, str]) -> None:
    """With the field's place; values only where the validator quoted them."""
    kind, data, words = row
    assert refusal(kind, data) == words


@attrs.define
class Bad:
    field: int = attrs.field(converter=int)

    @field.validator
    def _check(self, attribute: Any, value: int) -> None:
        raise {1: KeyError(CANARY), 2: ValueError(), 3: ValueError("x" * 10_000)}[value]


def test_words_that_are_not_meant_for_it_are_left_out() -> None:
    """Those of a KeyError are a value; nothing is the class; too much is cut."""
    assert refusal(Bad, {"field": 1}) == "a value that its class refuses (KeyError) (at $.x.field)"
    assert (
        refusal(Bad, {"field": 2}) == "a value that its class refuses (ValueError) (at $.x.field)"
    )
    assert len(refusal(Bad, {"field": 3})) < 600


def double(value: int, instance: Any, field: Any) -> int:
    if value == 13:
        raise ValueError(f"{field.name} is unlucky")
    return value * 2


@pytest.mark.skipif(not hasattr(attrs, "Converter"), reason="attrs has it since 24.1")
def test_converters_that_take_more_are_blamed_too() -> None:
    """attrs' ``Converter`` with the instance and the field."""

    @attrs.define
    class FullConverter:
        a: int = attrs.field(converter=attrs.Converter(double, takes_self=True, takes_field=True))

    assert read(FullConverter, {"a": 2}).a == 4
    assert refusal(FullConverter, {"a": 13}) == "a is unlucky (at $.x.a)"


@attrs.define
class Related:
    low: int = attrs.field(default=5)
    high: int = attrs.field(default=9)
    width: int = attrs.field(default=attrs.Factory(lambda self: self.high, takes_self=True))

    @high.validator
    def _above(self, attribute: Any, value: int) -> None:
        if value <= self.low:
            raise ValueError("high must be above low")

    def __attrs_post_init__(self) -> None:
        if self.width == 13:
            raise ValueError("unlucky width")


@attrs.define(slots=False)
class OwnNew:
    a: int = attrs.field(validator=refuse_negative)

    def __new__(cls, **values: Any) -> OwnNew:
        if not values:
            raise RuntimeError("nothing to make")
        return super().__new__(cls)


def test_a_validator_may_look_at_other_fields() -> None:
    """Defaults are set when it is asked again for the blame; the class as a whole has no field."""
    assert refusal(Related, {"high": 3}) == "high must be above low (at $.x.high)"
    assert refusal(Related, {"width": 13}) == "unlucky width (at $.x)"
    assert refusal(OwnNew, {"a": -1}) == "a is negative: -1 (at $.x.a)"


# --- refused at the call -------------------------------------------------------------------------


@attrs.define
class NoType:
    a = attrs.field()


@attrs.define
class NeedsMore:
    a: int

    def __init__(self, a: int, more: int) -> None:
        self.a = a


@attrs.define
class TakesLess:
    a: int
    b: int = 3

    def __init__(self, a: int) -> None:
        self.a = a


@attrs.define
class ByPlace:
    a: int

    def __init__(self, a: int, /) -> None:
        self.a = a


@dataclasses.dataclass
class Unknown:
    ok: int
    field: list[Nowhere]  # type: ignore[name-defined]  # noqa: F821


class UnknownDict(TypedDict):
    field: NotRequired["Nowhere"]  # type: ignore[name-defined]  # noqa: F821, UP037


@attrs.define
class Broken:
    field: "3()"  # type: ignore[valid-type]  # noqa: UP037


@attrs.define
class Outer:
    inner: dict[str, list[Inner]]


@attrs.define
class Inner:
    odd: complex


class ArrayLike(msgspec.Struct, array_like=True):
    a: int


class Mixed(enum.Enum):
    A = 1
    B = "b"


Circle = Union["Circle", None]


@dataclasses.dataclass
class Cat:
    kind: Literal["cat"]
    lives: int


@dataclasses.dataclass
class Dog:
    kind: Literal["dog"] = "dog"
    bark: str = "woof"


class Fish(TypedDict):
    kind: Literal["fish", "shark"]


class Bird(msgspec.Struct, tag="bird", tag_field="kind"):
    wings: int = 2


@attrs.define
class Cow:
    kind: Literal["cat"]
    milk: int


REFUSED: list[tuple[Any, str]] = [
    (NoType, "NoType.a: it has no type"),
    (NeedsMore, "__init__ needs 'more', which is not a field"),
    (TakesLess, r"TakesLess\.b: __init__ does not take 'b' by name"),
    (ByPlace, r"ByPlace\.a: __init__ does not take 'a' by name"),
    (Unknown, r"Unknown\.field: 'Nowhere' is not defined where"),
    (UnknownDict, r"UnknownDict\.field: 'Nowhere' is not defined where"),
    (Broken, r"Broken\.field: .*3\(\).* is not a type"),
    (Outer, r"Inner\.odd: complex is not a type that JSON can hold"),
    (ArrayLike, "ArrayLike is array_like"),
    (Mixed, "Mixed must have members that are all str or all int"),
    (Circle, "nothing but itself"),
    (Cat | Leaf, "nothing tells apart"),
    (Cat | Cow, "nothing tells apart"),
    (Leaf | dict[str, int], "nothing tells apart"),
    (list[int] | set[str], "both JSON's array"),
    (date | str, "both JSON's string"),
    (Mixed | str, "all str or all int"),
    (dict[float | None, int], "keys of JSON objects are text"),
    (dict[tuple[int], int], "keys of JSON objects are text"),
    (Literal[b"a"], r"Literal\[b'a'\]: JSON has no such literal"),
    (Callable[[], int], "is not a type that JSON can hold"),
    (type[int], "is not a type that JSON can hold"),
    (3, "is not a type"),
]


@pytest.mark.parametrize(("kind", "words"), REFUSED, ids=lambda each: str(each)[:50])
def test_what_could_fail_for_a_type_fails_at_the_call(kind: Any, words: str) -> None:
    """A TypeError of ours on one line that names the field; nothing of another library is chained."""
    for make in (lambda: parameters(kind), lambda: Answer.of(holder(kind), "into=")):
        with pytest.raises(TypeError, match=words) as caught:
            make()
        text = str(caught.value)
        assert text.startswith(("tool f has a type that JSON Schema", "into= has a type that JSON"))
        assert "\n" not in text
        assert caught.value.__cause__ is None


@dataclasses.dataclass
class Growing(Generic[T]):
    v: T
    next: Growing[list[T]] | None = None


def test_a_type_without_end_is_refused() -> None:
    """A generic class that holds itself with longer arguments; a type of 2,000 brackets."""
    with pytest.raises(TypeError, match=r"tool f has .*Growing.*: classes inside of each other"):
        parameters(Growing[int])
    kind: Any = int
    for _ in range(2000):
        kind = list[kind]
    with pytest.raises(TypeError, match="tool f has a "):
        parameters(kind)


LONG: list[tuple[Any, str]] = [
    (Decimal, "1" * 10**6),
    (Decimal, "1." + "1" * 10**6),
    (datetime, "2024-01-02T03:04:05." + "1" * 10**6 + "Z"),
    (timedelta, "P" + "1" * 10**6),
    (timedelta, "P" + "1.D" * 10**5),
    (UUID, "a" * 10**6),
    (int, "1" * 10**6),
    (float, "1" * 10**6),
    (bytes, "YWJj" * 10**5 + "?"),
]


@pytest.mark.timeout(SOON)
@pytest.mark.parametrize(("kind", "text"), LONG, ids=lambda each: str(each)[:20])
def test_long_text_is_refused_at_once(kind: Any, text: str) -> None:
    """No pattern and no number takes longer than the text is long."""
    refusal(kind, text, strict=False)
    refusal(kind, text)


def test_the_field_is_named_however_deep_it_is() -> None:
    """The class and its field where the type stands; the parameter where it is the parameter's own."""
    with pytest.raises(TypeError, match=r"describe: Inner\.odd: complex is"):
        Answer.of(Outer, "into=")
    with pytest.raises(TypeError, match="describe: x: complex is"):
        parameters(list[complex])
    with pytest.raises(TypeError, match="describe: x: Self means nothing here"):
        parameters(list[Self])


class Extended(typing_extensions.TypedDict, total=False):
    must: typing_extensions.Required[int]
    may: typing_extensions.NotRequired[str]
    also: typing_extensions.ReadOnly[list[int]]


def test_a_typed_dict_may_be_that_of_typing_extensions() -> None:
    """Before Python 3.12 it is another class than that of ``typing``."""
    assert said(Extended)["required"] == ["must"]
    assert read(Extended, {"must": 1, "also": [2]}) == {"must": 1, "also": [2]}
    assert refusal(Extended, {"may": "a"}) == "misses 'must' (at $.x)"


# --- unions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"kind": "cat", "lives": 9}, Cat("cat", 9)),
        ({"kind": "dog"}, Dog()),
        ({"kind": "shark"}, {"kind": "shark"}),
        ({"kind": "bird"}, Bird()),
        (None, None),
        ("a", "a"),
    ],
)
def test_a_literal_field_tells_objects_apart(data: Any, value: Any) -> None:
    """Dataclasses, TypedDicts, attrs classes and structs in one union, beside other JSON types."""
    kind = Cat | Dog | Fish | Bird | str | None
    assert read(kind, data) == value
    assert read(list[kind], [data]) == [value]
    jsonschema.validate({"x": data}, parameters(kind).schema)


def test_a_tag_is_required_even_where_it_has_a_default() -> None:
    """Without it nothing tells which class is meant; elsewhere the class is as it was."""
    kind = Cat | Dog
    schemas = said(kind)["anyOf"]
    assert [schema["required"] for schema in schemas] == [["kind", "lives"], ["kind"]]
    assert said(Dog)["required"] == []
    assert refusal(kind, {"lives": 9}) == "misses 'kind' (at $.x)"
    assert refusal(kind, {"kind": CANARY}) == "expected one of 'cat', 'dog' (at $.x.kind)"
    assert refusal(kind, {"kind": [CANARY]}) == "expected one of 'cat', 'dog' (at $.x.kind)"
    assert refusal(kind, {"kind": "cat", "lives": "a"}).endswith("(at $.x.lives)")


@dataclasses.dataclass
class Num:
    v: float
    kind: Literal["num"] = "num"


@dataclasses.dataclass
class Add:
    left: Expr
    right: Expr
    kind: Literal["add"] = "add"


@attrs.define
class Times:
    factors: list[Expr]
    kind: Annotated[Literal["times"], "multiplication"] = "times"


class Minus(TypedDict):
    of: Expr
    kind: Required[Literal["minus"]]


class Power(msgspec.Struct, tag="power", tag_field="kind"):
    of: Expr | None = None


Expr = Num | Add | Times | Minus | Power


@pytest.mark.parametrize("cls", [Add, Times, Minus, Power, Expr], ids=str)
def test_objects_that_hold_themselves_are_told_apart(cls: Any) -> None:
    """Whichever is read first: its literals are known before its other fields are."""
    one = {"kind": "num", "v": 1}
    data = {
        "kind": "add",
        "left": {"kind": "times", "factors": [{"kind": "power", "of": one}]},
        "right": {"kind": "minus", "of": one},
    }
    value = Add(Times([Power(Num(1.0))]), {"kind": "minus", "of": Num(1.0)})
    assert read(Expr, data) == value
    jsonschema.validate({"x": data}, parameters(Expr).schema)
    assert said(cls)


@dataclasses.dataclass
class Not:
    of: Term | None
    kind: Literal["not"] = "not"


@dataclasses.dataclass
class All:
    of: list[Term]
    kind: Literal["all"] = "all"


Term = typing_extensions.TypeAliasType("Term", Not | All)


@pytest.mark.parametrize("cls", [Not, All, Term], ids=str)
def test_an_alias_of_such_objects_may_stand_in_a_union(cls: Any) -> None:
    """Inside of its own members, where it is not known yet."""
    data = {"kind": "not", "of": {"kind": "all", "of": [{"kind": "not", "of": None}]}}
    assert read(Term, data) == Not(All([Not(None)]))
    jsonschema.validate({"x": data}, parameters(Term).schema)
    assert said(cls)


UNIONS: list[tuple[Any, Any, Any]] = [
    (int | float, 1, 1),
    (int | float, 1.0, 1.0),
    (float | int, 1, 1),
    (float | None, 1, 1.0),
    (Decimal | int, 1, 1),
    (Literal["auto"] | int, "auto", "auto"),
    (Literal["auto"] | str, "x", "x"),
    (Literal[1] | float, 1.5, 1.5),
    (Literal["a"] | Literal["b"], "b", "b"),
    (Literal["a", None], None, None),
    (Literal[True, 1], True, True),
    (date | int, "2024-01-02", date(2024, 1, 2)),
    (int | msgspec.UnsetType, 1, 1),
    (Optional[list[int]], [1], [1]),  # noqa: UP045
    (Annotated[int | str, at.Ge(3)], "a", "a"),
]


@pytest.mark.parametrize("row", UNIONS, ids=lambda row: f"{row[0]} {row[1]}"[:60])
def test_unions_are_told_apart_by_their_json_types(row: tuple[Any, Any, Any]) -> None:
    """One type takes each JSON type; integers go to ``int`` where it is there."""
    kind, data, value = row
    found = read(kind, data)
    assert found == value
    assert type(found) is type(value)
    jsonschema.validate({"x": data}, parameters(kind).schema)


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (int | None, "3", 3),
        (int | None, "null", None),
        (float | None, "2.5", 2.5),
        (bool | None, "true", True),
        (int | float, "2.5", 2.5),
        (int | str, "3", "3"),
        (int | None, 3.0, 3),
    ],
)
def test_lenient_unions_take_numbers_as_text(kind: Any, data: Any, value: Any) -> None:
    """Where no member takes text itself."""
    found = read(kind, data, strict=False)
    assert found == value
    assert type(found) is type(value)
    if kind != int | str:
        assert refusal(kind, "nan", strict=False)


# --- formats -------------------------------------------------------------------------------------

FORMATS: list[tuple[Any, dict[str, Any]]] = [
    (datetime, {"type": "string", "format": "date-time"}),
    (date, {"type": "string", "format": "date"}),
    (time, {"type": "string", "format": "time"}),
    (timedelta, {"type": "string", "format": "duration"}),
    (UUID, {"type": "string", "format": "uuid"}),
    (Decimal, {"type": "string", "format": "decimal"}),
    (bytes, {"type": "string", "format": "byte", "contentEncoding": "base64"}),
    (Path, {"type": "string", "format": "path"}),
]


@pytest.mark.parametrize(("kind", "schema"), FORMATS)
def test_a_type_that_is_text_has_a_format(kind: Any, schema: dict[str, Any]) -> None:
    """The names of JSON Schema and OpenAPI where they have one."""
    assert said(kind) == schema


HOUR = timedelta(hours=1)
EXAMPLES: list[tuple[Any, str, Any]] = [
    # RFC 3339, 5.8
    (datetime, "1985-04-12T23:20:50.52Z", datetime(1985, 4, 12, 23, 20, 50, 520000, UTC)),
    (
        datetime,
        "1996-12-19T16:39:57-08:00",
        datetime(1996, 12, 19, 16, 39, 57, tzinfo=timezone(-8 * HOUR)),
    ),
    (datetime, "1990-12-31T23:59:60Z", datetime(1991, 1, 1, tzinfo=UTC)),
    (datetime, "1990-12-31T15:59:60-08:00", datetime(1991, 1, 1, tzinfo=UTC)),
    (
        datetime,
        "1937-01-01T12:00:27.87+00:20",
        datetime(1937, 1, 1, 12, 0, 27, 870000, timezone(HOUR / 3)),
    ),
    (datetime, "2024-01-02t03:04:05z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (datetime, "2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5)),  # noqa: DTZ001
    (datetime, "2024-01-02T03:04:05.123456789Z", datetime(2024, 1, 2, 3, 4, 5, 123456, UTC)),
    (date, "1985-04-12", date(1985, 4, 12)),
    (time, "23:20:50.52Z", time(23, 20, 50, 520000, UTC)),
    (time, "20:20:39+00:00", time(20, 20, 39, tzinfo=UTC)),
    (time, "23:59:60Z", time(0, tzinfo=UTC)),
    (time, "03:04:05", time(3, 4, 5)),
    # RFC 3339, appendix A; ISO 8601
    (timedelta, "P3D", timedelta(3)),
    (timedelta, "PT1H30M", timedelta(hours=1, minutes=30)),
    (timedelta, "P4W", timedelta(28)),
    (timedelta, "P2DT10H30M5.5S", timedelta(2, 5.5, hours=10, minutes=30)),
    (timedelta, "-PT36H", timedelta(hours=-36)),
    (timedelta, "PT0.5H", timedelta(minutes=30)),
    (UUID, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", UUID("f81d4fae7dec11d0a76500a0c91e6bf6")),
    (Decimal, "-1.50", Decimal("-1.50")),
    (Decimal, "1E+3", Decimal("1E+3")),
    (bytes, "", b""),
    (bytes, "YWI=", b"ab"),
    (bytearray, "YWI=", bytearray(b"ab")),
    (Path, "a/b", Path("a/b")),
]


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: f"{row[0].__name__} {row[1]}")
def test_the_examples_of_a_format_are_read(row: tuple[Any, str, Any]) -> None:
    """A time zone may be missing; a leap second is the next second."""
    kind, text, value = row
    assert read(kind, text) == value


NO_EXAMPLES: list[tuple[Any, Any]] = [
    *[
        (datetime, text)
        for text in ("2024-01-02", "2024-13-02T03:04:05Z", "tomorrow", "99999999999")
    ],
    *[
        (datetime, text)
        for text in (
            "2024-01-02T03:04:05+0100",
            "\uff12\uff10\uff12\uff14-01-02T03:04:05Z",
            1e12,
            True,
        )
    ],
    *[(date, text) for text in ("2024-1-2", "2024-02-30", "20240102", "2024-W01-1", "", 20240102)],
    *[(time, text) for text in ("25:00:00", "3:04:05", "03", "noon")],
    *[
        (timedelta, text)
        for text in ("P", "PT", "P1Y", "P1M", "P1Y2M3D", "1 day", "P99999999999D", 5)
    ],
    *[(UUID, text) for text in ("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae", 3)],
    *[
        (Decimal, text)
        for text in ("NaN", "sNaN", "Infinity", "-inf", "1e999999999", "1_000", "\u0663", "")
    ],
    *[(bytes, text) for text in ("a", "YWI", "é", "YWI=YWI=", 3)],
    (Path, "a\0b"),
]


@pytest.mark.parametrize(("kind", "data"), NO_EXAMPLES)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_other_texts_are_refused(kind: Any, data: Any, strict: bool) -> None:
    """In both modes, without the text in the message."""
    words = refusal(kind, data, strict=strict)
    assert words.endswith("(at $.x)")
    starts = ("expected ", "a duration", "a number that is out of range")
    assert words.startswith(starts)


def test_seconds_may_be_missing_leniently() -> None:
    """RFC 3339 asks for them; models leave them out."""
    assert read(datetime, "2024-01-02T03:04Z", strict=False) == datetime(
        2024, 1, 2, 3, 4, tzinfo=UTC
    )
    assert read(time, "03:04", strict=False) == time(3, 4)
    assert refusal(datetime, "2024-01-02T03:04Z")
    assert "no fixed length" in refusal(timedelta, "P1Y")


# --- numbers -------------------------------------------------------------------------------------

NO_NUMBERS = ["nan", "NaN", "-nan", "inf", "-Infinity", "1e999", "-1e999", "9" * 400, "0x10", " 3 "]
NO_NUMBERS += ["1_000", "\u0663", "", "+1", "1.", ".5", "1e", "01", "sNaN", "∞"]
FINITE: list[tuple[Any, Callable[[Any], Any]]] = [
    (float, lambda text: text),
    (Optional[float], lambda text: text),  # noqa: UP045
    (list[float], lambda text: [text]),
    (dict[str, float], lambda text: {"a": text}),
    (tuple[int, float], lambda text: [1, text]),
    (dict[float, int], lambda text: {text: 1}),
    (Annotated[float, at.Ge(0), at.Le(9)], lambda text: text),
    (holder(float), lambda text: {"x": text}),
]


@pytest.mark.parametrize(("kind", "wrap"), FINITE, ids=[str(row[0])[:40] for row in FINITE])
def test_numbers_are_finite(kind: Any, wrap: Callable[[Any], Any]) -> None:
    """In containers, classes, unions and keys, strictly and leniently."""
    for text in NO_NUMBERS:
        refusal(kind, wrap(text), strict=False)
        refusal(kind, wrap(text))


def test_numbers_that_no_json_could_hold_are_refused() -> None:
    """Whoever passes a float of his own."""
    for number in (float("nan"), float("inf"), 10**400):
        assert "out of range" in refusal(float, number)
    assert "out of range" in refusal(Decimal, 10**9999)
    assert read(int, 10**4000) == 10**4000


# --- constraints ---------------------------------------------------------------------------------

CONSTRAINED: list[tuple[Any, dict[str, Any], list[Any], list[Any]]] = [
    # type, schema, data that fits, data that does not
    (Annotated[int, at.Ge(1), at.Lt(5)], {"type": "integer", "minimum": 1, "exclusiveMaximum": 5},
     [1, 4], [0, 5]),
    (Annotated[int, at.Interval(gt=1, le=5)],
     {"type": "integer", "exclusiveMinimum": 1, "maximum": 5}, [2, 5], [1, 6]),
    (Annotated[float, at.MultipleOf(0.5)], {"type": "number", "multipleOf": 0.5},
     [0.5, 1, 7.5], [0.35]),
    (Annotated[str, at.Len(2, 3)], {"type": "string", "minLength": 2, "maxLength": 3},
     ["ab", "abc"], ["a", "abcd"]),
    (Annotated[list[int], at.MinLen(1)],
     {"type": "array", "items": {"type": "integer"}, "minItems": 1}, [[1]], [[]]),
    (Annotated[dict[str, int], at.MaxLen(1)],
     {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
     [{}], [{"a": 1, "b": 2}]),
    (Annotated[bytes, at.MinLen(4)],
     {"type": "string", "format": "byte", "contentEncoding": "base64", "minLength": 8},
     ["YWJjZA=="], ["YWJjYQ", "YWJj"]),
    (Annotated[bytes, at.MaxLen(1)],
     {"type": "string", "format": "byte", "contentEncoding": "base64", "maxLength": 4,
      "pattern": "^(.{0,0}|.{2}==)$"}, ["", "YQ=="], ["YWI=", "YWJj"]),
    (Annotated[bytes, at.Len(2, 5)],
     {"type": "string", "format": "byte", "contentEncoding": "base64", "minLength": 4,
      "maxLength": 8, "pattern": "^.{2}[^=]", "allOf": [{"pattern": "^(.{0,4}|.{7}=)$"}]},
     ["YWI=", "YWJj", "YWJjZA==", "YWJjZGU="], ["YQ==", "YWJjZGVm", ""]),
    (Annotated[bytes, at.MinLen(3)],
     {"type": "string", "format": "byte", "contentEncoding": "base64", "minLength": 4,
      "pattern": "^.{3}[^=]"}, ["YWJj", "YWJjZA=="], ["YWI=", "YQ=="]),
    (Annotated[bytes, at.MinLen(1000)],
     {"type": "string", "format": "byte", "contentEncoding": "base64", "minLength": 1336}, [], []),
    (Annotated[int, at.Ge(5), at.Ge(1), at.Lt(9), at.Lt(20)],
     {"type": "integer", "minimum": 5, "exclusiveMaximum": 9}, [5, 8], [1, 9]),
    (Annotated[int, at.MultipleOf(4), at.MultipleOf(6)],
     {"type": "integer", "multipleOf": 12}, [12], [4, 6]),
    (Annotated[float, at.MultipleOf(0.5), at.MultipleOf(0.25)],
     {"type": "number", "multipleOf": 0.5, "allOf": [{"multipleOf": 0.25}]}, [0.5], [0.25]),
    (Annotated[str, at.MinLen(2), at.MinLen(1), msgspec.Meta(pattern="^a"),
               msgspec.Meta(pattern="z$")],
     {"type": "string", "minLength": 2, "pattern": "^a", "allOf": [{"pattern": "z$"}]},
     ["az"], ["a", "ab", "bz"]),
    (Annotated[dict[str, int], at.MaxLen(1), at.MaxLen(2)],
     {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
     [{}], [{"a": 1, "b": 2}]),
    (Annotated[Decimal, at.Ge(0)], {"type": "number", "minimum": 0}, [1.5], [-1]),
    (Annotated[int, msgspec.Meta(ge=1, multiple_of=2)],
     {"type": "integer", "minimum": 1, "multipleOf": 2}, [2], [0, 3]),
    (Annotated[str, msgspec.Meta(pattern="^[A-Z]+$", max_length=3)],
     {"type": "string", "pattern": "^[A-Z]+$", "maxLength": 3}, ["AB"], ["ab", "ABCD"]),
    (Annotated[datetime, msgspec.Meta(tz=True)], {"type": "string", "format": "date-time"},
     ["2024-01-02T03:04:05Z"], ["2024-01-02T03:04:05"]),
    (Annotated[int | None, at.Ge(1)],
     {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, [1, None], [0]),
    (Annotated[Annotated[int, at.Ge(1)], at.Le(3), "few"],
     {"type": "integer", "minimum": 1, "maximum": 3, "description": "few"}, [1, 3], [0, 4]),
    (list[Annotated[int, at.Ge(1), "each"]],
     {"type": "array", "items": {"type": "integer", "minimum": 1, "description": "each"}},
     [[1]], [[0]]),
    (Annotated[str, msgspec.Meta(description="d", examples=["a"], title="t",
                                 extra_json_schema={"x-a": 1})],
     {"type": "string", "description": "d", "examples": ["a"], "title": "t", "x-a": 1}, ["b"], []),
]  # fmt: skip


@pytest.mark.parametrize("row", CONSTRAINED, ids=lambda row: str(row[0])[:60])
def test_constraints_are_said_and_hold(
    row: tuple[Any, dict[str, Any], list[Any], list[Any]],
) -> None:
    """In the schema that the model is given, and when its data is read, in both modes."""
    kind, schema, fits, misfits = row
    assert said(kind) == schema
    whole = parameters(kind).schema
    for data in fits:
        assert read(kind, data) == read(kind, data, strict=False)
        jsonschema.validate({"x": data}, whole)
    for data in misfits:
        refusal(kind, data)
        refusal(kind, data, strict=False)


def test_multiples_are_those_of_the_decimal_that_was_written() -> None:
    """0.3 is a multiple of 0.1, whatever their binary fractions are; ``Decimal`` takes numbers too."""
    assert read(Annotated[float, at.MultipleOf(0.1)], 0.3) == 0.3
    assert (
        refusal(Annotated[float, at.MultipleOf(0.1)], 0.35) == "expected a multiple of 0.1 (at $.x)"
    )
    assert read(Decimal | int, 1.5) == read(Decimal, 1.5) == Decimal("1.5")


UNSAID: list[tuple[Any, str]] = [
    (Annotated[str, at.Ge(1)], "str: ge=1 cannot be said of it"),
    (Annotated[date, at.Ge(date(2024, 1, 2))], r"ge=datetime.date\(2024, 1, 2\) cannot be said"),
    (Annotated[int, at.MinLen(1)], "min_length=1 cannot be said"),
    (Annotated[int, at.Predicate(bool)], "Predicate cannot be said in JSON Schema"),
    (at.LowerCase[str], "Predicate cannot be said"),
    (Annotated[datetime, at.Timezone("Europe/Rome")], "Timezone cannot be said"),
    (Annotated[int, msgspec.Meta(pattern="a")], "pattern='a' cannot be said"),
    (Annotated[str, msgspec.Meta(pattern="a")] | int, ""),
    (Annotated[Literal["a"], at.MinLen(1)], "min_length=1 cannot be said"),
    (Annotated[timedelta, at.Gt(timedelta(0))], "cannot be said"),
    (Annotated[datetime, at.Timezone(None)], "tz=False cannot be said"),
    (Annotated[time, msgspec.Meta(tz=False)], "tz=False cannot be said"),
    (Annotated[int, at.MultipleOf(0)], "multiple_of=0: a multiple is of a number above 0"),
    (Annotated[float, at.MultipleOf(-0.5)], "multiple_of=-0.5: a multiple is"),
    (Annotated[Decimal, at.MultipleOf(Decimal("1e-400"))], "a multiple is of a number above 0"),
    (Annotated[str, at.MinLen("a")], "min_length='a': a length is an int"),  # type: ignore[arg-type]
    (Annotated[str, at.MinLen(-1)], "min_length=-1: a length is an int"),
    (Annotated[str, at.MinLen(1.5)], "min_length=1.5: a length is an int"),  # type: ignore[arg-type]
    (Annotated[list[int], at.MaxLen(True)], "max_length=True: a length is an int"),
    (Annotated[float, at.Ge(float("nan"))], "ge=nan: a bound is finite"),
    (Annotated[int | None, at.Ge(float("inf"))], "ge=inf: a bound is finite"),
    (Annotated[Decimal, at.Lt(Decimal("sNaN"))], "a bound is finite"),
    (Annotated[Decimal, at.Lt(Decimal("1e400"))], "a bound is finite"),
    (dict[Annotated[int, at.Ge(5)], int], "keys are text, which has no bounds"),
    (dict[Annotated[Decimal, at.Ge(5), "d"], int], "keys are text, which has no bounds"),
]


@pytest.mark.parametrize("bound", [at.Le, at.MaxLen])
def test_a_bound_that_python_cannot_write_is_refused(bound: Any) -> None:
    with pytest.raises(TypeError, match=r"describe: x: int: \w+ is a number of more than"):
        parameters(Annotated[int, bound(10**5000)])


def test_keys_that_are_numbers_have_a_pattern() -> None:
    """So that whoever fills the schema invents no words."""
    names = said(dict[float, int])["propertyNames"]
    assert names == {"pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"}
    assert read(dict[float, int], {"-1.5": 1, "2": 2}) == {-1.5: 1, 2.0: 2}
    assert said(dict[Annotated[Annotated[float, "d"], "e"], int])["propertyNames"] == names


@pytest.mark.parametrize(("kind", "words"), UNSAID, ids=lambda each: str(each)[:60])
def test_a_constraint_that_cannot_be_said_is_refused(kind: Any, words: str) -> None:
    """A TypeError that names the constraint and the field, for parameters and fields."""
    if not words:
        assert said(kind)
        return
    with pytest.raises(TypeError, match=f"describe: x: .*({words})"):
        parameters(kind)
    with pytest.raises(TypeError, match=f"describe: Holder.x: .*({words})"):
        Answer.of(holder(kind), "into=")


def test_what_annotated_holds_for_others_is_left_alone() -> None:
    """Metadata of frameworks means nothing here (PEP 593)."""
    assert said(Annotated[int, 3, object(), {"a": 1}]) == {"type": "integer"}


# --- words and order -----------------------------------------------------------------------------


class Step(TypedDict):
    reasoning: Annotated[str, "first think"]
    answer: str


class Size(enum.Enum):
    """How large."""

    SMALL = "s"
    MEDIUM = "m"
    LARGE = "l"


@attrs.define
class Meeting:
    """A meeting."""

    title: Annotated[str, "short title"]
    when: datetime
    size: Size = Size.MEDIUM
    place: Annotated[Leaf | None, "where"] = None


def test_fields_of_answers_have_descriptions() -> None:
    """``Annotated[str, "..."]`` in a class, an enum's docstring, defaults beside them."""
    schema = Answer.of(Meeting, "into=").schema
    properties = schema["properties"]
    assert schema["description"] == "A meeting."
    assert properties["title"] == {"type": "string", "description": "short title"}
    assert properties["size"] == {
        "type": "string",
        "enum": ["s", "m", "l"],
        "description": "How large.",
        "default": "m",
    }
    assert (properties["place"]["description"], properties["place"]["default"]) == ("where", None)
    assert said(Step)["properties"]["reasoning"]["description"] == "first think"


def test_the_order_of_declaration_is_kept() -> None:
    """A model that is to think first must be asked for it first."""
    assert list(said(Step)["properties"]) == said(Step)["required"] == ["reasoning", "answer"]
    assert said(Literal["small", "medium", "large"])["enum"] == ["small", "medium", "large"]
    assert said(Size)["enum"] == ["s", "m", "l"]
    assert list(said(Point)["properties"]) == ["x", "y"]
    assert [part["type"] for part in said(str | int | None)["anyOf"]] == [
        "string",
        "integer",
        "null",
    ]


def test_words_of_a_docstring_win_over_those_of_a_class() -> None:
    """They are about this parameter; ``Annotated`` is nearer still."""

    def f(a: Meeting, b: Annotated[Meeting, "b's own"], c: Meeting) -> None:
        """Do. a: the first. b: the second."""

    properties = Parameters.of(f, "f").schema["properties"]
    assert [properties[name]["description"] for name in "abc"] == [
        "the first.",
        "b's own",
        "A meeting.",
    ]
