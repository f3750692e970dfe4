"""Timeouts, retries and how much at once, as plain decisions: no clock, no randomness, no waiting of its own.

Every function here is pure: time and random numbers are arguments. The stream asks, and acts.
The forms of ``Retry-After`` are those of RFC 9110 10.2.3; a value of another form is ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import attrs

from streamchat.finite import is_finite, shown
from streamchat.protocol.errors import (
    GenerationError,
    RateLimitError,
    StatusError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
)
from streamchat.protocol.record import FrozenRecord

__all__ = [
    "AdaptiveConcurrency",
    "Retry",
    "RetryBudget",
    "Timeout",
    "is_rate_limit",
    "is_retryable",
    "retry_after",
    "retry_delay",
]

RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 523, 524, 529})
"""Statuses that another attempt may change; never 501, 498 or any other 4xx.

520, 522, 523 and 524 are Cloudflare's: the origin's answer was empty or came too late, or there was no
route to it. Its others are not retried, because they last: 521 (the origin refuses connections), 525 and
526 (its TLS), 530 (its name).
"""
_NEVER_RETRIED_KINDS = frozenset({"certificate", "closed", "encoding", "proxy_refused", "tls"})
"""Failures that trying again cannot mend, or must not paper over."""


def _seconds(instance: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field.name} must be seconds or None, not {type(value).__name__}")
    if not (value > 0 and is_finite(value)):
        raise ValueError(
            f"{field.name} must be more than 0 seconds and finite (None is no limit), "
            f"not {shown(value)}"
        )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Timeout(FrozenRecord):
    """Four limits in seconds, on our own monotonic timers; ``None`` is no limit.

    Raises:
        TypeError, ValueError: a limit that is no positive number.
    """

    connect: float | None = attrs.field(default=10.0, validator=_seconds)
    """For name, TCP and TLS together. Of a stall of the event loop a tenth of the limit counts at most:
    a connection that stands already is no failure of the server."""
    first_event: float | None = attrs.field(default=120.0, validator=_seconds)
    """From the request to the first event, for each attempt. Not retried: the server may have begun
    to work, and a recorded answer took 72 s to its headers."""
    idle: float | None = attrs.field(default=60.0, validator=_seconds)
    """Between two events, while we wait for the server. Comments and single bytes do not count as
    events, and the time that the consumer takes does not count as waiting."""
    total: float | None = attrs.field(default=None, validator=_seconds)
    """For everything, retries and the consumer's own time included."""


def _at_least(minimum: float) -> Any:
    def check(instance: object, field: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{field.name} must be a number, not {type(value).__name__}")
        if not (value >= minimum and is_finite(value)):
            raise ValueError(
                f"{field.name} must be finite and at least {minimum}, not {shown(value)}"
            )

    return check


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Retry(FrozenRecord):
    """How often to try, and how long to wait between; only until the first event was received.

    The wait before try ``n + 1`` is drawn evenly from 0 to ``min(cap, base * 2 ** (n - 1))``
    seconds ("full jitter"), or is what the server asked for, plus up to 10 %.

    Raises:
        TypeError, ValueError: a number that makes no sense.
    """

    attempts: int = attrs.field(
        default=3, validator=[attrs.validators.instance_of(int), _at_least(1)]
    )
    """Tries in all; 1 never retries."""
    base: float = attrs.field(default=0.5, validator=_at_least(0))
    """Seconds, doubled with each try."""
    cap: float = attrs.field(default=8.0, validator=_at_least(0))
    """Seconds at most, unless the server asked for more."""
    max_retry_after: float = attrs.field(default=60.0, validator=_at_least(0))
    """Seconds: when the server asks for longer, its answer is raised at once, with
    ``retry_after`` set, instead of trying sooner than it wished."""


class RetryBudget:
    """Tokens that all streams of a client share, so that an outage does not become a storm.

    100 at first and at most; a retry takes 1, a success gives 0.1 back (gRPC A6).
    """

    __slots__ = ("_tenths",)

    CAPACITY = 100

    def __init__(self, tokens: int = CAPACITY) -> None:
        self._tenths = 10 * tokens  # in whole numbers: ten tenths must be one

    @property
    def tokens(self) -> float:
        """What is left."""
        return self._tenths / 10

    def take(self) -> bool:
        """Take a token; ``False`` if there is none."""
        if self._tenths < 10:
            return False
        self._tenths -= 10
        return True

    def refund(self) -> None:
        """Give a tenth back after a success."""
        self._tenths = min(10 * self.CAPACITY, self._tenths + 1)


_STATUS_OF_TYPE = {"overloaded_error": 529, "rate_limit_error": 429}
"""Error types of gateways, and the statuses that they stand for."""


def is_retryable(error: StreamChatError) -> bool:
    """Whether another try may help, given that no event was received."""
    if isinstance(error, StatusError):
        return error.status in RETRYABLE_STATUSES
    if isinstance(error, GenerationError):
        return _status_of(error) in RETRYABLE_STATUSES
    if isinstance(error, StreamTimeoutError):
        return error.phase == "connect"
    if isinstance(error, TransportError):
        return error.kind not in _NEVER_RETRIED_KINDS
    return False


def _status_of(error: GenerationError) -> int | None:
    """The HTTP status that an error in place of the first event stands for; the answer's was 200."""
    if error.status is not None:
        return error.status
    return _STATUS_OF_TYPE.get((error.error_type or "").lower())


def retry_delay(
    retry: Retry,
    error: StreamChatError,
    *,
    attempt: int,
    budget: RetryBudget,
    random: float,
) -> float | None:
    """Seconds to wait before the next try; ``None`` to raise the error.

    Args:
        error: why try number ``attempt`` (from 1) failed, before its first event.
        budget: a token is taken from it if the answer is a wait.
        random: a number from 0 to 1, fresh.
    """
    if attempt >= retry.attempts or not is_retryable(error):
        return None
    asked = error.retry_after if isinstance(error, StatusError) else None
    if asked is not None and asked > retry.max_retry_after:
        return None
    if not budget.take():
        return None
    if asked is not None:
        return asked * (1 + 0.1 * random)
    return random * min(retry.cap, retry.base * 2.0 ** min(attempt - 1, 60))


def is_rate_limit(error: StreamChatError) -> bool:
    """Whether the server said that there were too many requests: by a 429, or by an error in its place."""
    if isinstance(error, GenerationError):
        return _status_of(error) == 429
    return isinstance(error, RateLimitError)


_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that the server asked to wait: ``retry-after-ms``, then ``Retry-After``.

    Args:
        headers: the response's, names in lower case.
        now: the wall clock in seconds since 1970; used only for a date in a response that has no
            ``Date`` of its own, because ours may be wrong.

    Returns:
        More than 0, or ``None`` if there is no header or its value is not usable (zero, negative,
        not a number, a date that is none or has passed).
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _DECIMAL.fullmatch(milliseconds):
        return float(milliseconds) / 1000 or None
    value = headers.get("retry-after", "").strip()
    if _DECIMAL.fullmatch(value):
        return float(value) or None
    until = _date(value)
    if until is None:
        return None
    since = _date(headers.get("date", ""))
    seconds = until - (now if since is None else since)
    return seconds if seconds > 0 else None


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # HTTP dates are in GMT; "-0000" parses without a zone.
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


# --- how many at once ----------------------------------------------------------------------------


@attrs.define(init=False)
class AdaptiveConcurrency:
    """How many requests may run: half as many after a 429, one more after as many successes as run.

    It decides only, and is for one thread.

    Args:
        limit: at first, and at most.
        minimum: never fewer.

    Raises:
        TypeError, ValueError: not whole numbers with ``1 <= minimum <= limit``.
    """

    limit: int
    """How many may run now."""
    _maximum: int
    _minimum: int
    _successes: int
    _halved_at: float

    def __init__(self, limit: int, *, minimum: int = 1) -> None:
        for name, value in (("limit", limit), ("minimum", minimum)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
        if not 1 <= minimum <= limit:
            raise ValueError(f"minimum must be from 1 to the limit {limit}, not {minimum}")
        self.limit = self._maximum = limit
        self._minimum = minimum
        self._successes = 0
        self._halved_at = -math.inf

    def on_success(self) -> None:
        """A request was answered."""
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            self.limit = min(self._maximum, self.limit + 1)

    def on_rate_limit(self, started: float, now: float) -> None:
        """A request got a 429: halve, unless it was sent before the last halving could help.

        Args:
            started: when it was sent, in seconds.
            now: by the same clock.
        """
        if started > self._halved_at:
            self.limit = max(self._minimum, self.limit // 2)
            self._successes = 0
            self._halved_at = now
