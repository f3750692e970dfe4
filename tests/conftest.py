"""Which event loop a test runs on: decided by its folder.

``tests/shell``: in memory, on a virtual clock. ``tests/wire`` and ``tests/catalogue``: real sockets, on
asyncio and on uvloop. Everything else: asyncio. Figures that a suite measured are printed at the end.
Whether a test has the marker ``slow`` is decided by its file.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.virtual import VirtualLoop

HERE = Path(__file__).parent
BOTH_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
FACTORIES: Mapping[str, Mapping[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "shell": {"virtual": VirtualLoop},
    "wire": BOTH_LOOPS,
    "catalogue": BOTH_LOOPS,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asked by pytest-asyncio for each asynchronous test."""
    folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
    return FACTORIES.get(folder, {"asyncio": asyncio.new_event_loop})


SLOW = (
    "cli/test_batch.py",
    "cli/test_serve.py",
    "cli/test_signals.py",
    "cli/test_tty.py",
    "fanout/test_descriptors.py",
    "fanout/test_journal.py",
    "fanout/test_many.py",
    "faults",
    "fuzz",
    "hostile/test_events.py",
    "local/test_official_sdk.py",
    "ray",
    "resources",
    "simulation",
    "test_readme.py",
)
"""Files and folders whose tests are left out by ``-m "not slow"``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files."""
    for item in items:
        if item.path.is_relative_to(HERE):
            place = item.path.relative_to(HERE)
            if any(place.is_relative_to(slow) for slow in SLOW):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no key, no URL and no proxy of whoever runs them."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in ("CO_API_KEY", "COHERE_API_KEY", "CO_API_URL", *proxies):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


MEASURING = (
    "tests.fanout",
    "tests.faults.figures",
    "tests.fuzz",
    "tests.hostile",
    "tests.resources",
    "tests.simulation",
)
"""Modules with a list ``FIGURES`` of (what, figure), filled by their tests."""


@pytest.fixture(autouse=True)
def _figures_travel_with_the_report(
    record_property: Callable[[str, object], None],
) -> Iterator[None]:
    """Hand figures over to whoever prints the summary, which may be another process (xdist)."""
    yield
    for name in MEASURING:
        figures = getattr(sys.modules.get(name), "FIGURES", [])
        while figures:
            what, figure = figures.pop(0)
            record_property("figure", f"{what}: {figure}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures, one a line."""
    lines = [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for key, value in getattr(report, "user_properties", [])
        if key == "figure"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in dict.fromkeys(lines):
            terminalreporter.line(line)
