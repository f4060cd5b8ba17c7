"""A session of `forktrace top`: what is to be seen, with the recording that this takes, from its start to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import TYPE_CHECKING

from forktrace.errors import ForktraceError
from forktrace.launcher.running import Chosen
from forktrace.now.inquiry import Recording, may_record
from forktrace.service.parents import Parents, Recorded
from forktrace.service.screen import Top
from forktrace.system.procfs import Proc, cgroup_pids
from forktrace.system.users import invoking_user

if TYPE_CHECKING:
    from forktrace.service.minute import Minute

WITHOUT = "forks, causes and short zombies are not seen"


def show(chosen: Chosen | None) -> None:
    """Show the parents among the chosen processes and theirs, or all, until the screen is left."""
    recording = Recording(chosen) if chosen and may_record() else None
    session = _Session(recording)
    parents = Parents(recorded=session.recorded if recording else None, wanted=_wanted(chosen) if chosen else None)
    try:
        Top(parents, limits=partial(session.limits, chosen), keep=session.keep if recording else None).run()
    finally:
        session.close()


def _wanted(chosen: Chosen) -> Callable[[Sequence[int]], Container[int]]:
    """Which processes are chosen, or descend from one that is, or are in the control group."""
    proc = Proc()

    def wanted(pids: Sequence[int]) -> Container[int]:
        if chosen.cgroup:
            return set(cgroup_pids(chosen.cgroup))
        return {pid for pid in pids if pid in chosen.pids or proc.descends(pid, chosen.pids)}

    return wanted


class _Session:
    """The recording, if there is one; what reads it is imported after the first screen is there."""

    def __init__(self, recording: Recording | None) -> None:
        self._recording = recording
        self._minute: Minute | None = None
        self._is_first = True

    def recorded(self) -> dict[int, Recorded]:
        """Return what it says of each parent."""
        if self._is_first or self._recording is None:
            self._is_first = False
            return {}
        if self._minute is None:
            from forktrace.service.minute import Minute

            self._minute = Minute(self._recording)
        return dict(self._minute.recorded())

    def limits(self, chosen: Chosen | None) -> Sequence[str]:
        """Return what cannot be seen, in words."""
        if self._recording:
            return [words] if self._minute and (words := self._minute.words) else []
        if chosen is None:
            return [f"{WITHOUT}: that takes sudo forktrace top -p PID, or --cgroup PATH"]
        return [f"{WITHOUT}: only root may record: sudo forktrace top ..."]

    def keep(self) -> str:
        """Write the last minute as a trace of the user's, into the working directory, and return what to say."""
        path = f"forktrace-top-{time.strftime('%H%M%S')}.arrows"
        try:
            if self._minute is None:
                raise ForktraceError("the recording has not begun yet")
            self._minute.write(path, invoking_user())
        except ForktraceError as error:
            return f"{error}"
        return f"wrote {path}: forktrace report {path}"

    def close(self) -> None:
        """End the recording."""
        if self._recording:
            self._recording.stop()
