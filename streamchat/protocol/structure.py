"""Plain data into a class of the caller's: parsed answers."""

from __future__ import annotations

from typing import Any, TypeVar

from streamchat.protocol.json_fields import Malformed
from streamchat.protocol.kinds import Misfit
from streamchat.protocol.schema import answer_of

__all__ = ["Malformed", "structure_answer"]

T = TypeVar("T")


def structure_answer(data: Any, cls: type[T]) -> T:
    """``data`` as a class of the caller's; ``Malformed`` with the path where it does not fit."""
    problem: tuple[str, str]
    try:
        read: T = answer_of(cls).read(data)
    except Misfit as misfit:
        problem = misfit.reason, misfit.path
    else:
        return read
    raise Malformed(*problem)
