"""Numbers that a caller gives: which of them a float can hold, and how they are shown; imports nothing."""

from __future__ import annotations

import sys

__all__ = ["is_finite", "shown"]

_LARGEST = sys.float_info.max


def is_finite(number: float) -> bool:
    """Whether a float can hold a number; ``math.isfinite(10**400)`` would raise OverflowError."""
    return -_LARGEST <= number <= _LARGEST


def shown(number: float) -> str:
    """A number for a message: ``str`` refuses an integer of more than 4,300 digits."""
    if isinstance(number, int) and not is_finite(number):
        return f"an integer {'below -' if number < 0 else 'above '}1.8e308"
    return str(number)
