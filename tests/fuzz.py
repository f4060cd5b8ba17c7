"""Sends hostile traces through every command and table in a process of their own, which another one watches.

`make fuzz` runs it: `python tests/fuzz.py --count 10000 --seed 1`. A crash, a hang, more than 1 GiB, and whatever examined.py
complains of is a finding. `--only N` runs one mutant alone, `--keep FOLDER` writes the traces of findings.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from examined import PEAK, examine
from monsters import MONSTERS
from mutants import Mutant, Seeds, mutant

MOST_BYTES: Final = 1 << 30  # for a trace of up to SMALL bytes, and in proportion for larger ones
SMALL: Final = 1 << 18
TIRED: Final = 450 << 20  # a worker that keeps more is replaced: its memory would count for the next mutant
MOST_CPU_S: Final = 60.0  # of this process for all commands on one trace; in proportion for larger ones, too
MOST_S: Final = 900.0  # until it is taken for hung: the machine may be busy
ADDRESS_SPACE: Final = 8 << 30  # so that a mutant that eats memory does not take the machine along


def work(jobs: Connection, seed: int, thorough: bool, folder: str) -> None:
    """Examine the mutants that come, the huge ones in every way that there is, and say of each what came of it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    warnings.simplefilter("ignore", UserWarning)  # glyphs that the font lacks
    warnings.simplefilter("error", RuntimeWarning)
    sys.setrecursionlimit(1000)
    import matplotlib

    matplotlib.use("agg")
    path = os.path.join(folder, f"{os.getpid()}.arrows")
    while (job := jobs.recv()) is not None:
        number, data = job
        size = Path(path).write_bytes(data)
        del data, job
        PEAK.begin()
        began, began_cpu_s = time.monotonic(), time.process_time()
        try:
            said = examine(path, random.Random(f"{seed}/{number}/how"), thorough or number < 0)
        except BaseException as error:  # whatever it is, it is a finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            last = next(
                (one for one in reversed(traceback.extract_tb(error.__traceback__)) if "forktrace/" in one.filename), where
            )
            said = f"{type(error).__name__}: {str(error)[:300]} at {last.filename.rpartition('/forktrace/')[2]}:{last.lineno}"
            said += "" if last is where else f" (in {where.filename.rpartition('/')[2]}:{where.lineno})"
        peak = PEAK.bytes()
        if peak > MOST_BYTES * max(size / SMALL, 1):
            said = f"took {peak >> 20} MiB; {said}"
        cpu_s = time.process_time() - began_cpu_s
        if cpu_s > MOST_CPU_S * max(size / SMALL, 1):
            said = f"took {cpu_s:.0f} s; {said}"
        gc.collect()
        PEAK.begin()
        jobs.send((said, time.monotonic() - began, peak, PEAK.bytes() > TIRED))


class Worker:
    """A process that examines mutants; one that dies or hangs is replaced."""

    def __init__(self, seed: int, thorough: bool, folder: str) -> None:
        self._make = lambda: self._start(seed, thorough, folder)
        self._make()

    def _start(self, seed: int, thorough: bool, folder: str) -> None:
        self._jobs, its = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=work, args=(its, seed, thorough, folder), daemon=True
        )
        self._process.start()
        its.close()

    def examine(self, number: int, data: bytes) -> tuple[str, float, int]:
        """Return what came of a mutant, the seconds it took and the peak of memory in bytes."""
        try:
            self._jobs.send((number, data))
            if self._jobs.poll(MOST_S):
                said, took_s, peak, tired = self._jobs.recv()
                if tired:
                    self.stop()
                    self._make()
                return said, took_s, peak
            self._process.kill()
            said = f"hangs: more than {MOST_S:.0f} s"
        except (EOFError, OSError):
            said = "crashed"
        self._process.join()
        said = said if said.startswith("hangs") else f"crashed the interpreter with status {self._process.exitcode}"
        self._make()
        return said, MOST_S, 0

    def stop(self) -> None:
        """End the process."""
        self._jobs.send(None)
        self._process.join()


def fuzz(
    mutants: Iterator[tuple[int, Mutant]], seed: int, *, thorough: bool, keep: Path | None, say: Callable[[str], None]
) -> Counter[str]:
    """Examine all `mutants`; return how many were `read`, `refused`, and what was found how often."""
    results: Counter[str] = Counter()
    worst_s, worst_bytes = (0.0, ""), (0, "")
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(seed, thorough, folder)
        for done, (number, (name, data)) in enumerate(mutants, 1):
            said, took_s, peak = worker.examine(number, data)
            worst_s, worst_bytes = max(worst_s, (took_s, f"{number} {name}")), max(worst_bytes, (peak, f"{number} {name}"))
            good = said in ("read", "refused")
            results[said if good else re.sub(r"[0-9]{2,}", "N", said)] += 1
            if not good:
                say(f"{number} ({name}, {len(data)} bytes, {took_s:.1f} s): {said}")
                if keep:
                    keep.mkdir(exist_ok=True)
                    (keep / f"{number}.arrows").write_bytes(data)
            if done % 1000 == 0:
                say(f"{done:,} traces so far")
        worker.stop()
    say(f"longest {worst_s[0]:.1f} s ({worst_s[1]}), most memory {worst_bytes[0] >> 20} MiB ({worst_bytes[1]})")
    return results


def main() -> None:
    """Run as told by the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--only", type=int, help="this mutant alone")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="write the traces of findings here")
    parser.add_argument("--monsters", action="store_true", help="the huge ones alone")
    options = parser.parse_args()
    seeds = Seeds()
    numbers = [options.only] if options.only is not None else range(options.first, options.first + options.count)
    random_ones = ((number, mutant(seeds, options.seed, number)) for number in numbers)
    huge = ((-1 - number, (name, make())) for number, (name, make) in enumerate(MONSTERS.items()))
    alone = options.only is not None or options.first
    chosen = huge if options.monsters else random_ones if alone else itertools.chain(huge, random_ones)
    began = time.monotonic()
    results = fuzz(
        chosen, options.seed, thorough=options.only is not None, keep=options.keep, say=lambda line: print(line, flush=True)
    )
    bad = {said: count for said, count in results.items() if said not in ("read", "refused")}
    total = sum(results.values())
    sums = f"{results['read']:,} read, {results['refused']:,} refused, {sum(bad.values()):,} findings"
    print(f"{total:,} traces in {time.monotonic() - began:.0f} s: {sums}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
