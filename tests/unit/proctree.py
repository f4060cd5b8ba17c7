"""Makes a /proc of its own, for what no test can ask of a machine: hostile names, vanishing processes, other namespaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forktrace.system.procfs import Proc, TaskClocks

SECOND = 10**9
WHOLE_MAP = "0 0 4294967295"


class Tree(Proc):
    """A /proc below a directory; `denied` are processes that it hides, and what `before_stat` does comes just before a read."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.denied: set[int] = set()
        self.status_denied: set[int] = set()
        self.looked_at: list[int] = []
        self.write("loadavg", "0.00 0.00 0.00 1/500 4711\n")

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = Path(self.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add(self, pid: int, ppid: int = 1, state: str = "S", *, comm: str = "python", start_s: float = 1, **more: Any) -> None:
        """Add a process. A zombie (state Z) has no arguments."""
        threads, uid = more.get("threads", 1), more.get("uid", 54321)
        rest = [state, ppid, *[0] * 15, threads, 0, int(start_s * 100), *[0] * 16, more.get("processor", 0)]
        rest += [0] * 12 + [more.get("status", 0)]
        self.write(f"{pid}/stat", f"{pid} ({comm}) {' '.join(map(str, rest))}\n")
        lines = {"State": state, "Uid": f"{uid}\t7\t7\t7", "ShdPnd": more.get("pending", "0")}
        lines |= {"SigBlk": "0", "SigIgn": more.get("ignored", "0"), "SigCgt": more.get("caught", "0")}
        lines["CapEff"] = more.get("capabilities", "0")
        lines |= {"NSpid": more["ns_pids"]} if "ns_pids" in more else {}
        self.write(f"{pid}/status", "".join(f"{name}:\t{value}\n" for name, value in lines.items()))
        for number in range(threads):
            mask = "10000" if number < more.get("blocking", 0) else "0"
            self.write(f"{pid}/task/{pid + number}/status", f"SigBlk:\t{mask}\n")
        self.write(f"{pid}/cmdline", "" if state == "Z" else "\0".join(more.get("argv", ("python", "consumer.py"))) + "\0")
        self.write(f"{pid}/cgroup", more.get("cgroup", "0::/\n"))
        self.write(f"{pid}/uid_map", more.get("uid_map", WHOLE_MAP))
        self.write(f"{pid}/limits", f"Max processes             {more.get('nproc', 'unlimited')}  unlimited  processes\n")
        if "ran_s" in more:
            self.write(f"{pid}/sched", f"x\nse.exec_start      :     {more['ran_s'] * 1000:.6f}\nse.vruntime : 1\n")

    def remove(self, pid: int) -> None:
        """Take a process away; its directory stays listed, as in a look that has begun."""
        (Path(self.root) / f"{pid}/stat").unlink()

    def stat(self, pid: int) -> Any:
        """As /proc, or not at all."""
        self.looked_at.append(pid)
        if pid in self.denied:
            raise PermissionError
        return super().stat(pid)

    def may_see_status(self, pid: int) -> bool:
        """By the list."""
        return pid not in self.status_denied


class Clocks(TaskClocks):
    """Task clocks that are a second behind, of processor 0 alone."""

    def compare(self, processors: set[int]) -> None:
        """Nothing runs anywhere."""
        self._behind_ns = {one: SECOND if one == 0 else None for one in processors}


class Now:
    """A clock that is moved by hand."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> int:
        """Return CLOCK_BOOTTIME ns."""
        return int(self.seconds * SECOND)
