"""Records a scene of `forktrace demo` as a user would, with what feeds it in a process outside the recording."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, cast

from forktrace.errors import ForktraceError, MachineLacks, UsageError
from forktrace.scenes import SCENES, Scene
from forktrace.system.users import invoking_user

PATIENCE_S: Final = 5.0  # for a recorder that should end by itself
FEEDER_PATIENCE_S: Final = 2.0  # for its feeder after that: it is not needed any more


def default_scene() -> Scene:
    """Return the first scene whose modules this interpreter has; when there is none, the first."""
    return next(filter(has_modules, SCENES), SCENES[0])


def has_modules(scene: Scene) -> bool:
    """Say whether this interpreter has what the scene imports."""
    return all(importlib.util.find_spec(module) for module in scene.modules)


def check_modules(scene: Scene) -> None:
    """Make sure that this interpreter has what the scene imports.

    Raises:
        MachineLacks: a module is missing; the hint is the command that installs it.
    """
    if has_modules(scene):
        return
    has_pip = importlib.util.find_spec("pip")
    pip = [sys.executable, "-m", "pip", "install"] if has_pip else ["uv", "pip", "install", "--python", sys.executable]
    install = shlex.join([*pip, *scene.packages])
    raise MachineLacks(f"scene {scene.name} needs {' and '.join(scene.packages)}", hint=install)


def check_absent(*paths: Path) -> None:
    """Make sure that none of the files to be written is there yet.

    Raises:
        UsageError: one is.
    """
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists", hint="name another with -o, or overwrite with --force")


def check_feeder(scene: Scene, options: Sequence[str]) -> None:
    """Make sure that options for a feeder have one that takes them.

    Raises:
        UsageError: the scene is not fed.
    """
    if options and not scene.feeder:
        raise UsageError(f"scene {scene.name} takes no {options[0]}", "forktrace demo --list shows what there is")


def record_scene(
    scene: Scene, trace: Path, *, speed: float, force: bool, say: Callable[[str], None], feeding: Sequence[str] = ()
) -> int:
    """Record the scene into `trace` and return the exit status of `forktrace record`; `feeding` are options of the feeder.

    What the scene and the recorder print goes to `say`, a line at a time, and to the feeder, which so knows how far the
    scene is. Whatever goes wrong, Ctrl-C included: when this returns or raises, the feeder and the recorder are gone.

    Raises:
        ForktraceError: the feeder did not start.
    """
    arguments = ["--speed", str(speed)]
    feeder = _start_feeder(scene.feeder, [*arguments, *feeding]) if scene.feeder else None
    recorder = None
    try:
        if feeder:
            arguments = shlex.split(_stdout(feeder).readline())
        if not arguments:
            raise ForktraceError(f"{scene.feeder} did not start")
        command = [_short(sys.executable), _short(str(scene.program)), *arguments]
        record = ["record", "-o", str(trace), *["--force"] * force, "--", *command]
        say(shlex.join(["forktrace", *record]))
        # stderr too: not being a terminal it gets no live line, which the lines of the scene would be written into.
        recorder = subprocess.Popen([*_forktrace(), *record], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in _stdout(recorder):
            say(line.rstrip("\n"))
            if feeder:
                _pass_on(line, feeder)
        return recorder.wait()
    finally:
        if feeder:
            _close(feeder)
        if recorder:
            _end(recorder, PATIENCE_S)
        if feeder:
            _end(feeder, FEEDER_PATIENCE_S)


def _start_feeder(program: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """Start the feeder in a session of its own, where Ctrl-C does not reach it: it ends when its stdin does."""
    command, who, rights = [sys.executable, str(program), *arguments], invoking_user(), dict[str, Any]()
    if who.uid != os.geteuid():  # under sudo: only the recorder is root
        rights = {"user": who.uid, "group": who.gid, "extra_groups": who.groups, "env": who.environment}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, **rights)


def _short(path: str) -> str:
    """Return the shorter of the path and the one from the working directory, for who reads the command line."""
    relative = os.path.relpath(path)
    return min(path, relative if os.sep in relative else f"./{relative}", key=len)


def _forktrace() -> list[str]:
    """Return the command of this very forktrace; the working directory is on its path only where it is on ours."""
    here = {"", str(Path.cwd())} & set(sys.path)
    return [sys.executable, *([] if here else ["-P"]), "-m", "forktrace"]


def _stdout(process: subprocess.Popen[str]) -> TextIO:
    return cast(TextIO, process.stdout)


def _pass_on(line: str, feeder: subprocess.Popen[str]) -> None:
    """Give the feeder a line; one that is gone already needs none."""
    with contextlib.suppress(BrokenPipeError):
        print(line, end="", file=feeder.stdin, flush=True)


def _close(feeder: subprocess.Popen[str]) -> None:
    """Close the feeder's stdin, upon which it tells the scene to stop, and ends."""
    with contextlib.suppress(BrokenPipeError):
        cast(TextIO, feeder.stdin).close()


def _end(process: subprocess.Popen[str], patience_s: float) -> None:
    """Wait until the process has ended; out of patience, or on Ctrl-C, send SIGTERM, then SIGKILL."""
    for stop in (process.terminate, process.kill):
        try:
            process.wait(patience_s)
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            stop()
    process.wait()
