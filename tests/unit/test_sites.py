"""Whose code a frame is, and the line that answers for a stack."""

from __future__ import annotations

from typing import Any

import pytest
from traces import MS, cells, recording, target

from forktrace.analysis.causes.programs import Entry, bootstrap_of, entry_of
from forktrace.analysis.causes.sites import Libraries, Place, shortest_suffixes
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev

LIB = "/usr/lib/python3.11"
SITE = "/venv/lib/python3.11/site-packages"
START = f"{LIB}/multiprocessing/process.py:121 start;{LIB}/multiprocessing/popen_fork.py:66 _launch"


def site(stack: str | None, argv: list[str] | None = None, *rows: ev.Row, **header: Any) -> str | None:
    """Return the site of a child that the target, run with `argv`, forked with this stack."""
    found = recorded(stack, argv, *rows, **header).lifecycles()
    return cells(found[found["pid"] == 500], "fork_site")[0][0]


def recorded(stack: str | None, argv: list[str] | None, *rows: ev.Row, **header: Any) -> Recording:
    """Return the recording of one child that the target, run with `argv`, forked with this stack."""
    fork = ev.fork(10 * MS, 500, by=100, stack=stack, stack_status="ok" if stack else "no-runtime")
    return recording(target(), ev.exec_(1 * MS, 100, argv or ["python", "/srv/consumer.py"]), *rows, fork, **header)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/srv/consumer.py", Place("own", "/srv/consumer.py")),
        ("consumer.py", Place("own", "consumer.py")),
        ("/opt/py/libx/os.py", Place("python", "os.py", (3, 12, 1))),
        ("/usr/lib/python3.11/multiprocessing/process.py", Place("python", "multiprocessing/process.py", (3, 11))),
        ("/usr/lib64/python3.13t/os.py", Place("python", "os.py", (3, 13))),
        ("lib/python2.7/os.py", Place("python", "os.py", (2, 7))),
        ("/usr/lib/pypy3.10/os.py", Place("python", "os.py", (3, 10))),
        ("/usr/lib/python311.zip/encodings/utf_8.py", Place("python", "encodings/utf_8.py", (3, 11))),
        ("/usr/lib/python3/dist-packages/apt/cache.py", Place("packages", "apt/cache.py")),
        (f"{SITE}/gunicorn/arbiter.py", Place("packages", "gunicorn/arbiter.py")),
        ("/v/lib/python2.7/site-packages/a-1.0-py2.7.egg/a/b.py", Place("packages", "a/b.py")),
        ("<frozen importlib._bootstrap>", Place("python", "importlib/_bootstrap.py")),
        ("<string>", Place("own", "<string>")),
        ("<ipython-input-3-0a1b>", Place("own", "<ipython-input-3-0a1b>")),
        ("/tmp/ipykernel_7/12.py", Place("own", "/tmp/ipykernel_7/12.py")),
        ("<attrs generated init a.B>", Place("made", "<attrs generated init a.B>")),
    ],
)
def test_whose_code_a_file_is(file: str, place: Place) -> None:
    """The standard library is where the runtime says, or where it usually is; installed packages lie in directories of their
    own; code without a file is the user's where it was typed, and nobody's where it was made."""
    assert Libraries({"/opt/py/libx/": "3.12.1"}).place(file) == place


@pytest.mark.parametrize(
    ("argv", "entry"),
    [
        (["python", "a.py", "-m", "b"], Entry(script="a.py")),
        (["/usr/bin/python3.11", "-u", "-X", "dev", "-W", "error", "-m", "pkg.mod", "x"], Entry(module="pkg.mod")),
        (["python3", "-Impkg"], Entry(module="pkg")),
        (["python", "-Wignore", "-bb", "--check-hash-based-pycs", "never", "a.py"], Entry(script="a.py")),
        (["python", "-c", "import a", "-m"], Entry(code="import a")),
        (["python", "-"], Entry()),
        (["python"], Entry()),
        (["/bin/sh", "-c", "python a.py"], Entry()),
        ([], Entry()),
    ],
)
def test_what_a_command_line_names(argv: list[str], entry: Entry) -> None:
    """The module, the script or the code that an interpreter's arguments name, past its options; nothing for other programs."""
    assert entry_of(argv) == entry


def test_workers_of_multiprocessing() -> None:
    """They are known by the code that they begin with."""
    spawn = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)"
    assert bootstrap_of(entry_of(["python", "-c", spawn, "--multiprocessing-fork"])) == "multiprocessing.spawn"
    assert bootstrap_of(Entry(code="from multiprocessing.forkserver import main; main(5)")) == "multiprocessing.forkserver"
    assert bootstrap_of(Entry(code="from multiprocessing import Process; Process()")) == ""
    loky = "joblib.externals.loky.backend"
    assert bootstrap_of(Entry(module=f"{loky}.popen_loky_posix")) == f"{loky}.popen_loky_posix"
    assert bootstrap_of(Entry(code=f"from {loky}.resource_tracker import main; main(5)")) == f"{loky}.resource_tracker"
    assert bootstrap_of(Entry(module="joblib.tool")) == ""


def test_the_innermost_frame_of_the_users_own() -> None:
    """Frames of the standard library and of installed packages are passed over; without any other the innermost one answers."""
    assert site(f"/srv/consumer.py:40 main;/srv/consumer.py:33 consume_task;{START}") == "consumer.py:33 consume_task"
    assert site(f"/srv/consumer.py:40 main;{SITE}/kafka/x.py:7 run;{START}") == "consumer.py:40 main"
    assert site(f"{LIB}/threading.py:975 _bootstrap;{START}") == "popen_fork.py:66 _launch"
    assert site("<frozen runpy>:88 _run_code;<string>:0 <module>") == "<string>:? <module>"
    assert site(None) is None


def test_the_package_of_m() -> None:
    """With -m the package is the user's own wherever it is installed."""
    stack = f"<frozen runpy>:88 _run_code;{SITE}/worker/app.py:9 go;{SITE}/lib/x.py:1 f;{START}"
    assert site(stack, ["python", "-m", "worker.app"]) == "worker/app.py:9 go"
    assert site(stack, ["python", "/srv/x.py"]) == "lib/x.py:1 f"


def test_the_package_of_a_console_script() -> None:
    """The installed package that an entry point calls is the user's own, also in stacks of threads, where the script is not."""
    argv = ["/venv/bin/python", "/venv/bin/prog", "serve"]
    main = f"/venv/bin/prog:8 <module>;{SITE}/prog/cli.py:20 main;{SITE}/lib/x.py:1 f"
    thread = f"{LIB}/threading.py:975 _bootstrap;{SITE}/prog/pool.py:7 work;{SITE}/lib/x.py:1 f"
    assert site(f"{main};{START}", argv) == "prog/cli.py:20 main"
    seen = ev.fork(5 * MS, 400, by=100, stack=f"{main};{START}", stack_status="ok")
    assert site(f"{thread};{START}", argv, seen) == "prog/pool.py:7 work"
    gone = ev.exit_(6 * MS, 400, stack=f"{main};{START}", stack_status="ok")
    assert site(f"{thread};{START}", argv, ev.fork(5 * MS, 400, by=100), gone) == "prog/pool.py:7 work"
    assert site(f"{thread};{START}", argv) == "lib/x.py:1 f"
    assert site(f"{main};{START}", ["/venv/bin/python", "/venv/bin/other"]) == "prog:8 <module>"


@pytest.mark.parametrize("script", ["/srv/app.py", "/srv/bin/app.py", "/srv/tools/app", "./app.py"])
def test_a_script_that_calls_a_library(script: str) -> None:
    """It is not the library: only an entry point is, which has no .py and lies in a bin directory."""
    file = script.replace("./", "/srv/")
    stack = f"{file}:3 <module>;{SITE}/pexpect/pty_spawn.py:315 _spawnpty;{SITE}/ptyprocess/ptyprocess.py:230 spawn"
    shown = file.rpartition("/")[2]
    assert site(stack, ["python", script]) == f"{shown}:3 <module>"


@pytest.mark.parametrize("script", ["/venv/bin/prog", "/usr/sbin/prog", "prog"])
def test_entry_points(script: str) -> None:
    """They are what installers write into bin and sbin, however the command line names them."""
    file = script if script.startswith("/") else f"/venv/bin/{script}"
    assert (
        site(f"{file}:3 <module>;{SITE}/prog/cli.py:20 main;{SITE}/lib/x.py:1 f", ["python", script]) == "prog/cli.py:20 main"
    )


def test_where_no_line_is_the_users() -> None:
    """The innermost line of an installed package answers, with its package; without one the innermost of all."""
    assert site(f"{LIB}/threading.py:975 _bootstrap;{SITE}/gevent/hub.py:647 run;{START}") == "gevent/hub.py:647 run"
    assert site(f"{SITE}/a/x.py:1 f;{SITE}/b/c/y.py:2 g;{START}") == "b/c/y.py:2 g"
    other = ev.fork(5 * MS, 400, by=100, stack="/other/lib/python3.11/site-packages/gevent/hub.py:1 run", stack_status="ok")
    assert site(f"{SITE}/gevent/hub.py:647 run", None, other) == "venv/lib/python3.11/site-packages/gevent/hub.py:647 run"


def test_a_handler() -> None:
    """The line that a signal interrupted did not call its handler: what the handler called answers alone."""
    interrupted = "/srv/app.py:40 crunch;<signal handler>:0 SIGCHLD"
    assert site(f"{interrupted};/srv/app.py:9 reap") == "app.py:9 reap"
    assert site(f"{interrupted};{SITE}/gunicorn/arbiter.py:600 reap_workers") == "gunicorn/arbiter.py:600 reap_workers"
    assert site(f"{interrupted};{LIB}/os.py:1 spawnv") == "os.py:1 spawnv"


def test_code_in_a_text() -> None:
    """What `python -c` and exec run is the user's own, also where it calls multiprocessing itself."""
    argv = ["python", "-c", "..."]
    assert site(f"<string>:9 <module>;<string>:6 go;{START}", argv) == "<string>:6 go"
    assert site(f"<string>:9 <module>;{START}", argv) == "<string>:9 <module>"
    assert site(f"/srv/app.py:3 <module>;<string>:2 go;{START}") == "<string>:2 go"
    assert site(f"/srv/app.py:3 <module>;<script>:2 <module>;{START}") == "<script>:2 <module>"


def test_a_script_inside_a_package() -> None:
    """A script that lies in an installed package makes that package the user's own."""
    file = "/usr/lib/python3/dist-packages/tool/run.py"
    assert site(f"{file}:3 <module>;{LIB}/os.py:1 fork", ["python3", file]) == "tool/run.py:3 <module>"


def test_children_inherit_the_program() -> None:
    """A child that never called exec, and a worker that multiprocessing starts by exec, run the program of their forker."""
    spawn = ["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(5)", "--multiprocessing-fork"]
    stack = f"{SITE}/worker/app.py:9 go;{SITE}/lib/x.py:1 f;{START}"
    rows = [
        target(),
        ev.exec_(1 * MS, 100, ["python", "-m", "worker"]),
        ev.fork(2 * MS, 200, by=100),
        ev.fork(3 * MS, 300, by=200),
    ]
    rows += [ev.exec_(4 * MS, 300, spawn), ev.fork(5 * MS, 500, by=300, stack=stack), ev.fork(6 * MS, 501, by=200, stack=stack)]
    rows += [ev.exec_(7 * MS, 200, ["python", "x.py"]), ev.fork(8 * MS, 502, by=200, stack=stack)]
    table = recording(*rows).lifecycles()
    found = [site for (site,) in cells(table[table["pid"] >= 500], "fork_site")]
    assert found == ["worker/app.py:9 go", "worker/app.py:9 go", "lib/x.py:1 f"]


def test_frames_from_before_the_fork() -> None:
    """What lies outside of the frame on which a process of multiprocessing begins was its parent's."""
    parent = f"/srv/consumer.py:33 consume_task;{START};{LIB}/multiprocessing/process.py:314 _bootstrap"
    assert site(f"{parent};{LIB}/queue.py:7 get") == "queue.py:7 get"
    assert site(f"{parent};/srv/consumer.py:50 work;{LIB}/queue.py:7 get") == "consumer.py:50 work"
    rows = [target(), ev.fork(MS, 500, by=100), ev.exit_(2 * MS, 500, stack=f"/srv/consumer.py:33 consume_task;{START}")]
    rows[2] |= {"exit_from": "interpreter"}
    assert cells(recording(*rows).lifecycles(), "exit_path", "exit_site")[1] == ("bootstrap", "popen_fork.py:66 _launch")


def test_what_own_names() -> None:
    """--own makes an installed package, or what lies in a directory, the user's own."""
    stack = f"/srv/a.py:1 main;{SITE}/lib/x.py:7 f;{START}"
    assert site(stack, own=["lib"]) == "lib/x.py:7 f"
    assert site(stack, own=[f"{SITE}/lib"]) == "lib/x.py:7 f"
    assert site(stack, own=["li", f"{SITE}/li"]) == "a.py:1 main"
    assert site(stack, own=7) == "a.py:1 main"


@pytest.mark.parametrize(
    "begins",
    [
        f"{LIB}/multiprocessing/forkserver.py:274 main",
        f"{LIB}/multiprocessing/spawn.py:122 spawn_main",
        f"{LIB}/multiprocessing/resource_tracker.py:209 main",
        f"{SITE}/multiprocess/spawn.py:122 spawn_main",
        f"{SITE}/billiard/spawn.py:160 spawn_main",
    ],
)
def test_the_program_by_which_multiprocessing_starts_a_worker(begins: str) -> None:
    """Its <string> is not the user's."""
    shown = begins.removeprefix(f"{SITE}/").rpartition("/multiprocessing/")[2]
    assert site(f"<string>:1 <module>;{begins}") == shown


def test_frozen_programs() -> None:
    """PyInstaller and zipapp name their files relatively: the standard library and known packages are told by name."""
    frozen = "app.py:9 main;multiprocessing/process.py:121 start;multiprocessing/popen_fork.py:66 _launch"
    assert site(frozen, ["./app"]) == "app.py:9 main"
    made = recorded(frozen, ["./app"]).lifecycles()
    assert cells(made[made["pid"] == 500], "created_by") == [("multiprocessing",)]
    for package in ("gevent/subprocess.py:789 __init__", "psutil/__init__.py:1432 __init__"):
        assert site(f"worker.py:9 run;{package};subprocess.py:5 x", ["./app"]) == "worker.py:9 run"
    assert site("/srv/app.pyz/__main__.py:2 <module>;/srv/app.pyz/gevent/os.py:7 fork") == "__main__.py:2 <module>"
    assert site("app.py:9 main;mine/x.py:2 go;subprocess.py:5 x", ["./app"]) == "x.py:2 go"
    script = f"queue.py:4 <module>;{LIB}/queue.py:7 get"
    assert site(script, ["python3.8", "queue.py"]) == "queue.py:4 <module>"


def test_runtimes_name_their_library() -> None:
    """A standard library at an unusual place is known from the runtime's row; one that cannot be read is passed over."""
    runtime = ev.runtime(2 * MS, "/opt/py/bin/python", "3.12.1", ["/opt/py/libx"])
    broken = [ev.runtime(2 * MS, "x", "3", []) | {"detail": text} for text in ("{", "[1]", '{"version": "3", "libraries": 5}')]
    stack = "/srv/a.py:1 main;/opt/py/libx/multiprocessing/process.py:121 start"
    assert site(stack, None, runtime, *broken) == "a.py:1 main"
    assert site(stack, None, *broken) == "process.py:121 start"


def test_the_shortest_suffix() -> None:
    """As few parts of a path as tell it from the others; a path that is itself the end of another stays whole."""
    files = ["/srv/a/app.py", "/srv/b/app.py", "/srv/b/x.py", "app.py", "/y.py", "<string>"]
    assert shortest_suffixes(files) == {
        "/srv/a/app.py": "a/app.py",
        "/srv/b/app.py": "b/app.py",
        "/srv/b/x.py": "x.py",
        "app.py": "app.py",
        "/y.py": "y.py",
        "<string>": "<string>",
    }
    assert shortest_suffixes(["app.py", "/app.py", "z/app.py"]) == {
        "app.py": "app.py",
        "/app.py": "/app.py",
        "z/app.py": "z/app.py",
    }
    assert shortest_suffixes([]) == {}
    deep = [f"/{name}{'/x' * 100_000}" for name in "ab"]
    assert shortest_suffixes(deep) == {file: file for file in deep}
