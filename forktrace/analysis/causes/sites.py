"""The site of a stack: whose code each frame is, and the user's own line that is responsible.

The user's own code is every frame outside the standard library and the directories of installed packages; the package that
the command line runs, wherever it is installed; and what `--own` named when it was recorded. The site of a stack is its
innermost such frame; where there is none the innermost frame of an installed package, else the innermost of all.

Two kinds of frames are ignored: those outside of the first frame of a process of multiprocessing, which are its parent's from
before the fork; and those that a signal interrupted, which did not call its handler.

The package that the command line runs: with `-m pkg.mod` it is `pkg`; with a script inside an installed package, that
package; with an entry point that an installer wrote (`/usr/bin/prog`), the installed package whose code that script calls
directly: in any stack of a process with these arguments, the frame next to the script's `<module>`. A process that never
called exec has its forker's program, and so have the workers that multiprocessing starts by exec.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from forktrace.analysis.causes.programs import Entry, Programs, bootstrap_of, entry_of, is_worker, program_rows
from forktrace.analysis.log import NONE, Flags, Ints, Log, category, chosen, distinct_of, pick
from forktrace.trace import events
from forktrace.trace.stacks import HANDLER, Frame, unfold

_PACKAGES: Final = re.compile(r".*/(?:site|dist)-packages/(?:[^/]*\.egg/)?")
_STANDARD: Final = re.compile(r"(?:.*/)?lib(?:32|64)?/(?:pypy|python)(\d(?:\.\d+)?)t?/|(?:.*/)?python(\d\d+)\.zip/")
_ARCHIVE: Final = re.compile(r".*\.pyzw?/")  # of zipapp
# The user's code without a file; <script> runs in a subinterpreter.
_TYPED: Final = ("<string>", "<stdin>", "<console>", "<input>", "<timeit-src>", "<script>")
_ENTRY_FOLDERS: Final = ("bin", "sbin", "Scripts")
_MOST_PARTS: Final = 64  # of a path that is shortened
_CELL: Final = re.compile(r"<(?:ipython-input|python-input|doctest|cell)\b")


_LEAVES_MODULES_ITSELF: Final = (3, 8)  # from here on `python -m` returns from main, also after SystemExit


class Place(NamedTuple):
    """Whose code a file is: `python` (the standard library), `packages` (installed), `own`, or `made` (by no one's hand).

    `module` is the path within the standard library or the directory of packages, else the file as it is; `version` that of the
    standard library, `(3, 11)`, empty where the path does not say.
    """

    home: str
    module: str
    version: tuple[int, ...] = ()


class Libraries:
    """Knows the place of every file: `roots` are the directories of standard libraries, with the interpreter's version.

    A frozen program (PyInstaller) names its files relatively, `multiprocessing/process.py`, and so does one file of many
    (zipapp) within itself. There the standard library and the installed packages `known` are told by their names; `scripts` are
    the program's own whatever they are called.
    """

    def __init__(self, roots: Mapping[str, str], known: Iterable[str] = (), scripts: Iterable[str] = ()) -> None:
        self._roots = sorted(((root.rstrip("/") + "/", version_of(text)) for root, text in roots.items()), reverse=True)
        self._packages, self._scripts = frozenset(known), frozenset(scripts)
        self.versions = {version for _, version in self._roots}
        self._known: dict[str, Place] = {}

    def place(self, file: str) -> Place:
        """Return whose code `file`, as frames name it, is."""
        if file not in self._known:
            self._known[file] = self._place(file)
        return self._known[file]

    def _place(self, file: str) -> Place:
        if file.startswith("<frozen "):
            return Place("python", file[len("<frozen ") : -1].replace(".", "/") + ".py")
        if file.startswith("<"):
            return Place("own" if file in _TYPED or _CELL.match(file) else "made", file)
        if installed := _PACKAGES.match(file):
            return Place("packages", file[installed.end() :])
        for root, version in self._roots:
            if file.startswith(root) and len(root) > 1:
                return Place("python", file[len(root) :], version)
        if standard := _STANDARD.match(file):
            digits = standard[1] or f"{standard[2][0]}.{standard[2][1:]}"
            return Place("python", file[standard.end() :], version_of(digits))
        return self._frozen(file) or Place("own", file)

    def _frozen(self, file: str) -> Place | None:
        """The place of a file by its name alone; None: it is the program's own."""
        archive = _ARCHIVE.match(file)
        module = file[archive.end() :] if archive else file
        name = module.partition("/")[0].removesuffix(".py")
        if module.startswith("/") or file in self._scripts or name == "__main__":
            return None
        if name in self._packages:
            return Place("packages", module)
        return Place("python", module) if name in sys.stdlib_module_names else None


def version_of(text: str) -> tuple[int, ...]:
    """Return `(3, 11, 7)` for `3.11.7`, and nothing for what does not begin with a number."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9})*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


Stack = Sequence[tuple[Frame, Place]]  # the innermost frame first


class Owner(NamedTuple):
    """What is the user's own among installed code: packages (`gunicorn`, or `prog.py`), and files by their directories."""

    packages: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()

    def owns(self, file: str, place: Place) -> bool:
        """Whether a frame of `file` is the user's own."""
        if place.home == "own":
            return True
        return package_of(place) in self.packages or file.startswith(self.folders)


def named_own(header: Mapping[str, Any]) -> Owner:
    """Return what the recording's `--own` named."""
    own = header.get("own")
    names = [name for name in own if isinstance(name, str) and name] if isinstance(own, list) else []
    folders = tuple(name.rstrip("/") + "/" for name in names if "/" in name)
    return Owner(frozenset(name.partition(".")[0] for name in names if "/" not in name), folders)


def package_of(place: Place) -> str:
    """Return the installed package, or the package of the standard library, that a file belongs to; "" for other files."""
    return place.module.partition("/")[0].removesuffix(".py") if place.home in ("packages", "python") else ""


class Sites:
    """The stacks of a trace; each distinct one is read once. `cut` returns the frames that are the process's own.

    Attributes:
        code: of each row of the trace its stack, an index into `texts` and `frames`; NONE: it has none
        texts: the distinct stacks, folded
        libraries: whose code a file is
    """

    def __init__(
        self, log: Log, cut: Callable[[Sequence[Frame], Sequence[Place]], Stack], packages: Iterable[str] = ()
    ) -> None:
        self._log = log
        self._cut = cut
        column = log.trace.table.column("stack").combine_chunks()
        self.code = log.numbers("stack")
        self.texts: list[str] = column.dictionary.to_pylist()
        self.libraries = Libraries(dict(_roots(log)), packages, {one.script for one in self._entries[1]})
        self._inner: dict[int, Stack] = {}

    @cached_property
    def frames(self) -> list[list[Frame]]:
        """The frames of each distinct stack, outermost first."""
        return [unfold(text) for text in self.texts]

    def places(self, stack: int) -> list[Place]:
        """Return whose code each frame of a distinct stack is."""
        return [self.libraries.place(frame.file) for frame in self.frames[stack]]

    def stack_texts(self, rows: Ints) -> pd.Series:
        """Return the folded stacks of `rows`; `<NA>` where there is none. Equal stacks share their memory."""
        texts = np.array([*self.texts, pd.NA], object)
        return pd.Series(pd.array(texts[pick(self.code, rows)], dtype=pd.StringDtype("python")))

    def statuses(self, rows: Ints) -> pd.Categorical[str]:
        """Return the stack status of `rows`; `<NA>`: no stack was asked for."""
        return category(self._log.at("stack_status", rows), events.STACK_STATUSES)

    def sites(self, rows: Ints, process: Ints) -> pd.Series:
        """Return the site of the stack of each row, whose thread belongs to `process`: `consumer.py:33 consume_task`."""
        codes, texts = self.site_codes(rows, process)
        return chosen(codes, texts)

    def site_codes(self, rows: Ints, process: Ints) -> tuple[Ints, list[str]]:
        """Return the sites of `rows` as indexes into the distinct ones, which come second; NONE: the row has no stack."""
        return self._codes_of(rows, process, self._site_text, self._owners)

    def library_codes(self, rows: Ints, process: Ints) -> tuple[Ints, list[str]]:
        """Return what `library_of` says of `rows`, as indexes into the distinct packages, which come second; NONE: none."""
        return self._codes_of(rows, process, lambda stack, owner: library_of(self.inner(stack), owner), self._named)

    def packages(self, rows: Ints, process: Ints) -> pd.Series:
        """Return these packages as a column, such as `rq`."""
        codes, texts = self.library_codes(rows, process)
        return chosen(codes, texts)

    def _codes_of(
        self, rows: Ints, process: Ints, text: Callable[[int, Owner], str], owners: Sequence[Owner]
    ) -> tuple[Ints, list[str]]:
        """What `text` says of the stack of each row and its process's owner, asked once for each distinct pair."""
        stack, entry = pick(self.code, rows), self._entry_at(process, pick(self._log.time_ns, rows))
        pair = np.where(stack == NONE, NONE, stack * len(owners) + entry + 1)
        distinct, which = distinct_of(pair)
        texts = ["" if one == NONE else text(one // len(owners), owners[one % len(owners)]) for one in distinct.tolist()]
        names = {text: code for code, text in enumerate(dict.fromkeys(texts))}
        codes = np.array([names[text] if text else NONE for text in texts], np.int64)
        return codes[which], list(names)

    def innermost_codes(self, rows: Ints) -> tuple[Ints, list[object]]:
        """Return the innermost frames of the stacks of `rows` as indexes into a list, which comes second; NONE: no stack."""
        return pick(self.code, rows), [self.frame_text(frames[-1]) if frames else pd.NA for frames in self.frames]

    def inner(self, stack: int) -> Stack:
        """Return the frames of a distinct stack that are this process's and thread's own, the innermost first."""
        if stack not in self._inner:
            self._inner[stack] = self._cut(self.frames[stack], self.places(stack))
        return self._inner[stack]

    def _site_text(self, stack: int, owner: Owner) -> str:
        inner = self.inner(stack)
        return self.frame_text(site_frame(inner, owner)) if inner else ""

    def frame_text(self, frame: Frame) -> str:
        """Return a frame as a screen shows it, with the shortened file of `shown_names`."""
        return f"{self._shown.get(frame.file, frame.file)}:{frame.line or '?'} {frame.name}".rstrip()

    def file_of(self, shown: str) -> str | None:
        """Return the whole path of a file that sites show shortened; None: no site shows it."""
        return self._files.get(shown)

    @cached_property
    def _files(self) -> dict[str, str]:
        return {shown: file for file, shown in self._shown.items()}

    @cached_property
    def _shown(self) -> dict[str, str]:
        return shown_names({frame.file for frames in self.frames for frame in frames}, self.libraries)

    def _entry_at(self, process: Ints, time_ns: Ints) -> Ints:
        """The program that each process runs at a time, an index into the distinct command lines; NONE: not known."""
        return pick(self._entries[0], self._programs.at(process, time_ns))

    def command_lines(self, process: Ints, time_ns: Ints) -> tuple[Flags, Flags]:
        """Return which processes ran `python -m` then, which leaves without Py_Exit, and which were workers of `spawn`."""
        of_row, entries = self._entries
        entry = pick(of_row, Programs(self._log).at(process, time_ns))
        old = bool(self.libraries.versions) and max(self.libraries.versions) < _LEAVES_MODULES_ITSELF
        module = np.array([bool(one.module) and not old for one in entries] + [False], bool)
        spawned = np.array([is_worker(one) for one in entries] + [False], bool)
        return module[entry], spawned[entry]

    @cached_property
    def _entries(self) -> tuple[Ints, list[Entry]]:
        """Which of the distinct programs of the recording each row of `program_rows` runs, and these programs."""
        log = self._log
        execs = program_rows(log)
        codes, distinct = log.distinct("argv", execs)
        entries = [entry_of(text.split("\0")) for text in distinct]
        found = np.full(len(log.time_ns), NONE)
        found[execs] = codes
        return found, entries

    @cached_property
    def _programs(self) -> Programs:
        """The programs of all processes, the workers of multiprocessing having that of their forker."""
        of_row, entries = self._entries
        worker = np.array([bool(bootstrap_of(entry)) for entry in entries] + [False], bool)
        return Programs(self._log, skip=worker[of_row[program_rows(self._log)]])

    @cached_property
    def _owners(self) -> list[Owner]:
        """What is the user's own in a process of each distinct program; the first is for an unknown program."""
        packages, folders = named_own(self._log.trace.header)
        run = self._packages_run()
        return [Owner(packages, folders)] + [Owner(packages | more, folders) for more in run]

    @cached_property
    def _named(self) -> list[Owner]:
        """The same, where what `-m` or a script of the package's own runs counts as the package that it is."""
        packages, folders = named_own(self._log.trace.header)
        scripts = [package_of(self.libraries.place(entry.script)) for entry in self._entries[1]]
        return [Owner(packages, folders)] + [Owner(packages | ({script} - {""}), folders) for script in scripts]

    def _packages_run(self) -> list[set[str]]:
        """The package that each distinct program runs."""
        entries = self._entries[1]
        found = [named_package(entry, self.libraries) for entry in entries]
        rows = np.flatnonzero(self.code != NONE)
        entry = self._entry_at(self._acting(rows), self._log.time_ns[rows])
        pairs, _ = distinct_of((self.code[rows] * len(entries) + entry)[entry != NONE])
        for stack, one in (divmod(pair, len(entries)) for pair in pairs.tolist()):
            if entries[one].script:
                found[one] |= _called_package(entries[one].script, self.frames[stack], self.places(stack))
        return found

    def _acting(self, rows: Ints) -> Ints:
        """The process whose thread the stack of each row is: who acted, and of an exit the process itself."""
        return np.where(self._log.is_kind("exit")[rows], self._log.id[rows], self._log.by_id[rows])


def _roots(log: Log) -> Iterator[tuple[str, str]]:
    """The directories of standard libraries that the trace names, with the version of their interpreter."""
    for detail in log.texts("detail", log.rows("runtime")).dropna().unique().tolist():
        try:
            found = json.loads(detail)
            yield from ((str(root), str(found["version"])) for root in found["libraries"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # the path patterns are used instead


def named_package(entry: Entry, libraries: Libraries) -> set[str]:
    """The package that a command line names."""
    name = entry.module.partition(".")[0] or package_of(libraries.place(entry.script))
    return {name} - {""}


def _called_package(script: str, frames: Sequence[Frame], places: Sequence[Place]) -> set[str]:
    """The installed package whose code an entry point calls directly, if this stack shows it."""
    for frame, place in zip(frames, places[1:], strict=False):
        if frame.name == "<module>" and _same_file(frame.file, script) and _is_entry_point(frame.file):
            return {package_of(place)} if place.home == "packages" else set()
    return set()


def _same_file(file: str, script: str) -> bool:
    """Whether the file of a frame is the script of a command line, which may be relative to a directory that is not known."""
    return file == script or file.endswith("/" + script.removeprefix("./"))


def _is_entry_point(file: str) -> bool:
    """Whether a script is where installers write entry points; these have no `.py`, unlike `bin/run.py` of a project."""
    return file.rpartition("/")[0].rpartition("/")[2] in _ENTRY_FOLDERS and not file.endswith(".py")


def site_frame(inner: Stack, owner: Owner) -> Frame:
    """Return the innermost frame of the user's own code; where there is none that of a package, else the innermost of all."""
    called = _since_handler(inner)
    own = (frame for frame, place in called if owner.owns(frame.file, place))
    installed = (frame for frame, place in called if place.home == "packages")
    return next(itertools.chain(own, installed), called[0][0])


def library_of(inner: Stack, owner: Owner) -> str:
    """Return the installed package whose code made the call, inside of what `owner` owns; "": none.

    Where a package is the program, run by a script of its own, that is the package too: what `--own` named is not.
    """
    called = itertools.takewhile(lambda one: not owner.owns(one[0].file, one[1]), _since_handler(inner))
    return next((package_of(place) for _, place in called if place.home == "packages"), "")


def _since_handler(inner: Stack) -> Stack:
    """The frames that a signal handler called, where one runs; the frames outside were interrupted and did not call it."""
    return list(itertools.takewhile(lambda one: one[0].file != HANDLER, inner)) or inner


def shown_names(files: Iterable[str], libraries: Libraries) -> dict[str, str]:
    """Return for each file its shortest suffix, but of an installed package at least the package: `gevent/hub.py`."""
    modules = {file: place.module for file in files if (place := libraries.place(file)).home == "packages"}
    shown = shortest_suffixes(files)
    return {file: max(name, modules.get(file, ""), key=len) for file, name in shown.items()}


def shortest_suffixes(files: Iterable[str]) -> dict[str, str]:
    """Return for each file the last parts of its path, as few as tell it from every other of `files`."""
    shown: dict[str, str] = {}
    alike: list[list[str]] = [list(files)]
    for parts in range(1, _MOST_PARTS):
        groups: dict[str, list[str]] = defaultdict(list)
        for file in (file for group in alike for file in group):
            groups["/".join(file.rsplit("/", parts)[-parts:])].append(file)
        alike = []
        for suffix, group in groups.items():
            whole = [file for file in group if suffix == file]
            shown |= dict.fromkeys(whole if len(group) > 1 else group, suffix)
            rest = [file for file in group if file not in whole]
            alike += [rest] if len(group) > 1 and rest else []
    return shown | {file: file for group in alike for file in group}
