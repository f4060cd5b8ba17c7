"""What is asked of many hosts: which lines leave how much zombie time, where, since when, and what is new."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import jsonschema
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fleets import DAY_NS, FIRST_DAY, Leak, host_recording, write_fleet
from rich.console import Console
from traces import MS, cells, recording, target, work

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.cli import cli
from forktrace.cli.fleet import Day
from forktrace.errors import MachineLacks, UsageError
from forktrace.fleet import columns, dataset, picture, words
from forktrace.fleet.dataset import File
from forktrace.fleet.question import Answer, Question, ask, clock_remarks
from forktrace.trace import events as ev

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(json.loads((ROOT / "forktrace/views/formats/documents.schema.json").read_text()))
LAST_DAY = FIRST_DAY + timedelta(days=2)
HOSTS = {
    "web-1": {0: [Leak(33, 2, 100)], 1: [Leak(33, 2, 100)], 2: [Leak(33, 2, 100), Leak(50, 3, 1000)]},
    "web-2": {0: [Leak(33, 1, 50)], 2: [Leak(33, 1, 50), Leak(50, 1, 0, still=True)]},
    "db": {0: [], 1: [Leak(70, 4, 20)], 2: [Leak(70, 1, 20)]},
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of HOSTS."""
    return write_fleet(tmp_path_factory.mktemp("fleet"), HOSTS)


@pytest.fixture(scope="module")
def answer(fleet: Path) -> Answer:
    """What is known of all of it on its last day."""
    return ask(fleet, today=LAST_DAY)


def printed(answer: Answer, width: int = 100) -> str:
    """Return what a screen shows."""
    page = io.StringIO()
    words.show(Console(file=page, width=width), answer)
    return page.getvalue()


def test_lines_by_zombie_time(answer: Answer) -> None:
    """A row per line and cause: how many zombies, how long, on how many hosts, since when, and the worst of these."""
    lines = cells(answer.lines, "line", "cause", "hosts", "zombies", "still", "longest_ms", "since", "last")
    day = [FIRST_DAY + timedelta(days=one) for one in range(3)]
    assert lines == [
        ("consumer.py:50 consume", "never", 1, 1, 1, pytest.approx(19_498), day[2], day[2]),
        ("consumer.py:50 consume", "join", 1, 3, 0, 1000, day[2], day[2]),
        ("consumer.py:33 consume", "join", 2, 8, 0, 100, day[0], day[2]),
        ("consumer.py:70 consume", "join", 1, 5, 0, 20, day[1], day[2]),
    ]
    assert answer.lines["zombie_ms"].tolist()[1:] == pytest.approx([3000, 700, 100])
    assert [list(one) for one in answer.lines["worst"]] == [["web-2"], ["web-1"], ["web-1", "web-2"], ["db"]]


def test_new_since_yesterday(answer: Answer, fleet: Path) -> None:
    """A line is new that left no zombie before yesterday on any host; with nothing from before, that is not known."""
    assert answer.lines["new"].tolist() == [True, True, False, True]
    assert answer.lines["new_hosts"].tolist() == [1, 1, 0, 1]
    later = ask(fleet, today=LAST_DAY + timedelta(days=1))
    assert later.lines["new"].tolist() == [True, True, False, False]
    assert ask(fleet, Question(since=LAST_DAY), today=LAST_DAY).lines["new"].isna().all()


def test_yesterday_is_counted_from_the_last_day_asked_for(fleet: Path) -> None:
    """With --until, not from today."""
    assert ask(fleet, Question(until=LAST_DAY)).lines["new"].tolist() == [True, True, False, True]
    assert not ask(fleet).lines["new"].any()


def test_new_on_some_hosts(tmp_path: Path) -> None:
    """An old line that comes to hosts which did without it before is told of with their number."""
    write_fleet(tmp_path, {"a": {0: [Leak(33, 1, 50)], 2: []}, "b": {0: [], 2: [Leak(33, 1, 50)]}, "c": {2: [Leak(33, 1, 50)]}})
    found = ask(tmp_path, today=LAST_DAY)
    assert cells(found.lines, "new", "new_hosts") == [(False, 1)]
    assert " on 1" in printed(found)


def test_places_and_days(answer: Answer) -> None:
    """The same figures by host, and by day."""
    assert cells(answer.places, "line", "host", "zombies")[:3] == [
        ("consumer.py:50 consume", "web-2", 1),
        ("consumer.py:50 consume", "web-1", 3),
        ("consumer.py:33 consume", "web-1", 6),
    ]
    assert cells(answer.days, "line", "date", "zombies")[:2] == [
        ("consumer.py:33 consume", FIRST_DAY, 3),
        ("consumer.py:33 consume", FIRST_DAY + timedelta(days=1), 2),
    ]
    assert answer.places["zombie_ms"].sum() == pytest.approx(answer.lines["zombie_ms"].sum())
    assert answer.days["zombie_ms"].sum() == pytest.approx(answer.lines["zombie_ms"].sum())


def test_hosts(answer: Answer) -> None:
    """Every host is there, also one without a zombie, with its processes."""
    hosts = cells(answer.hosts, "host", "first_day", "last_day", "processes", "incomplete")
    assert hosts == [
        ("db", FIRST_DAY, LAST_DAY, 8, 0),
        ("web-1", FIRST_DAY, LAST_DAY, 12, 0),
        ("web-2", FIRST_DAY, LAST_DAY, 5, 0),
    ]


@pytest.mark.parametrize(
    ("question", "lines", "files"),
    [
        (Question(hosts=["web-1"]), [50, 33], 3),
        (Question(hosts=["web-?"]), [50, 50, 33], 5),
        (Question(hosts=["d*", "web-2"]), [50, 33, 70], 5),
        (Question(causes=["never"]), [50], 8),
        (Question(causes=["never", "join"], hosts=["db"]), [70], 3),
        (Question(since=LAST_DAY), [50, 50, 33, 70], 3),
        (Question(until=FIRST_DAY), [33], 3),
        (Question(FIRST_DAY + timedelta(days=1), FIRST_DAY + timedelta(days=1)), [33, 70], 2),
    ],
)
def test_part_of_a_fleet(fleet: Path, question: Question, lines: list[int], files: int) -> None:
    """By days, hosts and causes; of days and hosts that are not asked for no file is read."""
    found = ask(fleet, question)
    assert [int(line.split(":")[1].split()[0]) for line in found.lines["line"]] == lines
    assert len(found.files) == files


def mostly_left_aside() -> Recording:
    """Return a zombie that counts, what forktrace itself reaped, a short one, an upper bound, what init reaped, a helper."""
    tracker = "from multiprocessing.resource_tracker import main;main(7)"
    rows = [target(), *work(500, 10, 20, 29), *work(501, 10, 20, 31)]
    rows += [*work(502, 10, 20, 90), ev.exec_(11 * MS, 502, ["python", "-c", tracker], file="python")]
    rows += [*work(503, 10, 20), ev.reap(90 * MS, 503, by=100, call="unseen")]
    rows += [ev.fork(10 * MS, 504, by=100), ev.fork(11 * MS, 505, by=504), ev.exit_(12 * MS, 504, parent=100, adopter=1)]
    rows += [ev.zombie(12 * MS, 504, parent=100), ev.reap(12 * MS, 504, by=100), ev.exit_(20 * MS, 505, parent=1)]
    rows += [ev.zombie(20 * MS, 505, parent=1), ev.reap(95 * MS, 505, by=1)]
    rows += [ev.exit_(100 * MS, 100, parent=50), ev.zombie(100 * MS, 100, parent=50), ev.reap(300 * MS, 100, by=50)]
    return recording(*rows)


def test_as_the_report_counts(tmp_path: Path) -> None:
    """Left aside are what forktrace itself reaped, short zombies, upper bounds, what init reaped, and helpers."""
    made = mostly_left_aside()
    assert made.lifecycles()["zombie_ms"].ge(9).sum() == 6
    dataset.write(made, tmp_path)
    found = ask(tmp_path)
    assert cells(found.places, "zombies", "zombie_ms") == [(1, 11)]
    assert found.hosts["processes"].tolist() == [7]
    assert found.hosts["incomplete"].tolist() == [1]
    assert "Of 1 process an event was lost or inferred" in printed(found)


def test_real_recordings(tmp_path: Path) -> None:
    """Of the committed traces the zombies are those of their lifecycles, by line and cause."""
    import forktrace
    from forktrace.views.zombies import lead, of_program

    expected: dict[tuple[str, str], float] = {}
    for path in sorted((ROOT / "tests/data").glob("*.arrows")):
        made = forktrace.read(path)
        dataset.write(made, tmp_path)
        table = of_program(made)
        for row in table[lead(table)].itertuples():
            site = "?" if pd.isna(row.start_site) else row.start_site.rpartition("/")[2]
            expected[site, row.reap_cause] = expected.get((site, row.reap_cause), 0) + row.zombie_ms
    found = ask(tmp_path).lines
    got = dict(zip(zip(found["line"].fillna("?"), found["cause"], strict=True), found["zombie_ms"], strict=True))
    assert got == pytest.approx(expected)


def test_the_screen(answer: Answer) -> None:
    """A sentence, the lines, what was read."""
    text = printed(answer, 120)
    assert text.startswith("17 zombies on 3 of 3 hosts, for 23.298 s in all; 3 lines new since yesterday.\n")
    row = next(line.split() for line in text.splitlines() if line.startswith("consumer.py:33 "))
    assert row == "consumer.py:33 consume join 8 700 ms 100 ms web-1 and web-2 2023-11-14".split()
    assert "1 (1 still)" in text
    assert "Read: 8 files" in text
    assert "2023-11-14 to 2023-11-16, 25 processes." in text
    assert "is not known" not in text


def test_a_narrow_screen(answer: Answer) -> None:
    """Line, cause, time and what is new stay, so that no two rows look alike; what is left out is said."""
    text = printed(answer, 80)
    assert "not shown, as the screen is too narrow: longest, zombies, since\n" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.findall(r"consumer.py:50 \S+ +(\w+)", text) == ["never", "join"]
    assert re.findall(r"consumer.py:50 \S+ +(\w+)", printed(answer, 60)) == ["never", "join"]


def test_a_healthy_fleet(tmp_path: Path) -> None:
    """Is told so."""
    write_fleet(tmp_path, {"web": {0: []}})
    found = ask(tmp_path)
    assert printed(found).startswith("no zombie lasted longer than 10 ms on 1 host, of 1 process.\n\nRead: 1 file")
    assert json.loads(words.as_json(found))["lines"] == []
    picture.write_fleet(found, io.BytesIO(), "png")


def test_json_has_all(answer: Answer) -> None:
    """Each line with its hosts; what is not known is null, days are ISO 8601."""
    document = json.loads(words.as_json(answer))
    VALIDATOR.validate(document)
    assert (document["format"], document["version"], document["files"]) == ("forktrace-fleet", 1, 8)
    line = document["lines"][2]
    assert {name: line[name] for name in ("line", "cause", "zombies", "since", "new")} == {
        "line": "consumer.py:33 consume",
        "cause": "join",
        "zombies": 8,
        "since": "2023-11-14",
        "new": False,
    }
    assert [one["host"] for one in line["hosts"]] == ["web-1", "web-2"]
    assert [one["host"] for one in document["hosts"]] == ["db", "web-1", "web-2"]


def test_the_picture(answer: Answer) -> None:
    """A bar per line, its causes side by side; beside it the days."""
    from matplotlib.figure import Figure

    figure = Figure()
    ax = picture.plot_lines(answer, figure.add_subplot(121))
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        *("consumer.py:50 consume", "consumer.py:33 consume", "consumer.py:70 consume"),
    ]
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(answer.lines["zombie_ms"].sum() / 1000)
    days = picture.plot_days(answer, figure.add_subplot(122)).images[0].get_array()
    assert days.shape == (3, 3)
    assert days.sum() == pytest.approx(answer.days["zombie_ms"].sum() / 1000)
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["11-14", "11-15", "11-16"]


def test_a_line_that_is_not_known(tmp_path: Path) -> None:
    """Has a row of its own, in words, JSON and picture."""
    rows = [target(), ev.fork(MS, 500, by=100), ev.exit_(2 * MS, 500, parent=100), ev.zombie(2 * MS, 500, parent=100)]
    dataset.write(recording(*rows, ev.reap(99 * MS, 500, by=100)), tmp_path)
    found = ask(tmp_path)
    assert "(line not known)" in printed(found)
    document = json.loads(words.as_json(found))
    VALIDATOR.validate(document)
    assert document["lines"][0]["line"] is None
    assert not VALIDATOR.is_valid(document | {"lines": [{**document["lines"][0], "since": 1}]})
    picture.write_fleet(found, io.BytesIO(), "svg")


def test_names_steer_no_screen(tmp_path: Path) -> None:
    """Hosts and lines come from files: what cannot be seen is an escape."""
    evil = "\x1b]0;x\x07"
    rows = [target(), *work(500, 10, 20, 90, function=evil)]
    dataset.write(recording(*rows, host=evil), tmp_path)
    found = ask(tmp_path)
    for text in (printed(found, 120), words.as_json(found)):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert r"\x1b]0;x\x07" in printed(found, 120)


# Bad input


def test_a_half_written_file_is_left_out(tmp_path: Path) -> None:
    """And named; the answer is that of the other files."""
    write_fleet(tmp_path, HOSTS)
    whole = ask(tmp_path, Question(hosts=["db", "web-1"]), LAST_DAY)
    for path in tmp_path.rglob("host=web-2/*.parquet"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        path.rename(path.with_name(f"\x1b[2J{path.name}"))
    found = ask(tmp_path, today=LAST_DAY)
    pd.testing.assert_frame_equal(found.places, whole.places)
    assert len(found.remarks) == 2
    assert all("host=web-2" in one and one.isprintable() for one in found.remarks)
    assert len(found.files) == 6


def test_a_damaged_file_is_told_of_once(tmp_path: Path) -> None:
    """By its path and what to do with it, without what a library says of it."""
    write_fleet(tmp_path, HOSTS)
    path = next(tmp_path.rglob("host=web-2/*.parquet"))
    path.write_bytes(b"PAR1")
    (said,) = ask(tmp_path, today=LAST_DAY).remarks
    assert said == f"{path}: left out, as it is damaged or half-written: export it again, or delete it"


def test_damage_within_a_file(tmp_path: Path) -> None:
    """A file whose end is whole and whose pages are not is left out too, and counts nowhere."""
    write_fleet(tmp_path, HOSTS)
    path = next(tmp_path.rglob("host=web-2/*.parquet"))
    data = bytearray(path.read_bytes())
    data[4:-6000] = bytes(len(data) - 6004)
    path.write_bytes(data)
    found = ask(tmp_path, today=LAST_DAY)
    assert len(found.files) == 7
    assert "host=web-2" in found.remarks[0]


def test_only_damaged_files(tmp_path: Path) -> None:
    """Nothing is left to tell of, which is one line."""
    write_fleet(tmp_path, {"web": {0: []}})
    next(tmp_path.rglob("*.parquet")).write_bytes(b"")
    with pytest.raises(UsageError, match="no file of these days and hosts can be read") as refused:
        ask(tmp_path)
    assert refused.value.hint == "each is damaged or half-written: export it again, or delete it"


def test_hosts_with_different_formats(tmp_path: Path, answer: Answer) -> None:
    """Files of an older and a newer format are read beside ours, as if they had been ours."""
    write_fleet(tmp_path, HOSTS)
    for path in tmp_path.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        if path.parent.name == "host=db":
            pq.write_table(table.drop_columns(["helper", "written_time", "awaited"]), path)
        if path.parent.name == "host=web-1":
            pq.write_table(table.append_column("mood", pa.array(["good"] * len(table))), path)
    found = ask(tmp_path, today=LAST_DAY)
    pd.testing.assert_frame_equal(found.lines, answer.lines)
    assert not found.remarks


def test_a_column_of_another_kind(tmp_path: Path) -> None:
    """A file in which a column means something else is left out, and named."""
    write_fleet(tmp_path, HOSTS)
    path = next(tmp_path.rglob("host=db/*.parquet"))
    table = pq.ParquetFile(path).read()
    place = table.schema.get_field_index("zombie_ms")
    pq.write_table(table.set_column(place, "zombie_ms", pa.array(["long"] * len(table))), path)
    found = ask(tmp_path, today=LAST_DAY)
    assert len(found.files) == 7
    assert "host=db" in found.remarks[0]


@pytest.mark.parametrize(("hours", "words_"), [(24, "the clock is behind"), (-24, "the clock is ahead"), (0.9, "")])
def test_a_clock_that_is_off(tmp_path: Path, hours: float, words_: str) -> None:
    """A host whose files name another time than the store is warned of, once for all of its files."""
    write_fleet(tmp_path, {"web": {0: [], 1: []}, "db": {0: []}})
    for path in tmp_path.rglob("host=web/*.parquet"):
        at = path.stat().st_mtime + hours * 3600
        os.utime(path, (at, at))
    said = ask(tmp_path).remarks
    assert len(said) == bool(words_)
    if words_:
        assert said[0].startswith("the files of web (24 h) name another time than the store:")
        assert words_ in said[0]


def test_a_day_made_one_file_says_nothing_of_clocks() -> None:
    """It was written later, and by nobody's host."""
    hosts = pd.DataFrame({"host": ["web"], "written": [pd.Timestamp("2026-01-01", tz="UTC")]})
    files = [File("x/day.parquet", date(2026, 1, 1), "web", 1, datetime(2026, 3, 1, tzinfo=UTC))]
    assert clock_remarks(hosts, files) == []


def test_nothing_of_these_days(fleet: Path) -> None:
    """Is one line, which says what there is."""
    with pytest.raises(UsageError, match="no file of these days and hosts") as refused:
        ask(fleet, Question(since=date(2030, 1, 1)))
    assert refused.value.hint == "it has 2023-11-14 to 2023-11-16"


def test_a_host_that_there_is_not(fleet: Path, tmp_path: Path) -> None:
    """The first of those that there are are named, and how many more there are; their names steer no screen."""
    with pytest.raises(UsageError, match="no file of these days and hosts") as refused:
        ask(fleet, Question(hosts=["nobody"]))
    assert refused.value.hint == "it has 2023-11-14 to 2023-11-16, of 3 hosts: db, web-1 and web-2"
    write_fleet(tmp_path, {f"\x1bweb-{one}": {0: []} for one in range(7)})
    with pytest.raises(UsageError) as refused:
        ask(tmp_path, Question(hosts=["nobody"]))
    assert refused.value.hint.endswith(r", of 7 hosts: \x1bweb-0, \x1bweb-1, \x1bweb-2 and 4 more")


def test_a_host_that_is_not_in_a_file_of_several(fleet: Path, tmp_path: Path) -> None:
    """Is told of alike: only the rows of such a file name hosts."""
    day = tmp_path / dataset.TABLE / f"date={FIRST_DAY}"
    day.mkdir(parents=True)
    pq.write_table(forktrace.dataset(fleet).to_table().drop_columns(["date"]), day / "all.parquet")
    with pytest.raises(UsageError, match="no file of these days and hosts") as refused:
        ask(tmp_path, Question(hosts=["nobody"]))
    assert refused.value.hint == f"it has {FIRST_DAY} to {FIRST_DAY}"


def test_a_cause_that_there_is_not(fleet: Path, tmp_path: Path) -> None:
    """Is one line with those that there are; one of a user's own rules is known from the files."""
    with pytest.raises(UsageError, match="nxt-start: no such cause") as refused:
        ask(fleet, Question(causes=["never", "nxt-start"]))
    assert "next-start" in refused.value.hint
    none = ask(fleet, Question(causes=["pool"]))
    assert printed(none).startswith("no zombie of this cause lasted longer than 10 ms on 3 hosts")
    made = host_recording("web", 0, [Leak(33, 1, 50)])
    made.lifecycles()["reap_cause"] = pd.array([pd.NA, "reaper-of-ours"], dtype="string")
    dataset.write(made, tmp_path)
    assert ask(tmp_path, Question(causes=["reaper-of-ours"])).lines["zombies"].tolist() == [1]


def test_without_duckdb(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what to install."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MachineLacks, match="duckdb is not installed") as refused:
        ask(fleet)
    assert "forktrace[fleet]" in refused.value.hint


def test_no_extension_is_fetched(fleet: Path) -> None:
    """DuckDB may neither install nor load any by itself: it reads what pyarrow hands it."""
    program = (
        "import socket, sys; sys.addaudithook(lambda name, told: name.startswith('socket.connect') and sys.exit(9))\n"
        "from forktrace.fleet import question\n"
        "made = question._connect()\n"
        f"question.ask({str(fleet)!r})\n"
        "said = \"name like 'auto%known_extensions' and value = 'false'\"\n"
        "print(made.sql(f'select count(*) from duckdb_settings() where {said}').fetchall())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[(2,)]\n"


# The commands


def fleet_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run forktrace as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "forktrace", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_export_then_fleet(tmp_path: Path) -> None:
    """A recording is added to a dataset, and the fleet is asked: data on stdout, words on stderr."""
    added = fleet_command("export", "tests/data/kafka.arrows", "--hive", str(tmp_path / "fleet"))
    assert added.returncode == 0
    assert added.stderr.startswith(f"wrote {tmp_path}/fleet/table=lifecycles/date=2026-11-23/host=")
    asked = fleet_command("fleet", str(tmp_path / "fleet"), "--format", "json", "-o", str(tmp_path / "x.svg"))
    assert json.loads(asked.stdout)["lines"][0]["line"] == "consumer.py:55 consume_task"
    assert asked.stderr == f"wrote {tmp_path}/x.svg\n"
    assert "consumer.py:55" in (tmp_path / "x.svg").read_text() or (tmp_path / "x.svg").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["fleet", "tests/data"], 2, "forktrace: tests/data: not a dataset: there is no table=lifecycles in it\n"),
        (["fleet", "nowhere"], 2, "forktrace: nowhere: not a dataset"),
        (["fleet", "x", "--since", "soon"], 2, "'soon' is not a day such as 2026-11-29, yesterday or 7d."),
        (["fleet", "x", "--since", "today", "--until", "2d"], 2, "is before --since"),
        (["fleet", "x", "-o", "x.gif"], 2, "x.gif: "),
        (["fleet", "ftp://x/y"], 2, "ftp://x/y: not a directory or an s3:// URL"),
        (["export", "tests/data/kafka.arrows", "--hive", "x", "-o", "y"], 2, "--hive writes the lifecycles of a whole"),
        (["export", "tests/data/kafka.arrows", "--hive", "x", "--of", "1"], 2, "--hive writes the lifecycles of a whole"),
        (["export", "tests/data/kafka.arrows", "--drop", "none"], 2, "--drop is for --otlp and --hive"),
        (["export", "tests/data/kafka.arrows", "--hive", "README.md"], 1, "forktrace: README.md/table=lifecycles/date="),
    ],
)
def test_what_cannot_be(arguments: list[str], status: int, said: str) -> None:
    """One line and a status of the docs."""
    done = fleet_command(*arguments)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not done.stdout


def test_an_export_that_is_ahead_is_told(tmp_path: Path) -> None:
    """The warning comes with the file: it is written all the same."""
    from forktrace.trace import stream

    path = tmp_path / "x.arrows"
    tomorrow_ns = int(datetime.now(UTC).timestamp()) * 10**9 + DAY_NS
    made = host_recording("web", clock_offset_ns=tomorrow_ns)
    with path.open("wb") as file:
        writer = stream.Writer(file, made.header)
        writer.write(stream.batch_of([target(), ev.end(MS)]))
        writer.close()
    done = CliRunner().invoke(cli, ["export", str(path), "--hive", str(tmp_path / "fleet")])
    assert done.exit_code == 0
    assert "the clock of web is ahead" in done.stderr
    assert "wrote" in done.stderr


def test_days() -> None:
    """A day is a date, a word, or so many days ago, in UTC."""
    today = datetime.now(UTC).date()
    day = Day()
    said = [day.convert(text, None, None) for text in ("today", "yesterday", "7d", "2026-11-29")]
    assert said == [today, today - timedelta(days=1), today - timedelta(days=7), date(2026, 11, 29)]


def kafka_fleet(folder: Path) -> Path:
    """Return the dataset of three hosts that recorded the same on the same day, one of them as two programs."""
    import forktrace

    made = forktrace.read(ROOT / "tests/data/kafka.arrows")
    for host, recorder in (("web/1", 1), ("web-2", 1), ("web-2", 2)):
        made.header.update(host=host, recorder_pid=recorder)
        dataset.write(made, folder)
    return folder


def test_a_day_made_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The COPY of docs/scale.md makes one file of a day, which takes its place; what is told of its lines stays."""
    import duckdb

    monkeypatch.chdir(tmp_path)
    before = ask(kafka_fleet(tmp_path / "fleet"))
    day = Path("compact/table=lifecycles/date=2026-11-23")
    day.mkdir(parents=True)
    text = (ROOT / "docs" / "scale.md").read_text()
    assert f"mkdir -p {day}" in text
    duckdb.sql(re.search(r"```sql\n(.*?)```", text, re.DOTALL)[1])
    old = Path("fleet/table=lifecycles/date=2026-11-23")
    old.rename("old")
    day.rename(old)
    after = ask("fleet")
    assert (len(before.files), len(after.files)) == (3, 1)
    for name in ("lines", "places", "days"):
        pd.testing.assert_frame_equal(getattr(before, name), getattr(after, name))
    assert ask("fleet", Question(hosts=["web/?"])).hosts["host"].tolist() == ["web/1"]
    assert not after.remarks


def test_the_questions_of_the_docs(tmp_path: Path) -> None:
    """Each select of docs/scale.md runs, on the dataset as it names it."""
    import duckdb

    import forktrace

    processes = forktrace.dataset(kafka_fleet(tmp_path))
    selects = re.findall(r"^\| [^|]+ \| `(select [^`]+)` \|$", (ROOT / "docs" / "scale.md").read_text(), re.MULTILINE)
    assert len(selects) >= 5
    with duckdb.connect() as made:
        made.register("processes", processes)
        found = [made.sql(select).fetchall() for select in selects]
    assert any(found)


def test_the_query_of_the_docs_counts_as_fleet_does(tmp_path: Path) -> None:
    """The first query of docs/scale.md finds the zombies of `fleet`, and leaves aside the same."""
    import duckdb

    import forktrace

    dataset.write(mostly_left_aside(), tmp_path)
    dataset.write(forktrace.read(ROOT / "tests/data/methods.arrows"), tmp_path)
    text = re.search(r'duckdb\.sql\("""(.*?)limit 10', (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)[1]
    with duckdb.connect() as made:
        made.register("processes", forktrace.dataset(tmp_path))
        rows = made.sql(text.replace("date '2026-11-01'", "date '2023-11-01'")).df()
    places = ask(tmp_path).places
    assert sorted(rows["zombies"]) == sorted(places["zombies"])
    assert sorted(rows["seconds"]) == pytest.approx(sorted(places["zombie_ms"] / 1000))


def test_the_query_for_what_an_ended_parent_had_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds how long a child was a zombie until its parent ended, as `fleet` counts it, and no child that exited later."""
    import duckdb

    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.fork(12 * MS, 501, by=100), ev.exit_(20 * MS, 500, parent=100)]
    rows += [ev.zombie(20 * MS, 500, parent=100), ev.exit_(70 * MS, 100, parent=50, adopter=1)]
    rows += [ev.exit_(80 * MS, 501, parent=1), ev.zombie(80 * MS, 501, parent=1)]
    rows += [ev.reap(95 * MS, 501, by=1), ev.reap(95 * MS, 500, by=1)]
    dataset.write(recording(*rows), tmp_path / "fleet")
    monkeypatch.chdir(tmp_path)
    query = re.findall(r'duckdb\.sql\("""(.*?)"""', (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)[1]
    assert [row[2:] for row in duckdb.sql(query).fetchall()] == [(1, 0.05)]
    assert ask("fleet").lines[["zombies", "zombie_ms"]].values.tolist() == [[1, 50]]


def test_every_column_of_the_dataset_is_described() -> None:
    """docs/scale.md has a row for each column that a file adds to those of lifecycles."""
    text = (ROOT / "docs" / "scale.md").read_text()
    assert all(f"| `{name}` |" in text for name in columns.SCHEMA.names if name not in columns.COLUMNS)
