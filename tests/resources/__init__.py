"""What is left, what it costs and what it shows: resources, time and secrets of the running client.

Each measurement runs in a process of its own against a server in another one, so that neither the
tests around it nor the server's work is in the figures: ``python -m tests.resources.run WHAT``.
"""

FIGURES: list[tuple[str, str]] = []
"""What was measured and the figure, for the suite's own summary."""
