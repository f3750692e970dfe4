"""``streamchat chat`` with a prompt: what it prints, and where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from streamchat import (
    Citation,
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Event,
    Frame,
    MessageEnd,
    MessageStart,
    Source,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallFunction,
    ToolCallStart,
    UnknownEvent,
)
from streamchat.local import LocalServer
from streamchat.protocol import Accumulator, decode_event
from tests.cli.command import DEMO_NOTE, run, run_async

HANDBOOK = "Employees get 25 days of vacation a year. The gym is free on weekdays."
WEATHER = {
    "name": "get_weather",
    "description": "Weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
SAID = (MessageStart("m1"), ContentStart(0), ContentDelta("Half an "))


def saying(*events: Event) -> Any:
    """A server that says these events, whatever it is asked."""

    def answer(request: Mapping[str, Any]) -> Iterable[Event]:
        return events

    return LocalServer(answer=answer)


# --- a plain answer ------------------------------------------------------------------------------


def test_the_answer_is_on_stdout_and_everything_else_on_stderr() -> None:
    """``> file`` keeps the answer; the note about the demo server is not in it."""
    ran = run("chat", "What is an LLM?")
    assert ran.code == 0
    assert ran.out.startswith("An LLM, or large language model,")
    assert ran.out.endswith("streamed.\n")
    assert ran.err.startswith(DEMO_NOTE)
    assert "CO_API_KEY" not in ran.out


def test_the_last_line_on_stderr_counts() -> None:
    """Finish reason, billed tokens and the time to the first text, in one line."""
    ran = run("chat", "What is an LLM?")
    *_, line = ran.err.splitlines()
    reason, billed, first = line.split("; ")
    assert reason == "finish reason COMPLETE"
    assert billed == "billed 4 tokens in, 77 out"
    assert first.startswith("first text after 0.")


def test_a_dash_reads_the_prompt_from_stdin() -> None:
    """A prompt may come through a pipe."""
    ran = run("chat", "-", stdin="What is\n2 + 3?")
    assert ran.out == run("chat", "What is\n2 + 3?").out != ""


def test_system_and_model_reach_the_server() -> None:
    """``--json`` with another system message is another request: the demo's ids tell."""
    ids = {
        json.loads(run("chat", "--json", *more, "Hi").out.splitlines()[0])["id"]
        for more in ([], ["--system", "Be brief."], ["--model", "command-r-08-2024"])
    }
    assert len(ids) == 3


def test_a_proxy_is_not_asked_for_the_demo_server() -> None:
    """Behind a company's proxy the first try works too."""
    proxy = "http://127.0.0.1:9"
    ran = run("chat", "What is 2 + 3?", env={"HTTP_PROXY": proxy, "no_proxy": "example.org"})
    assert (ran.code, ran.out) == (0, "2 + 3 is 5.\n")


# --- documents -----------------------------------------------------------------------------------


def test_citations_are_marked_and_become_footnotes(tmp_path: Path) -> None:
    """The marker stands behind the cited text, the footnote names the file."""
    file = tmp_path / "handbook.txt"
    file.write_text(HANDBOOK)
    ran = run("chat", "--document", file, "How many vacation days, and is the gym free?")
    assert ran.out == (
        "Employees get 25 days of vacation a year.[1] The gym is free on weekdays.[2]\n"
        "\n"
        '[1] "Employees get 25 days of vacation a year." - handbook.txt (doc:0)\n'
        '[2] "The gym is free on weekdays." - handbook.txt (doc:0)\n'
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"title": "Handbook", "text": HANDBOOK}, id="an object"),
        pytest.param([{"title": "Handbook", "text": HANDBOOK}], id="a list"),
        pytest.param(
            {"id": "own", "data": {"title": "Handbook", "text": HANDBOOK}}, id="a document"
        ),
    ],
)
def test_json_documents(tmp_path: Path, content: Any) -> None:
    """A .json file holds what goes into a document, a list of that, or documents with an id."""
    file = tmp_path / "handbook.json"
    file.write_text(json.dumps(content))
    ran = run("chat", "--document", file, "Is the gym free?")
    own = "own" if "data" in content else "doc:0"
    assert f'\n[1] "The gym is free on weekdays." - Handbook ({own})\n' in ran.out


async def test_a_citation_that_comes_late_is_listed_without_a_marker() -> None:
    """What is printed cannot be changed: the footnote quotes what it is about."""
    citation = Citation(0, 3, "One", [Source("document", "doc:0")], "TEXT_CONTENT")
    events = (
        MessageStart("m1"),
        ContentStart(0),
        ContentDelta("One"),
        ContentDelta(" two"),
        CitationStart(citation),
        CitationEnd(),
        ContentEnd(0),
        MessageEnd("COMPLETE"),
    )
    async with saying(*events) as server:
        ran = await run_async("chat", "Count", env={"CO_API_URL": server.url})
    assert ran.out == 'One two\n\n[1] "One" - doc:0\n'


# --- tools and thinking --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WEATHER, id="bare"),
        pytest.param({"type": "function", "function": WEATHER}, id="a definition"),
        pytest.param([WEATHER], id="a list"),
    ],
)
def test_tool_calls_are_the_answer(tmp_path: Path, content: Any) -> None:
    """Name and arguments of each call on stdout, the plan on stderr."""
    file = tmp_path / "weather.json"
    file.write_text(json.dumps(content))
    question = "What is the weather in Lima and Paris?"
    ran = run("chat", "--tool", file, "--model", "command-a-03-2025", question)
    assert ran.out == 'get_weather({"city": "Lima"})\nget_weather({"city": "Paris"})\n'
    assert "I will use the get_weather tool" in ran.err
    assert "\nfinish reason TOOL_CALL; " in ran.err


async def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    """A model's broken arguments are not a crash."""
    call = ToolCall("c1", ToolCallFunction("f", ""))
    events = (
        MessageStart("m1"),
        ToolCallStart(call, 0),
        ToolCallDelta('{"a":\n', 0),
        ToolCallEnd(0),
        MessageEnd("TOOL_CALL"),
    )
    async with saying(*events) as server:
        ran = await run_async("chat", "Hi", env={"CO_API_URL": server.url})
    assert (ran.code, ran.out) == (0, 'f({"a":)\n')


def test_thinking_is_shown_on_stderr() -> None:
    """The answer on stdout is the same with and without it."""
    ran = run("chat", "--thinking", "What is an LLM?")
    assert "\nThe user asks about an LLM. " in ran.err
    assert ran.out == run("chat", "What is an LLM?").out


def test_thinking_that_nobody_asked_for_is_not_shown() -> None:
    """A reasoning model, which the default is one of, thinks by itself."""
    for chosen in ((), ("--model", "command-a-reasoning-08-2025")):
        ran = run("chat", *chosen, "What is an LLM?")
        assert ran.out.startswith("An LLM")
        assert "The user asks" not in ran.err


# --- --json --------------------------------------------------------------------------------------


def test_json_lines_are_the_events() -> None:
    """Each line of stdout decodes, and together they are the answer that is printed otherwise."""
    ran = run("chat", "--json", "What is an LLM?")
    answer = Accumulator()
    for line in ran.out.splitlines():
        event = decode_event(Frame(data=line.encode()))
        assert event is not None
        answer.add(event)
    assert answer.snapshot().finish_reason == "COMPLETE"
    assert f"{answer.snapshot().text}\n" == run("chat", "What is an LLM?").out
    assert ran.err == DEMO_NOTE


async def test_json_of_an_event_of_the_future() -> None:
    """An unknown event is passed on as it came."""
    data = {"type": "surprise", "half": "\u2028", "n": [1]}
    events = (MessageStart("m1"), UnknownEvent("surprise", data), MessageEnd("COMPLETE"))
    async with saying(*events) as server:
        ran = await run_async("chat", "--json", "Hi", env={"CO_API_URL": server.url})
    assert [json.loads(line) for line in ran.out.split("\n") if line][1] == data


# --- failures ------------------------------------------------------------------------------------


def test_an_unknown_model_is_one_line() -> None:
    """Exit code 1, nothing on stdout, the server's words on stderr."""
    ran = run("chat", "--model", "does-not-exist", "Hi")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.removeprefix(DEMO_NOTE).startswith("error: HTTP 404: model 'does-not-exist'")
    assert ran.err.count("\n") == 2


async def test_a_failed_answer_keeps_what_was_said() -> None:
    """``message-end`` with ERROR: the partial answer on stdout, the reason on stderr, code 1."""
    async with saying(*SAID, MessageEnd("ERROR", error="out of luck")) as server:
        ran = await run_async("chat", "Hi", env={"CO_API_URL": server.url})
    assert (ran.code, ran.out) == (1, "Half an \n")
    assert ran.err == "error: the answer failed with finish reason ERROR: out of luck\n"


async def test_a_truncated_answer_is_a_failure() -> None:
    """A stream without ``message-end`` never looks complete."""
    async with saying(*SAID) as server:
        ran = await run_async("chat", "Hi", env={"CO_API_URL": server.url})
    assert (ran.code, ran.out) == (1, "Half an \n")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


def test_no_server_there() -> None:
    """Port 9 of this machine has none; the request is refused, not answered by the demo."""
    ran = run("chat", "Hi", env={"CO_API_URL": "http://127.0.0.1:9", "CO_API_KEY": ""})
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: cannot connect to 127.0.0.1:9")
