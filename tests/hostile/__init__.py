"""Hostile servers: rows that were found by review, and mutated answers from a seed."""

FIGURES: list[tuple[str, str]] = []
"""What the tests of this folder measured, for the suite's own summary: what, and how much."""
