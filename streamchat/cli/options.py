"""Kinds of options that click does not have, and the usage error about a path."""

from __future__ import annotations

import math
from typing import Any

import click

from streamchat.cli.terminal import visible_name

__all__ = ["FiniteRange", "bad"]


class FiniteRange(click.FloatRange):
    """A range of numbers without ``nan``, which is in every range for click, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; refuses what is none, or is out of the range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def bad(hint: str, path: object, problem: str) -> click.BadParameter:
    """A usage error about a path; ``hint`` is the option or argument that names it."""
    return click.BadParameter(f"{visible_name(path)}: {problem}", param_hint=hint)
