"""Whether times count: with ``STREAMCHAT_TIMED=1`` on a quiet machine, as in ``nox -s hostile``."""

from __future__ import annotations

import os

TIMED = os.environ.get("STREAMCHAT_TIMED") == "1"
SOON = 5 if TIMED else 60
"""Seconds in which something ends that would else go on for ever, or for years."""
