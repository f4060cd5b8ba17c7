"""The scenes and what runs them, without recording anything."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from recorded import PATIENCE_S, wait_until

from forktrace.cli import demonstration
from forktrace.errors import ForktraceError, MachineLacks, UsageError
from forktrace.scenes import SCENES, Scene, scene

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
PROGRAMS = sorted({path for each in SCENES for path in (each.program, each.feeder) if path})


def imported(program: Path) -> set[str]:
    """Return the top-level modules that a program imports."""
    found = set()
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "forktrace").split(".")[0])
    return found


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_imports_nothing_of_forktrace(program: Path) -> None:
    """A scene is a program of its own, which also runs and reads alone."""
    assert "forktrace" not in imported(program)
    assert (program.read_text().splitlines() or [""])[0].startswith('"""')


def test_every_scene_is_found_by_its_name() -> None:
    """Names are unique, and each names programs that exist."""
    assert [scene(each.name) for each in SCENES] == list(SCENES)
    assert all(path.is_file() for path in PROGRAMS)


@pytest.mark.parametrize(("has_pip", "pip"), [(True, "{0} -m pip install"), (False, "uv pip install --python {0}")])
def test_missing_module_names_the_command_that_installs_it(has_pip: bool, pip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error is one line, with the pip command of this interpreter, or uv's where it has no pip."""
    lacking = scene("kafka")._replace(modules=("kafka", "no_such_module_of_anybody"))
    monkeypatch.setattr(demonstration.importlib.util, "find_spec", lambda name: has_pip if name == "pip" else None)
    with pytest.raises(MachineLacks, match="scene kafka needs kafka-python and confluent-kafka") as error:
        demonstration.check_modules(lacking)
    assert error.value.hint == f"{pip.format(sys.executable)} kafka-python confluent-kafka"


def test_demo_without_the_extra_ends_with_78(tmp_path: Path) -> None:
    """`forktrace demo kafka` without kafka-python: one clear line, status 78, no file."""
    hide = "import sys; sys.modules['kafka'] = None; from forktrace.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", hide, "demo", "kafka"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert ran.returncode == 78
    assert ran.stderr.splitlines() == [
        "forktrace: scene kafka needs kafka-python and confluent-kafka",
        f"  {sys.executable} -m pip install kafka-python confluent-kafka",
    ]
    assert not list(tmp_path.iterdir())


def test_demo_list_names_every_scene() -> None:
    """`forktrace demo --list` prints a line per scene on stdout, with what it needs, whatever is installed."""
    ran = subprocess.run(
        [sys.executable, "-m", "forktrace", "demo", "--list"], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert [line.split()[0] for line in ran.stdout.splitlines()] == [each.name for each in SCENES]
    assert "needs kafka-python and confluent-kafka" in ran.stdout
    assert ran.stderr == ""


def test_default_scene_is_the_first_that_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka where its modules are; else the next that needs none; kafka, and so what it needs, when nothing runs."""
    kafka, bare = scene("kafka")._replace(modules=("json",)), Scene("bare", "", Path("bare.py"))
    lacking = kafka._replace(modules=("no_such_module_of_anybody",))
    for scenes, expected in (((kafka, bare), kafka), ((lacking, bare), bare), ((lacking,), lacking)):
        monkeypatch.setattr(demonstration, "SCENES", scenes)
        assert demonstration.default_scene() == expected


def test_default_scene_without_the_extra_is_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kafka-python the demo shows two processes that need nothing."""
    monkeypatch.setitem(sys.modules, "kafka", None)
    assert demonstration.default_scene() == scene("start")


def test_present_modules_pass() -> None:
    """What can be imported is not missed."""
    demonstration.check_modules(scene("kafka")._replace(modules=("sys", "json")))


def test_existing_output_is_not_overwritten(tmp_path: Path) -> None:
    """An output file that exists is named, with the option that overwrites it."""
    taken = tmp_path / "taken.png"
    demonstration.check_absent(taken)
    taken.touch()
    with pytest.raises(UsageError, match=r"taken\.png exists") as error:
        demonstration.check_absent(tmp_path / "free.arrows", taken)
    assert "--force" in error.value.hint


def test_only_a_scene_that_is_fed_takes_a_broker() -> None:
    """`--bootstrap-servers` for a scene without a feeder is an error, not ignored."""
    options = ["--bootstrap-servers", "localhost:9092"]
    demonstration.check_feeder(scene("kafka"), options)
    demonstration.check_feeder(Scene("bare", "", Path("bare.py")), [])
    with pytest.raises(UsageError, match="scene bare takes no --bootstrap-servers"):
        demonstration.check_feeder(Scene("bare", "", Path("bare.py")), options)


# A scene of its own: the feeder hands out one argument, then copies what it hears; it ends when its stdin does.
FEEDER = """
import os, pathlib, sys
pathlib.Path("feeder.pid").write_text(str(os.getpid()))
print("one", *sys.argv[1:], flush=True)
pathlib.Path("heard").write_text(sys.stdin.read())
"""
RECORDER = """
import os, pathlib, sys, time
pathlib.Path("recorder.pid").write_text(str(os.getpid()))
print("hello", flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene whose recording is a program of the test: `recorder.py` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "_forktrace", lambda: [sys.executable, "recorder.py"])
    Path("feeder.py").write_text(FEEDER)
    return Scene("stand-in", "", Path("program.py"), Path("feeder.py"))


def alive(file: str) -> bool:
    """Say whether the process whose number is in the file runs or is a zombie."""
    return Path("/proc", Path(file).read_text()).exists()


def test_the_feeder_hears_the_scene(stand_in: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scene prints reaches the feeder and the reader; the recorder's status comes back; nobody is left."""
    monkeypatch.setattr(demonstration, "FEEDER_PATIENCE_S", PATIENCE_S)
    Path("recorder.py").write_text(RECORDER + "sys.exit(7)")
    said: list[str] = []
    assert demonstration.record_scene(stand_in, Path("t.arrows"), speed=2, force=True, say=said.append) == 7
    assert said[0].startswith("forktrace record -o t.arrows --force -- ")
    assert said[0].endswith(" program.py one --speed 2")
    assert said[1:] == ["hello"]
    assert Path("heard").read_text() == "hello\n"
    assert not alive("feeder.pid")
    assert not alive("recorder.pid")


def test_the_feeder_takes_options(stand_in: Scene) -> None:
    """What is meant for the feeder follows its speed."""
    Path("recorder.py").write_text(RECORDER)
    said: list[str] = []
    demonstration.record_scene(stand_in, Path("t.arrows"), speed=2, force=False, say=said.append, feeding=["--burst", "7"])
    assert said[0].endswith(" program.py one --speed 2 --burst 7")


def test_scene_without_a_feeder(stand_in: Scene) -> None:
    """The program itself gets the speed."""
    Path("recorder.py").write_text(RECORDER)
    said: list[str] = []
    alone = stand_in._replace(feeder=None)
    assert demonstration.record_scene(alone, Path("t.arrows"), speed=2, force=False, say=said.append) == 0
    assert said[0].endswith(" program.py --speed 2")
    assert said[1:] == ["hello"]
    assert not Path("feeder.pid").exists()
    assert not alive("recorder.pid")


def test_failure_leaves_nobody_behind(stand_in: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """When anything fails in the middle, recorder and feeder are ended all the same."""
    Path("recorder.py").write_text(RECORDER + "time.sleep(3600)")

    def fail(line: str) -> None:
        if line == "hello":
            raise KeyboardInterrupt

    monkeypatch.setattr(demonstration, "PATIENCE_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        demonstration.record_scene(stand_in, Path("t.arrows"), speed=1, force=False, say=fail)
    assert not alive("feeder.pid")
    assert not alive("recorder.pid")


def test_feeder_that_does_not_start(stand_in: Scene) -> None:
    """A feeder that says nothing is an error, and nothing is recorded."""
    Path("feeder.py").write_text("")
    with pytest.raises(ForktraceError, match=r"feeder\.py did not start"):
        demonstration.record_scene(stand_in, Path("t.arrows"), speed=1, force=False, say=print)
    assert not Path("recorder.pid").exists()


def test_schedule_of_the_kafka_scene() -> None:
    """Single messages, a burst, one more; speed divides all but the time that the machine needs to start a big burst."""
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    from forktrace.scenes.broker import schedule

    small, big = schedule(5, 1), schedule(200, 10)
    assert [(len(tasks), pause_s) for tasks, pause_s in small] == [(1, 1.2)] * 3 + [(5, 1.5), (1, 0.5)]
    assert small[3][0] == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])
    assert [pause_s for _, pause_s in big] == pytest.approx([0.12] * 3 + [0.15, 0.05])
    assert (min(big[3][0]), max(big[3][0])) == pytest.approx((16, 16.04))
    assert schedule(1, 1)[3][0] == [0.4]


def test_client_that_delivers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one sends what it did not, once."""
    kafka = pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    from forktrace.scenes import broker

    monkeypatch.setattr(broker, "PATIENCE_S", 3.0)
    topic = broker.Topic(None)
    topic.send("1")
    stuck = kafka.Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    monkeypatch.setattr(topic, "_client", stuck)
    topic.send("2", "3")
    reader = kafka.Consumer({"bootstrap.servers": topic.servers, "group.id": "test", "log_level": 0})
    assert reader.get_watermark_offsets(kafka.TopicPartition(topic.name, 0), timeout=PATIENCE_S) == (0, 3)
    reader.close()


def test_broker_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names it."""
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    from forktrace.scenes import broker

    monkeypatch.setattr(broker, "CONNECT_S", 0.5)
    monkeypatch.setattr(sys, "argv", ["broker.py", "--bootstrap-servers", "127.0.0.1:1"])
    with pytest.raises(SystemExit, match=r"^127\.0\.0\.1:1: \w+"):
        broker.main()


def start_broker(speed: str) -> subprocess.Popen[str]:
    """Start the embedded broker of the kafka scene."""
    command = [sys.executable, str(scene("kafka").feeder), "--speed", speed]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start_consumer(arguments: list[str]) -> subprocess.Popen[str]:
    """Start the consumer of the kafka scene."""
    return subprocess.Popen([sys.executable, str(scene("kafka").program), *arguments], stdout=subprocess.PIPE, text=True)


def start_kafka() -> tuple[subprocess.Popen[str], IO[str], subprocess.Popen[str], IO[str]]:
    """Start both; return the broker, the stdin by which it is told what happened, the consumer, and its stdout."""
    pytest.importorskip("kafka", reason="kafka-python is missing")
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    broker = start_broker("1")
    assert broker.stdin
    assert broker.stdout
    consumer = start_consumer(broker.stdout.readline().split())
    assert consumer.stdout
    return broker, broker.stdin, consumer, consumer.stdout


def zombies_of(parent: int) -> set[int]:
    """Return the numbers of the zombies whose parent is `parent`, from /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            found |= {int(entry.name)} if state == "Z" and int(ppid) == parent else set()
    return found


def wait_for_zombie(pid: int, parent: int) -> set[int]:
    """Wait until `pid` is a zombie; return all zombies of its parent."""
    wait_until(lambda: pid in zombies_of(parent), f"{pid} is a zombie")
    return zombies_of(parent)


def test_kafka_shows_both_phenomena() -> None:
    """Run bare: each single child is a zombie until the next start, and one start clears the whole burst."""
    broker, told, consumer, said = start_kafka()
    started: list[int] = []
    left: list[set[int]] = []  # of those before, when one starts
    seen: list[set[int]] = []  # of all, when one has ended
    try:
        for line in said:
            if "works" in line:
                left.append(zombies_of(consumer.pid) & set(started))
                started.append(int(line.split()[0]))
            if "is done" in line:
                seen.append(wait_for_zombie(int(line.split()[0]), consumer.pid))
            print(line, end="", file=told, flush=True)
        assert consumer.wait(PATIENCE_S) == 0
        told.close()
        assert broker.wait(PATIENCE_S) == 0
    finally:
        for process in (consumer, broker):
            process.kill()
            process.wait()
    singles, burst, last = started[:3], started[3:8], started[8:]
    assert seen[:3] == [{pid} for pid in singles]
    assert left[:4] == [set()] * 4
    assert seen[7] == set(burst)
    assert left[8:] == [set()]
    assert seen[8:] == [set(last)]


# Loses what the consumer wishes to know of its topic, as kafka-python 3 does when an answer to it is under way then.
FORGETFUL = """
import sys, time
from kafka.cluster import ClusterMetadata
from kafka.future import Future

def set_topics(self, topics):
    self.request_update()
    while self.need_update:
        time.sleep(0.01)
    self._topics = set(topics)
    print("forgot", file=sys.stderr, flush=True)
    return Future()

ClusterMetadata.set_topics = set_topics
sys.path.insert(0, {directory!r})
from consumer import consume
print(next(consume({servers!r}, "tasks", (0, 10), 60)))
"""


def test_consumer_that_lost_its_topic() -> None:
    """It asks again within a second, not in the five minutes that kafka-python waits unless told otherwise."""
    pytest.importorskip("kafka", reason="kafka-python is missing")
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    from forktrace.scenes import broker

    topic = broker.Topic(None)
    topic.send("0.3")
    program = FORGETFUL.format(directory=str(scene("kafka").program.parent), servers=topic.servers)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert (done.stdout, done.stderr) == ("0.3\n", "forgot\n")


INTERRUPTED = """
import contextlib, multiprocessing.process, os, signal, sys, time
sys.path.insert(0, {directory!r})
import fixes

wait, mask, fork = os.waitpid, signal.pthread_sigmask, os.fork
alive, children, due = [], [], [signal.SIGCHLD]

def waitpid(pid, options):  # who was alive ends before the next is asked for
    for each in tuple(alive):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, each, os.WEXITED | os.WNOWAIT)
    ended = wait(pid, options)
    if not ended[0]:
        alive.append(pid)
    return ended

def pthread_sigmask(how, signals):  # the handler runs as the first start begins
    before = mask(how, signals)
    if how == signal.SIG_BLOCK and due:
        due.pop()
        signal.getsignal(signal.SIGCHLD)(signal.SIGCHLD, None)
    return before

def forked():  # the sixth child ends last
    assert signal.SIGCHLD in mask(signal.SIG_BLOCK, ())
    children.append(fork())
    if children[5:] == [0]:
        time.sleep(0.2)
    return children[-1]

multiprocessing.process._cleanup = lambda: None  # only handlers wait
os.waitpid, signal.pthread_sigmask, os.fork = waitpid, pthread_sigmask, forked
consumer = fixes.Consumer(1)
fixes.{way}(consumer)
print(*(code for _, code in sorted(consumer.codes.items())))
"""


@pytest.mark.parametrize("way", ["fork_handler", "sigchld_handler"])
def test_handlers_are_not_interrupted_by_themselves(way: str) -> None:
    """A child that ends while the handler runs for another one is learned of as well, and a start holds the handler off."""
    program = INTERRUPTED.format(directory=str(scene("fixes").program.parent), way=way)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.stdout, done.stderr) == ("1 2 3 4 5 6 7\n", "")


def test_consumer_is_told_to_stop_when_nobody_listens() -> None:
    """When the demo dies, the broker stops the consumer by a message and is gone itself."""
    broker, told, consumer, said = start_kafka()
    try:
        print(said.readline(), end="", file=told, flush=True)
        told.close()
        assert consumer.wait(PATIENCE_S) == 0
        assert broker.wait(PATIENCE_S) == 0
    finally:
        for process in (consumer, broker):
            process.kill()
            process.wait()
