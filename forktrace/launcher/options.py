"""How to record: what `record` and whoever else starts a recording has chosen."""

from __future__ import annotations

from dataclasses import dataclass

from forktrace.launcher.companion import Companion


@dataclass(frozen=True)
class RotationPlan:
    """When the next file begins, and how many are kept.

    Attributes:
        every_s, size: a file is so long, so large (bytes) at the most; None: as it comes
        keep: how many files there are at the most; None: any number
        max_size: how many bytes they have together at the most; None: any number
    """

    every_s: float | None
    size: int | None
    keep: int | None
    max_size: int | None

    @property
    def file_size(self) -> int | None:
        """How large a file may become: where there is a limit for all of them, half of it."""
        sizes = [size for size in (self.size, self.max_size and self.max_size // 2) if size]
        return min(sizes, default=None)


@dataclass(frozen=True)
class RecordOptions:
    """How to record.

    Attributes:
        output: the trace's file, `-` for standard output; None: one that is named after the program
        force: an existing file is overwritten
        duration_s: how long at the most; None: until the processes are gone
        quiet: no words but those of errors
        stacks, source: whether Python stacks, and the text of their lines, are recorded
        own: prefixes of files that count as the user's code too
        max_size: of the trace in bytes, of a rotation of all its files; None: any
        rotation: when the next file begins, in the directory `output`; None: there is one file
        companions: what is to run beside the recording, without its rights
    """

    output: str | None = None
    force: bool = False
    duration_s: float | None = None
    quiet: bool = False
    stacks: bool = True
    source: bool = True
    own: tuple[str, ...] = ()
    max_size: int | None = None
    rotation: RotationPlan | None = None
    companions: tuple[Companion, ...] = ()

    @property
    def to_stdout(self) -> bool:
        """Whether the trace goes to standard output."""
        return self.output == "-"
