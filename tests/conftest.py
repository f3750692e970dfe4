"""Which event loop a test runs on: decided by its folder.

``tests/shell``: in memory, on a virtual clock. ``tests/wire``: real sockets, on asyncio and on uvloop.
Everything else: asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.virtual import VirtualLoop

HERE = Path(__file__).parent
FACTORIES: Mapping[str, Mapping[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "shell": {"virtual": VirtualLoop},
    "wire": {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop},
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asked by pytest-asyncio for each asynchronous test."""
    folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
    return FACTORIES.get(folder, {"asyncio": asyncio.new_event_loop})


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no key, no URL and no proxy of whoever runs them."""
    for name in ("CO_API_KEY", "CO_API_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
