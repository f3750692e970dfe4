"""The same job on a cluster: same results, one limiter, and an actor killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamchat import Client, FanOutResult, UnprocessableEntityError
from streamchat.local import LocalServer
from tests.frames import body, plain
from tests.wire.server import EVENT_STREAM, Request, chunked, serve

ray: Any = pytest.importorskip("ray")

from streamchat.ray import ChatUDF, RayFanOut, _LeasedLimiter, _Limits, _Settings  # noqa: E402

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def settings(url: str) -> dict[str, Any]:
    return {"api_key": "canary-of-ray", "base_url": url}


def asked(request: Request) -> str:
    text: str = json.loads(request.body)["messages"][-1]["content"]
    return text


async def echo(writer: asyncio.StreamWriter, request: Request) -> None:
    """Repeats the prompt; refuses "bad"."""
    if asked(request) == "bad":
        writer.write(b"HTTP/1.1 422 No\r\ncontent-length: 2\r\n\r\n{}")
        return
    answer = chunked(body(plain(asked(request))))
    writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n" + answer + b"0\r\n\r\n")


def told(results: list[FanOutResult]) -> list[tuple[int, Any, str, str, Any]]:
    """What is the same wherever it was answered."""
    return sorted(
        (
            each.index,
            each.request,
            each.response.text if each.response else "",
            type(each.error).__name__,
            each.data,
        )
        for each in results
    )


async def test_the_same_job_gives_the_same_results() -> None:
    """Texts, failures, indexes, requests and data; from a generator."""
    jobs: list[Any] = [f"question {number}" for number in range(130)]
    jobs[7], jobs[8] = "bad", {"messages": "with data", "data": [1, 2]}
    async with serve(echo) as wire:
        async with Client(model="m", **settings(wire.url)) as client:
            here = [result async for result in client.fan_out(jobs, concurrency=20)]
        results = RayFanOut(iter(jobs), model="m", per_actor=60, client=settings(wire.url))
        async with results:
            there = [result async for result in results]
    assert told(there) == told(here)
    assert len(there) == 130
    [failed] = [each for each in there if not each.ok]
    assert isinstance(failed.error, UnprocessableEntityError)
    assert failed.attempts == 1
    assert "canary-of-ray" not in repr(vars(results))


async def test_an_actor_that_is_killed_loses_nothing() -> None:
    """Its unfinished requests go to another; each comes back once."""
    jobs = [f"question {number}" for number in range(300)]
    async with serve(echo) as wire:
        results = RayFanOut(jobs, model="m", per_actor=50, client=settings(wire.url))
        seen: list[FanOutResult] = []
        async with results:
            async for result in results:
                seen.append(result)
                if len(seen) == 60:
                    ray.kill(results._workers[0])
    assert sorted(each.index for each in seen) == list(range(300))
    assert all(each.ok for each in seen), [each.error for each in seen if not each.ok][:3]


async def test_leaving_early_ends_the_actors() -> None:
    """Nothing runs on, here or there; the source was not read to its end."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "again"

    before = asyncio.all_tasks()
    async with serve(echo) as wire:
        results = RayFanOut(endless(), model="m", per_actor=50, client=settings(wire.url))
        async with results:
            async for result in results:
                assert result.ok
                break
            workers = list(results._workers)
    assert taken <= 2 * 2 * 50
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ray.exceptions.RayActorError):
            while True:  # a kill is carried out a moment later
                async for gone in worker.answer.options(num_returns="streaming").remote([]):
                    await gone
    assert not [task for task in asyncio.all_tasks() - before if "handle" not in repr(task)]


async def test_one_limiter_for_all_actors() -> None:
    """Two actors together get no more permits than the limiter has; all are answered."""
    async with serve(echo) as wire:
        results = RayFanOut(
            [str(number) for number in range(80)],
            model="m",
            rpm=6000,
            tpm=10_000_000,
            client=settings(wire.url),
        )
        async with results:
            seen = [result async for result in results]
    assert all(each.ok for each in seen)
    assert len(seen) == 80


async def test_a_source_that_fails_ends_after_its_results() -> None:
    def source() -> Iterator[str]:
        yield from ("a", "b")
        raise LookupError("the source")

    async with serve(echo) as wire:
        results = RayFanOut(source(), model="m", client=settings(wire.url))
        with pytest.raises(LookupError, match="the source"):
            async with results:
                async for _ in results:
                    pass


async def test_a_lease_is_asked_once_for_all_that_wait() -> None:
    """And what was settled, or cancelled, is told with the next one."""
    limits = _Limits(600.0, 100_000.0)
    calls: list[tuple[list[float], list[tuple[int, float]]]] = []

    class Remote:
        """Stands for the actor's handle."""

        class lease:
            @staticmethod
            async def remote(wanted: list[float], settled: list[tuple[int, float]]) -> list[int]:
                calls.append((wanted, settled))
                return await limits.lease(wanted, settled)

    limiter = _LeasedLimiter(Remote, 600.0, 100_000.0)
    permits = [limiter.admit(10) for _ in range(3)]
    await asyncio.gather(*(permit.__aenter__() for permit in permits))
    assert calls[0] == ([10, 10, 10], [])
    for permit in permits:
        permit.settle(4)
    async with limiter.admit(10):
        pass
    assert [used for _, used in calls[-1][1]] == [4, 4, 4]
    assert sum(len(wanted) for wanted, _ in calls) >= 4
    with pytest.raises(ValueError, match="never passes"):
        limiter.admit(1_000_000)


async def test_answers_for_a_dataset() -> None:
    """A batch of columns in, the same and three more out, in order."""
    numpy = pytest.importorskip("numpy")
    async with LocalServer() as server:

        def work() -> dict[str, Any]:
            udf = ChatUDF(model="m", client=settings(server.url))
            found = udf({"prompt": numpy.array(["What is 1?", "What is 2?"]), "id": [1, 2]})
            del udf
            return found

        batch = await asyncio.to_thread(work)
    assert list(batch) == ["prompt", "id", "text", "finish_reason", "error"]
    assert list(batch["finish_reason"]) == ["COMPLETE", "COMPLETE"]
    assert "1" in batch["text"][0]
    assert "2" in batch["text"][1]
    assert list(batch["error"]) == ["", ""]


def test_settings_show_no_key() -> None:
    assert "canary" not in repr(_Settings(settings("u")))


@pytest.mark.parametrize("bad", [{"actors": 0}, {"per_actor": True}, {"rpm": -1}])
def test_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RayFanOut([], **bad)


async def test_the_command_spreads_a_batch(tmp_path: Path) -> None:
    """``streamchat batch --ray local``: the same rows as without."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"q {n}"}) + "\n" for n in range(120)))
    async with serve(echo) as wire:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamchat", "batch", str(source), "-o", str(out)),
            *("--ray", "local", "--ordered"),
            env={**os.environ, "CO_API_KEY": "k", "CO_API_URL": wire.url},
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(120))
    assert rows[5]["response"]["message"]["content"][0]["text"] == "q 5"
