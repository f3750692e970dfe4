"""The same jobs on a cluster: the same results, whoever is lost, and nobody left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from streamchat import (
    AuthenticationError,
    Client,
    ConcurrencyError,
    ConfigurationError,
    FanOutResult,
    Limiter,
    Retry,
    StreamChatError,
    TransportError,
)
from streamchat.local import LocalServer
from streamchat.ray import ChatUDF, ClusterLimiter, RayFanOut
from tests.fanout.unkind import unkind
from tests.ray.holding import holding

ray: Any = pytest.importorskip("ray")

pytestmark = [
    # Ray's own, and sockets that its processes leave behind when they are killed.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(120),
]
KEY = "key-that-is-seen-nowhere"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {"api_key": KEY, "base_url": url, "model": "m", **more}


def naming_its_process(url: str) -> Callable[[], Client]:
    """A client that says which process it is in."""

    def make() -> Client:
        return Client(**settings(url), headers={"x-process": str(os.getpid())})

    return make


def told(result: FanOutResult) -> Any:
    """What must be the same wherever it was done."""
    text = result.response.text if result.response is not None else None
    return result.index, result.request, result.data, text, type(result.error)


async def all_of(results: Any) -> list[FanOutResult]:
    return [result async for result in results]


async def test_the_same_job_has_the_same_results() -> None:
    """5 % refused, 5 % reset, 2 % cut, and requests that are none: all as ``Client.fan_out``."""
    jobs: list[Any] = [f"question {number}" for number in range(300)]
    jobs[7] = {"messages": "with data", "data": ["its", "data"]}
    jobs[8], jobs[9] = 8, {"prompt": "no messages"}
    options: dict[str, Any] = {"retry": Retry(base=0.01), "data": "of all"}
    with unkind(7) as url:
        async with Client(**settings(url)) as client:
            here = await all_of(client.fan_out(jobs, concurrency=50, **options))
    with unkind(7) as url:
        there = await all_of(RayFanOut(jobs, per_actor=25, client=settings(url), **options))
    assert len(there) == 300
    assert sorted(map(told, there), key=lambda x: x[0]) == sorted(
        map(told, here), key=lambda x: x[0]
    )
    assert {type(each.error) for each in there} >= {TypeError, ValueError}
    assert all(each.timing.total for each in there if each.ok)


@pytest.mark.parametrize("how", ["killed by Ray", "killed by the system"])
async def test_a_lost_actor_loses_nothing_and_repeats_nothing(how: str) -> None:
    """What had come back is not asked again; what had not, is; each comes once."""
    jobs = [f"{'held' if number % 3 == 0 else 'quick'} {number}" for number in range(60)]
    async with holding("held") as server:
        fan = RayFanOut(jobs, per_actor=60, client=naming_its_process(server.url))
        seen: list[FanOutResult] = []
        async with fan:
            while len(seen) < 40:  # all the quick ones
                seen.append(await anext(fan))
            await server.until_held(20)
            process, waiting = next((p, {*w}) for p, w in server.open.items() if w)
            if how == "killed by Ray":
                ray.kill(fan._engine.seats[0].worker)
                process, waiting = "any", set()
            else:
                os.kill(int(process), signal.SIGKILL)
                await server.until_gone(process)
            server.release()
            seen += [result async for result in fan]
            assert fan.lost == 1
    assert sorted(each.index for each in seen) == list(range(60))
    assert [each.response.text for each in seen if each.response] == [
        f"to {x.request}" for x in seen
    ]
    asked_twice = {prompt for prompt, times in server.asked.items() if times > 1}
    assert all(prompt.startswith("held") for prompt in asked_twice)
    assert asked_twice == waiting or process == "any"
    assert max(server.asked.values()) == 2


async def test_leaving_early_ends_everything() -> None:
    """No actor, no task, no request more than there was room for; iterating ends."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"question {taken}"

    async with holding() as server:
        tasks = asyncio.all_tasks()
        fan = RayFanOut(
            endless(), actors=2, per_actor=10, client=settings(server.url), limiter=Limiter(rpm=1e6)
        )
        async with fan:
            seen = [await anext(fan) for _ in range(30)]
            actors = [seat.worker for seat in fan._engine.seats]
            actors.append(fan._engine._own_limiter.start())
            first = asyncio.ensure_future(anext(fan))
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError):
                await anext(fan)
            await first
        assert [each async for each in fan] == []
        await fan.aclose()
        assert len(seen) == 30
        assert taken <= 30 + 2 + 2 * 10
        for actor in actors:
            with pytest.raises(ray.exceptions.RayActorError):
                while True:  # the order to end is on its way
                    await actor.__ray_ready__.remote()
        mine = {task for task in asyncio.all_tasks() - tasks if "handle" not in repr(task)}
        assert not mine


async def test_requests_are_taken_lazily_and_sent_at_once() -> None:
    """A source that waits for the answer to what it gave before is no deadlock."""
    answered = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        for number in range(5):
            yield f"question {number}"
            await answered.wait()
            answered.clear()

    async with holding() as server:
        fan = RayFanOut(source(), actors=1, client=settings(server.url))
        seen: list[int] = []
        async for result in fan:
            seen.append(result.index)
            answered.set()
    assert seen == [0, 1, 2, 3, 4]


async def test_a_source_that_fails_does_so_after_its_results() -> None:
    """What it gave before is answered."""

    def source() -> Iterator[str]:
        yield from ("one", "two")
        raise LookupError("no third")

    seen: list[int] = []
    async with holding() as server:
        with pytest.raises(LookupError, match="no third"):
            async for result in RayFanOut(source(), actors=1, client=settings(server.url)):
                seen.append(result.index)
    assert sorted(seen) == [0, 1]


async def test_the_first_failure_is_raised_if_wanted() -> None:
    """With the name of its request, and nothing goes on."""
    async with LocalServer(api_key="another") as server:
        fan = RayFanOut(["one"] * 20, actors=1, client=settings(server.url), on_error="raise")
        with pytest.raises(AuthenticationError) as caught:
            await all_of(fan)
    assert "of the fan-out" in caught.value.__notes__[0]
    assert KEY not in repr(caught.value)


async def test_settings_that_cannot_work_are_said_once() -> None:
    """By the error that the client raises, not by Ray's."""
    with pytest.raises(ConfigurationError, match="no API key"):
        await all_of(RayFanOut(["one"], actors=1, client={"base_url": "https://api.cohere.com"}))
    with pytest.raises(TypeError, match="must return a Client, not int"):
        await all_of(RayFanOut(["one"], actors=1, client=lambda: 1))


async def test_actors_that_die_at_once_are_not_replaced_for_ever() -> None:
    """It ends as an error of ours that says so."""

    def dies() -> Client:
        os._exit(1)

    with pytest.raises(TransportError, match="3 actors were lost one after the other"):
        await all_of(RayFanOut(["one"], actors=1, client=dies))


async def test_what_cannot_travel_is_an_error_of_its_own() -> None:
    """There and back; the others are answered."""

    class Moody(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(one + two)

    def make(url: str) -> Callable[[], Client]:
        def client() -> Client:
            made = Client(**settings(url))

            @made.on_message_end
            def fails(event: Any) -> None:
                if "bad" in event.response.text:
                    raise Moody("does not", " pickle")

            return made

        return client

    jobs: list[Any] = ["good", {"messages": (each for each in ["x"])}, "bad"]
    async with holding() as server:
        seen = {
            each.index: each async for each in RayFanOut(jobs, actors=1, client=make(server.url))
        }
    assert seen[0].ok
    assert isinstance(seen[1].error, TypeError)
    assert "pickled" in str(seen[1].error)
    assert isinstance(seen[2].error, StreamChatError)
    assert str(seen[2].error) == "Moody: does not pickle"


async def test_one_limiter_for_all_actors() -> None:
    """Never more arrivals than the limit allows since the first; a call serves many requests."""
    rpm = 1800
    async with holding() as server:
        limiter = ClusterLimiter(rpm=rpm, tpm=10_000_000)
        fan = RayFanOut([f"q {number}" for number in range(120)], limiter=limiter,
                        client=settings(server.url))  # fmt: skip
        seen = await all_of(fan)
        limiter.close()
    assert all(each.ok for each in seen)
    start = min(server.at)
    for count, at in enumerate(sorted(server.at), 1):
        # A burst of 1 %, the even pace, and what a lease may hold.
        assert count <= 0.01 * rpm + rpm / 60 * (at - start + 1) + 1


async def test_a_shared_limiter_is_lost_and_comes_again() -> None:
    """Ray starts it again, and it grants nothing at first: those who wait go on waiting."""
    async with holding() as server:
        limiter = ClusterLimiter(rpm=6000)
        actor = limiter.start()
        fan = RayFanOut(
            iter(["one", "two"]), actors=1, limiter=limiter, client=settings(server.url)
        )
        ray.kill(actor, no_restart=False)
        first = asyncio.ensure_future(anext(fan))
        await actor.__ray_ready__.remote()
        done, _ = await asyncio.wait([first], timeout=3)
        assert not done
        await fan.aclose()
        with pytest.raises(StopAsyncIteration):
            await first
        limiter.close()
    assert not server.asked


def test_a_plain_loop_where_no_event_loop_runs() -> None:
    """As most drivers are; leaving it ends the actors."""
    with unkind(7) as url:
        client = settings(url)
        seen = {each.index for each in RayFanOut(["a", "b", "c"], actors=1, client=client)}
        fan = RayFanOut(iter(lambda: "again", ""), actors=1, per_actor=5, client=client)
        for result in fan:
            assert result.request == "again"
            break
    assert seen == {0, 1, 2}


async def test_the_key_shows_nowhere() -> None:
    """Not in what is printed here, nor in what Ray writes; it arrives all the same."""
    async with holding() as server:
        fan = RayFanOut(["one"], actors=1, client=settings(server.url), headers={"x-more": KEY})
        async with fan:
            assert (await anext(fan)).ok
            assert KEY not in repr(fan) + repr(fan._engine) + repr(vars(fan))
    assert server.keys == {f"Bearer {KEY}"}
    logs = ray._private.worker._global_node.get_logs_dir_path()
    for folder, _, names in os.walk(logs):
        for name in names:
            with open(os.path.join(folder, name), "rb") as log:
                assert KEY.encode() not in log.read(), name


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({"actors": 0}, ValueError),
        ({"per_actor": True}, TypeError),
        ({"limiter": 5}, TypeError),
        ({"on_error": "ignore"}, ValueError),
        ({"client": "key"}, TypeError),
        ({"ordered": True}, TypeError),
    ],
)
def test_arguments_that_mean_nothing(bad: dict[str, Any], what: type[Exception]) -> None:
    """They are named before anything starts."""
    with pytest.raises(what, match=next(iter(bad))):
        RayFanOut([], **bad)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
async def test_answers_for_a_dataset(batch_format: str) -> None:
    """Each row has its own answer, whatever the order they came in; a failed row says why."""
    rows = [{"id": number, "prompt": f"question {number}"} for number in range(40)]
    rows[5]["prompt"] = ""
    async with holding() as server:
        data = ray.data.from_items(rows, override_num_blocks=2)
        data = data.map_batches(
            ChatUDF,
            fn_constructor_kwargs={"client": settings(server.url), "max_tokens": 9},
            batch_format=batch_format,
            batch_size=10,
            concurrency=1,
            num_cpus=0.1,
        )
        found = {row["id"]: row for row in await asyncio.to_thread(data.take_all)}
    assert len(found) == 40
    for number in {*range(40)} - {5}:
        row = found[number]
        assert (row["text"], row["error"]) == (f"to question {number}", None)
        assert (row["finish_reason"], row["attempts"]) == ("COMPLETE", 1)
        assert row["seconds"] > 0


async def test_a_failed_row_says_why() -> None:
    """And a cell may be a list of messages, with the ``None`` that tables put where a key is missing."""
    numpy = pytest.importorskip("numpy")
    message = {"role": "user", "content": "Hi", "tool_calls": None}
    async with LocalServer() as server:
        udf = ChatUDF("chat", prefix="a_", client=settings(server.url))
        cells = numpy.empty(2, dtype=object)
        cells[0], cells[1] = numpy.array([message], dtype=object), 7
        batch = await udf({"chat": cells})
        await udf._client.aclose()
        with pytest.raises(TypeError, match="a batch must be"):
            await udf([1])
    assert batch["a_error"][0] is None
    assert batch["a_text"][0]
    assert batch["a_error"][1].startswith("TypeError: a request must be")
    assert batch["a_text"][1] is None
