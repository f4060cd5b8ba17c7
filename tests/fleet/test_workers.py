"""The question of a fleet, shared among several worker processes: the answer is that of one process."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from golden import NOTEBOOKS, executed

pytestmark = pytest.mark.fleet

ROOT = Path(__file__).parents[2]


def test_workers_say_what_duckdb_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebook 06 compares both answers, here on a simulated fleet of two days, and fails where they differ."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from fleet_scale import NEW_LINE, simulate

    simulate(tmp_path / "fleet", hosts=12, processes=500, days=2)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    notebook = nbformat.read(next(path for path in NOTEBOOKS if path.stem == "06-fleet"), as_version=4)
    first = next(cell for cell in notebook.cells if cell["cell_type"] == "code")
    assert first["source"] == 'FLEET = ""'
    first["source"] = f"FLEET = {str(tmp_path / 'fleet')!r}"
    copy = tmp_path / "06-fleet.ipynb"
    nbformat.write(notebook, copy)
    outputs = [output for cell in executed(copy).cells for output in cell.get("outputs", [])]
    said = "".join(one.get("text", "") for one in outputs)
    assert "on 12 of 12 hosts" in said
    assert "3 worker processes" in said
    assert NEW_LINE in outputs[-1]["data"]["text/plain"]
