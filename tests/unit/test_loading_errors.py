"""What is said when the probes cannot be loaded, which a child process does."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from forktrace.errors import MachineLacks
from forktrace.kernel import bpf, loading
from forktrace.kernel.loading import Loading


def raises(error: BaseException) -> Callable[..., NoReturn]:
    """What fails in that way."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said", "kept"),
    [
        (bpf.Refused(errno.EACCES, "1: first\n2: R1 is bad\nprocessed 2 insns\n"), "R1 is bad; processed 2 insns", "1: first"),
        (ZeroDivisionError("a defect"), "ZeroDivisionError: a defect", "in fail"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", "in fail"),
        (MemoryError(), "MemoryError", "in fail"),
    ],
)
def test_the_reason_is_said_and_kept(
    error: BaseException, said: str, kept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line says what it was, and names a file with the traceback and all that the verifier says."""
    monkeypatch.setattr(loading, "load", raises(error))
    monkeypatch.setattr(loading.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(MachineLacks) as caught:
        Loading().wait()
    assert "\n" not in str(caught.value)
    assert said in str(caught.value)
    named = re.search(r"; the whole of it: (\S+)$", str(caught.value))
    assert named
    text = Path(named[1]).read_text()
    assert kept in text
    assert "Traceback" in text


def test_a_word_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine lacks is said as it is, with what mends it."""
    monkeypatch.setattr(loading, "load", raises(MachineLacks("no BTF", "another kernel")))
    with pytest.raises(MachineLacks, match=r"the probes cannot be loaded: no BTF$") as caught:
        Loading().wait()
    assert caught.value.hint == "another kernel"


def test_a_child_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """How it ended is said."""
    monkeypatch.setattr(loading, "load", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(MachineLacks, match="what loads them ended with status -9"):
        Loading().wait()


@pytest.mark.parametrize(("number", "instructions"), [("39961", 39961), ("169+952+1070", 2191)])
def test_what_the_verifier_says(number: str, instructions: int) -> None:
    """In all, or function by function."""
    said = f"verification time 1 usec\nstack depth 8\nprocessed {number} insns (limit 1000000) max_states_per_insn 4"
    assert loading._instructions(said) == instructions
