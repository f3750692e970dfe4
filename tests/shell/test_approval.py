"""``run_tools(approve=)``: who is asked about which calls, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from streamchat import (
    ChatResponse,
    Client,
    Context,
    StepStart,
    ToolArgumentsError,
    ToolCall,
    ToolError,
    ToolRefusedError,
    ToolResult,
    TransportError,
)
from tests.fakes import Answer
from tests.frames import pieces, plain
from tests.shell.test_runs import client_over, collect
from tests.shell.test_tools import InlineThread, bodies, calling


@pytest.fixture(autouse=True)
def _inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamchat.calling.Thread", InlineThread)


class Bank:
    """A tool that takes virtual seconds, and a record of what happened when."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str]] = []

    def note(self, words: str) -> None:
        self.log.append((asyncio.get_running_loop().time(), words))

    async def pay(self, seconds: int) -> str:
        """Pay."""
        self.note(f"pay {seconds}")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.note(f"cancelled {seconds}")
            raise
        self.note(f"paid {seconds}")
        return f"paid {seconds}"

    @property
    def words(self) -> list[str]:
        return [words for _, words in self.log]


def payments(*seconds: int) -> list[Any]:
    return calling(*[("pay", f'{{"seconds": {n}}}') for n in seconds])


def run_of(bank: Bank, approve: Any, *seconds: int, **options: Any) -> tuple[Any, Client, Any]:
    client, transport = client_over(Answer(*pieces(payments(*seconds))), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[bank.pay], approve=approve, **options)
    return run, client, transport


def results(events: list[Any]) -> list[ToolResult]:
    return [each for each in events if isinstance(each, ToolResult)]


# --- yes and no ----------------------------------------------------------------------------------


def kinds_of(verdict: Any) -> dict[str, Callable[..., Any]]:
    """The same answer, by every kind of function."""

    async def later(call: ToolCall) -> Any:
        await asyncio.sleep(1)
        return verdict

    async def with_context(call: ToolCall, ctx: Context) -> Any:
        assert ctx.data == "mine"
        return verdict

    class Person:
        def ask(self, call: ToolCall, ctx: Context) -> Any:
            return verdict

        async def __call__(self, call: ToolCall) -> Any:
            return verdict

    return {
        "async": later,
        "async with context": with_context,
        "plain": lambda call: verdict,
        "plain with context": lambda call, ctx: verdict,
        "plain that returns an awaitable": lambda call: later(call),
        "method": Person().ask,
        "object": Person(),
        "partial": functools.partial(lambda said, call: said, verdict),
    }


KINDS = list(kinds_of(True))
TOLD = "error: the call of tool 'pay' was refused"
VERDICTS: list[tuple[Any, str | None]] = [
    (True, None),
    (False, TOLD),
    ("", TOLD),
    ("too dear", f"{TOLD}: too dear"),
    ("caf\udce9", f"{TOLD}: caf\ufffd"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("verdict", "told"), VERDICTS, ids=[ascii(row[0]) for row in VERDICTS])
async def test_a_function_approves_or_refuses(kind: str, verdict: Any, told: str | None) -> None:
    """Refused calls are not run: the model is told so, and why; the run goes on."""
    bank = Bank()
    run, _, transport = run_of(bank, kinds_of(verdict)[kind], 3, data="mine")
    [result] = results(await collect(run))
    sent = bodies(transport)[1]["messages"][-1]
    if told is None:
        assert (result.value, result.error, bank.words) == ("paid 3", None, ["pay 3", "paid 3"])
        return
    assert bank.log == []
    assert (result.error, result.value, result.seconds) == (told, None, 0)
    assert sent == {"role": "tool", "tool_call_id": "pay_0", "content": told}
    assert isinstance(result.exception, ToolRefusedError)
    assert (result.exception.name, result.exception.reason) == ("pay", verdict or "")
    assert (await run).text == "Hello there!"


@pytest.mark.parametrize("how", ["raise", "report", lambda error, call: "never"])
async def test_a_refusal_is_no_failure_of_the_tool(how: Any) -> None:
    """on_tool_error has no part in it."""
    run, _, _ = run_of(Bank(), lambda call: "no", 1, on_tool_error=how)
    [result] = results(await collect(run))
    assert result.error == f"{TOLD}: no"


async def test_the_context_is_that_of_the_run() -> None:
    """The one of its handlers; the answer that calls is the snapshot."""
    seen: list[Any] = []

    def approve(call: ToolCall, ctx: Context) -> bool:
        seen.append((ctx, ctx.snapshot))
        return True

    run, _, _ = run_of(Bank(), approve, 1, 2)
    run.on_step_start(lambda event, ctx: seen.append((ctx, event)))
    await run
    context, event = seen[0]
    assert isinstance(event, StepStart)
    assert [each[0] for each in seen] == [context] * 4
    assert isinstance(seen[1][1], ChatResponse)
    assert len(seen[1][1].tool_calls) == 2


async def test_only_calls_that_could_run_are_asked_about() -> None:
    """Unknown tools and arguments that do not fit are told to the model at once."""
    asked: list[str] = []

    def approve(call: ToolCall) -> bool:
        asked.append(call.arguments)
        return True

    events = calling(("pay", "{}"), ("fly", "{}"), ("pay", '{"seconds": 1}'), ("pay", "{"))
    client, _ = client_over(Answer(*pieces(events)), Answer(*pieces(plain())))
    run = client.run_tools("Hi", tools=[Bank().pay], approve=approve)
    found = results(await collect(run))
    assert asked == ['{"seconds": 1}']
    assert [type(each.exception) for each in found] == [
        ToolArgumentsError,
        ToolError,
        type(None),
        ToolArgumentsError,
    ]


# --- one question at a time ----------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 4])
async def test_calls_are_asked_about_one_at_a_time_in_order(parallel: int) -> None:
    """An approved tool starts at once, while the next question is asked."""
    bank = Bank()

    async def approve(call: ToolCall) -> bool | str:
        bank.note(f"ask {call.parsed['seconds']}")
        await asyncio.sleep(1)
        return call.parsed["seconds"] != 2 or "not two"

    run, _, _ = run_of(bank, approve, 5, 2, 3, parallel=parallel)
    found = results(await collect(run))
    assert [each.value or each.error for each in found] == [
        "paid 5",
        f"{TOLD}: not two",
        "paid 3",
    ]
    asked = [(0, "ask 5"), (1, "pay 5"), (1, "ask 2"), (2, "ask 3")]
    if parallel == 1:
        assert sorted(bank.log) == sorted([*asked, (6, "paid 5"), (6, "pay 3"), (9, "paid 3")])
    else:
        assert sorted(bank.log) == sorted([*asked, (3, "pay 3"), (6, "paid 5"), (6, "paid 3")])
    assert [each.seconds for each in found] == [5, 0, 3]


async def test_asking_does_not_count_towards_the_tools_timeout() -> None:
    """A person may take longer than the tool."""

    async def approve(call: ToolCall) -> bool:
        await asyncio.sleep(100)
        return True

    run, _, _ = run_of(Bank(), approve, 3, tool_timeout=5)
    [result] = results(await collect(run))
    assert (result.value, result.seconds) == ("paid 3", 3)


async def test_each_step_is_asked_about() -> None:
    """Approval of one call is not approval of the next."""
    asked: list[int] = []

    def approve(call: ToolCall) -> bool:
        asked.append(call.parsed["seconds"])
        return True

    client, _ = client_over(
        Answer(*pieces(payments(1, 2))), Answer(*pieces(payments(3))), Answer(*pieces(plain()))
    )
    await client.run_tools("Hi", tools=[Bank().pay], approve=approve)
    assert asked == [1, 2, 3]


# --- the end of a run ----------------------------------------------------------------------------


class No(Exception):
    pass


def raises(error: BaseException, *, kind: str) -> Callable[..., Any]:
    async def later(call: ToolCall) -> bool:
        if call.parsed["seconds"] == 2:
            raise error
        return True

    def at_once(call: ToolCall) -> bool:
        if call.parsed["seconds"] == 2:
            raise error
        return True

    return later if kind == "async" else at_once


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("how", ["report", "raise", lambda error, call: "never"])
async def test_an_exception_ends_the_run(kind: str, how: Any) -> None:
    """At once, unwrapped, with a note; nobody is asked further, tools that run are cancelled."""
    bank, error = Bank(), No("stop")
    asked: list[Any] = []
    inner = raises(error, kind=kind)

    def approve(call: ToolCall) -> Any:
        asked.append(call.parsed["seconds"])
        return inner(call)

    run, client, transport = run_of(bank, approve, 1000, 2, 3, on_tool_error=how)
    heard: list[Exception] = []

    @client.on_error()
    def swallow(error: Exception) -> bool:
        heard.append(error)
        return True

    with pytest.raises(No, match="stop") as caught:
        await run
    assert caught.value is error
    [note] = caught.value.__notes__
    assert note.startswith("raised by approve=")
    assert note.endswith("asked about call pay_1 of pay")
    assert asked == [1000, 2]
    assert bank.words in ([], ["pay 1000", "cancelled 1000"])
    assert asyncio.get_running_loop().time() == 0
    assert len(transport.requests) == 1
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(TransportError, match="stopped by No"):
        await run


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
async def test_the_end_of_an_iterator_is_an_error(error: type[Exception], kind: str) -> None:
    """It must not look like the end of the run."""
    run, _, _ = run_of(Bank(), raises(error("x"), kind=kind), 2)
    with pytest.raises(RuntimeError, match=f"raised {error.__name__}") as caught:
        await run
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("verdict", [None, 1, 0, b"no", [], {"ok": True}, ToolCall])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_any_other_answer_is_refused(verdict: Any, kind: str) -> None:
    """By a TypeError that says what to return; the tool does not run."""
    bank = Bank()

    async def later(call: ToolCall) -> Any:
        return verdict

    run, _, _ = run_of(bank, later if kind == "async" else lambda call: verdict, 1)
    words = f"must return True to run the tool, or False or a str .* {type(verdict).__name__}"
    with pytest.raises(TypeError, match=words):
        await run
    assert bank.log == []


async def test_a_question_that_cancels_itself_ends_the_run() -> None:
    """As a ToolError: nobody cancelled the run."""

    async def approve(call: ToolCall) -> bool:
        raise asyncio.CancelledError

    run, _, _ = run_of(Bank(), approve, 1)
    with pytest.raises(ToolError, match="was cancelled from within"):
        await run


def two_parameters(call: ToolCall, ctx: Context, more: int) -> bool:
    return True


async def generator(call: ToolCall) -> Any:
    yield True


@pytest.mark.parametrize(
    ("approve", "words"),
    [
        (True, "^an approve function must be callable, not bool"),
        ("yes", "must be callable, not str"),
        (lambda: True, r"must take \(call\) or \(call, ctx\)"),
        (two_parameters, r"must take \(call\) or \(call, ctx\)"),
        (generator, "is a generator"),
    ],
)
async def test_what_cannot_be_asked_is_refused_at_the_call(approve: Any, words: str) -> None:
    """Before anything is sent."""
    client, transport = client_over()
    with pytest.raises(TypeError, match=words):
        client.run_tools("Hi", tools=[Bank().pay], approve=approve)
    assert transport.requests == []


@pytest.mark.parametrize("how", ["cancel", "aclose", "close of the generator"])
async def test_ending_the_run_cancels_the_question(how: str) -> None:
    """The question and the tools that run; nothing is left."""
    bank = Bank()
    asking = asyncio.Event()

    async def approve(call: ToolCall) -> bool:
        if call.parsed["seconds"] == 5:
            return True
        bank.note("asked")
        asking.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            bank.note("no answer")
            raise
        return True

    run, _, _ = run_of(bank, approve, 5, 7, 1)
    if how == "close of the generator":
        async with run:
            async for event in run:
                if isinstance(event, ToolResult):
                    break
        expected = ["pay 5", "asked", "paid 5", "no answer"]
    else:
        task = asyncio.ensure_future(collect(run))
        await asking.wait()
        await asyncio.sleep(1)
        if how == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await run.aclose()
            with pytest.raises(TransportError, match="closed before"):
                await task
        expected = ["pay 5", "asked", "cancelled 5", "no answer"]
    assert sorted(bank.words) == sorted(expected)
    assert len(asyncio.all_tasks()) == 1
