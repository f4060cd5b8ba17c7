"""What is said of causes, remedies, exits and stacks: the texts of explanations.toml."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pandas as pd

from forktrace.analysis.causes.names import printable

_FILE: Final = Path(__file__).with_name("explanations.toml")
_OBJECT: Final = (  # what a source line calls the child that it makes: `p.start()`, `p = Popen(...)`
    re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)\.start\("),
    re.compile(r"^\s*([A-Za-z_][\w.]*)\s*=[^=].*(?:Popen|create_subprocess_\w+|fork|posix_spawnp?)\("),
)


class Cause(NamedTuple):
    """What is said of a cause; `fix` None: what helps depends on what made the child.

    Instead of `fix`: `fix_of` by what made the child, `fix_nohang` of a wait with WNOHANG, `fix_inside` of an orphan whose
    adopter is recorded.
    """

    short: str
    why: str
    at_end: str = ""
    late: str = ""
    fix: Sequence[str] | None = None
    at: str = "fork"
    accident: bool = False
    fix_of: Mapping[str, Sequence[str]] = MappingProxyType({})
    fix_nohang: Sequence[str] = ()
    fix_inside: Sequence[str] = ()


class Delay(NamedTuple):
    """What is said of a reap that did not come at once, instead of a cause's `late` and its remedies; `fix` "": those stay.

    `why`: instead of the cause's own sentence too. `unless`: when none of the remedies is needed.
    """

    late: str = ""
    fix: str = ""
    why: str = ""
    unless: str = ""


class Creator(NamedTuple):
    """What is said of what made a child."""

    owner: str
    it: str
    fix: Sequence[str]


@functools.cache
def texts() -> Mapping[str, Any]:
    """Return explanations.toml."""
    return tomllib.loads(_FILE.read_text())


def cause(name: str) -> Cause:
    """Return what is said of a cause; one that is not in the table comes from a user's own rules."""
    known = texts()["cause"].get(name)
    return Cause(**known) if known else Cause(printable(name), "a rule of your own names it so", fix=[])


def delay(name: str) -> Delay:
    """Return what is said of a delay."""
    return Delay(**texts()["delay"][name])


def creator(name: str) -> Creator:
    """Return what is said of a child that `name` made: one of `created_by`, of a user's own rules too, or `orphan`."""
    known = texts()["creator"].get(name)
    return Creator(**known) if known else Creator(printable(name), "the child", [])


def package(name: str) -> str:
    """Return what users of an installed package can do themselves; "" where nothing is known."""
    return str(texts()["package"].get(name, {}).get("you-can", ""))


def remedy(name: str, **words: str) -> str:
    """Return what to do and, in brackets, what it costs."""
    found = texts()["remedy"][name]
    return f"{found['do']} ({found['cost']})".format(**words)


def object_of(source: str | None, otherwise: str) -> str:
    """Return what the source line of a fork calls the child: `p` of `p.start()`."""
    found = next((match[1] for each in _OBJECT if source and (match := each.search(source))), None)
    return otherwise if found is None else printable(found)


def not_walked(file: str, why: str) -> str:
    """Say of which interpreter there are no stacks, and why."""
    return f"stacks of {printable(file)} are not walked: {printable(why)}"


def no_stack(status: Any) -> str:
    """Return why there is no line, by the status of the stack; `<NA>`: stacks were not recorded."""
    return "recorded without stacks" if pd.isna(status) else str(texts()["stack-status"].get(status, "no line"))
