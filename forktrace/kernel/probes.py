"""The probes, loaded and attached: what the recorder sets in them, and what it reads from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Final

import numpy as np

from forktrace.errors import ForktraceError
from forktrace.kernel import bpf
from forktrace.kernel.bpf_maps import Counters, Map, Records, Ring, TaskIterator
from forktrace.kernel.layout import layouts
from forktrace.kernel.loading import COUNTERS, GONE, PROGRAM, TASKS, Loading
from forktrace.trace.events import KINDS, NOT_RUN

# The kinds of records in the ring, in the order of enum kind.
EVENTS: Final = (*KINDS[:10], "request")
RING_KINDS: Final = (*EVENTS, "stack", "code")
# What else can be lost: in the order of enum loss.
OTHER_LOSSES: Final = {
    "PROCESSES_UNFOLLOWED": "process not followed",
    "WAIT_PLACES": "wait place",
    "CHILDREN_UNADOPTED": "child not adopted",
    "NUMBERS_UNKNOWN": "process number",
    "QUESTIONS": "unknown file",
}
LOSSES: Final = (*RING_KINDS, *OTHER_LOSSES.values())


class Probes:
    """The probes, attached; nothing is followed before `follow`. While they are loaded, `meanwhile` is called.

    Attributes:
        lacks: what this kernel cannot give, in words

    Raises:
        MachineLacks: BTF, a tracepoint, a member or the right to load BPF programs is missing.
    """

    def __init__(self, loading: Loading, meanwhile: Callable[[], None] = lambda: None) -> None:
        types = layouts()  # read as root: the user may not be able to read these files
        meanwhile()
        loaded = loading.wait()
        self._descriptors, self.lacks = loaded.descriptors, loaded.lacks

        def table(name: str, key: Any, value: Any) -> Map:
            return Map(self._descriptors[name], key, value, loaded.maps[name])

        self._programs = _copies_of_each(self._descriptors)
        self._settings = table("settings", "<u4", types["settings"])
        self._losses, self._taken_over = (Counters(self._descriptors[name], loaded.maps[name]) for name in COUNTERS)
        self._not_run = 0
        self._followed = table("followed", "<u8", types["process"])
        self._wait_totals = table("wait_totals", types["wait_place"], "<u8")
        self._ring = Ring(self._descriptors["ring"], loaded.maps["ring"].entries)
        self._questions = Ring(self._descriptors["questions"], loaded.maps["questions"].entries)
        self._question = np.dtype([("header", "<u8"), ("question", types["question"])])
        self._interpreters = table("interpreters", "<u8", types["interpreter"])
        self._sent = [table(name, "<u8", "u1") for name in ("sent_codes", "sent_stacks")]
        if TASKS in self._descriptors:
            self._attaching = table("attaching", "<u4", types["attaching"])
            self._wanted = table("wanted", "<u4", "<u8")
            self._mapped = table("mapped", "<u4", types["mapping"])
            self._tasks = TaskIterator(self._descriptors[TASKS])

    def wake_up(self) -> int:
        """Return the descriptor that is readable while there are questions."""
        return self._descriptors["questions"]

    def questions(self) -> Iterable[Any]:
        """Return what the probes have asked about files since the last call, as `struct question`."""
        asked = self._questions.read()
        return np.frombuffer(asked, self._question)["question"] if asked else ()

    def describe(self, file: int, fields: Mapping[str, int]) -> None:
        """Answer a question about `file`: the fields of `struct interpreter`, none if it is no interpreter."""
        names = self._interpreters.value_type.names or ()
        self._interpreters.set(file, tuple(fields.get(name, 0) for name in names))

    def forget_files(self, files: Iterable[int]) -> None:
        """Remove these files: the probes ask about them again."""
        for file in files:
            self._interpreters.delete(file)

    def forget_stacks(self, codes: Iterable[int], stacks: Iterable[int]) -> None:
        """Let the probes send these code objects and stacks again."""
        for sent, keys in zip(self._sent, (codes, stacks), strict=False):
            for key in keys:
                sent.delete(key)

    def follow(self, pid: int, pid_ns: int, since_ns: int) -> None:
        """Follow process `pid` of the PID namespace with inode number `pid_ns` from its next exec on; 0: nobody.

        It started within the clock tick that begins at `since_ns` (the kernel's CLOCK_BOOTTIME). The probes forget it when it
        ends before that.
        """
        self._settings.set(0, ((pid_ns, pid), since_ns, 0, 0))

    def want(self, since_ns: Mapping[int, int], never: Iterable[int]) -> None:
        """Let passes follow these processes and their descendants, except `never`; numbers are those of this PID namespace.

        `since_ns`: number -> when the clock tick began in which it started (the kernel's CLOCK_BOOTTIME).
        """
        for pid in never:
            self._wanted.set(pid, 0)
        for pid, start_ns in since_ns.items():
            self._wanted.set(pid, max(start_ns, 1))

    def say_mapped(self, pid: int, library: int, start: int) -> None:
        """Tell the next pass that process `pid` has mapped the file `library` (by the probes' file_key) at `start`."""
        self._mapped.set(pid, (library, start))

    def pass_tasks(self) -> tuple[int, int]:
        """Run a pass over all tasks; return how many processes it began to follow, and how many it could not classify."""
        self._attaching.set(0, (1, 0, 0, 0))
        self._tasks.run()
        _, found = self._attaching.items()
        return int(found[0]["added"]), int(found[0]["pending"])

    def attached(self) -> None:
        """End the attaching, and remove the settings of the passes."""
        self._attaching.set(0, (0, 0, 0, 0))
        for settings in (self._wanted, self._mapped):
            for pid in settings.items()[0].tolist():
                settings.delete(pid)

    def read(self) -> bytes:
        """Return the records since the last call, as they are in the ring."""
        return self._ring.read()

    def losses(self) -> dict[str, int]:
        """Return how much of each kind was lost so far."""
        not_run = sum(min(map(bpf.times_not_run, copies)) for copies in self._programs)  # at most so many by none of the copies
        (by_a_copy,) = self._taken_over.read()  # read second: else an event that a copy is about to report would count as lost
        self._not_run = max(self._not_run, not_run - by_a_copy)
        return dict(zip(LOSSES, self._losses.read(), strict=True)) | {NOT_RUN: self._not_run}

    def following(self) -> Records:
        """Return the entries (`struct process`) of the followed processes that are not reaped; `exit_ns` 0: it runs."""
        _, entries = self._followed.items()
        open_ones: Records = entries[entries["reaped"] == 0]
        return open_ones

    def release(self, gone: Container[tuple[int, int]]) -> Records:
        """Let the probes report the release of those of these processes (number, start) that they still follow.

        Returns their entries (`struct process`), as they were before.

        Raises:
            ForktraceError: the kernel refuses.
        """
        keys, entries = self._followed.items()
        who = zip(entries["pid"].tolist(), entries["start_ns"].tolist(), strict=True)
        late = np.array([one in gone for one in who], bool) & (entries["reaped"] == 0)
        try:
            for signal in keys[late].tolist():
                bpf.run_raw_tracepoint(self._descriptors[f"{PROGRAM}{GONE} 0"], signal)
        except OSError as error:
            raise ForktraceError(f"a probe cannot be run: {error.strerror}") from error
        found: Records = entries[late]
        return found

    def wait_totals(self) -> tuple[Records, Records]:
        """Return the places (`struct wait_place`) whose wait calls returned no child, and how many did."""
        return self._wait_totals.items()

    def forget(self, place: Records) -> None:
        """Remove a place whose process is gone."""
        self._wait_totals.delete(place)

    def close(self) -> None:
        """Let the probes be detached after the end of this process."""
        bpf.close_after_end(list(self._descriptors.values()))
        self._ring.close()
        self._questions.close()
        self._losses.close()
        self._taken_over.close()
        if TASKS in self._descriptors:
            self._tasks.close()
        for descriptor in self._descriptors.values():
            os.close(descriptor)


def _copies_of_each(descriptors: Mapping[str, int]) -> list[list[int]]:
    """The descriptors of the programs that are counted, those of the copies of one together."""
    found: dict[str, list[int]] = {}
    for name, one in descriptors.items():
        if name.startswith(PROGRAM):
            found.setdefault(name.rpartition(" ")[0], []).append(one)
    return list(found.values())
