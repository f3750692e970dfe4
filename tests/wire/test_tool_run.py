"""Tool runs on real sockets: recorded conversations replayed, threads, and connections closed."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest

from streamchat import (
    Client,
    Document,
    MessageEnd,
    StepEnd,
    StepStart,
    ToolCall,
    ToolCallEnd,
    ToolCallFunction,
    ToolResult,
    TransportError,
    tool,
)
from tests.frames import body, pieces, plain, tools
from tests.protocol.helpers import SHARED, cut, events_of, needs_shared
from tests.wire.server import EVENT_STREAM, Reply, Request, answer_whole, chunked, serve


def replay(data: bytes, *, size: int = 400) -> Reply:
    """A reply that says these bytes, in pieces that respect no event."""

    async def reply(writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n")
        for piece in cut(data, size):
            writer.write(chunked(piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    return reply


# --- recorded conversations ----------------------------------------------------------------------

Recording = tuple[Path, dict[str, Any]]
"""A stream, and the body of the request that it answers."""


@functools.cache
def recordings() -> list[Recording]:
    """All v2 streams whose request was kept."""
    found: list[Recording] = []
    for path in sorted((SHARED / "recordings").glob("*/*.sse")):
        request = json.loads(path.with_suffix(".json").read_text()).get("request")
        if request and "messages" in request:
            found.append((path, request))
    return found


def follows(recording: Recording) -> Recording | None:
    """The recording whose request answers the tool calls of this one: its messages begin with those of
    this request, go on with the assistant's turn whose call ids this stream holds, and end with one
    tool message a call."""
    path, request = recording
    count = len(request["messages"])
    for other in recordings():
        messages = other[1]["messages"]
        if messages[:count] != request["messages"] or len(messages) <= count:
            continue
        ids = [call["id"] for call in messages[count].get("tool_calls", ())]
        answered = [message.get("tool_call_id") for message in messages[count + 1 :]]
        if ids and ids == answered and all(each.encode() in path.read_bytes() for each in ids):
            return other
    return None


def conversations() -> dict[str, list[Recording]]:
    """Conversations of at least two requests, by the name of their first."""
    found: dict[str, list[Recording]] = {}
    for recording in recordings():
        if any(message["role"] == "assistant" for message in recording[1]["messages"]):
            continue
        chain = [recording]
        while (after := follows(chain[-1])) is not None:
            chain.append(after)
        if len(chain) > 1:
            found[recording[0].stem] = chain
    return found


CONVERSATIONS = conversations()
JSON_TYPES = {"str": "string", "int": "integer"}


def normalised(request: dict[str, Any]) -> dict[str, Any]:
    """A request body, with two differences that mean nothing taken out; all else is compared as it is.

    * ``tools[].function.parameters.properties.*.type``: LangChain writes Python's names (``str``), and
      the server takes both (protocol.md 2.4); a function's own types give JSON Schema's.
    * ``messages[].tool_calls[].function.arguments``: LangChain parses the text and writes it anew,
      with other white space; we repeat the model's own text. The values are compared.
    """
    same: dict[str, Any] = json.loads(json.dumps(request))
    for each in same["tools"]:
        for field in each["function"]["parameters"]["properties"].values():
            field["type"] = JSON_TYPES.get(field["type"], field["type"])
    for message in same["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return same


def recorded_answers(chain: list[Recording]) -> dict[tuple[str, str], Any]:
    """What each call was answered, by the tool's name and its arguments."""
    messages = chain[-1][1]["messages"]
    calls = {c["id"]: c["function"] for m in messages for c in m.get("tool_calls", ())}
    answers: dict[tuple[str, str], Any] = {}
    for message in messages:
        if message["role"] == "tool":
            function = calls[message["tool_call_id"]]
            key = (function["name"], json.dumps(json.loads(function["arguments"])))
            [part] = message["content"]
            data = part["document"]["data"]
            # A dict is a document by itself; text is one only if the function says so.
            answers[key] = data if isinstance(data, dict) else Document(data)
    return answers


def recorded_tools(chain: list[Recording]) -> list[Any]:
    """The tools of LangChain's tests as functions of ours; they say what was recorded."""
    answers = recorded_answers(chain)

    def answer(name: str, **arguments: Any) -> Any:
        return answers[name, json.dumps(arguments)]

    @tool(description="Returns the textual contents of an uploaded file, broken up in text chunks")
    async def file_read(filename: Annotated[str, "The name of the attached file to read."]) -> Any:
        return answer("file_read", filename=filename)

    @tool
    async def file_peek(filename: str) -> Any:
        """The name of the attached file to show a peek preview.

        Args:
            filename: The name of the attached file to show a peek preview.
        """
        return answer("file_peek", filename=filename)

    @tool
    async def python_interpreter(code: str) -> Any:
        """Executes python code and returns the result. The code runs in a static sandbox without \
interactive mode, so print output or save output to a file.

        :param code: Python code to execute.
        """
        return answer("python_interpreter", code=code)

    @tool
    async def magic_function(input: int) -> Any:  # noqa: A002  # its recorded name
        """Applies a magic function to an input. input: Number to apply the magic function to."""
        return answer("magic_function", input=input)

    made = {each.name: each for each in (file_read, file_peek, python_interpreter, magic_function)}
    return [made[each["function"]["name"]] for each in chain[0][1]["tools"]]


@needs_shared
def test_the_recorded_conversations_are_there() -> None:
    """Twelve conversations of 37 requests: none is left out unseen."""
    lengths = sorted(len(chain) for chain in CONVERSATIONS.values())
    assert lengths == [2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 7]


@needs_shared
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_recorded_conversation_is_repeated(name: str) -> None:
    """Each request equals the recorded one, each event is the recorded one, and so is the answer."""
    chain = CONVERSATIONS[name]
    streams = [path.read_bytes() for path, _ in chain]
    first = chain[0][1]
    async with serve(*map(replay, streams)) as wire, Client("k", base_url=wire.url) as client:
        run = client.run_tools(first["messages"], model=first["model"], tools=recorded_tools(chain))
        seen = [event async for event in run]
        response = await run
    sent = [json.loads(request.body) for request in wire.requests]
    assert [normalised(each) for each in sent] == [normalised(request) for _, request in chain]
    assert [request.line for request in wire.requests] == ["POST /v2/chat HTTP/1.1"] * len(chain)
    wire_events = [e for e in seen if not isinstance(e, StepStart | ToolResult | StepEnd)]
    assert wire_events == [event for stream in streams for event in events_of(stream)]
    last = events_of(streams[-1])[-1]
    assert isinstance(last, MessageEnd)
    assert response == last.response
    results = [e for e in seen if isinstance(e, ToolResult)]
    assert [r.error for r in results] == [None] * len(results)
    assert run.messages == [*sent[-1]["messages"], response.message.to_dict()]


# --- threads -------------------------------------------------------------------------------------


async def test_plain_functions_run_in_threads_at_once() -> None:
    """Both calls are in their threads at the same time, and the loop is in neither."""
    both = threading.Barrier(2, timeout=30)
    threads: set[int] = set()

    def weather(city: str) -> str:
        both.wait()
        threads.add(threading.get_ident())
        return city

    @tool
    def clock() -> str:
        both.wait()
        threads.add(threading.get_ident())
        return "noon"

    replies = [replay(body(tools())), replay(body(plain()))]
    async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
        run = client.run_tools("Hi", tools=[weather, clock])
        results = [event.value async for event in run if isinstance(event, ToolResult)]
    assert results == ["Lima", "noon"]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("how", ["timeout", "cancel", "aclose"])
async def test_a_thread_is_not_waited_for(how: str) -> None:
    """It cannot be stopped, so its result is dropped and the consumer goes on at once."""
    running, release = threading.Event(), threading.Event()

    def weather(city: str) -> str:
        running.set()
        assert release.wait(30)
        return city

    replies = [replay(body(tools())), replay(body(plain()))]
    try:
        async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
            limit = 0.01 if how == "timeout" else None
            run = client.run_tools("Hi", tools=[weather], tool_timeout=limit)
            task = asyncio.ensure_future(_results(run))
            await asyncio.to_thread(running.wait, 30)
            if how == "timeout":
                assert "took longer than its timeout of 0.01 s" in (await task)[0].error
            elif how == "cancel":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await run.aclose()
                with pytest.raises(TransportError, match="closed before"):
                    await task
    finally:
        release.set()


@pytest.mark.parametrize("how", ["run", "alone"])
async def test_names_are_resolved_while_tools_are_busy(how: str) -> None:
    """Tools never take a thread of the event loop, which getaddrinfo needs."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    both, release = threading.Semaphore(0), threading.Event()

    @tool
    def weather(city: str) -> str:
        both.release()
        assert release.wait(30)
        return city

    def clock() -> str:
        both.release()
        assert release.wait(30)
        return "noon"

    replies = [replay(body(tools())), replay(body(plain()))]
    async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
        if how == "run":
            task = asyncio.ensure_future(_results(client.run_tools("Hi", tools=[weather, clock])))
        else:
            call = ToolCall("x", ToolCallFunction("weather", '{"city": "Lima"}'))
            task = asyncio.ensure_future(asyncio.gather(weather.run(call), weather.run(call)))
        try:
            for _ in range(2):
                while not both.acquire(blocking=False):
                    await asyncio.sleep(0)
            assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 80), 30)
        finally:
            release.set()
            await task


@pytest.mark.parametrize("how", ["finished", "cancelled"])
async def test_the_threads_of_tools_end(how: str) -> None:
    """With the run, or, if it was cancelled, with the function; never more at once than parallel=."""
    release, running, most = threading.Event(), 0, 0

    def weather(city: str) -> str:
        # Functions, not threads: one that has returned may take a moment to end.
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert release.wait(30)
        running -= 1
        return city

    def clock() -> str:
        return weather("noon")

    replies = [replay(body(tools())), replay(body(plain()))]
    async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
        run = client.run_tools("Hi", tools=[weather, clock], parallel=1)
        task = asyncio.ensure_future(_results(run))
        while not most:
            await asyncio.sleep(0)
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        release.set()
        if how == "finished":
            assert [result.value for result in await task] == ["Lima", "noon"]
    for thread in _tool_threads():
        thread.join(30)
    assert (_tool_threads(), most) == ([], 1)


def _tool_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("streamchat-tool-")]


async def test_what_a_plain_function_raises_leaves_no_cycle() -> None:
    """Its traceback holds the frames of the thread and of the caller."""

    class Failed(Exception):
        pass

    @tool
    def fail() -> str:
        raise Failed

    gc.collect()
    gc.disable()
    try:
        try:
            await fail.run(ToolCall("x", ToolCallFunction("fail", "")))
        except Failed as error:
            failed = weakref.ref(error)
        for thread in _tool_threads():
            thread.join(30)
        assert failed() is None
    finally:
        gc.enable()


def test_a_tool_that_hangs_does_not_keep_the_interpreter() -> None:
    """Neither asyncio.run nor the end of the process waits for its thread."""
    script = """
import asyncio, threading
from streamchat import ToolCall, ToolCallFunction, tool

@tool(timeout=0.01)
def hang() -> str:
    threading.Event().wait()
    return ""

async def main() -> None:
    try:
        await hang.run(ToolCall("x", ToolCallFunction("hang", "")))
    except TimeoutError as error:
        print(error)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "tool hang took longer than its timeout of 0.01 s\n"
    assert done.stderr == ""


async def _results(run: Any) -> list[Any]:
    return [event async for event in run if isinstance(event, ToolResult)]


# --- approval ------------------------------------------------------------------------------------


async def test_a_plain_question_does_not_stop_the_tools() -> None:
    """It waits in a thread for a person, while the tool that was approved runs to its end."""
    paid, threads = threading.Event(), set[int]()

    def approve(call: ToolCall) -> bool:
        threads.add(threading.get_ident())
        assert call.name == "weather" or paid.wait(30)
        return True

    async def weather(city: str) -> str:
        await asyncio.sleep(0)
        paid.set()
        return city

    async def clock() -> str:
        return "noon"

    replies = [replay(body(tools())), replay(body(plain()))]
    async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
        results = await _results(client.run_tools("Hi", tools=[weather, clock], approve=approve))
    assert [result.value for result in results] == ["Lima", "noon"]
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("how", ["cancel", "aclose"])
async def test_a_person_who_does_not_answer_is_not_waited_for(how: str) -> None:
    """The run ends while the question waits in its thread; no tool runs."""
    asked, release = threading.Event(), threading.Event()
    ran: list[str] = []

    def approve(call: ToolCall) -> bool:
        asked.set()
        assert release.wait(30)
        return True

    async def weather(city: str) -> str:
        ran.append(city)
        return city

    replies = [replay(body(tools())), replay(body(plain()))]
    try:
        async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
            run = client.run_tools("Hi", tools=[weather], approve=approve)
            task = asyncio.ensure_future(_results(run))
            await asyncio.to_thread(asked.wait, 30)
            if how == "cancel":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await run.aclose()
                with pytest.raises(TransportError, match="closed before"):
                    await task
    finally:
        release.set()
    for thread in _tool_threads():
        thread.join(30)
    assert ran == []


# --- connections ---------------------------------------------------------------------------------


async def _break(run: Any) -> None:
    async with run:
        async for event in run:
            if isinstance(event, ToolCallEnd):
                break


async def _cancel(run: Any) -> None:
    task = asyncio.ensure_future(_results(run))
    while run._stream is None or not run._stream.snapshot.tool_calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _close(run: Any) -> None:
    task = asyncio.ensure_future(_results(run))
    while run._stream is None or not run._stream.snapshot.tool_calls:
        await asyncio.sleep(0)
    await run.aclose()
    with pytest.raises(TransportError, match="closed before"):
        await task


@pytest.mark.parametrize("leave", [_break, _cancel, _close])
async def test_leaving_early_closes_the_connection(leave: Callable[[Any], Awaitable[None]]) -> None:
    """The server sees the connection closed while it was still talking."""

    async def stall(writer: asyncio.StreamWriter, request: Request) -> None:
        head = EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n"
        writer.write(head + chunked(b"".join(pieces(tools())[:7])))
        await writer.drain()
        await wire.closed.wait()

    async with serve(stall) as wire, Client("k", base_url=wire.url, model="m") as client:
        await leave(client.run_tools("Hi", tools=[_weather]))
        await asyncio.wait_for(wire.closed.wait(), 30)
    assert len(wire.requests) == 1


async def _weather(city: str) -> str:
    return city


async def test_the_steps_of_a_run_share_a_connection() -> None:
    """It is given back after each step, and used again."""
    replies = [replay(body(tools())), replay(body(tools())), answer_whole]
    async with serve(*replies) as wire, Client("k", base_url=wire.url, model="m") as client:
        made = tool(name="weather")(_weather)
        assert (await client.run_tools("Hi", tools=[made])).text == "Hello there!"
    assert (len(wire.requests), wire.connections) == (3, 1)
