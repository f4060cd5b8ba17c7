"""Pages of all committed traces and of large ones: what they say, and how fast they are. `make test-page` runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, browser
from monsters import MONSTERS
from pages import check, written

import forktrace

ROOT = Path(__file__).parents[2]
TRACES = sorted((ROOT / "tests/data").glob("*.arrows"))
PICTURES = ROOT / ".cache/pages"

pytestmark = [pytest.mark.browser, pytest.mark.pages]


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all tests, without a complaint at the end."""
    with browser() as made:
        yield made
        assert made.said == []


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Path]]:
    """Write a trace of many processes, once for each size."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from table_scale import write_trace

    folder = tmp_path_factory.mktemp("large")

    def path(processes: int) -> Path:
        found = folder / f"{processes}.arrows"
        if not found.exists():
            write_trace(found, processes - 1, uneven=True)  # and the one that starts them
        return found

    yield path
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_each_process_of_a_committed_trace(window: Browser, tmp_path: Path, path: Path) -> None:
    """The page tells of each what `why` tells."""
    check(window, forktrace.read(path), tmp_path)


@pytest.mark.parametrize("processes", [10_000, 100_000])
def test_a_thousand_processes_of_a_large_trace(
    window: Browser, tmp_path: Path, large: Callable[[int], Path], processes: int
) -> None:
    """The same of a thousand, evenly chosen."""
    check(window, forktrace.read(large(processes)), tmp_path, every=processes // 1_000)


def test_a_part(window: Browser, tmp_path: Path) -> None:
    """Of a part, who cleared whom is named even where it is not in the part."""
    made = forktrace.read(ROOT / "tests/data/kafka.arrows")
    check(window, made.between(made.start_ns + 3_600_000_000, made.start_ns + 4_000_000_000), tmp_path)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("processes", [10, 300, 10_000, 100_000])
def test_pictures_to_look_at(window: Browser, tmp_path: Path, large: Callable[[int], Path], processes: int, dark: bool) -> None:
    """Screenshots of each size in light and dark are put into .cache/pages, for eyes."""
    made = forktrace.read(large(processes))
    window.open(written(made, tmp_path), f"#p={processes // 2}", dark=dark)
    PICTURES.mkdir(parents=True, exist_ok=True)
    window.picture(PICTURES / f"{processes}-{'dark' if dark else 'light'}.png")
    assert window.ask("document.getElementById('failure').hidden")


@pytest.mark.parametrize("name", MONSTERS)
def test_a_hostile_trace(window: Browser, tmp_path: Path, name: str) -> None:
    """The page of each huge trace that can be read opens, and shows whose it is."""
    trace = tmp_path / "trace.arrows"
    trace.write_bytes(MONSTERS[name]())
    try:
        window.open(written(forktrace.read(trace), tmp_path))
    except forktrace.TraceError:
        return
    assert window.ask("document.getElementById('failure').hidden")
    assert window.ask("document.querySelector('h1').textContent")
