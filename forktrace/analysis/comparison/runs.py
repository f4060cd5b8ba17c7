"""A run as a comparison sees it: its zombies by fork line and cause, who cleared them together, and its figures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.gate.figures import missing
from forktrace.analysis.gate.limits import BY_NAME
from forktrace.analysis.gate.sites import site_of
from forktrace.analysis.log import Flags, Ints
from forktrace.analysis.recording import Recording
from forktrace.analysis.requests import start_sites

Floats = npt.NDArray[np.float64]

TOGETHER_NS: Final = 10_000_000  # reaps of one thread that are no further apart are of one call


class Line(NamedTuple):
    """A line of a program: its file, relative to the program, its function and number; nothing of it is known where empty."""

    path: str = ""
    function: str = ""
    number: int = 0

    @property
    def text(self) -> str:
        """`consumer.py:33 consume_task`."""
        return f"{self.path}:{self.number or '?'} {self.function}".rstrip() if self.path else "line not known"


class Figure(NamedTuple):
    """A figure of a run: its value, and what is missing that it might need."""

    value: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Zombies:
    """The zombies of a run, in parallel arrays. `line` and `cause` are indexes into `lines` and `causes`.

    `ended`: it was reaped; `call`: which clearing call, or never, it belongs to.
    """

    line: Ints
    cause: Ints
    lasted_ms: Floats
    ended: Flags
    call: Ints
    lines: list[Line]
    causes: list[str]


class Run:
    """One recording. The command itself, forktrace's own child, is in none of its figures."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        table = recording.lifecycles()
        self.table = table[table["origin"] != "target"]
        self.forks = int((table["origin"] == "forked").sum())

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """All figures by name, in the order in which they are shown; times in s."""
        recording, zombies = self.recording, self.zombies
        seconds = max(recording.end_ns - recording.start_ns, 1) / 1e9
        of_zombies = self._missing("max-zombie")
        thefts = (*self._missing("max-stolen"), *(["stacks"] if len(recording.perhaps_stolen()) else []))
        failures = self._missing("max-failed-forks")
        total_s = float(zombies.lasted_ms.sum()) / 1e3
        return {
            "zombie-seconds": Figure(total_s * 1000 / self.forks if self.forks else 0.0, of_zombies),
            "max-zombie": Figure(float(zombies.lasted_ms.max(initial=0)) / 1e3, of_zombies),
            "unreaped": Figure(float((~zombies.ended).sum()), of_zombies),
            "stolen": Figure(float(len(recording.stolen())), thefts),
            "failed-forks": Figure(float(len(recording.failed_forks())), failures),
            "fork-rate": Figure(self.forks / seconds, of_zombies),
            "empty-polls": Figure(float(recording.waits()["empty"].sum()), of_zombies),
        }

    def _missing(self, limit: str) -> tuple[str, ...]:
        return tuple(missing(self.recording, BY_NAME[limit]))

    @cached_property
    def zombies(self) -> Zombies:
        """Its zombies, without those whose duration is not known."""
        rows = self.table[self.table["zombie_ms"].notna()]
        codes, texts = pd.factorize(start_sites(rows))
        known: dict[Line, int] = {}
        places = [known.setdefault(self._line(text), len(known)) for text in texts]
        unknown = known.setdefault(Line(), len(known))
        causes, names = pd.factorize(rows["reap_cause"].astype("string").fillna("unknown"))
        return Zombies(
            np.array([*places, unknown], np.int64)[codes],
            causes.astype(np.int64),
            rows["zombie_ms"].to_numpy(np.float64),
            ~rows["zombie_open"].to_numpy(bool),
            _calls(rows),
            list(known),
            [str(name) for name in names],
        )

    def _line(self, text: str) -> Line:
        site = site_of(text)
        file = self.recording.file_of(site.file) or site.file
        return Line(self._relative(file), site.function, site.line)

    def _relative(self, file: str) -> str:
        """A path relative to the program: to the folder of its script, else to the one that it was started in."""
        for mark in ("/site-packages/", "/dist-packages/"):
            if mark in file:
                return file.rpartition(mark)[2]
        if self._package and (mark := f"/{self._package}/") in file:
            return file[file.rindex(mark) + 1 :]
        for folder in self._folders:
            if file.startswith(f"{folder.rstrip('/')}/"):
                return os.path.relpath(file, folder)
        return os.path.normpath(file)

    @cached_property
    def _package(self) -> str:
        """The package that `python -m` runs; nothing of another command."""
        words = iter(self.recording.header["command"])
        return next((next(words, "") for word in words if word == "-m"), "").partition(".")[0]

    @cached_property
    def _folders(self) -> list[str]:
        cwd = str(self.recording.header["cwd"])
        script = next((word for word in self.recording.header["command"] if word.endswith(".py")), None)
        return [os.path.dirname(os.path.normpath(os.path.join(cwd, script))), cwd] if script else [cwd]


def _calls(rows: pd.DataFrame) -> Ints:
    """Which zombies were cleared by one call: by one start; by one thread in one go; or, of one parent, never."""
    number = np.arange(len(rows))
    by_start = rows["cleared_by_id"].to_numpy(np.int64, na_value=-1)
    still = rows["zombie_open"].to_numpy(bool)
    parent = rows["adopter_pid"].fillna(rows["ppid"]).to_numpy(np.int64, na_value=-1)
    thread = rows["reaper_tid"].to_numpy(np.int64, na_value=-1)
    time_ns = rows["reap_ns"].to_numpy(np.int64, na_value=-1)
    order = np.lexsort((time_ns, thread))
    apart = (np.diff(thread[order], prepend=-2) != 0) | (np.diff(time_ns[order], prepend=0) > TOGETHER_NS)
    together = np.empty(len(rows), np.int64)
    together[order] = np.cumsum(apart)
    alone = (thread < 0) | (time_ns < 0)
    kind = np.select([by_start >= 0, still, alone], [0, 1, 2], 3)
    which = np.select([by_start >= 0, still, alone], [by_start, parent, number], together)
    keys = pd.MultiIndex.from_arrays([kind, which])
    return np.asarray(keys.factorize()[0], np.int64)
