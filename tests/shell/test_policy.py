"""Timeouts and retries as decisions: tables, no waiting."""

from __future__ import annotations

from typing import Any

import pytest

from streamchat import (
    ConfigurationError,
    ConnectError,
    DecodeError,
    Retry,
    StreamChatError,
    StreamTimeoutError,
    Timeout,
    TransportError,
    TruncatedStreamError,
)
from streamchat.policy import RetryBudget, is_retryable, retry_after, retry_delay
from streamchat.protocol.error_body import status_error

DATE = "Sun, 29 Sep 2024 23:46:20 GMT"
LATER = "Sun, 29 Sep 2024 23:46:40 GMT"
NOW = 1727653580.0  # DATE in seconds since 1970

HEADERS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "20"}, 20),
    ({"retry-after": " 20 "}, 20),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "61"}, 61),
    ({"retry-after": "0"}, None),
    ({"retry-after": "-10"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "1e3"}, None),
    ({"retry-after": "9" * 35}, None),
    ({"retry-after": "٣"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": LATER}, 20),
    ({"retry-after": LATER, "date": DATE}, 20),
    ({"retry-after": LATER, "date": "Sun, 29 Sep 2024 23:46:30 GMT"}, 10),
    ({"retry-after": LATER, "date": "garbage"}, 20),
    ({"retry-after": DATE}, None),
    ({"retry-after": "Sun, 29 Sep 2024 23:46:10 GMT"}, None),
    ({"retry-after": "Zun, 99 Sep 2024 23:46:40 GMT"}, None),
    ({"retry-after": "Sun, 29 Sep 2024 23:46:40 -0000"}, 20),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "1500", "retry-after": "20"}, 1.5),
    ({"retry-after-ms": "0", "retry-after": "20"}, None),
    ({"retry-after-ms": "x", "retry-after": "20"}, 20),
    ({"retry-after-ms": "", "retry-after": "20"}, 20),
    ({"retry-after-ms": "-5", "retry-after": "20"}, 20),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_retry_after_reads_every_form_and_ignores_nonsense(
    headers: dict[str, str], expected: float | None
) -> None:
    """Seconds, milliseconds, dates against the response's own clock; the rest is no wish."""
    assert retry_after(headers, now=NOW) == expected


def _status(status: int, wish: float | None = None) -> StreamChatError:
    return status_error(status, headers={}, body=b"", retry_after=wish)


RETRYABLE: list[tuple[StreamChatError, bool]] = [
    *((_status(code), True) for code in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
    *((_status(code), False) for code in (204, 307, 400, 401, 402, 403, 404, 422, 498, 499, 501)),
    (ConnectError("x", kind="dns"), True),
    (ConnectError("x", kind="refused"), True),
    (ConnectError("x", kind="certificate"), False),
    (ConnectError("x", kind="tls"), False),
    (TransportError("x", kind="reset"), True),
    (TransportError("x", kind="closed"), False),
    (TruncatedStreamError("x"), True),
    (StreamTimeoutError("x", phase="connect", seconds=1), True),
    (StreamTimeoutError("x", phase="first_event", seconds=1), False),
    (StreamTimeoutError("x", phase="total", seconds=1), False),
    (DecodeError("x"), False),
    (ConfigurationError("x"), False),
]


@pytest.mark.parametrize(("error", "expected"), RETRYABLE)
def test_what_is_tried_again(error: StreamChatError, expected: bool) -> None:
    """Only what another try may change."""
    assert is_retryable(error) is expected


DELAYS: list[tuple[Retry, StreamChatError, int, float, float | None]] = [
    (Retry(), _status(503), 1, 1.0, 0.5),
    (Retry(), _status(503), 2, 1.0, 1.0),
    (Retry(), _status(503), 2, 0.25, 0.25),
    (Retry(), _status(503), 1, 0.0, 0.0),
    (Retry(), _status(503), 3, 1.0, None),
    (Retry(attempts=1), _status(503), 1, 1.0, None),
    (Retry(attempts=99), _status(503), 9, 1.0, 8.0),
    (Retry(attempts=9999), _status(503), 5000, 1.0, 8.0),
    (Retry(attempts=9, base=2, cap=5), _status(503), 2, 1.0, 4.0),
    (Retry(attempts=9, base=2, cap=5), _status(503), 3, 1.0, 5.0),
    (Retry(), _status(429, 20), 1, 0.0, 20.0),
    (Retry(), _status(429, 20), 1, 1.0, 22.0),
    (Retry(), _status(429, 60), 1, 0.0, 60.0),
    (Retry(), _status(429, 60.1), 1, 0.0, None),
    (Retry(max_retry_after=600), _status(429, 60.1), 1, 0.0, 60.1),
    (Retry(max_retry_after=0), _status(429, 1), 1, 0.0, None),
    (Retry(), _status(501, 1), 1, 0.0, None),
]


@pytest.mark.parametrize(("retry", "error", "attempt", "random", "expected"), DELAYS)
def test_how_long_to_wait(
    retry: Retry, error: StreamChatError, attempt: int, random: float, expected: float | None
) -> None:
    """Full jitter up to the cap; the server's wish plus a tenth; None raises."""
    delay = retry_delay(retry, error, attempt=attempt, budget=RetryBudget(), random=random)
    assert delay == (None if expected is None else pytest.approx(expected))


def test_the_budget_is_taken_and_refunded() -> None:
    """100 retries in a row, then none; ten successes buy one more; never above 100."""
    budget, retry, error = RetryBudget(), Retry(), _status(503)
    waits = [retry_delay(retry, error, attempt=1, budget=budget, random=0.5) for _ in range(101)]
    assert waits == [0.25] * 100 + [None]
    for _ in range(10):
        budget.refund()
    assert retry_delay(retry, error, attempt=1, budget=budget, random=0) == 0.0
    for _ in range(5000):
        budget.refund()
    assert budget.tokens == RetryBudget.CAPACITY


def test_what_is_not_retried_takes_nothing_from_the_budget() -> None:
    """Errors that are raised at once leave the budget alone."""
    budget = RetryBudget()
    retry_delay(Retry(), _status(401), attempt=1, budget=budget, random=0)
    retry_delay(Retry(), _status(429, 600), attempt=1, budget=budget, random=0)
    assert budget.tokens == RetryBudget.CAPACITY


@pytest.mark.parametrize("name", ["connect", "first_event", "idle", "total"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
     (10**400, ValueError), pytest.param(10**5000, ValueError, id="1e5000"),
     pytest.param(-(10**5000), ValueError, id="-1e5000"),
     ("5", TypeError), (True, TypeError)],
)  # fmt: skip
def test_a_limit_must_be_seconds_or_none(name: str, value: Any, expected: type[Exception]) -> None:
    """The error names the limit."""
    with pytest.raises(expected, match=name):
        Timeout(**{name: value})
    assert getattr(Timeout(**{name: None}), name) is None


def test_limits_left_out_keep_their_defaults() -> None:
    """design.md: connect 10, first_event 120, idle 60, no total."""
    assert Timeout(idle=5) == Timeout(connect=10, first_event=120, idle=5, total=None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"attempts": 0}, ValueError),
        ({"attempts": 1.5}, TypeError),
        ({"base": -1}, ValueError),
        ({"cap": "8"}, TypeError),
        ({"max_retry_after": float("nan")}, ValueError),
        ({"base": 10**400}, ValueError),
        ({"cap": 10**5000}, ValueError),
        ({"max_retry_after": -(10**5000)}, ValueError),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(
    settings: dict[str, Any], expected: type[Exception]
) -> None:
    """The error names the setting."""
    with pytest.raises(expected, match=next(iter(settings))):
        Retry(**settings)
