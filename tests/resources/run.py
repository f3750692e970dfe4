"""``python -m tests.resources.run WHAT``: one measurement, printed as JSON.

The exit code says whether it could be taken, not whether the figure is good: the tests and
``nox -s soak`` judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from tests.resources import canary, leaks, timing
from tests.resources.far import Far, far_side

MEASUREMENTS: dict[str, tuple[int, Callable[[Far, int], Awaitable[dict[str, Any]]]]] = {
    "leaks": (300, leaks.leaks),
    "slope": (2_000, leaks.slope),
    "cancellation": (200, timing.cancellation),
    "cancel-all": (200, timing.cancel_all),
    "fairness": (200, timing.fairness),
    "stalled": (100, timing.stalled),
    "secrets": (1, canary.secrets),
}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.resources.run", description=__doc__)
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--count", type=int, help="streams; for secrets: rounds")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("CO_"):
            del os.environ[name]
    default, measure = MEASUREMENTS[arguments.what]
    count = arguments.count or default
    with far_side(tls=arguments.tls) as far:
        load = os.getloadavg()[0]
        with asyncio.Runner(loop_factory=LOOPS[arguments.loop]) as runner:
            result = runner.run(_measure(measure, far, count))
    about = {"loop": arguments.loop, "tls": arguments.tls, "load average before": round(load, 2)}
    print(json.dumps(about | result, indent=2))


async def _measure(
    measure: Callable[[Far, int], Awaitable[dict[str, Any]]], far: Far, count: int
) -> dict[str, Any]:
    return await measure(far, count)


if __name__ == "__main__":
    main()
