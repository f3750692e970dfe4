"""When going on is pointless: ``Stop``, and the count of what has come so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from streamchat.finite import is_finite, shown
from streamchat.protocol.errors import StopReachedError
from streamchat.protocol.messages import Usage
from streamchat.protocol.response import ChatResponse

__all__ = ["MOST_TOKENS", "Stop", "StopCount", "tokens_of"]

MOST_TOKENS = 1e15
"""Of one answer; a larger count is nonsense, and a JSON integer may be too large for a float."""


@attrs.frozen
class Stop:
    """Limits of a whole fan-out; at the first that is reached no further request is taken.

    Requests that run then end as usual; those that only wait for the limiter end with the error. After
    their results the iteration raises :class:`~streamchat.StopReachedError`.

    Raises:
        TypeError, ValueError: a limit that is not a positive number, or an error that is not an
            exception class.
    """

    seconds: float | None = None
    """Time from the first step of the iteration."""
    tokens: float | None = None
    """Input and output tokens of the answers, as the server counts them."""
    failures: int | None = None
    """Requests that end without an answer."""
    errors: tuple[type[Exception], ...] = ()
    """Exception classes; the first request that fails with one of them stops the rest."""

    def __attrs_post_init__(self) -> None:
        for name in ("seconds", "tokens", "failures"):
            _check_limit(name, getattr(self, name))
        failures: Any = self.failures
        if isinstance(failures, float) and not failures.is_integer():
            raise ValueError(f"Stop(failures=) must be a whole number, not {failures}")
        given: Any = self.errors
        if isinstance(given, type):
            raise TypeError(f"Stop(errors=) must be a tuple: errors=({given.__name__},)")
        if not isinstance(given, Iterable):
            raise TypeError(
                f"Stop(errors=) must be a tuple of exception classes, not {type(given).__name__}: "
                "failures= is the number of failures"
            )
        errors: tuple[Any, ...] = (*self.errors,)
        for error in errors:
            if not (isinstance(error, type) and issubclass(error, Exception)):
                raise TypeError(f"Stop(errors=) must hold exception classes, not {error!r:.80}")
        object.__setattr__(self, "errors", errors)


def _check_limit(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Stop({name}=) must be a number, not {type(value).__name__}")
    if not (value > 0 and is_finite(value)):
        raise ValueError(f"Stop({name}=) must be a positive, finite number, not {shown(value)}")


@attrs.define
class StopCount:
    """How far a fan-out is from its limits."""

    stop: Stop
    clock: Callable[[], float] = time.monotonic
    results: int = 0
    failures: int = 0
    tokens: float = 0
    reason: str = ""
    """The limit that was reached first; empty before."""
    cause: Exception | None = None
    _started: float = 0.0

    def begin(self, clock: Callable[[], float] | None = None) -> None:
        """Start the time; ``clock`` is the one that timers go by."""
        self.clock = clock or self.clock
        self._started = self.clock()

    def add(self, response: ChatResponse | None, error: Exception | None) -> None:
        """Count a result."""
        self.results += 1
        self.failures += error is not None
        partial = getattr(error, "partial", None)
        answer = response if response is not None else partial
        if isinstance(answer, ChatResponse):
            self.tokens += tokens_of(answer.usage) or 0
        stop = self.stop
        if error is not None and isinstance(error, stop.errors):
            self._reach("errors", error)
        elif stop.failures is not None and self.failures >= stop.failures:
            self._reach("failures")
        elif stop.tokens is not None and self.tokens >= stop.tokens:
            self._reach("tokens")
        else:
            self.check_time()

    def check_time(self) -> None:
        """Look whether the time is over."""
        seconds = self.stop.seconds
        if seconds is not None and self.clock() - self._started >= seconds:
            self._reach("seconds")

    def end_of_time(self) -> None:
        """The time is over."""
        self._reach("seconds")

    def _reach(self, reason: str, cause: Exception | None = None) -> None:
        if not self.reason:
            self.reason, self.cause = reason, cause

    def error(self) -> StopReachedError:
        """What the iteration ends with."""
        stop = self.stop
        why = {
            "errors": f"a request failed with {type(self.cause).__name__}, as others would",
            "failures": f"{self.failures} requests have failed (Stop.failures={stop.failures})",
            "tokens": f"{self.tokens:,.0f} tokens are used (Stop.tokens={stop.tokens})",
            "seconds": f"the time is over (Stop.seconds={stop.seconds})",
        }[self.reason]
        error = StopReachedError(
            f"no further request is sent: {why}; {self.results} have ended, {self.failures} of them "
            "without an answer",
            reason=self.reason,
            results=self.results,
            failures=self.failures,
            tokens=self.tokens,
            seconds=self.clock() - self._started,
        )
        error.__cause__ = self.cause
        return error


def tokens_of(usage: Usage) -> float | None:
    """What counts against a limit of tokens; None if the server did not say, or said nonsense."""
    for counts in (usage.tokens, usage.billed_units):
        if counts.input_tokens is not None or counts.output_tokens is not None:
            used = (counts.input_tokens or 0) + (counts.output_tokens or 0)
            return used if 0 <= used <= MOST_TOKENS else None
    return None
