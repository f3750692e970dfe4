"""The command on a real (pseudo) terminal: nothing of the answer can control it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterable, Mapping
from typing import Any

from streamchat import (
    Citation,
    CitationEnd,
    CitationStart,
    ContentDelta,
    ContentEnd,
    ContentStart,
    Event,
    MessageEnd,
    MessageStart,
    Source,
    ToolCall,
    ToolCallEnd,
    ToolCallFunction,
    ToolCallStart,
)
from streamchat.local import LocalServer
from tests.cli.command import STYLES, on_terminal, run_async

PIECES = ("Safe ", "\x1b", "]52;c;aGk=", "\x07", " \x9b31m", " \u202egpj.exe", " \r!", " end")
RAW = "".join(PIECES)
SHOWN = "Safe \u241b]52;c;aGk=\u2407 \ufffd31m \ufffdgpj.exe \u240d! end"


def hostile(request: Mapping[str, Any]) -> Iterable[Event]:
    """Everything a document or a model can smuggle in."""
    source = Source("document", "doc\x1b[2J", {"title": "title\x1b]0;pwned\x07\n[9] fake"})
    citation = Citation(0, len(RAW), RAW, [source], "TEXT_CONTENT")
    call = ToolCall("c1", ToolCallFunction("tool\x1b[5m", ""))
    return (
        MessageStart("m1"),
        ContentStart(0, "thinking"),
        ContentDelta(thinking="hm \x1bc", kind="thinking"),
        ContentEnd(0),
        ContentStart(1),
        *(ContentDelta(piece, 1) for piece in PIECES),
        CitationStart(citation),
        CitationEnd(),
        ContentEnd(1),
        ToolCallStart(call),
        ToolCallEnd(),
        MessageEnd("ERROR", error="no \x1b[31m luck"),
    )


def _show(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    with on_terminal(*arguments, env=env) as terminal:
        return terminal.wait(), terminal.seen


async def _show_hostile(*arguments: str, **variables: str) -> tuple[int, str]:
    async with LocalServer(answer=hostile) as server:
        env = {"CO_API_URL": server.url} | variables
        return await asyncio.to_thread(_show, "chat", *arguments, "Hi", env=env)


async def test_an_answer_cannot_control_the_terminal() -> None:
    """Not one escape character reaches it: from text, thinking, titles, tools or errors."""
    code, seen = await _show_hostile("--thinking", NO_COLOR="1")
    assert code == 1
    assert seen == (
        "hm \u241bc\n"
        f"{SHOWN}[1]\n"
        "tool\u241b[5m({})\n"
        "\n"
        f'[1] "{SHOWN.replace(chr(0x240D), "")}" - '
        "title\u241b]0;pwned\u2407 [9] fake (doc\u241b[2J)\n"
        "error: the answer failed with finish reason ERROR: no [31m luck\n"
    )


async def test_our_styles_are_the_only_escape_sequences() -> None:
    """Dim and bold, each ended where it began."""
    code, seen = await _show_hostile("--thinking")
    assert code == 1
    assert seen.count("\x1b[0m") * 2 == len(STYLES.findall(seen)) > 0
    assert "\x1b" not in STYLES.sub("", seen)
    assert SHOWN in seen


async def test_a_dumb_terminal_gets_no_styles() -> None:
    """``TERM=dumb`` is honoured as NO_COLOR is."""
    _, seen = await _show_hostile(TERM="dumb")
    assert "\x1b" not in seen


async def test_json_on_a_terminal_is_harmless_and_still_json() -> None:
    """The same events, what is harmful escaped."""
    _, seen = await _show_hostile("--json", NO_COLOR="1")
    lines = [json.loads(line) for line in seen.splitlines() if line.startswith("{")]
    text = "".join(
        line["delta"]["message"]["content"].get("text", "")
        for line in lines
        if line["type"] == "content-delta"
    )
    assert text == RAW
    assert not any(character in seen for character in "\x1b\x07\x9b\u202e")


async def test_a_pipe_gets_the_text_as_it_is() -> None:
    """What is written to a file is the answer, not a picture of it."""
    async with LocalServer(answer=hostile) as server:
        ran = await run_async("chat", "Hi", env={"CO_API_URL": server.url})
    assert ran.out.startswith(f"{RAW}[1]\n")


def test_ctrl_c_restores_the_terminal() -> None:
    """The line is ended, every style is closed, no traceback."""
    arguments = ("chat", "--thinking", "--tokens-per-second", "20", "count to 5000")
    with on_terminal(*arguments) as terminal:
        terminal.read_until("The")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen
        assert STYLES.sub("", terminal.seen).endswith("\n")
        assert STYLES.findall(terminal.seen)[-1] == "\x1b[0m"


def test_a_conversation_at_a_terminal() -> None:
    """A prompt for each turn; Ctrl-D leaves with 0."""
    with on_terminal("chat", "--tokens-per-second", "1000", env={"TERM": "dumb"}) as terminal:
        assert "Ctrl-D leaves" in terminal.read_until("> ")
        terminal.type("What is 2 + 3?\n")
        assert "2 + 3 is 5.\nfinish reason COMPLETE" in terminal.read_until("> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_ctrl_c_at_the_prompt_leaves() -> None:
    """130, as a shell's child that was interrupted."""
    with on_terminal("chat", env={"TERM": "dumb"}) as terminal:
        terminal.read_until("> ")
        terminal.process.send_signal(signal.SIGINT)
        # Should the signal come just before the read, a key ends the read and it is seen.
        terminal.type("\n")
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen
