"""1,000 answers, 200 at once, from a server that refuses, resets and cuts: each ends, once, as it must."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import pytest
import uvloop

from streamchat import (
    Client,
    FanOutResult,
    RateLimitError,
    Retry,
    StreamChatError,
    TransportError,
    TruncatedStreamError,
)
from tests.fanout import FIGURES
from tests.fanout.unkind import done_to, unkind

COUNT, TOGETHER, SEED = 1000, 200, 5
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def ask(url: str, count: int, **options: Any) -> list[FanOutResult]:
    prompts = (f"question {number}" for number in range(count))
    async with Client("key-of-a-test", base_url=url, model="m", retry=Retry(base=0.1)) as chat:
        fan = chat.fan_out(prompts, concurrency=TOGETHER, **options)
        results = [result async for result in fan]
    await asyncio.sleep(0.1)  # closing a connection takes a few turns
    assert len(asyncio.all_tasks()) == 1
    return results


def check(result: FanOutResult, done: list[str]) -> str:
    """How it ended, which is what the server did last to it."""
    assert result.request == f"question {result.index}"
    if result.response is not None:
        assert result.error is None
        assert result.response.text == f"The answer to question {result.index}"
        assert result.timing.total is not None
        assert (done[-1], done.count("whole")) == ("whole", 1)
        return "answers"
    error = result.error
    assert isinstance(error, StreamChatError)
    assert error.__cause__ is None
    assert error.__context__ is None
    if done[-1] == "429":
        assert isinstance(error, RateLimitError)
    elif done[-1].startswith("cut"):
        assert isinstance(error, TransportError)
        assert isinstance(error, TruncatedStreamError) or done[-1] == "cut at once"
    else:
        assert isinstance(error, TransportError), (error, done)
    if not done[-1].endswith("at once") and done[-1] != "429":
        assert error.partial is not None, "what had arrived is kept"
    return type(error).__name__


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_thousand_answers_of_an_unkind_server(loop: str, ordered: bool) -> None:
    """Every request ends as a whole answer or as an error of ours, and each exactly once."""
    with unkind(SEED) as url, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        results = runner.run(ask(url, COUNT, ordered=ordered))
        done = done_to(url)
    gc.collect()  # a warning of something that was left open is a failure of this test
    indices = [result.index for result in results]
    assert sorted(indices) == list(range(COUNT))
    assert not ordered or indices == sorted(indices)
    ends = Counter(check(result, done[f"question {result.index}"]) for result in results)
    injected = Counter(what.removesuffix(" at once") for whats in done.values() for what in whats)
    assert min(injected[what] for what in ("429", "reset", "cut")) > 5
    assert ends["answers"] >= 0.9 * COUNT
    attempts = Counter(result.attempts for result in results)
    assert set(attempts) <= {1, 2, 3}
    sent, ended = dict(injected.most_common()), dict(ends.most_common())
    FIGURES.append(
        (
            f"{COUNT:,} answers, {TOGETHER} at once, unkind server ({loop}{', ordered' * ordered})",
            f"sent {sent}, ended as {ended}, attempts {dict(sorted(attempts.items()))}",
        )
    )
