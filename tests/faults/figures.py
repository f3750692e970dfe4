"""Figures of this folder's tests, (what, figure); ``tests/conftest.py`` prints them at the end."""

FIGURES: list[tuple[str, str]] = []
