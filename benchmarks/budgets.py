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


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Head and rows; what is over its budget is bold, what has no figures says so."""
    rows = []
    for budget in BUDGETS:
        try:
            measured = ", ".join(map(str, budget.figures(results)))
        except (KeyError, StopIteration):
            measured = "not measured"
        rows.append([budget.what, budget.allowed, measured, f"`benchmarks.{budget.script}`"])
    return ["", "budget", "measured", "by"], rows


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
)
"""Of the design, as it set them before anything was measured."""
