"""The three blocks of cases: raw responses, cuts at every byte, random faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random

from tests.faults.answers import CHUNKED, EOF, FRAMINGS, Response, cited, random_events, respond
from tests.faults.cases import Case, Expect, complete, lost, not_http, stalled, truncated
from tests.faults.rawserver import Fin, Hold, Rst, Send, Settle, Step
from tests.faults.responses import LARGE_ANSWERS, LATER_FAILURES, RAW_RESPONSES
from tests.faults.runner import DAWDLING, FAST, SLEEPY, SLOW

ENDS = ("fin", "rst", "stall", "garbage")
GARBAGE = b"\xff"
"""A byte that is no chunk size, no line end, and no UTF-8."""

Block = Iterable[tuple[Case, str]]


def responses(*, tls: bool = False) -> Block:
    """faults.md 5.1 and 5.3, each with a fast and a slow consumer; a goodbye is a matter of TLS."""
    for case in (*RAW_RESPONSES, *LATER_FAILURES):
        for consumer in (FAST, SLOW, SLEEPY):
            yield case, consumer
    for case in LARGE_ANSWERS:
        if "goodbye" in case.name and not tls:
            continue
        for consumer in (FAST, SLEEPY, DAWDLING):
            yield case, consumer


def fault(answer: Response, framing: str, cut: int, end: str) -> tuple[list[Step], list[Expect]]:
    """The last deed at byte ``cut``, and what may come of it.

    A garbage byte comes in a segment of its own, after which the server falls silent: as framing it
    ends the stream, as body it is part of an event that never ends.
    """
    total, done = len(answer.events), answer.complete(cut)
    if done == total:
        outcome = [complete(total)]
    elif end == "stall" or (end == "garbage" and answer.in_body(cut)):
        outcome = [stalled(done)]
    elif cut < answer.head_size:
        # Which garbage a header may hold, and when a parser looks, is the parser's own matter.
        outcome = [stalled(0), not_http()] if end == "garbage" else [lost()]
    elif end == "garbage" and framing != CHUNKED:
        outcome = [stalled(done)]
    elif end == "garbage":
        # The pure-Python parser looks at a size line when it has ended.
        outcome = [not_http(done), stalled(done)]
    else:
        outcome = [truncated(done)]
    steps: dict[str, list[Step]] = {
        "fin": [Fin(notify=cut % 2 == 0)],
        "rst": [Rst()],
        "stall": [Hold()],
        "garbage": [Settle(), Send(GARBAGE), Hold()],
    }
    return steps[end], outcome


def cuts(every: int = 7, parity: int = 0) -> Block:
    """A 2 KB answer cut at each ``every``-th byte, in each framing, by each end.

    Fast and slow consumers in turn; ``parity`` swaps them.
    """
    for framing in FRAMINGS:
        answer = respond(cited(), framing, sizes=(90, 3, 200, 41) if framing == CHUNKED else ())
        for position, cut in enumerate(range(0, len(answer.raw) + 1, every)):
            for number, end in enumerate(ENDS):
                steps, expect = fault(answer, framing, cut, end)
                body_bytes = None if end == "garbage" else answer.body_bytes(cut)
                case = Case(
                    f"{framing} {end} at {cut}",
                    [Send(answer.raw[:cut]), *steps] if cut else steps,
                    answer.events,
                    expect,
                    body_bytes=body_bytes,
                )
                yield case, (FAST, SLOW)[(position + number + parity) % 2]


def randoms(count: int, seed: int) -> Iterator[tuple[Case, str]]:
    """Random answers, framings, segments, faults, offsets and consumers, each from its own seed."""
    for number in range(count):
        yield random_case(f"{seed}:{number}")


def random_case(seed: str) -> tuple[Case, str]:
    """One stream; the same for the same seed."""
    random = Random(seed)
    framing = random.choice((CHUNKED, CHUNKED, *FRAMINGS, EOF, "http10"))
    answer = respond(
        random_events(random),
        framing,
        sizes=[random.randint(1, 300) for _ in range(random.randint(0, 9))],
        escaped=random.random() < 0.3,
        comments=random.random() < 0.3,
    )
    end = random.choice((*ENDS, "fin", "rst", "none"))
    cut = len(answer.raw) if end == "none" else random.randint(0, len(answer.raw))
    steps, expect = fault(answer, framing, cut, "fin" if end == "none" else end)
    cuts_ = sorted({0, cut, *(random.randint(0, cut) for _ in range(random.choice((0, 1, 8))))})
    script: list[Step] = []
    for first, last in pairwise(cuts_):
        script += [Send(answer.raw[first:last]), Settle()]
    if script and random.random() < 0.5:
        script.pop()  # the last data and the fault back to back
    name = f"seed {seed}: {framing} {end} at {cut}"
    return Case(name, [*script, *steps], answer.events, expect), random.choice((FAST, SLOW))
