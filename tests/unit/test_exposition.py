"""Metrics as Prometheus reads them, in a file and over HTTP."""

from __future__ import annotations

import os
import stat
import urllib.request
from pathlib import Path

import pytest
from tallied import FIGURES, exposed, samples

from forktrace.errors import ForktraceError
from forktrace.service.exposition import State, TextFile


def test_every_figure_has_its_series() -> None:
    """Names, labels and values, read by prometheus_client's own parser; nothing with `_created`."""
    found = samples(exposed().text().decode())
    assert {key: value for key, value in found.items() if key[0] != "forktrace_zombie_seconds_bucket"} == {
        ("forktrace_recording", "web"): 1,
        ("forktrace_zombies", "web"): 3,
        ("forktrace_zombies_by_line", "a.py:1 f", "web"): 2,
        ("forktrace_zombies_by_line", "other", "web"): 1,
        ("forktrace_oldest_zombie_seconds", "web"): 12.5,
        ("forktrace_zombie_seconds_count", "web"): 4,
        ("forktrace_zombie_seconds_sum", "web"): 90_000.5,
        ("forktrace_reaps_total", "join", "multiprocessing", "web"): 3,
        ("forktrace_reaps_total", "os-wait", "os-fork", "web"): 1,
        ("forktrace_forks_total", "web"): 7,
        ("forktrace_failed_forks_total", "EAGAIN", "pids.max", "web"): 2,
        ("forktrace_stolen_total", "web"): 1,
        ("forktrace_lost_events_total", "web"): 5,
        ("forktrace_headroom", "pids.max", "web"): 90,
    }
    buckets = {key[1]: value for key, value in found.items() if key[0] == "forktrace_zombie_seconds_bucket"}
    assert buckets["0.001"] == buckets["0.01"] == 1
    assert buckets["0.1"] == buckets["86400"] == 3
    assert buckets["+Inf"] == 4


def test_help_is_constant() -> None:
    """Two recorders on one host say the same HELP and TYPE, else node_exporter complains."""
    one, other = (exposed(target).text().decode().splitlines() for target in ("web", "batch"))
    assert [line for line in one if line.startswith("#")] == [line for line in other if line.startswith("#")]


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """It has mode 0644 whatever the umask is, and nothing else is left in the directory."""
    path = tmp_path / "web.prom"
    file, metrics = TextFile(str(path)), exposed()
    before = os.umask(0o077)
    try:
        file.write(metrics)
        first = path.stat()
        file.write(metrics)
    finally:
        os.umask(before)
    assert path.read_bytes() == metrics.text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_ino != first.st_ino
    assert [one.name for one in tmp_path.iterdir()] == ["web.prom"]


@pytest.mark.parametrize("target", ["web", 'we"b\\', "web {x} #2"])
def test_two_files_never_have_equal_series(tmp_path: Path, target: str) -> None:
    """The target gets a number where another file of the directory names it; writing the same file again needs none."""
    (tmp_path / "other.prom").write_text('node_load1{target="web"} 1\n')
    found = []
    for name in ("a.prom", "b.prom", "c.prom", "b.prom"):
        metrics = exposed(target)
        TextFile(str(tmp_path / name)).write(metrics)
        found.append(metrics.target)
    assert found == [target, f"{target} #2", f"{target} #3", f"{target} #2"]
    texts = [path.read_text() for path in tmp_path.glob("?.prom")]
    series = [key for text in texts for key in samples(text)]
    assert len(series) == len(set(series))


def test_a_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    """Which names it; when it is back, so is the file."""
    folder = tmp_path / "textfile"
    file, metrics = TextFile(str(folder / "web.prom")), exposed()
    with pytest.raises(ForktraceError, match=r"textfile/web.prom: No such file or directory: no metrics are written there"):
        file.write(metrics)
    folder.mkdir()
    file.write(metrics)
    assert (folder / "web.prom").exists()


def test_over_http() -> None:
    """A scrape gets the same text, of the figures of that moment; a port that is taken is one line."""
    metrics = exposed()
    metrics.serve(("127.0.0.1", 19_477))
    with urllib.request.urlopen("http://127.0.0.1:19477/metrics", timeout=10) as answer:
        assert answer.read() == metrics.text()
    metrics.state = State(FIGURES, is_recorded=False)
    with urllib.request.urlopen("http://127.0.0.1:19477/metrics", timeout=10) as answer:
        assert samples(answer.read().decode())["forktrace_recording", "web"] == 0
    with pytest.raises(ForktraceError, match=r"no metrics on 127\.0\.0\.1:19477: Address already in use"):
        exposed().serve(("127.0.0.1", 19_477))
