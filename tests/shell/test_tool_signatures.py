"""What a tool is told to be: descriptions, signatures behind wrappers, and nothing that is bound."""

from __future__ import annotations

import abc
import functools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, cast

import pydantic
import pytest

from streamchat import Context as Ours
from streamchat import Dispatcher, FunctionTool, tool
from streamchat.approval import Approval
from streamchat.tools import as_tools
from tests.shell.test_tool_kinds import call_of, results_of

if TYPE_CHECKING:
    import streamchat
    from streamchat import Context

CANARY = "canary-5d1f"


def made(given: Any) -> FunctionTool[..., Any]:
    [only] = as_tools([given]).values()
    return only


def greet(word: str, item: str) -> str:
    """Greet. item: a thing"""
    return f"{word} {item}"


# --- descriptions --------------------------------------------------------------------------------


class Base:
    @tool
    def look(self, item: str) -> str:
        """Look. item: a thing"""
        return item

    @tool
    def bare(self, item: str) -> str:
        return item


class Overriding(Base):
    def look(self, item: str) -> str:  # type: ignore[override]
        return item

    def bare(self, item: str) -> str:  # type: ignore[override]
        return item


class Silent:
    def __call__(self, item: str) -> str:
        return item


class Told:
    """Tells. item: a thing"""

    def __call__(self, item: str) -> str:
        return item


class TellsItself(Told):
    """A class."""

    def __call__(self, item: str) -> str:
        """Tells more. item: a thing"""
        return item


@dataclass
class Data:
    word: str = "hi"

    def __call__(self, item: str) -> str:
        return item


DESCRIPTIONS: list[tuple[Callable[[], Any], str | None]] = [
    (lambda: Overriding().look, "Look."),
    (lambda: Overriding().bare, None),
    (lambda: functools.partial(Base().look), "Look."),
    (lambda: functools.partial(Base().bare), None),
    (lambda: Silent(), None),
    (lambda: functools.partial(Silent()), None),
    (lambda: Told(), "Tells."),
    (lambda: TellsItself(), "Tells more."),
    (lambda: Data(), None),
]


@pytest.mark.parametrize(("make", "expected"), DESCRIPTIONS)
def test_the_description_is_the_callers_own_words(
    make: Callable[[], Any], expected: str | None
) -> None:
    """Never the docstring of a class of this package, or of Python's."""
    one = made(make())
    assert one.description == expected
    item = one.parameters["properties"]["item"]
    assert item.get("description") == (None if expected is None else "a thing")


# --- wrappers ------------------------------------------------------------------------------------


class Cached:
    @tool
    @functools.cache  # noqa: B019
    def under_tool(self, item: str) -> str:
        return f"cached {item}"

    @functools.cache  # noqa: B019
    def plain(self, item: str) -> str:
        return f"cached {item}"

    @tool
    @functools.lru_cache(maxsize=1)  # noqa: B019
    def sized(self, item: str) -> str:
        return f"cached {item}"


def updated(given: Any, *bound: Any) -> Any:
    """A partial that looks like its function: ``__wrapped__`` is the function with all parameters."""
    return functools.update_wrapper(functools.partial(given, *bound), given)


class Counting:
    """A decorator that is an object, as of many libraries."""

    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


class Binding(Counting):
    def __get__(self, instance: Any, owner: type) -> Any:
        return functools.partial(self, instance) if instance is not None else self


class Decorated:
    @Binding
    def look(self, item: str) -> str:
        """Look. item: a thing"""
        return f"found {item}"


@Counting
async def counted(item: str) -> str:
    """Look. item: a thing"""
    return f"counted {item}"


WRAPPED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Cached().under_tool, "cached pen"),
    (lambda: Cached().sized, "cached pen"),
    (lambda: Cached().plain, "cached pen"),
    (lambda: functools.cache(Cached().plain), "cached pen"),
    (lambda: functools.cache(greet_pen), "hi pen"),
    (lambda: updated(greet, "hi"), "hi pen"),
    (lambda: updated(Cached.plain, Cached()), "cached pen"),
    (lambda: functools.partial(updated(greet, "hi")), "hi pen"),
    (lambda: counted, "counted pen"),
    (lambda: Counting(counted), "counted pen"),
    (lambda: Decorated().look, "found pen"),
]


def greet_pen(item: str) -> str:
    return greet("hi", item)


@pytest.mark.parametrize(("make", "expected"), WRAPPED)
async def test_a_wrapper_takes_what_is_left_to_pass(make: Callable[[], Any], expected: str) -> None:
    """Neither ``self`` nor what a partial has bound is in the schema."""
    one = made(make())
    assert list(one.parameters["properties"]) == ["item"]
    assert await one.run(call_of(one.name)) == expected


@pytest.mark.parametrize("make", [lambda: counted, lambda: Decorated().look])
def test_an_object_around_a_function_has_its_description(make: Callable[[], Any]) -> None:
    one = made(make())
    assert one.description == "Look."
    assert one.parameters["properties"]["item"] == {"type": "string", "description": "a thing"}


class Endless:
    def __getattr__(self, name: str) -> Any:
        return Endless()

    def __call__(self, item: str) -> str:
        return item


def test_wrappers_without_end_are_refused() -> None:
    """Not followed for ever."""
    loop: Any = Silent()
    loop.__wrapped__ = loop
    for given in (loop, functools.partial(loop), Endless()):
        with pytest.raises(TypeError, match="signature that cannot be read"):
            tool(name="x")(given)
    method = operator.methodcaller("look", CANARY)
    # Since Python 3.13 it has a signature, with a parameter that no model can name.
    with pytest.raises(TypeError, match=r"signature that cannot be read|takes obj") as caught:
        tool(name="x")(method)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", ["under_tool", "sized", "plain"])
def test_a_cached_method_without_its_instance_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is a method of Cached and is not bound"):
        as_tools([getattr(Cached, name)])


# --- what is bound is not shown ------------------------------------------------------------------


class Holder:
    """Shows what it holds."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"Holder({self.key!r})"

    def __call__(self, key: str, call: Any) -> Any:
        raise OSError("down")


class Wrong(Holder):
    def __call__(self) -> None: ...  # type: ignore[override]


def three(key: str, call: Any, ctx: Any, more: Any) -> None: ...


def test_bound_arguments_are_in_no_repr_and_no_message() -> None:
    """They may be keys."""
    one = tool(functools.partial(greet, CANARY))
    assert CANARY not in repr(one)
    too_many: Any = functools.partial(cast("Any", greet), CANARY, "b", "c")
    for bad, words in [(too_many, "3 of its arguments"), (Holder(CANARY).key, "takes a function")]:
        with pytest.raises(TypeError, match=words) as caught:
            as_tools([bad])
        assert CANARY not in str(caught.value)
    wrong: list[Any] = [
        functools.partial(three, CANARY),
        functools.partial(three, key=CANARY),
        Wrong(CANARY),
    ]
    for given in wrong:
        for register in (Approval, Dispatcher().on_content_delta):
            with pytest.raises(TypeError, match="must take") as caught:
                register(given)
            assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "approve",
    [functools.partial(Holder(CANARY), CANARY), functools.partial(Holder(CANARY), key=CANARY)],
)
async def test_a_note_names_the_function_alone(approve: Any) -> None:
    if "key" in approve.keywords:
        approve = lambda call, inner=approve: inner(call=call)  # noqa: E731
    with pytest.raises(OSError, match="down") as caught:
        await results_of([tool(name="look")(greet_pen)], "look", approve=approve)
    [note] = [each for each in caught.value.__notes__ if "approve=" in each]
    assert re.match(r"raised by approve=\S+, asked about call", note)
    assert CANARY not in note


# --- a context that only type checkers import ----------------------------------------------------


def checked(item: str, ctx: Context) -> str:
    return f"{item} {ctx.data}"


async def dotted(item: str, *, ctx: streamchat.Context) -> str:
    return f"{item} {ctx.data}"


def maybe(item: str, ctx: Context | None = None) -> str:
    return f"{item} {ctx and ctx.data}"


def old_style(item: str, ctx: Optional[Context] = None) -> str:  # noqa: UP045
    return f"{item} {ctx and ctx.data}"


class Shop:
    @tool
    def method(self, item: str, ctx: Context) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        return f"{item} {ctx.data}"


@pytest.mark.parametrize("given", [checked, dotted, maybe, old_style, Shop().method])
async def test_a_context_that_only_type_checkers_import_is_known_by_its_name(given: Any) -> None:
    one = made(given)
    assert list(one.parameters["properties"]) == ["item"]
    context = Ours(lambda: None, None, "mine", None)  # type: ignore[arg-type]
    assert await one.run(call_of(one.name), context=context) == "pen mine"


def test_another_class_of_that_name_stays_what_it_is() -> None:
    """Only a name that the function's module does not have is looked up."""
    scope: dict[str, Any] = {"__name__": "elsewhere"}
    exec(
        "from __future__ import annotations\n"
        "class Context: pass\n"
        "def look(item: str, ctx: Context) -> Missing: ...\n",
        scope,
    )
    with pytest.raises(TypeError, match="ctx: Context is not a type that JSON can hold"):
        tool(scope["look"])


# --- classes that hold tools ---------------------------------------------------------------------


class Abstract(abc.ABC):
    @tool
    @abc.abstractmethod
    def look(self, item: str) -> str:
        """Look. item: a thing"""


class Concrete(Abstract):
    @tool
    def look(self, item: str) -> str:
        return f"found {item}"


class Ignoring(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ignored_types=(FunctionTool,))
    word: str = "hi"

    @tool
    def look(self, item: str) -> str:
        return f"{self.word} {item}"


class Plain(pydantic.BaseModel):
    word: str = "hi"

    def look(self, item: str) -> str:
        return f"{self.word} {item}"


class Pair(NamedTuple):
    word: str

    @tool
    def look(self, item: str) -> str:
        return f"{self.word} {item}"


def test_a_class_with_an_abstract_tool_is_abstract() -> None:
    """As with the method itself."""
    with pytest.raises(TypeError, match="abstract"):
        Abstract()  # type: ignore[abstract]


HOLDERS = [
    (Concrete(), "found pen"),
    (Ignoring(), "hi pen"),
    (Plain(), "hi pen"),
    (Pair("hi"), "hi pen"),
]


@pytest.mark.parametrize(("holder", "expected"), HOLDERS)
async def test_every_kind_of_class_can_hold_tools(holder: Any, expected: str) -> None:
    one = made(holder.look)
    assert list(one.parameters["properties"]) == ["item"]
    assert await one.run(call_of("look")) == expected


@pytest.mark.parametrize("given", [None, 3, b"x", [tool(greet)], object()])
def test_what_is_not_a_function_is_named_by_its_place(given: Any) -> None:
    words = rf"^tools\[1\]: tool\(\) takes a function, not {type(given).__name__}$"
    with pytest.raises(TypeError, match=words):
        as_tools([greet, given])
