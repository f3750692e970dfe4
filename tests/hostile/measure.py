"""How long the event loop was held, and how much memory the process took."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from pathlib import Path

__all__ = ["INTERVAL", "Beat", "forget_peak", "peak_mib"]

INTERVAL = 0.01
"""Seconds between two beats."""


class Beat:
    """A timer that rings every 10 ms; what it is late by is how long the loop was held.

    Other processes make a timer late as well. So the loop counts as held for no longer than its thread
    computed in between: ``worst`` is the smaller of both, ``latest`` the lateness alone.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        """Seconds: the longest time for which the loop was held."""
        self.latest = 0.0
        """Seconds: the largest lateness of a beat."""
        self._at = self._computed = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        self.stop()
        self.worst = self.latest = 0.0
        self._at, self._computed = time.perf_counter(), time.thread_time()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._ring)

    def stop(self) -> None:
        """Take the last partial beat into account."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._note()

    def _note(self) -> None:
        now, computed = time.perf_counter(), time.thread_time()
        late = now - self._at - INTERVAL
        self.latest = max(self.latest, late)
        self.worst = max(self.worst, min(late, computed - self._computed))
        self._at, self._computed = now, computed

    def _ring(self) -> None:
        self._note()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._ring)


STATUS = Path("/proc/self/status")


def peak_mib() -> float:
    """The most memory that the process has had, since :func:`forget_peak` if that is known, MiB."""
    with contextlib.suppress(OSError):  # Linux alone has it
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Let the peak begin at what the process has now, where the system can do that (proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
