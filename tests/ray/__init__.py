"""Fan-out over a Ray cluster of one machine; skipped where Ray is not installed (``nox -s ray``)."""
