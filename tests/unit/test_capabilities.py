"""Which rights are missing, and that a process can let go of those it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forktrace.system import capabilities

LINE = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{:016x}\n"


def status(*names: str) -> str:
    """A /proc/PID/status of a process that has these."""
    return LINE.format(capabilities.mask(names))


@pytest.fixture(params=["2", "3"])
def paranoid(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """How closed this machine is to perf events."""
    (tmp_path / "paranoid").write_text(request.param)
    monkeypatch.setattr(capabilities, "PARANOID", tmp_path / "paranoid")
    return int(request.param)


def test_what_is_missing(paranoid: int) -> None:
    """Each of the five, by its name; CAP_SYS_ADMIN stands for the three that were once part of it, and is a sixth on Debian."""
    if paranoid > 2:
        assert capabilities.missing(status(*capabilities.NEEDED)) == ["CAP_SYS_ADMIN"]
        assert capabilities.missing(status(*capabilities.NEEDED, "CAP_SYS_ADMIN")) == []
        return
    assert capabilities.missing(status()) == list(capabilities.NEEDED)
    assert capabilities.missing(status(*capabilities.NEEDED)) == []
    for name in capabilities.NEEDED:
        rest = [other for other in capabilities.NEEDED if other != name]
        assert capabilities.missing(status(*rest)) == [name]
    assert capabilities.missing(status("CAP_SYS_ADMIN")) == ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]


@pytest.mark.root
def test_letting_go() -> None:
    """What is not in effect can be put into effect for a while; what was let go does not come back."""
    pid = os.fork()
    if not pid:
        try:
            some = capabilities.mask(["CAP_BPF", "CAP_SYS_PTRACE"])
            capabilities._set(some, capabilities.mask(["CAP_BPF"]))
            with capabilities.in_effect():
                assert capabilities._sets()[:2] == (some, some)
            assert capabilities._sets()[:2] == (capabilities.mask(["CAP_BPF"]), some)
            capabilities._set(0, 0)
            with pytest.raises(PermissionError):
                capabilities._set(some, some)
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
