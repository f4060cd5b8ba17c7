"""What pages say, read in a browser, beside what `why` says."""

from __future__ import annotations

import json
from pathlib import Path

from browser import Browser

from forktrace.analysis.recording import Recording
from forktrace.views.pictures.page import write_page
from forktrace.views.why.chain import Chains

TEXTS = "[...document.querySelectorAll('{}')].map(each => each.textContent)"
CHAIN = f"[document.querySelector('#one h2').textContent, ...{TEXTS.format('#one .lines > *')}]"


def written(made: Recording, folder: Path) -> Path:
    """Return the page of a recording."""
    path = folder / "page.html"
    write_page(made, path)
    return path


def told(window: Browser, ids: list[int]) -> list[list[str]]:
    """Return what the page says of processes, each chosen by its link."""
    script = (
        "(async () => { const found = []; for (const id of IDS) {"
        " const turned = new Promise(done => addEventListener('hashchange', done, { once: true }));"
        " location.hash = `#p=${id}`; await turned; found.push(CHAIN); } return found; })()"
    )
    return list(window.ask(script.replace("IDS", json.dumps(ids)).replace("CHAIN", CHAIN)))


def expected(chains: Chains, row: int) -> list[str]:
    """Return the same from `why`."""
    headline, *lines = chains.lines(row)
    parts = [(line.mark, line.text + (f"   {line.source}" if line.source else "")) for line in lines]
    return [headline.text, *(part for pair in parts for part in pair)]


def check(window: Browser, made: Recording, folder: Path, every: int = 1) -> None:
    """Every process, or each so many, is told of as `why` tells."""
    window.open(written(made, folder))
    table = made.lifecycles()
    chains, rows = Chains(made, table), range(0, len(table), every)
    ids = table["id"].tolist()
    for first in range(0, len(rows), 100):
        some = rows[first : first + 100]
        assert told(window, [ids[row] for row in some]) == [expected(chains, row) for row in some]
