"""Programs for the official SDK and the same for this package: equal requests, equal answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import attrs
import pytest

from streamchat import (
    AssistantMessage,
    ChatResponse,
    Client,
    Document,
    DocumentContent,
    FunctionSpec,
    ImageContent,
    ImageUrl,
    NotFoundError,
    SystemMessage,
    TextContent,
    Tool,
    ToolMessage,
    UserMessage,
    tool,
)
from streamchat.local import LocalServer
from streamchat.local.model import answer

cohere: Any = pytest.importorskip("cohere")
pytestmark = pytest.mark.filterwarnings("error")

MODEL = "command-a-plus-05-2026"
PLAIN = "command-a-03-2025"
NO_THINKING = {"type": "disabled"}


@attrs.define
class Both:
    """One server, and a client of each kind."""

    sdk: Any
    ours: Client
    bodies: list[dict[str, Any]]
    """What was asked since the last look, without ``stream`` and without what is null."""

    def taken(self) -> list[dict[str, Any]]:
        """The bodies so far, and none of them the next time."""
        taken, self.bodies[:] = self.bodies[:], []
        return taken


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    bodies: list[dict[str, Any]] = []

    def record(body: Mapping[str, Any]) -> Any:
        sent = neutral(body)
        sent.pop("stream", None)
        bodies.append(sent)
        return answer(body)

    async with (
        LocalServer(answer=record) as server,
        cohere.AsyncClientV2(api_key="key", base_url=server.url) as sdk,
        Client("key", base_url=server.url, model=MODEL) as ours,
    ):
        yield Both(sdk, ours, bodies)


def neutral(value: Any) -> Any:
    """Without nulls, and with a call's arguments as data: a unary answer spells them otherwise."""
    if isinstance(value, dict):
        return {
            key: json.loads(item) if key == "arguments" else neutral(item)
            for key, item in value.items()
            if item is not None
        }
    return [neutral(item) for item in value] if isinstance(value, list) else value


# --- what an answer says, whoever read it --------------------------------------------------------


@attrs.frozen
class Said:
    """An answer in neutral words."""

    text: str
    thinking: str
    plan: str
    calls: list[tuple[str, str, Any]]
    citations: list[tuple[int, int, str, str | None, list[str]]]
    finish_reason: str | None
    output_tokens: float | None


def said_by_ours(response: ChatResponse) -> Said:
    return Said(
        response.text,
        response.thinking,
        response.tool_plan,
        [(call.id, call.name, call.parsed) for call in response.tool_calls],
        [
            (
                each.start,
                each.end,
                each.text,
                each.type,
                [source.id or "" for source in each.sources],
            )
            for each in response.citations
        ],
        response.finish_reason,
        response.usage.billed_units.output_tokens,
    )


def said_by_sdk(response: Any) -> Said:
    message = response.message
    return Said(
        "".join(part.text for part in message.content or () if part.type == "text"),
        "".join(part.thinking for part in message.content or () if part.type == "thinking"),
        message.tool_plan or "",
        [
            (call.id, call.function.name, json.loads(call.function.arguments))
            for call in message.tool_calls or ()
        ],
        [
            (each.start, each.end, each.text, each.type, [source.id for source in each.sources])
            for each in message.citations or ()
        ],
        response.finish_reason,
        response.usage.billed_units.output_tokens,
    )


async def streamed_by_sdk(stream: Any) -> Said:
    """The events of the SDK put together by hand, as its users do."""
    text, thinking, plan, reason, usage = "", "", "", None, None
    calls: list[list[str]] = []
    citations: list[Any] = []
    async for event in stream:
        if event.type == "content-delta":
            text += event.delta.message.content.text or ""
            thinking += event.delta.message.content.thinking or ""
        elif event.type == "tool-plan-delta":
            plan += event.delta.message.tool_plan
        elif event.type == "tool-call-start":
            call = event.delta.message.tool_calls
            calls.append([call.id, call.function.name, call.function.arguments])
        elif event.type == "tool-call-delta":
            calls[event.index][2] += event.delta.message.tool_calls.function.arguments
        elif event.type == "citation-start":
            citations.append(event.delta.message.citations)
        elif event.type == "message-end":
            reason, usage = event.delta.finish_reason, event.delta.usage
    return Said(
        text,
        thinking,
        plan,
        [(call_id, name, json.loads(arguments)) for call_id, name, arguments in calls],
        [
            (each.start, each.end, each.text, each.type, [source.id for source in each.sources])
            for each in citations
        ],
        reason,
        usage and usage.billed_units.output_tokens,
    )


async def streamed_by_ours(stream: Any) -> Said:
    """The SDK's loop, run on our events."""
    return await streamed_by_sdk(stream)


# --- one question, one answer --------------------------------------------------------------------

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "name of the city"}},
    "required": ["city"],
}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {"people": {"type": "array", "items": PERSON}},
    "required": ["people"],
}
IMAGE = "data:image/png;base64,iVBORw0KGgo="
FACTS = ["Emperor penguins are the tallest penguins.", "Owls hunt at night."]


@tool
def forecast(city: str) -> str:
    """Forecast for a city. city: name of the city"""
    return f"{city}: clear"


def sdk_user(content: Any) -> Any:
    return cohere.UserChatMessageV2(content=content)


def sdk_tool() -> Any:
    return cohere.ToolV2(
        function=cohere.ToolV2Function(
            name="forecast", description="Forecast for a city.", parameters=PARAMETERS
        )
    )


def sdk_person(**fields: Any) -> Any:
    return cohere.JsonObjectResponseFormatV2(**fields)


CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "forecast", "arguments": '{"city": "Lima"}'},
}
SPEC = Tool(FunctionSpec("forecast", PARAMETERS, "Forecast for a city."))
TALK = [("Who wrote Hamlet?", "Shakespeare wrote it."), ("When?", "About the year 1600.")]

Keywords = dict[str, Any]
SAMPLES: dict[str, tuple[Callable[[], Keywords], Callable[[], Keywords], str]] = {
    "a question": (
        lambda: {"messages": [sdk_user("What is an LLM?")]},
        lambda: {"messages": "What is an LLM?"},
        "COMPLETE",
    ),
    "dicts as in the reference": (
        lambda: {"messages": [{"role": "user", "content": "What is RAG?"}]},
        lambda: {"messages": [{"role": "user", "content": "What is RAG?"}]},
        "COMPLETE",
    ),
    "a system message": (
        lambda: {
            "messages": [
                cohere.SystemChatMessageV2(content="Answer as a pirate."),
                sdk_user("What is a token?"),
            ]
        },
        lambda: {"messages": [SystemMessage("Answer as a pirate."), UserMessage("What is a token?")]},
        "COMPLETE",
    ),
    "several turns": (
        lambda: {
            "messages": [
                turn
                for question, reply in TALK
                for turn in (sdk_user(question), cohere.AssistantChatMessageV2(content=reply))
            ]
            + [sdk_user("Where was he born?")]
        },
        lambda: {
            "messages": [
                turn
                for question, reply in TALK
                for turn in (UserMessage(question), {"role": "assistant", "content": reply})
            ]
            + [UserMessage("Where was he born?")]
        },
        "COMPLETE",
    ),
    "parts of text": (
        lambda: {"messages": [sdk_user([cohere.TextContent(text="What is"),
                                        cohere.TextContent(text=" an API?")])]},
        lambda: {"messages": [UserMessage([TextContent("What is"), TextContent(" an API?")])]},
        "COMPLETE",
    ),
    "an image": (
        lambda: {
            "model": "command-a-vision-07-2025",
            "messages": [
                sdk_user(
                    [
                        cohere.TextContent(text="What do you see?"),
                        cohere.ImageUrlContent(image_url=cohere.ImageUrl(url=IMAGE, detail="low")),
                    ]
                )
            ],
        },
        lambda: {
            "model": "command-a-vision-07-2025",
            "messages": [
                UserMessage(
                    [TextContent("What do you see?"), ImageContent(ImageUrl(IMAGE, "low"))]
                )
            ],
        },
        "COMPLETE",
    ),
    "sampling": (
        lambda: {"messages": [sdk_user("Name a colour")], "temperature": 0.9, "seed": 7,
                 "k": 40, "p": 0.5},
        lambda: {"messages": "Name a colour", "temperature": 0.9, "seed": 7, "k": 40, "p": 0.5},
        "COMPLETE",
    ),
    "the edges of p": (
        lambda: {"messages": [sdk_user("Name a colour")], "p": 1.0, "temperature": 0.0},
        lambda: {"messages": "Name a colour", "p": 1.0, "temperature": 0.0},
        "COMPLETE",
    ),
    "penalties": (
        lambda: {"messages": [sdk_user("Say it once")], "frequency_penalty": 0.4,
                 "presence_penalty": 0.2},
        lambda: {"messages": "Say it once", "frequency_penalty": 0.4, "presence_penalty": 0.2},
        "COMPLETE",
    ),
    "few tokens": (
        lambda: {"messages": [sdk_user("What is RAG?")], "max_tokens": 5,
                 "thinking": cohere.Thinking(type="disabled")},
        lambda: {"messages": "What is RAG?", "max_tokens": 5, "thinking": NO_THINKING},
        "MAX_TOKENS",
    ),
    "stop sequences": (
        lambda: {"messages": [sdk_user("What is RAG?")], "stop_sequences": ["documents", "\n\n"]},
        lambda: {"messages": "What is RAG?", "stop_sequences": ("documents", "\n\n")},
        "STOP_SEQUENCE",
    ),
    "log probabilities": (
        lambda: {"messages": [sdk_user("Hello")], "logprobs": True},
        lambda: {"messages": "Hello", "logprobs": True},
        "COMPLETE",
    ),
    "strict safety": (
        lambda: {"messages": [sdk_user("How do locks work?")], "safety_mode": "STRICT"},
        lambda: {"messages": "How do locks work?", "safety_mode": "STRICT"},
        "COMPLETE",
    ),
    "no safety mode": (
        lambda: {"messages": [sdk_user("How do locks work?")], "safety_mode": "OFF",
                 "priority": 10},
        lambda: {"messages": "How do locks work?", "safety_mode": "OFF", "priority": 10},
        "COMPLETE",
    ),
    "documents as text": (
        lambda: {"messages": [sdk_user("Which penguins are the tallest?")], "documents": FACTS},
        lambda: {"messages": "Which penguins are the tallest?", "documents": FACTS},
        "COMPLETE",
    ),
    "documents with ids": (
        lambda: {
            "messages": [sdk_user("When do owls hunt?")],
            "documents": [
                cohere.Document(data={"text": fact, "source": None}, id=f"fact-{n}")
                for n, fact in enumerate(FACTS)
            ],
        },
        lambda: {
            "messages": "When do owls hunt?",
            "documents": [
                Document({"text": fact, "source": None}, f"fact-{n}") for n, fact in enumerate(FACTS)
            ],
        },
        "COMPLETE",
    ),
    "documents without ids": (
        lambda: {
            "messages": [sdk_user("When do owls hunt?")],
            "documents": [cohere.Document(data={"text": fact}) for fact in FACTS],
        },
        lambda: {
            "messages": "When do owls hunt?",
            "documents": [{"data": {"text": fact}} for fact in FACTS],
        },
        "COMPLETE",
    ),
    "fast citations": (
        lambda: {
            "messages": [sdk_user("Which penguins are the tallest?")],
            "documents": FACTS,
            "citation_options": cohere.CitationOptions(mode="FAST"),
        },
        lambda: {
            "messages": "Which penguins are the tallest?",
            "documents": FACTS,
            "citation_options": {"mode": "FAST"},
        },
        "COMPLETE",
    ),
    "no citations": (
        lambda: {
            "messages": [sdk_user("Which penguins are the tallest?")],
            "documents": FACTS,
            "citation_options": cohere.CitationOptions(mode="OFF"),
        },
        lambda: {
            "messages": "Which penguins are the tallest?",
            "documents": FACTS,
            "citation_options": {"mode": "OFF"},
        },
        "COMPLETE",
    ),
    "thinking with a budget": (
        lambda: {"messages": [sdk_user("What is asyncio?")],
                 "thinking": cohere.Thinking(type="enabled", token_budget=6)},
        lambda: {"messages": "What is asyncio?",
                 "thinking": {"type": "enabled", "token_budget": 6}},
        "COMPLETE",
    ),
    "no thinking": (
        lambda: {"messages": [sdk_user("What is asyncio?")],
                 "thinking": cohere.Thinking(type="disabled")},
        lambda: {"messages": "What is asyncio?", "thinking": NO_THINKING},
        "COMPLETE",
    ),
    "JSON": (
        lambda: {"messages": [sdk_user("Write JSON about an owl.")],
                 "response_format": sdk_person()},
        lambda: {"messages": "Write JSON about an owl.", "response_format": {"type": "json_object"}},
        "COMPLETE",
    ),
    "JSON of a schema": (
        lambda: {"messages": [sdk_user("Ana is 30 years old. Write JSON.")],
                 "response_format": sdk_person(json_schema=PERSON)},
        lambda: {"messages": "Ana is 30 years old. Write JSON.",
                 "response_format": {"type": "json_object", "json_schema": PERSON}},
        "COMPLETE",
    ),
    "JSON of a nested schema": (
        lambda: {"messages": [sdk_user("Ana is 30, Ben is 40. Write JSON.")],
                 "response_format": sdk_person(json_schema=NESTED)},
        lambda: {"messages": "Ana is 30, Ben is 40. Write JSON.",
                 "response_format": sdk_person(json_schema=NESTED)},
        "COMPLETE",
    ),
    "a tool": (
        lambda: {"messages": [sdk_user("Forecast for Lima?")], "tools": [sdk_tool()]},
        lambda: {"messages": "Forecast for Lima?", "tools": [SPEC]},
        "TOOL_CALL",
    ),
    "two calls at once, with a plan": (
        lambda: {"model": PLAIN, "messages": [sdk_user("Forecast for Lima and Cusco?")],
                 "tools": [sdk_tool()]},
        lambda: {"model": PLAIN, "messages": "Forecast for Lima and Cusco?", "tools": [SPEC]},
        "TOOL_CALL",
    ),
    "strict tools": (
        lambda: {"messages": [sdk_user("Forecast for Lima?")], "tools": [sdk_tool()],
                 "strict_tools": True},
        lambda: {"messages": "Forecast for Lima?", "tools": [SPEC], "strict_tools": True},
        "TOOL_CALL",
    ),
    "a tool is required": (
        lambda: {"messages": [sdk_user("Lima")], "tools": [sdk_tool()], "tool_choice": "REQUIRED"},
        lambda: {"messages": "Lima", "tools": [SPEC], "tool_choice": "REQUIRED"},
        "TOOL_CALL",
    ),
    "no tool is wanted": (
        lambda: {"messages": [sdk_user("Forecast for Lima?")], "tools": [sdk_tool()],
                 "tool_choice": "NONE"},
        lambda: {"messages": "Forecast for Lima?", "tools": [SPEC], "tool_choice": "NONE"},
        "COMPLETE",
    ),
    "a tool's result as documents": (
        lambda: {
            "messages": [
                sdk_user("Forecast for Lima?"),
                cohere.AssistantChatMessageV2(tool_calls=[cohere.ToolCallV2(**CALL)]),
                cohere.ToolChatMessageV2(
                    tool_call_id="c1",
                    content=[
                        cohere.DocumentToolContent(
                            document=cohere.Document(data={"celsius": 21, "rain": None}, id="r1")
                        )
                    ],
                ),
            ],
            "tools": [sdk_tool()],
        },
        lambda: {
            "messages": [
                UserMessage("Forecast for Lima?"),
                {"role": "assistant", "tool_calls": [CALL]},
                ToolMessage(
                    "c1", [DocumentContent(Document({"celsius": 21, "rain": None}, "r1"))]
                ),
            ],
            "tools": [SPEC],
        },
        "COMPLETE",
    ),
    "a tool's result as text": (
        lambda: {
            "messages": [
                sdk_user("Forecast for Lima?"),
                cohere.AssistantChatMessageV2(tool_calls=[cohere.ToolCallV2(**CALL)]),
                cohere.ToolChatMessageV2(tool_call_id="c1", content='{"celsius": 21}'),
            ],
            "tools": [sdk_tool()],
        },
        lambda: {
            "messages": [
                UserMessage("Forecast for Lima?"),
                {"role": "assistant", "tool_calls": [CALL]},
                ToolMessage("c1", '{"celsius": 21}'),
            ],
            "tools": [SPEC],
        },
        "COMPLETE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_request_and_its_answer(both: Both, name: str) -> None:
    """Unary and streamed by the SDK, awaited and iterated by ours: one request, one answer."""
    in_sdk, in_ours, reason = SAMPLES[name]
    asked = {"model": MODEL, **in_sdk()}
    unary = said_by_sdk(await both.sdk.chat(**asked))
    streamed = await streamed_by_sdk(both.sdk.chat_stream(**asked))
    first, second = both.taken()
    assert first == second
    awaited = said_by_ours(await both.ours.chat(**in_ours()))
    iterated = await streamed_by_ours(both.ours.chat_stream(**in_ours()))
    with_objects = said_by_ours(await both.ours.chat(**in_sdk()))
    assert both.taken() == [first] * 3
    assert unary == streamed == awaited == iterated == with_objects
    assert awaited.finish_reason == reason


def test_there_are_enough_samples() -> None:
    """Thirty kinds and more, and each field of a request in one of them."""
    assert len(SAMPLES) >= 30
    fields = {name for in_sdk, _, _ in SAMPLES.values() for name in in_sdk()}
    assert fields >= {
        *("messages", "model", "tools", "strict_tools", "tool_choice", "documents", "priority"),
        *("citation_options", "response_format", "safety_mode", "max_tokens", "stop_sequences"),
        *("temperature", "seed", "frequency_penalty", "presence_penalty", "k", "p", "logprobs"),
        "thinking",
    }


# --- programs of several requests ----------------------------------------------------------------


async def talk_in_sdk(sdk: Any) -> list[Said]:
    history: list[Any] = [cohere.SystemChatMessageV2(content="Be brief.")]
    answers: list[Said] = []
    for question in ("My name is Ada.", "What is my name?"):
        history.append(sdk_user(question))
        response = await sdk.chat(model=MODEL, messages=history)
        history.append(response.message)
        answers.append(said_by_sdk(response))
    return answers


async def talk_in_ours(client: Client) -> list[Said]:
    history: list[Any] = [SystemMessage("Be brief.")]
    answers: list[Said] = []
    for question in ("My name is Ada.", "What is my name?"):
        history.append(UserMessage(question))
        response = await client.chat(history)
        history.append(response)
        answers.append(said_by_ours(response))
    return answers


async def tool_loop_in_sdk(sdk: Any, model: str, question: str) -> list[Said]:
    messages: list[Any] = [sdk_user(question)]
    answers: list[Said] = []
    while True:
        response = await sdk.chat(model=model, messages=messages, tools=[sdk_tool()])
        answers.append(said_by_sdk(response))
        if not response.message.tool_calls:
            return answers
        messages.append(response.message)
        for call in response.message.tool_calls:
            result = forecast(**json.loads(call.function.arguments))
            messages.append(cohere.ToolChatMessageV2(tool_call_id=call.id, content=result))


async def tool_loop_in_ours(client: Client, model: str, question: str) -> list[Said]:
    messages: list[Any] = [UserMessage(question)]
    answers: list[Said] = []
    while True:
        response = await client.chat(messages, model=model, tools=[SPEC])
        answers.append(said_by_ours(response))
        if not response.tool_calls:
            return answers
        messages.append(response)
        messages += [ToolMessage(call.id, forecast(**call.parsed)) for call in response.tool_calls]


async def run_tools_in_ours(client: Client, model: str, question: str) -> list[Said]:
    run = client.run_tools(question, tools=[forecast], model=model)
    answers: list[Said] = []
    async for event in run:
        if event.type == "message-end":
            answers.append(said_by_ours(event.response))
    return answers


ONE_STEP = "Forecast for Lima and Cusco?"
Program = Callable[[Any], Awaitable[list[Said]]]
PROGRAMS: dict[str, tuple[Program, Program]] = {
    "a conversation": (talk_in_sdk, talk_in_ours),
    "tools of a model that thinks": (
        lambda sdk: tool_loop_in_sdk(sdk, MODEL, ONE_STEP),
        lambda client: tool_loop_in_ours(client, MODEL, ONE_STEP),
    ),
    "tools of a model that plans": (
        lambda sdk: tool_loop_in_sdk(sdk, PLAIN, ONE_STEP),
        lambda client: tool_loop_in_ours(client, PLAIN, ONE_STEP),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program(both: Both, name: str) -> None:
    """Each request holds the answers so far, as each client writes them."""
    in_sdk, in_ours = PROGRAMS[name]
    expected = await in_sdk(both.sdk)
    asked = both.taken()
    assert await in_ours(both.ours) == expected
    assert both.taken() == asked
    assert len(asked) == 2


async def test_run_tools_is_the_loop(both: Both) -> None:
    """What users of the SDK write by hand, with the schema read from the function."""
    expected = await tool_loop_in_sdk(both.sdk, MODEL, ONE_STEP)
    asked = both.taken()
    assert await run_tools_in_ours(both.ours, MODEL, ONE_STEP) == expected
    assert both.taken() == asked


async def test_events_have_the_ids_of_the_sdk(both: Both) -> None:
    """``event.id`` of the first event and of the last."""
    asked = {"model": MODEL, "messages": [sdk_user("What is an LLM?")]}
    theirs = [event async for event in both.sdk.chat_stream(**asked)]
    ours = [event async for event in both.ours.chat_stream("What is an LLM?")]
    assert [event.type for event in ours] == [event.type for event in theirs]
    assert ours[0].type == "message-start"
    assert ours[-1].type == "message-end"
    assert theirs[0].id == ours[0].id == ours[-1].id


async def test_an_error_has_the_status_of_the_sdks(both: Both) -> None:
    """``status_code`` there, ``status`` here."""
    with pytest.raises(cohere.NotFoundError) as theirs:
        await both.sdk.chat(model="does-not-exist", messages=[sdk_user("Hi")])
    with pytest.raises(NotFoundError) as ours:
        await both.ours.chat("Hi", model="does-not-exist")
    assert ours.value.status == theirs.value.status_code == 404
    assert ours.value.message == theirs.value.body["message"]


def test_an_answer_of_ours_has_the_keys_of_the_sdks() -> None:
    """A stored ``to_dict()`` is read by the SDK's own class."""
    response = ChatResponse("m", AssistantMessage([TextContent("Hi")]), "COMPLETE")
    theirs = cohere.V2ChatResponse(**response.to_dict())
    assert theirs.message.content[0].text == response.text
    assert theirs.id == response.id
