"""What people who come from the official SDK write by habit: each is an error that names the fix."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

import attrs
import pytest

from streamchat import ChatOptions, Client, ConfigurationError, Retry, Timeout, tool

URL = "http://127.0.0.1:1"
CANARY = "canary-key-5d1f"


def client(**settings: Any) -> Client:
    return Client(**{"api_key": "k", "base_url": URL, "model": "m", **settings})


@attrs.define
class Order:
    n: int


@tool
def double(n: int) -> int:
    """Twice as much. n: a number"""
    return 2 * n


CALLS: dict[str, Callable[..., Any]] = {
    "chat_stream": lambda **options: client().chat_stream("Hi", **options),
    "fan_out": lambda **options: client().fan_out(["Hi"], **options),
    "run_tools": lambda **options: client().run_tools("Hi", tools=[double], **options),
    "parse": lambda **options: client().parse("Hi", into=Order, **options),
}

# --- keywords ------------------------------------------------------------------------------------

OPTIONS: list[tuple[str, str]] = [
    ("request_options", r"timeout=Timeout.*retry=Retry.*headers=.*extra_body="),
    ("max_retries", r"retry=Retry\(attempts=N \+ 1\)"),
    ("httpx_client", r"Client\(\).*session="),
    ("environment", r"Client\(\).*base_url="),
    ("token", r"Client\(\).*api_key="),
    ("api_key", r"Client\(\).*api_key="),
    ("tool_content", "'role': 'tool'"),
    ("raw_prompting", "extra_body="),
    ("log_warning_experimental_features", "leave it out"),
    ("stream", "leave it out"),
    ("preamble", "system message"),
    ("message", "messages="),
    ("top_p", "pass p="),
    ("max_completion_tokens", "pass max_tokens="),
    ("temprature", "did you mean 'temperature'"),
    ("handler", "did you mean 'handlers'"),
    ("time_out", "did you mean 'timeout'"),
    ("on_content_delta", "client.on_content_delta"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("name", "words"), OPTIONS, ids=lambda value: value[:20])
def test_a_keyword_of_the_sdk_names_ours(call: str, name: str, words: str) -> None:
    """Raised by the call itself, before anything is sent; the value is not shown."""
    with pytest.raises(
        TypeError, match=f"^'{name}' is not an option of Chat v2; .*{words}"
    ) as caught:
        CALLS[call](**{name: CANARY})
    assert CANARY not in str(caught.value)


OF_OTHERS = [
    *((name, "run_tools") for name in ("approve", "max_steps", "max_calls", "parallel")),
    *(("on_tool_error", "run_tools"), ("tool_timeout", "run_tools")),
    *(("repair", "parse"), ("concurrency", "fan_out"), ("ordered", "fan_out")),
    *(("on_error", "fan_out"), ("stop", "fan_out"), ("into", "parse")),
]


@pytest.mark.parametrize(("name", "method"), OF_OTHERS)
def test_an_option_of_another_method_names_it(name: str, method: str) -> None:
    with pytest.raises(TypeError, match=rf"^'{name}' is not an option of Chat v2; .*{method}\("):
        CALLS["chat_stream"](**{name: CANARY})


@pytest.mark.parametrize(("name", "meant"), [("aprove", "approve"), ("max_step", "max_steps")])
def test_a_misspelt_option_of_a_tool_run_names_the_right_one(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        CALLS["run_tools"](**{name: CANARY})


async def test_chat_and_a_request_of_a_fan_out_say_the_same() -> None:
    """``chat`` when it is awaited; a request of a fan-out as its result."""
    with pytest.raises(TypeError, match="Retry"):
        await client().chat("Hi", max_retries=2)  # type: ignore[call-arg]
    async for result in client().fan_out([{"messages": "Hi", "max_retries": 2}]):
        assert isinstance(result.error, TypeError)
        assert "Retry" in str(result.error)


SETTINGS: list[tuple[str, str]] = [
    ("request_options", r"timeout=Timeout.*retry=Retry.*headers=.*extra_body="),
    ("max_retries", r"retry=Retry\(attempts=N \+ 1\)"),
    ("httpx_client", "session="),
    ("environment", "base_url="),
    ("token", "api_key="),
    ("log_warning_experimental_features", "leave it out"),
    ("thread_pool_executor", "leave it out"),
    ("raw_prompting", r"chat\(\)"),
    ("tool_content", r"chat\(\)"),
    ("temperature", r"chat\(\)"),
    ("handlers", r"chat\(\)"),
    ("modle", "did you mean 'model'"),
    ("apikey", "did you mean 'api_key'"),
    ("base_ur", "did you mean 'base_url'"),
]


@pytest.mark.parametrize(("name", "words"), SETTINGS, ids=lambda value: value[:20])
def test_a_setting_of_the_sdk_names_ours(name: str, words: str) -> None:
    """The value, which may be a key, is in no message and in no local variable."""
    with pytest.raises(
        TypeError, match=rf"^'{name}' is not a setting of Client\(\); .*{words}"
    ) as caught:
        client(**{name: CANARY})
    assert CANARY not in str(caught.value)
    last = caught.traceback[-1].frame.f_locals
    assert CANARY not in repr({key: value for key, value in last.items() if key != "self"})


def test_an_unknown_name_alone_is_named() -> None:
    """Nothing resembles it."""
    with pytest.raises(TypeError, match=r"^'xyzzy' is not a setting of Client\(\)$"):
        client(xyzzy=1)
    with pytest.raises(TypeError, match=r"^'xyzzy' is not an option of Chat v2$"):
        CALLS["chat_stream"](xyzzy=1)


def test_the_signature_names_each_setting() -> None:
    """Subclasses and tools read it: nothing is hidden in ``**``."""
    parameters = inspect.signature(Client).parameters
    assert {"api_key", "base_url", "timeout", "retry", "session", "headers"} <= parameters.keys()
    assert not parameters.keys() & ChatOptions.__annotations__.keys() - {"extra_body"}


class Mine(Client):
    """A subclass with a signature of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("k", base_url=URL, **settings)


def test_a_subclass_says_the_same() -> None:
    """The names that are suggested are those of ``Client``."""
    assert Mine(model="m").base_url == URL
    with pytest.raises(TypeError, match="did you mean 'model'"):
        Mine(modle="m")


@pytest.mark.parametrize("seconds", [30, 2.5])
def test_a_number_as_timeout_names_the_class(seconds: float) -> None:
    """With the caller's own number."""
    words = rf"^timeout must be a Timeout, not \w+: timeout=Timeout\(total={seconds}\)$"
    with pytest.raises(TypeError, match=words):
        client(timeout=seconds)
    for call in ("chat_stream", "fan_out", "parse"):
        with pytest.raises(TypeError, match=words):
            CALLS[call](timeout=seconds)
    client(timeout=Timeout(total=seconds), retry=Retry(attempts=3))


# --- keys ----------------------------------------------------------------------------------------


def test_a_function_as_key_is_to_be_called() -> None:
    """The SDK calls it for each request."""
    with pytest.raises(TypeError, match=r"^api_key must be a str, not function: call it"):
        client(api_key=lambda: CANARY)
    with pytest.raises(TypeError, match=r"^api_key must be a str, not int$"):
        client(api_key=5)


PLACEHOLDERS = [
    "<YOUR API KEY>",
    "<YOUR_API_KEY>",
    "<<apiKey>>",
    "YOUR_API_KEY",
    "your-api-key-here",
    "YOUR_COHERE_API_KEY\n",
    "INSERT_KEY_HERE",
    "{{COHERE_API_KEY}}",
    "{api_key}",
    "$CO_API_KEY",
    "${CO_API_KEY}",
    "%CO_API_KEY%",
    "CO_API_KEY",
    "COHERE_API_KEY",
    "sk-...",
    "...",
    "co_\u2026",
]


@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_a_placeholder_is_called_one(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an example or a template; it is not quoted."""
    for name in (None, "CO_API_KEY", "COHERE_API_KEY"):
        if name is not None:
            monkeypatch.setenv(name, key)
        with pytest.raises(ConfigurationError, match="placeholder") as caught:
            client(api_key=key if name is None else None)
        assert key.strip() not in str(caught.value)
        monkeypatch.undo()


@pytest.mark.parametrize("key", ["k", "key", "any-key", "secret", "api_key", "a.b.c", "x" * 40,
                                 "my-key", "yourkeeper", "$", "A$B", "eyJh.eyJz.c2ln", ""])  # fmt: skip
def test_other_keys_are_taken(key: str) -> None:
    """Tests and private deployments have keys of any kind."""
    client(api_key=key)


ENVIRONMENTS: list[tuple[dict[str, str], str | None]] = [
    ({"CO_API_KEY": "a", "COHERE_API_KEY": "b"}, "a"),
    ({"COHERE_API_KEY": "b"}, "b"),
    ({"CO_API_KEY": "", "COHERE_API_KEY": "b"}, "b"),
    ({"CO_API_KEY": "a"}, "a"),
    ({"CO_API_KEY": "", "COHERE_API_KEY": ""}, None),
]


@pytest.mark.parametrize(("variables", "key"), ENVIRONMENTS)
def test_the_key_of_the_environment(
    variables: dict[str, str], key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CO_API_KEY first; one that is empty counts as unset."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    chat = client(api_key=None)
    headers: Any = chat._headers
    assert headers.get("Authorization") == (None if key is None else f"Bearer {key}")
    if key is None:
        with pytest.raises(ConfigurationError, match=r"CO_API_KEY \(or COHERE_API_KEY\)"):
            Client(None)


# --- for and with --------------------------------------------------------------------------------

ASYNCHRONOUS: dict[str, Callable[[], Any]] = {
    "ChatStream": CALLS["chat_stream"],
    "ToolRun": CALLS["run_tools"],
    "ParsedAnswer": CALLS["parse"],
    "FanOut": CALLS["fan_out"],
}


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_for_and_with_name_their_async_forms(name: str) -> None:
    """And the object is no Iterable, whatever asks."""
    subject = ASYNCHRONOUS[name]()
    with pytest.raises(TypeError, match=f"^{name} is asynchronous: write `async for`"):
        for _ in subject:
            pass
    with pytest.raises(TypeError, match=f"^{name} is asynchronous: write `async for`"):
        list(subject)
    with pytest.raises(TypeError, match=f"^{name} is asynchronous: write `async with`"), subject:
        pass
    assert not isinstance(subject, Iterable)
    assert isinstance(subject, AsyncIterable)
    assert isinstance(subject, Awaitable) == (name != "FanOut")


def test_pieces_and_a_client_say_it_too() -> None:
    """``for piece in stream.text()`` and ``with Client()``."""
    with pytest.raises(TypeError, match="`async for`"):
        list(CALLS["chat_stream"]().text())
    with pytest.raises(TypeError, match="`async with`"), client():  # type: ignore[attr-defined]
        pass
