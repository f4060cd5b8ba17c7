"""Real libraries from PyPI, each in a virtual environment of its own: whose line made a process, who reaped it, and why."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from recorded import Recorded

from forktrace.views import explanations
from forktrace.views.zombies import helpers

pytestmark = [pytest.mark.root, pytest.mark.libraries]

ROOT = Path(__file__).parents[2]
VENVS = ROOT / ".cache" / "libraries"
PROGRAMS = Path(__file__).with_name("programs")
INSTALL_S = 900
PACKAGES = {
    "rq": ("rq", "fakeredis"),
    "anyio": ("anyio", "trio"),
    "twisted": ("Twisted",),
}  # where they are not called as the venv


class Case(NamedTuple):
    """A program, and what is right for the processes that it makes on the line marked `# forks` (or at `fork_site`).

    Attributes:
        venv, program: which environment, and use_PROGRAM.py
        made: created_by, fork_library
        reaped: reap_cause, reap_library
        fork_site, reap_site: where these begin so; "": the line that is marked in the program
    """

    venv: str
    program: str
    made: tuple[str, str | None]
    reaped: tuple[str, str | None]
    fork_site: str = ""
    reap_site: str = ""


_MP = "multiprocessing"
CASES = (
    Case("anyio", "anyio_asyncio", ("asyncio", "anyio"), ("asyncio", None), reap_site="unix_events.py:"),
    Case("anyio", "anyio_trio", ("subprocess", "trio"), ("event-loop", "trio"), fork_site="trio/_threads.py:"),
    Case("billiard", "billiard", (_MP, "billiard"), ("join", "billiard")),
    Case("billiard", "billiard_pool", ("pool", "billiard"), ("pool", "billiard")),
    Case("celery", "celery_worker", ("pool", "billiard"), ("pool", "billiard")),
    Case(
        "distributed",
        "distributed",
        (_MP, "distributed"),
        ("join", "distributed"),
        "distributed/process.py:",
        "distributed/process.py:",
    ),
    Case("eventlet", "eventlet", ("subprocess", "eventlet"), ("subprocess-wait", "eventlet")),
    Case("gevent", "gevent_fork", (_MP, None), ("event-loop", "gevent"), reap_site="gevent/hub.py:"),
    Case("gevent", "gevent_subprocess", ("subprocess", "gevent"), ("event-loop", "gevent"), reap_site="gevent/hub.py:"),
    Case("gunicorn", "gunicorn_script", ("os-fork", "gunicorn"), ("library-wait", "gunicorn")),
    Case("invoke", "invoke_plain", ("subprocess", "invoke"), ("poll", "invoke")),
    Case("invoke", "invoke_terminal", ("os-fork", "invoke"), ("library-wait", "invoke")),
    Case("joblib", "joblib", ("executor", "joblib"), ("executor", "joblib"), reap_site="joblib/externals/loky/backend/"),
    Case("loky", "loky", ("executor", "loky"), ("executor", "loky"), reap_site="loky/backend/"),
    Case("multiprocess", "multiprocess", (_MP, "multiprocess"), ("join", "multiprocess")),
    Case("multiprocess", "multiprocess_sweep", (_MP, "multiprocess"), ("next-start", "multiprocess")),
    Case("paramiko", "paramiko", ("subprocess", "paramiko"), ("subprocess-wait", None)),
    Case("pexpect", "pexpect", ("os-fork", "ptyprocess"), ("library-wait", "ptyprocess")),
    Case("plumbum", "plumbum", ("subprocess", "plumbum"), ("subprocess-wait", "plumbum")),
    Case("psutil", "psutil_popen", ("subprocess", "psutil"), ("library-wait", "psutil")),
    Case("psutil", "psutil_process", ("os-fork", None), ("library-wait", "psutil")),
    Case("ptyprocess", "ptyprocess", ("os-fork", "ptyprocess"), ("library-wait", "ptyprocess")),
    Case("rq", "rq", ("os-fork", "rq"), ("library-wait", "rq")),
    Case("sh", "sh", ("os-fork", "sh"), ("library-wait", "sh")),
    Case("tornado", "tornado", ("subprocess", "tornado"), ("event-loop", "tornado")),
    Case("trio", "trio", ("subprocess", "trio"), ("event-loop", "trio"), fork_site="trio/_threads.py:"),
    Case("twisted", "twisted", ("posix-spawn", "twisted"), ("event-loop", "twisted")),
    Case("uvloop", "uvloop", ("asyncio", None), ("asyncio", "uvloop")),
)
GUNICORN = Case(
    "gunicorn", "", ("os-fork", "gunicorn"), ("library-wait", "gunicorn"), *["gunicorn/arbiter.py:"] * 2
)  # by its own script
ADVISED = [case for case in CASES if case.program in ("celery_worker", "distributed", "joblib", "rq")]


def environment_of(venv: str) -> Path:
    """The virtual environment with a library, made the first time."""
    folder = VENVS / venv
    if not (folder / ".ok").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, *PACKAGES.get(venv, (venv,))], check=True, timeout=INSTALL_S)
        (folder / ".ok").touch()
    return folder


def marked(program: Path, mark: str) -> str:
    """The place of the line that ends in `# MARK`, as sites begin; "" where no line is certain."""
    lines = program.read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if re.search(rf"# {mark}\b", line)]
    return f"{program.name}:{numbers[0]} " if numbers else ""


def made_at(table: pd.DataFrame, site: str) -> pd.DataFrame:
    """The processes that were made there and were no helpers; what a library asks the machine at its import is none of ours."""
    here = table["fork_site"].str.startswith(site).fillna(False) & helpers(table).isna()
    return table[here & ~table["argv"].str.contains("ldconfig|uname", regex=True).fillna(False)]


def check(case: Case, recorded: Recorded) -> None:
    """Compare the processes of a recording with what is right."""
    program = PROGRAMS / f"use_{case.program}.py"
    assert recorded.returncode == 0, recorded.stderr
    rows = made_at(recorded.recording.lifecycles(), case.fork_site or marked(program, "forks"))
    assert len(rows), recorded.recording.lifecycles()[["fork_site", "argv", "created_by"]].to_string()
    for row in rows.itertuples():
        assert (row.created_by, _none(row.fork_library)) == case.made
        assert (row.reap_cause, _none(row.reap_library)) == case.reaped
        assert str(row.reap_site).startswith(case.reap_site or marked(program, "reaps"))


@pytest.mark.parametrize("case", CASES, ids=[case.program for case in CASES])
def test_library(case: Case, record: Callable[..., Recorded]) -> None:
    """What made a process, the line for it, who reaped it, why, and the library in between."""
    python = environment_of(case.venv) / "bin" / "python"
    check(case, record([str(python), "-B", str(PROGRAMS / f"use_{case.program}.py")]))


def test_gunicorn_by_its_own_script(record: Callable[..., Recorded]) -> None:
    """The package is the program then: its lines are named, and it is the package that waits."""
    script, settings = environment_of("gunicorn") / "bin" / "gunicorn", PROGRAMS / "gunicorn_app.py"
    recorded = record([str(script), "-c", str(settings), "--chdir", str(PROGRAMS), "gunicorn_app:app"])
    check(GUNICORN, recorded)


@pytest.mark.parametrize("case", ADVISED, ids=[case.venv for case in ADVISED])
def test_what_users_are_advised(case: Case, record: Callable[..., Recorded]) -> None:
    """With what `why` says that users of a package can set themselves, the same program makes none of these processes."""
    program = PROGRAMS / f"use_{case.program}.py"
    recorded = record([str(environment_of(case.venv) / "bin" / "python"), "-B", str(program), "advised"])
    assert recorded.returncode == 0, recorded.stderr
    assert made_at(recorded.recording.lifecycles(), case.fork_site or marked(program, "forks")).empty


def test_every_advice_is_tried() -> None:
    """Of each package, and of billiard by Celery, which uses it."""
    assert {case.venv for case in ADVISED} | {"billiard"} == set(explanations.texts()["package"])


def _none(value: object) -> object:
    return None if value is pd.NA else value


FROZEN = PROGRAMS / "use_pyinstaller.py"
FROZEN_LINES = {
    f"{FROZEN.name}:{number} ": match.groups()
    for number, line in enumerate(FROZEN.read_text().splitlines(), 1)
    if (match := re.search(r"# (\S+) (\S+)$", line))
}


@pytest.mark.parametrize("kind", ["onedir", "onefile"])
def test_frozen_programs(kind: str, record: Callable[..., Recorded], open_folder: Path) -> None:
    """One that PyInstaller froze has its lines and causes, also where it unpacks itself first and runs in a child."""
    freeze = [
        environment_of("pyinstaller") / "bin" / "pyinstaller",
        f"--{kind}",
        "--distpath",
        kind,
        "--log-level",
        "ERROR",
        FROZEN,
    ]
    subprocess.run(freeze, cwd=open_folder, check=True, timeout=INSTALL_S)
    program = open_folder / kind / FROZEN.stem
    recorded = record([str(program / FROZEN.stem if kind == "onedir" else program)])
    assert recorded.returncode == 0, recorded.stderr
    table = recorded.recording.lifecycles()
    for site, right in FROZEN_LINES.items():
        rows = made_at(table, site)
        assert set(zip(rows["created_by"], rows["reap_cause"], strict=True)) == {right}, site
