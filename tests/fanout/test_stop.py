"""``Stop`` and ``into=`` of a fan-out, on a virtual clock; and what is wrong with the call itself."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from streamchat import (
    AuthenticationError,
    FanOut,
    FanOutResult,
    Limiter,
    RateLimitError,
    Retry,
    ServerError,
    Stop,
    StopReachedError,
    StructureError,
)
from streamchat.protocol.errors import StreamChatError
from tests.fakes import Answer
from tests.fanout.served import Served, client, others, says, virtual
from tests.fanout.test_fanout import Endless, in_turn, numbers, refused, texts
from tests.frames import body, plain

ONCE = Retry(attempts=1)
JSON = {"content-type": "application/json"}


async def until_stopped(fan: FanOut) -> tuple[list[FanOutResult], StopReachedError]:
    """The results, and what the iteration ended with; it then is over."""
    results: list[FanOutResult] = []
    with pytest.raises(StopReachedError) as caught:
        async for result in fan:
            results.append(result)
    assert await anext(fan, None) is None
    assert others() == set()
    return results, caught.value


def failing(*prompts: str, status: int = 500) -> Any:
    return lambda prompt, number: refused(status) if prompt in prompts else says(prompt)


@pytest.mark.parametrize("ordered", [False, True])
@virtual
async def test_an_error_of_its_kinds_stops_it(ordered: bool) -> None:
    """Those that run end and are handed out; the counts are the error's."""
    chat = client(Served(failing("3", status=401)), retry=ONCE)
    fan = chat.fan_out(
        Endless(), concurrency=5, ordered=ordered, stop=Stop(errors=(AuthenticationError,))
    )
    results, error = await until_stopped(fan)
    assert (error.reason, error.failures, error.results) == ("errors", 1, len(results))
    assert isinstance(error.__cause__, AuthenticationError)
    assert sorted(result.index for result in results) == list(range(fan.taken))
    assert len(results) < 12
    assert [result.index for result in results if not result.ok] == [3]
    assert "AuthenticationError" in str(error)


@virtual
async def test_other_errors_do_not_stop_it() -> None:
    chat = client(Served(failing("1", "2")), retry=ONCE)
    results = [r async for r in chat.fan_out(numbers(5), stop=Stop(errors=(RateLimitError,)))]
    assert sum(result.ok for result in results) == 3


@virtual
async def test_failures_are_counted() -> None:
    chat = client(Served(failing(*numbers(100)[::2])), retry=ONCE)
    fan = chat.fan_out(numbers(100), concurrency=1, stop=Stop(failures=3))
    results, error = await until_stopped(fan)
    assert (error.reason, error.failures, error.results) == ("failures", 3, 5)
    assert [result.ok for result in results] == [False, True, False, True, False]
    assert error.seconds > 0


@virtual
async def test_tokens_are_counted() -> None:
    """Input and output of what was answered."""
    chat = client(Served())  # 8 each
    results, error = await until_stopped(
        chat.fan_out(Endless(), concurrency=1, stop=Stop(tokens=31))
    )
    assert (error.reason, len(results), error.tokens) == ("tokens", 4, 32)


@pytest.mark.parametrize("tokens", ["1e308", "-5", str(10**400)])
@virtual
async def test_a_count_that_is_nonsense_is_left_out(tokens: str) -> None:
    answer = body(plain("x")).replace(
        b'"output_tokens":', b'"output_tokens":%b,"x":' % tokens.encode()
    )
    chat = client(Served(lambda prompt, number: Answer(answer, before_headers=1.0)))
    results = [r async for r in chat.fan_out(numbers(3), stop=Stop(tokens=10**6))]
    assert len(results) == 3


@pytest.mark.parametrize("pause", [0, 3.0])
@virtual
async def test_seconds_run_from_the_first_step(pause: float) -> None:
    """Also while the source is the slow one; what runs at that moment ends."""
    chat = client(Served(in_turn({"4": 20.0})))
    source = Endless(pause)
    fan = chat.fan_out(source, concurrency=2, stop=Stop(seconds=10))
    await asyncio.sleep(100)
    started = asyncio.get_running_loop().time()
    results, error = await until_stopped(fan)
    assert error.reason == "seconds"
    assert all(result.ok for result in results)
    assert len(results) == fan.taken
    assert asyncio.get_running_loop().time() - started == pytest.approx(error.seconds)
    assert source.closed == 1


@virtual
async def test_a_source_that_waits_for_ever_is_let_go_at_the_deadline() -> None:
    chat = client(Served())
    source = Endless(1e6)
    results, error = await until_stopped(chat.fan_out(source, stop=Stop(seconds=5)))
    assert (results, error.reason, error.seconds) == ([], "seconds", pytest.approx(5))
    assert source.closed == 1


@virtual
async def test_those_that_wait_for_the_limiter_are_not_sent() -> None:
    """They end with the error, unsent, and do not count; nobody waits a minute for them."""

    def script(prompt: str, number: int) -> Answer:
        return Answer(b"{}", status=401, headers=JSON, before_headers=1.0)

    served = Served(script)
    chat = client(served, retry=ONCE)
    limiter = Limiter(rpm=1, clock=asyncio.get_running_loop().time)
    fan = chat.fan_out(
        numbers(20), concurrency=8, limiter=limiter, stop=Stop(errors=(AuthenticationError,))
    )
    results, error = await until_stopped(fan)
    assert len(served.opened_at) == error.results == 1
    unsent = [result for result in results if isinstance(result.error, StopReachedError)]
    assert len(unsent) == len(results) - 1 == 7
    assert {result.attempts for result in unsent} == {0}
    assert error.seconds < 5
    # The limiter has its turns back.
    async with asyncio.timeout(200), limiter.admit():
        pass


@virtual
async def test_a_retry_that_waits_for_the_limiter_is_sent() -> None:
    """It runs already."""

    def script(prompt: str, number: int) -> Answer | StreamChatError:
        if prompt == "0":
            return refused(401)
        return refused(500) if number == 1 else says(prompt)

    served = Served(script)
    chat = client(served, retry=Retry(attempts=2, base=0.1, cap=0.1))
    limiter = Limiter(rpm=2, clock=asyncio.get_running_loop().time)
    fan = chat.fan_out(
        ["1", "0"], concurrency=2, limiter=limiter, stop=Stop(errors=(AuthenticationError,))
    )
    results, _ = await until_stopped(fan)
    assert served.tries["1"] == 2
    assert sum(result.ok for result in results) == 1


@virtual
async def test_leaving_early_or_raising_ends_the_count() -> None:
    """No timer is left, and the first failure wins if that is asked for."""
    chat = client(Served(failing("1")), retry=ONCE)
    async for _ in (fan := chat.fan_out(Endless(), stop=Stop(seconds=1000))):
        break
    await fan.aclose()
    assert await anext(fan, None) is None
    with pytest.raises(ServerError):
        async for _ in chat.fan_out(numbers(9), on_error="raise", stop=Stop(failures=1)):
            pass
    results = [r async for r in chat.fan_out(["5"], stop=Stop(seconds=1000))]
    assert len(results) == 1
    assert others() == set()


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"seconds": 0}, ValueError),
        ({"seconds": -1}, ValueError),
        ({"seconds": math.inf}, ValueError),
        ({"tokens": math.nan}, ValueError),
        ({"seconds": 10**400}, ValueError),
        ({"tokens": -(10**5000)}, ValueError),
        ({"failures": 0}, ValueError),
        ({"failures": 1.5}, ValueError),
        ({"failures": "3"}, TypeError),
        ({"seconds": True}, TypeError),
        ({"errors": AuthenticationError}, TypeError),
        ({"errors": ("AuthenticationError",)}, TypeError),
        ({"errors": (KeyboardInterrupt,)}, TypeError),
        ({"errors": 5}, TypeError),
        ({"errors": None}, TypeError),
    ],
)
def test_limits_that_mean_nothing(limits: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="Stop"):
        Stop(**limits)


# --- what is wrong with the call -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"temprature": 0.5}, TypeError, "temperature"),
        ({"temperature": 7}, ValueError, "temperature"),
        ({"on_content_delta": print}, TypeError, "on_content_delta"),
        ({"stop": 5}, TypeError, "Stop"),
        ({"timeout": 5}, TypeError, "timeout"),
        ({"retry": 5}, TypeError, "retry"),
        ({"headers": {"a b": "c"}}, ValueError, "header"),
        ({"into": 5}, TypeError, "into"),
        ({"into": int}, TypeError, "into"),
    ],
)
@virtual
async def test_a_wrong_keyword_raises_at_the_call(
    options: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Once, and not as the error of each of a million results; no request was taken."""

    def source() -> Iterator[str]:
        raise AssertionError("taken")
        yield ""

    with pytest.raises(error, match=said):
        client(Served()).fan_out(source(), **options)


def test_structured_answers_are_imported_for_into_only() -> None:
    """A fan-out without ``into=`` starts faster by the modules of JSON Schema."""
    code = (
        "import sys; from dataclasses import make_dataclass; from streamchat import Client\n"
        "client = Client('key', base_url='https://a.test', model='m')\n"
        "for into in (None, make_dataclass('T', [('x', int)])):\n"
        "    client.fan_out(['a'], into=into)\n"
        "    print('streamchat.structured' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


# --- values --------------------------------------------------------------------------------------


@attrs.define
class Order:
    item: str
    count: int


def ordering(prompt: str, number: int) -> Answer:
    """The prompt is the JSON that is answered."""
    return Answer(body(plain(prompt)), before_headers=1.0)


@virtual
async def test_each_answer_is_a_value() -> None:
    """One that does not fit is that request's error, which keeps the answer."""
    served = Served(ordering)
    chat = client(served)
    requests: list[Any] = [
        '{"item": "pear", "count": 2}',
        {"messages": '{"item": "fig", "count": 1}', "temperature": 0.1},
        '{"item": "fig"}',
        "no JSON at all",
        {"messages": "x", "response_format": {"type": "json_object"}},
    ]
    results = [r async for r in chat.fan_out(requests, ordered=True, into=Order)]
    assert [result.value for result in results] == [
        Order("pear", 2),
        Order("fig", 1),
        None,
        None,
        None,
    ]
    assert [result.ok for result in results] == [True, True, False, False, False]
    for result in results[2:4]:
        assert isinstance(result.error, StructureError)
        assert result.response is None
        assert result.error.partial is not None
        assert result.error.partial.text == (
            result.request if isinstance(result.request, str) else ""
        )
    assert isinstance(results[4].error, TypeError)
    assert str(results[4].error) == "a request of fan_out(into=...) takes no response_format"
    with pytest.raises(TypeError, match=r"^fan_out\(into=\.\.\.\) takes no tools$"):
        chat.fan_out(requests, into=Order, tools=[])
    sent = served.bodies['{"item": "pear", "count": 2}']
    assert set(sent["response_format"]["json_schema"]["properties"]) == {"item", "count"}
    assert "JSON" in json.dumps(sent["messages"][0])


@virtual
async def test_without_a_type_there_is_no_value() -> None:
    (result,) = [r async for r in client(Served()).fan_out(["a"])]
    assert result.value is None
    assert texts([result]) == ["a"]


@virtual
async def test_answers_that_do_not_fit_are_failures_for_stop() -> None:
    chat = client(Served())
    results, error = await until_stopped(
        chat.fan_out(Endless(), concurrency=1, into=Order, stop=Stop(failures=2))
    )
    assert (len(results), error.reason, error.tokens > 0) == (2, "failures", True)
