"""Run one block in a process of its own, because the parser is chosen when aiohttp is imported.

``python -m tests.faults.run --parser python --loop uvloop --what cuts --every 7`` prints one line of
JSON and exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from itertools import islice


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parser", choices=("c", "python"), default="c")
    options.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options.add_argument("--what", choices=("responses", "cuts", "random"), required=True)
    options.add_argument("--every", type=int, default=7, help="cuts: each so-manyth byte")
    options.add_argument("--count", type=int, default=1000, help="random: how many streams")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--share", type=int, default=1, help="responses: each so-manyth case")
    options.add_argument("--only", help="random: one stream, as its failure names it")
    options.add_argument("--tls", action="store_true")
    options.add_argument("--concurrency", type=int, default=48)
    chosen = options.parse_args()
    if chosen.parser == "python":
        os.environ["AIOHTTP_NO_EXTENSIONS"] = "1"
    else:
        os.environ.pop("AIOHTTP_NO_EXTENSIONS", None)

    import aiohttp.http_parser
    import uvloop

    from tests.faults import blocks, runner

    in_c = not hasattr(aiohttp.http_parser.HttpResponseParser, "parse_message")
    if in_c != (chosen.parser == "c"):
        sys.exit(f"aiohttp has no {chosen.parser} parser here")
    began = time.monotonic()

    def cases() -> blocks.Block:
        match chosen.what:
            case "responses":
                return islice(blocks.responses(tls=chosen.tls), None, None, chosen.share)
            case "cuts":
                return blocks.cuts(chosen.every, parity=chosen.parser == "python")
            case _ if chosen.only:
                return [blocks.random_case(chosen.only)]
            case _:
                return blocks.randoms(chosen.count, chosen.seed)

    report = runner.run_block(
        cases,
        loop_factory=uvloop.new_event_loop if chosen.loop == "uvloop" else asyncio.new_event_loop,
        tls=chosen.tls,
        concurrency=chosen.concurrency,
    )
    print(
        report.line(
            what=chosen.what,
            parser=chosen.parser,
            loop=chosen.loop,
            tls=chosen.tls,
            seed=chosen.seed,
            seconds=runner.seconds_since(began),
        )
    )
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
