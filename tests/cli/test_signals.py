"""Ctrl-C, readers that leave, disks that are full: how the command ends early."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import IO

import pytest

from tests.cli.command import COMMAND, DEMO_NOTE, environment, started

LONG = ("chat", "--tokens-per-second", "20", "count to 5000")
"""An answer that takes minutes: no test waits for its end."""


def _read_until(stream: IO[bytes] | None, text: bytes) -> bytes:
    assert stream is not None
    seen = b""
    while text not in seen:
        piece = stream.read(1)
        assert piece, f"{text!r} never came: {seen!r}"
        seen += piece
    return seen


def test_ctrl_c_ends_the_answer() -> None:
    """130, what was printed stays, no traceback."""
    with started(*LONG) as process:
        _read_until(process.stdout, b"1,")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert err.decode() == DEMO_NOTE


def test_ctrl_c_in_json_leaves_whole_lines() -> None:
    """A pipe's reader never meets half an event."""
    with started("chat", "--json", *LONG[1:]) as process:
        _read_until(process.stdout, b"content-delta")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert out.endswith(b"}\n")
    assert err.decode() == DEMO_NOTE


def test_ctrl_c_during_an_answer_keeps_the_conversation() -> None:
    """The stopped turn is forgotten, the next one is answered."""
    with started("chat", "--tokens-per-second", "200") as process:
        assert process.stdin is not None
        process.stdin.write(b"count to 5000\n")
        _read_until(process.stdout, b"1,")
        process.send_signal(signal.SIGINT)
        _read_until(process.stderr, b"Stopped; this turn is forgotten.\n")
        out, err = process.communicate(b"What did I say?\n", timeout=50)
    assert process.returncode == 0
    assert out.endswith(b"This is the first thing you said in this conversation.\n")
    assert b"Traceback" not in err


def test_a_reader_that_leaves_ends_the_command() -> None:
    """``| head -1``: 141 and silence."""
    with started("chat", "count to 5000") as process:
        _read_until(process.stdout, b"1,")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=50) == 141
        assert process.stderr is not None
        assert process.stderr.read().decode() == DEMO_NOTE


def test_a_reader_that_leaves_json() -> None:
    """The same for lines of JSON."""
    with started("chat", "--json", "count to 5000") as process:
        _read_until(process.stdout, b"\n")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=50) == 141
        assert process.stderr is not None
        assert process.stderr.read().decode() == DEMO_NOTE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_a_full_disk_is_an_error() -> None:
    """An answer that could not be kept is not a success."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [*COMMAND, "chat", "Hi"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == f"{DEMO_NOTE}error: No space left on device\n"


@pytest.mark.parametrize(
    ("closed", "code", "err"),
    [
        (1, 1, "error: standard output is closed: there is nowhere to answer\n"),
        (2, 0, ""),
    ],
)
def test_closed_streams(closed: int, code: int, err: str) -> None:
    """``>&-`` fails clearly, ``2>&-`` just loses the notes."""
    ran = subprocess.run(
        [*COMMAND, "chat", "Hi"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=lambda: os.close(closed),
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (code, err)
