"""What does building a request cost? CPU of ``client.chat_stream(...)`` beside ``json.dumps`` of its body.

``python -m benchmarks.requests [--rounds 7] [--seconds 0.05] [--quick]``

Nothing is sent: a call checks and copies its arguments, encodes the body and makes the stream. "Request
alone" is ``ChatRequest.build`` with encoding, without the client's part. ``json.dumps`` gets the finished
body. Each case runs in a fresh process; ours and ``json.dumps`` alternate in it, and ratios are those inside
one round. The slopes say how the cost grows with messages, documents and tools: 1 is linear.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from benchmarks.harness import free_buffer, pin, print_table, run_client, spread, write_results
from benchmarks.mix import MODEL, SOURCES, document, step, there, tool, turn

CLIENT, ALONE, DUMPS = "chat_stream", "request alone", "json.dumps"
Body = dict[str, Any]


@attrs.frozen
class Case:
    """One kind of request."""

    what: str
    make: Callable[[], Sequence[Body]]
    """Bodies without ``stream``: the keywords of ``chat_stream``."""
    budget: float | None = None
    goal: float | None = None
    objects: bool = False
    """Whether messages, documents and tools are given as objects of ours."""


# --- the requests -----------------------------------------------------------------------------------


def _body(messages: Sequence[Any], **options: Any) -> Body:
    return {"model": MODEL, "messages": list(messages), **options}


ASKED = {"role": "user", "content": "And what does that mean?"}


def history(messages: int) -> list[Body]:
    """One conversation of so many messages."""
    turns = [message for number in range(messages // 2) for message in turn(number)]
    return [_body([*turns, ASKED])]


def documents(count: int) -> list[Body]:
    """One question to so many documents."""
    return [_body([ASKED], documents=[document(number) for number in range(count)])]


def tools(count: int) -> list[Body]:
    """One question with so many tools."""
    return [_body([ASKED], tools=[tool(number) for number in range(count)])]


def agent(steps: int) -> list[Body]:
    """The requests of one agent: each resends all steps before it."""
    offered = [tool(number) for number in range(3)]
    history: list[Any] = [ASKED]
    bodies = []
    for number in range(steps):
        bodies.append(_body(history, tools=offered))
        history += step(number)
    return bodies


def prompt(size: int) -> list[Body]:
    """One prompt of so many bytes."""
    words = "tokens, one at a time, and then the next; "
    return [_body([{"role": "user", "content": (words * (size // len(words) + 1))[:size]}])]


def _of(source: str) -> Callable[[], Sequence[Body]]:
    return lambda: [dict(exchange.body) for exchange in SOURCES[source]()]


CASES: Mapping[str, Case] = {
    "mix": Case("requests of the mix", _of("mix"), 2.3, 1.5),
    "recordings": Case("recorded requests", _of("recordings"), 2.3, 1.5),
    "history": Case("200-message history", lambda: history(200), 1.4, 1.0),
    "documents": Case("100 documents", lambda: documents(100), 1.4, 1.0),
    "tools": Case("50 tools", lambda: tools(50), 1.4, 1.0),
    "agent": Case("agent of 20 steps", lambda: agent(20), 1.4, 1.0),
    "message objects": Case("200-message history", lambda: history(200), 2.3, 1.5, objects=True),
    "document objects": Case("100 documents", lambda: documents(100), 2.3, 1.5, objects=True),
    "tool objects": Case("50 tools", lambda: tools(50), 2.3, 1.5, objects=True),
    "agent objects": Case("agent of 20 steps", lambda: agent(20), 2.3, 1.5, objects=True),
    "prompt": Case("prompt of 1 MB", lambda: prompt(1_000_000), 0.25),
}
GROWTH: Mapping[str, tuple[Callable[[int], list[Body]], Sequence[int]]] = {
    "messages": (history, (50, 200, 800)),
    "documents": (documents, (25, 100, 400)),
    "tools": (tools, (12, 50, 200)),
    "bytes of a prompt": (prompt, (1_000, 31_623, 1_000_000)),
}


def as_objects(body: Body) -> Body:
    """The body with messages, documents and tools as objects of ours."""
    found = {**body, "messages": [_message(each) for each in body["messages"]]}
    import streamchat as sc

    if "documents" in body:
        found["documents"] = [sc.Document(**each) for each in body["documents"]]
    if "tools" in body:
        found["tools"] = [sc.Tool(sc.FunctionSpec(**each["function"])) for each in body["tools"]]
    return found


def _message(message: Mapping[str, Any]) -> object:
    import streamchat as sc

    match message["role"]:
        case "user":
            return sc.UserMessage(message["content"])
        case "tool":
            parts: list[Any] = [
                sc.DocumentContent(sc.Document(**each["document"])) for each in message["content"]
            ]
            return sc.ToolMessage(tool_call_id=message["tool_call_id"], content=parts)
        case _:
            return sc.AssistantMessage(
                content=message.get("content") or [],
                tool_plan=message.get("tool_plan", ""),
                tool_calls=[
                    sc.ToolCall(id=each["id"], function=sc.ToolCallFunction(**each["function"]))
                    for each in message.get("tool_calls", ())
                ],
            )


# --- the process of one case --------------------------------------------------------------------------


def calls(bodies: Sequence[Body], *, objects: bool) -> dict[str, Callable[[], None]]:
    """What is compared: each does all requests once."""
    import streamchat as sc
    from streamchat.protocol.plain import encode_json

    client = sc.Client("benchmark", base_url="http://127.0.0.1:9")
    given = [as_objects(body) for body in bodies] if objects else list(bodies)
    finished = [{**body, "stream": True} for body in bodies]
    split = [
        (each["messages"], {name: value for name, value in each.items() if name != "messages"})
        for each in given
    ]
    alone = [
        (messages, options["model"], {x: y for x, y in options.items() if x != "model"})
        for messages, options in split
    ]
    for (messages, model, options), body in zip(alone, finished, strict=True):
        request = sc.ChatRequest.build(messages, model, options)
        if request.to_dict() != body:
            raise SystemExit("the request that was built is not the body that json.dumps gets")

    def whole() -> None:
        for messages, options in split:
            client.chat_stream(messages, **options)

    def request_alone() -> None:
        for messages, model, options in alone:
            encode_json(sc.ChatRequest.build(messages, model, options).to_dict())

    def dumps() -> None:
        for body in finished:
            json.dumps(body)

    return {CLIENT: whole, ALONE: request_alone, DUMPS: dumps}


def compare(
    bodies: Sequence[Body], rounds: int, seconds: float, *, objects: bool
) -> list[dict[str, float]]:
    """Seconds per request of each, round by round."""
    compared = calls(bodies, objects=objects)
    repeats = {name: _repeats(call, seconds) for name, call in compared.items()}
    found = []
    for round_ in range(rounds):
        names = list(compared) if round_ % 2 == 0 else list(compared)[::-1]
        costs = {}
        for name in names:
            gc.collect()
            costs[name] = _timed(compared[name], repeats[name]) / len(bodies)
        found.append(costs)
    return found


def _timed(call: Callable[[], None], repeats: int) -> float:
    begin = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - begin) / repeats


def _repeats(call: Callable[[], None], seconds: float) -> int:
    """How often it runs in so many seconds; warms it up."""
    repeats = 1
    while (spent := _timed(call, repeats) * repeats) < seconds / 4:
        repeats *= 2
    return max(1, round(repeats * seconds / spent))


def client_main(kind: str, what: str, rounds: str, seconds: str) -> None:
    """The process of one case, or of one thing that grows."""
    pin(0)
    free_buffer()
    given = int(rounds), float(seconds)
    found: dict[str, Any]
    if kind == "case":
        case = CASES[what]
        found = {"rounds": compare(case.make(), *given, objects=case.objects)}
    else:
        make, sizes = GROWTH[what]
        found = {"rounds": [compare(make(size), *given, objects=False) for size in sizes]}
    print(json.dumps(found))


# --- the comparison -----------------------------------------------------------------------------------


def main() -> None:
    """Measure, print two tables, and write ``results/requests.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds; medians of them")
    parser.add_argument("--seconds", type=float, default=0.05, help="CPU of one measurement")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 0.005
    sources = there()
    cases = {name: _case(name, options) for name in CASES if name not in SOURCES or name in sources}
    growth = {name: _growth(name, options) for name in GROWTH}
    head = ["request", "given as", CLIENT, ALONE, DUMPS, f"x {DUMPS}", "alone, x", "budget", "goal"]
    rows = [_row(CASES[name], found) for name, found in cases.items()]
    print_table(head, rows)
    grown_head = ["what grows", "from", "to", "each one more", f"of {DUMPS}", "slope"]
    grown = [_grown_row(name, found) for name, found in growth.items()]
    print()
    print_table(grown_head, grown)
    write_results(
        "requests",
        {
            "rounds": options.rounds,
            "cases": cases,
            "growth": growth,
            "table": {"head": head, "rows": rows},
            "growth_table": {"head": grown_head, "rows": grown},
        },
        quick=options.quick,
    )


def _run(kind: str, name: str, options: argparse.Namespace) -> Any:
    given = (kind, name, str(options.rounds), str(options.seconds))
    found = run_client("benchmarks.requests", "client", *given)["rounds"]
    print(f"done: {name}", flush=True)
    return found


def _case(name: str, options: argparse.Namespace) -> dict[str, Any]:
    rounds = _run("case", name, options)
    ratios = {each: [r[each] / r[DUMPS] for r in rounds] for each in (CLIENT, ALONE)}
    return {
        "us_per_request": _medians(rounds),
        "ratio": {each: statistics.median(values) for each, values in ratios.items()},
        "spread": {each: spread(values) for each, values in ratios.items()},
    }


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) * 1e6 for name in rounds[0]}


def _growth(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The slope of the logarithms from the first size to the last."""
    costs = [_medians(rounds) for rounds in _run("growth", name, options)]
    sizes = GROWTH[name][1]
    steps = math.log(sizes[-1] / sizes[0])
    slopes = {each: math.log(costs[-1][each] / costs[0][each]) / steps for each in costs[0]}
    marginal = {
        each: (costs[-1][each] - costs[0][each]) / (sizes[-1] - sizes[0]) for each in costs[0]
    }
    return {"sizes": sizes, "us": costs, "slope": slopes, "us_per_item": marginal}


def us(value: float) -> str:
    """Microseconds with three digits."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f} us"


def _row(case: Case, found: Mapping[str, Any]) -> list[str]:
    costs, ratio = found["us_per_request"], found["ratio"]
    return [
        case.what,
        "objects" if case.objects else "dicts",
        *(us(costs[name]) for name in (CLIENT, ALONE, DUMPS)),
        f"{ratio[CLIENT]:.2f}",
        f"{ratio[ALONE]:.2f}",
        f"{case.budget:.2f}" if case.budget else "",
        f"{case.goal:.2f}" if case.goal else "",
    ]


def _grown_row(name: str, found: Mapping[str, Any]) -> list[str]:
    item = name.removesuffix("s") if not name.startswith("bytes") else "KB"
    scale = 1000 if name.startswith("bytes") else 1
    costs = found["us_per_item"]
    return [
        name,
        f"{found['sizes'][0]:,}",
        f"{found['sizes'][-1]:,}",
        f"{costs[CLIENT] * scale:.2f} us per {item}",
        f"{costs[DUMPS] * scale:.2f} us",
        f"{found['slope'][CLIENT]:.2f}",
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client_main(*sys.argv[2:])
    else:
        main()
