"""`forktrace demo kafka`, run as a user would: the founding article's consumer, recorded for real; also under Python 2.7."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from consumed import SINGLES, Consumed
from recorded import MARK, PATIENCE_S, forktrace_command, interpreters, processes_with, wait_until

import forktrace
from forktrace.scenes import scene
from forktrace.trace.words import duration

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def folder(open_folder: Path) -> Path:
    """An empty directory to run demos in."""
    made = open_folder / f"demo-{uuid.uuid4()}"
    made.mkdir()
    return made


@pytest.fixture
def marked(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """An environment by which everything that a demo starts is found again; nothing may be left."""
    name = str(uuid.uuid4())
    yield dict(environment) | {MARK: name}
    wait_until(lambda: not processes_with(f"{MARK}={name}"), "every process of the demo has ended")


@pytest.fixture(scope="module")
def done(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One finished demo of scene kafka; its files are `run.arrows`, `run.html` and `run.png` in `folder`."""
    pytest.importorskip("kafka", reason="kafka-python is missing")
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    name = f"{MARK}={uuid.uuid4()}"
    ran = subprocess.run(
        forktrace_command("demo", "kafka", "-o", "run"),
        env=dict(environment) | {MARK: name.partition("=")[2]},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not processes_with(name)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def consumed(done: subprocess.CompletedProcess[str], folder: Path) -> Consumed:
    """What was recorded."""
    return Consumed(forktrace.read(folder / "run.arrows"))


def test_one_child_per_message(consumed: Consumed) -> None:
    """Nine messages, nine children, all of them zombies for a while, all seen completely."""
    consumed.assert_one_child_per_message()


def test_single_zombies_last_until_the_next_start(consumed: Consumed) -> None:
    """Phenomenon (a): each is cleared by the next start, and was a zombie all the while between."""
    consumed.assert_singles_last_until_the_next_start()


def test_burst_is_cleared_by_the_one_next_start(consumed: Consumed) -> None:
    """Phenomenon (b): all zombies of the burst are reaped inside the one next start, by _cleanup, and none between."""
    consumed.assert_one_start_clears_the_burst()


def test_the_last_one_is_reaped_at_the_end(consumed: Consumed) -> None:
    """No start follows the last child: the exiting consumer reaps it."""
    consumed.assert_the_last_is_reaped_at_the_end()


def test_report_says_both_in_words(done: subprocess.CompletedProcess[str], consumed: Consumed) -> None:
    """The report names who cleared whom, and after how long."""
    children = consumed.children
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).split())
    for index in range(SINGLES):
        zombie, following = children.iloc[index], children.iloc[index + 1]
        sentence = f"{zombie['pid']} was a zombie for {duration(zombie['zombie_ms'])}, until {following['pid']} was started at"
        assert f"{sentence} consumer.py:" in text
    burst, following = consumed.burst, consumed.following
    first = ", ".join(str(pid) for pid in burst["pid"][:3])
    longest = duration(burst["zombie_ms"].max())
    assert f"{first} and 2 more were zombies for up to {longest} and were cleared together" in text
    assert f"when {following['pid']} was started" in text


def test_files_and_next_command_are_named(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """The trace and the picture are there, named on stderr with what to do next."""
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "run.arrows" in done.stderr
    assert "run.html, which any browser opens, run.arrows and run.png" in done.stderr
    assert (folder / "run.html").read_text().startswith("<!doctype html>")
    assert "forktrace why run.arrows" in done.stderr


def test_why_explains_the_finding_by_itself(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """From the line that forked through Process.start, _cleanup and poll to the wait that swept it away, and what to do."""
    command = forktrace_command("why", str(folder / "run.arrows"))
    wide = os.environ | {"COLUMNS": "200"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=wide).stdout
    assert re.search(r"forked  by \d+ consumer\.py:\d+ consume_task   process\.start\(\)\n", said), said
    assert re.search(r"consume_task > Process\.start > _cleanup > poll > waitpid\(\d+, WNOHANG\)\n", said), said
    assert "never joined; starting" in said
    assert "(next-start)" in said
    assert "join it (blocks until it ends)" in said


def test_nothing_is_overwritten(done: subprocess.CompletedProcess[str], folder: Path, environment: Mapping[str, str]) -> None:
    """A second demo of the same name, with or without the ending of a file, is refused before anything starts."""
    before = (folder / "run.arrows").read_bytes()
    again = subprocess.run(
        forktrace_command("demo", "kafka", "-o", "run.png"),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "run.arrows exists" in again.stderr
    assert (folder / "run.arrows").read_bytes() == before


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def demo_until(line_of_it: str, name: str, trace: str, folder: Path, marked: dict[str, str]) -> subprocess.Popen[str]:
    """Start a demo in a process group of its own, and return it once it has said this."""
    demo = subprocess.Popen(
        forktrace_command("demo", name, "-o", trace), env=marked, cwd=folder, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    assert demo.stderr
    for line in demo.stderr:
        if line_of_it in line:
            break
    return demo


@pytest.mark.parametrize(("name", "line_of_it"), [("kafka", "is done"), ("start", "started")])
def test_interrupted_demos_leave_nobody_behind(name: str, line_of_it: str, folder: Path, marked: dict[str, str]) -> None:
    """Ctrl-C, which a terminal sends to the whole group, and signals to the demo alone: everything it started ends."""
    if name == "kafka":
        pytest.importorskip("kafka", reason="kafka-python is missing")
        pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")

    def interrupt(number: signal.Signals) -> int:
        demo = demo_until(line_of_it, name, f"{name}-{number.name}", folder, marked)
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)
        else:
            demo.send_signal(number)
        assert demo.stderr
        demo.stderr.read()
        return demo.wait(PATIENCE_S)

    with ThreadPoolExecutor(len(SIGNALS)) as pool:
        assert 0 not in pool.map(interrupt, SIGNALS)
    wait_until(lambda: not processes_with(f"{MARK}={marked[MARK]}"), "every process of the demos has ended")
    for number in SIGNALS:
        assert forktrace.read(folder / f"{name}-{number.name}.arrows").cut is None


@pytest.fixture
def python27() -> str:
    """A Python 2.7."""
    of_pyenv = (path for name, path in interpreters().items() if name.startswith("2.7."))
    return next(of_pyenv, None) or shutil.which("python2.7") or pytest.skip("Python 2.7 is missing, on PATH and in pyenv")


@pytest.fixture
def kafka27(folder: Path) -> Path:
    """A directory with a kafka-python of 2.7's time."""
    packages = folder / "site-packages"
    install = ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=2.7", f"--target={packages}"]
    subprocess.run([sys.executable, "-m", "pip", *install, "kafka-python==1.4.7"], check=True)
    return packages


def test_kafka_under_python_2_7(python27: str, kafka27: Path, folder: Path, marked: dict[str, str]) -> None:
    """The same program in the Python and with the kafka-python of the article's time: the same findings."""
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    kafka, trace = scene("kafka"), folder / "python27.arrows"
    broker = subprocess.Popen(
        [sys.executable, str(kafka.feeder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=marked, text=True
    )
    assert broker.stdin
    assert broker.stdout
    try:
        arguments = broker.stdout.readline().split()
        consumer = ["env", f"PYTHONPATH={kafka27}", python27, "-B", str(kafka.program), *arguments]
        record = forktrace_command("record", "-q", "-o", str(trace), "--", *consumer)
        subprocess.run(record, stdout=broker.stdin, env=marked, timeout=PATIENCE_S, check=True)
        broker.stdin.close()
        assert broker.wait(PATIENCE_S) == 0
    finally:
        broker.kill()
        broker.wait()
    recording = forktrace.read(trace)
    runtimes = recording.events().query("kind == 'runtime'")
    assert runtimes["detail"].str.startswith("Python 2.7.").any()
    Consumed(recording).assert_findings()
