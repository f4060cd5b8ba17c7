"""Debian's own Prometheus and node_exporter read what `record --metrics` writes; apt fetches them, nothing is installed."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tallied import exposed, samples

from forktrace.service.exposition import TextFile

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs/prometheus"
CACHE = ROOT / ".cache/prometheus"
PATIENCE_S = 60


@pytest.fixture(scope="session")
def programs() -> Path:
    """The directory of prometheus, promtool and prometheus-node-exporter."""
    if not (CACHE / "usr/bin/promtool").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "prometheus", "prometheus-node-exporter"], cwd=CACHE, check=True)
        for package in CACHE.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, CACHE], check=True)
    return CACHE / "usr/bin"


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(*command: object) -> Iterator[int]:
    """Run a server, its port being what PORT stands for."""
    port = free_port()
    line = [str(word).replace("PORT", str(port)) for word in command]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.terminate()


def asked(port: int, place: str) -> str:
    """What a server answers, once it does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{place}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def queried(port: int, query: str) -> list[dict[str, Any]]:
    """What a Prometheus answers to a query, once that is not empty."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := json.loads(asked(port, f"/api/v1/query?query={urllib.parse.quote(query)}"))["data"]["result"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return list(found)


def test_promtool_takes_rules_and_metrics(programs: Path) -> None:
    """The alerts are rules, each fires when it should and not before, and what we write is what promtool expects."""
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([programs / "promtool", *words], cwd=RULES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    command = [programs / "promtool", "check", "metrics"]
    done = subprocess.run(command, input=exposed().text(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_node_exporter_takes_files_of_two_recorders(programs: Path, tmp_path: Path) -> None:
    """Of one program twice: all series of both are scraped, and node_exporter has no error to tell."""
    for name in ("a.prom", "b.prom"):
        TextFile(str(tmp_path / name)).write(exposed())
    command = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={tmp_path}"]
    with running(programs / "prometheus-node-exporter", *command, "--web.listen-address=127.0.0.1:PORT") as port:
        found = samples(asked(port, "/metrics"))
    wanted = {key: value for path in tmp_path.glob("*.prom") for key, value in samples(path.read_text()).items()}
    assert wanted.items() <= found.items()
    assert found["node_textfile_scrape_error",] == 0
    assert len(wanted) == 2 * len(samples(exposed().text().decode()))


def test_prometheus_scrapes_the_port(programs: Path, tmp_path: Path) -> None:
    """It finds the series, by the rules an alert, and in the dashboard no query that it does not understand."""
    metrics, port = exposed(), free_port()
    metrics.serve(("127.0.0.1", port))
    config = tmp_path / "prometheus.yml"
    scrape = {"job_name": "forktrace", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config.write_text(json.dumps({"global": every, "scrape_configs": [scrape], "rule_files": [str(RULES / "alerts.yml")]}))
    options = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", "--web.listen-address=127.0.0.1:PORT"]
    with running(programs / "prometheus", *options) as server:
        assert queried(server, "forktrace_zombies")[0]["value"][1] == "3"
        assert queried(server, 'ALERTS{alertname="ForktraceHeadroomShort"}')[0]["metric"]["target"] == "web"
        for panel in json.loads((RULES / "dashboard.json").read_text())["panels"]:
            for target in panel["targets"]:
                query = urllib.parse.quote(target["expr"].replace("$__rate_interval", "1m").replace("$target", ".*"))
                assert json.loads(asked(server, f"/api/v1/query?query={query}"))["status"] == "success", target
