"""What recording costs: `python benchmarks/slowdown.py [--pairs N] [--rival-pairs N] [--only NAME]`, as root.

Each ratio is of two runs one right after the other, bare and traced, taking turns in which comes first; printed is the median
of the ratios and its 95 % interval by order statistics. Every workload prints the seconds that it took itself, so a tracer's
start-up does not count. forktrace goes on recording between the runs of a workload, also while it runs bare: what that costs
a process that is not followed is measured by itself. The tables are Markdown, for docs/limits.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from forktrace.trace import stream

WORKLOADS = Path(__file__).parent / "workloads"
FORKTRACE = [sys.executable, "-m", "forktrace"]
IDLE_S = 15.0
STARTS = 8
GETPPID_CALLS = 4_000_000
ROUND_TRIPS = 60_000
LONG_STORM = ["2", "30000"]
POINTS = [
    "task:task_newtask",
    "sched:sched_process_exec",
    "sched:sched_process_exit",
    "sched:sched_process_free",
    "signal:signal_generate",
    "syscalls:sys_exit_wait4",
    "syscalls:sys_exit_waitid",
]
# perf and bpftrace want tracefs where they look for it: mounted there for them alone
WITH_TRACEFS = ["unshare", "--mount", "sh", "-c", 'mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec "$@"', "sh"]
BPFTRACE = ",".join(f"tracepoint:{point}" for point in POINTS) + ' { printf("%llu %d %s %s\\n", nsecs, pid, comm, probe); }'
BARE, OURS, WITHOUT = "bare", "forktrace", "forktrace --no-stacks"
STORM_VERSIONS = ("3.11", "3.13")
DEPTHS = (5, 40)
HEAVY = ["pyarrow", "pandas", "matplotlib", "bcc"]


def workloads(folder: Path) -> dict[str, list[str]]:
    """Compile the C programs into `folder` and return each workload's command."""
    for name in ("storm", "calls"):
        subprocess.run(["gcc", "-O2", "-static", "-o", folder / name, WORKLOADS / f"{name}.c"], check=True)
    storm, python = str(folder / "storm"), sys.executable
    found = {
        "C fork+exit+wait, 1 worker": [storm, "1", "2500"],
        "C fork+exit+wait, 2 workers": [storm, "2", "3000"],
        "C fork+exec+wait, 1 worker": [storm, "1", "1200", "exec"],
        "C fork+exec+wait, 2 workers": [storm, "2", "1200", "exec"],
        "Python os.fork": [python, str(WORKLOADS / "fork_storm.py"), "700"],
        "Python subprocess.run": [python, str(WORKLOADS / "run_loop.py"), "350"],
    }
    for version, interpreter in interpreters().items():
        for depth in DEPTHS:
            command = [interpreter, str(WORKLOADS / "fork_storm.py"), "700", str(depth)]
            found[f"Python {version} os.fork, depth {depth}"] = command
    return found


def interpreters() -> dict[str, str]:
    """Return the interpreters whose fork storms are measured, as far as pyenv or the system has them."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = {}
    for version in STORM_VERSIONS:
        names = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))] + [shutil.which(f"python{version}")]
        if names[0]:
            found[version] = names[0]
    return found


def tracers(folder: Path, trace: Path | None = None) -> dict[str, list[str]]:
    """Return what each tracer puts before a command; forktrace writes `trace`."""
    quoted = [*WITH_TRACEFS, "sh", "-c", 'program=$1 out=$2; shift 2; exec bpftrace -q -o "$out" -c "$*" -e "$program"', "sh"]
    events = [word for point in POINTS for word in ("-e", point)]
    record = [*FORKTRACE, "record", "-q", "--force", "--user", "root", "-o", str(trace or folder / "x.arrows")]
    return {
        OURS: [*record, "--"],
        WITHOUT: [*record, "--no-stacks", "--"],
        "strace -f": ["strace", "-f", "-e", "trace=process", "-o", str(folder / "strace.txt")],
        "bpftrace": [*quoted, BPFTRACE, str(folder / "bpftrace.txt")],
        "perf record": [*WITH_TRACEFS, "perf", "record", "-q", "-a", "-o", str(folder / "perf.data"), *events, "--"],
    }


def elapsed_s(command: Sequence[str]) -> float:
    """Run `command` and return the seconds that it prints as its last line."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return float(done.stdout.split()[-1])


def pairs(count: int, bare: Callable[[], float], traced: Callable[[], float]) -> list[tuple[float, float]]:
    """Return `count` pairs (bare, traced) of runs right after each other; every second pair begins with the traced one."""
    found = []
    for number in range(count):
        if number % 2:
            slow, fast = traced(), bare()
        else:
            fast, slow = bare(), traced()
        found.append((fast, slow))
    return found


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the order statistics that enclose the true one with 95 % certainty; the range below 6 values."""
    ranked, count = sorted(values), len(values)
    below, cut = 0.0, 0
    while (below := below + math.comb(count, cut) / 2**count) <= 0.025:
        cut += 1
    first = max(cut - 1, 0)
    return statistics.median(ranked), ranked[first], ranked[count - 1 - first]


def shown(values: Sequence[float], digits: int = 2) -> str:
    """Return `1.02 [0.99, 1.05]`; fewer than 6 values have a range and no interval."""
    middle, low, high = median_interval(values)
    about = "" if len(values) >= 6 else "range "
    return f"{middle:.{digits}f} [{about}{low:.{digits}f}, {high:.{digits}f}]"


def row(*cells: object) -> None:
    """Print one line of a Markdown table."""
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def trace_facts(path: Path) -> tuple[int, int, int, int]:
    """Return from a trace: events lost, processes, bytes, batches that are not empty."""
    table = stream.read(path).table
    end = json.loads(table.column("detail")[table.num_rows - 1].as_py())
    with pa.ipc.open_stream(path) as reader:
        batches = sum(batch.num_rows > 0 for batch in reader)
    return sum(end["lost"].values()), end["processes"], path.stat().st_size, batches


def usable(folder: Path) -> dict[str, list[str]]:
    """Return the other tracers that run here, and name those that do not."""
    found = {}
    for name, prefix in tracers(folder).items():
        if name in (OURS, WITHOUT):
            continue
        try:
            elapsed_s([*prefix, str(folder / "storm"), "1", "10"])
            found[name] = prefix
        except (OSError, RuntimeError, ValueError) as error:
            print(f"{name} does not run here and is left out: {error}", flush=True)
    return found


def slowdowns(folder: Path, count: int, rival_count: int, only: str) -> None:
    """Print the table of ratios, a line for each workload and tracer, of the workloads whose names contain `only`."""
    commands = {name: command for name, command in workloads(folder).items() if only in name}
    row("workload", "tracer", "pairs", "slowdown [95 % interval]", "bare, s", "events lost", "trace, bytes a process")
    row(*["---"] * 7)
    for workload, command in commands.items():
        ours(folder, workload, command, count)
    for name, prefix in usable(folder).items():
        for workload, command in commands.items():
            if rival_count and "depth" not in workload:
                both = pairs(rival_count, partial(elapsed_s, command), partial(elapsed_s, [*prefix, *command]))
                one_line(workload, name, both, "not counted", "")


def ours(folder: Path, workload: str, command: list[str], count: int) -> None:
    """Print what forktrace costs a workload, with stacks and without, and the one against the other."""
    traces = {name: folder / f"{place}.arrows" for place, name in enumerate((WITHOUT, OURS))}
    runs: dict[str, Callable[[], float]] = {BARE: partial(elapsed_s, command)}
    with contextlib.ExitStack() as open_ones:
        for name, trace in traces.items():
            runs[name] = open_ones.enter_context(turns(tracers(folder, trace)[name], command))
        rounds = in_turn(runs, count)
    for before, after in ((BARE, WITHOUT), (BARE, OURS), (WITHOUT, OURS)):
        lost, processes, size, batches = trace_facts(traces[after])
        about = f"{size / processes:.0f} ({processes} processes in {batches} batches)"
        name = f"stacks against {WITHOUT}" if before == WITHOUT else after
        one_line(workload, name, [(one[before], one[after]) for one in rounds], str(lost), about)


@contextlib.contextmanager
def turns(prefix: Sequence[str], command: Sequence[str]) -> Iterator[Callable[[], float]]:
    """Trace a process that runs `command` whenever it is told to; yields the function that does so and returns the seconds."""
    order = [*prefix, sys.executable, str(WORKLOADS / "turns.py"), *command]
    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            print(file=process.stdin, flush=True)
            return float(process.stdout.readline())

        run()  # what is new is sent
        yield run
        assert process.stdin is not None
        process.stdin.close()


def in_turn(runs: Mapping[str, Callable[[], float]], count: int) -> list[dict[str, float]]:
    """Return the seconds of `count` rounds of all the runs; each begins with the one that came second in the round before."""
    names = list(runs)
    return [{name: runs[name]() for name in names[first:] + names[:first]} for first in (n % len(names) for n in range(count))]


def one_line(workload: str, name: str, both: list[tuple[float, float]], lost: str, about: str) -> None:
    """Print the line of pairs (before, after)."""
    bare = statistics.median(fast for fast, _ in both)
    row(workload, name, len(both), shown([slow / fast for fast, slow in both]), f"{bare:.2f}", lost, about)


@contextlib.contextmanager
def recording(folder: Path, command: Sequence[str]) -> Iterator[list[int]]:
    """Record `command`, which begins by a line on its output; yields the pids of forktrace's own processes once it runs."""
    order = [*tracers(folder)[OURS], "sh", "-c", 'echo ready; exec "$@"', "sh", *command]
    with subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield family(process.pid)
        process.terminate()


def family(pid: int) -> list[int]:
    """Return `pid` and its children that run the same program."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    program = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [pid, *(int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == program)]


def system_wide(folder: Path, count: int) -> None:
    """Print what an unrelated recording costs processes that it does not follow."""
    calls = str(folder / "calls")
    sets = {"getppid": [calls, "getppid", str(GETPPID_CALLS)], "ping-pong": [calls, "pingpong", str(ROUND_TRIPS)]}

    def bare() -> dict[str, float]:
        return {name: elapsed_s(command) for name, command in sets.items()}

    def traced() -> dict[str, float]:
        with recording(folder, ["sleep", "600"]):
            return bare()

    runs = [(traced(), bare())[::-1] if number % 2 else (bare(), traced()) for number in range(count)]
    added_ns = [(slow["getppid"] - fast["getppid"]) / GETPPID_CALLS * 1e9 for fast, slow in runs]
    base_ns = statistics.median(fast["getppid"] for fast, _ in runs) / GETPPID_CALLS * 1e9
    base_us = statistics.median(fast["ping-pong"] for fast, _ in runs) / ROUND_TRIPS * 1e6
    ratios = [slow["ping-pong"] / fast["ping-pong"] for fast, slow in runs]
    row("getppid of an unfollowed process", f"+{shown(added_ns, 0)} ns (bare {base_ns:.0f} ns), {count} pairs")
    row("ping-pong of two unfollowed processes", f"{shown(ratios)} (bare {base_us:.1f} us a round), {count} pairs")


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: Sequence[int], file: str, entry: str) -> float:
    """Return the sum of an entry of /proc/PID/FILE; a process that has ended counts nothing.

    VmRSS of `status` counts a page that two of them share twice, Pss of `smaps_rollup` once.
    """
    kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith(entry))
    return kib * 1024 / 1e6


def recorder(folder: Path) -> None:
    """Print the recorder's CPU time when nothing happens, and its memory then and under load."""
    with recording(folder, ["sleep", "600"]) as pids:
        before = sum(cpu_s(pid) for pid in pids)
        time.sleep(IDLE_S)
        share = (sum(cpu_s(pid) for pid in pids) - before) / IDLE_S
        each = " + ".join(f"{memory_mb([pid], 'status', 'VmRSS'):.0f}" for pid in pids)
        pss = memory_mb(pids, "smaps_rollup", "Pss:")
    row("recorder idle", f"{share:.1%} of a core over {IDLE_S:.0f} s")
    row("memory, idle", f"{each} MB resident (launcher + recorder); {pss:.0f} MB with shared pages counted once")
    peak_rss = peak_pss = 0.0
    with recording(folder, [str(folder / "storm"), *LONG_STORM]) as pids:
        while (rss := memory_mb(pids, "status", "VmRSS")) > 0:
            peak_rss = max(peak_rss, rss)
            peak_pss = max(peak_pss, memory_mb(pids, "smaps_rollup", "Pss:"))
            time.sleep(0.05)
    lost, processes, size, _ = trace_facts(folder / "x.arrows")
    peak = f"at most {peak_rss:.0f} MB resident, {peak_pss:.0f} MB with shared pages counted once"
    row("memory, recording a storm", f"{peak}; {processes} processes, {lost} events lost")
    row("that storm's trace", f"{size / processes:.0f} bytes a process")


def starts(folder: Path) -> None:
    """Print how long it takes until the target runs, and `--help`."""
    until_ms, help_ms = [], []
    order = [*tracers(folder)[OURS], str(folder / "storm"), "clock"]
    for _ in range(STARTS):
        begin_ns = time.monotonic_ns()
        clock = subprocess.run(order, stdout=subprocess.PIPE, check=True).stdout
        until_ms.append((int(clock) - begin_ns) / 1e6)
        begin = time.perf_counter()
        subprocess.run([*FORKTRACE, "--help"], stdout=subprocess.DEVNULL, check=True)
        help_ms.append((time.perf_counter() - begin) * 1e3)
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "forktrace", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in traced.stderr.splitlines()}
    row("from exec of `record` to the target's first instruction", f"{shown(until_ms, 0)} ms, {STARTS} runs")
    row("`forktrace --help`", f"{shown(help_ms, 0)} ms, {STARTS} runs; heavy imports: {imported & set(HEAVY) or 'none'}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of runs for forktrace")
    parser.add_argument("--rival-pairs", type=int, default=6, help="pairs of runs for each other tracer")
    parser.add_argument("--only", default="", metavar="NAME", help="workloads whose names contain NAME; or: system")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("recording needs root")
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    versions = (
        f"Linux {platform.release()}, {cpu.partition(': ')[2]}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    )
    print(f"{versions}, load {os.getloadavg()[0]:.2f}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.only != "system":
            slowdowns(folder, chosen.pairs, chosen.rival_pairs, chosen.only)
            print()
        if chosen.only in ("", "system"):
            workloads(folder)
            row("what", "measured [95 % interval]")
            row("---", "---")
            starts(folder)
            recorder(folder)
            system_wide(folder, chosen.pairs)


if __name__ == "__main__":
    main()
