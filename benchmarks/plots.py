"""Figures of the results: ``benchmarks/results/NAME.svg`` from ``NAME.json``, one question each.

``python -m benchmarks --no-run`` draws them again. Needs matplotlib (the extra ``plot``). The ground
is white, so that they read on a dark page as well, and nothing in a file changes from one drawing to
the next unless its figures do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's colours: told apart by everybody, and in grey.
OURS, OTHER, FLOOR, SDK = "#0072b2", "#e69f00", "#999999", "#d55e00"
FAMILY = (OURS, OTHER, "#009e73", SDK, "#cc79a7", "#56b4e9", FLOOR)
STYLE: Mapping[str, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "streamchat",
}
MADE_BY_US = "streamchat"


def draw(folder: Path) -> list[Path]:
    """Draw what there are figures for, and return what was written."""
    try:
        import matplotlib
    except ImportError:
        print("plots: skipped, pip install 'streamchat[plot]'")
        return []
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    drawn = []
    with plt.rc_context(dict(STYLE)):
        for name, (source, make) in FIGURES.items():
            path = folder / f"{source}.json"
            if not path.exists():
                continue
            figure = make(plt, json.loads(path.read_text()))
            if figure is None:
                print(f"plots: {path.name} has nothing to draw")
                continue
            figure.savefig(
                folder / f"{name}.svg",
                metadata={"Date": None},
                bbox_inches="tight",
                pad_inches=0.15,
            )
            plt.close(figure)
            drawn.append(folder / f"{name}.svg")
    return drawn


def on(results: Mapping[str, Any]) -> str:
    """What the figures were taken on, in small print."""
    machine = results.get("machine", {})
    return (
        f"Python {machine.get('python')}, aiohttp {machine.get('aiohttp')}, {machine.get('system')}"
    )


def small_print(figure: Any, text: str) -> None:
    figure.text(0.0, -0.01, text, fontsize=8, color="#666666", va="top")


def colour(name: str) -> str:
    """The same client has the same colour in every figure."""
    if MADE_BY_US in name or name in ("asyncio", "uvloop"):  # a loop alone: only we are measured
        return OURS
    lowered = name.lower()
    if "bytes" in lowered:
        return FLOOR
    if any(word in lowered for word in ("dict", "hand", "json")):
        return OTHER
    return SDK


def bars(axes: Any, costs: Mapping[str, float], shown: Callable[[float], str]) -> None:
    """Bars from the left, each with its figure at its end, first on top."""
    names = list(costs)
    drawn = axes.barh(names, list(costs.values()), color=OURS, height=0.7)
    axes.bar_label(drawn, [shown(value) for value in costs.values()], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.tick_params(axis="y", length=0)


def dots(plt: Any, panels: Mapping[str, Mapping[str, float]], unit: str) -> Any:
    """A panel for each set of costs, on one logarithmic axis; a length would say nothing there, so
    each cost is a dot with its figure."""
    names = list(dict.fromkeys(name for costs in panels.values() for name in costs))
    values = [value for costs in panels.values() for value in costs.values() if value > 0]
    height = 0.9 + 0.36 * len(names)
    figure, drawn = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels) + 1, height), layout="constrained", squeeze=False
    )
    for axes, (title, costs) in zip(drawn[0], panels.items(), strict=True):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 5)
        for place, name in enumerate(names):
            if costs.get(name, 0) > 0:
                axes.plot(costs[name], place, "o", color=colour(name), ms=9)
                text = f"{costs[name]:.3g}"
                axes.annotate(
                    text, (costs[name], place), (9, 0), textcoords="offset points", va="center"
                )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelleft=axes is drawn[0][0])
        axes.xaxis.set_major_formatter(short)
        axes.grid(visible=True)
        axes.set_title(title)
    figure.supxlabel(f"{unit} (logarithmic)", fontsize=10)
    return figure


def short(value: float, _: object = None) -> str:
    """A number of an axis: 0.1, 500, 2k, 4M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def of_bytes(value: float, _: object = None) -> str:
    """A number of bytes: 64 B, 16 KiB, 4 MiB."""
    for size, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.0f} B"


def log_ticks(axis: Any, ticks: Sequence[float], shown: Callable[[float, object], str]) -> None:
    """These numbers at a logarithmic axis, and no others."""
    axis.set_ticks(ticks, [shown(tick, None) for tick in ticks], fontsize=8)
    axis.set_ticks([], minor=True)


def rows_by_label(results: Any, label: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every list of records with ``streams`` in it, by the keys that lead to it and by their words."""
    if isinstance(results, dict):
        for key, value in results.items():
            inner = label if key == "rows" else f"{label} {key}".strip()
            yield from rows_by_label(value, inner)
    elif isinstance(results, list) and results and _is_record(results[0]):
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in results:
            words = [value for value in row.values() if isinstance(value, str)]
            groups.setdefault(" ".join([*label.split(), *words]), []).append(row)
        yield from groups.items()


def _is_record(row: object) -> bool:
    return isinstance(row, dict) and "streams" in row


# --- one function a figure: None where its figures are not there ------------------------------------


def decode(plt: Any, results: dict[str, Any]) -> Any:
    """Cost of an event beside the loop by hand: a panel a shape, logarithmic for the SDK's sake."""
    shapes = {
        "large": "64 KiB chunks",
        "each": "an HTTP chunk an event",
        "spaced": "JSON with other spacing",
    }
    in_us = all("us_an_event" in results[shape] for shape in shapes)
    key = "us_an_event" if in_us else "ratio_to_dict_loop"
    unit = "us of CPU an event" if in_us else "CPU an event, dict loop = 1"
    figure = dots(plt, {title: results[shape][key] for shape, title in shapes.items()}, unit)
    small_print(figure, f"{results['loop']}, {on(results)}; medians of alternating processes")
    return figure


def peers(plt: Any, results: dict[str, Any]) -> Any:
    """Other clients, each on its own wire: a panel a shape."""
    titles = {"large": "64 KiB chunks", "each": "an HTTP chunk an event"}
    costs = results["us_an_event"]
    figure = dots(plt, {titles[shape]: costs[shape] for shape in costs}, "us of CPU a text delta")
    small_print(figure, f"{on(results)}; each client in an environment of its own")
    return figure


def dispatch(plt: Any, results: dict[str, Any]) -> Any:
    """What each kind of listener adds to an event."""
    costs = results["us_more_than_no_handler"]
    costs = {name: value for name, value in costs.items() if name != "no handler"}
    figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    bars(axes, costs, lambda value: f"{value:+.2f}")
    alone = results["us_an_event"]["no handler"]
    axes.set_xlabel(f"us of CPU an event more than without a handler ({alone:.2f} us)")
    axes.set_title("What listening costs")
    small_print(figure, f"{results['loop']}, {on(results)}; medians of alternating processes")
    return figure


def growth(plt: Any, results: dict[str, Any]) -> Any:
    """Cost against size, a panel for each thing that grows, and the chunk's size last."""
    kinds: dict[str, dict[str, Any]] = {}
    for key, curve in results["curves"].items():
        what, _, reader = key.rpartition(", ")
        kinds.setdefault(what, {})[reader] = curve
    figure, panels = plt.subplots(2, 5, figsize=(15, 6), layout="constrained")
    colours = {"EventReader": OURS, "parts": OTHER}
    for axes, (what, curves) in zip(panels.flat, kinds.items(), strict=False):
        for reader, curve in curves.items():
            label = f"{reader}: {curve['slope']:.2f}"
            milliseconds = [seconds * 1000 for seconds in curve["seconds"]]
            axes.loglog(
                curve["sizes"], milliseconds, "o-", color=colours[reader], label=label, ms=4
            )
        sizes = curve["sizes"]
        top = max(c["seconds"][-1] for c in curves.values()) * 1000
        linear = [top * 1.6 * size / sizes[-1] for size in sizes]
        axes.loglog(sizes, linear, "--", color=FLOOR, lw=1, label="linear: 1")
        axes.set_title(what)
        axes.legend(fontsize=8, frameon=False, title="slope", title_fontsize=8, loc="upper left")
        axes.set_ylim(top=top * 12)
        log_ticks(axes.xaxis, sizes, of_bytes if what.startswith("bytes") else short)
        axes.yaxis.set_major_formatter(short)
        axes.grid(visible=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("ms of CPU")
    last = panels.flat[-1]
    for reader, costs in results["us_an_event_by_chunk"].items():
        last.loglog(results["chunk_bytes"], costs, "o-", color=colours[reader], label=reader, ms=4)
    log_ticks(last.xaxis, results["chunk_bytes"][::2], of_bytes)
    last.yaxis.set_major_formatter(short)
    last.set_title("bytes of a chunk, same answer")
    last.set_ylabel("us an event")
    last.legend(fontsize=8, frameon=False)
    last.grid(visible=True)
    small_print(figure, f"the pure core, no network; {on(results)}; least of some repeats")
    return figure


def curves(plt: Any, results: dict[str, Any]) -> Any:
    """Against the number of streams: a panel for each measure, a line for each client or loop."""
    found = list(rows_by_label(results))
    measures = [
        key
        for key, value in (found[0][1][0] if found else {}).items()
        if key != "streams" and isinstance(value, int | float) and is_of_scale(key)
    ][:4]
    if not measures:
        return None
    # A client keeps its colour and uvloop's lines are dashed, where that tells all lines apart.
    looks = [
        {"color": colour(label), "ls": "--" if "uvloop" in label else "-"} for label, _ in found
    ]
    if len({tuple(look.values()) for look in looks}) < len(looks):
        looks = [{"color": FAMILY[i % len(FAMILY)], "ls": "-"} for i in range(len(looks))]
    figure, panels = plt.subplots(
        *(1, len(measures)), figsize=(4 * len(measures), 3.2), layout="constrained", squeeze=False
    )
    for axes, key in zip(panels[0], measures, strict=True):
        for place, (label, rows) in enumerate(found):
            points = [(row["streams"], row[key]) for row in rows if row.get(key) is not None]
            axes.plot(*zip(*points, strict=True), marker="o", ms=4, label=label, **looks[place])
        axes.set_xscale("log")
        sizes = sorted({row["streams"] for _, rows in found for row in rows})
        log_ticks(axes.xaxis, sizes, short)
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
        axes.set_xlabel("streams open at once")
        axes.set_title(key.replace("_", " "))
        axes.grid(visible=True)
    panels[0][0].legend(frameon=False, fontsize=8)
    small_print(figure, f"{on(results)}; one process, one core")
    return figure


def scale(plt: Any, results: dict[str, Any]) -> Any:
    """What a stream and its events cost, the more are open, beside reading bytes alone."""
    rows = [row for case in results["cases"] for row in case["rows"]]
    # Below a thousand, memory is what every process needs.
    measures = {"us an event": 0, "KiB a stream": 1000}
    figure, panels = plt.subplots(1, len(measures), figsize=(8, 3.2), layout="constrained")
    for axes, (key, least) in zip(panels, measures.items(), strict=True):
        shown = [row for row in rows if row["streams"] >= least and row[key] is not None]
        for client, loop in dict.fromkeys((row["client"], row["loop"]) for row in shown):
            points = [
                (row["streams"], row[key])
                for row in shown
                if (row["client"], row["loop"]) == (client, loop)
            ]
            axes.plot(
                *zip(*points, strict=True),
                color=OURS if client == MADE_BY_US else FLOOR,
                ls="--" if loop == "uvloop" else "-",
                marker="o",
                ms=4,
                label=f"{client}, {loop}",
            )
        axes.set_xscale("log")
        log_ticks(axes.xaxis, sorted({row["streams"] for row in shown}), short)
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
        axes.set_xlabel("streams open at once")
        axes.set_title(key)
        axes.grid(visible=True)
    panels[0].legend(frameon=False, fontsize=8)
    small_print(figure, f"{results['rate']:,.0f} events a second in all; {on(results)}")
    return figure


def phases(plt: Any, results: dict[str, Any]) -> Any:
    """Where the CPU time of a whole answer goes: a bar for each source and delivery."""
    found = results["results"]
    deliveries = {"each": "a chunk per event", "one": "one chunk"}
    names = [f"{each['source']},\n{deliveries[each['delivery']]}" for each in found]
    parts = list(found[0]["us_per_answer"])
    colours = [colour for colour in FAMILY if colour != FLOOR]
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.6 * len(found)), layout="constrained")
    left = [0.0] * len(found)
    for part in parts:
        # A part that is smaller than the noise may be negative.
        costs = [max(0.0, each["us_per_answer"][part]) for each in found]
        shade = FLOOR if part == "aiohttp" else colours.pop(0)
        drawn = axes.barh(names, costs, left=left, color=shade, height=0.7, label=part)
        labels = [f"{cost:.0f}" if cost >= 40 else "" for cost in costs]
        axes.bar_label(drawn, labels, label_type="center", fontsize=8, color="white")
        left = [before + cost for before, cost in zip(left, costs, strict=True)]
    axes.bar_label(drawn, [f"{whole:.0f}" for whole in left], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("us of CPU per answer")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(parts), frameon=False
    )
    small_print(figure, f"{results['loop']}, {on(results)}; medians of alternating processes")
    return figure


def is_of_scale(key: str) -> bool:
    """Whether a measure says something about scale."""
    return any(word in key.lower() for word in ("cpu", "kib", "p50", "p99", "pace", "ratio", " us"))


FIGURES: Mapping[str, tuple[str, Callable[[Any, dict[str, Any]], Any]]] = {
    "decode": ("decode_asyncio", decode),
    "decode_uvloop": ("decode_uvloop", decode),
    "dispatch": ("dispatch", dispatch),
    "growth": ("growth", growth),
    "scale": ("scale", scale),
    "fanout": ("fanout", curves),
    "peers": ("peers", peers),
    "phases": ("phases", phases),
}
