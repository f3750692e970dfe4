"""The budget table of the README: what an event, a stream and an import may cost, and what they do cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

__all__ = ["table"]

Results = Mapping[str, dict[str, Any]]


@attrs.frozen
class Figure:
    """One measured figure beside its limit."""

    value: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether the budget is kept, to the digits that are shown."""
        value = float(f"{self.value:.2f}")
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        digits = 0 if self.at_least or self.unit == "lost" else 1 if "KiB" in self.unit else 2
        shown = f"{self.value:.{digits}f} {self.unit}"
        return shown if self.is_kept else f"**{shown}**"


@attrs.frozen
class Budget:
    """A row: what is measured, how much it may be, who measures it, and how to find the figures."""

    what: str
    allowed: str
    script: str
    figures: Callable[[Results], list[Figure]]
    goal: str = ""


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows; what is over its budget is bold, what has no figures says so."""
    rows = []
    for budget in BUDGETS:
        try:
            measured = ", ".join(map(str, budget.figures(results)))
        except (KeyError, StopIteration):
            measured = "not measured"
        by = f"`benchmarks.{budget.script}`"
        rows.append([budget.what, budget.allowed, budget.goal, measured, by])
    return ["", "budget", "goal", "measured", "by"], rows


def _decode(shape: str, ours: float, sdk: float | None = None) -> Callable[[Results], list[Figure]]:
    def figures(results: Results) -> list[Figure]:
        found = results["decode_asyncio"][shape]
        cost = Figure(found["ratio_to_dict_loop"]["streamchat"], ours)
        if sdk is None:
            return [cost]
        return [cost, Figure(found["sdk_over_streamchat"], sdk, "x less", at_least=True)]

    return figures


def _paced(results: Results) -> list[Figure]:
    ratios = {
        each["loop"]: each["ratio_to_bytes_loop"]["streamchat"]
        for each in results["stream"]["results"]
        if each["what"] == "paced" and each["wire"] == "plain"
    }
    return [Figure(ratios["asyncio"], 1.15), Figure(ratios["uvloop"], 1.25, "x (uvloop)")]


def _answers(delivery: str, limit: float) -> Callable[[Results], list[Figure]]:
    """Of the recordings if they were there, and of the mix."""

    def figures(results: Results) -> list[Figure]:
        return [
            Figure(
                each["ratio_to_dict_loop"]["streamchat, iterated"], limit, f"x ({each['source']})"
            )
            for each in sorted(
                results["answers_asyncio"]["results"],
                key=lambda each: str(each["source"]),
                reverse=True,
            )
            if each["delivery"] == delivery
        ]

    return figures


def _requests(limit: float, *cases: str) -> Callable[[Results], list[Figure]]:
    """Those of the cases that were measured; the recordings are not on every machine."""

    def figures(results: Results) -> list[Figure]:
        found = results["requests"]["cases"]
        unit = "x ({})" if len(cases) > 1 else "x"
        return [
            Figure(found[case]["ratio"]["chat_stream"], limit, unit.format(case))
            for case in cases
            if case in found
        ]

    return figures


def _post(results: Results) -> list[Figure]:
    return [
        Figure(each["ratio"], 0.7)
        for each in results["opening"]["posts"]
        if (each["loop"], each["wire"]) == ("asyncio", "plain")
    ]


def _storm(what: str, limit: float, kib: float | None) -> Callable[[Results], list[Figure]]:
    def figures(results: Results) -> list[Figure]:
        found = next(
            each
            for each in results["opening"]["storms"]
            if (each["what"], each["loop"]) == (what, "asyncio")
        )
        shown = [Figure(found["lost"], 0, "lost"), Figure(found["ratio"], limit)]
        return (
            shown if kib is None else [*shown, Figure(found["kib"]["streamchat"], kib, "KiB each")]
        )

    return figures


def _paced_dicts(results: Results) -> list[Figure]:
    return [
        Figure(each["ratio_to_dict_loop"]["streamchat"], 1.15)
        for each in results["stream"]["results"]
        if (each["what"], each["wire"], each["loop"]) == ("paced", "plain", "asyncio")
    ]


def _open(streams: int, ratio: float, kib: float | None) -> Callable[[Results], list[Figure]]:
    def figures(results: Results) -> list[Figure]:
        row = next(
            row
            for case in results["scale"]["cases"]
            for row in case["rows"]
            if (row["streams"], row["client"], row["loop"]) == (streams, "streamchat", "asyncio")
        )
        found = [
            Figure(row["streams unfinished"], 0, "lost"),
            Figure(row["ratio to the bytes loop"], ratio),
        ]
        return found if kib is None else [*found, Figure(row["KiB a stream"], kib, "KiB each")]

    return figures


def _tls(results: Results) -> list[Figure]:
    return [
        Figure(row["kib"]["streamchat"] - row["kib"]["bytes loop"], 4, f"KiB more ({row['loop']})")
        for row in results["memory"]["rows"]
        if row["order"] == "a" and row["wire"] == "TLS"
    ]


def _growth(results: Results) -> list[Figure]:
    found = results["growth"]
    return [
        Figure(
            max(each["slope"] for each in found["curves"].values()),
            found["limit"],
            "steepest slope",
        )
    ]


def _imports(results: Results) -> list[Figure]:
    found = results["imports"]
    return [Figure(found.get("instructions", found["cpu"])["ratio"], found["budget"])]


BUDGETS = (
    Budget(
        "an event, large chunks",
        "1.10 x the loop by hand, SDK / 60",
        "decode",
        _decode("large", 1.1, 60),
    ),
    Budget(
        "an event, an HTTP chunk each",
        "1.00 x the loop by hand, SDK / 40",
        "decode",
        _decode("each", 1.0, 40),
    ),
    Budget("an event, JSON spelled in another way", "1.70 x", "decode", _decode("spaced", 1.7)),
    Budget(
        "200 paced streams, an event each 20 ms",
        "1.15 x bytes alone, uvloop 1.25 x",
        "stream",
        _paced,
    ),
    Budget(
        "3,000 open paced streams",
        "none lost, 1.20 x bytes alone, 18 KiB each",
        "scale",
        _open(3000, 1.2, 18),
    ),
    Budget(
        "10,000 open paced streams",
        "none lost, 1.50 x bytes alone",
        "scale",
        _open(10_000, 1.5, None),
    ),
    Budget("an open TLS stream", "bytes alone and 4 KiB more", "memory", _tls),
    Budget("growth with events, bytes, citations, arguments", "linear", "growth", _growth),
    Budget("`import streamchat`", "1.15 x aiohttp, attrs, cattrs and msgspec", "imports", _imports),
    Budget(
        "a whole answer with its request, one HTTP chunk per event",
        "1.35 x the loop by hand",
        "answers",
        _answers("each", 1.35),
        "1.15",
    ),
    Budget(
        "a whole answer with its request, in one chunk",
        "1.50 x the loop by hand",
        "answers",
        _answers("one", 1.5),
        "1.25",
    ),
    Budget(
        "`chat_stream(...)`",
        "2.3 x `json.dumps`",
        "requests",
        _requests(2.3, "recordings", "mix"),
        "1.5",
    ),
    Budget(
        "... 200 messages, 100 documents, 50 tools, an agent of 20 steps",
        "1.4 x `json.dumps` each",
        "requests",
        _requests(1.4, "history", "documents", "tools", "agent"),
        "1.0",
    ),
    Budget(
        "... the same as message, document and tool objects",
        "2.3 x `json.dumps` each",
        "requests",
        _requests(2.3, "message objects", "document objects", "tool objects", "agent objects"),
        "1.5",
    ),
    Budget("... a prompt of 1 MB", "0.25 x `json.dumps`", "requests", _requests(0.25, "prompt")),
    Budget(
        "opening and closing beyond `session.post`", "0.7 x `session.post`", "opening", _post, "0.5"
    ),
    Budget(
        "200 paced streams, an event each 20 ms, 7 pairs",
        "1.15 x the loop by hand",
        "stream",
        _paced_dicts,
        "1.05",
    ),
    Budget(
        "3,000 streams of 19 events, opened at once",
        "none lost, 1.7 x bytes alone, peak of 23 KiB each",
        "opening",
        _storm("3000x19", 1.7, 23),
        "1.4, 20 KiB",
    ),
    Budget(
        "10,000 streams of 14 events, opened at once",
        "none lost, 1.7 x bytes alone",
        "opening",
        _storm("10000x14", 1.7, None),
        "1.4",
    ),
)
"""Of the design. Those without a goal were set before anything was measured, the others after a trial."""
