"""Metrics of real recordings: equal to the tables in the end, made without rights, and nothing that a recording depends on."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from people import somebody
from recorded import DEBIAN, PATIENCE_S, WORKLOADS, Recorded, children, forktrace_command, wait_until
from tallied import of_tables, samples

import forktrace

pytestmark = pytest.mark.root

Record = Callable[..., Recorded]
LEAVES = "import os, time; [os.fork() or os._exit(0) for _ in range(5)]; time.sleep({})"


def test_equal_to_the_tables(record: Record, workload: Callable[[str], str], open_folder: Path, tmp_path: Path) -> None:
    """Two workers make processes in every way, as fast as they can: the last figures are those of the recording's tables."""
    path = tmp_path / "mixed.prom"
    program = [sys.executable, str(WORKLOADS / "mixed.py"), "20", workload("reaps"), str(open_folder)]
    recorded = record(program, "--metrics", str(path))
    assert recorded.returncode == 0, recorded.stderr
    wanted, found = of_tables(recorded.recording), samples(path.read_text())
    assert wanted.forks > 1000
    assert len(wanted.reaps) > 5
    assert found.pop(("forktrace_zombie_seconds_sum", "mixed")) == pytest.approx(wanted.seconds)
    assert found.pop(("forktrace_forks_total", "mixed")) == wanted.forks
    assert found.pop(("forktrace_zombie_seconds_count", "mixed")) == sum(wanted.durations)
    assert found.pop(("forktrace_stolen_total", "mixed")) == wanted.stolen
    assert found.pop(("forktrace_lost_events_total", "mixed")) == wanted.lost.total()
    assert found.pop(("forktrace_zombies", "mixed")) == wanted.zombies.total()
    assert found.pop(("forktrace_recording", "mixed")) == 0
    reaps = {key[1:3]: value for key, value in found.items() if key[0] == "forktrace_reaps_total"}
    assert reaps == dict(wanted.reaps)


def test_by_the_user_beside_roots_recorder(record: Record, open_folder: Path) -> None:
    """The file is the user's for whom root records, and readable for everybody; it has what was never reaped."""
    with somebody(open_folder) as person, tempfile.TemporaryDirectory(dir=person.home) as folder:
        person.owns(Path(folder))
        path = Path(folder, "leak.prom")
        recorded = record([DEBIAN, "-c", LEAVES.format(1)], "--metrics", str(path), "--user", person.name)
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (person.uid, 0o644), recorded.stderr
        assert of_tables(recorded.recording).forks == 5
        assert samples(path.read_text())["forktrace_forks_total", os.path.basename(DEBIAN)] == 5


def test_what_is_in_the_way_is_a_line(record: Record, tmp_path: Path) -> None:
    """A directory that is not there and a port that is taken are said, and the command ends as it ends."""
    path = tmp_path / "textfile/x.prom"
    recorded = record(["/bin/sh", "-c", "exit 3"], "--metrics", str(path), "--metrics-port", "0.0.0.0:1")
    assert recorded.returncode == 3
    assert f"forktrace: {path}: No such file or directory: no metrics are written there" in recorded.stderr
    assert "Traceback" not in recorded.stderr


def test_the_recording_goes_on_without_it(open_folder: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    """When the metrics process is killed, that is said, and the recording is whole."""
    path, trace = tmp_path / "x.prom", tmp_path / "x.arrows"
    command = ["record", "-o", str(trace), "--metrics", str(path), "--", sys.executable, "-c", LEAVES.format(5)]
    with subprocess.Popen(forktrace_command(*command), env=environment, stderr=subprocess.PIPE, text=True) as recording:
        wait_until(path.exists, "the first metrics")
        os.kill(children(recording.pid)[-1], signal.SIGKILL)  # after the recorder and the command
        _, said = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0
    assert "forktrace: the metrics process has ended; the recording goes on\n" in said
    recorded = Recorded(trace, 0, "", said)
    recorded.assert_whole()
    assert of_tables(recorded.recording).forks == 5


def test_of_what_runs_already(open_folder: Path, environment: Mapping[str, str], tmp_path: Path) -> None:
    """With -p too: Ctrl-C ends the recording, and the last metrics are written before record ends."""
    path, trace = tmp_path / "x.prom", tmp_path / "x.arrows"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2);" + LEAVES.format(100)]) as program:
        command = ["record", "-q", "-o", str(trace), "--metrics", str(path), "-p", str(program.pid)]
        with subprocess.Popen(forktrace_command(*command), env=environment, stderr=subprocess.PIPE, text=True) as recording:
            wait_until(lambda: path.exists() and len(children(program.pid)) == 5, "the zombies")
            recording.send_signal(signal.SIGINT)
            _, said = recording.communicate(timeout=PATIENCE_S)
        program.kill()
    assert recording.returncode == 0, said
    found = samples(path.read_text())
    assert {key[0]: value for key, value in found.items() if key[0] in ("forktrace_recording", "forktrace_zombies")} == {
        "forktrace_recording": 0,
        "forktrace_zombies": 5,
    }


def test_counters_go_on_over_a_turn(environment: Mapping[str, str], tmp_path: Path) -> None:
    """Of a rotation with a file a second they are those of all files together, as one recording."""
    path, folder = tmp_path / "x.prom", tmp_path / "traces"
    program = "import os, time\nfor _ in range(600):\n os.fork() or os._exit(0)\n _ % 7 and os.wait()\n time.sleep(0.01)"
    command = ["record", "-q", "-o", str(folder), "--rotate", "1s", "--metrics", str(path), "--", sys.executable, "-c", program]
    done = subprocess.run(
        forktrace_command(*command), env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("*.arrows"))) > 3
    wanted, found = of_tables(forktrace.read(folder)), samples(path.read_text())
    target = os.path.basename(sys.executable)
    assert found["forktrace_forks_total", target] == wanted.forks == 600
    assert {key[1:3]: value for key, value in found.items() if key[0] == "forktrace_reaps_total"} == dict(wanted.reaps)
    assert found["forktrace_zombie_seconds_sum", target] == pytest.approx(wanted.seconds)
    assert found["forktrace_lost_events_total", target] == wanted.lost.total() == 0
