"""``limiter=`` of a client and of a single call: everything that it sends waits for the same turns."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import attrs
import pytest

from streamchat import Client, Limiter, RateLimitError, Retry, tool
from streamchat.stops import MOST_TOKENS
from tests.fakes import Answer
from tests.fanout.served import Served, client, others, says, virtual
from tests.fanout.test_fanout import numbers, refused
from tests.frames import body, plain


@attrs.define
class Order:
    item: str


@tool
def look(city: str) -> str:
    """Look. city: where"""
    return city


def limited(**limits: float) -> Limiter:
    return Limiter(**limits, clock=asyncio.get_running_loop().time)


def json_answer(prompt: str, number: int) -> Answer:
    return Answer(body(plain('{"item": "pear"}')), before_headers=0.0)


@virtual
async def test_every_kind_of_call_shares_the_clients_limiter() -> None:
    """Answers, tool runs, parsed answers and fan-outs: one request a minute in all."""
    served = Served(json_answer)
    chat = client(served, limiter=limited(rpm=1))
    await chat.chat("a")
    await chat.chat_stream("b")
    async with chat.chat_stream("c") as stream:
        async for _ in stream:
            pass
    await chat.parse("d in JSON", into=Order)
    await chat.run_tools("e", tools=[look])
    _ = [r async for r in chat.fan_out(["f"])]
    moments = [moment for moment, _ in served.opened_at]
    assert len(moments) == 6
    waits = [later - earlier for earlier, later in pairwise(moments)]
    assert all(wait >= 59.9 for wait in waits), waits
    assert others() == set()


@virtual
async def test_a_limiter_of_a_call_wins() -> None:
    served = Served(json_answer)
    chat = client(served, limiter=limited(rpm=1))
    free = limited(rpm=1_000_000)
    for prompt in numbers(5):
        await chat.chat(prompt, limiter=free)
    await chat.parse("in JSON", into=Order, limiter=free)
    await chat.run_tools("e", tools=[look], limiter=free)
    _ = [r async for r in chat.fan_out(numbers(3), limiter=free)]
    assert asyncio.get_running_loop().time() < 30


@virtual
async def test_a_429_of_one_pauses_the_others() -> None:
    """For as long as the server asks."""

    def script(prompt: str, number: int) -> Answer:
        return refused(429, retry_after="7") if prompt == "a" else says(prompt)

    served = Served(script)
    chat = client(served, limiter=limited(rpm=1_000_000), retry=Retry(attempts=1))
    with pytest.raises(RateLimitError):
        await chat.chat("a")
    await chat.chat("b")
    (first, _), (second, _) = served.opened_at
    assert second - first == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "999999999"},
        {"retry_after": "Tue, 01 Jan 2999 00:00:00 GMT"},
        {"retry_after_ms": "999999999999999"},
        {"retry_after": "5.001"},
    ],
)
@virtual
async def test_a_retry_after_above_the_limit_pauses_for_no_longer_than_the_limit(
    headers: dict[str, str],
) -> None:
    """The request fails at once; the others, and other clients, wait for max_retry_after of it."""

    def script(prompt: str, number: int) -> Answer:
        return refused(429, **headers) if prompt == "a" else says(prompt)

    served, other = Served(script), Served()
    limiter = limited(rpm=1_000_000, tpm=1_000_000)
    chat = client(served, limiter=limiter, retry=Retry(max_retry_after=5))
    with pytest.raises(RateLimitError) as caught:
        await chat.chat("a")
    assert caught.value.attempts == 1
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 5
    (refused_at, _) = served.opened_at[0]
    assert asyncio.get_running_loop().time() == pytest.approx(refused_at, abs=0.1)
    await client(other, limiter=limiter).chat("b")
    assert other.opened_at[0][0] - refused_at == pytest.approx(5, abs=0.1)


@virtual
async def test_the_limit_of_the_single_request_bounds_the_pause() -> None:
    """In a fan-out too, where each request may have a Retry of its own."""

    def script(prompt: str, number: int) -> Answer:
        return refused(429, retry_after="999999999") if prompt == "a" else says(prompt)

    served = Served(script)
    requests: list[Any] = [{"messages": "a", "retry": Retry(max_retry_after=2)}, "b"]
    fan = client(served).fan_out(requests, concurrency=1, limiter=limited(rpm=1_000_000))
    assert [(r.index, r.ok) async for r in fan] == [(0, False), (1, True)]
    (first, _), (second, _) = served.opened_at
    assert second - first == pytest.approx(2, abs=0.1)


def counting(tokens: Any) -> Any:
    """Answers whose usage is so many tokens of input, and as many of output."""
    usage = json.dumps({"tokens": {"input_tokens": tokens, "output_tokens": tokens}})
    last = (
        f'data: {{"type":"message-end","delta":{{"finish_reason":"COMPLETE","usage":{usage}}}}}\n\n'
    )
    said = body(plain("a")[:-1], done=False) + last.encode()
    return lambda prompt, number: Answer(said)


@pytest.mark.parametrize(
    ("options", "waits", "without_a_count"),
    [({"max_tokens": 100}, 16, 0), ({}, 60, 0), ({"max_tokens": 30_000}, 46, 29.4)],
)
@pytest.mark.parametrize("tokens", [2**53, 10**12, 1e12, 499_999_999_999_999, 300_000])
@virtual
async def test_usage_counts_up_to_what_the_request_can_have_used(
    tokens: Any, options: dict[str, Any], waits: float, without_a_count: float
) -> None:
    """Then the next request of another client waits for a minute at most, not for centuries.

    1,000 tokens are a second: 16,384 and ``max_tokens``, or a minute's worth. A count above 10**15 is
    not believed at all, and the estimate stands.
    """
    limiter = limited(tpm=60_000)
    other = Served()
    response = await client(Served(counting(tokens)), limiter=limiter).chat("a", **options)
    assert response.text == "a"
    before = asyncio.get_running_loop().time()
    await client(other, limiter=limiter).chat("b", max_tokens=1)
    expected = waits if 2 * tokens <= MOST_TOKENS else without_a_count
    assert other.opened_at[0][0] - before == pytest.approx(expected, abs=0.2)


@virtual
async def test_usage_above_the_estimate_counts_in_full_if_it_is_possible() -> None:
    """6,000 tokens where 500 were estimated."""
    limiter = limited(tpm=60_000)
    other = Served()
    await client(Served(counting(3000)), limiter=limiter).chat("a")
    await client(other, limiter=limiter).chat("b", max_tokens=1)
    assert other.opened_at[0][0] == pytest.approx(6 - 0.6, abs=0.2)


@virtual
async def test_tokens_are_settled_from_usage() -> None:
    """8 tokens each, where 400 were estimated: the sixth would else wait for minutes."""
    chat = client(Served(json_answer), limiter=limited(tpm=1000))
    for _ in range(6):
        await chat.chat("x", max_tokens=400)
    assert asyncio.get_running_loop().time() < 60


@virtual
async def test_a_caller_that_leaves_gives_its_turn_back() -> None:
    """The next one does not wait for it."""
    served = Served(json_answer)
    chat = client(served, limiter=limited(rpm=1))
    await chat.chat("a")
    waiting = asyncio.ensure_future(chat.chat("b"))
    await asyncio.sleep(10)
    waiting.cancel()
    await asyncio.wait([waiting])
    await chat.chat("c")
    assert [prompt for _, prompt in served.opened_at] == ["a", "c"]
    assert served.opened_at[1][0] < 61


@pytest.mark.parametrize("limiter", [5, "500", {"rpm": 5}])
def test_what_is_not_a_limiter(limiter: Any) -> None:
    with pytest.raises(TypeError, match=r"Limiter\(rpm=500\)"):
        Client("k", limiter=limiter)
    with pytest.raises(TypeError, match=r"Limiter\(rpm=500\)"):
        Client("k", model="m").chat_stream("x", limiter=limiter)


@virtual
async def test_a_request_of_a_fan_out_has_no_limiter_of_its_own() -> None:
    requests: list[Any] = [{"messages": "a", "limiter": limited(rpm=1)}]
    (result,) = [r async for r in client(Served()).fan_out(requests)]
    assert isinstance(result.error, TypeError)
