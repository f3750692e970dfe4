"""A limit that a busy loop does not use up, on a virtual clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamchat.transport.patience import PARTS, PatientTimeout


def now() -> float:
    return asyncio.get_running_loop().time()


def stall(seconds: float) -> None:
    """The loop is busy with something else: its clock goes on, and no callback runs."""
    loop: Any = asyncio.get_running_loop()
    loop._jumping.now += seconds


async def test_it_passes_on_time_while_the_loop_is_free() -> None:
    with pytest.raises(TimeoutError), PatientTimeout(10.0):
        await asyncio.sleep(1000)
    assert now() == pytest.approx(10)


async def test_a_stall_uses_up_a_part_at_most() -> None:
    scope = PatientTimeout(10.0)
    with pytest.raises(TimeoutError), scope:
        stall(25)
        await asyncio.sleep(1000)
    assert scope.has_passed and now() == pytest.approx(25 + 10 * (PARTS - 1) / PARTS)


async def test_what_is_done_in_time_leaves_no_timer() -> None:
    with PatientTimeout(10.0) as scope:
        stall(25)
        await asyncio.sleep(0)
    assert not scope.has_passed
    loop: Any = asyncio.get_running_loop()
    assert not [timer for timer in loop._scheduled if not timer.cancelled()]


async def test_without_a_limit_nothing_is_counted() -> None:
    with PatientTimeout(None) as scope:
        await asyncio.sleep(1000)
    assert not scope.has_passed


async def test_a_timeout_error_from_inside_and_a_cancellation_pass() -> None:
    scope = PatientTimeout(10.0)
    with pytest.raises(TimeoutError, match="theirs"), scope:
        raise TimeoutError("theirs")
    assert not scope.has_passed
    task = asyncio.ensure_future(_waits())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_both_at_once_is_a_cancellation() -> None:
    """Whoever cancels the task in the same turn is not told of a timeout."""
    task = asyncio.ensure_future(_waits())
    asyncio.get_running_loop().call_later(10.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_it_counts_cancellations_right() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await _waits()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(50):
            await _waits()
    assert task.cancelling() == 0
    await asyncio.sleep(1)  # nothing is left to be cancelled


async def _waits() -> None:
    with PatientTimeout(10.0):
        await asyncio.sleep(1000)
