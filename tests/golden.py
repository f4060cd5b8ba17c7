"""Makes what is committed and derives from recordings, for `make golden`; the differences are to be reviewed.

sudo python tests/golden.py record [SCENE...]     each scene of `forktrace demo` into tests/data, with what it prints
python tests/golden.py notebooks [NOTEBOOK...]    the outputs of the notebooks, which read these traces
sudo python tests/golden.py pages [PAGE...]       what README.md and docs/ show of their commands, and their pictures
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import documented
import nbformat
from nbclient import NotebookClient

from forktrace.cli import demonstration
from forktrace.scenes import SCENES
from forktrace.scenes import scene as scene_of
from forktrace.trace import stream
from forktrace.trace.batches import merged

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATIENCE_S = 300  # for a cell: the machine may be slow and busy


def executed(path: Path) -> nbformat.NotebookNode:
    """Return the notebook as it is after a run from the top, in a kernel of its own."""
    notebook = nbformat.read(path, as_version=4)
    quiet = {"record_timing": False, "coalesce_streams": True}  # how long it took and in which pieces it came is left out
    client = NotebookClient(notebook, timeout=PATIENCE_S, resources={"metadata": {"path": path.parent}}, **quiet)
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    notebook.metadata["language_info"] = {"name": "python"}  # and not the version that happened to run it
    return notebook


def record_scenes(*names: str) -> None:
    """Record the named scenes, or all, as their user would who stands beside them; what they print is kept too."""
    for scene in [scene_of(name) for name in names] or SCENES:
        os.chdir(scene.program.parent)
        demonstration.check_root(scene)
        demonstration.check_modules(scene)
        said: list[str] = []
        status = demonstration.record_scene(scene, DATA / f"{scene.name}.arrows", speed=1, force=True, say=said.append)
        print(*said, sep="\n")
        if status:
            sys.exit(f"scene {scene.name} ended with {status}")
        shrink(DATA / f"{scene.name}.arrows")
        own = [line + "\n" for line in said if not line.startswith("forktrace")]
        (DATA / f"{scene.name}.txt").write_text("".join(own))


def shrink(path: Path) -> None:
    """Write the same rows in one batch; one for each 150 ms takes ten times the room."""
    trace = stream.read(path)
    with path.open("wb") as file:
        writer = stream.Writer(file, trace.header)
        writer.write(merged(trace.table.to_batches()))
        writer.close()


def write_notebooks(*names: str) -> None:
    """Write the outputs of the named notebooks, or of all."""
    for path in NOTEBOOKS:
        if names and path.stem not in names:
            continue
        print(path.relative_to(ROOT))
        nbformat.write(executed(path), path)


def write_pages(*names: str) -> None:
    """Write what the commands of the named pages print, or of all."""
    for page in documented.PAGES:
        if names and str(page.relative_to(ROOT)) not in names:
            continue
        print(page.relative_to(ROOT))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)  # some commands run as another user
            documented.rewrite(page, Path(folder))


if __name__ == "__main__":
    {"record": record_scenes, "notebooks": write_notebooks, "pages": write_pages}[sys.argv[1]](*sys.argv[2:])
