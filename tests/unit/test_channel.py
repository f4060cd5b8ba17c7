"""What the recorder takes from a launcher that may be anybody's, and what it does when that one does not read."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

import pytest

from forktrace.errors import ForktraceError
from forktrace.launcher.header import header
from forktrace.recorder.protocol.channel import UNSENT_MOST, Channel, pair
from forktrace.recorder.protocol.orders import Arming, Attaching, Order, decoded, encoded
from forktrace.recorder.service import serve
from forktrace.system import resource_limits
from forktrace.system.users import User

ARMING = Arming(stacks=True, attach=False, rotates=False, path="/bin", words=True, live=False)
ATTACHING = Attaching((1, 2), (3,), None, ("one",))
ATTACHED = json.loads(json.dumps(encoded(ATTACHING)))
SERVED_S = 5.0
PATIENCE_S = 30


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A test in which somebody waits for what does not come fails, and does not wait too."""

    def complain(*_: object) -> NoReturn:
        pytest.fail(f"not within {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, complain)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The launcher's end and the recorder's."""
    launchers, recorders = pair()
    with launchers, recorders:
        yield launchers, recorders


def served(launchers: socket.socket, recorders: socket.socket, who: User) -> int:
    """Start a recorder, which has its own end alone, and return its number."""
    if (pid := os.fork()) == 0:
        launchers.close()
        os._exit(serve(Channel(recorders, waits=False), who))
    recorders.close()
    return pid


def order() -> Order:
    """An order as a launcher gives it."""
    return Order(path="run.arrows", header=header(["x"], os.getpid(), "alice", {}), pid=os.getpid())


def test_orders_arrive_as_they_were() -> None:
    """What was encoded is decoded, with what lies in it."""
    attaching = dataclasses.replace(order(), pid=0, attach=ATTACHING, max_size=5)
    for made in (ARMING, order(), attaching):
        assert decoded(type(made), json.loads(json.dumps(encoded(made)))) == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": 1}, "order.path is 1"),
        ({"pid": "1"}, "order.pid is '1'"),
        ({"pid": True}, "order.pid is True"),
        ({"pid": 1 << 70}, "order.pid is"),
        ({"pid": 0}, "neither a target nor what to attach to"),
        ({"attach": encoded(order())}, "order.attach has no pids"),
        ({"attach": {"pids": "12", "never": [], "cgroup": None, "remarks": []}}, "order.attach.pids is no list"),
        ({"attach": {"pids": ["1"], "never": [], "cgroup": None, "remarks": []}}, "order.attach.pids is '1'"),
        ({"attach": []}, "order.attach is no object"),
        ({"header": []}, "order.header is"),
        ({"header": {}}, "header"),
        ({"pid": (1 << 22) + 1}, "is the number of no process"),
        ({"pid": 0, "attach": ATTACHED | {"never": [-1]}}, "-1 is the number of no process"),
        ({"pid": 0, "attach": ATTACHED | {"pids": [1] * 20_000}}, "more than 16,000 processes"),
        ({"pid": 0, "attach": ATTACHED | {"cgroup": "/x\0y"}}, "order.attach.cgroup is no text"),
        ({"search": "\ud800"}, "order.search is no text"),
        ({"max_size": "1"}, "order.max_size is '1'"),
        ({"source": 1}, "order.source is 1"),
    ],
)
def test_wrong_orders(change: dict[str, Any], said: str) -> None:
    """Each is refused in a line that says what is wrong."""
    with pytest.raises(ForktraceError, match=said) as refused:
        decoded(Order, encoded(order()) | change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("message", [None, [], 1, "arm", {}])
def test_no_orders(message: object) -> None:
    """What is no object, or has nothing in it, is none."""
    with pytest.raises(ForktraceError, match="no launcher of this forktrace"):
        decoded(Arming, message)


def test_who_does_not_read_is_not_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    """The recorder goes on, keeps the last of what it had to say, and says it as soon as it is read."""
    launchers, recorders = ends
    channel = Channel(recorders, waits=False)
    for number in range(10 * UNSENT_MOST):
        channel.send("words", text=f"{number} {'x' * 10_000}")
    launchers.setblocking(False)
    heard = []
    while True:
        try:
            heard.append(json.loads(launchers.recv(1 << 17))["text"].split()[0])
        except BlockingIOError:
            if not channel._unsent:
                break
        channel.flush()
    assert len(heard) > UNSENT_MOST
    assert heard[-1] == str(10 * UNSENT_MOST - 1)


def test_descriptors_that_were_not_asked_for(ends: tuple[socket.socket, socket.socket]) -> None:
    """Fewer, more, and so many that the kernel cuts them off: each is refused, and none stays open."""
    launchers, recorders = ends
    before = set(os.listdir("/proc/self/fd"))
    with open(os.devnull) as null:
        for count in (1, 3, 100):
            socket.send_fds(launchers, [b"{}"], [null.fileno()] * count)
            with pytest.raises(ForktraceError, match="no launcher of this forktrace"):
                Channel(recorders, waits=False).receive_order(1, SERVED_S)
    assert set(os.listdir("/proc/self/fd")) == before


def test_descriptors_that_find_no_room(ends: tuple[socket.socket, socket.socket]) -> None:
    """An order of which the kernel has cut a descriptor off, and which has as many as it should, is refused all the same."""
    launchers, recorders = ends
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    channel, order = Channel(recorders, waits=False), os.memfd_create("order")
    os.write(order, b"{}")
    socket.send_fds(launchers, [b"{}"], [order] * 3)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    rooms = [number for number in range(max(taken) + 4) if number not in taken or not os.path.exists(f"/proc/self/fd/{number}")]
    resource.setrlimit(resource.RLIMIT_NOFILE, (rooms[1] + 1, limits[1]))
    try:
        with pytest.raises(ForktraceError, match="an order with 2 descriptors"):
            channel.receive_order(1, SERVED_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(order)


@pytest.mark.parametrize(
    "receive", [lambda one: one.receive(0.2), lambda one: one.receive_order(1, 0.2)], ids=["a message", "an order"]
)
def test_a_second_reader(
    receive: Callable[[Channel], object], ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds the recorder's end too takes what was there a moment ago: it is not waited for any longer than for silence."""
    launchers, recorders = ends
    look = select.select

    def looked_and_taken(*what: Any) -> Any:
        found = look(*what)
        with suppress(BlockingIOError):
            recorders.recv(64, socket.MSG_DONTWAIT)
        return found

    monkeypatch.setattr(select, "select", looked_and_taken)
    launchers.send(b"{}")
    with pytest.raises(ForktraceError, match=r"the launcher said nothing for 0\.2 s"):
        receive(Channel(recorders, waits=False))


def test_an_order_that_cannot_be_read(ends: tuple[socket.socket, socket.socket]) -> None:
    """Its first descriptor is no file that can be read from."""
    launchers, recorders = ends
    with open(os.devnull, "w") as null:
        socket.send_fds(launchers, [b"{}"], [null.fileno(), null.fileno()])
        with pytest.raises(ForktraceError, match="order cannot be read"):
            Channel(recorders, waits=False).receive_order(1, SERVED_S)


@pytest.mark.parametrize(
    "sent", [b"{", b"[]", b"null", b"\xff", b'{"say": "arm"}', b'{"say": "arm", "stacks": 1}', b"[" * 5000]
)
def test_a_wrong_launcher_is_told_in_a_line(sent: bytes) -> None:
    """Whatever the first message is: an answer in one line, and the recorder ends with 1."""
    launchers, recorders = pair()
    who = User("alice", os.getuid(), os.getgid(), (), {})
    with launchers:
        launchers.send(sent)
        pid = served(launchers, recorders, who)
        said = json.loads(launchers.recv(1 << 17))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert (said["say"], said["hint"]) == ("error", "use forktrace record")
    assert "no launcher of this forktrace" in said["message"]


def test_a_launcher_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not waited for without end: rights are held meanwhile."""
    from forktrace.recorder import service

    monkeypatch.setattr(service, "ORDER_S", 0.1)
    launchers, recorders = pair()
    with launchers:
        pid = served(launchers, recorders, User("alice", os.getuid(), os.getgid(), (), {}))
        said = json.loads(launchers.recv(1 << 17))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert said["message"] == "the launcher said nothing for 0.1 s"


@pytest.mark.root
def test_a_launcher_that_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has had the probes armed, and gives no order then, is not waited for without end either."""
    from forktrace.recorder import service

    monkeypatch.setattr(service, "ORDER_S", 3.0)
    launchers, recorders = pair()
    with launchers:
        Channel(launchers).send("arm", **encoded(ARMING))
        pid = served(launchers, recorders, User("root", 0, 0, (), {}))
        said = [json.loads(launchers.recv(1 << 17)) for _ in range(3)]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert [one["say"] for one in said] == ["live", "armed", "error"]
    assert said[-1]["message"] == "the launcher said nothing for 3 s"


def test_a_recorder_that_has_died(ends: tuple[socket.socket, socket.socket]) -> None:
    """What is said to it is lost, and it answers nothing; that is for the launcher to see."""
    launchers, recorders = ends
    channel = Channel(launchers)
    recorders.close()
    channel.send("arm")
    channel.send_order(encoded(order()), [])
    assert channel.receive() == {}


def test_a_defect_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is found, and no more of what a library says of it than fits into a line."""

    def fail(*_: object) -> NoReturn:
        raise ImportError("\n\nPLEASE READ THIS\n" + "no room " * 200)

    launchers, recorders = pair()
    monkeypatch.setattr(resource_limits, "raise_all", fail)
    with launchers:
        pid = served(launchers, recorders, User("alice", os.getuid(), os.getgid(), (), {}))
        said = json.loads(launchers.recv(1 << 17))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert said["message"].startswith("the recorder failed: ImportError: PLEASE READ THIS no room no room")
    assert "(test_channel.py:" in said["message"]
    assert len(said["message"]) < 300


def test_what_was_said_before_the_end_comes() -> None:
    """Also where the other end is gone and has not read all that it was told: that is an error once, and no end."""
    ours, its = pair()
    launcher, recorder = Channel(ours), Channel(its, waits=False)
    launcher.send("next")
    recorder.send("done")
    recorder.close()
    assert launcher.receive() == {"say": "done"}
    assert launcher.receive() == {}
    launcher.close()
