"""Why a process was reaped, and what made it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from traces import MS, cells, recording, target

from forktrace.analysis.causes import rules
from forktrace.analysis.causes.sites import Libraries
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.trace.stacks import Frame, fold, unfold

SEEN = Path(__file__).parents[1] / "data" / "stacks.tsv"
KINDS = {"reap_cause": "cause", "created_by": "created_by", "exit_path": "exit_path"}
VFORK = 0x4111  # CLONE_VFORK|CLONE_VM|SIGCHLD


def stack_of(frames: str, version: str = "3.11") -> str:
    """Return the folded stack of `app.py main > @psutil/x.py f > subprocess.py wait`, as that version names library files."""
    folded = []
    for number, frame in enumerate(frames.split(" > "), 1):
        file, _, name = frame.rpartition(" ")
        home = "/srv" if file == "app.py" else f"/usr/lib/python{version}" + "/site-packages" * file.startswith("@")
        folded.append(Frame(file if file.startswith("<") else f"{home}/{file.removeprefix('@')}", number, name))
    return fold(folded)


def seen() -> Iterator[tuple[str, str, str]]:
    """Yield the column, what it must say, and the folded stack, for each version that had it."""
    for line in SEEN.read_text().splitlines():
        if not line.startswith("#"):
            column, expected, versions, frames = line.split("\t")
            yield from ((column, expected, stack_of(frames, version)) for version in versions.split(","))


def lived(pid: int, *, fork: Any = None, end: Any = None, reap: Any = None, status: int = 0) -> list[ev.Row]:
    """Return the rows of a child of the target, reaped at once, with more columns for its fork, exit and reap."""
    start = pid * MS
    return [
        ev.fork(start, pid, by=100, **(fork or {})),
        ev.exit_(start + 100, pid, status, parent=100, **(end or {})),
        ev.zombie(start + 200, pid, parent=100),
        ev.reap(start + 300, pid, by=100, **(reap or {})),
    ]


def ok(frames: str, version: str = "3.11") -> dict[str, str]:
    """Return the columns of a row with this stack."""
    return {"stack": stack_of(frames, version), "stack_status": "ok"}


def said(column: str, *rows: ev.Row, causes: str | None = None) -> list[Any]:
    """Return what `column` says of each process but the target."""
    made = recording(target(), *rows)
    return [value for (value,) in cells(Recording(made.trace, causes=causes).lifecycles(), column)[1:]]


@pytest.mark.parametrize("column", KINDS)
def test_stacks_of_real_libraries(column: str) -> None:
    """Every stack that a library was seen with, on every version that had it, has the cause, maker or way out that it had."""
    rows, expected = [], []
    for pid, (_, word, stack) in enumerate((one for one in seen() if one[0] == column), 1000):
        with_stack = {"stack": stack, "stack_status": "ok"}
        flags = VFORK if word == "posix-spawn" else 17
        rows += lived(pid, fork=with_stack | {"flags": flags}, end=with_stack | {"exit_from": "interpreter"}, reap=with_stack)
        expected.append((word, stack))
    found = said(column, *rows)
    assert len(expected) > 50
    assert [(word, stack) for word, (_, stack) in zip(found, expected, strict=True)] == expected


def test_the_wait_of_forktrace_for_the_target() -> None:
    """forktrace is the target's parent, and calls waitpid."""
    made = recording(target(), ev.exit_(5 * MS, 100), ev.zombie(5 * MS, 100), ev.reap(6 * MS, 100, by=50))
    assert cells(made.lifecycles(), "reap_cause") == [("recorder",)]
    made = recording(target(), ev.exit_(5 * MS, 100), ev.zombie(5 * MS, 100), ev.reap(6 * MS, 100, by=51))
    assert cells(made.lifecycles(), "reap_cause") == [("unknown",)]
    made = recording(target(), ev.exit_(5 * MS, 100), ev.zombie(5 * MS, 100), closed=False)  # not yet
    assert cells(made.lifecycles(), "reap_cause") == [("recorder",)]
    assert made.zombie_count().empty


def test_no_rule_is_idle() -> None:
    """Each built-in rule, or its like for a copy, is the first that fits some real stack; but for the frame of the recorder."""
    known, libraries = rules.load(), Libraries({})
    stacks = [(KINDS[column], unfold(stack)) for column, _, stack in seen()]
    used = set()
    for kind, frames in stacks:
        inner = known.inner(frames, [libraries.place(frame.file) for frame in frames])
        version = next((place.version for _, place in inner if place.version), ())
        used.add(next((rule for rule in getattr(known, kind) if rule.fits(inner, version)), None))
    copies = tomllib.loads(rules.BUILT_IN.read_text())["copies"].items()
    all_rules = [*known.cause, *known.created_by, *known.exit_path]
    copied = {other for rule in all_rules for copy, original in copies if (other := rule.of_copy(original, copy)) != rule}
    assert [rule.name for rule in all_rules if rule not in used | copied] == ["signal-handler"]


@pytest.mark.parametrize(
    ("cause", "frames"),
    [
        ("asyncio", "app.py main > asyncio/base_subprocess.py close > subprocess.py poll > subprocess.py _internal_poll"),
        ("signal-handler", "app.py main > subprocess.py wait > <signal handler> SIGCHLD > app.py reap"),
        (
            "signal-handler",
            "app.py main > <signal handler> SIGCHLD > app.py reap > subprocess.py poll > subprocess.py _internal_poll",
        ),
        ("asyncio", "selectors.py select > <signal handler> SIGCHLD > asyncio/unix_events.py _sig_chld"),
        ("os-wait", "app.py main > <signal handler> SIGTERM > app.py stop"),
        ("subprocess-wait", "app.py main > <signal handler> SIGTERM > app.py stop > subprocess.py wait"),
        ("os-wait", "multiprocessing/process.py start > multiprocessing/process.py _bootstrap > app.py work"),
        (
            "poll",
            "multiprocessing/pool.py join > multiprocessing/process.py _bootstrap > multiprocessing/process.py join"
            " > multiprocessing/popen_fork.py poll",
        ),
        ("subprocess-wait", "multiprocessing/util.py _exit_function > app.py finalizer > subprocess.py wait"),
        ("os-wait", "app.py start > app.py _cleanup > app.py poll"),
        ("os-wait", "multiprocessing/forking.py poll"),
        ("library-wait", "dist-packages/subprocess.py wait"),
        ("library-wait", "app.py main > @lib/x.py f"),
        ("library-wait", "app.py main > @lib/x.py f > os.py spawnv"),
        ("os-wait", "app.py main > @lib/x.py f > app.py callback"),
        ("os-wait", "app.py main > @gevent/os.py waitpid"),
        (
            "join",
            "app.py main > multiprocessing/process.py join > multiprocessing/popen_fork.py wait"
            " > multiprocessing/popen_fork.py poll > @gevent/os.py waitpid",
        ),
        ("event-loop", "@gevent/hub.py run"),
        ("library-wait", "@gevent/hub.py switch"),
    ],
)
def test_causes_by_frames(cause: str, frames: str) -> None:
    """The innermost frames decide: what lies outside of another process's beginning, or of the program's own code, does not."""
    assert said("reap_cause", *lived(500, reap=ok(frames))) == [cause]


@pytest.mark.parametrize(
    ("status", "cause", "creator"),
    [
        ("no-thread-state", "other-native", "native"),
        ("not-python", "other-native", "native"),
        ("no-runtime", "unknown", "unknown"),
        ("lost", "unknown", "unknown"),
        (None, "unknown", "unknown"),
    ],
)
def test_without_a_stack(status: str | None, cause: str, creator: str) -> None:
    """A thread that has no Python is native code; a stack that is missing says nothing."""
    rows = lived(500, fork={"stack_status": status}, reap={"stack_status": status})
    assert said("reap_cause", *rows) == [cause]
    assert said("created_by", *rows) == [creator]


def test_part_of_a_stack_is_enough() -> None:
    """A truncated stack has its innermost frames, and these decide."""
    rows = lived(500, reap=ok("subprocess.py wait") | {"stack_status": "truncated"})
    assert said("reap_cause", *rows) == ["subprocess-wait"]


def test_causes_that_need_no_stack() -> None:
    """Adopters, namespaces, ignored SIGCHLD and zombies that stay are told by the events themselves."""
    waits = ok("subprocess.py wait")
    rows = [ev.fork(2 * MS, 200, by=100), ev.fork(3 * MS, 300, by=200), ev.exit_(4 * MS, 200, parent=100, adopter=100)]
    rows += [ev.zombie(5 * MS, 200), ev.exit_(6 * MS, 300, parent=100), ev.zombie(6 * MS, 300, parent=100)]
    assert said("reap_cause", *rows, ev.reap(7 * MS, 300, by=100, **waits)) == ["never", "parent-exit"]
    rows[2] = ev.exit_(4 * MS, 200, parent=100, adopter=1)
    assert said("reap_cause", *rows, ev.reap(7 * MS, 300, by=1, call="unseen")) == ["never", "parent-exit"]
    child = [ev.fork(2 * MS, 500, by=100), ev.exit_(3 * MS, 500, parent=100)]
    assert said("reap_cause", *child, ev.reap(4 * MS, 500, by=100, call="kernel")) == ["pidns-exit"]
    assert said("reap_cause", *child, ev.reap(4 * MS, 500, by=100, call="unseen")) == ["unknown"]
    assert said("reap_cause", *child, ev.autoreap(4 * MS, 500, "ignored")) == ["autoreap-ignored"]
    assert said("reap_cause", *child, ev.autoreap(4 * MS, 500, "nocldwait")) == ["autoreap-nocldwait"]
    assert said("reap_cause", child[0], ev.exit_(3 * MS, 500, parent=100, disposition="ignored")) == ["autoreap-ignored"]
    assert said("reap_cause", *child) == ["never"]
    assert said("reap_cause", child[0]) == [None]


def test_what_dies_with_its_pid_namespace() -> None:
    """The kernel ignores SIGCHLD for the dying init: what it kills is removed with the namespace, with or without a row."""
    killed = [ev.fork(2 * MS, 500, by=100), ev.signal(3 * MS, 500, 9, sent_by="pidns")]
    killed += [ev.exit_(3 * MS, 500, 9, parent=100, disposition="ignored")]
    for rows in (killed, [*killed, ev.autoreap(3 * MS, 500, "ignored")]):
        made = recording(target(), *rows)
        assert cells(made.lifecycles(), "reap_cause", "reap_call", "killer_kind")[1] == ("pidns-exit", "kernel", "pidns")
    killed[1] |= {"sent_by": "process", "by_pid": 100}
    assert said("reap_cause", *killed) == ["autoreap-ignored"]


def test_who_is_no_child_of_the_recording_has_no_maker() -> None:
    """The target was made by forktrace, an adopted orphan outside; one whose fork was lost by nobody knows whom."""
    rows = [ev.fork(9 * MS, 500, parent=100, origin="adopted", start_ns=MS, call=None), ev.exit_(9 * MS, 501, start_ns=2 * MS)]
    made = recording(target(), *rows, ev.lost(9 * MS, 1, "fork"))
    assert cells(made.lifecycles(), "created_by") == [(None,), (None,), ("unknown",)]


@pytest.mark.parametrize("run", ["@uvloop/__init__.py run > asyncio/runners.py run", "app.py go"])
def test_a_loop_in_c(run: str) -> None:
    """uvloop forks and waits in C: where asyncio asked for the child, and where the loop ran the one who asked."""
    asked = ok(f"app.py main > {run} > app.py work > asyncio/subprocess.py create_subprocess_exec")
    loop = ok(f"app.py main > {run}")
    assert said("created_by", *lived(500, fork=asked, reap=loop)) == ["asyncio"]
    assert said("reap_cause", *lived(500, fork=asked, reap=loop)) == ["asyncio"]
    assert said("reap_cause", *lived(500, fork=asked, reap=loop | {"by_tid": 101})) != ["asyncio"]
    assert said("reap_cause", *lived(500, fork=asked, reap=ok(f"app.py main > {run} > app.py other"))) == ["os-wait"]
    assert said("reap_cause", *lived(500, fork=ok(f"app.py main > {run} > app.py work"), reap=loop)) != ["asyncio"]


def test_libraries_between_the_line_and_the_call() -> None:
    """The innermost package whose code forked or reaped; none of the standard library, nor what called the user's line."""
    rows = [
        *lived(500, fork=ok("app.py main > @rq/worker.py work > @rq/horse.py fork"), reap=ok("@gevent/hub.py run")),
        *lived(501, fork=ok("@lib/x.py f > app.py main > subprocess.py __init__"), reap=ok("app.py main")),
        *lived(502, fork=ok("app.py main > @a/x.py f > @b/y.py g > pty.py fork"), reap={"stack_status": "lost"}),
        *lived(503, fork=ok("app.py main > @gevent/os.py fork"), reap=ok("@lib/x.py f > <signal handler> SIGCHLD > app.py h")),
        *lived(504, fork=ok("@a/x.py f > <signal handler> SIGTERM > os.py spawnv")),
    ]
    assert said("fork_library", *rows) == ["rq", None, "b", None, None]
    assert said("reap_library", *rows) == ["gevent", None, None, None, None]


def test_vforks_of_the_program_itself() -> None:
    """What shares its parent's memory until exec comes from os.posix_spawn, which Python has since 3.8, or from C."""
    rows = [
        *lived(500, fork=ok("os.py x > app.py main", "3.8") | {"flags": VFORK}),
        *lived(501, fork=ok("os.py x > app.py main", "3.7") | {"flags": VFORK}),
        *lived(502, fork=ok("app.py main") | {"flags": VFORK}),
        *lived(503, fork=ok("app.py main")),
    ]
    assert said("created_by", *rows) == ["posix-spawn", "native", "posix-spawn", "os-fork"]
    old, new = (ev.runtime(1, "/usr/bin/python", version, [f"/usr/lib/python{version[:3]}"]) for version in ("2.7.18", "3.8.1"))
    assert said("created_by", old, *rows[8:]) == ["native", "os-fork"]
    assert said("created_by", old, new, *rows[8:]) == ["posix-spawn", "os-fork"]


def shell(pid: int, *, version: str = "3.11", reaped: str = "app.py main", **changed: Any) -> list[ev.Row]:
    """Return a child as os.system makes it: `sh -c`, forked and reaped on one line."""
    frames = {"fork": ok("os.py x > app.py main", version) | {"flags": VFORK}, "reap": ok(f"os.py x > {reaped}", version)}
    argv = changed.pop("argv", ["sh", "-c", "true"])
    return [
        *lived(pid, **{key: value | changed for key, value in frames.items()}),
        ev.exec_(pid * MS + 50, pid, argv, file="/bin/sh"),
    ]


def test_os_system() -> None:
    """A shell that one thread forks and reaps on the same line is made and waited for by libc."""
    rows = [
        *shell(500),
        *shell(501, reaped="app.py other"),
        *shell(502, argv=["sh", "x"]),
        *shell(503, version="2.7", reaped="app.py other"),
    ]
    assert said("created_by", *rows) == ["native", "posix-spawn", "posix-spawn", "native"]
    assert said("reap_cause", *rows) == ["other-native", "os-wait", "os-wait", "other-native"]
    rows = shell(500, version="2.7", reaped="app.py other", flags=17)
    assert said("created_by", *rows) == ["os-fork"]
    rows = shell(500)
    rows[3] |= {"by_tid": 101}
    assert said("created_by", *rows) == ["posix-spawn"]


RULES = """
[[cause]]
name = "arbiter"
frames = ["app.py handle_chld", "*"]
target = "any"
options = "WNOHANG"

[[cause]]
name = "os-wait"
frames = ["subprocess.py wait"]
options = "!WNOHANG"
call = "waitid"

[[created_by]]
name = "os-fork"
frames = ["lib/spawn.py *", "..."]

[names]
"app.py handle_chld" = "Arbiter.handle_chld"
"""


def test_rules_of_the_user(tmp_path: Path) -> None:
    """They come first, may ask for the call, and may have names of their own."""
    file = tmp_path / "own.toml"
    file.write_text(RULES)
    frames = "app.py handle_chld > app.py reap_workers"
    rows = [
        *lived(500, reap=ok(frames) | {"target": "any", "flags": 1}),
        *lived(501, reap=ok(frames) | {"target": "any"}),
        *lived(502, reap=ok(frames) | {"flags": 1}),
        *lived(503, reap=ok("app.py main > subprocess.py wait") | {"call": "waitid", "flags": 4}),
        *lived(504, reap=ok("app.py main > subprocess.py wait") | {"call": "waitid", "flags": 5}),
        *lived(505, reap=ok("app.py main > subprocess.py wait")),
    ]
    expected = ["arbiter", "os-wait", "os-wait", "os-wait", "subprocess-wait", "subprocess-wait"]
    assert said("reap_cause", *rows, causes=str(file)) == expected
    installed = "/venv/lib/python3.11/site-packages/lib/spawn.py:1 go;/usr/lib/python3.11/subprocess.py:2 __init__"
    made = lived(500, fork={"stack": installed, "stack_status": "ok"})
    assert said("created_by", *made, causes=str(file)) == ["os-fork"]
    assert said("created_by", *made) == ["subprocess"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = ", "own.toml: Invalid value"),
        ("causes = 1", "own.toml: 'causes' is not one of cause, created_by"),
        ("[cause]\nname = 'x'", "own.toml: write [[cause]], in two brackets"),
        ("cause = [1]", "own.toml: [[cause]] 1 is not a table"),
        ("[[cause]]\nname = 'x'", "own.toml: [[cause]] 1: frames is no list of texts"),
        ("[[cause]]\nname = 'x'\nframes = 'a b'", "own.toml: [[cause]] 1: frames is no list of texts"),
        ("[[cause]]\nname = 'x'\nframes = ['a']", "own.toml: [[cause]] 1: 'a' is not 'FILE FUNCTION'"),
        ("[[cause]]\nname = 'x'\nframes = ['*']", "own.toml: [[cause]] 1: frames names no frame"),
        ("[[cause]]\nname = 'X y'\nframes = ['a b']", "own.toml: [[cause]] 1: a name is of a-z, 0-9 and -"),
        ("[[cause]]\nframes = ['a b']", "own.toml: [[cause]] 1: a name is of a-z, 0-9 and -"),
        ("[[cause]]\nname = 1\nframes = ['a b']", "own.toml: [[cause]] 1: name is no text"),
        ("[[cause]]\nname = 'x'\nframes = ['a b']\npython = '3'", "own.toml: [[cause]] 1: '3' is no version of Python"),
        ("[[cause]]\nname = 'x'\nframes = ['a b']\nlibrary = 'c'", "own.toml: [[cause]] 1: library is python or packages"),
        (
            "[[cause]]\nname = 'x'\nframes = ['a b']\ncall = 'wait'",
            "own.toml: [[cause]] 1: call is one of wait4, waitid, io_uring",
        ),
        ("[[cause]]\nname = 'x'\nframes = ['a b']\ntarget = 'x'", "own.toml: [[cause]] 1: target is one of pid, any"),
        ("[[cause]]\nname = 'x'\nframes = ['a b']\nstart = true", "own.toml: [[cause]] 1: 'start' is not one of name"),
        ("[[created_by]]\nname = 'x'\nframes = ['a b']\nstart = 1", "own.toml: [[created_by]] 1: start is true or false"),
        ("starts = ['...']", "own.toml: starts: '...' is not 'FILE FUNCTION'"),
        ("names = 1", "own.toml: [names] are no texts"),
        ("[names]\n'a b' = 1", "own.toml: [names] are no texts"),
    ],
)
def test_a_bad_file_of_rules(tmp_path: Path, text: str, complaint: str) -> None:
    """It is named in one line that says what is wrong, and where rules are explained."""
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(rules.UsageError) as raised:
        rules.load(str(file))
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "docs/causes.md" in raised.value.hint


def test_a_file_of_rules_that_is_not_there(tmp_path: Path) -> None:
    """A missing file and a directory are named; one that is no text too."""
    with pytest.raises(rules.UsageError, match=r"none\.toml: No such file"):
        rules.load(str(tmp_path / "none.toml"))
    with pytest.raises(rules.UsageError, match="Is a directory"):
        rules.load(str(tmp_path))
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(rules.UsageError, match="latin: 'utf-8'"):
        rules.load(str(tmp_path / "latin"))
