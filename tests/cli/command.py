"""The real command as a subprocess, with pipes or on a terminal, for the tests beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import attrs

COMMAND = (sys.executable, "-m", "streamchat")
DEMO_NOTE = "No CO_API_KEY: answering from the embedded demo server, not from Cohere.\n"
STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""What rich writes: the only escape sequences that may reach a terminal."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change the command's behaviour."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CO_", "COHERE_", "STREAMCHAT_"))
        and not name.lower().endswith("_proxy")
        and name not in ("NO_COLOR", "FORCE_COLOR")
    }
    # An unclosed connection would show on stderr, which the tests look at.
    settings = {"TERM": "xterm", "PYTHONUTF8": "1", "PYTHONWARNINGS": "error"}
    return kept | settings | dict(extra or {})


@attrs.frozen
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


def run(
    *arguments: str | Path,
    stdin: str | bytes = "",
    env: Mapping[str, str] | None = None,
    seconds: float = 50,
) -> Ran:
    """Run ``streamchat`` to its end."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment(env),
        timeout=seconds,
        check=False,
    )
    return _checked(Ran(done.returncode, done.stdout.decode(), done.stderr.decode()))


async def run_async(
    *arguments: str | Path,
    stdin: str | bytes = "",
    env: Mapping[str, str] | None = None,
    seconds: float = 50,
) -> Ran:
    """The same beside a server of the test's own loop."""
    return await asyncio.to_thread(run, *arguments, stdin=stdin, env=env, seconds=seconds)


def _checked(ran: Ran) -> Ran:
    assert "Traceback" not in ran.err, ran.err
    assert "Warning" not in ran.err, ran.err
    return ran


@contextlib.contextmanager
def started(
    *arguments: str, env: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """A running ``streamchat`` with three pipes; ended and closed on leaving."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(env),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@attrs.define
class Terminal:
    """The far side of a pseudo-terminal that a command runs on."""

    process: subprocess.Popen[bytes]
    _master: int
    seen: str = ""
    """Everything shown so far, line ends as the program wrote them."""

    _read: int = 0

    def read_until(self, text: str) -> str:
        """Read until the text was shown since the last call, or to the end if it is empty."""
        while not text or text not in self.seen[self._read :]:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                chunk = b""
            if not chunk:
                assert not text, f"{text!r} was not shown: {self.seen!r}"
                break
            self.seen += chunk.decode(errors="surrogateescape").replace("\r\n", "\n")
        self._read = self.seen.find(text, self._read) + len(text)
        return self.seen

    def type(self, text: str) -> None:
        """Press keys; a terminal nobody listens to any more takes none."""
        with contextlib.suppress(OSError):
            os.write(self._master, text.encode())

    def wait(self) -> int:
        """Read to the end; the exit code."""
        self.read_until("")
        return self.process.wait(timeout=50)


@contextlib.contextmanager
def on_terminal(*arguments: str, env: Mapping[str, str] | None = None) -> Generator[Terminal]:
    """``streamchat`` with stdin, stdout and stderr on one pseudo-terminal."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(env),
        )
    finally:
        os.close(slave)
    with process:
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            os.close(master)
