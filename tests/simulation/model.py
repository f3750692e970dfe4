"""What must happen: a stream's whole course computed from its scripts, without the library.

Written from design.md 4 and faults.md R1-R6. Times are exact, because the clock is virtual and every
pause is in the scenario.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulation.transport import EPS, Script
from tests.simulation.wire import Item, Seen

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
STATUS_CLASSES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError"}
STATUS_CLASSES |= {422: "UnprocessableEntityError", 429: "RateLimitError", 498: "InvalidTokenError"}


@dataclass(slots=True)
class Limits:
    first_event: float | None
    idle: float | None
    total: float | None
    attempts: int
    base: float
    cap: float


@dataclass(slots=True)
class Course:
    """How a stream that nobody disturbs goes."""

    handed: list[Any] = field(default_factory=list)
    """What is handed out: ``Seen`` events, or (event, data) frames."""
    times: list[float] = field(default_factory=list)
    """When each is handed to the first handler."""
    outcome: str = ""
    """``complete``, or the error's class name and its kind, phase or status."""
    failed_at: float = 0.0
    attempts: int = 0
    opened_at: list[float] = field(default_factory=list)
    ended_by: float = 0.0
    """When the consumer has it all, the drain included."""
    end_read: float = math.inf
    """When ``message-end`` was handed out."""
    first_event_read: bool = False


@dataclass(slots=True)
class _Failed:
    outcome: str
    at: float
    retried: bool
    asked: float | None = None


class Oracle:
    """Computes one stream's course.

    Args:
        pauses: seconds that handlers and consumer take for each thing handed out, by ordinal.
        grants: what the shared budget answered this stream, in order (its own sums are checked
            elsewhere); the oracle says when it is asked.
    """

    def __init__(
        self,
        scripts: list[Script],
        limits: Limits,
        *,
        raw: bool,
        start: float,
        jitter: Random,
        grants: list[bool],
        pause: Any,
    ) -> None:
        self.scripts, self.limits, self.raw = scripts, limits, raw
        self.start, self.jitter, self.grants, self.pause = start, jitter, list(grants), pause
        self.total_due = math.inf if limits.total is None else start + limits.total
        self.course = Course()

    def run(self) -> Course:
        course, limits, now = self.course, self.limits, self.start
        while True:
            script = self.scripts[course.attempts]
            course.attempts += 1
            course.opened_at.append(now)
            failed = self._attempt(script, now)
            if failed is None:
                return course
            draw = self.jitter.random()
            delay = self._delay(failed, draw)
            now = failed.at
            if delay is None or not now + delay < self.total_due:
                course.outcome, course.failed_at, course.ended_by = failed.outcome, now, now
                return course
            now += delay
            assert limits.attempts > course.attempts

    def _delay(self, failed: _Failed, draw: float) -> float | None:
        limits, attempt = self.limits, self.course.attempts
        if attempt >= limits.attempts or not failed.retried:
            return None
        if failed.asked is not None and failed.asked > 60:
            return None
        if not self.grants.pop(0):
            return None
        if failed.asked is not None:
            return failed.asked * (1 + 0.1 * draw)
        return draw * min(limits.cap, limits.base * 2 ** (attempt - 1))

    # --- one try ---------------------------------------------------------------------------------

    def _due(self, first_due: float) -> tuple[float, str]:
        return min((self.total_due, "total"), (first_due, "first_event"))

    def _attempt(self, script: Script, now: float) -> _Failed | None:
        limit = self.limits.first_event
        first_due = math.inf if limit is None else now + limit
        due, phase = self._due(first_due)
        if now + script.connect > due:
            return _Failed(f"StreamTimeoutError {phase}", due, retried=False)
        now += script.connect
        if script.refused:
            kind = script.refused
            name = {"reset": "TransportError", "timeout": "StreamTimeoutError"}.get(
                kind, "ConnectError"
            )
            tag = "connect" if kind == "timeout" else kind
            return _Failed(f"{name} {tag}", now, retried=kind not in ("certificate", "tls"))
        if script.status != 200:
            status = script.status
            if not 300 <= status <= 399:
                now = min(due, now + min(5.0, script.error_body))
            name = STATUS_CLASSES.get(status, "ServerError" if status >= 500 else "StatusError")
            asked = script.headers.get("retry-after")
            return _Failed(
                f"{name} {status}", now, status in RETRIED, float(asked) if asked else None
            )
        if not script.headers.get("content-type", "text/event-stream").startswith("text/event-s"):
            now = min(due, now + min(5.0, script.error_body))
            return _Failed("UnexpectedContentTypeError", now, retried=False)
        return self._body(script, now, first_due)

    def _body(self, script: Script, now: float, first_due: float) -> _Failed | None:
        """Reads as the pump must: waits only when nothing is at hand, hands out one by one."""
        opened = now
        data = [item for item in script.items if item.kind != "comment"]
        when = _arrival_times(script)
        started = False
        for item, at in zip(data, when, strict=False):
            if at is None:
                break
            failure, now = self._wait(opened + at, now, first_due, started=started)
            if failure:
                return self._end(failure, now, started=started)
            if not started:
                if item.kind == "done":
                    return _Failed("TruncatedStreamError", now, retried=True)
                if item.kind == "large":
                    return _Failed("FrameTooLargeError", now, retried=False)
                started = self.course.first_event_read = True
            over, now = self._hand_out(item, now)
            if over:
                self._drain(script, opened, now)
                return None
        finish = math.inf if script.end == "hang" else opened + script.end_at
        failure, now = self._wait(finish, now, first_due, started=started)
        if not failure:
            failure = "TruncatedStreamError" if script.end == "eof" else "TransportError reset"
        return self._end(failure, now, started=started)

    def _wait(
        self, until: float, now: float, first_due: float, *, started: bool
    ) -> tuple[str, float]:
        """The limit that is passed before ``until``, if any, and the time afterwards."""
        if started:
            idle = math.inf if self.limits.idle is None else now + self.limits.idle
            due, phase = min((self.total_due, "total"), (idle, "idle"))
        else:
            due, phase = self._due(first_due)
        if until <= now + EPS and until <= self.total_due:
            return "", now
        if due < until:
            return f"StreamTimeoutError {phase}", max(now, due)
        return "", max(now, until)

    def _end(self, failure: str, now: float, *, started: bool) -> _Failed | None:
        if not started:
            retried = not failure.startswith("StreamTimeoutError")
            return _Failed(failure, now, retried=retried)
        course = self.course
        if course.end_read < math.inf:
            # Raw frames were read on for [DONE]: the answer was complete without it.
            failure = self.ended or "complete"
        course.outcome, course.failed_at, course.ended_by = failure, now, now
        return None

    ended = ""

    def _hand_out(self, item: Item, now: float) -> tuple[bool, float]:
        """Whether that was the end, and the time after everybody had it."""
        course = self.course
        ended = course.end_read < math.inf
        error_frame = item.event == "error" and not ended
        if item.kind == "large" or (item.kind == "bad" and (not self.raw or error_frame)):
            return self._over(item.error, now)
        if item.kind == "done" and not self.raw:
            return self._over("TruncatedStreamError", now)
        handed: Any = (item.event, item.data) if self.raw else item.seen
        course.handed.append(handed)
        course.times.append(now)
        after = now + self.pause(len(course.handed) - 1, handed)
        if item.kind == "event" and item.seen[0] == "message-end":
            course.end_read = now
            reason = item.seen[1]
            failed = reason == "TIMEOUT" or reason.startswith("ERROR")
            self.ended = "GenerationError" if failed else "complete"
            if not self.raw:
                return self._over(self.ended, after)
        if self.raw and item.kind == "done":
            return self._over(self.ended or "TruncatedStreamError", after)
        return False, after

    def _over(self, outcome: str, now: float) -> tuple[bool, float]:
        course = self.course
        if course.end_read < math.inf:
            outcome = self.ended
        course.outcome, course.failed_at = outcome, now
        return True, now

    def _drain(self, script: Script, opened: float, now: float) -> None:
        course = self.course
        course.ended_by = now
        if course.end_read < math.inf:
            finish = math.inf if script.end == "hang" else opened + script.end_at
            if self.total_due >= now:
                course.ended_by = max(now, min(now + 0.1, finish))


def _arrival_times(script: Script) -> list[float | None]:
    """When each data block is there, seconds after the headers; ``None``: never."""
    times: list[float | None] = []
    arrived = [(at, len(piece)) for at, piece in script.arrivals]
    offset, position, got, moment = 0, 0, 0, 0.0
    for item in script.items:
        need = offset + item.ready
        while got < need and position < len(arrived):
            moment, size = arrived[position]
            got += size
            position += 1
        if item.kind != "comment":
            times.append(moment if got >= need else None)
        offset += len(item.wire)
    return times


def text_of(handed: list[Seen], kind: str) -> list[str]:
    """The pieces that ``text()`` or ``thinking()`` hand out."""
    pieces = [s[3] + s[4] for s in handed if s[0] == "content-delta" and s[2] == kind]
    return [piece for piece in pieces if piece]
