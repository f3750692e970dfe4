"""Packages that a test can do without: it is skipped where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


def zstd() -> Any:
    """Python 3.14's zstd, or its backport."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return pytest.importorskip("backports.zstd")
