"""``python -P tests/notebooks.py FILE``: runs the cells of a notebook in one IPython shell, as a kernel does.

A cell tagged ``run-again`` is run twice. Prints the media types of each value that a front end would
show, and raises what a cell raises. A process of its own, because the shell changes ``sys`` and
``builtins``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


def main() -> None:
    notebook = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.autoawait = True
    with asyncio.Runner() as runner:  # one loop for all cells; IPython's own is never closed
        shell.loop_runner = runner.run
        for cell in notebook["cells"]:
            for _ in range(times(cell)):
                done = shell.run_cell("".join(cell["source"]))
                done.raise_error()
                if done.result is not None:
                    data, _ = shell.display_formatter.format(done.result)
                    print(cell["id"], type(done.result).__name__, *sorted(data))


def times(cell: dict[str, Any]) -> int:
    """How often a cell is run."""
    if cell["cell_type"] != "code":
        return 0
    return 2 if "run-again" in cell["metadata"].get("tags", ()) else 1


if __name__ == "__main__":
    main()
