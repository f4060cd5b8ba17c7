"""What a chain means: whose exit status was taken, what a zombie did harm to, why it was one, and what would help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from forktrace.analysis.causes.names import printable
from forktrace.analysis.tables.lifecycles import LIVING
from forktrace.views import explanations, failed
from forktrace.views.why import orphans, remedies
from forktrace.views.why.chain_columns import Section, known
from forktrace.views.why.late import ended
from forktrace.views.why.remedies import fix_lines
from forktrace.views.why.sentences import Event, Line, blank
from forktrace.views.words import at_line, some

REMARKS: Final[Mapping[str, Sequence[str]]] = {
    "robbed": ("thefts", "robber_pid"),
    "thief": ("taken",),
    "adopting": ("adopts", "not_init"),
    "damage": ("damaged", "status_lost"),
    "why": (
        *("state", "origin", "was_zombie", "noticed", "inferred", "stolen", "thefts", "orphan", "not_init", "created_by"),
        *("reap_cause", "reap_site", "reap_own", "reap_stack_status", "reap_options", "reap_package"),
        *("made_site", "made_own", "made_package", "helper", "inside", "handled", "held", "at_end", "delay", "status_lost"),
    ),
    "note": ("notes",),
}


class Meaning(Section):
    """The lines of one section of `REMARKS`; `row` has the columns named there and no others."""

    def robbed(self) -> Iterator[Event]:
        """Whose wait took the exit status of this process from whom."""
        for one in self.lookups.thefts.get(known(self.row.thefts), ()):
            thief = self.lookups.actor(one.thief_id, self.row.robber_pid, one.thief_tid, one.thief_site)
            source = self.lookups.source
            yield "", Line("stolen", f"by {thief}{at_line(one.thief_site)}", source(one.thief_site))
            owner = "its owner" if pd.isna(one.created_by) else explanations.creator(one.created_by).owner
            seen = "" if pd.isna(one.seen) else f", and got {explanations.texts()['seen'].get(one.seen, printable(one.seen))}"
            yield "", Line("from", f"{owner}, which waits for it{at_line(one.owner_site)}{seen}", source(one.owner_site))

    def thief(self) -> Iterator[Event]:
        """What a thief took."""
        if taken := self.lookups.taken.get(known(self.row.taken)):
            which = some([self.lookups.names.pid(int(one)) for one in taken[:4]], len(taken))
            whom = "it" if len(taken) == 1 else "them"
            yield "", Line("thief", f"{blank('name')} took the exit status of {which} from what waits for {whom}")

    def adopting(self) -> Iterator[Event]:
        """Of an orphan who inherited it and did not reap it; of one who does so, and what helps.

        A zombie that was there before the recording may be an orphan as well: of that it is told what its parent does.
        """
        mine = self._adopter(self.row.adopts)
        for one in filter(None, (self._adopter(self.row.not_init), mine)):
            yield "", Line("finding", f"{one.text} ({orphans.NAME})")
        if mine:
            yield from (("", Line("", orphans.texts()[name])) for name in ("helps", "beware"))

    def damage(self) -> Iterator[Event]:
        """What went wrong while it was a zombie, or because nobody got its exit status."""
        if not pd.isna(self.row.status_lost):
            how = ended(next(self.lookups.table.loc[[self.row.status_lost]].itertuples()))
            yield "", Line("damage", f"it {how}, and the program did not learn of it")
        if not pd.isna(self.row.damaged):
            row = next(self.lookups.table.loc[[self.row.damaged]].itertuples())
            yield from (("", Line("damage", text)) for text in failed.during(self.recording, self.lookups.names, row))

    def why(self) -> Iterator[Event]:
        """Why it was a zombie or was reaped as it was, and what would help."""
        yield from (("", line) for line in self._why())

    def note(self) -> Iterator[Event]:
        """The notes of its row."""
        if not pd.isna(self.row.notes):
            yield "", Line("note", printable(self.row.notes))

    def _why(self) -> Iterator[Line]:
        row, name = self.row, self._cause()
        if row.state in LIVING:
            return
        if name == "unknown" and pd.isna(row.reap_site):
            yield Line("why", f"not known ({explanations.no_stack(row.reap_stack_status)})")
            if row.reap_stack_status == "no-runtime":
                yield from (Line("", f"the {explanations.not_walked(*one)}") for one in self.lookups.not_walked)
            return
        cause, words = explanations.cause(name), self._words()
        late = cause.late if row.noticed and not row.stolen else ""
        delay = explanations.delay(row.delay) if row.delay and (late or row.delay == "watched") else None
        yield Line("why", f"{self._reason(cause, words, delay, late)} ({printable(name)})")
        yield from self._fixes(cause, words, delay)
        if self._adopter(row.not_init):
            yield Line("beware", orphans.texts()["beware"])

    def _cause(self) -> str:
        """The cause; of a trace without stacks it may follow from the order of calls."""
        row = self.row
        name = "unknown" if pd.isna(row.reap_cause) else str(row.reap_cause)
        return "next-start" if name == "unknown" and pd.isna(row.reap_site) and row.inferred else name

    def _reason(self, cause: explanations.Cause, words: dict[str, str], delay: explanations.Delay | None, late: str) -> str:
        """Why it was reaped, or was not, and why not earlier."""
        if self._cause() == "never" and self.row.orphan:
            parent, adopter = blank("parent"), blank("adopter")
            return f"{parent} ended without waiting for it; {adopter} inherited it and has not waited for it either"
        reason = cause.at_end if cause.at_end and self.row.at_end else cause.why
        return (delay.why or reason + delay.late if delay else reason + late).format(**words)

    def _fixes(self, cause: explanations.Cause, words: dict[str, str], delay: explanations.Delay | None) -> Iterable[Line]:
        """What to do about it: the first of these that applies."""
        row = self.row
        fixes: tuple[tuple[bool, Callable[[], Iterable[Line]]], ...] = (
            (row.stolen, lambda: remedies.after_theft(self.lookups.thefts[int(row.thefts)][0].thief_site, words)),
            (bool(delay and delay.fix), lambda: [Line("fix", delay.fix.format(**words) if delay else "")]),
            (not pd.isna(row.helper), lambda: [Line("fix", remedies.ASIDE.format(row.helper))]),
            (row.noticed or not pd.isna(row.status_lost), lambda: self._fix(cause, words, delay.unless if delay else "")),
            (row.was_zombie and self._cause() != "recorder", lambda: [remedies.none_needed(cause)]),
        )
        return next((lines() for applies, lines in fixes if applies), ())

    def _fix(self, cause: explanations.Cause, words: dict[str, str], unless: str) -> Iterator[Line]:
        """What would help, at the line to change; where that is an installed package's, that it is not the user's to mend."""
        row = self.row
        left, nohang = not pd.isna(row.not_init), "WNOHANG" in str(row.reap_options)
        case = remedies.Case(self._made(), row.orphan, left, row.inside, nohang, row.handled, row.held)
        names, at = remedies.chosen(cause, case)
        if at == "none":
            yield from fix_lines([explanations.remedy(each, **words) for each in names], pd.NA, unless)
            return
        where = "made" if at == "fork" else at
        site, own, package = (getattr(row, f"{where}_{what}") for what in ("site", "own", "package"))
        if package and names:
            yield from remedies.package_lines(package, site)
        else:
            yield from fix_lines([explanations.remedy(each, **words) for each in names], site if own else pd.NA, unless)

    def _words(self) -> dict[str, str]:
        """What the texts of explanations.toml can name."""
        it = explanations.object_of(self.lookups.source(self.row.made_site), self._creator().it)
        not_init = self._adopter(self.row.not_init)
        blanks = {name: blank(name) for name in ("start", "reaper", "parent", "library")}
        blanks["child"] = blank("name")
        return {**blanks, "it": it, "adopter": not_init.name if not_init else blank("adopter")}

    def _creator(self) -> explanations.Creator:
        return explanations.creator("orphan" if self.row.orphan or not pd.isna(self.row.not_init) else self._made())

    def _made(self) -> str:
        return "unknown" if pd.isna(self.row.created_by) else str(self.row.created_by)

    def _adopter(self, number: Any) -> orphans.Adopter | None:
        return None if pd.isna(number) else self.lookups.adopters[int(number)]
