"""The page in a headless Chromium without network: what it says is what `why` and the report say, and it obeys its reader."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser
from pages import TEXTS, check, told, written
from traces import child, consumer, recording, target

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.views.text import report

pytestmark = pytest.mark.browser

DATA = Path(__file__).parents[1] / "data"
HEADLINE = "document.querySelector('#one h2')?.textContent ?? ''"
FOUND = "document.getElementById('found').textContent"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all tests; none of them may leave a complaint on its console, or ask for anything but its page."""
    with browser() as made:
        yield made
        assert made.said == []
        assert [url for url in made.requests if not url.startswith(("file://", "about:"))] == []


@pytest.fixture
def kafka(window: Browser, tmp_path: Path) -> Browser:
    """A window with the page of the Kafka consumer."""
    window.open(written(forktrace.read(DATA / "kafka.arrows"), tmp_path))
    return window


def test_it_says_what_why_says(window: Browser, tmp_path: Path) -> None:
    """Of each process of the Kafka consumer: the headline, the moments, the sentences, the source lines."""
    check(window, forktrace.read(DATA / "kafka.arrows"), tmp_path)


def test_it_says_what_the_report_says(kafka: Browser) -> None:
    """The summary, and each section with its lines or its table."""
    made = forktrace.read(DATA / "kafka.arrows")
    shown = kafka.ask(TEXTS.format("#summary p"))
    assert shown == [line.plain for line in report.summary(made)]
    findings = {one.title: one.content for one in report.sections(made)}["What happened"]
    assert kafka.ask(TEXTS.format("#findings p")) == [one.text.plain for one in findings]
    for _, title, content in report.sections(made):
        assert title in kafka.ask(TEXTS.format("#sections h2"))
        text = kafka.ask("document.getElementById('sections').textContent")
        cells = (
            [cell for row in content.rows for cell in row] if hasattr(content, "rows") else [one.text.plain for one in content]
        )
        assert [cell for cell in cells if cell.strip() not in text] == []


def middle(window: Browser, row: int) -> tuple[float, float]:
    """Return the place of the running part of the bar in a row; the first process runs from the start to the end."""
    left, top, _, _ = window.place("#bars")
    return left + 168 + 60, top + 2 + 20 * row + 10


def test_hover_and_click(kafka: Browser) -> None:
    """The pointer shows who it is over, a click explains it, Escape lets go."""
    x, y = middle(kafka, 0)
    kafka.mouse("mouseMoved", x, y)
    kafka.frames()
    tip = kafka.ask("document.getElementById('tip').textContent")
    assert tip.startswith("28693 python")
    assert "ran 8.785 s, exited 0" in tip
    kafka.click(x, y)
    assert kafka.ask(HEADLINE).startswith("28693 is the command itself")
    kafka.press("Escape")
    assert kafka.ask(HEADLINE) == ""


def span(window: Browser) -> float:
    """Return how many seconds are in view, by the link, which the page keeps after a moment."""
    window.wait("location.hash.includes('t=')")
    return float(window.ask("(([a, b]) => b - a)(location.hash.match(/t=([-0-9.,]+)/)[1].split(',').map(Number))"))


def test_zoom_and_pan(kafka: Browser) -> None:
    """The wheel zooms around the pointer, a drag moves, keys do both, 0 shows the whole again."""
    x, y = middle(kafka, 2)
    kafka.mouse("mouseWheel", x, y, deltaX=0, deltaY=-300)
    kafka.frames()
    first = span(kafka)
    assert 3 < first < 6
    kafka.mouse("mousePressed", x, y, button="left", clickCount=1)
    kafka.mouse("mouseMoved", x - 100, y, button="left", buttons=1)
    kafka.mouse("mouseReleased", x - 100, y, button="left", clickCount=1)
    kafka.frames()
    assert kafka.ask(HEADLINE) == ""  # a drag is no click
    before = kafka.ask("location.hash")
    kafka.wait(f"location.hash !== {json.dumps(before)} || true")
    kafka.press("+", "+")
    kafka.wait(f"(([a, b]) => b - a)(location.hash.match(/t=([-0-9.,]+)/)[1].split(',').map(Number)) < {first * 0.7}")
    kafka.press("0", "0")
    kafka.wait("!location.hash.includes('t=')")


def test_search_sort_and_step(kafka: Browser) -> None:
    """`/` searches numbers, lines, commands and causes; the heads of the table sort; n and p step through what is found."""
    kafka.press("/", "/")
    kafka.type("next-start consume_task")
    kafka.wait(f"{FOUND} === '8 of 10 processes'")
    kafka.ask("document.getElementById('search').blur()")
    kafka.press("n", "n")
    assert kafka.ask(HEADLINE).startswith("28766 was a zombie for 1.208 s")
    left, top, width, height = kafka.place("#heads th[data-column=lasted] button")
    kafka.click(left + width / 2, top + height / 2)
    first = "document.querySelector('#cells button').textContent"
    assert kafka.ask(first) == "29404 python"
    assert kafka.ask("document.querySelector('#heads th[data-column=lasted]').getAttribute('aria-sort')") == "descending"
    kafka.click(left + width / 2, top + height / 2)
    assert kafka.ask(first) == "28766 python"
    kafka.press("/", "/")
    kafka.type("no such thing")
    kafka.wait(f"{FOUND} === '0 of 10 processes'")


def test_a_link_brings_back_what_was_seen(window: Browser, tmp_path: Path) -> None:
    """A process, a range, a search and a grouping."""
    path = written(forktrace.read(DATA / "kafka.arrows"), tmp_path)
    window.open(path, "#p=3&t=1.5,2.5&q=next-start&g=cause")
    assert window.ask(HEADLINE).startswith("29164 was a zombie for 1.210 s")
    assert window.ask(FOUND) == "8 of 10 processes"
    assert window.ask("document.getElementById('group').value") == "cause"
    window.wait("location.hash.includes('p=3') && location.hash.includes('q=next-start') && location.hash.includes('g=cause')")
    window.open(path, "#p=<script>&t=NaN,x&q=%&g=constructor")
    assert window.ask(FOUND).endswith("10 processes")


def test_neighbours_and_stacks(kafka: Browser) -> None:
    """Of a process chosen: its parent, who cleared it, whom it cleared, to click on; and both stacks."""
    told(kafka, [3])
    links = "[...document.querySelectorAll('#one a')].map(e => [e.textContent, e.getAttribute('href')])"
    assert kafka.ask(links) == [["28693 python", "#p=0"], ["29404 python", "#p=4"], ["28960 python", "#p=2"]]
    stacks = kafka.ask(TEXTS.format("#one pre"))
    row = forktrace.read(DATA / "kafka.arrows").lifecycles().loc[3]
    assert stacks == [row["fork_stack"].replace(";", "\n"), row["reap_stack"].replace(";", "\n")]
    left, top, width, height = kafka.place("#one a[href='#p=4']")
    kafka.click(left + width / 2, top + height / 2)
    kafka.wait(f"{HEADLINE}.startsWith('29404 ')")


PRINTED = 1000  # processes, as print.js says


def printed(window: Browser) -> list[str]:
    """Return the first words of each line of the table while the page is printed; what was shown is shown again."""
    window.ask("dispatchEvent(new Event('beforeprint'))")
    lines: list[str] = window.ask(TEXTS.format("#cells tr:not([hidden]) td:first-child"))
    assert window.ask("document.getElementById('report').open")
    window.ask("dispatchEvent(new Event('afterprint'))")
    window.frames()
    assert not window.ask("document.getElementById('report').open")
    return lines


def test_printing(window: Browser, tmp_path: Path) -> None:
    """The whole table is printed, of a long one its first processes and how many there are more; dark pages in light."""
    window.open(written(forktrace.read(DATA / "kafka.arrows"), tmp_path), dark=True)
    assert [line.partition(" ")[0] for line in printed(window)] == list(
        map(str, forktrace.read(DATA / "kafka.arrows").lifecycles()["pid"])
    )
    pdf = base64.b64decode(window.send("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF-")
    assert window.ask("document.documentElement.classList.contains('dark')")
    many = recording(target(), *(row for number in range(1200) for row in child(1000 + number, number, number + 5)))
    window.open(written(many, tmp_path))
    lines = printed(window)
    assert len(lines) == PRINTED + 1
    assert lines[-1] == "and 201 more processes"
    assert len(window.ask(TEXTS.format("#cells tr"))) < 100


COLOURS = """(() => {
    const canvas = document.getElementById("bars"), found = {};
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < data.length; i += 4) {
        const colour = data.slice(i, i + 3).join();
        found[colour] = (found[colour] ?? 0) + 1;
    }
    return found;
})()"""
HOSTILE = "</script><script>window.bad=1</script><img src=x onerror='window.bad=1'>\u202egnp.\x1b[31m"


def hostile() -> Recording:
    """A recording all of whose texts want to be something else."""
    made = recording(*consumer(4), command=[HOSTILE], host=HOSTILE, user=HOSTILE)
    table = made.lifecycles()
    for column in ("comm", "argv", "cgroup", "fork_site", "reap_site", "notes"):
        table[column] = HOSTILE
    table["argv"] = HOSTILE * 10_000
    table["fork_stack"] = table["reap_stack"] = f"/x{HOSTILE}:1 f"
    return made


def test_nothing_of_a_trace_runs(window: Browser, tmp_path: Path) -> None:
    """Names that are HTML, that turn the text around or steer a terminal come out as what they are; none of them acts."""
    made = hostile()
    path = written(made, tmp_path)
    window.open(path)
    told(window, made.lifecycles()["id"].tolist())
    assert window.ask("window.bad") is None
    assert window.ask("document.images.length + document.scripts.length") == 1  # the page's own script; the data are gone
    text = window.ask("document.body.textContent")
    assert "</script><script>window.bad=1</script>" in text
    assert "\\u202egnp.\\x1b[31m" in text
    assert not {"\u202e", "\x1b"} & set(text)
    assert "window.bad" not in path.read_text().partition("</head>")[2]
    window.ask("try { new Function('window.bad = 2')() } catch {}")


def test_the_policy_stops_what_is_not_the_pages_own(window: Browser, tmp_path: Path) -> None:
    """A script or a picture that got into the page all the same would not run or load."""
    window.open(written(forktrace.read(DATA / "start.arrows"), tmp_path))
    window.ask("document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.bad = 1' }))")
    window.ask("document.body.append(Object.assign(document.createElement('img'), { src: 'http://example.org/x.png' }))")
    window.wait("true")
    assert window.ask("window.bad") is None
    assert all("Content Security Policy" in said for said in window.said)
    assert len(window.said) == 2
    window.said.clear()
    window.requests.remove("http://example.org/x.png")  # wanted, and not sent


@pytest.mark.parametrize("dark", [False, True])
def test_something_is_drawn(window: Browser, tmp_path: Path, dark: bool) -> None:
    """The bars have the colours of the key, in light and dark; the text can be told from the paper."""
    window.open(written(forktrace.read(DATA / "kafka.arrows"), tmp_path), dark=dark)
    colours: Any = window.ask(COLOURS)
    assert colours.get("86,180,233", 0) > 10_000  # running
    assert colours.get("213,94,0" if dark else "251,227,181", 0) > 5_000  # zombies swept by the next start
    assert window.ask("getComputedStyle(document.body).backgroundColor") == (
        "rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)"
    )


def test_an_empty_recording(window: Browser, tmp_path: Path) -> None:
    """Nothing to draw is no error: the page says what the report says."""
    window.open(written(recording(), tmp_path))
    assert window.ask("document.getElementById('summary').textContent").startswith("Nothing was recorded")
    assert window.ask(FOUND) == "0 processes"


def test_a_browser_that_cannot_says_so(window: Browser, tmp_path: Path) -> None:
    """Data that cannot be read are named, with what can read them."""
    path = written(forktrace.read(DATA / "start.arrows"), tmp_path)
    text = path.read_text()
    head, _, rest = text.partition('id="data">')
    path.write_text(f'{head}id="data">AAAA{rest[40:]}')
    window.open(path)
    assert "This page cannot be drawn here" in window.ask("document.getElementById('failure').textContent")
    window.said.clear()
