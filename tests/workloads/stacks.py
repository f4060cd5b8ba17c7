"""Forks, waits, kills and leaves from every kind of Python frame, and prints the stack that it sees itself at each such call.

`stacks.py OTHER`, under Python 2.7 and every later one; OTHER is another interpreter, into which a case executes.
A line with `what: stack` is a call: `event`, the `pid` of the child it is about, the `tid` of the caller, and `frames`, each
[file, line, name], outermost first. A line without `what` is a partial row of the lifecycle table.
"""

import atexit
import contextlib
import ctypes
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings

VERSION = sys.version_info[:2]
WAIT_CALLS = ("61 ", "247 ", "260 ", "95 ")  # wait4 and waitid of x86-64 and arm64
CASE = [""]
LINES = []  # printed at the end of a case, when no child prints


def text(name):
    return name.decode("utf-8") if isinstance(name, bytes) else name


def frames_of(frame):
    frames = []
    while frame is not None:
        frames.append([text(frame.f_code.co_filename), frame.f_lineno, text(frame.f_code.co_name)])
        frame = frame.f_back
    return frames[::-1]


def look():
    """The frames of the caller, who is in the middle of a line."""
    return frames_of(sys._getframe(1))


def thread_number():
    return int(os.readlink("/proc/thread-self").rpartition("/")[2])


def line_of(**values):
    return json.dumps(dict({"case": CASE[0]}, **values)).encode() + b"\n"


def row(pid, **values):
    LINES.append(line_of(pid=pid, **values))


def tell(event, pid, frames, tid=None):
    LINES.append(line_of(what="stack", event=event, pid=pid, by=os.getpid(), tid=tid or thread_number(), frames=frames))


def write(data):
    while data:
        data = data[os.write(1, data) :]


# The calls. Each is in one line with its witness, which looks before the call or after it.


def forked(frames, pid):
    """What os.fork() returned; the parent tells."""
    if pid:
        tell("fork", pid, frames)
    return pid


def noted(event, pid, frames):
    """The number that the call is about to get."""
    tell(event, pid, frames)
    return pid


def reaped(pid, frames):
    """The number that the call returned."""
    tell("reap", pid, frames)
    return pid


def last_words(frames, code):
    """In a child, which prints alone: the code that it is about to leave with."""
    write(line_of(what="stack", event="exit", pid=os.getpid(), tid=thread_number(), frames=frames))
    return code


def child(pid):
    """A child leaves here; the parent goes on."""
    if pid == 0:
        os._exit(last_words(look(), 7))
    return pid


def sleeper(pid):
    while pid == 0:
        signal.pause()
    return pid


class Fails(object):
    """A context that has to end in an exception of that kind."""

    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        assert kind is not None
        return issubclass(kind, self.kind)


def family():
    """A child that leaves, two waits for it too many, the first of them twice; a child that is killed."""
    pid = child(forked(look(), os.fork()))
    reaped(os.waitpid(pid, 0)[0], look())
    for _ in range(2):
        with Fails(OSError):
            os.waitpid(noted("echild", pid, look()), 0)
    with Fails(OSError):
        os.waitpid(noted("echild", pid, look()), os.WNOHANG)
    pid = sleeper(forked(look(), os.fork()))
    os.kill(noted("kill", pid, look()), signal.SIGKILL)
    os.waitpid(noted("reap", pid, look()), 0)


# Kinds of frames


def plain():
    def inner():
        family()

    inner()


def deeper(levels):
    return family() if levels == 1 else deeper(levels - 1)


def deep():
    deeper(60)


def very_deep():
    deeper(900)


def too_deep():
    deeper(1500)


def generators():
    def inner():
        pid = child(forked(look(), os.fork()))
        yield pid
        yield reaped(os.waitpid(pid, 0)[0], look())
        yield family()

    def outer():
        for each in inner():
            yield each

    assert len(list(outer())) == 3


def comprehensions():
    pids = [child(forked(look(), os.fork())) for _ in range(3)]
    assert {reaped(os.waitpid(pid, 0)[0], look()) for pid in pids} == set(pids)
    assert {family() for _ in range(1)} == {None}
    assert list(child(forked(look(), os.fork())) and reaped(os.wait()[0], look()) for _ in range(2))


def lambdas():
    (lambda: reap(child(forked(look(), os.fork()))))()
    (lambda *_, **__: family())(1, two=2)


def reap(pid):
    return reaped(os.waitpid(pid, 0)[0], look())


def callbacks():
    def called(*_):
        reap(child(forked(look(), os.fork())))
        return ""

    def compared(one, two):
        called()
        return 0

    re.sub("a", called, "a")
    sorted([1], key=called)
    sorted([1, 2], key=functools.cmp_to_key(compared))
    max([1, 2], key=called)
    list(map(called, [1]))
    functools.partial(called, 1)()
    functools.partial(family)()
    functools.reduce(called, [1, 2])
    numbers = (ctypes.c_int * 2)(2, 1)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    ctypes.CDLL(None).qsort(numbers, ctypes.c_size_t(2), ctypes.c_size_t(4), kind(compared))


def classes():
    class Made(object):
        def __init__(self, now):
            self.now = now
            if now:
                family()

        def __call__(self):
            family()

        def __add__(self, other):
            return reap(child(forked(look(), os.fork())))

        def __getattr__(self, name):
            return reap(child(forked(look(), os.fork())))

        def __enter__(self):
            return child(forked(look(), os.fork()))

        def __exit__(self, *_):
            reap(-1)

        def __del__(self):
            if self.now:
                reap(child(forked(look(), os.fork())))

        @property
        def known(self):
            return reap(child(forked(look(), os.fork())))

    class Meta(type):
        def __call__(cls):
            return type.__call__(cls) and child(forked(look(), os.fork()))

    class Body(object):
        pid = child(forked(look(), os.fork()))
        reaped(os.waitpid(pid, 0)[0], look())

    made = [Made(number == 99) for number in range(100)][99]  # 3.13 specialises such a call, and puts in a frame of its own
    made()
    made + made
    assert made.known
    assert made.unknown
    with made as pid:
        assert pid
    del made
    reap(Meta("Made", (object,), {})())


class Handlers(object):
    """Signal handlers of all shapes. Each stack has a frame that the program does not see: the signal."""

    def __init__(self):
        self.done = []

    def plain(self):
        def on_child(number, frame):
            self.done.append(reaped(os.waitpid(-1, 0)[0], handled(look())))

        return on_child

    def method(self, number, frame):
        self.done.append(reaped(os.waitpid(-1, 0)[0], handled(look())))

    def any_arguments(self):
        return lambda *arguments: self.done.append(reaped(os.waitpid(-1, 0)[0], handled(look())))

    def through_helper(self):
        return lambda number, frame: self.done.append(reap_any())


def reap_any():
    return reaped(os.waitpid(-1, 0)[0], handled(look(), 2))


def handled(frames, depth=1):
    return frames[:-depth] + [["<signal handler>", 0, "SIGCHLD"]] + frames[-depth:]


def handlers():
    """The handlers, over a program that sleeps, computes and blocks in a wait for another child."""
    shapes = Handlers()
    for handler in (shapes.plain(), shapes.method, shapes.any_arguments(), shapes.through_helper()):
        for idle in (naps, computes):
            del shapes.done[:]
            before = signal.signal(signal.SIGCHLD, handler)
            pid = child(forked(look(), os.fork()))
            while not shapes.done:
                idle()
            assert shapes.done == [pid]
            signal.signal(signal.SIGCHLD, before)


def naps():
    time.sleep(0.001)


def computes():
    sum(range(1000))


def decorators():
    def decorated(function):
        @functools.wraps(function)
        def wrapper(*arguments):
            return function(*arguments)

        return wrapper

    @decorated
    @decorated
    def inner():
        family()

    @contextlib.contextmanager
    def managed():
        pid = child(forked(look(), os.fork()))
        yield pid
        reaped(os.waitpid(pid, 0)[0], look())

    inner()
    with managed():
        family()


def traced():
    def tracer(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "inner":
            reap(child(forked(look(), os.fork())))
        return tracer

    def inner():
        family()

    sys.settrace(tracer)
    inner()
    sys.settrace(None)


# Code that was made at run time


def run(source, file="<string>", name=None):
    """Execute a source, and call the function of that name in it."""
    names = dict(globals())
    exec(compile(source, file, "exec"), names)
    if name:
        names[name]()


ONE_LINE = "reaped(child(forked(look(), os.fork())) and os.wait()[0], look())"


def strings():
    eval(ONE_LINE)
    eval(compile("\n\n" + ONE_LINE, "<evaluated>", "eval"))
    run(ONE_LINE)
    run("\n\ndef inner():\n\n    family()\n    eval(%r)\ninner()\n" % ONE_LINE, "/srv/generated.py")


def decoded(*names):
    """The names with their escapes resolved, as 2.7 has no common way to write them."""
    return [name.encode("ascii").decode("unicode_escape") for name in names]


FILES = decoded(
    r"/srv/caf\xe9.py",
    r"/srv/\u65e5\u672c\u8a9e/\u30d5\u30a1\u30a4\u30eb.py",
    r"/srv/\U0001f40d.py",
    r"/srv/mixed-\xe9-\u65e5-\U0001f40d.py",
    r"/srv/a b;c:7 d.py",
    r"/srv/new\nline\ttab.py",
    r"relative.py",
    r"<a notebook cell>",
    r"",
    r"/srv/" + "long" * 75 + ".py",
    r"/prv/" + "long" * 75 + ".py",
    r"/srv/" + r"\u9577\u3044" * 90 + ".py",
)
NAMES = decoded(r"caf\xe9", r"\u65e5\u672c\u8a9e", r"\u0444\u0443\u043d\u043a\u0446\u0438\u044f", r"\U00010400", "n" * 250)


def file_names():
    for file in FILES:
        run("\n" + ONE_LINE, file if VERSION >= (3, 0) else file.encode("utf-8"))


def function_names():
    for name in NAMES if VERSION >= (3, 0) else [str("n" * 250)]:
        run("def %s():\n    %s\n" % (name, ONE_LINE), "/srv/names.py", name)


def twin(lines, blank):
    """A function of `lines` lines with the call in their middle; an empty line is put before line `blank`."""
    body = ["    x = 1"] * lines
    body[lines // 2] = "    " + ONE_LINE
    body.insert(blank, "")
    return "\n".join(["def twin():", "    x = 0"] + body) + "\n"


def long_functions():
    """Functions that differ in the middle of their line table only, with the call at line 1503 or 1504."""
    kept = []
    for blank in (1000, 2000, 1400, 1600, 1499, 1501):
        names = dict(globals())
        exec(compile(twin(3000, blank), "/srv/long.py", "exec"), names)
        kept.append(names["twin"])
    for each in kept:
        each()


def far_lines():
    """Far down the file; steps of more than 127, 255, 8191 and 65535 lines; steps back; far to the right."""
    run("\n" * 70000 + ONE_LINE, "/srv/far.py")
    gaps = (100, 128, 200, 256, 300, 8192, 40000, 65536)
    run(
        "def gaps():\n" + "".join("    x = 1\n" + "\n" * gap + "    " + ONE_LINE + "\n" for gap in gaps), "/srv/gaps.py", "gaps"
    )
    run("def wide():\n    x = [" + "1, " * 1000 + ONE_LINE + ", " + ONE_LINE + "]\n", "/srv/wide.py", "wide")
    run(
        "def back():\n    x = dict(\n" + "        a=" + ONE_LINE + ",\n" + "\n" * 300 + "        b=0)\n    family()\n",
        "/srv/back.py",
        "back",
    )


NEW = {
    (3, 3): """
        def inner():
            yield child(forked(look(), os.fork()))
            yield reaped(os.wait()[0], look())
            yield family()
        def middle():
            yield from inner()
        def outer():
            yield from middle()
        list(outer())
        """,
    (3, 5): """
        async def inner():
            family()
            class Awaited:
                def __await__(self):
                    yield reaped(child(forked(look(), os.fork())) and os.wait()[0], look())
            await Awaited()
        async def outer():
            await inner()
        coroutine = outer()
        coroutine.send(None)
        coroutine.close()
        """,
    (3, 6): """
        async def inner():
            for _ in range(2):
                reaped(child(forked(look(), os.fork())) and os.wait()[0], look())
                yield family()
        async def outer():
            async for each in inner():
                f"{family()}"
        with Fails(StopIteration):
            outer().send(None)
        """,
    (3, 7): """
        import asyncio
        async def inner():
            family()
        asyncio.run(inner())
        """,
    (3, 8): """
        def inner():
            if (pid := child(forked(look(), os.fork()))) and reaped(os.waitpid(pid, 0)[0], look()):
                family()
        inner()
        """,
    (3, 10): """
        def inner(what):
            match what:
                case {"call": call}: call()
        inner({"call": family})
        """,
    (3, 11): """
        def inner():
            try:
                raise ExceptionGroup("group", [OSError()])
            except* OSError:
                family()
        inner()
        """,
    (3, 12): """
        class Held[T]:
            def call[U](self, other: U):
                family()
        Held[int]().call(1)
        """,
}


def new_syntax():
    for version in sorted(NEW):
        if VERSION >= version:
            run("\n".join(line[8:] for line in NEW[version].splitlines()), "/srv/new%d.%d.py" % version)


# Calls over several lines: what their line is differs between versions.


def blocked_in_wait(tid):
    with open("/proc/self/task/%d/syscall" % tid) as file:
        return file.read().startswith(WAIT_CALLS)


@contextlib.contextmanager
def watched():
    """A child that lives until another thread has seen where this one waits for it."""
    gate, release = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(release)
        os.read(gate, 1)
        os._exit(0)
    tid, ident = thread_number(), threading.current_thread().ident

    def watch():
        while not blocked_in_wait(tid):
            time.sleep(0.001)
        tell("reap", pid, frames_of(sys._current_frames()[ident]), tid)
        os.close(release)

    thread = threading.Thread(target=watch)
    thread.start()
    yield pid
    thread.join()
    os.close(gate)


# fmt: off
def many_lines():
    with watched() as pid:
        os.waitpid(
            pid,
            0,
        )
    with watched() as pid:
        assert (os
                .waitpid
                (pid,
                 int(
                     False
                 )))[
                     0
                 ]
    with watched() as pid:
        x = [1, 2,
             os.waitpid(pid, 0),
             3,
             ]
    with watched() as pid:
        x = (pid and
             x and os.waitpid(pid,
                              len("")) or
             0)
    with watched() as pid:
        many_arguments(
            1,
            os.waitpid(
                pid,
                *[0]
            ), two=dict(
                three=3
            ))
    if VERSION >= (3, 7):
        os.register_at_fork(before=before_fork)
        reap_seen(
            os
            .fork(
            )
        )
    if VERSION >= (3, 8):
        sys.addaudithook(before_kill)
        pid = sleeper(os.fork())
        KILLED.append(pid)
        os.kill(
            pid,
            signal
            .SIGKILL
        )
        os.waitpid(pid, 0)
# fmt: on


def many_arguments(*arguments, **more):
    pass


SEEN, KILLED = [], []


def before_fork():
    SEEN[:] = frames_of(sys._getframe(1))


def reap_seen(pid):
    reap(child(forked(list(SEEN), pid)))


def before_kill(event, arguments):
    if event == "os.kill" and arguments[0] in KILLED:
        noted("kill", arguments[0], frames_of(sys._getframe(1)))


# Libraries, threads, generations, programs


def seen_fork(real, *arguments):
    return forked(look(), real(*arguments))


def seen_spawn(real, *arguments, **more):
    return forked(look(), real(*arguments, **more))


def seen_wait(real, pid, options):
    found, frames = real(pid, options), look()
    if found[0]:
        reaped(found[0], frames)
    return found


@contextlib.contextmanager
def replaced(*changes):
    """While the context lasts, each (holder, name) is called through a function that sees it."""
    real = [getattr(holder, name) for holder, name, _ in changes]
    for before, (holder, name, through) in zip(real, changes):
        setattr(holder, name, functools.partial(through, before))
    yield
    for before, (holder, name, _) in zip(real, changes):
        setattr(holder, name, before)


def libraries():
    """The frames of multiprocessing and subprocess above what they call in the end."""
    import multiprocessing

    context = multiprocessing.get_context("fork") if VERSION >= (3, 4) else multiprocessing
    changes = [(os, "fork", seen_fork), (os, "waitpid", seen_wait)]
    if VERSION >= (3, 0):
        new = hasattr(subprocess, "_fork_exec")
        changes.append((subprocess, "_fork_exec", seen_fork) if new else (subprocess._posixsubprocess, "fork_exec", seen_fork))
    if VERSION >= (3, 8):
        changes.append((os, "posix_spawn", seen_spawn))
    with replaced(*changes):
        swept = context.Process(target=len, args=((),))
        swept.start()
        until_zombie(swept.pid)
        joined = context.Process(target=len, args=((),))
        joined.start()
        joined.join()
        subprocess.Popen(["/bin/true"], close_fds=True).wait()
        subprocess.call(["/bin/true"], close_fds=True)


def until_zombie(pid):
    def state():
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0]

    while state() != "Z":
        time.sleep(0.001)


def threads():
    def work():
        for _ in range(3):
            pid = child(forked(look(), os.fork()))
            reaped(os.waitpid(pid, 0)[0], look())
        family()

    several = [threading.Thread(target=work) for _ in range(5)]
    for each in several:
        each.start()
    for each in several:
        each.join()


def generations():
    pid = forked(look(), os.fork())
    if pid == 0:
        del LINES[:]
        family()
        write(b"".join(LINES))
        os._exit(last_words(look(), 3))
    reap(pid)


def siblings(names=("aaa", "bbb", "ccc"), older=""):
    """Children that make code of their own, at the same address as their siblings' and as the same of its interpreter's."""
    for name in names:
        pid = forked(look(), os.fork())
        if pid == 0:
            del LINES[:]
            run("def %s():\n    %s\n" % (older + name, ONE_LINE), "/srv/siblings.py", older + name)
            if not older:
                siblings(("ddd", "eee"), name)
            write(b"".join(LINES))
            os._exit(last_words(look(), 3))
        reap(pid)


SNIPPET = """\
import json, os, signal, sys, time
def look(frame):
    frames = []
    while frame:
        frames.insert(0, [frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name])
        frame = frame.f_back
    return frames
def tell(event, pid, frames):
    line = dict(case=sys.argv[-2], what="stack", event=event, pid=pid, tid=os.getpid(), frames=frames)
    os.write(1, (json.dumps(line) + "\\n").encode())
    return 5
frames, pid = look(sys._getframe()), os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
tell("fork", pid, frames)
ending = sys.argv[-1]
if ending.startswith("exit-"):
    sys.exit(int(ending[5:]))
elif ending == "exception":
    sys.stderr = open(os.devnull, "w")
    1 / 0
elif ending == "interrupted":
    sys.stderr = open(os.devnull, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
elif ending == "os-exit":
    os._exit(tell("exit", os.getpid(), look(sys._getframe())))
elif ending == "libc-exit":
    import ctypes
    ctypes.CDLL(None).exit(6)
"""

# What can be told of each ending: with -m, 3.8 and later handle SystemExit without Py_Exit, and so do some always.
RETURNS = sys.version_info >= (3, 14, 7) or (3, 13, 15) <= sys.version_info < (3, 14)
PATHS = {
    "return": (0, "main-return"),
    "exit-0": (0, "sys-exit"),
    "exit-1": (1, "sys-exit"),
    "exit-3": (3, "sys-exit"),
    "exception": (1, "exception"),
    "os-exit": (5, "os-exit"),
    "libc-exit": (6, "unknown"),
}
KNOWN_ALL_THE_SAME = ("exit-3", "os-exit", "libc-exit")
RUNS = {
    "-c": ["return", "exit-0", "exit-3"],
    "-": ["return", "exit-3", "exception"],
    "script": ["return", "exit-1", "exit-3", "exception", "interrupted", "os-exit", "libc-exit"],
    "-m": ["return", "exit-0", "exit-1", "exit-3", "exception", "os-exit"],
}


def programs():
    """The same program as a string, as standard input, as a script and as a module, with every ending."""
    folder = tempfile.mkdtemp(prefix="forktrace-stacks-")
    with open(folder + "/snippet.py", "w") as file:
        file.write(SNIPPET)
    arguments = {"-c": ["-c", SNIPPET], "-": ["-"], "script": [folder + "/snippet.py"], "-m": ["-m", "snippet"]}
    for how in sorted(RUNS):
        for ending in RUNS[how]:
            command = [sys.executable, "-S", "-B"] + arguments[how] + ["programs", ending]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=folder, close_fds=True)
            process.communicate(SNIPPET.encode() if how == "-" else b"")
            tell_ending(process.pid, how, ending)
    shutil.rmtree(folder)


def tell_ending(pid, how, ending):
    if ending == "interrupted":
        killed = VERSION >= (3, 8)
        row(
            pid,
            exit_code=None if killed else 1,
            term_signal="SIGINT" if killed else None,
            exit_path="signal" if killed else "exception",
        )
        return
    code, path = PATHS[ending]
    of_module = how == "-m" and (ending in ("return", "exception") or VERSION >= (3, 8))
    unknown = (RETURNS or of_module) and ending not in KNOWN_ALL_THE_SAME
    row(pid, exit_code=code, term_signal=None, exit_path="unknown" if unknown else path)
    if ending == "return":
        LINES.append(line_of(what="status", event="exit", pid=pid, status="no-thread-state"))


def endings():
    """Children that leave in every way; True in one that returns from here, and from the main program."""
    for ending in ("exit-3", "exception", "return"):
        pid = forked(look(), os.fork())
        if pid == 0:
            del LINES[:]
            return leaves(ending)
        reap(pid)
        tell_ending(pid, "script", ending)
    for name, kill in (("SIGTERM", by_kill), ("SIGABRT", by_abort), ("SIGSEGV", by_crash)):
        pid = forked(look(), os.fork())
        if pid == 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            kill()
        reap(pid)
        row(pid, exit_code=None, term_signal=name, exit_path="abort" if name == "SIGABRT" else "signal")
    pid = forked(look(), os.fork())
    if pid == 0:
        threading.Thread(target=lambda: os._exit(last_words(look(), 9))).start()
        signal.pause()
    reap(pid)
    row(pid, exit_code=9, exit_path="os-exit")
    pid = forked(look(), os.fork())
    if pid == 0:
        del LINES[:]
        atexit.register(at_exit, child(forked(look(), os.fork())))
        return True
    reap(pid)
    row(pid, exit_code=0, exit_path="unknown" if RETURNS else "main-return")
    return False


def leaves(ending):
    if ending == "exception":
        sys.stderr = open(os.devnull, "w")
        raise ValueError(ending)
    if ending == "exit-3":
        sys.exit(3)
    return True


def by_kill():
    os.kill(noted_alone("kill", look()), signal.SIGTERM)


def by_abort():
    os.abort(*noted_alone("exit", look(), ()))


def by_crash():
    ctypes.memset(noted_alone("exit", look(), 0), 1, 1)


def noted_alone(event, frames, value=None):
    """In a child: print alone what it sees, and return the value, or its own number."""
    write(line_of(what="stack", event=event, pid=os.getpid(), tid=thread_number(), frames=frames))
    return os.getpid() if value is None else value


def at_exit(pid):
    reap(pid)
    write(b"".join(LINES))


def imported():
    """A module that forks when it is imported."""
    folder = tempfile.mkdtemp(prefix="forktrace-stacks-")
    with open(folder + "/forks_when_imported.py", "w") as file:
        file.write("from __main__ import *\n\n" + ONE_LINE + "\nfamily()\n")
    sys.path.insert(0, folder)
    __import__("forks_when_imported")
    del sys.path[0]
    shutil.rmtree(folder)


def other_version():
    """A child that executes another interpreter, and one that executes this one again."""
    for program in (OTHER, sys.executable):
        pid = forked(look(), os.fork())
        if pid == 0:
            os.execv(program, [program, "-S", "-c", SNIPPET, "other_version", "return"])
        reap(pid)


def no_stack():
    """A thread that Python does not know forks; a shell that Python executed forks."""
    libc, thread, result = ctypes.CDLL(None), ctypes.c_ulong(), ctypes.c_void_p()
    assert libc.pthread_create(ctypes.byref(thread), None, libc.fork, None) == 0
    assert libc.pthread_join(thread, ctypes.byref(result)) == 0
    pid = result.value & 0x7FFFFFFF
    reap(pid)
    LINES.append(line_of(what="status", event="fork", pid=pid, status="no-thread-state"))
    shell = subprocess.Popen(["/bin/sh", "-c", "/bin/true & echo $!; wait"], stdout=subprocess.PIPE, close_fds=True)
    pid = int(shell.communicate()[0])
    for event in ("fork", "reap", "exit"):
        LINES.append(line_of(what="status", event=event, pid=pid, status="not-python"))
    row(pid, exit_code=0, exit_path="not-python")


CASES = (
    plain,
    deep,
    very_deep,
    too_deep,
    generators,
    comprehensions,
    lambdas,
    callbacks,
    classes,
    handlers,
    decorators,
    traced,
)
CASES += (
    strings,
    file_names,
    function_names,
    long_functions,
    far_lines,
    new_syntax,
    many_lines,
    libraries,
    threads,
    generations,
    siblings,
)
CASES += (programs, endings, imported, other_version, no_stack)


def main():
    """Run the cases; the rest of a program is left out by a child that returns."""
    chosen = sys.argv[2:]
    for case in CASES:
        if chosen and case.__name__ not in chosen:
            continue
        CASE[0] = case.__name__
        if case():
            return
        write(b"".join(LINES))
        del LINES[:]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(5000)
    sys.dont_write_bytecode = True
    OTHER = sys.argv[1]
    CASE[0] = "module"
    PID = child(forked(look(), os.fork()))
    reaped(os.waitpid(PID, 0)[0], look())
    family()
    main()
