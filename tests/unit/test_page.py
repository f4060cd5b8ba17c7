"""The page as a file: what may act in it, what is in its data, and how a notebook shows it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import consumer, recording

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.views.pictures.packing import Packing
from forktrace.views.pictures.page import Page, page
from forktrace.views.zombies import without_recorder

ROOT = Path(__file__).parents[2]
KAFKA = ROOT / "tests/data/kafka.arrows"


def unpacked(text: str) -> tuple[dict[str, Any], bytes]:
    """Return what a page says of itself, and its planes of numbers."""
    data = re.search(r'id="data">([A-Za-z0-9+/=]+)</script>', text)
    assert data
    plain = gzip.decompress(base64.b64decode(data[1]))
    size = int.from_bytes(plain[:8], "little")
    return json.loads(plain[8 : 8 + size]), plain[8 + size :]


def numbers(facts: dict[str, Any], planes: bytes, name: str) -> list[float]:
    """Return a column as the page's script unpacks it."""
    about = facts["columns"][name]
    rows, part = about["rows"], planes[about["at"] : about["at"] + about["rows"] * about["planes"]]
    stored = [sum(part[plane * rows + row] << 8 * plane for plane in range(about["planes"])) for row in range(rows)]
    values = [np.nan if not one else (one - 1) // 2 if one % 2 else -one // 2 for one in stored]
    base = numbers(facts, planes, about["base"]) if about["base"] else [0.0] * rows
    return np.cumsum(values).tolist() if about["delta"] else [a + b for a, b in zip(base, values, strict=True)]


def test_only_its_own_script_may_run() -> None:
    """The policy forbids everything but the script and the style whose hashes it names: those of the page."""
    text = page(forktrace.read(KAFKA)).text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert inside
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert not rules


@pytest.mark.parametrize(
    "word", ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "fetch("]
)
def test_the_script_makes_no_elements_of_texts(word: str) -> None:
    """What comes from a trace gets into the page as text alone, and nothing is asked for."""
    assert word not in "".join(path.read_text() for path in (ROOT / "forktrace/views/pictures/script").glob("*.js"))


def test_the_data_are_those_of_the_tables() -> None:
    """Moments to the nanosecond, whatever column they are packed in relation to."""
    made = forktrace.read(KAFKA)
    facts, planes = unpacked(page(made).text)
    table = without_recorder(made.lifecycles())
    for name, column in (("fork", "fork_ns"), ("exit", "exit_ns"), ("zombie", "zombie_ns"), ("gone", "reap_ns")):
        expected = (table[column] - made.start_ns).to_numpy(float, na_value=np.nan)
        assert np.array_equal(numbers(facts, planes, name), expected, equal_nan=True)
    assert numbers(facts, planes, "id") == table["id"].tolist()
    assert numbers(facts, planes, "pid") == table["pid"].tolist()
    cleared = table["id"].to_numpy() - np.array(numbers(facts, planes, "cleared_by_id"))
    assert np.array_equal(cleared, table["cleared_by_id"].to_numpy(float, na_value=np.nan), equal_nan=True)


@pytest.mark.parametrize("values", [[], [0], [np.nan, 0, -1, 1, 127, 128, 2**50, -(2**50)], [5, 5, 5]])
@pytest.mark.parametrize("delta", [False, True])
def test_packing(values: list[float], delta: bool) -> None:
    """Every whole number that a float holds comes back, and one that is not known."""
    packing, column = Packing(), np.array([one for one in values if one == one] if delta else values, float)
    packing.add("x", column, delta=delta)
    facts, planes = unpacked(f'id="data">{packing.base64()}</script>')
    assert np.array_equal(numbers(facts, planes, "x"), column, equal_nan=True)


def test_equal_columns_are_there_once() -> None:
    """Two that are alike share their bytes."""
    packing = Packing()
    for name in ("a", "b"):
        packing.add(name, np.arange(1000))
    facts, planes = unpacked(f'id="data">{packing.base64()}</script>')
    assert len(planes) == 2000
    assert numbers(facts, planes, "a") == numbers(facts, planes, "b")


def test_the_same_recording_the_same_page() -> None:
    """Byte for byte: nothing in it tells when it was made."""
    made = recording(*consumer(4))
    assert page(made).text == page(made).text


def test_a_part_names_those_outside() -> None:
    """Who cleared a process that is shown has a name, also if it is not shown."""
    made = forktrace.read(KAFKA)
    part: Recording = made.between(made.start_ns + 3_600_000_000, made.start_ns + 4_000_000_000)
    facts, _ = unpacked(page(part).text)
    assert facts["rows"] == 2
    assert facts["others"] == {"2": "28960", "4": "29404"}
    assert facts["summary"][2][0].startswith("Only a part is shown: 2 of 10 processes")


def test_an_empty_recording() -> None:
    """It is a page that says so."""
    facts, _ = unpacked(page(recording()).text)
    assert facts["rows"] == 0
    assert facts["summary"][0][0].startswith("Nothing was recorded")


def test_a_notebook_shows_it_in_a_frame() -> None:
    """The frame may run the page's script and nothing else."""
    made = recording(*consumer(4), command=["<b>"])
    shown: str = Page(made)._repr_html_()
    inside = re.search(r'srcdoc="([^"]*)"', shown)
    assert inside
    assert html.unescape(inside[1]) == Page(made).text
    assert 'sandbox="allow-scripts"' in shown
    assert forktrace.read(KAFKA).page().text == page(forktrace.read(KAFKA)).text


def test_the_committed_page_is_that_of_its_recording() -> None:
    """docs/kafka.html is what `forktrace page kafka.arrows` writes now, but for how zlib packs it."""
    committed = (ROOT / "docs/kafka.html").read_text()
    made = Page(forktrace.read(KAFKA), "kafka.arrows").text
    assert unpacked(committed) == unpacked(made)
    assert committed.partition('id="data">')[0] == made.partition('id="data">')[0]
