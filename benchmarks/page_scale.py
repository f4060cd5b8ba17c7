"""How large pages are, how long they take to write, to open and to zoom: `python benchmarks/page_scale.py [PROCESSES...]`.

The recordings are those of table_scale.py with uneven times, so that nothing packs better than in a real one. A headless
Chromium without a graphics processor opens each page from a file: `opens` is from the navigation to the drawn page, `zoom` from
a turn of the wheel to the second frame after it, the median of twelve. `writes` is CPU time, from the trace file to the page.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table_scale import write_trace

import forktrace
from forktrace.views.pictures.page import write_page

ZOOM = """(async () => {
    const bars = document.getElementById("bars"), frame = () => new Promise(requestAnimationFrame), began = performance.now();
    bars.dispatchEvent(new WheelEvent("wheel", { deltaY: TURN, clientX: 640, clientY: bars.getBoundingClientRect().top + 9 }));
    await frame();
    await frame();
    return performance.now() - began;
})()"""


def zoom_ms(window: Any) -> float:
    """Return how long one step takes: six in, six out."""
    return statistics.median(window.ask(ZOOM.replace("TURN", turn)) for turn in ("-120",) * 6 + ("120",) * 6)


def measure(window: Any, processes: int, folder: Path) -> str:
    """Return the line of one size."""
    trace, page = folder / "bench.arrows", folder / "bench.html"
    write_trace(trace, processes - 1, uneven=True)
    began_s = time.process_time()
    write_page(forktrace.read(trace), page)
    wrote_s = time.process_time() - began_s
    window.open(page)
    opened_ms = float(window.ask("document.documentElement.dataset.ready"))
    size = page.stat().st_size / 1e6
    return f"{processes:>10,} {size:>6.2f} MB {wrote_s:>7.2f} s {opened_ms / 1000:>6.2f} s {zoom_ms(window):>6.0f} ms"


def main() -> None:
    """Print one line for each size."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from browser import browser

    sizes = [int(one) for one in sys.argv[1:]] or [10, 1_000, 10_000, 100_000, 1_000_000]
    print(f"{'processes':>10} {'file':>9} {'writes':>9} {'opens':>8} {'zoom':>9}")
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        for processes in sizes:
            print(measure(window, processes, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
