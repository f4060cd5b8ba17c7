"""The program of a process: the command line of its last exec, else its forker's, else the one from before the recording."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from forktrace.analysis.log import NONE, Flags, Ints, Latest, Log, chosen, pick

_INTERPRETER: Final = re.compile(r"python|pypy", re.IGNORECASE)
_WITH_VALUE: Final = "WXQ"  # options of any interpreter version that take a value
_LIBRARY: Final = r"(?:multiprocessing|multiprocess|billiard|(?:[\w.]+\.)?loky\.backend)\.\w+"
_WORKERS: Final = ("spawn", "popen_loky_posix")  # their modules that start a worker
_IMPORTED: Final = re.compile(rf"from ({_LIBRARY}) import \w+; ?\w+\(")


class Entry(NamedTuple):
    """What the command line of a Python process names as its program: a module (`-m`) or a script; "" where it names none."""

    module: str = ""
    script: str = ""
    code: str = ""  # of -c


def entry_of(argv: list[str]) -> Entry:
    """Return the program that the arguments of a Python interpreter name; nothing for another program's arguments."""
    if not argv or not _INTERPRETER.match(os.path.basename(argv[0])):
        return Entry()
    rest = iter(argv[1:])
    for word in rest:
        if word == "--check-hash-based-pycs":
            next(rest, "")
        elif not word.startswith("-") or word == "-":
            return Entry(script="" if word == "-" else word)
        elif not word.startswith("--") and (entry := _of_letters(word[1:], rest)) is not None:
            return entry
    return Entry()


def _of_letters(letters: str, rest: Iterator[str]) -> Entry | None:
    """Read a cluster of short options, such as `-Im`; None: the program is not named yet."""
    for place, letter in enumerate(letters):
        if letter not in _WITH_VALUE and letter not in "mc":
            continue
        value = letters[place + 1 :] or next(rest, "")
        return {"m": Entry(module=value), "c": Entry(code=value)}.get(letter)
    return None


def bootstrap_of(entry: Entry) -> str:
    """Return the module by which multiprocessing, billiard or loky begins a worker, `multiprocessing.spawn`; "" for others."""
    if re.fullmatch(_LIBRARY, entry.module):
        return entry.module
    found = _IMPORTED.match(entry.code)
    return found[1] if found else ""


def is_worker(entry: Entry) -> bool:
    """Whether the program is a worker of one of these, which ends with their own sys.exit; trackers and servers are not."""
    return bootstrap_of(entry).rpartition(".")[2] in _WORKERS


def program_rows(log: Log) -> Ints:
    """Return the rows that say what a process runs: its execs, and the first row of a process from before the recording."""
    return np.flatnonzero(log.is_kind("exec", "fork") & log.present("argv"))


def comm_rows(log: Log) -> Ints:
    """Return the rows with the name of a process: not exits whose last thread is another than the leader."""
    rows = np.flatnonzero(log.is_kind("fork", "exec", "exit") & log.present("comm") & (log.id != NONE))
    tid = log.at("by_tid", rows)
    named: Ints = rows[~log.is_kind("exit")[rows] | (tid == NONE) | (tid == log.pid[log.id[rows]])]
    return named


def comms_at(log: Log, process: Ints, time_ns: Ints) -> pd.Series:
    """Return what each `process` was called at `time_ns`; `<NA>`: not known."""
    rows = comm_rows(log)
    latest = Latest(log.id[rows], log.time_ns[rows])
    return log.texts("comm", pick(rows, latest.until(process, time_ns)))


class Programs:
    """The command lines of processes over time, as rows of the trace.

    `skip`: which of `program_rows` do not count; those processes keep the command line of their forker.
    """

    def __init__(self, log: Log, skip: Flags | None = None) -> None:
        execs = program_rows(log)
        self._execs = execs[(log.id[execs] != NONE) & (np.ones(len(execs), bool) if skip is None else ~skip)]
        self._latest = Latest(log.id[self._execs], log.time_ns[self._execs])
        forker = pick(log.by_id, log.fork_row)
        found = self._latest.until(forker, log.fork_ns)
        self._at_fork, ancestor = pick(self._execs, found), np.where(found == NONE, forker, NONE)
        while (ancestor != NONE).any():  # each round doubles the distance, so a chain of n forks takes log n
            inherited, further = pick(self._at_fork, ancestor), pick(ancestor, ancestor)
            self._at_fork = np.where(self._at_fork == NONE, inherited, self._at_fork)
            ancestor = np.where(self._at_fork == NONE, further, NONE)

    def at(self, process: Ints, time_ns: Ints) -> Ints:
        """Return the row whose command line each `process` has at `time_ns`; NONE where it is not known."""
        own = pick(self._execs, self._latest.until(process, time_ns))
        return np.where(own == NONE, pick(self._at_fork, process), own)


def command_lines(log: Log, rows: Ints) -> pd.Series:
    """Return the arguments in these rows, quoted for a shell; `<NA>` for row NONE."""
    codes, distinct = log.distinct("argv", rows)
    return chosen(codes, [shlex.join(text.split("\0")) for text in distinct])
