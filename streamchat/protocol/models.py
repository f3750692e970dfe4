"""Names of models that this package itself uses; imports nothing. Requests take any name."""

from __future__ import annotations

__all__ = ["DEFAULT_MODEL", "thinks_by_default"]

DEFAULT_MODEL = "command-a-plus-05-2026"
"""What the command line asks for, and what messages and examples name."""


def thinks_by_default(model: str) -> bool:
    """Whether a model thinks unless ``thinking={"type": "disabled"}`` is sent: reasoning models do."""
    name = model.lower()
    return "reasoning" in name or "command-a-plus" in name
