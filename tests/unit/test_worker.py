"""What may never come back is done by a helper, and the recorder goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forktrace.system import worker
from forktrace.system.worker import LOST_MOST, MESSAGE_MOST, Worker

PATIENCE_S = 60
Make = Callable[[Callable[[Any], Any]], Worker]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Helpers that need not be waited for long."""
    monkeypatch.setattr(worker, "BLOCKED_S", 0.2)
    monkeypatch.setattr(worker, "BUSY_S", 1.0)
    made: list[Worker] = []

    def one(work: Callable[[Any], Any]) -> Worker:
        made.append(Worker(work))
        return made[-1]

    yield one
    for each in made:
        each.close()


def works(request: Any) -> Any:
    """What a helper may meet."""
    match request:
        case "sleeps":
            time.sleep(PATIENCE_S)
        case "never ends":
            while True:
                pass
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raises":
            raise RecursionError
        case "takes all memory":
            return len(bytes(1 << 30))
        case "says too much":
            return "x" * MESSAGE_MOST
        case "descriptors":
            return sorted(os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name != "3")
    return f"done {request}"


def test_answers_come_in_order(make: Make) -> None:
    """One after the other, each with its request."""
    one = make(works)
    assert all(one.ask(number) for number in range(300))
    assert one.wait(PATIENCE_S) == [(number, f"done {number}") for number in range(300)]
    assert one.is_idle


@pytest.mark.parametrize("request_", ["sleeps", "never ends", "dies"])
def test_who_does_not_come_back_is_replaced(request_: str, make: Make) -> None:
    """Its request has no answer; those behind it have theirs."""
    one = make(works)
    for each in ("before", request_, "behind"):
        one.ask(each)
    assert one.wait(PATIENCE_S) == [("before", "done before"), (request_, None), ("behind", "done behind")]
    assert one.lost == 1


@pytest.mark.parametrize("request_", ["raises", "takes all memory", "says too much"])
def test_what_goes_wrong_stays_there(request_: str, make: Make) -> None:
    """The helper itself lives through it, and has nothing to say."""
    one = make(works)
    for each in (request_, "behind"):
        one.ask(each)
    assert one.wait(PATIENCE_S) == [(request_, []), ("behind", "done behind")]
    assert one.lost == 0


def test_not_for_ever(make: Make) -> None:
    """When several did not come back there are no helpers any more: everything has an end."""
    one = make(works)
    for number in range(LOST_MOST + 3):
        one.ask(["dies", "late"][number >= LOST_MOST])
    assert one.wait(PATIENCE_S) == [("dies", None)] * LOST_MOST + [("late", None)] * 3
    assert not one.ask("more")


def test_what_is_not_taken(make: Make) -> None:
    """A request that is too large, and too many of them."""
    one = make(works)
    assert not one.ask("x" * MESSAGE_MOST)
    assert sum(one.ask(number) for number in range(worker.WAITING_MOST + 5)) == worker.WAITING_MOST


def test_holds_nothing_of_ours(make: Make, tmp_path: Path) -> None:
    """Neither files nor sockets nor the terminal: whoever waits for those to be closed does not wait for a helper."""
    with (tmp_path / "held").open("w"):
        one = make(works)
        one.ask("descriptors")
        ((_, held),) = one.wait(PATIENCE_S)
    assert [name for name in held if not name.startswith(("/dev/null", "socket:", "/proc/"))] == []
    assert sum(name.startswith("socket:") for name in held) == 1


def test_ends_with_us(tmp_path: Path) -> None:
    """Whatever ends the process that asks ends its helper, even in the middle of something."""
    told = tmp_path / "pid"

    def tells_and_sleeps(request: Any) -> None:
        told.write_text(str(os.getpid()))
        time.sleep(PATIENCE_S)

    pid = os.fork()
    if pid == 0:
        Worker(tells_and_sleeps).ask("")
        time.sleep(PATIENCE_S)
        os._exit(0)
    deadline = time.monotonic() + PATIENCE_S
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while Path(f"/proc/{told.read_text()}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() < deadline
