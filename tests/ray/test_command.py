"""``streamchat batch --ray local``: a cluster of its own, started and ended by the command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.ray.holding import holding

pytest.importorskip("ray")

pytestmark = pytest.mark.timeout(120)


async def test_the_command_spreads_a_batch(tmp_path: Path) -> None:
    """``streamchat batch --ray local``: the same rows as without."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"q {n}"}) + "\n" for n in range(120)))
    async with holding() as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamchat", "batch", str(source), "-o", str(out)),
            *("--ray", "local", "--ordered"),
            env={**os.environ, "CO_API_KEY": "k", "CO_API_URL": server.url},
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(120))
    assert rows[5]["response"]["message"]["content"][0]["text"] == "to q 5"
