"""Objects of the official SDK, and of pydantic in general, wherever a dict is taken."""

from __future__ import annotations

import enum
import json
import warnings
from typing import Any

import attrs
import pydantic
import pydantic.dataclasses
import pydantic.v1
import pytest

from streamchat import (
    Conversation,
    Document,
    DocumentContent,
    ImageContent,
    ImageUrl,
    TextContent,
    ThinkingContent,
    ToolMessage,
    UserMessage,
    last_turns,
)
from streamchat.protocol.plain import to_plain
from streamchat.protocol.request import ChatRequest
from streamchat.protocol.values import plain_value

cohere = pytest.importorskip("cohere")
httpx = pytest.importorskip("httpx")


def sdk_body(messages: list[Any], **options: Any) -> dict[str, Any]:
    """What the official SDK sends."""
    bodies: list[bytes] = []

    def answer(request: Any) -> Any:
        bodies.append(request.content)
        return httpx.Response(200, json={"id": "m", "finish_reason": "COMPLETE",
                                         "message": {"role": "assistant"}})  # fmt: skip

    transport = httpx.MockTransport(answer)
    client = cohere.ClientV2("key", httpx_client=httpx.Client(transport=transport))
    client.chat(model="m", messages=messages, **options)
    return dict(json.loads(bodies[0]))


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": ["string", "null"], "default": None}, "data": {"enum": [None]}},
    "required": [],
}


def function(**fields: Any) -> Any:
    return cohere.ToolV2Function(name="weather", parameters=SCHEMA, **fields)


CALL = cohere.ToolCallV2(
    id="c1", function=cohere.ToolCallV2Function(name="weather", arguments='{"city": null}')
)
SOURCE = cohere.DocumentSource(id="d", document={"id": "d", "note": None})
CITED = cohere.Citation(start=0, end=2, text="Hi", sources=[SOURCE], type="TEXT_CONTENT")
RESPONSE = cohere.V2ChatResponse(
    id="m",
    finish_reason="COMPLETE",
    message=cohere.AssistantMessageResponse(
        content=[
            cohere.ThinkingAssistantMessageResponseContentItem(thinking="hm"),
            cohere.TextAssistantMessageResponseContentItem(text="Hi"),
        ],
        citations=[CITED],
    ),
)
IMAGE = cohere.ImageUrlContent(
    image_url=cohere.ImageUrl(url="data:image/png;base64,AA", detail="low")
)
USER = cohere.UserChatMessageV2(content="Hi")
REQUESTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "messages": (
        [cohere.SystemChatMessageV2(content="Be brief."), USER],
        {},
    ),
    "parts": (
        [
            cohere.UserChatMessageV2(content=[cohere.TextContent(text="What is it?"), IMAGE]),
            cohere.AssistantChatMessageV2(content="A cat.", tool_plan="plan"),
            cohere.SystemChatMessageV2(
                content=[cohere.TextSystemMessageV2ContentOneItem(text="x")]
            ),
        ],
        {},
    ),
    "objects in dicts": (
        [{"role": "user", "content": [cohere.TextContent(text="What is it?"), IMAGE]}],
        {},
    ),
    "calls and results": (
        [
            USER,
            cohere.AssistantChatMessageV2(tool_calls=[CALL], tool_plan="I look."),
            cohere.ToolChatMessageV2(
                tool_call_id="c1",
                content=[
                    cohere.DocumentToolContent(
                        document=cohere.Document(data={"city": "Lima", "rain": None}, id="r")
                    ),
                    cohere.TextToolContent(text="sunny"),
                ],
            ),
        ],
        {},
    ),
    "calls in a dict": (
        [
            USER,
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "[]"},
        ],
        {"tools": [cohere.ToolV2(function=function())]},
    ),
    "an answer": ([USER, RESPONSE.message, USER], {}),
    "an answer that was read": (
        [
            USER,
            cohere.V2ChatResponse(**json.loads(RESPONSE.json())).message,
            USER,
        ],
        {},
    ),
    "tools": (
        [USER],
        {
            "tools": [
                cohere.ToolV2(function=function()),
                cohere.ToolV2(type="function", function=function(description="Forecast")),
                {"type": "function", "function": function()},
            ],
            "tool_choice": "REQUIRED",
            "strict_tools": True,
        },
    ),
    "documents": (
        [USER],
        {
            "documents": [
                cohere.Document(data={"text": "x", "page": None}),
                cohere.Document(data={"text": "y"}, id="d"),
                "plain",
                {"data": {"text": "z"}},
            ],
            "citation_options": cohere.CitationOptions(mode="FAST"),
        },
    ),
    "no citation mode": ([USER], {"citation_options": cohere.CitationOptions(mode="OFF")}),
    "json": ([USER], {"response_format": cohere.JsonObjectResponseFormatV2()}),
    "json with a schema": (
        [USER],
        {"response_format": cohere.JsonObjectResponseFormatV2(json_schema=SCHEMA)},
    ),
    "text format": ([USER], {"response_format": cohere.TextResponseFormatV2()}),
    "thinking": ([USER], {"thinking": cohere.Thinking(type="enabled", token_budget=500)}),
    "no thinking": ([USER], {"thinking": cohere.Thinking(type="disabled")}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_body_is_the_sdks(name: str) -> None:
    """The same objects make the same body, but for ``stream``."""
    messages, options = REQUESTS[name]
    ours = ChatRequest.build(messages, "m", options).to_dict(stream=False)
    assert ours == sdk_body(messages, **options)


def test_every_object_of_a_request_is_tried() -> None:
    """What the SDK's signature of ``chat`` takes besides plain data."""
    tried = {type(value).__name__ for value in _objects(list(REQUESTS.values()))}
    assert tried >= {
        *(
            "UserChatMessageV2",
            "SystemChatMessageV2",
            "AssistantChatMessageV2",
            "ToolChatMessageV2",
        ),
        *("ToolV2", "ToolV2Function", "ToolCallV2", "ToolCallV2Function", "Document", "Citation"),
        *("TextContent", "ImageUrlContent", "DocumentToolContent", "TextToolContent", "Thinking"),
        *("CitationOptions", "JsonObjectResponseFormatV2", "TextResponseFormatV2"),
        "AssistantMessageResponse",
    }


def _objects(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for part in value.values() for found in _objects(part)]
    if isinstance(value, list | tuple):
        return [found for part in value for found in _objects(part)]
    if isinstance(value, pydantic.BaseModel):
        return [value, *_objects(dict(value))]
    return []


def test_a_conversation_keeps_them_as_plain_turns() -> None:
    """The SDK's turns are stored, trimmed and read again like any."""
    talk = Conversation()
    talk.add(USER, RESPONSE.message, USER)
    assert Conversation.from_json(talk.to_json()) == talk
    talk.trim(last_turns(1))
    assert talk.messages == [{"role": "user", "content": "Hi"}]


# --- one part that is not in a list ---------------------------------------------------------------

TEXT = {"type": "text", "text": "Hi"}
SINGLE: list[tuple[Any, Any]] = [
    (TEXT, TEXT),
    ({"type": "image_url", "image_url": {"url": "u"}}, None),
    ({"type": "future", "future": [1]}, None),
    (cohere.TextContent(text="Hi"), TEXT),
    (IMAGE, {"type": "image_url", "image_url": {"url": IMAGE.image_url.url, "detail": "low"}}),
    (TextContent("Hi"), TEXT),
    (ThinkingContent("hm"), {"type": "thinking", "thinking": "hm"}),
    (ImageContent(ImageUrl("u")), {"type": "image_url", "image_url": {"url": "u"}}),
    (
        DocumentContent(Document({"a": None})),
        {"type": "document", "document": {"data": {"a": None}}},
    ),
]


@pytest.mark.parametrize(("content", "sent"), SINGLE)
def test_one_part_is_sent_as_it_is(content: Any, sent: Any) -> None:
    """The API takes a part that is not in a list, and so do we: in a dict and in a message class."""
    sent = content if sent is None else sent
    for message in ({"role": "user", "content": content}, UserMessage(content)):
        (turn,) = ChatRequest(model="m", messages=[message]).messages
        assert turn == {"role": "user", "content": sent}


@pytest.mark.parametrize("content", [{}, {"text": "Hi"}, {"type": "text"}, {"type": 5, "text": ""},
                                     {"type": "type"}, 5, {"temperature": 20}])  # fmt: skip
def test_other_data_is_no_content(content: Any) -> None:
    """The fix is in the message: data becomes a str."""
    with pytest.raises(TypeError, match=r"^messages\[0\]\['content'\].*json\.dumps\(\)"):
        ChatRequest(model="m", messages=[{"role": "user", "content": content}])


# --- pydantic in general --------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    note: str | None = None


class Page(pydantic.BaseModel):
    """A class of the user's: its fields have aliases, and may be None."""

    model_config = pydantic.ConfigDict(populate_by_name=True)
    page_text: str = pydantic.Field(alias="pageText")
    colour: Colour = Colour.RED
    author: str | None = None
    inner: Inner = Inner()


class OldPage(pydantic.v1.BaseModel):
    """The same by pydantic's first version."""

    page_text: str = pydantic.v1.Field(alias="pageText")
    colour: Colour = Colour.RED
    author: str | None = None
    inner: dict[str, Any] = {"note": None}


@pydantic.dataclasses.dataclass
class DataPage:
    """The same as a dataclass."""

    page_text: str = pydantic.Field(alias="pageText")
    colour: Colour = Colour.RED
    author: str | None = None
    inner: Inner = pydantic.Field(default_factory=Inner)


PAGES = [Page(pageText="x"), OldPage(pageText="x"), DataPage(pageText="x")]
DATA = {"pageText": "x", "colour": "red", "author": None, "inner": {"note": None}}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: type(page).__name__)


@pages
def test_a_document_keeps_what_is_none(page: Any) -> None:
    """A document is the user's data: null says that something is not known."""
    for document in (page, {"data": page}, Document(page)):
        request = ChatRequest(model="m", messages="Hi", documents=[document])
        assert request.to_dict()["documents"] == [{"data": DATA}]
    part = {"type": "document", "document": {"data": page}}
    for content in ([part], [DocumentContent(Document(page))]):
        turn = {"role": "tool", "tool_call_id": "c", "content": content}
        sent = ChatRequest(model="m", messages=[turn]).to_dict()["messages"][0]["content"]
        assert sent == [{"type": "document", "document": {"data": DATA}}]


@pages
def test_a_result_keeps_what_is_none(page: Any) -> None:
    """An object as a message's content is data too: its JSON text."""
    for message in (
        ToolMessage("c", page),
        {"role": "tool", "tool_call_id": "c", "content": page},
    ):
        (turn,) = ChatRequest(model="m", messages=[message]).messages
        assert json.loads(turn["content"]) == DATA


@pages
def test_an_object_of_a_request_leaves_out_what_is_none(page: Any) -> None:
    """The API has no use for it, and refuses null for some fields."""
    short = {name: value for name, value in DATA.items() if value is not None}
    for body in ({"page": page}, {"page": [page]}):
        sent = ChatRequest(model="m", messages="Hi", extra_body=body).to_dict()["page"]
        sent = sent[0] if isinstance(sent, list) else sent
        assert sent.keys() == short.keys()
    assert to_plain(page, omit_none=True).keys() == short.keys()
    assert to_plain(page) == DATA


def test_plain_data_keeps_its_nulls() -> None:
    """Only fields of objects are left out: a dict is sent as it was given."""
    tool = {
        "type": "function",
        "function": {"name": "f", "description": None, "parameters": SCHEMA},
    }
    request = ChatRequest(
        model="m", messages=[{"role": "assistant", "content": None}], tools=[tool]
    )
    assert request.to_dict()["tools"] == [tool]
    assert request.to_dict()["messages"] == [{"role": "assistant", "content": None}]


def test_a_document_of_the_wire_has_no_null_id() -> None:
    """A class with ``data`` is a document itself; its data keeps what is None."""

    class Mine(pydantic.BaseModel):
        data: Inner
        id: str | None = None

    request = ChatRequest(model="m", messages="Hi", documents=[Mine(data=Inner())])
    assert request.to_dict()["documents"] == [{"data": {"note": None}}]


WRONG: list[tuple[str, Any, str]] = [
    ("citation_options", Page(pageText="x"), "citation_options"),
    ("response_format", Page(pageText="x"), "response_format"),
    ("thinking", cohere.Thinking(type="maybe"), "thinking"),
    ("tools", [Page(pageText="x")], r"tools\[0\]"),
    ("tools", cohere.ToolV2(function=function()), "tools must be a list"),
    ("extra_body", pydantic.RootModel[list[int]]([1]), "extra_body must be a dict"),
    (
        "extra_body",
        pydantic.create_model("B", model=(str, "m"))(),
        "extra_body cannot hold 'model'",
    ),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_an_object_is_checked_as_a_dict_is(name: str, value: Any, words: str) -> None:
    """The error names the argument."""
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        ChatRequest.build("Hi", "m", {name: value})


def test_an_object_that_cannot_write_itself_is_named() -> None:
    """Wherever it stands, also one of pydantic's first version."""

    class Broken(pydantic.v1.BaseModel):
        x: Any

    class Failing(pydantic.BaseModel):
        x: Any

    for broken in (Broken(x=object()), Failing(x=object())):
        with pytest.raises(ValueError, match=r"^extra_body\.a is of type \w+, which cannot write"):
            ChatRequest(model="m", messages="Hi", extra_body={"a": broken})
        with pytest.raises(ValueError, match=r"^thinking is of type"):
            ChatRequest(model="m", messages="Hi", thinking=broken)


def test_a_class_that_only_resembles_pydantic_is_refused() -> None:
    """A ``json`` method alone does not make one."""

    @attrs.define
    class Row:
        __fields__ = ("a",)

        def json(self) -> str:
            return "{}"

    with pytest.raises(TypeError, match=r"^tools\[0\] must be a dict or a Tool"):
        ChatRequest(model="m", messages="Hi", tools=[Row()])


@pytest.mark.parametrize("root", [[1], 5, None, [{"data": {}}]])
def test_an_object_that_writes_no_object_is_no_document(root: Any) -> None:
    """A RootModel is what it holds: data is an object, and a str is a document of text."""
    with pytest.raises(TypeError, match=r"^documents\[0\] must be a str, a dict with 'data'"):
        ChatRequest(model="m", messages="Hi", documents=[pydantic.RootModel[Any](root)])


def test_a_root_model_is_what_it_holds() -> None:
    given = [pydantic.RootModel[str]("text"), pydantic.RootModel[dict[str, int]]({"a": 1})]
    request = ChatRequest(model="m", messages="Hi", documents=given)
    assert request.to_dict()["documents"] == ["text", {"data": {"a": 1}}]


def test_an_error_does_not_quote_what_an_object_holds() -> None:
    """Under ``-W error`` pydantic's warning about a field of another type is an exception."""

    class Turn(pydantic.BaseModel):
        role: str = "user"
        content: int

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ValueError, match=r"^messages\[0\] is of type Turn, which cannot"
        ) as caught:
            ChatRequest(model="m", messages=[Turn.model_construct(content="canary")])
    assert "canary" not in str(caught.value)


def test_an_object_that_writes_null_is_null() -> None:
    """Not something that JSON cannot say."""
    nothing = pydantic.RootModel[int | None](None)
    assert to_plain({"a": [nothing]}) == plain_value({"a": [nothing]}) == {"a": [None]}
    request = ChatRequest(model="m", messages="Hi", documents=[{"data": {"a": nothing}}])
    assert request.to_dict()["documents"] == [{"data": {"a": None}}]
