"""``streamchat chat`` without a prompt: a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from streamchat import Event
from streamchat.local import LocalServer
from streamchat.local.model import answer
from tests.cli.command import run, run_async


def test_the_second_answer_depends_on_the_first_turn() -> None:
    """What was said is sent along."""
    ran = run("chat", stdin="My name is Ada.\n\nWhat is my name?\n")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "Nice to meet you, Ada. What would you like to know?",
        "Your name is Ada, as you told me earlier.",
    ]
    assert ">" not in ran.out + ran.err


def test_exit_and_quit_leave() -> None:
    """What stands behind them is not sent."""
    for word in ("exit", "quit", " EXIT "):
        ran = run("chat", stdin=f"Hi\n{word}\nHi\n")
        assert ran.code == 0
        assert ran.out.count("\n") == 1


async def test_each_request_holds_the_whole_conversation() -> None:
    """System message, question, answer, question."""
    asked: list[list[str]] = []

    def recording(request: Mapping[str, Any]) -> Iterable[Event]:
        asked.append([message["role"] for message in request["messages"]])
        return answer(request)

    async with LocalServer(answer=recording) as server:
        await run_async(
            "chat", "--system", "Be kind.", stdin="Hi\nBye\n", env={"CO_API_URL": server.url}
        )
    assert asked == [["system", "user"], ["system", "user", "assistant", "user"]]


async def test_a_failed_turn_is_forgotten() -> None:
    """Its error is shown, the next turn does not know it, and the code is that of the last."""

    def moody(request: Mapping[str, Any]) -> Iterable[Event]:
        events = answer(request)
        return events[:4] if "fail" in str(request["messages"][-1]) else events

    async with LocalServer(answer=moody) as server:
        env = {"CO_API_URL": server.url}
        good = await run_async("chat", stdin="please fail\nWhat did I say?\n", env=env)
        bad = await run_async("chat", stdin="Hi\nplease fail\n", env=env)
    assert good.code == 0
    assert good.out.endswith("This is the first thing you said in this conversation.\n")
    assert good.err.count("error: ") == 1
    assert bad.code == 1


def test_a_turn_that_calls_tools_is_forgotten(tmp_path: Path) -> None:
    """Nobody answers the calls, and a server would refuse a history without the results."""
    file = tmp_path / "weather.json"
    file.write_text(json.dumps({"name": "get_weather", "description": "Weather", "parameters": {}}))
    ran = run("chat", "--tool", file, stdin="Weather?\nWhat did I say?\n")
    assert ran.code == 0
    assert "Tools are not run here; this turn is forgotten.\n" in ran.err
    assert ran.out.endswith("This is the first thing you said in this conversation.\n")


def test_json_lines_of_every_turn() -> None:
    """A conversation can be scripted too."""
    ran = run("chat", "--json", stdin="Hi\nBye\n")
    types = [json.loads(line)["type"] for line in ran.out.splitlines()]
    assert types.count("message-start") == types.count("message-end") == 2
