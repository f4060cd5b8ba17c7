"""Records a command while other witnesses watch it, and compares: `Watcher.under_strace`, `Watcher.beside`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import straced
from comparison import Comparison, with_own_log, with_samples, with_strace
from recorded import WORKLOADS, Recorded

HERE: Final = Path(__file__).parent
GCC: Final = ("gcc", "-O1", f"-I{WORKLOADS}", "-Wall", "-Wextra", "-Werror")


@dataclass
class Watcher:
    """Records commands. `folder` is where the witnesses are compiled and logs are kept."""

    record: Callable[..., Recorded]
    folder: Path

    def under_strace(self, command: Sequence[str], timeout_s: float) -> Comparison:
        """Record strace and the command under it; compare with strace's log."""
        log = self.folder / "strace.log"
        before_ns = clock_offset_ns()
        recorded = self.record([*straced.STRACE, "-o", str(log), *command], timeout_s=timeout_s, cwd=self.folder)
        after_ns = clock_offset_ns()
        with log.open(errors="replace") as lines:
            seen = straced.read(lines)
        offset_ns = (before_ns + after_ns) // 2
        return with_strace(recorded.table, seen, offset_ns, abs(after_ns - before_ns))

    def beside(self, command: Sequence[str], timeout_s: float, step_us: int = 1000) -> Comparison:
        """Record the command, which keeps a log of its own, while the sampler looks at /proc; compare with both."""
        log = self.folder / "own.log"
        log.write_text("")
        environment = [f"OWN_LOG={log}", f"LD_PRELOAD={self.built('own_log', '-shared', '-fPIC')}"]
        with self.sampling(step_us) as samples:
            recorded = self.record(["env", *environment, *command], timeout_s=timeout_s, cwd=self.folder)
        found = with_own_log(recorded.table, map(json.loads, log.read_text().splitlines()))
        found.add(with_samples(recorded.table, recorded.recording.end_ns, samples, adopters(recorded)))
        return found

    @contextmanager
    def sampling(self, step_us: int) -> Iterator[list[dict[str, Any]]]:
        """Have /proc looked at until the block ends; then what is yielded has a line for each process that was seen."""
        lines: list[dict[str, Any]] = []
        path = self.folder / "samples"
        with path.open("w") as file:
            sampler = subprocess.Popen([self.built("sampler"), str(step_us)], stdin=subprocess.PIPE, stdout=file)
            try:
                yield lines
            finally:
                sampler.communicate()
        assert sampler.returncode == 0
        lines += [line for line in map(json.loads, path.read_text().splitlines()) if "pid" in line]

    def built(self, name: str, *options: str) -> str:
        """Compile NAME.c beside this file, once; return the path of what comes out."""
        path = self.folder / name
        if not path.exists():
            subprocess.run([*GCC, *options, "-pthread", "-o", path, HERE / f"{name}.c"], check=True)
        return str(path)


def adopters(recorded: Recorded) -> dict[int, set[int]]:
    """The numbers of all that each process was handed to, by its id."""
    steps = recorded.recording._history.parents
    found: dict[int, set[int]] = {}
    for child, pid in zip(steps.child_id.tolist(), steps.new_pid.tolist(), strict=True):
        found.setdefault(child, set()).add(pid)
    return found


def clock_offset_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_BOOTTIME, of the quickest of some readings."""
    readings = []
    for _ in range(20):
        begin, real, end = (
            time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            time.time_ns(),
            time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        )
        readings.append((end - begin, real - (begin + end) // 2))
    return min(readings)[1]
