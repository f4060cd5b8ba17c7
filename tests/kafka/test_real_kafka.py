"""Scene kafka on a real Apache Kafka broker, for `make test-kafka`: Maven brings it, and it lives as long as these tests."""

from __future__ import annotations

import re
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from consumed import Consumed
from recorded import MARK, PATIENCE_S, forktrace_command, processes_with, wait_until

import forktrace

pytestmark = [pytest.mark.root, pytest.mark.kafka]

BURST = 200
FETCH_S, START_S = 600, 120  # at most
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"  # a number in Kafka's writing
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{control}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
"""


def free_ports() -> tuple[int, int]:
    """Two ports that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def answers(port: int) -> bool:
    """Say whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def topics_of(broker: str) -> list[str]:
    """The topics that a broker has from demos."""
    from confluent_kafka.admin import AdminClient

    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=PATIENCE_S).topics
    return [name for name in topics if name.startswith("forktrace-demo-")]


@pytest.fixture(scope="module")
def java(open_folder: Path) -> list[str]:
    """The beginning of a command line that runs a class of Apache Kafka; it dies with the tests, whatever ends them."""
    jars = open_folder / "jars"
    fetch = ["mvn", "-q", "-B", "-f", str(Path(__file__).with_name("pom.xml")), PLUGIN, f"-DoutputDirectory={jars}"]
    done = subprocess.run(fetch, capture_output=True, text=True, timeout=FETCH_S, check=False)
    assert done.returncode == 0, f"Maven did not bring Apache Kafka:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return ["setpriv", "--pdeathsig=SIGKILL", "java", "-Xmx512m", "-cp", f"{jars}/*"]


@pytest.fixture(scope="module")
def broker(java: list[str], open_folder: Path) -> Iterator[str]:
    """The address of a broker that has nothing yet."""
    port, control = free_ports()
    settings, log = open_folder / "server.properties", open_folder / "broker.log"
    settings.write_text(SETTINGS.format(port=port, control=control, folder=open_folder))
    form = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(settings)]
    done = subprocess.run(form, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 0, f"the broker's directory could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    with log.open("wb") as output:
        process = subprocess.Popen([*java, "kafka.Kafka", str(settings)], stdout=output, stderr=output)
    try:
        wait_until(lambda: answers(port) or process.poll() is not None, "the broker answers", START_S)
        assert process.poll() is None, f"the broker ended with {process.returncode}"
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        print(log.read_text()[-4000:])  # which pytest shows when anything went wrong


@pytest.fixture(scope="module")
def done(broker: str, open_folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One finished demo on that broker; its files are `real.arrows` and `real.png` in `open_folder`."""
    mark = str(uuid.uuid4())
    ran = subprocess.run(
        forktrace_command("demo", "kafka", "--bootstrap-servers", broker, "--burst", str(BURST), "-o", "real"),
        env=dict(environment) | {MARK: mark},
        cwd=open_folder,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )
    assert not processes_with(f"{MARK}={mark}")
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def consumed(done: subprocess.CompletedProcess[str], open_folder: Path) -> Consumed:
    """What was recorded."""
    return Consumed(forktrace.read(open_folder / "real.arrows"), BURST)


def test_one_child_per_message(consumed: Consumed) -> None:
    """As many children as messages, all of them zombies for a while, all seen completely."""
    consumed.assert_one_child_per_message()


def test_single_zombies_last_until_the_next_start(consumed: Consumed) -> None:
    """Phenomenon (a), with messages of a real broker."""
    consumed.assert_singles_last_until_the_next_start()


def test_one_start_clears_200_zombies(consumed: Consumed) -> None:
    """Phenomenon (b): two hundred zombies at once, all reaped inside the one next start, and none between."""
    consumed.assert_one_start_clears_the_burst()


def test_the_last_one_is_reaped_at_the_end(consumed: Consumed) -> None:
    """No start follows the last child: the exiting consumer reaps it."""
    consumed.assert_the_last_is_reaped_at_the_end()


def test_report_says_it_in_words(done: subprocess.CompletedProcess[str]) -> None:
    """The burst is one sentence."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).split())
    assert f"and {BURST - 3} more were zombies for up to" in text
    assert f"at most {BURST} at once" in text


def test_the_topic_is_deleted(done: subprocess.CompletedProcess[str], broker: str) -> None:
    """The broker has nothing of the demo afterwards."""
    assert re.search(rf"consumer\.py {re.escape(broker)} forktrace-demo-\S+\n", done.stderr)
    assert topics_of(broker) == []


def test_killed_demo_leaves_nothing(broker: str, open_folder: Path, environment: Mapping[str, str]) -> None:
    """Killed in the middle: the consumer is told to stop, everything ends, and then the topic is deleted."""
    mark = str(uuid.uuid4())
    demo = subprocess.Popen(
        forktrace_command("demo", "kafka", "--bootstrap-servers", broker, "-o", "killed"),
        env=dict(environment) | {MARK: mark}, cwd=open_folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert demo.stderr
    with demo.stderr:
        assert any("is done" in line for line in demo.stderr)
        assert len(topics_of(broker)) == 1
        demo.kill()
        demo.wait()
    wait_until(lambda: not processes_with(f"{MARK}={mark}"), "every process of the demo has ended")
    assert topics_of(broker) == []
    assert forktrace.read(open_folder / "killed.arrows").cut is None
