"""A dataset in a bucket: moto's server speaks S3 on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from fleets import FIRST_DAY, Leak, write_fleet
from pyarrow import fs

import forktrace
from forktrace.fleet import dataset
from forktrace.fleet.question import Question, ask
from forktrace.fleet.store import store_at

pytestmark = pytest.mark.fleet

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "forktrace", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true"}
HOSTS = {
    "web/1": {0: [Leak(33, 2, 100)], 1: [Leak(33, 2, 100), Leak(50, 3, 1000)]},
    "a=b": {1: [Leak(33, 1, 50, still=True)]},
}


@pytest.fixture(scope="module", autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's keys, no question about them to an address that only Amazon's machines have; what moto records lies aside."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("MOTO_RECORDER_FILEPATH", str(tmp_path_factory.mktemp("moto") / "requests"))
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of S3, as `HOST:PORT`."""
    from moto.server import ThreadedMotoServer

    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    yield f"{host}:{port}"
    served.stop()


def options(server: str, more: str = "") -> str:
    """Return what comes behind a URL to name the server."""
    return f"?endpoint_override={server}&scheme=http&region=us-east-1{more}"


@pytest.fixture(scope="module")
def bucket(server: str) -> str:
    """The URL of a folder in an empty bucket."""
    fs.FileSystem.from_uri(f"s3://traces/x{options(server, '&allow_bucket_creation=true')}")[0].create_dir("traces")
    return f"s3://traces/some/fleet{options(server)}"


@pytest.fixture(scope="module")
def filled(bucket: str) -> str:
    """The URL of a dataset of HOSTS."""
    write_fleet(bucket, HOSTS)  # type: ignore[arg-type]
    return bucket


def requests(server: str, method: str) -> list[str]:
    """Return the paths that the server was asked for by a method."""
    with urllib.request.urlopen(f"http://{server}/moto-api/recorder/download-recording") as answer:
        lines = [json.loads(line) for line in answer.read().decode().splitlines()]
    return [one["url"] for one in lines if one["method"] == method]


def test_a_bucket_answers_as_a_directory_does(filled: str, tmp_path: Path) -> None:
    """The same recordings, the same files, the same answer."""
    local = write_fleet(tmp_path, HOSTS)
    there, here = (ask(url, today=FIRST_DAY + timedelta(days=1)) for url in (filled, local))
    for name in ("lines", "places", "days"):
        pd.testing.assert_frame_equal(getattr(there, name), getattr(here, name))
    assert not there.remarks
    store = store_at(filled)
    assert sorted(store.show(one.path) for one in dataset.find(store)) == [
        f"s3://traces/some/fleet/{path.relative_to(local)}" for path in sorted(local.rglob("*.parquet"))
    ]


def test_it_is_a_dataset_for_others(filled: str) -> None:
    """pyarrow has all rows; hosts have their names back."""
    rows = forktrace.dataset(filled).to_table(columns=["host", "pid"]).to_pandas()
    assert rows.groupby("host").size().to_dict() == {"web/1": 9, "a=b": 2}


def test_a_day_asks_for_its_own_files(filled: str, server: str) -> None:
    """The server is asked for no file and no folder of another day."""
    urllib.request.urlopen(urllib.request.Request(f"http://{server}/moto-api/recorder/reset-recording", method="POST"))
    urllib.request.urlopen(urllib.request.Request(f"http://{server}/moto-api/recorder/start-recording", method="POST"))
    ask(filled, Question(FIRST_DAY, FIRST_DAY))
    urllib.request.urlopen(urllib.request.Request(f"http://{server}/moto-api/recorder/stop-recording", method="POST"))
    asked = [url for url in requests(server, "GET") if "date" in url]
    assert asked
    assert not [url for url in asked if "2023-11-15" in url]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run forktrace as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "forktrace", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_take_a_bucket(bucket: str, server: str) -> None:
    """`export --hive` writes into it, `fleet` reads it; nothing shows the key."""
    url = f"s3://forktrace:a-secret@traces/commands{options(server)}"
    added = command("export", "tests/data/kafka.arrows", "--hive", url)
    assert added.returncode == 0, added.stderr
    assert added.stderr.startswith("wrote s3://traces/commands/table=lifecycles/date=2026-11-23/host=")
    asked = command("fleet", url, "--format", "json")
    assert json.loads(asked.stdout)["lines"][0]["line"] == "consumer.py:55 consume_task"
    assert "a-secret" not in added.stderr + asked.stderr + asked.stdout


@pytest.mark.parametrize("arguments", [["export", "tests/data/kafka.arrows", "--hive"], ["fleet"]])
def test_a_bucket_that_is_not_there(server: str, arguments: list[str]) -> None:
    """Is one line, with what to do."""
    done = command(*arguments, f"s3://nowhere/fleet{options(server)}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("forktrace: s3://nowhere/fleet")
    assert done.stderr.splitlines()[0].endswith(": there is no such bucket")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("arguments", [["export", "tests/data/kafka.arrows", "--hive"], ["fleet"]])
def test_a_server_that_does_not_answer(arguments: list[str]) -> None:
    """Is one line, and is waited for no longer than a few tries take."""
    done = command(*arguments, f"s3://traces/fleet{options('127.0.0.1:1')}")
    assert done.returncode == 1
    assert ": no answer" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2


@pytest.fixture
def guarded(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, which now asks who comes."""
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    return server


@pytest.mark.parametrize("arguments", [["export", "tests/data/kafka.arrows", "--hive"], ["fleet"]])
def test_a_bucket_that_is_not_ours(filled: str, guarded: str, arguments: list[str]) -> None:
    """Ends with the status of missing rights, and asks with which key one came."""
    done = command(*arguments, f"s3://traces/some/fleet{options(guarded)}")
    assert done.returncode == 77, done.stderr
    assert ": access is refused" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2


def test_no_dataset_in_a_bucket(bucket: str, server: str) -> None:
    """A folder without one is said to be none."""
    done = command("fleet", f"s3://traces/empty{options(server)}")
    assert done.returncode == 2
    assert "s3://traces/empty: not a dataset" in done.stderr


def test_a_half_written_object(server: str, bucket: str) -> None:
    """What others have broken is left out, and named by its URL."""
    url = f"s3://traces/broken{options(server)}"
    write_fleet(url, {"web": {0: [Leak(33, 1, 50)]}, "db": {0: []}})  # type: ignore[arg-type]
    store = store_at(url)
    broken = next(one for one in dataset.find(store) if one.host == "db")
    with store.files.open_output_stream(broken.path) as sink:
        sink.write(b"PAR1")
    found = ask(url)
    assert found.hosts["host"].tolist() == ["web"]
    assert found.remarks[0].startswith("s3://traces/broken/table=lifecycles/date=2023-11-14/host=db/")
