"""What can be a tool: methods, partials and objects, parameters annotated Context, tools of chat()."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Optional

import pytest

import streamchat
from streamchat import (
    Context,
    FunctionTool,
    StepStart,
    ToolCall,
    ToolCallFunction,
    ToolResult,
    tool,
)
from tests.fakes import Answer
from tests.frames import pieces, plain
from tests.shell.test_runs import client_over, collect
from tests.shell.test_tools import InlineThread, bodies, calling

ITEM = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}


@pytest.fixture(autouse=True)
def _inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamchat.calling.Thread", InlineThread)


def call_of(name: str, arguments: str = '{"item": "pen"}') -> ToolCall:
    return ToolCall(f"{name}_0", ToolCallFunction(name, arguments))


async def results_of(tools: list[Any], name: str, **options: Any) -> list[ToolResult]:
    """A run whose first answer calls one tool."""
    client, _ = client_over(
        Answer(*pieces(calling((name, '{"item": "pen"}')))), Answer(*pieces(plain()))
    )
    run = client.run_tools("Hi", tools=tools, **options)
    return [each for each in await collect(run) if isinstance(each, ToolResult)]


# --- methods -------------------------------------------------------------------------------------


class Shop:
    def __init__(self, prefix: str = "shop") -> None:
        self.prefix = prefix

    @tool
    async def price(self, item: str) -> NotImported:  # type: ignore[name-defined]  # noqa: F821
        """Price."""
        return f"{self.prefix} {item}"

    @tool(name="renamed", timeout=3)
    def plain(this, item: str) -> str:  # any name will do
        return f"{this.prefix} {item}"

    @tool
    def typed(self: Shop, item: str) -> str:
        return f"{self.prefix} {item}"

    @classmethod
    @tool
    def outer_class(cls, item: str) -> str:
        return f"{cls.__name__} {item}"

    @tool  # type: ignore[arg-type]
    @classmethod
    def inner_class(cls, item: str) -> str:
        return f"{cls.__name__} {item}"

    @staticmethod
    @tool
    def outer_static(item: str) -> str:
        return f"static {item}"

    @tool
    @staticmethod
    def inner_static(item: str) -> str:
        return f"static {item}"

    async def raw(self, item: str) -> str:
        return f"{self.prefix} {item}"

    @functools.wraps(raw)
    async def wrapped(self, *args: Any, **kwargs: Any) -> str:
        return await self.raw(*args, **kwargs)


class Corner(Shop):
    @tool
    async def price(self, item: str) -> str:
        return "corner " + await super().price(item)


class PriceFinder:
    async def __call__(self, item: str) -> str:
        return f"found {item}"


class HTTPGet2Tool:
    def __call__(self, item: str) -> str:
        return f"got {item}"


def greet(word: str, item: str) -> str:
    return f"{word} {item}"


limited = tool(name="limited", strict=True, timeout=4)(greet)
shop = Shop()
BINDING: list[tuple[str, Callable[[], Any], str, str]] = [
    ("method", lambda: shop.price, "price", "shop pen"),
    ("plain method", lambda: shop.plain, "renamed", "shop pen"),
    ("typed self", lambda: shop.typed, "typed", "shop pen"),
    ("class method", lambda: shop.outer_class, "outer_class", "Shop pen"),
    ("class method of the class", lambda: Shop.outer_class, "outer_class", "Shop pen"),
    ("class method of a subclass", lambda: Corner.outer_class, "outer_class", "Corner pen"),
    ("inner class method", lambda: Shop.inner_class, "inner_class", "Shop pen"),
    ("inner class method of a subclass", lambda: Corner().inner_class, "inner_class", "Corner pen"),
    ("static method", lambda: Shop.outer_static, "outer_static", "static pen"),
    ("inner static method", lambda: shop.inner_static, "inner_static", "static pen"),
    ("inherited", lambda: Corner("corner").typed, "typed", "corner pen"),
    ("overridden", lambda: Corner("x").price, "price", "corner x pen"),
    ("undecorated", lambda: shop.raw, "raw", "shop pen"),
    ("behind a decorator", lambda: shop.wrapped, "raw", "shop pen"),
    ("object", lambda: PriceFinder(), "price_finder", "found pen"),
    ("object with digits", lambda: HTTPGet2Tool(), "http_get2_tool", "got pen"),
    ("partial", lambda: functools.partial(greet, "hi"), "greet", "hi pen"),
    ("partial by name", lambda: functools.partial(greet, word="hi"), "greet", "hi pen"),
    ("partial twice", lambda: functools.partial(functools.partial(greet), "hi"), "greet", "hi pen"),
    ("partial of a tool", lambda: functools.partial(limited, word="hi"), "limited", "hi pen"),
    ("partial of a bound tool", lambda: functools.partial(shop.price), "price", "shop pen"),
    ("partial that binds self", lambda: functools.partial(Shop.price, shop), "price", "shop pen"),
    ("partial of an object", lambda: functools.partial(PriceFinder()), "price_finder", "found pen"),
    ("lambda with a name", lambda: tool(name="x")(lambda: "no arguments"), "x", "no arguments"),
]


@pytest.mark.parametrize(
    ("make", "name", "expected"), [row[1:] for row in BINDING], ids=[row[0] for row in BINDING]
)
async def test_methods_partials_and_objects_are_tools(
    make: Callable[[], Any], name: str, expected: str
) -> None:
    """Under a sensible name, without what is bound; run_tools and chat take them alike."""
    [result] = await results_of([make()], name)
    assert (result.error, result.value) == (None, expected)
    client, transport = client_over(Answer(*pieces(plain())))
    await client.chat("Hi", tools=[make()])
    [definition] = bodies(transport)[0]["tools"]
    assert definition["function"]["name"] == name
    if name != "x":
        parameters = definition["function"]["parameters"]
        assert (list(parameters["properties"]), parameters["required"]) == (["item"], ["item"])


async def test_a_bound_tool_is_called_like_the_method() -> None:
    """Each instance has its own; equal if both are equal."""
    assert await shop.price("pen") == await Shop.price(shop, "pen") == "shop pen"
    assert (Shop.outer_class("x"), Shop.inner_class("x"), shop.plain("x")) == (
        "Shop x",
        "Shop x",
        "shop x",
    )
    assert isinstance(shop.price, FunctionTool)
    assert shop.price == shop.price
    assert shop.price != Shop("other").price
    assert (shop.price.parameters, shop.price.description) == (ITEM, "Price.")
    assert (shop.plain.timeout, shop.plain.strict) == (3, False)


async def test_a_partial_of_a_tool_keeps_its_options() -> None:
    """Its limit and strictness, unless others are given; its name."""
    made = tool(functools.partial(limited, "hi"))
    assert (made.name, made.timeout, made.strict) == ("limited", 4, True)
    made = tool(name="x", timeout=5)(functools.partial(limited, "hi"))
    assert (made.name, made.timeout, made.strict) == ("x", 5, True)


def test_a_tool_in_a_class_body_that_is_no_method_stays_as_it_is() -> None:
    """A function of the module binds to nothing."""

    class Holder:
        item = limited

    assert Holder.item is limited
    assert Holder().item is limited


@pytest.mark.parametrize("make", [lambda: Shop.price, lambda: Shop.raw, lambda: tool(Shop.raw)])
async def test_a_method_without_its_instance_is_refused(make: Callable[[], Any]) -> None:
    """By name, wherever it is used as a tool."""
    client, transport = client_over()
    words = "is a method of Shop and is not bound: make an instance"
    for use in (client.run_tools, client.chat_stream):
        with pytest.raises(TypeError, match=rf"tools\[1\]: tool (price|raw) {words}"):
            use("Hi", tools=[greet, make()])
    with pytest.raises(TypeError, match=words):
        await Shop.price.run(call_of("price"))
    with pytest.raises(TypeError, match=words):
        await Shop.price.run_with({"item": "pen"})
    assert transport.requests == []


UNUSABLE: list[tuple[Any, type[Exception], str]] = [
    (len, TypeError, "tool len takes obj"),
    (print, TypeError, r"tool print takes \*args"),
    (lambda: 1, ValueError, r'called .<lambda>.: .*tool\(name="..."\) names it'),
    (functools.partial(lambda a: 1, 2), ValueError, r'tool\(name="..."\) names it'),
    (Shop, TypeError, "takes a function"),
    (functools.partial(greet, "a", "b", "c"), TypeError, "signature that cannot be read"),
]


@pytest.mark.parametrize(("given", "kind", "words"), UNUSABLE, ids=[row[2] for row in UNUSABLE])
async def test_an_unusable_function_is_named_by_its_place(
    given: Any, kind: type[Exception], words: str
) -> None:
    """For run_tools, chat_stream and fan_out, before anything is sent."""
    client, transport = client_over()
    transport.max_connections = 0  # type: ignore[attr-defined]  # a fan-out asks
    uses: list[Callable[..., Any]] = [client.run_tools, client.chat_stream]
    uses.append(lambda text, tools: client.fan_out([text], tools=tools))
    for use in uses:
        with pytest.raises(kind, match=rf"tools\[1\]: .*{words}"):
            use("Hi", tools=[greet, given])
    [result] = [each async for each in client.fan_out([{"messages": "Hi", "tools": [given]}])]
    assert type(result.error) is kind
    assert transport.requests == []


def plain_generator(item: str) -> Any:
    yield item


class Yielding:
    def __call__(self, item: str) -> Any:
        yield item


@pytest.mark.parametrize("given", [plain_generator, functools.partial(plain_generator), Yielding()])
def test_a_plain_generator_is_refused(given: Any) -> None:
    """It would have to be iterated in a thread."""
    with pytest.raises(TypeError, match="is a plain generator: write async def"):
        tool(given)


async def test_functions_become_tools_in_every_kind_of_request() -> None:
    """chat, chat_stream and fan_out: once for all requests, or for one of them; dicts stay."""
    definition = {"type": "function", "function": {"name": "d", "parameters": ITEM}}
    given = [greet, shop.price, definition, limited]
    client, transport = client_over(*[Answer(*pieces(plain())) for _ in range(4)])
    transport.max_connections = 0  # type: ignore[attr-defined]  # a fan-out asks
    await client.chat("Hi", tools=given)
    await client.chat_stream("Hi", tools=given)
    async for result in client.fan_out(["Hi"], tools=given):
        assert result.ok
    async for result in client.fan_out([{"messages": "Hi", "tools": given}]):
        assert result.ok
    names = [[each["function"]["name"] for each in sent["tools"]] for sent in bodies(transport)]
    assert names == [["greet", "price", "d", "limited"]] * 4
    assert given == [greet, shop.price, definition, limited]


# --- the context ---------------------------------------------------------------------------------


@tool
async def with_context(item: str, ctx: Context) -> str:
    """Item. item: a thing. ctx: not for the model"""
    return f"{item} {ctx.data}"


@tool(strict=True)
async def optional(item: str, ctx: Context | None = None) -> str:
    return f"{item} {ctx and ctx.data}"


@tool
async def without_default(item: str, ctx: Optional[streamchat.Context]) -> str:  # noqa: UP045
    return f"{item} {ctx and ctx.data}"


@tool
def first(ctx: Annotated[Context, "ours"], item: str) -> str:
    return f"{item} {ctx.data}"


class Till:
    @tool
    async def method(self, item: str, *, ctx: Context) -> str:
        return f"{item} {ctx.data}"

    async def __call__(self, ctx: Context, item: str) -> str:
        return f"{item} {ctx.data}"


CONTEXTS = [with_context, optional, without_default, first, Till().method, Till()]


@pytest.mark.parametrize("given", CONTEXTS, ids=lambda each: getattr(each, "name", "object"))
async def test_a_context_parameter_receives_the_runs_context(given: Any) -> None:
    """It is in no schema and no description, and the model cannot fill it in."""
    made = given if isinstance(given, FunctionTool) else tool(given)
    assert list(made.parameters["properties"]) == ["item"]
    assert made.parameters["required"] == ["item"]
    assert "model" not in (made.description or "")
    [result] = await results_of([given], made.name, data="mine")
    assert (result.error, result.value) == (None, "pen mine")
    sent = '{"item": "pen", "ctx": {"data": "theirs"}}'
    if not made.strict:
        context = Context(lambda: None, None, "mine", None)  # type: ignore[arg-type]
        assert await made.run(call_of(made.name, sent), context=context) == "pen mine"


@pytest.mark.parametrize("given", [with_context, first, Till().method])
async def test_a_tool_that_needs_a_context_says_so_outside_a_run(given: Any) -> None:
    """A TypeError that names the parameter; without need there is none."""
    with pytest.raises(TypeError, match=f"{given.name} needs the context of a run for .* 'ctx'"):
        await given.run(call_of(given.name))
    assert await optional.run(call_of("optional")) == "pen None"
    assert await without_default.run(call_of("without_default")) == "pen None"


async def test_the_context_is_the_runs_own() -> None:
    """One object for tools and handlers: data, request, the answer that called, no index."""
    seen: list[Any] = []

    @tool
    async def look(item: str, ctx: Context) -> str:
        seen.append((ctx, ctx.snapshot.tool_calls[0].name, ctx.stream.snapshot, ctx.index))
        return item

    client, _ = client_over(
        Answer(*pieces(calling(("look", '{"item": "a"}'), ("look", '{"item": "b"}')))),
        Answer(*pieces(plain())),
    )
    data = object()
    run = client.run_tools("Hi", tools=[look], data=data)
    heard: list[Any] = []
    run.on_step_start(lambda event, ctx: heard.append((event, ctx)))
    await run
    assert len({id(each[0]) for each in seen}) == 1
    [context, name, snapshot, index] = seen[0]
    assert isinstance(heard[0][0], StepStart)
    assert context is heard[0][1]
    assert (context.data, name, snapshot.finish_reason, index) == (data, "look", "TOOL_CALL", None)
    assert context.request is heard[0][0].request


@pytest.mark.parametrize("annotation", ["Context | int", "list[Context]", "type[Context]"])
def test_other_annotations_with_context_are_refused(annotation: str) -> None:
    """JSON has no such values."""

    async def f(ctx: Any) -> None: ...

    f.__annotations__["ctx"] = annotation
    with pytest.raises(TypeError, match="ctx"):
        tool(f)
