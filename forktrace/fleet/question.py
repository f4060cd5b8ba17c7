"""Which lines on which hosts leave how much zombie time: asked of DuckDB, which reads the files through pyarrow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd
import pyarrow as pa

from forktrace.analysis.causes.rules import CAUSES
from forktrace.errors import UsageError, package_missing
from forktrace.fleet.columns import SCHEMA
from forktrace.fleet.dataset import File, damaged, find, over
from forktrace.fleet.store import Store, explained, store_at
from forktrace.trace.words import NOTICEABLE_MS, about, count, printable
from forktrace.views.words import some

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CLOCK_OFF: Final = timedelta(hours=1)  # a store's times may differ by so much without a word
_AT_ONCE: Final = 64  # files whose descriptions are held, 160 kB each
_WORST: Final = 4  # hosts that a line's row names
_DAMAGED: Final = "damaged or half-written: export it again, or delete it"
_OWN_NAME: Final = re.compile(r"-[0-9]+-[0-9]+\.parquet$")  # of a file as a host wrote it, not one made of several

# Of all processes: those of which `report` tells as zombies by line and cause, and the others, `told` false, as numbers.
_FOUND: Final = f"""
create temp table found as
with processes as (
    select *, coalesce(
        own_ms >= {NOTICEABLE_MS} and helper is null and reap_cause is distinct from 'recorder', false) as told
    from (select *, coalesce(own_zombie_ms, case  -- files of the first versions do not have it
        when reap_call is distinct from 'unseen' and not coalesce(reap_cause = 'parent-exit' and reaper_id is null, false)
        then zombie_ms end) as own_ms from files)
    where $hosts = [] or len(list_filter($hosts, lambda pattern: host glob pattern)) > 0)
select
    told, host, date, case when told then start_site end as line,
    case when told then coalesce(reap_cause, 'unknown') end as cause,
    count(*) as processes, count(*) filter (not complete) as incomplete, count(*) filter (zombie_open) as still,
    sum(own_ms) as zombie_ms, max(own_ms) as longest_ms, max(written_time) as written
from processes group by all
"""
_COLUMNS: Final = (
    *("host", "date", "written_time", "start_site", "reap_cause", "reap_call", "reaper_id"),
    *("zombie_ms", "own_zombie_ms", "zombie_open", "helper", "complete"),
)
_PART: Final = pa.schema([SCHEMA.field(name) for name in _COLUMNS])
_FIGURES: Final = """
    sum(zombies)::bigint as zombies, sum(still)::bigint as still, sum(zombie_ms) as zombie_ms, max(longest_ms) as longest_ms
"""
_ZOMBIES: Final = """
create temp table zombies as
select * exclude (told, processes, incomplete, written), processes as zombies
from found where told and ($causes = [] or list_contains($causes, cause))
"""
_PLACES: Final = f"""
create temp table places as
select line, cause, host, {_FIGURES}, min(date) as since, max(date) as last from zombies group by all
"""
_HOSTS: Final = """
select
    host, min(date) as first_day, max(date) as last_day, sum(processes)::bigint as processes,
    sum(incomplete)::bigint as incomplete, max(written) as written
from found group by host order by host
"""
_LINES: Final = f"""
with known as (select host, min(date) < $yesterday as known from found group by host)
select
    line, cause, count(*) as hosts, {_FIGURES}, min(since) as since, max(last) as last,
    list(host order by zombie_ms desc, host)[:{_WORST}] as worst,
    case when (select bool_or(known) from known) then min(since) >= $yesterday end as new,
    count(*) filter (known and since >= $yesterday) as new_hosts
from places join known using (host) group by line, cause order by zombie_ms desc, line, cause
"""
_DAYS: Final = f"select line, cause, date, {_FIGURES} from zombies group by all order by date, zombie_ms desc, line, cause"
_TYPES: Final = {pa.string(): pd.StringDtype(), pa.bool_(): pd.BooleanDtype()}


class Question(NamedTuple):
    """What is asked: days (both included; None: open), hosts (`web-*` too; empty: all) and causes (empty: all)."""

    since: date | None = None
    until: date | None = None
    hosts: Sequence[str] = ()
    causes: Sequence[str] = ()


_ALL: Final = Question()


class Answer(NamedTuple):
    """What is known of a fleet's zombies. Days are those on which files begin, in UTC.

    lines   a row per line and cause, that with most zombie time first: line (<NA>: not known), cause, hosts (how many),
            zombies, still (at the end of their recording), zombie_ms, longest_ms, since, last, worst (the hosts with most
            zombie time), new (since yesterday; <NA>: nothing from before was read), new_hosts (on how many it is, of those
            known from before)
    places  a row per line, cause and host, with the same figures
    days    a row per line, cause and day, with the same figures
    hosts   a row per host: first_day, last_day, processes, incomplete (an event was lost, or inferred), written (when, it says)
    files   those that were read
    question what was asked
    remarks what a reader has to know of the files
    """

    lines: pd.DataFrame
    places: pd.DataFrame
    days: pd.DataFrame
    hosts: pd.DataFrame
    files: list[File]
    question: Question
    remarks: list[str]


def ask(url: str | os.PathLike[str], question: Question = _ALL, today: date | None = None) -> Answer:
    """Return what the dataset at `url` says of the zombies of its hosts.

    Files that are damaged are left out, which `remarks` says. `today` is the day from which yesterday is counted where the
    question has no last day; None: it is today, in UTC.

    Raises:
        UsageError: it is not a dataset, or has no file of these days and hosts, or there is no such cause.
        MachineLacks: the package duckdb is not installed.
        PermissionMissing, ForktraceError: it cannot be reached.
    """
    store = store_at(url)
    files = [one for one in find(store, question.since, question.until) if _is_asked(one, question)]
    if not files:
        raise _none_asked(store, question)
    connection = _connect()
    broken = _gather(connection, store, files, question)
    read = [one for one in files if one not in broken]
    if not read:
        raise UsageError(f"{store.shown}: no file of these days and hosts can be read", f"each is {_DAMAGED}")
    _check_causes(connection, question)
    last_day = question.until or today or datetime.now(UTC).date()
    connection.execute(_ZOMBIES, {"causes": list(question.causes)})
    connection.execute(_PLACES)
    lines = _table(connection, _LINES, {"yesterday": last_day - timedelta(days=1)})
    places = _table(connection, "select * from places order by zombie_ms desc, host, line, cause")
    hosts = _table(connection, _HOSTS)
    if hosts.empty and question.hosts:  # where files are made of several, only their rows name hosts
        raise _none_asked(store, question)
    remarks = [
        *(f"{printable(store.show(one.path))}: left out, as it is {_DAMAGED}" for one in files if one in broken),
        *clock_remarks(hosts, read),
    ]
    return Answer(lines, places, _table(connection, _DAYS), hosts, read, question, remarks)


def _check_causes(connection: DuckDBPyConnection, question: Question) -> None:
    """Make sure that each cause that is asked for exists: as one of ours, or in a file, by a user's own rules."""
    there = {*CAUSES, *_table(connection, "select distinct cause from found where told")["cause"]}
    if unknown := [one for one in question.causes if one not in there]:
        raise UsageError(f"{unknown[0]}: no such cause", f"there are {', '.join(sorted(there))}")


def _is_asked(file: File, question: Question) -> bool:
    return not question.hosts or file.host is None or any(fnmatchcase(file.host, one) for one in question.hosts)


def _none_asked(store: Store, question: Question) -> UsageError:
    """Return the error that nothing is of these days and hosts, with what there is."""
    files = find(store)
    days, hosts = sorted({one.day for one in files}), sorted({one.host for one in files if one.host is not None})
    there = f"it has {days[0]} to {days[-1]}" if days else "it has none at all"
    if question.hosts and hosts:
        there += f", of {count(len(hosts), 'host')}: {some([printable(one) for one in hosts[:4]], len(hosts))}"
    return UsageError(f"{store.shown}: has no file of these days and hosts", there)


def _connect() -> DuckDBPyConnection:
    try:
        import duckdb
    except ImportError:
        raise package_missing("duckdb", "fleet") from None
    return duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})


def _gather(connection: DuckDBPyConnection, store: Store, files: list[File], question: Question) -> set[File]:
    """Make the table `found`, and return the files that had to be left out."""
    broken: set[File] = set()
    while True:
        failed: list[Exception] = []
        reader = pa.RecordBatchReader.from_batches(_PART, _rows(store, [one for one in files if one not in broken], failed))
        connection.register("files", reader)
        try:
            connection.execute(_FOUND, {"hosts": list(question.hosts)})
        except Exception as error:
            more = damaged(store, files, _COLUMNS) if failed else set()
            if more <= broken:
                with explained(store):
                    raise (failed or [error])[0] from None
            broken = more
        else:
            return broken


def _rows(store: Store, files: Sequence[File], failed: list[Exception]) -> Iterator[pa.RecordBatch]:
    """The rows of the files, of a few at a time: as long as a dataset is there, pyarrow keeps the description of each file."""
    try:
        for first in range(0, len(files), _AT_ONCE):
            yield from over(store, files[first : first + _AT_ONCE]).scanner(columns=_PART.names).to_batches()
    except (OSError, pa.ArrowException) as error:
        failed.append(error)
        raise


def _table(connection: DuckDBPyConnection, statement: str, values: Mapping[str, Any] | None = None) -> pd.DataFrame:
    table: pd.DataFrame = connection.sql(statement, params=values).to_arrow_table().to_pandas(types_mapper=_TYPES.get)
    return table


def clock_remarks(hosts: pd.DataFrame, files: Sequence[File]) -> list[str]:
    """Return remarks on hosts whose files name another time of writing than the store does."""
    stored: dict[str | None, datetime] = {}
    for one in files:
        if one.written is not None and _OWN_NAME.search(one.path):
            stored[one.host] = max(stored.get(one.host, one.written), one.written)
    off: dict[str, list[str]] = {}
    for host, written in zip(hosts["host"], hosts["written"], strict=True):
        if host not in stored or pd.isna(written):
            continue
        if abs(behind := stored[host] - written) > _CLOCK_OFF:
            words = "the clock is behind, or they were copied" if behind > timedelta(0) else "the clock is ahead"
            off.setdefault(words, []).append(f"{printable(host)} ({about(abs(behind).total_seconds())})")
    return [f"the files of {some(names[:4], len(names))} name another time than the store: {why}" for why, names in off.items()]
