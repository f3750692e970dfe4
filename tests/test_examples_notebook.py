"""The example notebook, run from top to bottom as a user runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.snippets import ROOT
from tests.test_readme import run

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
MARKDOWN = {"ChatResponse": 3, "Conversation": 2, "FanOutResult": 1}
"""Values at the ends of cells that are shown as Markdown."""


async def test_every_cell_of_the_notebook_runs(tmp_path: Path) -> None:
    """Without a key, in one shell, one cell twice; answers are shown as Markdown."""
    code, out, err = await run(
        *(sys.executable, "-W", "ignore:handler show was registered before", "-P"),
        *(str(ROOT / "tests" / "notebooks.py"), str(NOTEBOOK)),
        folder=tmp_path,
        IPYTHONDIR=str(tmp_path),
        CO_API_KEY="",
        CO_API_URL="",
    )
    assert (code, err) == (0, "")
    shown = [
        line.split()[1] for line in out.splitlines() if line.endswith(" text/markdown text/plain")
    ]
    assert {name: shown.count(name) for name in set(shown)} == MARKDOWN


def test_the_notebook_holds_no_outputs() -> None:
    """What a cell gave on somebody's machine is not part of the example."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
