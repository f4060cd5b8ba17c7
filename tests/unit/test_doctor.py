"""The doctor finds what is missing and names the command that mends it; the real bcc is told from its namesake."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from forktrace.cli import cli
from forktrace.errors import MachineLacks
from forktrace.kernel import bccloader
from forktrace.live import doctor, elevation
from forktrace.live.doctor import Finding

ROOT_STATUS = "Name:\tpython3\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"
USER_STATUS = "Name:\tpython3\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n"
CAPABLE_STATUS = USER_STATUS.replace("0000000000000000", "000001c000080004")  # those of docs/privileges.md
GOOD = {
    "proc/sys/kernel/osrelease": "6.18.44\n",
    "proc/self/status": ROOT_STATUS,
    "proc/mounts": "proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n",
    "proc/filesystems": "nodev\tproc\nnodev\ttracefs\n",
    "sys/kernel/btf/vmlinux": "",
    "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
    "usr/include/linux/types.h": "",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on sys.path, no bcc of any distribution, and no bcc loaded."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(bccloader, "PLACES", ())
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "bcc"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
        del sys.modules[name]


def put_bcc(folder: Path, source: str = "from .libbcc import BPF\n__version__ = '0.99'\n") -> Path:
    """Put a package that looks like the real one into `folder`."""
    package = folder / "bcc"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    (package / "libbcc.py").write_text("class BPF: pass\n")
    return package


def put_namesake(folder: Path) -> Path:
    """Put PyPI's package of that name into `folder`."""
    package = folder / "bcc"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('lattices')\n")
    return package


def examine(tmp_path: Path, **changes: str | None) -> dict[str, Finding]:
    """Return the findings on a machine that has everything, but for `changes` (None: the file is missing)."""
    for name, text in (GOOD | changes).items():
        if text is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    return {finding.name: finding for finding in doctor.examine(tmp_path)}


def test_a_good_machine_has_nothing_to_mend(tmp_path: Path, packages: Path) -> None:
    """Every requirement is met, each with what was found."""
    put_bcc(packages)
    findings = examine(tmp_path)
    assert all(finding.good for finding in findings.values())
    assert findings["lockdown"].found == "integrity"
    assert findings["bcc"].found == f"0.99 in {packages / 'bcc'}"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("kernel", {"proc/sys/kernel/osrelease": "5.4.0-generic"}, "older than 5.8"),
        (
            "rights",
            {"proc/self/status": USER_STATUS},
            "no sudo, and no CAP_BPF, CAP_PERFMON, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE",
        ),
        (
            "rights",
            {"proc/self/status": ROOT_STATUS.replace("1ffffffffff", "0a80425fb")},
            "with --cap-add BPF --cap-add PERFMON",
        ),
        ("BTF", {"sys/kernel/btf/vmlinux": None}, "CONFIG_DEBUG_INFO_BTF"),
        ("tracefs", {"proc/mounts": "", "proc/filesystems": "nodev\tproc\n"}, "CONFIG_TRACING"),
        ("tracefs", {"proc/mounts": "", "proc/self/status": CAPABLE_STATUS}, "sudo mount -t tracefs"),
        ("lockdown", {"sys/kernel/security/lockdown": "none integrity [confidentiality]"}, "lockdown=integrity"),
        ("headers", {"usr/include/linux/types.h": None}, "sudo apt-get install -y linux-libc-dev"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, str | None], words: str
) -> None:
    """One requirement fails, all others are met, and the line says what to type."""
    put_bcc(packages)
    monkeypatch.setattr(elevation, "SUDO", ())
    findings = examine(tmp_path, **changes)
    assert [each for each, finding in findings.items() if not finding.good] == [name]
    assert findings[name].line().startswith("FAIL  ")
    assert words in findings[name].line()


@pytest.mark.parametrize(
    "changes",
    [
        {"proc/mounts": "proc /proc proc rw 0 0\n"},
        {"sys/kernel/security/lockdown": None},
        {"proc/self/status": CAPABLE_STATUS},
        {"proc/sys/kernel/osrelease": "5.8.0"},
        {"proc/sys/kernel/osrelease": "10.0-rc1"},
    ],
)
def test_what_record_can_live_with(tmp_path: Path, packages: Path, changes: dict[str, str | None]) -> None:
    """tracefs that can be mounted, an unknown lockdown, capabilities instead of root, and newer kernels are fine."""
    put_bcc(packages)
    assert all(finding.good for finding in examine(tmp_path, **changes).values())


def test_without_root_sudo_will_do(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no right to record has them through sudo, for the recorder."""
    put_bcc(packages)
    monkeypatch.setattr(elevation, "find_sudo", lambda: "/usr/bin/sudo")
    finding = examine(tmp_path, **{"proc/self/status": USER_STATUS})["rights"]
    assert finding.good
    assert finding.found == "not root: record runs the recorder through sudo, and nothing else"


def test_code_of_others(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forktrace that somebody else can change is nothing for root to run."""
    put_bcc(packages)
    program = tmp_path / "sudo_recorder.py"
    program.touch(mode=0o666)
    program.chmod(0o666)
    monkeypatch.setattr(elevation, "PROGRAM", program)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    finding = examine(tmp_path)["sudo"]
    assert not finding.good
    assert str(program) in finding.found


def test_only_x86_64_records() -> None:
    """Another processor is named."""
    assert not doctor._architecture("aarch64").good
    assert "aarch64" in doctor._architecture("aarch64").line()


def test_a_virtual_environment_gets_the_line_for_sudo(tmp_path: Path) -> None:
    """Where sudo's PATH does not reach, the hint is a command to copy; it is no failure."""
    program = tmp_path / "my bin" / "forktrace"
    program.parent.mkdir()
    program.touch()
    if Path("/usr/local/bin/forktrace").exists():
        pytest.skip("there is a link in /usr/local/bin already")
    finding = doctor._sudo(program)
    assert finding.good
    assert f"sudo ln -s '{program}' /usr/local/bin/" in finding.line()
    assert doctor._sudo(Path("/usr/bin/ls")).mend == ""


def test_the_command_ends_with_78(monkeypatch: pytest.MonkeyPatch) -> None:
    """`forktrace doctor` prints one line each; any failure is status 78."""
    good, bad = Finding(True, "kernel", "6.18"), Finding(False, "BTF", "missing", "do this")
    monkeypatch.setattr(doctor, "examine", lambda: iter([good, bad]))
    done = CliRunner().invoke(cli, ["doctor"])
    assert (done.exit_code, done.stdout.splitlines()) == (78, [good.line(), bad.line()])
    monkeypatch.setattr(doctor, "examine", lambda: iter([good]))
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == 0


def test_no_bcc_at_all(packages: Path) -> None:
    """The package to install is named."""
    with pytest.raises(MachineLacks, match=r"the distribution's bcc is not installed$") as error:
        bccloader.load_bcc()
    assert error.value.hint == "sudo apt-get install -y python3-bpfcc"


def test_the_namesake_is_refused_by_name(packages: Path) -> None:
    """PyPI's bcc is never imported, and the error says where it is."""
    place = put_namesake(packages)
    with pytest.raises(MachineLacks, match=f"not installed \\({place} is PyPI's package of that name"):
        bccloader.load_bcc()
    assert "bcc" not in sys.modules


def test_the_namesake_is_passed_over(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real one installed its namesake does no harm, even when it is imported already; the doctor mentions it."""
    namesake = put_namesake(packages)
    distribution = tmp_path / "dist-packages"
    distribution.mkdir()
    real = put_bcc(
        distribution, "import warnings; warnings.warn('x', SyntaxWarning)\nfrom .libbcc import BPF\n__version__ = '1'\n"
    )
    monkeypatch.setattr(bccloader, "PLACES", (real,))
    loaded = bccloader.load_bcc()
    assert Path(str(loaded.__file__)).parent == real
    assert bccloader.load_bcc() is loaded
    assert str(distribution) not in sys.path
    assert f"{namesake} is PyPI's package of that name and is not used" in doctor._bcc().found


@pytest.mark.parametrize("source", ["raise OSError('libbcc.so.0: cannot open')", "x = 1"])
def test_a_broken_bcc_is_one_line(packages: Path, source: str) -> None:
    """A bcc that cannot be loaded is named with the reason, and can be loaded once it is mended."""
    place = put_bcc(packages, source)
    with pytest.raises(MachineLacks, match=f"bcc in {place} cannot be loaded: "):
        bccloader.load_bcc()
    (place / "__init__.py").write_text("from .libbcc import BPF\n# mended\n")
    assert bccloader.load_bcc().BPF


@pytest.mark.root
def test_this_machine_has_what_recording_needs() -> None:
    """Where the tests record, the doctor has nothing to say."""
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 0, done.stdout
    assert len(done.stdout.splitlines()) == 9
