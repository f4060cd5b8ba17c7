"""What a check decides: each limit, at its edge; what is allowed; what a baseline forgives; what cannot be told, never 0."""

from __future__ import annotations

import json

import pytest
from traces import MS, recording, target, work

from forktrace.analysis.gate.limits import BY_NAME, parse
from forktrace.analysis.gate.verdict import Allowance, Outcome, judge
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev


def outcome(made: Recording, name: str, most: object, *allowed: str, baseline: Recording | None = None) -> Outcome:
    """Return what became of one limit."""
    verdict = judge(made, [parse(name, most)], [Allowance(site) for site in allowed], baseline)
    return verdict.outcomes[0]


def state(made: Recording, name: str, most: object, *allowed: str, baseline: Recording | None = None) -> str:
    """Return whether one limit holds."""
    return outcome(made, name, most, *allowed, baseline=baseline).state


def zombies(*lasting_ms: float, line: int = 33, function: str = "consume", first: int = 200, **more: object) -> Recording:
    """Return the recording of children that ended one after the other, each a zombie for so long."""
    rows, now = [target()], 10.0
    for pid, lasted in enumerate(lasting_ms, first):
        rows += work(pid, now, now + 10, now + 10 + lasted, line=line, function=function)
        now += 20 + lasted
    return recording(*rows, *more.pop("rows", ()), ev.end(int(now * MS)), **more)


# One recording in which each limit is just met, with its figure.
EDGES = [
    ("max-zombie", zombies(300, 500), "500ms", "499ms", 500),
    ("max-zombies", recording(target(), *work(1, 1, 5, 50), *work(2, 2, 6, 50), *work(3, 50, 51, 60)), 2, 1, 2),
    ("max-unreaped", recording(target(), *work(1, 1, 5), *work(2, 2, 6), *work(3, 3, 4, 9), ev.end(99 * MS)), 2, 1, 2),
    ("max-failed-forks", recording(target(), *[ev.fork_failed(n * MS, 100, 11) for n in (1, 2, 3)]), 3, 2, 3),
    ("max-running", recording(target(), ev.fork(MS, 7, by=100), ev.fork(MS, 8, by=7), ev.end(9 * MS)), 2, 1, 2),
    ("max-zombie-seconds", zombies(300, 500), 400, 399, 400),
]


@pytest.mark.parametrize(("name", "made", "met", "broken", "figure"), EDGES, ids=[edge[0] for edge in EDGES])
def test_each_limit_at_its_edge(name: str, made: Recording, met: object, broken: object, figure: float) -> None:
    """What is reached holds, what is exceeded is broken, and the figure is exact."""
    assert state(made, name, met) == "holds"
    found = outcome(made, name, broken)
    assert (found.state, found.measured) == ("broken", pytest.approx(figure))


def test_stolen_and_left_orphans() -> None:
    """The committed scenes: three thefts; the orphans that a PID 1 which waits for none leaves."""
    from forktrace.analysis.recording import read

    stolen, pid1 = read("tests/data/stolen.arrows"), read("tests/data/pid1.arrows")
    assert outcome(stolen, "max-stolen", 2).measured == 3
    assert state(stolen, "max-stolen", 3) == "holds"
    left = pid1.orphans().query("outcome == 'left'")["id"].nunique()
    assert left > 0
    assert outcome(pid1, "max-orphans", left - 1).measured == left
    assert state(pid1, "max-orphans", left) == "holds"


def test_the_command_itself_does_not_count() -> None:
    """It is forktrace's child: however late forktrace reaps it, and though it still runs at the end."""
    late = recording(target(), ev.exit_(MS, 100, parent=50), ev.zombie(MS, 100, parent=50), ev.reap(9000 * MS, 100, by=50))
    assert outcome(late, "max-zombie", 0).state == "holds"
    assert outcome(recording(target(), ev.end(MS)), "max-running", 0).state == "holds"


def test_findings_name_line_cause_and_the_worst_process() -> None:
    """One for each line and cause, the worst first; of a limit on each zombie only those that break it."""
    rows = [
        *work(1, 1, 5, 50),
        *work(2, 60, 65, 300),
        *work(3, 310, 320, 400, line=70, function="other"),
        *work(4, 410, 420, 421),
    ]
    found = outcome(recording(target(), *rows), "max-zombie", "40ms").findings
    assert [(one.site, one.cause, one.processes, one.measured, one.id) for one in found] == [
        ("consumer.py:33 consume", "join", 2, 235, 2),
        ("consumer.py:70 other", "join", 1, 80, 3),
    ]
    assert found[0].reap_site == "consumer.py:34 consume"


def test_the_worst_limit_comes_first() -> None:
    """Broken ones by how far they are exceeded, then those that cannot be told, then the others."""
    made = zombies(300, 500)
    limits = [parse("max-stolen", 0), parse("max-zombie", "400ms"), parse("max-zombies", 0), parse("max-zombie-seconds", 1)]
    verdict = judge(made, limits)
    names = [one.limit.kind.name for one in verdict.outcomes]
    assert names == ["max-zombies", "max-zombie-seconds", "max-zombie", "max-stolen"]
    assert verdict.exit_status == 1


def test_what_is_allowed_is_not_counted() -> None:
    """The processes of a function or line are out of every limit; how many is said, and an allowance for none too."""
    rows = [*work(1, 1, 5, 500), *work(2, 10, 15, 20, line=70, function="other")]
    made = recording(target(), *rows)
    assert state(made, "max-zombie", "100ms") == "broken"
    assert state(made, "max-zombie", "100ms", "consume") == "holds"
    assert state(made, "max-zombie", "100ms", "consumer.py:33") == "holds"
    assert state(made, "max-zombie", "100ms", "other") == "broken"
    limits = [parse(name, 0) for name in ("max-zombie", "max-unreaped")]
    verdict = judge(made, limits, [Allowance("consume"), Allowance("nothing")])
    assert [(one.site, number) for one, number in verdict.allowed] == [("consume", 1), ("nothing", 0)]
    assert verdict.remarks == ["nothing is allowed, and names no process of this recording"]


def test_a_line_that_is_not_known_is_not_allowed() -> None:
    """Nor one that may be an older program's, since an exec was lost."""
    bare = recording(target(), ev.fork(MS, 7, by=100), ev.exit_(2 * MS, 7), ev.zombie(2 * MS, 7), ev.reap(900 * MS, 7, by=100))
    assert state(bare, "max-zombie", "100ms", "consume") == "broken"
    lossy = recording(target(), *work(1, 1, 5, 500), ev.lost(600 * MS, 1, "exec"))
    assert state(lossy, "max-zombie", "100ms", "consume") == "broken"


def test_a_baseline_forgives_what_is_no_worse() -> None:
    """The same function, though its line has moved; where it is worse, or another function, or the baseline held, it counts."""
    old = zombies(500, 600)
    assert state(zombies(590, 600, line=44), "max-zombie", "100ms", baseline=old) == "holds"
    assert outcome(zombies(590, 600, line=44), "max-zombie", "100ms", baseline=old).forgiven == 2
    assert state(zombies(650), "max-zombie", "100ms", baseline=old) == "holds"  # times are no worse up to a tenth
    assert state(zombies(670), "max-zombie", "100ms", baseline=old) == "broken"
    assert state(zombies(500, function="new"), "max-zombie", "100ms", baseline=old) == "broken"
    assert state(zombies(500), "max-zombie", "100ms", baseline=zombies(50)) == "broken"


def test_a_baseline_of_counts() -> None:
    """One more is worse; of several functions each is held against its own."""

    def unreaped(**functions: int) -> Recording:
        rows, pid = [target()], 200
        for function, number in functions.items():
            for _ in range(number):
                rows += work(pid, pid, pid + 1, function=function)
                pid += 1
        return recording(*rows, ev.end(9000 * MS))

    old = unreaped(f=3, g=2)
    assert state(unreaped(f=3, g=2), "max-unreaped", 0, baseline=old) == "holds"
    assert state(unreaped(f=2, g=2), "max-unreaped", 0, baseline=old) == "holds"
    found = outcome(unreaped(f=3, g=3), "max-unreaped", 0, baseline=old)
    assert (found.state, found.measured, [one.site for one in found.findings]) == ("broken", 3, ["consumer.py:33 g"])


def test_a_baseline_without_lines_forgives_nothing_and_says_so() -> None:
    """Functions that are not known are never alike."""

    def bare() -> Recording:
        rows = [ev.fork(MS, 7, by=100), ev.exit_(2 * MS, 7, parent=100), ev.zombie(2 * MS, 7, parent=100)]
        return recording(target(), *rows, ev.reap(900 * MS, 7, by=100))

    verdict = judge(bare(), [parse("max-zombie", "100ms")], baseline=bare())
    assert verdict.exit_status == 1
    assert verdict.remarks == ["the baseline has no lines, so nothing could be compared with it"]


def test_losses_leave_open_what_they_could_break() -> None:
    """A kind of loss that a limit cannot be broken by leaves it as it is; every other, also one of no known kind, does not."""
    touches = {name: set() for name in BY_NAME}
    kinds = ("fork", "exit", "reap", "exec", "signal", "wait", "fork-failed", "process not followed", "of a later forktrace")
    for kind in kinds:
        made = recording(target(), *work(1, 1, 5, 6), ev.exit_(8 * MS, 100), ev.lost(9 * MS, 1, kind))
        for name in BY_NAME:
            if state(made, name, 1000) == "unknown":
                touches[name].add(kind)
    zombie = {"fork", "exit", "reap", "process not followed", "of a later forktrace"}
    assert touches.pop("max-stolen") == zombie | {"exec", "wait"}
    assert touches.pop("max-failed-forks") == {"fork-failed", "process not followed", "of a later forktrace"}
    assert all(one == zombie for one in touches.values())


def test_a_lower_bound_breaks_a_limit_in_spite_of_losses() -> None:
    """What was seen is enough, and what more there may be is said beside it."""
    made = zombies(500, rows=[ev.lost(600 * MS, 3, "fork")])
    found = outcome(made, "max-zombie", "100ms")
    assert (found.state, found.missing) == ("broken", ["lost: 3 fork"])
    assert outcome(made, "max-zombie", "600ms").missing == ["lost: 3 fork"]


def test_a_trace_that_is_not_whole() -> None:
    """Cut off, full, or empty: what came after could break every limit."""
    for made in (
        recording(target(), *work(1, 1, 5, 6), closed=False),
        recording(target(), *work(1, 1, 5, 6), ev.end(9 * MS, json.dumps({"full": 65536})), closed=False),
        recording(),
    ):
        assert {state(made, name, 1000) for name in BY_NAME} == {"unknown"}


def test_open_zombies_of_a_lossy_cut_trace_are_not_sure() -> None:
    """Nothing says there which of them the kernel still had: 66, not 1."""
    rows = [target(), *work(1, 1, 5), ev.fork(90 * MS, 9, by=100), ev.lost(99 * MS, 1, "reap")]
    cut = recording(*rows, closed=False)
    assert {state(cut, name, 0) for name in ("max-unreaped", "max-zombies", "max-zombie")} == {"unknown"}
    whole = recording(*rows, closed=True)
    assert state(whole, "max-failed-forks", 0) == "holds"


def test_an_upper_bound_breaks_nothing() -> None:
    """A reap that was not seen may have been earlier: 66; the time until the parent died, which did not reap it, is sure."""
    orphan = [
        ev.fork(MS, 7, by=100),
        ev.fork(2 * MS, 8, by=7),
        ev.exit_(10 * MS, 8, parent=7),
        ev.zombie(10 * MS, 8, parent=7),
        ev.exit_(310 * MS, 7, parent=100, adopter=1),
        ev.zombie(310 * MS, 7, parent=100),
        ev.reap(311 * MS, 7, by=100),
        ev.reap(2000 * MS, 8, by=1, call="unseen", target=None),
    ]
    made = recording(target(), *orphan)
    assert state(made, "max-zombie", "2s") == "holds"
    assert state(made, "max-zombie", "1s") == "unknown"
    found = outcome(made, "max-zombie", "200ms")
    assert (found.state, found.measured) == ("broken", 300)
    assert state(made, "max-zombies", 1) == "unknown"
    assert state(made, "max-zombies", 2) == "holds"


def test_thefts_that_stacks_would_tell() -> None:
    """A wait in vain for a child that was reaped already: without stacks whose it was is open."""
    rows = [target(), ev.fork(MS, 7, by=100), ev.exit_(2 * MS, 7, parent=100), ev.zombie(2 * MS, 7, parent=100)]
    rows += [ev.reap(3 * MS, 7, by=100, target="any")]
    late = ev.wait(4 * MS, None, by=100, target="pid", target_pid=7, result=10)
    assert state(recording(*rows), "max-stolen", 0) == "holds"
    found = outcome(recording(*rows, late), "max-stolen", 0)
    assert (found.state, found.measured) == ("unknown", 0)
    assert "without stacks" in found.missing[0]


def test_zombies_without_forks_cannot_be_related() -> None:
    """Per 1,000 forks of a recording that saw none: 66, unless there is no zombie at all."""
    rows = [ev.fork(0, 100, origin="attached"), ev.fork(0, 7, by=100, origin="attached", start_ns=0)]
    rows += [ev.exit_(2 * MS, 7, parent=100), ev.zombie(2 * MS, 7, parent=100)]
    assert state(recording(*rows, ev.end(9 * MS), attached=[100]), "max-zombie-seconds", 1000) == "unknown"
    assert state(recording(*rows[:2], attached=[100]), "max-zombie-seconds", 0) == "holds"


def test_only_a_part() -> None:
    """A process and its descendants, as `--of` asks for."""
    rows = [*work(1, 1, 500), ev.fork(MS, 9, by=100), ev.exit_(MS * 2, 9, parent=100), ev.reap(2 * MS, 9, by=100)]
    made = recording(target(), *rows, ev.end(900 * MS))
    assert state(made, "max-unreaped", 0) == "broken"
    assert state(made.of(made.find_process("9")), "max-unreaped", 0) == "holds"
