"""Wrong usage: exit code 2, one clear message, nothing sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamchat import __version__
from streamchat.cli import cli
from tests.cli.command import environment, run


@pytest.mark.parametrize("option", ["--document", "--tool"])
@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.json", None, "No such file or directory"),
        ("empty.json", b" \n", "is empty"),
        ("latin.json", b"\xe9t\xe9", "is not UTF-8 text"),
        ("broken.json", b"{", "not JSON: "),
        ("deep.json", b"[" * 100_000, "not usable JSON: nested too deeply"),
        ("number.json", b"[1]", "must hold a JSON object or a list of objects"),
        ("nothing.json", b"[]", "must hold a JSON object or a list of objects"),
    ],
)
def test_bad_files(
    tmp_path: Path, option: str, name: str, content: bytes | None, problem: str
) -> None:
    """The message names the option, the file and what is wrong with it."""
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    result = CliRunner().invoke(cli, ["chat", option, str(file), "Hi"])
    assert result.exit_code == 2
    assert f"Invalid value for {option}: {file}: {problem}" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["", ".", "nul\0.json"])
def test_paths_that_are_no_files(name: str) -> None:
    """A folder, no name, an impossible name."""
    result = CliRunner().invoke(cli, ["chat", "--document", name, "Hi"])
    assert result.exit_code == 2


def test_a_tool_needs_a_name(tmp_path: Path) -> None:
    """The message shows what a definition looks like."""
    file = tmp_path / "tool.json"
    file.write_text('{"description": "nameless"}')
    result = CliRunner().invoke(cli, ["chat", "--tool", str(file), "Hi"])
    assert result.exit_code == 2
    assert 'must look like {"name": "..."' in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat", ""],
        ["chat", " \n"],
        ["chat", "-"],
        ["chat", "--no-such-option", "Hi"],
        ["chat", "--tokens-per-second", "0", "Hi"],
        ["chat", "--tokens-per-second", "nan", "Hi"],
        ["chat", "--api-key", "k", "Hi"],
        ["chat", "two", "prompts"],
        ["serve", "--port", "65536"],
        ["serve", "--host", "0.0.0.0"],
        ["serve", "--tokens-per-second", "nan"],
        ["nonsense"],
    ],
)
def test_bad_arguments(arguments: list[str]) -> None:
    """Each is refused before anything is sent or listened to."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "variables",
    [
        {"CO_API_KEY": "k"},
        {"CO_API_URL": "http://127.0.0.1:9"},
    ],
)
def test_the_pace_is_the_demo_servers(variables: dict[str, str]) -> None:
    """With another server ``--tokens-per-second`` would do nothing, so it is refused."""
    ran = run("chat", "--tokens-per-second", "5", "Hi", env=variables)
    assert ran.code == 2
    assert "is not used" in ran.err


@pytest.mark.parametrize(
    "variables",
    [
        {"CO_API_URL": "not a url"},
        {"CO_API_URL": "http://[::1", "CO_API_KEY": "k"},
        {"CO_API_KEY": "white space"},
    ],
)
def test_bad_settings(variables: dict[str, str]) -> None:
    """What the client refuses to start with is wrong usage too."""
    ran = run("chat", "Hi", env=variables)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "white space" not in ran.err.replace("holds white space,", "")


def test_a_document_that_cannot_be_sent(tmp_path: Path) -> None:
    """The library's own check names the place."""
    file = tmp_path / "odd.json"
    file.write_text(r'{"data": {"n": "\ud83d"}}')
    ran = run("chat", "--document", file, "Hi")
    assert ran.code == 2
    assert "documents" in ran.err


def test_stdin_that_is_no_text() -> None:
    """Bytes that are no UTF-8 are refused, not guessed at."""
    for variables in ({"PYTHONUTF8": "1"}, {"PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}):
        ran = run("chat", "-", stdin=b"\xff\xfe", env=variables)
        assert ran.code == 2
        assert "the prompt is not text" in ran.err


def test_a_hostile_file_name_is_shown_harmless() -> None:
    """An escape sequence in an argument does not reach the terminal through the message."""
    result = CliRunner().invoke(cli, ["chat", "--document", "\x1b]52;c;aGk=\x07.txt", "Hi"])
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["chat", "-h"], ["serve", "--help"]])
def test_help_documents_the_exit_codes(arguments: list[str]) -> None:
    """Whoever scripts the command finds them where they look, with examples."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0
    for part in ("Examples:", "Exit codes:", "130", "141"):
        assert part in result.stdout


def test_version() -> None:
    """The package's own."""
    result = CliRunner().invoke(cli, ["--version"])
    assert result.stdout == f"streamchat, version {__version__}\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    """The library installs without click and rich; the command then says what to install."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['streamchat', '--version'];"
        "from streamchat.__main__ import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        "error: the command line needs the extra: pip install 'streamchat[cli]'\n"
    )
