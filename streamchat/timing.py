"""When things happened to a stream: a record; imports nothing of ours."""

import attrs

from streamchat.protocol.record import FrozenRecord

__all__ = ["Timing"]


@attrs.frozen(eq=False, repr=False)
class Timing(FrozenRecord):
    """When things happened, in seconds from the request; ``None`` for what has not."""

    first_byte: float | None = None
    """Status and headers were there."""
    first_event: float | None = None
    """The first event was there."""
    first_text: float | None = None
    """The first text of the answer was there: the "time to first token"."""
    longest_gap: float | None = None
    """The longest pause between two arrivals of events."""
    total: float | None = None
    """The answer was complete, or failed."""
