"""How often `forktrace diff` calls recordings of one program different: `python benchmarks/false_alarms.py`.

Each simulated run is a consumer: messages come in bursts of any size at any time, each burst is started at one of three lines,
each start sweeps away what has ended before, and another line forks by hand and waits when it gets to it; what is left at the
end nobody reaps. 200 pairs of the same program, and 50 in which the wait by hand comes four times as late. Prints the share of
rows that were called different.
"""

from __future__ import annotations

import tempfile

import numpy as np
from table_scale import HEADER, LIB, MS

from forktrace.analysis.comparison.changes import Comparison, compare
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.trace import stream

POPEN = f"{LIB}/popen_fork.py:19 __init__;{LIB}/popen_fork.py:66 _launch"
LAUNCH = f"{LIB}/process.py:121 start;{LIB}/context.py:277 _Popen;{POPEN}"
SWEEP = f"{LIB}/process.py:118 start;{LIB}/process.py:59 _cleanup;{LIB}/popen_fork.py:27 poll"
LINES = (10, 20, 30)


class Consumer:
    """One run; `slow` is how many times later it waits by hand."""

    def __init__(self, dice: np.random.Generator, slow: float = 1.0) -> None:
        self.dice, self.slow = dice, slow
        self.rows: list[ev.Row] = [ev.fork(0, 100, by=50, origin="target", comm="python")]
        self.ended: dict[int, int] = {}
        self.now, self.pid = MS, 1000

    def run(self, bursts: int) -> list[ev.Row]:
        """Return the rows of so many bursts."""
        for _ in range(bursts):
            self.now += int(self.dice.exponential(300) * MS)
            line = int(self.dice.choice(LINES))
            for _ in range(int(self.dice.geometric(0.4))):
                self.start(line)
            if self.dice.random() < 0.4:
                self.by_hand()
        return [*self.rows, ev.end(self.now + int(self.dice.exponential(500) * MS))]

    def start(self, line: int) -> None:
        """Sweep, then fork."""
        stack = f"/srv/consumer.py:90 <module>;/srv/consumer.py:{line} take_{line}"
        for pid in [pid for pid, end_ns in self.ended.items() if end_ns < self.now]:
            self.now += 9_000
            self.rows.append(ev.reap(self.now, pid, by=100, options=1, stack=f"{stack};{SWEEP}", stack_status="ok"))
            del self.ended[pid]
        self.now += MS
        work_ms = self.dice.lognormal(3.5, 0.8)
        self.ended[self.child(f"{stack};{LAUNCH}", work_ms)] = self.now + int(work_ms * MS)

    def by_hand(self) -> None:
        """Fork, and wait after some time."""
        stack, work_ms = "/srv/consumer.py:90 <module>;/srv/consumer.py:{} by_hand", self.dice.exponential(20)
        pid = self.child(stack.format(50), work_ms)
        self.now += int((work_ms + self.slow * self.dice.exponential(30)) * MS) + MS
        self.rows.append(ev.reap(self.now, pid, by=100, stack=stack.format(55), stack_status="ok"))

    def child(self, stack: str, work_ms: float) -> int:
        """Fork a child that ends after so many ms."""
        self.pid += 1
        end_ns = self.now + int(work_ms * MS)
        self.rows.append(ev.fork(self.now, self.pid, by=100, comm="python", stack=stack, stack_status="ok"))
        self.rows += [ev.exit_(end_ns, self.pid, parent=100), ev.zombie(end_ns, self.pid, parent=100)]
        return self.pid


def simulated(dice: np.random.Generator, slow: float = 1.0) -> Recording:
    """Return the recording of a run of 20 to 120 bursts."""
    rows = Consumer(dice, slow).run(int(dice.integers(20, 120)))
    until_ns = rows[-1]["time_ns"]
    kept = sorted((row for row in rows if row["time_ns"] <= until_ns), key=lambda row: row["time_ns"])
    header = HEADER | {"command": ["python", "consumer.py"], "cwd": "/srv"}
    with tempfile.NamedTemporaryFile(suffix=".arrows") as file:
        writer = stream.Writer(file, header)
        writer.write(stream.batch_of(kept))
        writer.close()
        file.flush()
        return Recording(stream.read(file.name))


def called(pairs: int, slow: float, seed: int) -> tuple[list[Comparison], float, float]:
    """Return the comparisons of so many pairs, the share of their rows called different, and that of the totals."""
    dice = np.random.default_rng(seed)
    made = [compare([simulated(dice)], [simulated(dice, slow)], seed=number) for number in range(pairs)]
    rows = [row.sure for one in made for row in one.rows]
    return made, sum(rows) / len(rows), sum(one.figure("zombie-seconds").sure for one in made) / pairs


def main() -> None:
    """Print a line for each."""
    for pairs, slow in ((200, 1.0), (50, 4.0)):
        made, rows, totals = called(pairs, slow, seed=1)
        late = [row.sure for one in made for row in one.rows if row.new_line and row.new_line.function == "by_hand"]
        many = sum(len(one.rows) for one in made)
        print(f"{pairs} pairs, the wait by hand {slow:g} times as late: called different are {rows:.1%} of {many} rows,")
        print(f"  {totals:.1%} of the totals, {sum(late) / len(late):.1%} of the rows of that wait")


if __name__ == "__main__":
    main()
