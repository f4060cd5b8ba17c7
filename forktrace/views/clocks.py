"""What is known to be wrong with the clocks by which the times of day of a recording were made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from forktrace.analysis.recording import Recording
from forktrace.trace.words import duration, printable

NOTICEABLE_NS: Final = 60_000_000_000  # two machines are rarely within seconds of each other


def set_while_recording(recording: Recording) -> Iterator[str]:
    """Yield that the wall clock was set during the recording, if it was."""
    if step_ns := recording.clock_step_ns:
        how = f"{'forward' if step_ns > 0 else 'back'} by {duration(abs(step_ns) / 1e6)}"
        yield f"the clock was set {how} during the recording: times of day go on as at its start"


def ahead(recording: Recording, now_ns: int) -> Iterator[str]:
    """Yield that the recording ends after `now_ns`, Unix time, if it does."""
    early_ns = recording.end_ns + recording.header["clock_offset_ns"] - now_ns
    if early_ns > NOTICEABLE_NS:
        host = printable(recording.header["host"])
        when = f"{duration(early_ns / 1e6)} from now"
        yield f"the recording ends {when}: the clock of {host} is ahead, or this machine's is behind"


def apart(now_ns: int, collector_ns: int) -> Iterator[str]:
    """Yield that this machine's clock and the collector's differ, Unix time both, if they do."""
    ahead_ns = now_ns - collector_ns
    if abs(ahead_ns) > NOTICEABLE_NS:
        how = f"{duration(abs(ahead_ns) / 1e6)} {'ahead of' if ahead_ns > 0 else 'behind'}"
        yield f"this machine's clock is {how} the collector's: what was recorded here has the wrong time of day"
