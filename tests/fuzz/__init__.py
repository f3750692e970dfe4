"""Fuzzing: seeded inputs and a slow reference, a coverage-guided target, and its corpus."""

FIGURES: list[tuple[str, str]] = []
"""What the tests of this folder measured, for the suite's own summary: what, and how much."""
