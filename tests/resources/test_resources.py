"""Nothing left behind, nothing shown, nobody held up: each measured in processes of its own.

Times depend on the machine, so the figures are printed at the end of the run and judged by
``nox -s soak``; what is asserted here is ten and more times as much.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.resources import FIGURES
from tests.resources.process import measured

LOOPS = ("asyncio", "uvloop")
pytestmark = pytest.mark.timeout(200)  # seconds of work, and machines that are busy with more


@pytest.mark.parametrize("tls", [(), ("--tls",)], ids=["plain", "tls"])
@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_left_after_any_end(loop: str, tls: tuple[str, ...]) -> None:
    """Tasks, timers, descriptors, pool slots, warnings, and no object that a collector cannot free.

    The first four are counted while the collector is off: a socket must not wait for it.
    """
    result = measured("leaks", "--loop", loop, *tls)
    assert not any(result["left"].values()), result["left"]
    assert result["ResourceWarnings"] == 0
    assert result["complaints"] == []
    assert result["uvloop's own complaint"] == 0 or (loop == "uvloop" and tls)
    assert result["unexpected ends"] == []
    assert result["objects waiting for the collector"].get("ChatStream", 0) == 0
    assert result["objects left"] == {}
    assert result["client closed under 20 streams, s"] < 1
    what = f"{result['streams']} streams with {result['kinds of end']} kinds of end"
    left = ", ".join(f"{count} {name}" for name, count in result["left"].items())
    FIGURES.append((f"left after {what} ({loop}{', TLS' if tls else ''})", left))


@pytest.mark.parametrize("loop", LOOPS)
def test_the_server_sees_a_cancellation(loop: str) -> None:
    result = measured("cancellation", "--loop", loop)
    assert result["seen"] == result["streams"]
    assert result["p99, ms"] < 1000
    FIGURES.append((f"cancellation seen by the server, 200 streams ({loop})", _times(result)))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_flood_does_not_starve_the_others(loop: str) -> None:
    result = measured("fairness", "--loop", loop)
    assert result["failed"] == []
    assert result["normal events/s beside it"] > 0
    assert result["lag"]["p99, ms"] < 1000
    what = f"one flood of {result['events/s of the flood']:,} events/s and 200 normal streams"
    alone, load = _times(result["lag without the flood"]), result["load average before"]
    FIGURES.append(
        (
            f"loop lag beside {what} ({loop})",
            f"{_times(result['lag'])} (without the flood: {alone}; load {load})",
        )
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stalled_stream_is_small(loop: str) -> None:
    """The handler sleeps, the server sends as fast as it can (faults.md G11)."""
    result = measured("stalled", "--loop", loop)
    assert result["stalled"] == result["streams"]
    assert result["KiB per stream"] <= 256
    FIGURES.append((f"a stalled stream's memory ({loop})", f"{result['KiB per stream']} KiB"))


def test_memory_does_not_grow_with_the_streams_that_ended() -> None:
    """Over 2,000 streams allocators are noisier than the goal; the soak looks at 10,000."""
    result = measured("slope")
    assert result["unexpected ends"] == []
    assert result["KiB per 10,000 streams"] < 20 * 1024
    FIGURES.append(
        (
            "memory slope over 2,000 streams",
            f"{result['KiB per 10,000 streams'] / 1024:.2f} MiB per 10,000",
        )
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_secrets_show_nowhere(loop: str) -> None:
    """Key, proxy password and a private header, whatever goes wrong and wherever one may look."""
    result = measured("secrets", "--loop", loop)
    assert result["hits"] == {}, result["examples"]
    assert result["hits when the server repeats the key"] == 0
    assert {"log", "warning", "pickle", "traceback with locals", "command's stderr"} <= {
        *result["by kind"]
    }
    FIGURES.append(
        (f"secrets ({loop})", f"0 hits in {result['places searched']:,} places searched")
    )


def _times(figures: dict[str, Any]) -> str:
    return f"p50 {figures['p50, ms']} ms, p99 {figures['p99, ms']} ms, max {figures['max, ms']} ms"
