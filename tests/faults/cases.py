"""What one case is: a script for the server, and the one outcome that is right."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from streamchat import (
    ProtocolError,
    StatusError,
    StreamChatError,
    StreamTimeoutError,
    TransportError,
    TruncatedStreamError,
)
from tests.faults.answers import Wire
from tests.faults.rawserver import Script

FIRST_EVENT = 0.3
IDLE = 0.2
"""The limits that all cases run under, seconds."""
GRACE = 0.2
"""How much later than its limit a stream may end."""
DRAIN = 0.1
"""What a complete stream may spend on keeping its connection."""
TRIES = 2
"""``Retry(attempts=...)`` of all cases."""


@attrs.frozen
class Expect:
    """How a stream must end."""

    error: type[StreamChatError] | None
    """Exactly this class; ``None`` for a complete answer."""
    events: int | None
    """How many events must have been delivered, no more and no less; ``None`` for any number, where
    TCP itself drops what was sent."""
    which: frozenset[str] = frozenset()
    """``phase`` or ``kind`` of the error, one of these; empty where the class has none."""
    requests: int = 1
    """How often the request must have been sent."""
    within: float = 0.0
    """Seconds after the server's last deed, plus ``GRACE``."""
    status: int | None = None


@attrs.frozen
class Case:
    """One stream."""

    name: str
    script: Script
    events: Sequence[Wire] = attrs.field(repr=False)
    """What the server has in mind to say; what is delivered must be a prefix of it."""
    expect: Sequence[Expect]
    """One of these; more than one only where the peer's bytes allow it, with the reason in the
    case's definition."""
    close_client: bool = False
    """Close the client when the server has done its last deed."""
    body_bytes: int | None = None
    """How many bytes of the body arrive, where an error has to say so."""


def complete(events: int) -> Expect:
    """``message-end`` was delivered: the answer is complete whatever follows (F47, F64, F84)."""
    return Expect(None, events, within=DRAIN)


def lost() -> Expect:
    """The connection ended before status and headers (F16, F18): tried again."""
    return Expect(TransportError, 0, frozenset({"reset"}), requests=TRIES)


def truncated(events: int) -> Expect:
    """The body ended early (F41 to F46): tried again only if no event was there (R3)."""
    return Expect(
        TruncatedStreamError,
        events,
        frozenset({"truncated", "reset"}),
        requests=1 if events else TRIES,
    )


def undecodable(events: int) -> Expect:
    """The content coding is broken (F59, F62): never tried again."""
    return Expect(TruncatedStreamError, events, frozenset({"encoding"}))


def stalled(events: int) -> Expect:
    """Nothing came any more (F19 to F21, F54 to F56): our own timers, never tried again."""
    phase, seconds = ("idle", IDLE) if events else ("first_event", FIRST_EVENT)
    return Expect(StreamTimeoutError, events, frozenset({phase}), within=seconds)


def not_http(events: int = 0) -> Expect:
    """The answer is not valid HTTP (F24 to F26, F48, F49, F51): never tried again."""
    return Expect(ProtocolError, events)


def refused(status: int) -> Expect:
    """Another status than 200 (F28 to F39)."""
    return Expect(StatusError, 0, status=status)


def closed(events: int) -> Expect:
    """The client was closed while the stream ran (F99)."""
    return Expect(TransportError, events, frozenset({"closed"}))
