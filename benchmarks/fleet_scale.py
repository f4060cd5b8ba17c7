"""What a question to a fleet costs: `python benchmarks/fleet_scale.py [HOSTS PROCESSES DAYS...]`, 1,000 5,000 1 4 10 without.

The hosts are simulated: each runs the consumer of table_scale.py at moments of its own, a child a message, of which a hundredth
stays a zombie until the next start; a line of every hundredth host is new on the last day, and leaves many. 10 days of 1,000
hosts are 50 million processes, 2.2 GB.

Each question is asked in a process of its own: seconds by the clock, of CPU, and the largest resident set of it or a worker.
`fleet` is DuckDB over pyarrow; `one day` the same with --since and --until; `dask` the question of notebook 06, on a worker
process for each processor, without the time in which these start. The median of three.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from table_scale import MS, write_trace

from forktrace.analysis.recording import Recording, read
from forktrace.fleet import dataset
from forktrace.fleet.columns import rows_for

DAY_NS = 86_400 * 10**9
FIRST_DAY_NS = 20_000 * DAY_NS  # by the wall clock
FIRST_DAY = date(2024, 10, 4)
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06-fleet.ipynb"
NEW_LINE = "mailer.py:12 send"


def simulate(folder: Path, hosts: int, processes: int, days: int = 1) -> int:
    """Write the dataset of a fleet, and return its bytes. Equal arguments make equal files."""
    rows, made = _model(processes), 0
    for day in range(days):
        for host in range(hosts):
            header = {"host": f"web-{host:04}", "boot_id": f"boot-{host}", "start_ns": day * DAY_NS, "recorder_pid": 50}
            header |= {"clock_offset_ns": FIRST_DAY_NS, "kernel": "6.12.0"}
            odd = host % 100 == 7 and day == days - 1
            path = folder / dataset.file_name(header)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dataset.as_parquet(_varied(rows, np.random.default_rng([day, host]), day, odd=odd), header))
            made += path.stat().st_size
    return made


def _model(processes: int) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.arrows"
        write_trace(path, processes - 1, uneven=True)
        recording: Recording = read(path)
        return rows_for(recording.lifecycles(), "argv", datetime.now(UTC), continues=False)


def _varied(rows: pa.Table, dice: np.random.Generator, day: int, *, odd: bool) -> pa.Table:
    """The same processes on another host: at other moments, and zombies of other lengths."""
    number = rows.num_rows
    fork_ns = day * DAY_NS + np.sort(dice.integers(0, DAY_NS, number))
    exit_ns = fork_ns + dice.integers(MS, 400 * MS, number)
    zombie_ns = exit_ns + dice.integers(5_000, 50_000, number)
    slow = dice.random(number) < 0.01
    reap_ns = zombie_ns + np.where(slow, dice.integers(20 * MS, 2000 * MS, number), dice.integers(5_000, 5 * MS, number))
    columns = {"fork_ns": fork_ns, "exit_ns": exit_ns, "zombie_ns": zombie_ns, "reap_ns": reap_ns}
    zombie_ms = (reap_ns - zombie_ns) / MS
    columns |= {"run_ms": (exit_ns - fork_ns) / MS, "zombie_ms": zombie_ms, "own_zombie_ms": zombie_ms}
    columns["fork_time"] = pd.DatetimeIndex(fork_ns + FIRST_DAY_NS, tz="UTC")
    if odd:
        site = np.where(slow, NEW_LINE, rows["start_site"].to_numpy(zero_copy_only=False))
        columns |= {"start_site": site, "fork_site": site}
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.types[place], from_pandas=True))
    return rows


class Cost(NamedTuple):
    """What one question took: seconds by the clock and of CPU, and the largest resident set of a process."""

    seconds: float
    cpu_s: float
    peak_mb: float


def ask_here(url: str, day: str) -> None:
    """Ask `fleet` once, in this process, and print what it took."""
    from forktrace.fleet.question import Question, ask

    begin = time.perf_counter()
    only = date.fromisoformat(day) if day else None
    ask(url, Question(only, only))
    print(json.dumps(_cost(time.perf_counter() - begin)))


def ask_dask(url: str) -> None:
    """Ask the same as notebook 06 does, of a worker for each processor that there already are, and print what it took."""
    from distributed import Client, LocalCluster

    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, Any] = {"FLEET": url}
    for cell in cells[2], next(one for one in cells if "def zombies(" in "".join(one["source"])):
        exec("".join(cell["source"]), names)
    with LocalCluster(n_workers=os.cpu_count(), threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        begin = time.perf_counter()
        names["zombies"](url).compute()
        seconds = time.perf_counter() - begin
    print(json.dumps(_cost(seconds)))


def _cost(seconds: float) -> Cost:
    """With all that was loaded; of processes that have ended, too."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Cost(seconds, sum(one.ru_utime + one.ru_stime for one in used), max(one.ru_maxrss for one in used) / 1024)


def measure(how: str, *told: str) -> Cost:
    """Return the median of three questions, each in a process of its own."""
    command = [sys.executable, __file__, how, *told]
    runs = [Cost(*json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)) for _ in range(3)]
    return Cost(*(statistics.median(figure) for figure in zip(*runs, strict=True)))


def main() -> None:
    """Print a line for each number of days."""
    hosts, processes, *days = [int(one) for one in sys.argv[1:]] or [1_000, 5_000, 1, 4, 10]
    print(f"{'days':>4} {'files':>7} {'processes':>11} {'size':>9}  {'':8} {'by the clock':>12} {'CPU':>8} {'peak':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for number in days:
            size = simulate(Path(folder) / f"{number}", hosts, processes, number)
            url, last = str(Path(folder) / f"{number}"), f"{FIRST_DAY + timedelta(days=number - 1)}"
            print(f"{number:>4} {hosts * number:>7,} {hosts * number * processes:>11,} {size / 1e6:>6,.0f} MB", flush=True)
            for name, how, told in (("fleet", "fleet", ""), ("one day", "fleet", last), ("dask", "dask", "")):
                cost = measure(how, url, told)
                print(f"{'':36}{name:8} {cost.seconds:>10.2f} s {cost.cpu_s:>6.2f} s {cost.peak_mb:>4.0f} MB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["fleet"]:
        ask_here(*sys.argv[2:])
    elif sys.argv[1:2] == ["dask"]:
        ask_dask(sys.argv[2])
    else:
        main()
