"""Every program and every command of the README, and every example, run as a user runs them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from streamchat.local import LocalServer
from tests.snippets import ROOT, commands, programs

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CHAT_COMMANDS = [command for command in commands() if "streamchat chat" in command]


async def run(*command: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in a folder, warnings being errors."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("number", range(len(programs())))
async def test_every_program_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    """Pasted into a file and run against a Chat v2 endpoint: exit code 0, nothing on stderr."""
    (tmp_path / "program.py").write_text(programs()[number], encoding="utf-8")
    async with LocalServer() as server:
        code, out, err = await run(
            sys.executable, "program.py", folder=tmp_path, CO_API_KEY="k", CO_API_URL=server.url
        )
    assert (code, err) == (0, "")
    assert out or "assert" in programs()[number]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
async def test_every_example_runs(example: Path, tmp_path: Path) -> None:
    """Examples are short and run without an argument."""
    assert len(example.read_text(encoding="utf-8").splitlines()) < 90
    async with LocalServer() as server:
        code, out, err = await run(
            sys.executable, str(example), folder=tmp_path, CO_API_KEY="k", CO_API_URL=server.url
        )
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("command", CHAT_COMMANDS)
async def test_every_chat_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    """In a shell, beside the files it names: it answers on stdout."""
    (tmp_path / "handbook.txt").write_text("Your leave is 30 days long.", encoding="utf-8")
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    tool = {"name": "get_weather", "description": "weather of a city", "parameters": parameters}
    (tmp_path / "weather.json").write_text(json.dumps(tool), encoding="utf-8")
    # The installation is the reader's; the command itself is what is run here.
    command = re.sub(r"^python3 -m venv .*&& ", "", command).replace(".venv/bin/", "")
    command = command.replace("streamchat chat", f"{sys.executable} -m streamchat chat")
    async with LocalServer() as server:
        code, out, err = await run(
            "sh", "-c", command, folder=tmp_path, CO_API_KEY="k", CO_API_URL=server.url
        )
    assert (code, "Traceback" in err) == (0, False)
    assert out or command.endswith("chat")  # the conversation leaves at the end of its input


def test_the_readme_names_only_tests_that_exist() -> None:
    """Each promise links to the file that holds it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert named
    assert all((ROOT / name).exists() for name in named)
