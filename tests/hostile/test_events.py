"""Large and malformed events, floods and bombs: each in a process of its own, on a raw socket.

The process grows by less than 300 MiB. With ``STREAMCHAT_TIMED=1`` in
the environment of a quiet machine (``nox -s hostile``), the loop is held for 100 ms at most, or 100 ms per
MiB of an event that is larger, and a limit of ``Timeout`` is kept within 0.1 s; else 50 times as long.
"""

from __future__ import annotations

import pytest

import streamchat
from streamchat.protocol.codec import decode_events, is_answer_event
from streamchat.protocol.errors import DecodeError
from streamchat.protocol.sse import Frame
from tests.hostile import FIGURES
from tests.hostile.probe import LARGE, LIMITS, MIB, ROWS, Probed, probe
from tests.timed import TIMED

HELD = 0.1
LATE = 0.1
MOST_MIB = 300
PACKAGES = {"br": "brotli", "zstd": "backports.zstd"}
DECODABLE = {"DecodeError", "TruncatedStreamError", "GenerationError", "ChatResponse"}


def rows(prefix: str) -> list[str]:
    return [name for name in ROWS if name.startswith(prefix)]


def checked(name: str, *, held: float = HELD) -> Probed:
    """Probe a row; if times count, at most three times: other processes may make it late."""
    for coding, package in PACKAGES.items():
        if name.endswith(f": {coding}"):
            pytest.importorskip(package)
    seen = [probe(name)]
    limit = ROWS[name].timeout.total
    while (
        TIMED
        and len(seen) < 3
        and (seen[-1].held > held or (limit and seen[-1].seconds > limit + LATE))
    ):
        seen.append(probe(name))
    best = min(seen, key=lambda one: one.held)
    FIGURES.append((f"hostile, {name}", f"held {best.held * 1000:.0f} ms, {best.grown:.0f} MiB"))
    assert best.held <= held * (1 if TIMED else 50), best
    assert best.grown < MOST_MIB, best
    assert not TIMED or limit is None or min(one.seconds for one in seen) <= limit + LATE, seen
    return best


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", rows("malformed"))
def test_a_malformed_event_of_1_mib_costs_no_more_than_its_size(name: str) -> None:
    """300,000 items of the wrong kind: reading stops at the first error."""
    assert checked(name).outcome in DECODABLE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", rows("large"))
def test_an_event_of_15_mib_is_read_without_holding_the_loop(name: str) -> None:
    """The answer is complete, unless it has more values than an event may have."""
    seen = checked(name, held=HELD * LARGE / MIB)
    assert seen.outcome == "ChatResponse" or "more than 100000 JSON values" in seen.message


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*rows("comments: "), *rows("unknown frames: ")])
def test_a_coded_flood_is_refused_by_its_ratio_or_ended_by_a_limit(name: str) -> None:
    """300 MiB of nothing in some kB; what arrived before is in the error."""
    seen = checked(name)
    assert seen.outcome in ("ProtocolError", "StreamTimeoutError")
    assert seen.text == len("Hello")


FLOODS = (
    "comments that hardly shrink",
    "comments before the first event",
    "comments in plain",
    "fields in plain",
    "blank lines",
    "carriage returns",
    "pings in plain",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_without_events_is_ended_by_a_limit(name: str) -> None:
    """Reading it yields to the loop and looks at the limits."""
    seen = checked(name)
    assert seen.outcome == "StreamTimeoutError"
    assert f"{LIMITS.total:g} s" in seen.message


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a plain beginning", "expands more than 200 times"),
        ("a bomb of deltas", "expands more than 200 times"),
        ("a bomb of one string", "expands more than 200 times"),
    ],
)
def test_a_bomb_is_refused_by_its_ratio(name: str, words: str) -> None:
    seen = checked(name)
    assert seen.outcome == "ProtocolError"
    assert words in seen.message


@pytest.mark.timeout(300)
def test_a_bomb_in_a_bomb_is_not_an_answer() -> None:
    """Only the outer coding is decoded: there is no event in it."""
    assert checked("a bomb in a bomb").outcome == "TruncatedStreamError"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", rows("an answer over the limit"))
def test_an_answer_over_max_answer_bytes_ends_with_what_arrived(name: str) -> None:
    assert hasattr(streamchat, "AnswerTooLargeError")
    seen = checked(name)
    assert seen.outcome == "AnswerTooLargeError"
    assert 1000 < seen.text <= MIB


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("indices that collide", "DecodeError"),
        ("all indices", "ChatResponse"),
        ("calls", "ChatResponse"),
        ("overlapping citations", "ChatResponse"),
    ],
)
def test_many_places_cost_linear_time(name: str, outcome: str) -> None:
    """Indices go from 0 to 100,000: multiples of 2**61 - 1 have the same hash in CPython."""
    assert checked(name).outcome == outcome


@pytest.mark.parametrize("kind", ["[]", "{}", "[[1]]", '{"a":1}', "7", "null", "true"])
def test_a_type_that_is_not_text_under_a_foreign_name_is_not_an_event(kind: str) -> None:
    """Found by ``tests.hostile.run``: a list as type was a TypeError."""
    assert not is_answer_event(Frame("ping", f'{{"type":{kind}}}'.encode()))


@pytest.mark.parametrize("number", ["9" * 400, "-" + "1" * 309])
@pytest.mark.parametrize(
    "template",
    [
        '{"type":"message-end","delta":{"usage":{"x":@@}}}',
        '{"type":"message-end","delta":{"usage":{"tokens":{"input_tokens":@@}}}}',
        (
            '{"type":"citation-start","delta":{"message":{"citations":{"sources":[{"document":{"x":@@}}],'
            '"start":0,"end":1,"text":"a"}}}}'
        ),
        '{"type":"new","x":[@@]}',
    ],
)
def test_an_integer_that_a_float_cannot_hold_is_refused(template: str, number: str) -> None:
    with pytest.raises(DecodeError, match="a number is out of range"):
        decode_events(Frame("message", template.replace("@@", number).encode()))
