"""Finds out which files are Python interpreters: those the probes ask about, and those that can be expected.

Such a file may be made to mislead, and may be on a file system that does not answer: a helper process examines it (`Worker`).
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from forktrace.cpython.layouts import Unsupported, describe, library_folders
from forktrace.kernel.file_keys import device_number, key_of
from forktrace.system.capabilities import in_effect
from forktrace.system.files import open_regular
from forktrace.system.procfs import Proc
from forktrace.system.worker import BUSY_S, Answers, Worker

INTERPRETERS_MOST: Final = 1000  # the files of further ones are not told to the probes
OTHERS_MOST: Final = 2000  # files that are no interpreter, in the probes' memory; their map has room for 4,096
NAMES_MOST: Final = 10_000
NAMES_S: Final = 2.0  # how long programs that have run already are waited for
FILES_MOST: Final = 100_000
_TRIES: Final = 10
_MAPPINGS_MOST: Final = 20_000  # of a process that are looked through


@dataclass(frozen=True)
class Found:
    """An interpreter: the file, its version, and where its standard library is."""

    file: str
    version: str
    libraries: list[str]


class Interpreters:
    """The files that were examined, by the keys that the probes know them by.

    Attributes:
        secret: what makes those keys
        known: what each file is, as the fields of `struct interpreter`; none for a file that is no interpreter
        found: the interpreters among them
        helper: what looks at them
    """

    def __init__(self, secret: int = 0) -> None:
        self.secret = secret
        self.known: dict[int, Mapping[str, int]] = {}
        self.found: dict[int, Found] = {}
        self.helper = Worker(partial(look, secret))
        self._unsupported: dict[int, tuple[str, str]] = {}  # interpreters that are not walked -> name, why
        self._met: dict[int, tuple[str, str]] = {}  # those of them that a process runs, not reported yet
        self._told: set[tuple[str, str]] = set()
        self._asked: set[tuple[int, int]] = set()
        self._looked_at: set[str] = set()
        self._news: dict[int, Mapping[str, int]] = {}
        self._others: list[int] = []  # in the probes' memory

    def not_python(self, file: int) -> bool:
        """Whether this file was examined and is no interpreter."""
        return file in self.known and not self.known[file]

    def expect_on(self, path: str) -> None:
        """Examine the interpreters that are found by the PATH `path`, and those of pyenv.

        The probes ask about whatever is missed, but by the time they are answered a process may have done something already.
        """
        folders = [folder for folder in path.split(os.pathsep) if os.path.isabs(folder)][:50]
        for folder in dict.fromkeys(folders):
            self.helper.ask(["folder", folder])
        self.settle()

    def expect(self, program: str, path: str = "") -> None:
        """Examine a program before it starts, its libpython, a script's interpreter.

        `path` is the PATH by which `#!/usr/bin/env` looks.
        """
        self.helper.ask(["program", program, path])
        self.settle()

    def look_at(self, programs: Iterable[str], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Examine programs that have run, each once, by name: they may have ended before the probes' question is answered."""
        if len(self._looked_at) > NAMES_MOST:
            self._looked_at.clear()
        new = {name for name in programs if os.path.isabs(name)} - self._looked_at
        self._looked_at |= new
        for name in sorted(new):
            self.helper.ask(["file", name])
        self._note(self.helper.wait(NAMES_S, meanwhile))

    def answer(self, question: Any) -> None:
        """Have the file examined that a `struct question` asks about; `take` has the answer when it is there."""
        file, pid, mapped = int(question["file"]), int(question["pid"]), int(question["mapped"])
        if file in self.known:  # the probes have forgotten it
            self._news[file] = self.known[file]
            return
        if file in self._unsupported:
            self._met[file] = self._unsupported[file]
            return
        if (file, pid) in self._asked:
            return
        if self.helper.ask(["question", file, pid, mapped]):
            self._asked.add((file, pid))

    def settle(self) -> None:
        """Wait until all that was asked is answered, or will not be."""
        self._note(self.helper.wait(BUSY_S))

    def take(self) -> tuple[dict[int, Mapping[str, int]], list[int]]:
        """Return what the probes are to be told about files, by key, and which files they are to forget."""
        self._note(self.helper.take())
        news, self._news = self._news, {}
        self._others += [file for file, fields in news.items() if not fields]
        if len(self._others) <= OTHERS_MOST:
            return news, []
        forgotten, self._others = self._others[: -OTHERS_MOST // 2], self._others[-OTHERS_MOST // 2 :]
        return news, forgotten

    def not_walked(self) -> list[tuple[str, str]]:
        """Return the interpreters whose stacks are not walked, met in a process since the last call: file and why."""
        met, self._met = self._met, {}
        room = INTERPRETERS_MOST - len(self._told)
        told = [one for one in dict.fromkeys(met.values()) if one not in self._told][:room]
        self._told |= set(told)
        return told

    def _note(self, answers: Answers) -> None:
        for request, examined in answers:
            if request[0] == "question":
                self._asked.discard((request[1], request[2]))
                if examined is None:  # the helper hung
                    self._unsupported[request[1]] = "?", "it could not be looked at"
            if len(self._unsupported) > FILES_MOST:
                self._unsupported.clear()
            for file, kind, *about in examined or ():
                self._learn(file, kind, about)
            if request[0] == "question" and (unsupported := self._unsupported.get(request[1])):
                self._met[request[1]] = unsupported

    def _learn(self, file: int, kind: str, about: list[Any]) -> None:
        if file in self.known or file in self._unsupported:
            return
        if kind == "unsupported":
            self._unsupported[file] = about[0], about[1]
            return
        if kind == "python" and len(self.found) >= INTERPRETERS_MOST:
            self._unsupported[file] = about[1], "there are too many interpreters"
            return
        if len(self.known) > FILES_MOST:
            self.known = {one: fields for one, fields in self.known.items() if fields}
        self.known[file] = self._news[file] = {}
        if kind == "python":
            fields, name, version, libraries = about
            self.known[file] = self._news[file] = {**fields, "file": file}
            self.found[file] = Found(name, version, libraries)


# What the helper does. An examined file is a list:
#     key, "python", fields, name, version, folders of its standard library
#     key, "unsupported", name, why
#     key, "other"
Examined = list[Any]


def look(secret: int, request: list[Any]) -> list[Examined]:
    """Return the files that were examined for a request of `Interpreters`; `secret` makes their keys."""
    kind, *rest = request
    looks: dict[str, Callable[..., Iterator[Examined]]]
    looks = {"folder": _in_folder, "program": _program, "file": _file, "question": _asked_about}
    return list(looks[kind](secret, *rest))


def _in_folder(secret: int, folder: str) -> Iterator[Examined]:
    folder = os.path.realpath(folder)
    pyenv = f"{glob.escape(os.path.dirname(folder))}/versions/*/bin/python?.*" if folder.endswith("/shims") else ""
    programs = glob.glob(f"{glob.escape(folder)}/python*") + (glob.glob(pyenv) if pyenv else [])
    for program in {os.path.realpath(one) for one in programs}:
        yield from _program(secret, program, "")


def _program(secret: int, program: str, path: str) -> Iterator[Examined]:
    for _ in range(4):  # a script's interpreter may be a script
        program = os.path.realpath(program)
        yield from _file(secret, program)
        folder = os.path.dirname(os.path.dirname(program))
        if os.path.basename(program).startswith("python"):
            for library in {os.path.realpath(one) for one in glob.glob(f"{glob.escape(folder)}/lib*/libpython?.*.so.*")}:
                yield from _file(secret, library)
        following = _interpreter_of_script(program, path)
        if following is None:
            return
        program = following


def _file(secret: int, name: str) -> Iterator[Examined]:
    try:
        descriptor = open_regular(name)
    except (OSError, ValueError):
        return
    with open(descriptor, "rb"):
        yield _examined(key_of(secret, os.fstat(descriptor)), descriptor, name, "/")


def _asked_about(secret: int, file: int, pid: int, mapped: int) -> Iterator[Examined]:
    """What runs in another's process is opened with all rights; where its library lies is looked up with the user's alone."""
    for _ in range(_TRIES):
        try:
            with in_effect():
                link = _mapped_file(pid, mapped) if mapped else f"/proc/{pid}/exe"
                name = os.readlink(link)
                descriptor = open_regular(link)
        except OSError:  # the dynamic linker has just split the mapping; or the process is gone, and the next one asks
            continue
        with open(descriptor, "rb"):
            if file in _keys_of(secret, os.fstat(descriptor), pid):  # else it runs another program by now
                yield _examined(file, descriptor, name, f"/proc/{pid}/root")
        return


def _examined(file: int, descriptor: int, name: str, root: str) -> Examined:
    try:
        found = describe(descriptor, os.path.basename(name))
    except Unsupported as error:
        return [file, "unsupported", name, str(error)]
    except MemoryError:
        return [file, "unsupported", name, "it is too large to be looked at"]
    if found is None:
        return [file, "other"]
    return [file, "python", dict(found.fields), name, found.version, library_folders(name, found, root)]


def _keys_of(secret: int, about: os.stat_result, pid: int) -> Iterator[int]:
    """Yield the keys that a file of a process may have: on some file systems stat(2) tells another device than the kernel's."""
    yield key_of(secret, about)
    for device in Proc(rights=in_effect).mounted_devices(pid):
        yield key_of(secret, about, device=device_number(*device))


def library_of(secret: int, pid: int) -> tuple[int, int] | None:
    """Return the key of the libpython that a process has mapped, and where; None: it has none, or is gone."""
    try:
        with in_effect(), open(f"/proc/{pid}/maps", errors="backslashreplace") as lines:
            for line in islice(lines, _MAPPINGS_MOST):
                place, _, offset, device, inode, *name = line.split(maxsplit=5)
                if name and int(offset, 16) == 0 and os.path.basename(name[0]).startswith("libpython"):
                    major, minor = (int(part, 16) for part in device.split(":"))
                    about = os.stat(f"/proc/{pid}/map_files/{place}")
                    key = key_of(secret, about, number=int(inode), device=device_number(major, minor))
                    return key, int(place.partition("-")[0], 16)
    except OSError:
        pass
    return None


def _mapped_file(pid: int, start: int) -> str:
    with open(f"/proc/{pid}/maps", errors="backslashreplace") as lines:
        for line in islice(lines, _MAPPINGS_MOST):
            if line.startswith(f"{start:x}-"):
                return f"/proc/{pid}/map_files/{line.split(maxsplit=1)[0]}"
    raise FileNotFoundError(f"process {pid} maps nothing at {start:#x}")


def _interpreter_of_script(name: str, path: str) -> str | None:
    """Return the program that a script's first line names, None when the file is no such script."""
    try:
        with open(open_regular(name), "rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    words = os.fsdecode(first[2:]).split()
    if len(words) > 1 and os.path.basename(words[0]) == "env":
        return shutil.which(words[-1], path=path)
    return words[0] if words else None
