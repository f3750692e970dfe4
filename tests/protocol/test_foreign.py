"""pydantic's classes: described, read and written by pydantic itself, which is not imported for it."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar

import annotated_types
import attrs
import jsonschema
import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field

from streamchat.protocol.kinds import Misfit
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.schema import Answer, Parameters, plain_value

from .helpers import CANARY, ROOT, parameters


class Address(BaseModel):
    """Where."""

    street: str
    number: int = Field(ge=1, le=999, description="house number")


class Person(BaseModel):
    name: str = Field(alias="fullName", min_length=1)
    born: datetime.date | None = None
    home: Address
    more: list[Address] = []

    @pydantic.field_validator("born")
    @classmethod
    def _past(cls, value: datetime.date | None) -> datetime.date | None:
        if value is not None and value.year > 2000:
            raise ValueError("must be born before 2001")
        return value

    @pydantic.model_validator(mode="after")
    def _no_one(self) -> Person:
        assert self.name != "Nobody", "nobody lives there"
        return self


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    at: datetime.datetime
    n: int = 0


class Tree(BaseModel):
    v: int
    kids: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    bark: str


@pydantic.dataclasses.dataclass
class Point:
    x: float
    y: Annotated[float, Field(gt=0)] = 1.0


@attrs.define
class Holder:
    person: Person
    points: list[Point] = attrs.Factory(list)


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    value: T


LIMA = {"street": "A", "number": 1}
ADA = {"fullName": "Ada", "born": "1815-12-10", "home": LIMA}


def test_a_model_is_described_by_itself() -> None:
    """Its own ``model_json_schema``: aliases, constraints, descriptions, definitions."""
    assert Answer.of(Person, "into=").schema == Person.model_json_schema()
    schema = parameters(Person).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"x": ADA}, schema)
    assert list(schema["$defs"]) == ["Address"]
    assert parameters(Tree).schema["properties"]["x"] == {"$ref": "#/$defs/Tree"}


def test_an_answer_is_an_object_at_its_top() -> None:
    """``response_format`` takes no reference there; what has defaults alone requires all."""
    schema = Answer.of(Tree, "into=").schema
    assert (schema["type"], schema["required"]) == ("object", ["v"])
    jsonschema.validate({"v": 1, "kids": [{"v": 2}]}, schema)

    class Free(BaseModel):
        a: int = 1
        b: str = ""

    assert Answer.of(Free, "into=").schema["required"] == ["a", "b"]


def test_definitions_of_several_models_are_kept_apart() -> None:
    """Two of one name have two definitions; one that occurs twice has one."""

    def make(kind: Any) -> Any:
        inner = pydantic.create_model("Inner", v=(kind, ...))
        return pydantic.create_model("Outer", a=(inner, ...), b=(Address, ...))

    def f(a: Any, b: Any, c: Any) -> None: ...

    one, other = make(int), make(str)
    f.__annotations__ = {"a": one, "b": other, "c": Address}
    read = Parameters.of(f, "f")
    assert list(read.schema["$defs"]) == ["Address", "Inner", "Inner_2"]
    data = {
        "a": {"a": {"v": 1}, "b": LIMA},
        "b": {"a": {"v": "x"}, "b": LIMA},
        "c": LIMA,
    }
    jsonschema.validate(data, read.schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "b": {"a": {"v": 1}, "b": LIMA}}, read.schema)
    assert read.read(data, strict=False)["b"].a.v == "x"


READ: list[tuple[Any, Any, Any]] = [
    (Person, ADA, Person.model_validate(ADA)),
    (Tree, {"v": 1, "kids": [{"v": 2}]}, Tree(v=1, kids=[Tree(v=2)])),
    (Strict, {"at": "2024-01-02T03:04:05"}, Strict(at=datetime.datetime(2024, 1, 2, 3, 4, 5))),  # noqa: DTZ001
    (Point, {"x": 1}, Point(1.0)),
    (Cat | Dog, {"kind": "dog", "bark": "w"}, Dog(kind="dog", bark="w")),
    (Cat | Dog | None, None, None),
    (list[Cat | Dog], [{"kind": "cat", "lives": 9}], [Cat(lives=9)]),
    (Address | Tree, {"v": 3}, Tree(v=3)),
    (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cat", "lives": 1}, Cat(lives=1)),
    (Box[int], {"value": 3}, Box[int](value=3)),
    (Box[Box[datetime.date]], {"value": {"value": "2024-01-02"}},
     Box[Box[datetime.date]](value=Box[datetime.date](value=datetime.date(2024, 1, 2)))),
    (Annotated[int, pydantic.AfterValidator(lambda v: v + 1)], 3, 4),
    (pydantic.HttpUrl, "https://a.b/", pydantic.HttpUrl("https://a.b/")),
]  # fmt: skip


@pytest.mark.parametrize("row", READ, ids=lambda row: f"{row[0]}"[:50])
def test_arguments_and_answers_are_read_by_pydantic(row: tuple[Any, Any, Any]) -> None:
    """Alike in both, inside attrs classes and unions too."""
    kind, data, value = row
    assert parameters(kind).read({"x": data}, strict=True) == {"x": value}
    into = attrs.make_class("Into", {"x": attrs.field(type=kind)})
    found = Answer.of(into, "into=").read({"x": data}).x
    assert found == value
    assert type(found) is type(value)
    jsonschema.validate({"x": data}, parameters(kind).schema)


def test_models_may_stand_in_classes_of_others() -> None:
    """attrs around a model, a pydantic dataclass beside it."""
    read = Answer.of(Holder, "into=").read({"person": ADA, "points": [{"x": 1}]})
    assert read == Holder(Person.model_validate(ADA), [Point(1.0)])


REFUSED: list[tuple[Any, Any, str, str]] = [
    (Person, {**ADA, "born": "2001-01-01"}, "must be born before 2001", "$.x.born"),
    (Person, {**ADA, "fullName": "Nobody"}, "nobody lives there", "$.x"),
    (Person, {**ADA, "home": {"street": "A", "number": CANARY}}, "", "$.x.home.number"),
    (Person, {**ADA, "more": [LIMA, {"street": "A"}]}, "", "$.x.more[1].number"),
    (Person, CANARY, "", "$.x"),
    (Strict, {"at": "2024-01-02T03:04:05", "n": "3"}, "", "$.x.n"),
    (Strict, {"at": "2024-01-02T03:04:05", CANARY: 1}, "", "$.x[...]"),
    (Point, {"x": 1, "y": -1}, "", "$.x.y"),
    (dict[str, Point], {CANARY: {"x": "a"}}, "", "$.x[...].x"),
    (pydantic.create_model("M", t=(dict[str, int], ...)), {"t": {CANARY: "a"}}, "", "$.x.t[...]"),
    (pydantic.create_model("M", u=(int | list[int], ...)), {"u": ["a"]}, "", "$.x.u"),
    (
        pydantic.create_model("M", p=(Annotated[Cat | Dog, Field(discriminator="kind")], ...)),
        {"p": {"kind": CANARY}},
        "expected one of 'cat', 'dog'",
        "$.x.p",
    ),
    (Point, {"x": "\ud83d"}, "text that is not valid Unicode", "$.x"),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row[0]} {row[3]}"[:60])
def test_errors_of_pydantic_have_reason_and_path(row: tuple[Any, Any, str, str]) -> None:
    """A validator's own words, the field's path, no value, and no exception of pydantic's behind."""
    kind, data, reason, path = row
    with pytest.raises(ValueError, match=r"\(at ") as caught:
        parameters(kind).read({"x": data}, strict=False)
    words = str(caught.value)
    assert words.startswith(reason)
    assert words.endswith(f"(at {path})") or words.rpartition("(at ")[2].startswith(path)
    assert CANARY not in words
    assert "pydantic" not in words
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None is caught.value.__cause__


class Raises(BaseModel):
    a: int

    @pydantic.field_validator("a")
    @classmethod
    def _fail(cls, value: int) -> int:
        raise {1: LookupError(CANARY), 2: StopIteration(CANARY), 3: ValueError("w" * 9000)}[value]


def test_other_exceptions_of_a_model_are_misfits_too() -> None:
    """Whatever a validator raises; long words are cut."""
    reader = Answer.of(Raises, "into=")
    for number, words in ((1, "LookupError"), (2, "StopIteration"), (3, "www")):
        with pytest.raises(Misfit) as caught:
            reader.read({"a": number})
        assert words in caught.value.reason
        assert CANARY not in caught.value.reason
        assert len(caught.value.reason) <= 500 + len("...")


def test_very_many_errors_are_counted() -> None:
    """pydantic would list all of them for the first: half a second for 300,000."""
    kind = pydantic.create_model("M", n=(list[int], ...))
    with pytest.raises(Misfit) as caught:
        Answer.of(kind, "into=").read({"n": ["z"] * 20_000})
    assert caught.value.reason == "20000 values that do not fit"


class Numbers(BaseModel):
    f: float = 1.0
    d: decimal.Decimal = decimal.Decimal(1)
    name: str = ""
    inner: list[dict[str, float]] = []
    limit: float = float("inf")


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "NaN", "1e999", "sNaN"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: {"f": text},
        lambda text: {"d": text.replace("999", "9999")},
        lambda text: {"inner": [{"a": text}]},
    ],
    ids=["float", "Decimal", "inside"],
)
@pytest.mark.parametrize("strict", [False, True])
def test_numbers_of_models_are_finite(wrap: Callable[[str], Any], text: str, strict: bool) -> None:
    """pydantic alone would take NaN and infinity as text."""
    with pytest.raises(ValueError, match=r"\(at \$"):
        parameters(Numbers).read({"x": wrap(text)}, strict=strict)


def test_text_that_reads_like_no_number_is_text() -> None:
    """A name may be Nan; a default may be infinite."""
    read = parameters(Numbers).read({"x": {"name": "Nan"}}, strict=True)["x"]
    assert (read.name, read.limit) == ("Nan", float("inf"))


# --- what cannot be said -------------------------------------------------------------------------


class Calls(BaseModel):
    ok: int
    hook: Callable[[], int]


class Classes(BaseModel):
    ok: int
    kind: type[int]


class Open(BaseModel):
    other: Nowhere  # type: ignore[name-defined]  # noqa: F821


class Root(pydantic.RootModel[list[int]]):
    pass


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Calls, r"Calls\.hook: "), (Classes, r"Classes\.kind: "), (Open, "Open|Nowhere")],
)
def test_a_model_that_cannot_be_said_is_refused_at_the_call(kind: Any, words: str) -> None:
    """A TypeError of ours that names the field."""
    for make in (lambda: parameters(kind), lambda: Answer.of(kind, "into=")):
        with pytest.raises(TypeError, match=f"JSON Schema cannot describe: .*{words}") as caught:
            make()
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_model_without_fields_is_no_answer() -> None:
    """A root model of a list is an array, which ``response_format`` does not take."""
    with pytest.raises(TypeError, match="must be a class with fields"):
        Answer.of(Root, "into=")
    assert parameters(Root).read({"x": [1]}, strict=True)["x"] == Root([1])


@dataclasses.dataclass
class Defaulted:
    n: int = Field(default=3, ge=1)


def test_a_field_as_a_default_is_refused() -> None:
    """Outside of pydantic it is an object like any other, and would be the value."""
    with pytest.raises(TypeError, match=r"Defaulted.n: its default is a Field\(...\)"):
        Answer.of(Defaulted, "into=")

    def f(n: int = Field(ge=1)) -> None: ...

    with pytest.raises(TypeError, match=r"write n: Annotated\[..., Field\(...\)\]"):
        Parameters.of(f, "f")


NOTED: list[tuple[Any, dict[str, Any]]] = [
    (
        Annotated[int, Field(ge=1, lt=5, multiple_of=2, description="d", examples=[2])],
        {
            "type": "integer",
            "minimum": 1,
            "exclusiveMaximum": 5,
            "multipleOf": 2,
            "description": "d",
            "examples": [2],
        },
    ),
    (
        Annotated[str, Field(min_length=1, max_length=3, pattern="^a", title="T")],
        {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^a", "title": "T"},
    ),
    (Annotated[list[str], Field(min_length=1)],
     {"type": "array", "items": {"type": "string"}, "minItems": 1}),
    (Annotated[int, Field(json_schema_extra={"x-a": 1})], {"type": "integer", "x-a": 1}),
    (pydantic.PositiveInt, {"type": "integer", "exclusiveMinimum": 0}),
    (pydantic.conint(ge=2), {"type": "integer", "minimum": 2}),
    (pydantic.FiniteFloat, {"type": "number"}),
    (Annotated[str, pydantic.StringConstraints(max_length=2)], {"type": "string", "maxLength": 2}),
    (Annotated[float, annotated_types.Gt(0)], {"type": "number", "exclusiveMinimum": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "schema"), NOTED, ids=lambda each: f"{each}"[:60])
def test_field_and_its_kin_are_constraints(kind: Any, schema: dict[str, Any]) -> None:
    """For parameters of plain types, without a model."""
    assert parameters(kind).schema["properties"]["x"] == schema


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Annotated[int, Field(default=3)], r"Field\(default=...\) means something in a pydantic"),
        (Annotated[int, Field(alias="y")], r"Field\(alias=...\) means something in a pydantic"),
        (Annotated[int, Field(default_factory=int)], r"Field\(default_factory=...\)"),
        (Annotated[int, Field(min_length=3)], "min_length=3 cannot be said"),
        (Annotated[int, Field(pattern="a")], "pattern='a' cannot be said"),
    ],
    ids=lambda each: f"{each}"[:60],
)
def test_what_a_field_cannot_do_alone_is_refused(kind: Any, words: str) -> None:
    """A TypeError that names what cannot be said."""
    with pytest.raises(TypeError, match=f"describe: x: int: {words}"):
        parameters(kind)


# --- each kind of field --------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "r"


class Named(NamedTuple):
    a: int
    b: str = "x"


@dataclasses.dataclass
class Data:
    a: int


FIELDS: dict[str, tuple[Any, Any, bool]] = {
    # type, data, whether a model may have it
    "bool": (bool, True, True),
    "int": (int, 3, True),
    "float": (float, 1.5, True),
    "str": (str, "x", True),
    "bytes": (bytes, "YWI=", True),
    "None": (None, None, True),
    "date": (datetime.date, "2024-01-02", True),
    "datetime": (datetime.datetime, "2024-01-02T03:04:05Z", True),
    "time": (datetime.time, "03:04:05", True),
    "timedelta": (datetime.timedelta, "P1D", True),
    "UUID": (uuid.UUID, str(uuid.UUID(int=1)), True),
    "Decimal": (decimal.Decimal, "1.5", True),
    "complex": (complex, "1+2j", True),
    "Fraction": (fractions.Fraction, "1/2", True),
    "Enum": (Color, "r", True),
    "Literal": (Literal["x"], "x", True),
    "list": (list[int], [1], True),
    "tuple": (tuple[int, str], [1, "a"], True),
    "NamedTuple": (Named, [1, "a"], True),
    "set": (set[int], [1], True),
    "frozenset": (frozenset[int], [1], True),
    "deque": (collections.deque[int], [1], True),
    "Sequence": (Sequence[int], [1], True),
    "Iterable": (Iterable[int], [1], True),
    "dict": (dict[str, int], {"a": 1}, True),
    "defaultdict": (collections.defaultdict[str, int], {"a": 1}, True),
    "OrderedDict": (collections.OrderedDict[str, int], {"a": 1}, True),
    "Counter": (collections.Counter[str], {"a": 1}, True),
    "dataclass": (Data, {"a": 1}, True),
    "pydantic dataclass": (Point, {"x": 1}, True),
    "model": (Address, LIMA, True),
    "Any": (Any, [1], True),
    "Optional": (Optional[int], None, True),  # noqa: UP045
    "Union": (int | str, "x", True),
    "Callable": (Callable[[], int], None, False),
    "type": (type[int], None, False),
    "Pattern": (re.Pattern, "a+", True),
    "Path": (pathlib.Path, "a", True),
    "IPv4Address": (ipaddress.IPv4Address, "1.2.3.4", True),
    "IPv6Network": (ipaddress.IPv6Network, "::/64", True),
    "AnyUrl": (pydantic.AnyUrl, "http://a.b/", True),
    "SecretStr": (pydantic.SecretStr, "s", True),
    "Json": (pydantic.Json[Any], "[1]", True),
    "ByteSize": (pydantic.ByteSize, "1kb", True),
    "ImportString": (pydantic.ImportString[Any], "math.pi", True),
    "PositiveInt": (pydantic.PositiveInt, 3, True),
    "conint": (pydantic.conint(ge=2, multiple_of=2), 4, True),
    "constr": (pydantic.constr(pattern="^a", to_lower=True), "abc", True),
    "condecimal": (pydantic.condecimal(max_digits=3), "1.5", True),
    "StrictInt": (pydantic.StrictInt, 3, True),
    "PastDate": (pydantic.PastDate, "2020-01-01", True),
    "AwareDatetime": (pydantic.AwareDatetime, "2024-01-02T03:04:05Z", True),
    "UUID4": (pydantic.UUID4, "c57a57e2-cbee-4b05-a482-bc5d755f94b5", True),
    "Base64Bytes": (pydantic.Base64Bytes, "YWI=", True),
    "JsonValue": (pydantic.JsonValue, {"a": [1]}, True),
    "validators": (Annotated[int, pydantic.WrapValidator(lambda v, h: h(v))], 3, True),
    "InstanceOf": (pydantic.InstanceOf[int], 3, True),
    "discriminated": (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cat", "lives": 1},
                      True),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_each_kind_of_field_works_or_is_refused_at_the_call(name: str) -> None:
    """In a model by pydantic; as a parameter and in an attrs class by us, or a TypeError."""
    kind, data, in_model = FIELDS[name]
    model = pydantic.create_model("Model", p=(kind, ...))
    if in_model:
        answer = Answer.of(model, "into=")
        jsonschema.Draft202012Validator.check_schema(answer.schema)
        assert answer.read({"p": data}) is not None
    else:
        with pytest.raises(TypeError, match=r"Model\.p"):
            Answer.of(model, "into=")
    try:
        alone = parameters(kind)
    except TypeError as error:
        assert str(error).startswith("tool f has a type that JSON Schema cannot describe: x: ")  # noqa: PT017
    else:
        jsonschema.Draft202012Validator.check_schema(alone.schema)
        assert "x" in alone.read({"x": data}, strict=False)


# --- as what is sent -----------------------------------------------------------------------------


class TextPart(BaseModel):
    type: Literal["text"] = "text"
    text: str


class Turn(BaseModel):
    role: str
    content: str | list[TextPart]


def asked(**options: Any) -> dict[str, Any]:
    return ChatRequest.build(options.pop("messages", "Hi"), "m", options).to_dict()


def test_models_are_documents() -> None:
    """Their fields are the document's data, unless they are a document already."""

    class Document(BaseModel):
        data: dict[str, str]
        id: str

    home = Address.model_validate(LIMA)
    sent = asked(
        documents=[home, Point(1.0), Document(data={"a": "b"}, id="d"), {"data": {"at": home}}]
    )
    assert sent["documents"] == [
        {"data": LIMA},
        {"data": {"x": 1.0, "y": 1.0}},
        {"data": {"a": "b"}, "id": "d"},
        {"data": {"at": LIMA}},
    ]


def test_models_are_messages_and_their_contents() -> None:
    """A turn, a part, or a whole content, which is JSON text."""
    home = Address.model_validate(LIMA)
    sent = asked(
        messages=[
            Turn(role="system", content="Be."),
            {"role": "user", "content": home},
            {"role": "user", "content": [TextPart(text="a")]},
        ]
    )
    assert sent["messages"] == [
        {"role": "system", "content": "Be."},
        {"role": "user", "content": '{"street":"A","number":1}'},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
    ]


def test_a_model_that_cannot_write_itself_is_refused() -> None:
    """A ValueError of ours that names the place; nothing of pydantic leaves."""

    class Broken(BaseModel):
        a: int

        @pydantic.field_serializer("a")
        def _write(self, value: int) -> Any:
            raise LookupError

    for make in (lambda: asked(documents=[Broken(a=1)]), lambda: plain_value(Broken(a=1))):
        with pytest.raises(ValueError, match="is of type Broken, which cannot write itself"):
            make()


def test_pydantic_is_not_imported_by_us() -> None:
    """Neither with the package nor by tools and answers of other classes."""
    code = (
        "import sys, attrs, streamchat\n"
        "from streamchat.protocol.schema import Answer, Parameters, plain_value\n"
        "@attrs.define\n"
        "class A: x: int\n"
        "def f(a: A) -> None: ...\n"
        "Parameters.of(f, 'f').read({'a': {'x': 1}}, strict=True)\n"
        "Answer.of(A, 'into=').read({'x': 1}); plain_value(A(1))\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('pydantic', 'annotated_types')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == b"[]"


class Tiger(BaseModel):
    lives: int


class Hound(BaseModel):
    bark: str


class Either(pydantic.RootModel[int | str]):
    pass


class Level(enum.Enum):
    LOW = 1
    HIGH = "high"


class Leveled(pydantic.RootModel[Level]):
    pass


OPTIONAL: list[tuple[Any, Any, Any]] = [
    (Tiger | Hound | None, {"bark": "woof"}, Hound(bark="woof")),
    (pydantic.ByteSize | None, "1kB", 1000),
    (
        Annotated[decimal.Decimal, Field(max_digits=4)] | None,
        "1.5",
        decimal.Decimal("1.5"),
    ),
    (Either | None, "a", Either("a")),
    (Leveled | None, "high", Leveled(Level.HIGH)),
    (list[int] | Either, 3, Either(3)),
]


@pytest.mark.parametrize("row", OPTIONAL, ids=lambda row: str(row[0])[:60])
def test_a_type_whose_schema_has_no_type_may_be_left_out(row: tuple[Any, Any, Any]) -> None:
    """Its JSON types stand in its options, its values or its definition."""
    kind, data, value = row
    read = parameters(kind)
    assert read.read({"x": data}, strict=True) == {"x": value}
    jsonschema.validate({"x": data}, read.schema)
    if kind is not OPTIONAL[-1][0]:
        assert read.read({"x": None}, strict=True) == {"x": None}


def test_a_type_that_may_be_anything_has_no_place_beside_null() -> None:
    """What its schema does not say cannot be told apart."""
    with pytest.raises(TypeError, match="both JSON's null"):
        parameters(pydantic.RootModel[Any] | None)


class Deep(BaseModel):
    x: int = Field(validation_alias=pydantic.AliasPath("p", 0))


class DeepInside(BaseModel):
    deep: list[Deep]


@pydantic.dataclasses.dataclass
class DeepData:
    x: int = Field(
        validation_alias=pydantic.AliasChoices(
            pydantic.AliasPath("p", 0), pydantic.AliasPath("q", 0)
        )
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Deep, r"Deep\.x: its"),
        (DeepData, r"DeepData\.x: its"),
        (DeepInside, r"x: Deep\.x: its"),
        (Deep | Tiger, r"describe: Deep\.x: its"),
    ],
    ids=str,
)
def test_a_field_that_is_read_from_inside_another_is_refused(kind: Any, words: str) -> None:
    """pydantic's schema promises the field, and its reader wants another."""
    with pytest.raises(TypeError, match=f"{words} validation_alias is a path"):
        parameters(kind)


class Shallow(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    x: int = Field(validation_alias=pydantic.AliasPath("p", 0))


class Choosing(BaseModel):
    x: int = Field(validation_alias=pydantic.AliasChoices(pydantic.AliasPath("q", 0), "p"))


@pytest.mark.parametrize(("kind", "name"), [(Shallow, "x"), (Choosing, "p")], ids=str)
def test_a_path_beside_a_name_is_read_by_the_name(kind: Any, name: str) -> None:
    read = parameters(kind)
    assert read.schema["properties"]["x"]["required"] == [name]
    assert read.read({"x": {name: 3}}, strict=True)["x"].x == 3
