"""Measurements: each script answers one question by ratios inside one run."""
