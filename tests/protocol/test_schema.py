"""Types as JSON Schema and JSON data as those types: what is promised is what is read."""

from __future__ import annotations

import dataclasses
import enum
import functools
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID

import attrs
import jsonschema
import msgspec
import pytest

from streamchat.protocol.kinds import Misfit
from streamchat.protocol.schema import Answer, Parameters, object_schema, plain_value

from .helpers import CANARY, ROOT


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.define
class Place:
    """A place."""

    city: str
    country: str = "PE"


@dataclasses.dataclass
class Box:
    width: int
    label: str | None = None


class Row(TypedDict):
    key: int
    note: NotRequired[str]


@dataclasses.dataclass
class Node:
    value: int
    children: list[Node] = dataclasses.field(default_factory=list)


class Wide(TypedDict):
    own: Own
    other: Other


class Own(TypedDict):
    own: list[Own]
    other: Other


class Other(TypedDict):
    wide: list[Wide]


@attrs.define
class Titled:
    """Its fields are called like words of JSON Schema."""

    title: str
    enum: list[str]
    properties: Place
    required: int = 3
    items: list[Place] = attrs.Factory(list)


@attrs.frozen
class Book:
    title: str
    enum: list[str] = attrs.Factory(list)


T = TypeVar("T")


@attrs.define
class Pair(Generic[T]):
    left: T
    right: T


PLACE = {
    "description": "A place.",
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "PE"}},
    "required": ["city"],
}

# --- types ---------------------------------------------------------------------------------------


def one(kind: Any) -> Callable[..., Any]:
    """A function with one parameter of the type."""

    def f(x: Any) -> None: ...

    f.__annotations__ = {"x": kind}
    return f


def schema_of(kind: Any) -> dict[str, Any]:
    """What is said of one parameter of the type."""
    whole = Parameters.of(one(kind), "f").schema
    jsonschema.Draft202012Validator.check_schema(whole)
    assert whole["required"] == ["x"]
    schema: dict[str, Any] = whole["properties"]["x"]
    return schema


NULL = {"type": "null"}
SCHEMAS: list[tuple[Any, dict[str, Any]]] = [
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (str, {"type": "string"}),
    (bool, {"type": "boolean"}),
    (Any, {}),
    (dict, {"type": "object"}),
    (list, {"type": "array"}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
    (Optional[int], {"anyOf": [{"type": "integer"}, NULL]}),  # noqa: UP045  # people write it so
    (int | str | None, {"anyOf": [{"type": "integer"}, {"type": "string"}, NULL]}),
    (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
    (Literal[1, 2], {"enum": [1, 2]}),
    (Color, {"type": "string", "enum": ["red", "blue"]}),
    (Level, {"enum": [1, 2]}),
    (Color | None, {"anyOf": [{"type": "string", "enum": ["red", "blue"]}, NULL]}),
    (date, {"type": "string", "format": "date"}),
    (datetime, {"type": "string", "format": "date-time"}),
    (UUID, {"type": "string", "format": "uuid"}),
    (Decimal, {"type": "string", "format": "decimal"}),
    (Place, PLACE),
    (list[Place], {"type": "array", "items": PLACE}),
    (Place | None, {"anyOf": [PLACE, NULL]}),
    (dict[str, Place], {"type": "object", "additionalProperties": PLACE}),
    (
        Box,
        {
            "type": "object",
            "properties": {
                "width": {"type": "integer"},
                "label": {"anyOf": [{"type": "string"}, NULL], "default": None},
            },
            "required": ["width"],
        },
    ),
    (
        Row,
        {
            "type": "object",
            "properties": {"key": {"type": "integer"}, "note": {"type": "string"}},
            "required": ["key"],
        },
    ),
    (
        Pair[int],
        {
            "type": "object",
            "properties": {"left": {"type": "integer"}, "right": {"type": "integer"}},
            "required": ["left", "right"],
        },
    ),
    (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
    (
        Annotated[int, msgspec.Meta(ge=1, description="own words")],
        {"type": "integer", "minimum": 1, "description": "own words"},
    ),
    (
        Annotated[str | None, "or none"],
        {"anyOf": [{"type": "string"}, NULL], "description": "or none"},
    ),
]


@pytest.mark.parametrize(("kind", "schema"), SCHEMAS, ids=lambda each: str(each)[:40])
def test_a_type_is_said_in_json_schema(kind: Any, schema: dict[str, Any]) -> None:
    """Each type has its schema, with nothing to look up elsewhere."""
    assert schema == schema_of(kind)


def test_a_type_that_holds_itself_ends_in_a_reference() -> None:
    """Recursion is a reference to ``$defs``; the schema is valid and takes what the type takes."""
    schema = Parameters.of(one(Node), "f").schema
    assert list(schema["$defs"]) == ["Node"]
    data = {"x": {"value": 1, "children": [{"value": 2, "children": [{"value": 3}]}]}}
    jsonschema.validate(data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"x": {"value": 1, "children": [{}]}}, schema)


@pytest.mark.parametrize("kind", [Wide, Own, Other])
def test_types_that_hold_each_other_leave_no_reference_open(kind: Any) -> None:
    """However they are entangled, each reference has its definition."""
    schema = object_schema(kind, "into=")
    jsonschema.Draft202012Validator.check_schema(schema)
    text = repr(schema)
    named = {name for name in ("Wide", "Own", "Other") if f"#/$defs/{name}'" in text}
    assert named
    assert named == set(schema["$defs"])


def test_a_schema_is_the_same_in_each_process() -> None:
    """The order of definitions does not depend on the hash seed: requests stay byte for byte equal."""
    code = (
        "from tests.protocol.test_schema import *\n"
        "import json; print(json.dumps(object_schema(Wide, 'into=')))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": str(seed)},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(said) == 1


def test_fields_may_be_called_like_words_of_json_schema() -> None:
    """``title``, ``enum``, ``properties`` and ``required`` are names like any other."""
    schema = object_schema(Titled, "into=")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == ["title", "enum", "properties", "required", "items"]
    assert schema["required"] == ["title", "enum", "properties"]
    assert schema["properties"]["properties"] == PLACE
    odd = TypedDict("odd", {"$ref": str, "$defs": int})  # these are no identifiers
    assert list(object_schema(odd, "into=")["properties"]) == ["$ref", "$defs"]


def test_a_default_is_data_and_stays_as_it_is() -> None:
    """A default that looks like a schema is not read as one."""

    @attrs.define
    class Shelf:
        best: Book = Book("T", ["x"])

    def f(book: Book = Book("T", ["x"])) -> None: ...  # it is frozen

    f.__annotations__["book"] = Book
    default = {"title": "T", "enum": ["x"]}
    assert object_schema(Shelf, "into=")["properties"]["best"]["default"] == default
    assert Parameters.of(f, "f").schema["properties"]["book"]["default"] == default


def test_every_object_of_an_answer_requires_something() -> None:
    """Protocol.md 2.6: where all fields have defaults, all are required."""

    @attrs.define
    class Free:
        a: int = 1
        inner: Box = attrs.Factory(lambda: Box(1))
        row: list[Row] = attrs.Factory(list)

    schema = object_schema(Free, "into=")
    assert schema["required"] == ["a", "inner", "row"]
    assert schema["properties"]["inner"]["required"] == ["width"]
    assert object_schema(Box, "into=")["required"] == ["width"]


class Mixed(enum.Enum):
    A = 1
    B = "b"


@pytest.mark.parametrize(
    "kind",
    [object, complex, Callable[[], int], Mixed, Place | Box, date | str, type("E", (), {})],
    ids=str,
)
def test_a_type_that_json_cannot_say_is_refused(kind: Any) -> None:
    """The message names the tool, and no exception of msgspec leaves."""
    with pytest.raises(TypeError, match="tool f has a type that JSON Schema cannot describe") as e:
        Parameters.of(one(kind), "f")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "kind",
    [int, str, dict, dict[str, int], list[Place], Place | None, Any, None, date, Color, "x", Place],
    ids=str,
)
def test_an_answer_is_an_object_with_fields(kind: Any) -> None:
    """``into=`` takes a class with fields and nothing else."""
    if kind is Place:
        assert object_schema(kind, "into=") == PLACE
        return
    with pytest.raises(TypeError, match="into="):
        object_schema(kind, "into=")


# --- functions -----------------------------------------------------------------------------------


class Service:
    """A service."""

    def method(self, city: str) -> None:
        """Of a method."""

    @classmethod
    def of_class(cls, city: str) -> None:
        """Of a class."""

    @staticmethod
    def static(city: str) -> None:
        """Of nothing."""

    async def later(self, city: str) -> None:
        """Later."""

    def __call__(self, city: str) -> None:
        """Called."""


def decorated(city: str) -> None:
    """Decorated."""


@functools.wraps(decorated)
def wrapper(*args: Any, **kwargs: Any) -> None: ...


def forecast(city: str, user: int, days: int = 1) -> None:
    """Forecast. city: name of the city. user: who asks."""


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("function", "description"),
    [
        (Service().method, "Of a method."),
        (Service.of_class, "Of a class."),
        (Service.static, "Of nothing."),
        (Service().later, "Later."),
        (Service(), "Called."),
        (decorated, "Decorated."),
        (wrapper, "Decorated."),
        (functools.lru_cache(decorated), "Decorated."),
    ],
    ids=["method", "classmethod", "staticmethod", "async", "callable", "plain", "wraps", "cache"],
)
def test_any_function_has_its_parameters(function: Any, description: str) -> None:
    """Methods without ``self``, objects that are called, functions behind decorators."""
    parameters = Parameters.of(function, "f")
    assert (CITY, description) == (parameters.schema, parameters.description)


def test_what_a_partial_has_filled_in_is_no_business_of_the_model() -> None:
    """Bound arguments are in no schema, and the model cannot change them."""
    by_name = Parameters.of(functools.partial(forecast, user=7), "f")
    assert list(by_name.schema["properties"]) == ["city", "days"]
    assert by_name.description == "Forecast."
    assert by_name.schema["properties"]["city"]["description"].startswith("name of the city.")
    assert by_name.read({"city": "Lima", "user": 8}, strict=False) == {"city": "Lima"}
    by_place = Parameters.of(functools.partial(functools.partial(forecast, "Lima"), user=7), "f")
    assert list(by_place.schema["properties"]) == ["days"]


def half_known(a: int, b: Nothing, ctx: "Clock | None" = None) -> Nothing:  # type: ignore[name-defined]  # noqa: F821, UP037
    """Half. a: first. b: second. ctx: ours"""


class Clock:
    def method(self, a: int) -> None:
        """Method. a: first"""


def test_only_the_annotations_of_the_schema_must_be_known() -> None:
    """Those of bound arguments and of the result may be unusable."""
    parameters = Parameters.of(functools.partial(half_known, b=1), "f", inject=Clock)
    assert parameters.schema["properties"] == {"a": {"type": "integer", "description": "first."}}
    assert (parameters.description, parameters.injected) == ("Half.", {"ctx": False})


def timed(a: int, clock: Clock, other: Annotated[Clock | None, "x"]) -> None: ...


def test_injected_parameters_are_not_in_the_schema() -> None:
    """They are listed apart, with whether they must be passed; and never read from the model."""
    parameters = Parameters.of(timed, "f", inject=Clock)
    assert list(parameters.schema["properties"]) == ["a"]
    assert parameters.injected == {"clock": True, "other": False}
    assert parameters.read({"a": 1, "clock": 2}, strict=False) == {"a": 1}


def test_the_first_parameter_can_be_left_out() -> None:
    """``self`` of a method that is not bound yet, whatever its name."""
    parameters = Parameters.of(Clock.method, "f", skip_first=True)
    assert parameters.schema["properties"] == {"a": {"type": "integer", "description": "first"}}


def nothing_to_say() -> None:
    """No parameters."""


def with_defaults(
    a: int = 1,
    b: float = float("nan"),
    c: Any = object(),  # noqa: B008
    d: list[int] | None = None,
    e: Color = Color.RED,
    f: Place = Place("Lima"),  # noqa: B008
    g: str = None,  # type: ignore[assignment]  # noqa: RUF013  # people write it so
    *,
    h: date = date(2024, 1, 2),
) -> None: ...


def test_defaults_are_shown_where_json_can_say_them() -> None:
    """What JSON cannot say is left out; the parameter is optional all the same."""
    schema = Parameters.of(with_defaults, "f").schema
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = {n: p["default"] for n, p in schema["properties"].items() if "default" in p}
    place = {"city": "Lima", "country": "PE"}
    assert defaults == {"a": 1, "d": None, "e": "red", "f": place, "g": None, "h": "2024-01-02"}
    assert schema["required"] == []
    assert Parameters.of(nothing_to_say, "f").schema == {
        "type": "object",
        "properties": {},
        "required": [],
    }


def test_a_default_of_none_may_be_sent() -> None:
    """``units: str = None`` shows null as its default, so null is taken."""
    parameters = Parameters.of(with_defaults, "f")
    shown = parameters.schema["properties"]["g"]
    assert shown == {"anyOf": [{"type": "string"}, NULL], "default": None}
    assert parameters.read({"g": None}, strict=True) == {"g": None}


def untyped(a): ...  # type: ignore[no-untyped-def]
def positional(a: int, /) -> None: ...
def star(*a: int) -> None: ...
def stars(**a: int) -> None: ...
def dunder(__a: int) -> None: ...
def unknown(a: Nothing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def no_expression(a: "b c") -> None: ...  # type: ignore[valid-type,syntax]  # noqa: F722
def no_attribute(a: "attrs.Nothing") -> None: ...  # type: ignore[name-defined]  # noqa: UP037
def listed(a: [int]) -> None: ...  # type: ignore[misc,valid-type]
def mapped(a: {"a": int}) -> None: ...  # type: ignore[misc]  # noqa: F821, UP037
def no_type(a: "3()") -> None: ...  # type: ignore[valid-type]  # noqa: UP037


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, "parameter 'a' has no type; write a: str"),
        (positional, "takes a: 'int': a model passes arguments by name"),
        (star, r"takes \*a: 'int': a model passes arguments by name"),
        (stars, r"takes \*\*a: 'int': a model passes arguments by name"),
        (dunder, "takes __a: 'int': a model passes arguments by name"),
        (unknown, "parameter 'a': 'Nothing' must be importable where the function is defined"),
        (no_expression, "has a signature that cannot be read: parameter 'a': "),
        (no_attribute, "has a signature that cannot be read: parameter 'a': "),
        (listed, r"a: \[.*int.*\] is not a type that JSON can hold"),
        (mapped, r"a: \{'a': .*int.*\} is not a type that JSON can hold"),
        (no_type, "has a"),
        (Service.method, "parameter 'self' has no type"),
        (dict[str, int]().update, "tool f"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_function_that_a_model_cannot_call_is_refused(function: Any, words: str) -> None:
    """A TypeError at registration that names the tool and the parameter."""
    with pytest.raises(TypeError, match=words) as caught:
        Parameters.of(function, "f")
    assert str(caught.value).startswith("tool f")


def test_a_class_that_is_local_cannot_be_resolved_from_text() -> None:
    """With ``from __future__ import annotations`` a local class is a name without meaning."""

    class Local: ...

    def f(a: Local) -> None: ...

    with pytest.raises(TypeError, match="'Local' must be importable"):
        Parameters.of(f, "f")


# --- docstrings ----------------------------------------------------------------------------------

GOOGLE = """Forecast for a city.

    A second paragraph: with a colon.

    Args:
        city: name of the city,
            in English.
        days (int): how many
        unit: C or F

    Returns:
        A dict.

    Raises:
        ValueError: never.
    """
SPHINX = """Forecast for a city.

    A second paragraph: with a colon.

    :param city: name of the city,
        in English.
    :param int days: how many
    :type days: int
    :param unit: C or F
    :returns: a dict
    """
NUMPY = """Forecast for a city.

    A second paragraph: with a colon.

    Parameters
    ----------
    city : str
        name of the city,
        in English.
    days : int, optional
        how many
    unit : str
        C or F

    Returns
    -------
    dict
        What it is.
    """
PLAIN = """Forecast for a city.

    A second paragraph: with a colon.

    city: name of the city,
        in English.
    days: how many

    unit: C or F
    """
INLINE = """Forecast for a city.

    A second paragraph: with a colon. city: name of the city, in English.
    days: how many
    unit: C or F"""

WORDS = {"city": "name of the city, in English.", "days": "how many", "unit": "C or F"}


@pytest.mark.parametrize(
    "docstring",
    [GOOGLE, SPHINX, NUMPY, PLAIN, INLINE],
    ids=["Google", "Sphinx", "NumPy", "lines", "inline"],
)
def test_a_docstring_describes_the_function_and_its_parameters(docstring: str) -> None:
    """In whichever of the usual styles: the description without what it says of parameters."""

    def f(city: str, days: int = 1, unit: str = "C") -> None: ...

    f.__doc__ = docstring
    parameters = Parameters.of(f, "f")
    said = {name: part.get("description") for name, part in parameters.schema["properties"].items()}
    assert said == WORDS
    first, _, second = parameters.description.partition("\n\n")
    assert (first, second) == ("Forecast for a city.", "A second paragraph: with a colon.")


@pytest.mark.parametrize(
    ("docstring", "description", "words"),
    [
        (None, "", None),
        ("", "", None),
        ("Only this.", "Only this.", None),
        ("city: the city", "", "the city"),
        ("Forecast. city: the city", "Forecast.", "the city"),
        ("For a city: nothing said.", "For a city: nothing said.", None),
        ("The capacity: none", "The capacity: none", None),
        ("Say, city: the city", "Say,", "the city"),
        ("Say.  city (str): the city", "Say.", "the city"),
        ("Say.\n\nArgs:\n    other: x\n    city: y", "Say.", "y"),
    ],
)
def test_odd_docstrings(docstring: str | None, description: str, words: str | None) -> None:
    """Nothing said is nothing told; a word that only ends like a parameter is no parameter."""

    def f(city: str) -> None: ...

    f.__doc__ = docstring
    parameters = Parameters.of(f, "f")
    told = parameters.schema["properties"]["city"].get("description")
    assert (description, words) == (parameters.description, told)


def test_annotated_words_win_over_the_docstring() -> None:
    """``Annotated`` is next to the type, so it is what was meant."""

    def f(city: Annotated[str, "annotated"], days: Annotated[int, 3] = 1) -> None:
        """Say. city: of the docstring. days: how many"""

    properties = Parameters.of(f, "f").schema["properties"]
    assert properties["city"]["description"] == "annotated"
    assert properties["days"]["description"] == "how many"


# --- arguments -----------------------------------------------------------------------------------

VALUES: list[tuple[Any, Any, Any, Any]] = [
    # type, sent, read leniently, read strictly (None: refused)
    (int, 3, 3, 3),
    (int, "3", 3, None),
    (int, 3.0, 3, None),
    (int, 3.5, None, None),
    (int, "three", None, None),
    (int, None, None, None),
    (float, 3, 3.0, 3.0),
    (float, "3.5", 3.5, None),
    (bool, True, True, True),
    (bool, "true", True, None),
    (bool, 1, True, None),
    (bool, "perhaps", None, None),
    (str, "x", "x", "x"),
    (str, 3, None, None),
    (Color, "red", Color.RED, Color.RED),
    (Color, "RED", None, None),
    (Level, 2, Level.HIGH, Level.HIGH),
    (Level, "2", Level.HIGH, None),
    (Literal["a"], "a", "a", "a"),
    (Literal["a"], "b", None, None),
    (date, "2024-01-02", date(2024, 1, 2), date(2024, 1, 2)),
    (date, "tomorrow", None, None),
    (time, "03:04:05", time(3, 4, 5), time(3, 4, 5)),
    (timedelta, "P1D", timedelta(1), timedelta(1)),
    (UUID, "12345678123456781234567812345678", UUID(int=0x12345678123456781234567812345678), None),
    (Decimal, "1.50", Decimal("1.50"), Decimal("1.50")),
    (bytes, "YWI=", b"ab", b"ab"),
    (list[int], ["1", 2], [1, 2], None),
    (list[int], [1, 2], [1, 2], [1, 2]),
    (dict[int, str], {"1": "a"}, {1: "a"}, {1: "a"}),
    (tuple[int, str], [1, "a"], (1, "a"), (1, "a")),
    (set[str], ["a", "a"], {"a"}, {"a"}),
    (Place, {"city": "Lima"}, Place("Lima"), Place("Lima")),
    (Place, {"country": "PE"}, None, None),
    (Box, {"width": "3"}, Box(3), None),
    (Row, {"key": 1}, {"key": 1}, {"key": 1}),
    (Node, {"value": 1, "children": [{"value": 2}]}, Node(1, [Node(2)]), Node(1, [Node(2)])),
    (Any, {"a": [1]}, {"a": [1]}, {"a": [1]}),
]


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize("row", VALUES, ids=lambda row: f"{row[0]}-{row[1]}"[:50])
def test_values_are_read_or_refused(row: tuple[Any, Any, Any, Any], strict: bool) -> None:
    """Leniently a number may come as text; strictly what the schema says and no more."""
    kind, sent, lenient, to_the_letter = row
    expected = to_the_letter if strict else lenient
    parameters = Parameters.of(one(kind), "f")
    if expected is not None:
        assert parameters.read({"x": sent}, strict=strict) == {"x": expected}
    elif kind is UUID:
        assert parameters.read({"x": sent}, strict=strict)  # both spellings are a UUID's
    else:
        with pytest.raises(ValueError, match=r"\(at \$"):
            parameters.read({"x": sent}, strict=strict)


@pytest.mark.parametrize(
    "row",
    [row for row in VALUES if row[3] is not None and row[0] != set[str]],
    ids=lambda row: f"{row[0]}-{row[1]}"[:50],
)
def test_what_is_read_strictly_fits_the_schema(row: tuple[Any, Any, Any, Any]) -> None:
    """The schema that the model was given takes what ``read`` takes."""
    kind, sent, _, _ = row
    jsonschema.validate({"x": sent}, Parameters.of(one(kind), "f").schema)


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_what_is_absent_is_left_to_the_function(strict: bool) -> None:
    """Its own default applies, even one that JSON cannot say."""
    parameters = Parameters.of(with_defaults, "f")
    assert parameters.read({}, strict=strict) == {}
    assert parameters.read({"a": 5}, strict=strict) == {"a": 5}


def test_unknown_names() -> None:
    """Ignored, or refused with the names there are."""
    parameters = Parameters.of(forecast, "f")
    sent = {"city": "Lima", "user": 1, "planet": CANARY}
    assert parameters.read(sent, strict=False) == {"city": "Lima", "user": 1}
    with pytest.raises(ValueError, match="unknown argument 'planet'; there are city, user, days"):
        parameters.read(sent, strict=True)
    with pytest.raises(ValueError, match="misses 'user'"):
        parameters.read({"city": "Lima"}, strict=False)


@dataclasses.dataclass
class Angry:
    code: str

    def __post_init__(self) -> None:
        raise LookupError(self.code)


class Grumpy(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise LookupError(value)


BAD: list[tuple[Any, Any, str, str]] = [
    (int, CANARY, "expected an integer, got a string", "$.x"),
    (int, True, "expected an integer, got a boolean", "$.x"),
    (str, {"a": CANARY}, "expected a string, got an object", "$.x"),
    (list[int], [1, CANARY], "expected an integer, got a string", "$.x[1]"),
    (tuple[int, str], [1], "expected 2 items, got 1", "$.x"),
    (tuple[int, str], [1, 2], "expected a string, got a number", "$.x[1]"),
    (Color, CANARY, "expected one of 'red', 'blue'", "$.x"),
    (Grumpy, CANARY, "expected one of 'a'", "$.x"),
    (Literal["a"], CANARY, "expected one of 'a'", "$.x"),
    (Level, 7431, "expected one of 1, 2", "$.x"),
    (date, CANARY, "expected a date (RFC 3339), got another string", "$.x"),
    (UUID, CANARY, "expected a UUID (RFC 9562), got another string", "$.x"),
    (Decimal, CANARY, "expected a decimal number, got another string", "$.x"),
    (bytes, CANARY, "expected a string in base64 (RFC 4648), got another string", "$.x"),
    (dict[int, str], {CANARY: "a"}, "a key: expected an integer, got a string", "$.x"),
    (dict[str, int], {CANARY: "a"}, "expected an integer, got a string", "$.x[...]"),
    (
        int | list[int] | None,
        CANARY,
        "expected an integer or an array or null, got a string",
        "$.x",
    ),
    (Place, {"city": 1}, "expected a string, got a number", "$.x.city"),
    (Place, CANARY, "expected an object, got a string", "$.x"),
    (list[Place], [{}], "misses 'city'", "$.x[0]"),
    (Angry, {"code": CANARY}, "a value that its class refuses (LookupError)", "$.x"),
    (set[Any], [[CANARY]], "an item that a set cannot hold", "$.x"),
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: f"{row[0]}"[:40])
def test_a_refusal_names_the_place_and_never_the_value(row: tuple[Any, Any, str, str]) -> None:
    """The value is the model's; no exception of another library is chained either."""
    kind, sent, reason, path = row
    parameters = Parameters.of(one(kind), "f")
    with pytest.raises(ValueError) as caught:
        parameters.read({"x": sent}, strict=True)
    assert str(caught.value) == f"{reason} (at {path})"
    assert caught.value.__context__ is None
    answer = Answer.of(attrs.make_class("C", {"x": attrs.field(type=kind)}), "into=")
    with pytest.raises(Misfit) as misfit:
        answer.read({"x": sent})
    assert (misfit.value.reason, misfit.value.path) == (reason, path)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (1.5, 1.5),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        ({1: "a", Color.RED: "b"}, {"1": "a", "red": "b"}),
        (Place("Lima"), {"city": "Lima", "country": "PE"}),
        (Box(1), {"width": 1, "label": None}),
        (Color.RED, "red"),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.50"), "1.50"),
        ([Node(1, [Node(2)])], [{"value": 1, "children": [{"value": 2, "children": []}]}]),
    ],
    ids=repr,
)
def test_what_functions_return_as_plain_data(value: Any, plain: Any) -> None:
    """Objects by their fields, the rest as JSON writes it."""
    assert plain == plain_value(value)


def test_a_number_that_python_cannot_write_is_refused() -> None:
    """With its place, and not by an encoder later on."""
    with pytest.raises(ValueError, match=r"^the value\.a\[0\] is a number of more than 4,300"):
        plain_value({"a": [10**4300]})
    assert plain_value(10**4299) == 10**4299


def test_an_instance_for_a_class_is_refused_with_words() -> None:
    """One without a hash too."""
    with pytest.raises(TypeError, match=r"into= has a type .* describe: Node\(.*Node"):
        Answer.of(Node(1), "into=")


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud83d", print, {"a": {1: object()}}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    """A TypeError or ValueError, never a bent value."""
    with pytest.raises((TypeError, ValueError)):
        plain_value(value)
