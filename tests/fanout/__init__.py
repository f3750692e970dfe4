"""Many requests at once, and what limits them."""

FIGURES: list[tuple[str, str]] = []
"""What this folder's tests measured, (what, figure); ``tests/conftest.py`` prints them at the end."""
