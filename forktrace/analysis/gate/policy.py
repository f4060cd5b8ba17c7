"""Limits and allowances of a project: `forktrace.toml`, or `[tool.forktrace.check]` of pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from forktrace.analysis.gate.limits import BY_NAME, Limit, parse
from forktrace.analysis.gate.verdict import Allowance
from forktrace.errors import UsageError

FILES: Final = {"forktrace.toml": ("check",), "pyproject.toml": ("tool", "forktrace", "check")}


class Policy(NamedTuple):
    """What a file says: its path, the limits, and what they do not count."""

    path: str = ""
    limits: Sequence[Limit] = ()
    allowances: Sequence[Allowance] = ()


def find_policy(folder: Path) -> Policy:
    """Return what the nearest file says, in `folder` or above, up to the top of its repository; else an empty one.

    Raises:
        UsageError: the file is not TOML, or has a key that is not known.
    """
    for place in (folder, *folder.parents):
        for name, tables in FILES.items():
            if (place / name).is_file() and (found := _table(place / name, tables)) is not None:
                return _policy(str(place / name), found)
        if (place / ".git").exists():
            break
    return Policy()


def _table(path: Path, tables: Sequence[str]) -> Mapping[str, Any] | None:
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    for name in tables:
        found = found.get(name) if isinstance(found, dict) else None
    if found is None or isinstance(found, dict):
        return found
    raise UsageError(f"{path}: [{'.'.join(tables)}] is not a table", 'as in max-zombie = "5s"')


def _policy(path: str, table: Mapping[str, Any]) -> Policy:
    if unknown := [key for key in table if key not in (*BY_NAME, "allow")]:
        raise UsageError(f"{path}: {unknown[0]}: there is no such key", f"one of {', '.join(BY_NAME)}, allow")
    try:
        limits = [parse(name, value) for name, value in table.items() if name != "allow"]
    except UsageError as error:
        raise UsageError(f"{path}: {error}", error.hint) from None
    return Policy(path, limits, _allowances(path, table.get("allow", [])))


def _allowances(path: str, found: Any) -> list[Allowance]:
    entries = found if isinstance(found, list) else [found]
    wrong = [one for one in entries if not _is_allowance(one)]
    if wrong:
        hint = 'as in allow = [{ site = "consumer.py consume_task", reason = "reaped by the next start" }]'
        raise UsageError(f"{path}: allow: each needs a site and a reason, and nothing else", hint)
    return [Allowance(one["site"], one["reason"]) for one in entries]


def _is_allowance(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"site", "reason"}:
        return False
    return all(isinstance(text, str) and text.strip() for text in entry.values())
