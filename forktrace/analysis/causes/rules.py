"""The rules of causes.toml and of a user's own file: what a Python stack says about why it forks, waits or exits."""

from __future__ import annotations

import itertools
import operator
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from forktrace.analysis.causes.sites import Place, Sites, Stack
from forktrace.analysis.log import NONE, Ints, Log, distinct_of, first_of_each, pick
from forktrace.analysis.options import option_names
from forktrace.errors import UsageError
from forktrace.trace.events import CALLS, TARGETS, WAIT_CALLS
from forktrace.trace.stacks import Frame

CREATORS: Final = (
    *("multiprocessing", "pool", "executor", "forkserver", "subprocess", "asyncio"),
    *("os-fork", "posix-spawn", "native", "unknown"),
)
CAUSES: Final = (
    *("next-start", "join", "poll", "active-children", "pool", "executor", "forkserver", "resource-tracker"),
    *("subprocess-wait", "subprocess-cleanup", "asyncio", "event-loop", "signal-handler", "os-wait", "library-wait"),
    *("exit-handler", "parent-exit"),
    *("pidns-exit", "autoreap-ignored", "autoreap-nocldwait", "recorder", "other-native", "unknown", "never"),
)
EXIT_PATHS: Final = (
    *("main-return", "sys-exit", "exception", "os-exit", "bootstrap"),
    *("signal", "abort", "not-python", "unknown"),
)
BUILT_IN: Final = Path(__file__).with_name("causes.toml")
GAP: Final = "..."  # any frames of libraries
ANY: Final = "*"

_LISTS: Final = ("boundaries", "starts", "wrappers")
_HINT: Final = "docs/causes.md shows how rules are written"
_KINDS: Final = {"cause": CAUSES, "created_by": CREATORS, "exit_path": EXIT_PATHS}
_MORE_KEYS: Final = {"cause": ("call", "target", "options"), "created_by": ("start",)}
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class Pattern(NamedTuple):
    """A frame of a rule: the file within its library and the functions, any if there are none; or `gap`, without a file."""

    file: str
    functions: frozenset[str] = frozenset()
    gap: str = ""

    @property
    def package(self) -> str:
        """The first part of its file: `multiprocessing`."""
        return self.file.partition("/")[0]

    def of_copy(self, original: str, copy: str) -> Pattern:
        """Return the same frame in a package that is a copy of `original`."""
        return self._replace(file=self.file.replace(f"{original}/", f"{copy}/", 1)) if self.package == original else self

    def fits(self, frame: Frame, place: Place, library: str = "") -> bool:
        """Whether this frame is meant."""
        if self.functions and frame.name not in self.functions:
            return False
        if library or place.home in ("python", "packages"):
            return place.module == self.file and library in ("", place.home)
        return place.module == self.file or place.module.endswith("/" + self.file)


@dataclass(frozen=True)
class Rule:
    """One rule; `name` is what it says of the stacks that it fits."""

    name: str
    frames: tuple[Pattern, ...]
    library: str = ""
    python: tuple[tuple[str, tuple[int, ...]], ...] = ()
    start: bool = False
    call: str = ""
    target: str = ""
    options: str = ""

    def of_copy(self, original: str, copy: str) -> Rule:
        """Return the same rule for a package that is a copy of `original`; itself where it is about others too."""
        if any(one.package not in ("", original) for one in self.frames):
            return self
        return replace(self, frames=tuple(one.of_copy(original, copy) for one in self.frames), library="packages")

    def fits(self, stack: Stack, version: tuple[int, ...]) -> bool:
        """Whether the innermost frames of `stack` are those of the rule; `version` is its Python's, empty: not known."""
        known = len(version) >= 2
        right = all(_COMPARISONS[sign](version[: len(limit)], limit) for sign, limit in self.python) if known else True
        return right and self._fits(stack, 0, len(self.frames) - 1)

    def _fits(self, stack: Stack, depth: int, last: int) -> bool:
        """Whether `frames[: last + 1]` fit the frames from `depth` on outwards."""
        if last < 0:
            return True
        pattern = self.frames[last]
        if not pattern.gap:
            return depth < len(stack) and pattern.fits(*stack[depth], self.library) and self._fits(stack, depth + 1, last - 1)
        while not self._fits(stack, depth, last - 1):
            if depth == len(stack) or not (pattern.gap == ANY or self._is_library(*stack[depth])):
                return False
            depth += 1
        return True

    def _is_library(self, frame: Frame, place: Place) -> bool:
        return place.home == "python" or any(
            one.file and one._replace(functions=frozenset()).fits(frame, place) for one in self.frames
        )

    def fits_call(self, call: str, target: str, options: Sequence[str]) -> bool:
        """Whether a wait is the one meant."""
        wanted = (self.options.removeprefix("!") in options) != self.options.startswith("!") if self.options else True
        return wanted and self.call in ("", call) and self.target in ("", target)


@dataclass
class Rules:
    """All rules, those of the user first; `names` are what frames are called in a chain of calls.

    `packages` are those that are told by their names, where a frozen program names no directories.
    """

    cause: list[Rule] = field(default_factory=list)
    created_by: list[Rule] = field(default_factory=list)
    exit_path: list[Rule] = field(default_factory=list)
    boundaries: list[Pattern] = field(default_factory=list)
    starts: list[Pattern] = field(default_factory=list)
    wrappers: list[Pattern] = field(default_factory=list)
    names: list[tuple[Pattern, str]] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    _begins: dict[tuple[str, str], bool] = field(default_factory=dict)  # whether a boundary, of each function met
    _called: dict[tuple[str, str, str], str] = field(default_factory=dict)  # the name in a chain of calls, of each met

    def name_of(self, frame: Frame, place: Place) -> str:
        """Return what a frame is called in a chain of calls: `Process.start`, or just its function."""
        function = (place.home, place.module, frame.name)
        if function not in self._called:
            called = (name for pattern, name in self.names if pattern.fits(frame, place))
            self._called[function] = next(called, frame.name)
        return self._called[function]

    def inner(self, frames: Sequence[Frame], places: Sequence[Place]) -> Stack:
        """Return the frames of this very process and thread, the innermost first: up to the boundary, that included.

        Functions that only stand in for those of the os module are left out, where they are innermost.
        """
        stack: list[tuple[Frame, Place]] = []
        for frame, place in zip(reversed(frames), reversed(places), strict=True):
            stack.append((frame, place))
            if self.begins(frame, place):
                break
        return list(itertools.dropwhile(lambda one: any(each.fits(*one) for each in self.wrappers), stack)) or stack

    def begins(self, frame: Frame, place: Place) -> bool:
        """Whether a process or a thread begins with this function."""
        known = self._begins.get((frame.file, frame.name))
        if known is None:
            known = self._begins[frame.file, frame.name] = any(one.fits(frame, place) for one in self.boundaries)
        return known


def load(path: str | os.PathLike[str] | None = None) -> Rules:
    """Return the built-in rules, and before them those of the file `path`.

    Raises:
        UsageError: the file cannot be read, is no TOML, or a rule in it is not one.
    """
    rules = Rules()
    if path is not None:
        _add(rules, _parsed(Path(path)), str(path))
    _add(rules, _built_in(), str(BUILT_IN))
    return rules


@cache
def _built_in() -> dict[str, Any]:
    """Read once: a process that has given up its rights may not be able to any more."""
    return _parsed(BUILT_IN)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: {error}", _HINT) from None


def _add(rules: Rules, content: Mapping[str, Any], file: str) -> None:
    try:
        _check_keys(content, (*_KINDS, *_LISTS, "packages", "copies", "names"))
        copies = list(_table(content, "copies").items())
        for kind in _KINDS:
            entries = content.get(kind, [])
            _check(isinstance(entries, list), f"write [[{kind}]], in two brackets")
            for number, entry in enumerate(entries, 1):
                getattr(rules, kind).extend(_with_copies(_rule(entry, kind, f"[[{kind}]] {number}"), copies))
        for key in _LISTS:
            for one in _patterns(content.get(key, []), key, gaps=False):
                getattr(rules, key).extend(_with_copies(one, copies))
        rules.packages += _texts(content.get("packages", []), "packages")
        for frame, name in _table(content, "names").items():
            rules.names += [(one, name) for one in _with_copies(_pattern(frame, "[names]"), copies)]
    except ValueError as error:
        raise UsageError(f"{file}: {error}", _HINT) from None


def _table(content: Mapping[str, Any], key: str) -> dict[str, str]:
    """A table of texts."""
    found = content.get(key, {})
    _check(isinstance(found, dict) and all(isinstance(value, str) for value in found.values()), f"[{key}] are no texts")
    return dict(found)


_Copied = TypeVar("_Copied", Pattern, Rule)


def _with_copies(one: _Copied, copies: Sequence[tuple[str, str]]) -> Iterator[_Copied]:
    """A rule or a frame, and what it is in each package that is a copy of the one that it names."""
    yield one
    yield from (other for copy, original in copies if (other := one.of_copy(original, copy)) != one)


def _check(good: bool, complaint: str) -> None:
    if not good:
        raise ValueError(complaint)


def _check_keys(entry: Mapping[str, Any], known: Iterable[str], place: str = "") -> None:
    strange = next((key for key in entry if key not in known), None)
    _check(strange is None, f"{place}{': ' if place else ''}{strange!r} is not one of {', '.join(known)}")


def _rule(entry: Any, kind: str, place: str) -> Rule:
    _check(isinstance(entry, dict), f"{place} is not a table")
    _check_keys(entry, ("name", "frames", "library", "python", *_MORE_KEYS.get(kind, ())), place)
    values = {key: _text(entry, key, place) for key in ("name", "library", "call", "target", "options")}
    _check(bool(re.fullmatch(r"[a-z0-9][a-z0-9-]*", values["name"])), f"{place}: a name is of a-z, 0-9 and -")
    _check(values["library"] in ("", "python", "packages"), f"{place}: library is python or packages, or left out")
    _check(values["call"] in ("", *WAIT_CALLS), f"{place}: call is one of {', '.join(WAIT_CALLS)}")
    _check(values["target"] in ("", *TARGETS), f"{place}: target is one of {', '.join(TARGETS)}")
    _check(isinstance(entry.get("start", False), bool), f"{place}: start is true or false")
    frames = tuple(_patterns(entry.get("frames"), place, gaps=True))
    _check(any(one.file for one in frames), f"{place}: frames names no frame")
    python = tuple(_limits(_text(entry, "python", place), place))
    return Rule(frames=frames, python=python, start=entry.get("start", False), **values)


def _text(entry: Mapping[str, Any], key: str, place: str) -> str:
    value = entry.get(key, "")
    _check(isinstance(value, str), f"{place}: {key} is no text")
    return str(value)


def _limits(text: str, place: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"(>=|<=|==|>|<) *(\d{1,3}(?:\.\d{1,3})?)", part)
        if not found:
            raise ValueError(f"{place}: {part!r} is no version of Python such as >=3.8")
        yield found[1], tuple(int(number) for number in found[2].split("."))


def _patterns(texts: Any, place: str, *, gaps: bool) -> list[Pattern]:
    words = _texts(texts, f"{place}: frames")
    return [Pattern("", gap=text) if gaps and text in (GAP, ANY) else _pattern(text, place) for text in words]


def _texts(texts: Any, what: str) -> list[str]:
    _check(isinstance(texts, list) and all(isinstance(text, str) for text in texts), f"{what} is no list of texts")
    return list(texts)


def _pattern(text: str, place: str) -> Pattern:
    file, _, functions = text.rpartition(" ")
    _check(bool(file and functions), f"{place}: {text!r} is not 'FILE FUNCTION'")
    return Pattern(file, frozenset() if functions == ANY else frozenset(functions.split("|")))


class Readings:
    """What `rules` say of the stacks of `sites`, each distinct stack read once."""

    def __init__(self, sites: Sites, rules: Rules) -> None:
        self._sites = sites
        self._rules = rules
        self._fitting: dict[tuple[str, int], list[Rule]] = {}
        self._of_library: dict[tuple[str, object], list[int]] = {}

    def names(self, kind: str) -> list[str]:
        """Return what rules of `kind` can say, `CAUSES` and the like, and after that what only the user's rules say."""
        return list(dict.fromkeys([*_KINDS[kind], *(rule.name for rule in getattr(self._rules, kind))]))

    def version(self, stack: int) -> tuple[int, ...]:
        """Return the version of the Python of a distinct stack, `(3, 11, 7)` or `(3, 11)`, () when not known.

        The library's frames tell it; on a stack without any it is that of the recording, if this met only one.
        """
        met = self._sites.libraries.versions
        by_default = next(iter(met)) if len(met) == 1 else ()
        return next((place.version for _, place in self._sites.inner(stack) if place.version), by_default)

    def fitting(self, kind: str, stack: int) -> list[Rule]:
        """Return the rules of `kind` whose frames fit a distinct stack, the first to be believed first."""
        if (kind, stack) not in self._fitting:
            inner, version = self._sites.inner(stack), self.version(stack)
            rules: list[Rule] = getattr(self._rules, kind)
            free = [number for number, rule in enumerate(rules) if not rule.library and rule.fits(inner, version)]
            self._fitting[kind, stack] = [rules[number] for number in sorted(free + self._in_library(kind, inner, version))]
        return self._fitting[kind, stack]

    def _in_library(self, kind: str, inner: Stack, version: tuple[int, ...]) -> list[int]:
        """The numbers of the rules for libraries that fit, looked for once for stacks that differ in the program only."""
        tail = list(itertools.takewhile(lambda one: one[1].home in ("python", "packages"), inner))
        alike = (kind, (version, tuple((place.home, place.module, frame.name) for frame, place in tail)))
        if alike not in self._of_library:
            rules: list[Rule] = getattr(self._rules, kind)
            fitting = [number for number, rule in enumerate(rules) if rule.library and rule.fits(tail, version)]
            self._of_library[alike] = fitting
        return self._of_library[alike]

    def of_stacks(self, kind: str, stack: Ints) -> Ints:
        """Return what the rules of `kind` say of each stack, an index into `names(kind)`; NONE where none fits."""
        names = self.names(kind)
        return each(lambda one: next((names.index(rule.name) for rule in self.fitting(kind, one)), NONE), stack)

    def of_waits(self, log: Log, row: Ints) -> Ints:
        """Return what the rules say of the wait of each row, an index into `names("cause")`; NONE where none fits."""
        names = self.names("cause")
        stack, call, target = pick(self._sites.code, row), log.at("call", row), log.at("target", row)
        flags = log.at("flags", row)
        first = first_of_each(stack, call, target, flags)
        options = option_names(flags[first], call[first]).fillna("").str.split("|").tolist()
        found = []
        for one, chosen in zip(first.tolist(), options, strict=True):
            name, what = (values[code] if code != NONE else "" for values, code in ((CALLS, call[one]), (TARGETS, target[one])))
            rules = self.fitting("cause", stack[one]) if stack[one] != NONE else []
            found.append(next((names.index(rule.name) for rule in rules if rule.fits_call(name, what, chosen)), NONE))
        pairs = pd.MultiIndex.from_arrays([column[first] for column in (stack, call, target, flags)])
        return np.array([*found, NONE])[pairs.get_indexer(pd.MultiIndex.from_arrays([stack, call, target, flags]))]

    def start_of(self, stack: int) -> str:
        """Return the frames outside of the function that starts a process, and its name; "" where the stack is in none."""
        frames, places = self._sites.frames[stack], self._sites.places(stack)
        for number, (frame, place) in reversed(list(enumerate(zip(frames, places, strict=True)))):
            if any(one.fits(frame, place) for one in self._rules.starts):
                return ";".join([*self._sites.texts[stack].split(";")[:number], frame.file, frame.name])
            if self._rules.begins(frame, place):
                break
        return ""

    def starts_process(self, stack: int) -> bool:
        """Whether a fork with this stack makes the process that is started, and no helper of it."""
        return any(rule.start for rule in self.fitting("created_by", stack)[:1])


def each(function: Callable[[int], int], values: Ints) -> Ints:
    """Return what `function` says of each of `values`, asked once for each distinct one; NONE stays NONE."""
    distinct, which = distinct_of(values)
    found = np.array([NONE if one == NONE else function(one) for one in distinct.tolist()], np.int64)
    return found[which]
