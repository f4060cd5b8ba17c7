"""`forktrace check` and `record --check` as they are typed: statuses, files, formats, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from traces import HEADER, MS, target, work

from forktrace.trace import events as ev
from forktrace.trace import stream

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")} | {"PYTHONPATH": str(ROOT)}


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run forktrace as a user does."""
    line = [sys.executable, "-m", "forktrace", *arguments]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, check=False)


def write(path: Path, *rows: ev.Row) -> None:
    """Write a trace."""
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        writer.write(stream.batch_of([*rows, ev.end(max(row["time_ns"] for row in rows))]))
        writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory that is the top of a repository, with a trace whose zombie lasted 495 ms, and a lossy one."""
    (tmp_path / ".git").mkdir()
    write(tmp_path / "run.arrows", target(), *work(1, 1, 5, 500), ev.exit_(600 * MS, 100, parent=50))
    write(tmp_path / "lossy.arrows", target(), *work(1, 1, 5, 500), ev.lost(600 * MS, 3, "reap"))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["run.arrows", "--max-zombie", "500ms"], 0),
        (["run.arrows", "--max-zombie", "490ms"], 1),
        (["lossy.arrows", "--max-zombie", "500ms"], 66),
        (["lossy.arrows", "--max-zombie", "490ms"], 1),
        (["lossy.arrows", "--max-failed-forks", "0"], 0),
        (["run.arrows", "--max-zombie", "490ms", "--allow", "consume"], 0),
        (["run.arrows", "--max-zombie", "490ms", "--baseline", "run.arrows"], 0),
        (["run.arrows", "--max-zombie", "490ms", "--of", "1"], 1),
        (["run.arrows", "--max-zombie", "490ms", "--of", "100"], 1),
        (["run.arrows"], 2),
        (["run.arrows", "--baseline", "run.arrows"], 2),
        (["run.arrows", "--allow", "f"], 2),
        (["run.arrows", "--max-zombies", "5s"], 2),
        (["run.arrows", "--max-zombi", "5s"], 2),
        (["run.arrows", "--max-zombie", "490ms", "--map", "x"], 2),
        (["run.arrows", "--max-zombie", "490ms", "--of", "77"], 2),
        (["run.arrows", "--max-zombie", "490ms", "-o", "run.arrows", "--format", "json"], 2),
        ([".git", "--max-zombie", "490ms"], 65),
        (["none.arrows", "--max-zombie", "490ms"], 70),
        (["run.arrows", "--max-zombie", "490ms", "-o", "none/x", "--format", "json"], 70),
        (["bad.arrows", "--max-zombie", "490ms"], 65),
        (["run.arrows", "--max-zombie", "490ms", "--baseline", "bad.arrows"], 65),
    ],
)
def test_statuses(folder: Path, arguments: list[str], status: int) -> None:
    """0 holds, 1 broken, 66 cannot be told, 2 usage, 65 bad trace, 70 its own failure: never 0 or 1 for another reason."""
    (folder / "bad.arrows").write_bytes(b"hello")
    done = run(folder, "check", *arguments)
    assert done.returncode == status, done.stderr
    complaint = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert (status not in (2, 65, 70)) or (complaint[0].startswith("forktrace: ") and len(complaint) <= 2)
    assert bool(done.stdout) == (status in (0, 1, 66))


def test_whatever_breaks_inside_is_70(folder: Path) -> None:
    """A defect is neither a limit that holds nor one that is broken."""
    program = (
        "from forktrace.analysis.gate import verdict\n"
        "def judge(*_): raise RuntimeError('a defect')\n"
        "verdict.judge = judge\n"
        "from forktrace.cli import main; main()"
    )
    line = [sys.executable, "-c", program, "check", "run.arrows", "--max-zombies", "0"]
    done = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (70, "forktrace: check failed: a defect\n")


def test_a_file_names_limits_and_options_beat_it(folder: Path) -> None:
    """forktrace.toml; then an option for the same limit; the other limits of the file go on."""
    (folder / "forktrace.toml").write_text('[check]\nmax-zombie = "490ms"\nmax-stolen = 0\n')
    assert run(folder, "check", "run.arrows").returncode == 1
    done = run(folder, "check", "run.arrows", "--max-zombie", "1s")
    assert done.returncode == 0
    assert "max-stolen 0" in done.stdout
    (folder / "forktrace.toml").write_text(
        '[check]\nmax-zombie = "490ms"\nallow = [{ site = "consume", reason = "on purpose" }]\n'
    )
    done = run(folder, "check", "run.arrows")
    assert done.returncode == 0
    assert "allowed: 1 process of consume: on purpose" in done.stdout
    (folder / "forktrace.toml").write_text("[check]\nmax-zombi = 1\n")
    done = run(folder, "check", "run.arrows", "--max-zombie", "1s")
    assert (done.returncode, "forktrace.toml: max-zombi" in done.stderr) == (2, True)


@pytest.mark.parametrize("form", ["text", "json", "junit", "github", "sarif"])
def test_a_verdict_goes_to_a_file(folder: Path, form: str) -> None:
    """The same as on stdout, and the status stays."""
    shown = run(folder, "check", "run.arrows", "--max-zombies", "0", "--format", form, COLUMNS="100")
    done = run(folder, "check", "run.arrows", "--max-zombies", "0", "--format", form, "-o", "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert (folder / "out").read_text() == shown.stdout != ""


def test_github_gets_a_summary_beside_the_errors(folder: Path) -> None:
    """What its environment names: the checkout, and the file of the step's summary."""
    summary = folder / "summary"
    summary.write_text("before\n")
    arguments = ("check", "run.arrows", "--max-zombies", "0", "--format", "github")
    done = run(folder, *arguments, GITHUB_STEP_SUMMARY=str(summary), GITHUB_WORKSPACE="/srv")
    assert done.stdout.startswith("::error file=consumer.py,line=33,")
    assert summary.read_text().startswith("before\n### forktrace check: the limit is broken\n")


def test_root_and_map_say_where_files_lie(folder: Path) -> None:
    """Else paths are relative to the top of the repository."""

    def path(*options: str) -> str:
        done = run(folder, "check", "run.arrows", "--max-zombies", "0", "--format", "json", *options)
        return str(json.loads(done.stdout)["problems"][0]["place"]["path"])

    assert path() == "/srv/consumer.py"
    assert path("--root", "/srv") == "consumer.py"
    assert path("--map", "/srv=src") == "src/consumer.py"


def recorded(folder: Path, outcome: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `forktrace record` where launching is `outcome`: statements that see the path of a trace and the options."""
    program = (
        "import sys, types, forktrace.launcher.command as command\n"
        "def record(words, options, user, written):\n"
        f"    {outcome}\n"
        "command.record = record\n"
        "from forktrace.cli import main; main()"
    )
    line = [sys.executable, "-c", program, "record", *arguments]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("outcome", "options", "status"),
    [
        ("written('run.arrows'); return 0", ["--max-zombie", "1s"], 0),
        ("written('run.arrows'); return 0", ["--max-zombie", "400ms"], 1),
        ("written('lossy.arrows'); return 0", ["--max-zombie", "1s"], 66),
        ("written('run.arrows'); return 3 << 8", ["--max-zombie", "400ms"], 3),
        ("written('run.arrows'); return 9", ["--max-zombie", "400ms"], -9),
        ("written('bad.arrows'); return 0", ["--max-zombie", "400ms"], 125),
        ("written('run.arrows'); return 0", ["--max-zombie", "400ms", "--baseline", "run.arrows"], 0),
        ("written('run.arrows'); return 0", ["--max-zombie", "400ms", "--allow", "consume"], 0),
        ("raise SystemExit('recorded')", [], 125),
        ("raise SystemExit('recorded')", ["--max-zombies", "5s"], 125),
        ("raise SystemExit('recorded')", ["--max-zombies", "5", "-o", "-"], 125),
    ],
)
def test_record_and_check_in_one(folder: Path, outcome: str, options: list[str], status: int) -> None:
    """The command's own failure wins; a mistake is told before anything is recorded."""
    (folder / "bad.arrows").write_bytes(b"hello")
    done = recorded(folder, outcome, "--check", *options, "true")
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert ("run.arrows: the limit is broken" in done.stderr) == (status == 1)
    assert "recorded" not in done.stderr


def test_record_takes_the_limits_of_the_file(folder: Path) -> None:
    """And limits without --check are a mistake."""
    (folder / "forktrace.toml").write_text('[check]\nmax-zombie = "400ms"\n')
    assert recorded(folder, "written('run.arrows'); return 0", "--check", "true").returncode == 1
    done = recorded(folder, "written('run.arrows'); return 0", "--max-zombie", "1s", "true")
    assert (done.returncode, done.stderr) == (125, "forktrace: limits are for record --check\n  add --check\n")
    assert recorded(folder, "assert written is None; return 0", "true").returncode == 0


def test_quiet_says_nothing_when_all_holds(folder: Path) -> None:
    """What is broken is said all the same."""
    outcome = "written('run.arrows'); return 0"
    assert recorded(folder, outcome, "-q", "--check", "--max-zombie", "1s", "true").stderr == ""
    assert "broken" in recorded(folder, outcome, "-q", "--check", "--max-zombie", "1ms", "true").stderr
