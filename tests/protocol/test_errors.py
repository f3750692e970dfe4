"""The error tree: exactly the one of the design, plain data, nothing lost on the way."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import streamchat
from streamchat.protocol import ChatResponse, Frame
from streamchat.protocol import errors as module
from streamchat.protocol.error_body import clean_words, error_words, status_error
from streamchat.protocol.errors import (
    AnswerTooLargeError,
    AuthenticationError,
    BadRequestError,
    ConcurrencyError,
    ConfigurationError,
    ConnectError,
    DecodeError,
    FrameTooLargeError,
    GenerationError,
    InvalidTokenError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestCancelledError,
    ServerError,
    StatusError,
    StopReachedError,
    StreamChatError,
    StreamTimeoutError,
    StructureError,
    ToolArgumentsError,
    ToolError,
    ToolLoopLimitError,
    ToolRefusedError,
    TransportError,
    TruncatedStreamError,
    UnexpectedContentTypeError,
    UnprocessableEntityError,
    status_error_class,
)
from streamchat.protocol.messages import AssistantMessage, TextContent

from .helpers import CANARY

TREE: dict[type, tuple[type, ...]] = {
    StreamChatError: (Exception,),
    ConfigurationError: (StreamChatError, ValueError),
    TransportError: (StreamChatError,),
    ConnectError: (TransportError,),
    StreamTimeoutError: (TransportError, TimeoutError),
    TruncatedStreamError: (TransportError,),
    StatusError: (StreamChatError,),
    BadRequestError: (StatusError,),
    AuthenticationError: (StatusError,),
    PaymentRequiredError: (StatusError,),
    PermissionDeniedError: (StatusError,),
    NotFoundError: (StatusError,),
    UnprocessableEntityError: (StatusError,),
    RateLimitError: (StatusError,),
    InvalidTokenError: (StatusError,),
    RequestCancelledError: (StatusError,),
    ServerError: (StatusError,),
    ProtocolError: (StreamChatError,),
    DecodeError: (ProtocolError,),
    FrameTooLargeError: (ProtocolError,),
    AnswerTooLargeError: (ProtocolError,),
    UnexpectedContentTypeError: (ProtocolError,),
    GenerationError: (StreamChatError,),
    StopReachedError: (StreamChatError,),
    StructureError: (StreamChatError, ValueError),
    ToolError: (StreamChatError,),
    ToolArgumentsError: (ToolError, ValueError),
    ToolLoopLimitError: (ToolError,),
    ToolRefusedError: (ToolError,),
    ConcurrencyError: (StreamChatError, RuntimeError),
}
"""The tree of design.md 4, class by class."""


def network(cls: type[TransportError], **more: Any) -> TransportError:
    return cls(
        "lost",
        host="api.cohere.com:443",
        errno=104,
        elapsed=1.5,
        events=7,
        bytes_received=900,
        **more,
    )


def status(cls: type[StatusError]) -> StatusError:
    return cls(
        "HTTP 4xx",
        status=429,
        server_message="slow down",
        error_type="T",
        request_id="r",
        retry_after=2.5,
        headers={"retry-after": "2.5"},
        body=b"{}",
    )


EXAMPLES: dict[type, StreamChatError] = {
    **{
        cls: cls("words")
        for cls in TREE
        if cls in (StreamChatError, ConfigurationError, ProtocolError, ToolError)
        or cls in (ToolLoopLimitError, ConcurrencyError)
    },
    **{
        cls: network(cls, kind="reset")
        for cls in (TransportError, ConnectError, TruncatedStreamError)
    },
    StreamTimeoutError: network(StreamTimeoutError, phase="idle", seconds=60.0),
    **{cls: status(cls) for cls in TREE if issubclass(cls, StatusError)},
    DecodeError: DecodeError("no type", event_type="x", path="$.type", payload=b"{}"),
    FrameTooLargeError: FrameTooLargeError(limit=10, frames=[Frame("a", b"b", "c", 5)]),
    AnswerTooLargeError: AnswerTooLargeError(limit=10),
    UnexpectedContentTypeError: UnexpectedContentTypeError(
        "HTML", content_type="text/html", body=b"<p>"
    ),
    GenerationError: GenerationError(finish_reason="ERROR", error="e", error_type="T"),
    StopReachedError: StopReachedError(
        "stopped", reason="tokens", results=3, failures=1, tokens=20, seconds=1.5
    ),
    StructureError: StructureError("no int", into="Order", text="{}", path="$.count"),
    ToolArgumentsError: ToolArgumentsError("no JSON", name="f", arguments="{"),
    ToolRefusedError: ToolRefusedError("too dear", name="f"),
}
every_class = pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)


def facts(error: BaseException) -> dict[str, Any]:
    """Every attribute that a caller can read, OSError's own included."""
    names = set(vars(error)) | {"partial", "attempts", "errno", "__notes__"}
    return {name: getattr(error, name, None) for name in names} | {"args": error.args}


def test_the_tree_is_the_designs() -> None:
    """Exactly these classes, with exactly these bases; all of them public."""
    found = {
        cls: cls.__bases__
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseException)
    }
    assert found == TREE
    assert {cls.__name__ for cls in TREE} | {"status_error_class"} == set(module.__all__)
    assert all(getattr(streamchat, cls.__name__) is cls for cls in TREE)


def test_the_docstring_draws_the_tree() -> None:
    """The picture at the top of the module names every class but the statuses between the dots."""
    between = {cls.__name__ for cls in TREE if issubclass(cls, StatusError)}
    for cls in TREE:
        if cls.__name__ not in between - {"StatusError", "BadRequestError", "ServerError"}:
            assert cls.__name__ in (module.__doc__ or ""), cls


@every_class
def test_every_class_says_when_it_is_raised(cls: type) -> None:
    """Each class has a docstring of its own."""
    assert cls.__dict__["__doc__"]


@every_class
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle_with_all_they_hold(cls: type, protocol: int) -> None:
    """An error that crosses a process keeps its type, words, attributes, partial answer and notes."""
    error = EXAMPLES[cls].with_traceback(None)
    error = copy.copy(error)
    error.partial = ChatResponse("m", AssistantMessage([TextContent("a")]))
    error.attempts = 3
    error.add_note("in handler f")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(error) is type(again)
    assert str(error) == str(again)
    assert facts(error) == facts(again)


@every_class
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_errors_copy_with_all_they_hold(cls: type, duplicate: Any) -> None:
    """A copy is another object with the same type, words and attributes."""
    error = EXAMPLES[cls]
    again = duplicate(error)
    assert again is not error
    assert (type(error), str(error), facts(error)) == (type(again), str(again), facts(again))


@every_class
def test_errors_start_without_an_answer(cls: type) -> None:
    """Before the first event there is no partial answer, and one attempt was made."""
    assert (EXAMPLES[cls].partial, EXAMPLES[cls].attempts) == (None, 1)


@pytest.mark.parametrize(
    ("expected", "cls"),
    [
        (
            {
                "kind": "reset",
                "host": "api.cohere.com:443",
                "errno": 104,
                "elapsed": 1.5,
                "events": 7,
                "bytes_received": 900,
            },
            ConnectError,
        ),
        ({"kind": "timeout", "phase": "idle", "seconds": 60.0, "errno": 104}, StreamTimeoutError),
        (
            {
                "status": 429,
                "message": "slow down",
                "error_type": "T",
                "request_id": "r",
                "retry_after": 2.5,
                "headers": {"retry-after": "2.5"},
                "body": b"{}",
            },
            RateLimitError,
        ),
        (
            {"reason": "no type", "event_type": "x", "path": "$.type", "payload": b"{}"},
            DecodeError,
        ),
        ({"limit": 10, "frames": [Frame("a", b"b", "c", 5)]}, FrameTooLargeError),
        ({"limit": 10}, AnswerTooLargeError),
        ({"content_type": "text/html", "body": b"<p>"}, UnexpectedContentTypeError),
        ({"finish_reason": "ERROR", "error": "e", "error_type": "T"}, GenerationError),
        ({"reason": "no int", "text": "{}", "path": "$.count"}, StructureError),
        ({"name": "f", "arguments": "{"}, ToolArgumentsError),
    ],
)
def test_errors_have_their_facts(expected: dict[str, Any], cls: type) -> None:
    """What a caller decides by is an attribute, not a part of the words."""
    assert expected == {name: getattr(EXAMPLES[cls], name) for name in expected}


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (
            "cannot decode 'content-delta' event: no text (at $.a, 3 bytes)",
            DecodeError("no text", event_type="content-delta", path="$.a", payload=b"abc"),
        ),
        ("cannot decode an event: no text (at $, 0 bytes)", DecodeError("no text")),
        (
            (
                "an event is larger than 10 bytes; "
                "raise max_event_bytes if your documents or tool results are that large"
            ),
            FrameTooLargeError(limit=10),
        ),
        (
            "the answer failed with finish reason ERROR [T]: e",
            GenerationError(finish_reason="ERROR", error="e", error_type="T"),
        ),
        (
            "the answer failed with finish reason TIMEOUT: the server gave no reason",
            GenerationError(finish_reason="TIMEOUT"),
        ),
        (
            "the answer does not fit Order: not JSON (at $; see .text)",
            StructureError("not JSON", into="Order", text=CANARY),
        ),
        (
            "the arguments of tool call 'f' are unusable: not JSON",
            ToolArgumentsError("not JSON", name="f", arguments=CANARY),
        ),
        ("the call of tool 'f' was refused: too dear", EXAMPLES[ToolRefusedError]),
        ("the call of tool 'f' was refused", ToolRefusedError("", name="f")),
        ("lost", EXAMPLES[StreamTimeoutError]),
        ("lost", EXAMPLES[ConnectError]),
    ],
)
def test_the_words_of_an_error(expected: str, error: StreamChatError) -> None:
    """What was wrong and what to do, in one line, without content."""
    assert expected == str(error)


def test_headers_are_copied() -> None:
    """The caller's dict of headers is not kept."""
    headers = {"a": "b"}
    error = StatusError("x", status=400, headers=headers)
    headers.clear()
    assert error.headers == {"a": "b"}
    assert StatusError("x", status=400).headers == {}


# --- statuses ------------------------------------------------------------------------------------

STATUSES = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    498: InvalidTokenError,
    499: RequestCancelledError,
    500: ServerError,
    501: ServerError,
    529: ServerError,
    599: ServerError,
    **dict.fromkeys((204, 206, 302, 307, 405, 408, 409, 418, 425, 600, 999), StatusError),
}


@pytest.mark.parametrize("code", STATUSES)
def test_every_status_has_its_class(code: int) -> None:
    """By number; the plain ``StatusError`` where the design names none."""
    assert STATUSES[code] is status_error_class(code)
    assert STATUSES[code] is type(status_error(code, headers={}, body=b""))


BODIES: dict[str, tuple[str, str | None, bytes]] = {
    "message": ("boom", None, b'{"message":"boom"}'),
    "id and message": ("boom", None, b'{"id":"x","message":"boom"}'),
    "error type": ("boom", "T", b'{"message":"boom","error_type":"T"}'),
    "error type of another type": ("boom", None, b'{"message":"boom","error_type":7}'),
    "error": ("boom", None, b'{"error":"boom"}'),
    "error object": ("boom", None, b'{"error":{"message":"boom","code":7}}'),
    "message object": ("boom", None, b'{"message":{"message":"boom"}}'),
    "no message": ('{"reference":"boom"}', None, b'{"reference":"boom"}'),
    "an answer": (
        "",
        None,
        b'{"id":"x","message":{"role":"assistant","content":[{"text":"secret"}]}}',
    ),
    "an answer of another API": ("", None, b'{"choices":[{"message":{"content":"secret"}}]}'),
    "message is a number": ('{"message":7}', None, b'{"message":7}'),
    "an array": ("boom", None, b'["boom"]'),
    "HTML": ("<h1>502</h1> <p>Bad Gateway</p>", None, b"<h1>502</h1>\r\n<p>Bad Gateway</p>\n"),
    "text": ("upstream connect error", None, b"upstream connect error"),
    "nothing": ("", None, b""),
    "control characters": ("a b c", None, b'{"message":"a\\u001b\\nb\\u2028c"}'),
    "half an emoji": ("a\ufffd", None, b'{"message":"a\\ud83d"}'),
    "ill-formed UTF-8": ("a\ufffd", None, b"a\xff"),
    "deep nesting": ("[" * 500 + "...", None, b"[" * 5000),
    "long": ("x" * 500 + "...", None, b'{"message":"%s"}' % (b"x" * 501)),
    "just not too long": ("x" * 500, None, b'{"message":"%s"}' % (b"x" * 500)),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_servers_words_are_found_in_any_body(name: str) -> None:
    """``message`` wherever it stands, else the start of the text; always one printable line."""
    message, error_type, body = BODIES[name]
    error = status_error(400, headers={}, body=body)
    assert (message, error_type, body) == (error.message, error.error_type, error.body)
    assert message.isprintable()
    assert error.__context__ is None is error.__cause__


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"message-start"}\n{"type":"content-delta","delta":{"message":"canary"}}\n',
        b'\xef\xbb\xbf\n{"type":"content-delta","delta":{"message":{"content":{"text":"canary"}}}}\n{',
        b'id: 1\nretry: 5\n\n: c\ndata: {"type":"content-delta","delta":{"text":"canary"}}\n\n',
        b': comment\n\nevent: content-delta\ndata: {"text":"canary\n\n',
        b'{"id":"1","message":{"role":"assistant","content":[{"type":"text","text":"canary and mo',
        b'[{"candidates":[{"content":"canary"}]}]',
        b'{"role":"assistant","content":"canary"}',
        b'{\n  "choices": [\n    {"text": "canary"}, NaN]}',
        b'{"messages":["canary"]}',
    ],
)
def test_no_answer_is_quoted(body: bytes) -> None:
    """Whatever its form, whole, cut or malformed."""
    error = status_error(400, headers={}, body=body)
    assert "canary" not in str(error) + repr(error)


@pytest.mark.parametrize(
    ("words", "body"),
    [
        ("busy", b': c\n\nevent: error\ndata: {"message":"busy"}\n\n'),
        ("busy", b'\xef\xbb\xbf {"error":{"message":"busy"},"choices":[]}'),
        ("busy", b'{"message":"busy"}\n{"type":"message-end"}\n'),
        ('{"message":"busy, sent too sl', b'{"message":"busy, sent too sl'),
    ],
)
def test_an_error_in_another_form_is_quoted(words: str, body: bytes) -> None:
    assert status_error(400, headers={}, body=body).message == words


ERROR_OBJECTS: dict[str, tuple[object, tuple[str, str | None, int | None]]] = {
    "Cohere": ({"message": "boom", "error_type": "X"}, ("boom", "X", None)),
    "OpenAI": (
        {"error": {"message": "boom", "type": "rate_limit_error", "param": None, "code": 429}},
        ("boom", "rate_limit_error", 429),
    ),
    "OpenAI, code in words": (
        {"error": {"message": "boom", "type": "invalid_request_error", "code": "invalid_api_key"}},
        ("boom", "invalid_request_error", None),
    ),
    "Anthropic": (
        {"type": "error", "error": {"type": "overloaded_error", "message": "boom"}},
        ("boom", "overloaded_error", None),
    ),
    "Google": (
        [{"error": {"code": 401, "message": "boom", "status": "UNAUTHENTICATED"}}],
        ("boom", "UNAUTHENTICATED", 401),
    ),
    "vLLM": (
        {"object": "error", "message": "boom", "type": "BadRequestError", "code": 400},
        ("boom", "BadRequestError", 400),
    ),
    "Azure": ({"error": {"code": "401", "message": "boom"}}, ("boom", "401", 401)),
    "Azure API Management": ({"statusCode": 401, "message": "boom"}, ("boom", None, 401)),
    "OCI": ({"code": "NotAuthenticated", "message": "boom"}, ("boom", "NotAuthenticated", None)),
    "Bedrock": ({"Message": "boom"}, ("boom", None, None)),
    "AWS": (
        {"__type": "AccessDeniedException", "message": "boom"},
        ("boom", "AccessDeniedException", None),
    ),
    "FastAPI": ({"detail": "boom"}, ("boom", None, None)),
    "FastAPI, invalid body": (
        {
            "detail": [
                {
                    "loc": ["body", "messages", 0],
                    "msg": "boom",
                    "type": "missing",
                    "input": "secret",
                },
                {"loc": ["body", "model"], "msg": "bang", "type": "missing"},
            ]
        },
        ("body.messages.0: boom; body.model: bang", "missing", None),
    ),
    "FastAPI, detail object": (
        {"detail": {"error": {"message": "boom", "type": "T"}}},
        ("boom", "T", None),
    ),
    "problem details": (
        {"type": "about:blank", "title": "Bad", "status": 400, "detail": "boom"},
        ("boom", None, 400),
    ),
    "problem details, title alone": (
        {"type": "https://example.com/quota", "title": "boom"},
        ("boom", "https://example.com/quota", None),
    ),
    "ASP.NET": (
        {"title": "invalid", "status": 400, "errors": {"Model": ["is required"]}},
        ("Model: is required", None, 400),
    ),
    "OAuth": (
        {"error": "invalid_token", "error_description": "boom"},
        ("boom", "invalid_token", None),
    ),
    "Spring": (
        {"status": 401, "error": "Unauthorized", "message": "boom", "path": "/v2/chat"},
        ("boom", "Unauthorized", 401),
    ),
    "error text": ({"error": "boom"}, ("boom", None, None)),
    "text alone": ("boom", ("boom", None, None)),
    "list of objects": ({"errors": [{"message": "boom"}, {"code": 503}]}, ("boom", None, 503)),
    "list of texts": ({"errors": ["boom", "bang"]}, ("boom; bang", None, None)),
    "Apigee": (
        {"fault": {"faultstring": "boom", "detail": {"errorcode": "x"}}},
        ("boom", None, None),
    ),
    "words outside, type inside": (
        {"message": "boom", "error": {"type": "T", "code": 418}},
        ("boom", "T", 418),
    ),
    "code that is no status": ({"error": {"message": "boom", "code": 1302}}, ("boom", None, None)),
    "code True": ({"message": "boom", "code": True}, ("boom", None, None)),
    "control characters": (
        {"message": "a\nb\x1b[31m\u202ec", "type": "t\n\x1b"},
        ("a b [31m c", "t", None),
    ),
    "no error": ({"id": "x", "data": {"a": 1}}, ("", None, None)),
    "nothing": (None, ("", None, None)),
    "nested too deeply": (
        {"error": {"error": {"error": {"error": {"message": "boom"}}}}},
        ("", None, None),
    ),
}


@pytest.mark.parametrize("name", ERROR_OBJECTS)
def test_error_words_reads_the_shapes_of_gateways(name: str) -> None:
    """Words, type and status of the error objects that servers and gateways send."""
    data, expected = ERROR_OBJECTS[name]
    assert error_words(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        {"message": "x" * 5_000_000},
        {"errors": ["x" * 1_000_000] * 50},
        {"errors": [{"message": "x" * 100}] * 1_000_000},
        {"error": {"type": "t" * 1_000_000, "message": "\n" * 5_000_000 + "x"}},
        {"detail": [{"loc": ["p" * 1_000_000] * 1_000, "msg": "x"}]},
    ],
    ids=["message", "texts", "objects", "type", "place"],
)
def test_error_words_are_short_however_large_the_object_is(data: object) -> None:
    """A server cannot put megabytes into an exception's message."""
    words, error_type, _ = error_words(data)
    assert len(words) <= 503
    assert len(error_type or "") <= 131


def test_clean_words_marks_what_was_cut() -> None:
    """``...`` follows if and only if something is missing."""
    assert clean_words("x" * 500) == "x" * 500
    assert clean_words("x" * 501) == "x" * 500 + "..."
    assert clean_words(" " * 5_000 + "x") == "..."


@pytest.mark.parametrize(
    ("expected", "code", "headers", "body"),
    [
        ("HTTP 400: boom", 400, {}, b'{"message":"boom"}'),
        ("HTTP 503: no message", 503, {}, b""),
        (
            "HTTP 401: invalid api token (check the API key: CO_API_KEY or api_key=)",
            401,
            {},
            b'{"message":"invalid api token"}',
        ),
        ("HTTP 404: gone (check model= and base_url=)", 404, {}, b'{"message":"gone"}'),
        (
            "HTTP 429: slow (asks to wait 2 s) [request 0123456789abcdef]",
            429,
            {"x-debug-trace-id": "0123456789abcdef"},
            b'{"message":"slow"}',
        ),
    ],
)
def test_the_words_of_a_status_error(
    expected: str, code: int, headers: dict[str, str], body: bytes
) -> None:
    """Status, the server's words, what to do, and the id to quote to Cohere."""
    asked = 2.0 if code == 429 else None
    error = status_error(code, headers=headers, body=body, retry_after=asked)
    assert expected == str(error)
    assert (code, headers, asked) == (error.status, error.headers, error.retry_after)
    assert headers.get("x-debug-trace-id") == error.request_id


def test_a_hostile_request_id_stays_a_line() -> None:
    """A header cannot put a line or an essay into the message."""
    text = str(status_error(500, headers={"x-debug-trace-id": "a\nb\x1b" + "c" * 999}, body=b""))
    assert text.isprintable()
    assert len(text) < 150


@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"error":{"message":"slow down","code":429}}\n\n',
        b'data: {"error":{"message":"slow down"}}\n\ndata: [DONE]\n\n',
        b'data:{"message":"slow down"}\r\n\r\n',
    ],
)
def test_a_refusal_in_the_form_of_an_event_stream_is_read(body: bytes) -> None:
    """Some gateways keep the content type of the answer that they refuse."""
    error = status_error(429, headers={}, body=body)
    assert error.message == "slow down"
    assert error.body == body
