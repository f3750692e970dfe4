"""A server, and a session of aiohttp to ask it with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from streamchat.local import LocalServer


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with LocalServer() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
