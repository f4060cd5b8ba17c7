"""How each process left Python."""

from __future__ import annotations

from typing import Any

import pytest
from traces import MS, cells, recording, target

from forktrace.trace import events as ev

MAIN = "/srv/app.py:7 main"
LAUNCH = f"{MAIN};/usr/lib/python3.11/multiprocessing/popen_fork.py:71 _launch"
SPAWN = ["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(5)", "--multiprocessing-fork"]


def path(
    status: int,
    came: str | None,
    *,
    argv: tuple[str, ...] | list[str] = ("python", "app.py"),
    stack: str | None = None,
    stack_status: str | None = "no-thread-state",
    version: str = "3.11.7",
    before: tuple[ev.Row, ...] = (),
) -> Any:
    """Return the exit path of a child that ran `argv` and ended with this wait status."""
    rows = [target(), ev.fork(MS, 500, by=100), ev.exec_(2 * MS, 500, list(argv)), *before]
    rows.append(ev.runtime(3 * MS, "/usr/bin/python", version, [f"/usr/lib/python{version[:4]}"]))
    exit_ = ev.exit_(9 * MS, 500, status, exit_from=came, stack=stack, stack_status="ok" if stack else stack_status)
    return cells(recording(*rows, exit_).lifecycles(), "exit_path")[1][0]


def test_a_frame_at_the_exit() -> None:
    """A Python frame means that os._exit was called, by multiprocessing's own code or by other."""
    assert path(0, "interpreter", stack=MAIN) == "os-exit"
    assert path(0, "interpreter", stack=LAUNCH) == "bootstrap"
    assert path(0, "interpreter", stack_status="no-runtime") == "unknown"
    assert path(0, "other", stack=MAIN) == "unknown"  # exit() of C code that Python called
    assert path(0, "other", stack=LAUNCH) == "unknown"


@pytest.mark.parametrize(("code", "expected"), [(0, "main-return"), (1, "exception"), (2, "unknown"), (120, "unknown")])
def test_after_the_interpreter_was_finalised(code: int, expected: str) -> None:
    """main returns 0, or 1 after an exception that nobody caught; another code is not known to come from Python."""
    assert path(code << 8, "other") == expected
    assert path(code << 8, "other", stack_status="no-runtime") == "unknown"


def test_system_exit() -> None:
    """SystemExit passes Py_Exit; the workers of the start method spawn end so by themselves."""
    assert path(0, "py-exit") == "sys-exit"
    assert path(3 << 8, "py-exit") == "sys-exit"
    assert path(0, "py-exit", argv=SPAWN) == "bootstrap"


def test_python_m() -> None:
    """From 3.8 on a module never passes Py_Exit: 0 and 1 say nothing, and any other code was given to sys.exit."""
    assert path(0, "other", argv=["python", "-m", "app"]) == "unknown"
    assert path(1 << 8, "other", argv=["python", "-m", "app"]) == "unknown"
    assert path(3 << 8, "other", argv=["python", "-m", "app"]) == "sys-exit"
    assert path(0, "other", argv=["python", "-m", "app"], version="3.7.16") == "main-return"
    assert path(3 << 8, "other", argv=["python", "-m", "app"], version="2.7.18") == "unknown"


def test_pythons_that_never_pass_py_exit() -> None:
    """There sys.exit with 0 or 1 cannot be told from main's own; workers of spawn end by it, and 1 may be their import's."""
    assert [path(code << 8, "returned") for code in (0, 1, 2)] == ["unknown", "unknown", "sys-exit"]
    assert [path(code << 8, "returned", argv=SPAWN) for code in (0, 1, 2)] == ["bootstrap", "unknown", "bootstrap"]
    assert path(3 << 8, "returned", argv=["python", "-m", "app"]) == "sys-exit"
    assert path(3 << 8, "returned", stack=MAIN) == "unknown"  # exit() of C code that Python called
    assert path(3 << 8, "returned", stack_status="no-runtime") == "unknown"


def test_killed() -> None:
    """A signal is a signal; SIGABRT that it raised itself is an abort."""
    assert path(9, None) == "signal"
    assert path(6, None) == "signal"
    assert path(6, None, before=(ev.signal(5 * MS, 500, 6, by=100),)) == "signal"
    assert path(0x86, None, before=(ev.signal(5 * MS, 500, 6, by=500),)) == "abort"
    assert path(15, None, before=(ev.signal(5 * MS, 500, 15, by=500),)) == "signal"


def test_other_programs() -> None:
    """Who ran no Python left no way of Python's; where nothing was said, it is not known."""
    assert path(0, None, stack_status="not-python") == "not-python"
    assert path(9, None, stack_status="not-python") == "signal"
    assert path(0, None, stack_status=None) == "unknown"


def test_who_still_runs_has_not_left() -> None:
    """Neither has one whose exit was lost a path."""
    rows = [target(), ev.fork(MS, 500, by=100), ev.reap(2 * MS, 500, by=100), ev.lost(3 * MS, 1, "exit")]
    assert cells(recording(*rows).lifecycles(), "exit_path") == [(None,), (None,)]


def sites(*rows: ev.Row) -> tuple[object, ...]:
    """Where the second process left, and was killed."""
    return cells(recording(*rows).lifecycles(), "exit_site", "killer_site")[1]


def kernels(number: int) -> ev.Row:
    """A signal to the second process that the kernel sent."""
    return ev.signal(2 * MS, 500, number, sent_by="kernel")


def test_where_it_left_and_who_killed_it() -> None:
    """The site of an exit is the process's own, that of a kill the sender's: a death from outside has no line of its own."""
    kill = ev.signal(2 * MS, 500, 15, by=100, stack=MAIN, stack_status="ok")
    rows = [target(), ev.fork(MS, 500, by=100)]
    fell = {"stack": f"{MAIN};/srv/app.py:9 crash", "stack_status": "ok"}
    assert sites(*rows, kill, ev.exit_(3 * MS, 500, 15, **fell)) == (None, "app.py:7 main")
    assert sites(*rows, kernels(11), ev.exit_(3 * MS, 500, 11, **fell)) == ("app.py:9 crash", None)
    assert sites(*rows, kernels(9), ev.exit_(3 * MS, 500, 9, **fell)) == (None, None)
    assert sites(*rows, ev.exit_(3 * MS, 500, 9, **fell)) == ("app.py:9 crash", None)  # who sent it was not seen


def test_where_it_stood_when_it_killed_itself() -> None:
    """At its kill call: the stack of its exit is that of whichever of its threads died first."""
    kill = ev.signal(2 * MS, 500, 9, by=500, by_tid=502, stack=f"{MAIN};/srv/app.py:3 end", stack_status="ok")
    rows = [target(), ev.fork(MS, 500, by=100), ev.exit_(3 * MS, 500, 9, stack="/srv/app.py:5 idle", stack_status="ok")]
    assert cells(recording(*rows, kill).lifecycles(), "exit_site")[1] == ("app.py:3 end",)
    assert cells(recording(*rows, kill | {"stack": None}).lifecycles(), "exit_site")[1] == ("app.py:5 idle",)


def test_workers_of_loky() -> None:
    """They are begun by -m and end in loky's sys.exit; 1 may be the end of an exception, and its tracker is no worker."""
    loky = "joblib.externals.loky.backend"
    worker = ["python", "-m", f"{loky}.popen_loky_posix", "--process-name", "x"]
    assert [path(code << 8, "other", argv=worker) for code in (0, 1, 3)] == ["bootstrap", "unknown", "bootstrap"]
    assert path(0, "py-exit", argv=["python", "-c", f"from {loky}.resource_tracker import main; main(5)"]) == "sys-exit"
    assert path(0, "py-exit", argv=["python", "-c", "from multiprocess.spawn import spawn_main; spawn_main(5)"]) == "bootstrap"
