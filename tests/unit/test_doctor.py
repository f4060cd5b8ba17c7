"""The doctor finds what is missing and names the command that mends it; the real bcc is told from its namesake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from recorded import forktrace_command

from forktrace.cli import checks, cli, trial
from forktrace.cli.checks import Finding
from forktrace.errors import MachineLacks
from forktrace.kernel import bccloader
from forktrace.kernel.layout import probe_directory
from forktrace.kernel.objects import OBJECT
from forktrace.launcher import recorder_process

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
    monkeypatch.setattr(bccloader, "USR", tmp_path)
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
    return {finding.name: finding for finding in checks.examine(tmp_path)}


def test_a_good_machine_has_nothing_to_mend(tmp_path: Path, packages: Path) -> None:
    """Every requirement is met, each with what was found."""
    put_bcc(packages)
    findings = examine(tmp_path)
    assert all(finding.good for finding in findings.values())
    assert findings["lockdown"].found == "integrity"
    assert findings["probes"].found.startswith("compiled by bcc")
    assert "bcc" not in findings, "it is not needed"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("kernel", {"proc/sys/kernel/osrelease": "5.9.16-generic"}, "older than 5.10"),
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
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, str | None], words: str
) -> None:
    """One requirement fails, all others are met, and the line says what to type."""
    put_bcc(packages)
    monkeypatch.setattr(recorder_process, "SUDO", ())
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
        {"proc/sys/kernel/osrelease": "5.10.0"},
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
    monkeypatch.setattr(recorder_process, "find_sudo", lambda: "/usr/bin/sudo")
    finding = examine(tmp_path, **{"proc/self/status": USER_STATUS})["rights"]
    assert finding.good
    assert finding.found == "not root: record runs the recorder through sudo, and nothing else"


def test_code_of_others(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forktrace that somebody else can change is nothing for root to run; the outermost place of all is named."""
    put_bcc(packages)
    program = tmp_path / "open" / "sudo_entry.py"
    program.parent.mkdir()
    program.touch()
    for place in (program, program.parent):
        place.chmod(0o777)
    monkeypatch.setattr(recorder_process, "PROGRAM", program)
    monkeypatch.setattr(sys, "executable", "/bin/sh")  # root's, wherever these tests are
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    finding = examine(tmp_path)["sudo"]
    assert not finding.good
    assert finding.found.endswith(f": {program.parent}")


def test_which_processors_record() -> None:
    """Two do; another one is named."""
    assert checks._architecture("x86_64").good
    assert checks._architecture("aarch64").good
    assert not checks._architecture("riscv64").good
    assert "riscv64: forktrace records on x86_64 and aarch64 only" in checks._architecture("riscv64").line()


@pytest.mark.parametrize("is_there", [True, False])
def test_probes_that_are_to_be_compiled(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """Who has changed the probes needs bcc and the C headers; who has not needs neither."""
    folder = tmp_path / "probes"
    shutil.copytree(probe_directory(), folder)
    with (folder / "events.h").open("a") as file:
        file.write("/* changed */\n")
    monkeypatch.setattr(checks, "probe_directory", lambda: folder)
    if is_there:
        put_bcc(packages)
    findings = examine(tmp_path / "root", **{} if is_there else {"usr/include/linux/types.h": None})
    assert findings["probes"].good
    assert findings["probes"].found.startswith("changed since they were compiled")
    assert [findings[name].good for name in ("bcc", "headers")] == [is_there, is_there]
    if is_there:
        assert findings["bcc"].found == f"0.99 in {packages / 'bcc'}"
    else:
        assert findings["headers"].mend == "sudo apt-get install -y linux-libc-dev"


def test_damaged_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged object is a failure, with what mends it."""
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / OBJECT).write_bytes(b"damaged")
    monkeypatch.setattr(checks, "probe_directory", lambda: tmp_path / "probes")
    finding = examine(tmp_path / "root")["probes"]
    assert (finding.good, finding.mend) == (False, "make object")


ROWS = [
    {"kind": "fork", "pid": 5, "origin": "target", "stack": None},
    {"kind": "fork", "pid": 6, "origin": "forked", "stack": "<string>:2 <module>"},
    {"kind": "exit", "pid": 6, "origin": None, "stack": None},
    {"kind": "zombie", "pid": 6, "origin": None, "stack": None},
    {"kind": "reap", "pid": 6, "origin": None, "stack": "<string>:4 <module>"},
]


@pytest.mark.parametrize(
    ("rows", "good", "words"),
    [
        (ROWS, True, "fork, exit, zombie and reap of a child came, with the Python lines"),
        (ROWS[:1], False, "of one fork 0 came"),
        (ROWS[:3], False, "did not come: zombie, reap"),
        ([*ROWS[:4], ROWS[4] | {"stack": None}], False, "no Python line of its reap"),
        ([ROWS[0], ROWS[1] | {"stack": "<string>:9 <module>"}, *ROWS[2:]], False, "no Python line of its fork"),
    ],
)
def test_what_came_of_a_recording(rows: list[dict[str, object]], good: bool, words: str) -> None:
    """A child of which something is missing is a failure that names it."""
    tried = trial.judge(rows)
    assert (tried.good, words in tried.found) == (good, True)


@pytest.mark.parametrize(
    ("names", "bad", "words"),
    [
        (["kernel", "recording"], None, "forktrace can record here"),
        (["kernel"], None, "was not tried, which takes root"),
        (["kernel", "on_fork"], "on_fork", "forktrace cannot record here: on_fork"),
    ],
)
def test_the_verdict(names: list[str], bad: str | None, words: str) -> None:
    """The last line says whether forktrace can record, and what keeps it from that."""
    assert words in checks.verdict([Finding(name != bad, name, "") for name in names])


@pytest.mark.root
def test_it_is_tried_out() -> None:
    """As root each program is loaded, and a child is recorded from its fork to its reap."""
    done = subprocess.run(forktrace_command("doctor"), capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "forktrace can record here"), done.stdout
    for program in ("on_fork", "on_exec", "on_exit", "on_signal", "on_free", "on_call", "on_mmap", "on_task"):
        assert any(line.split()[:2] == ["ok", program] and "instructions verified" in line for line in lines), program
    assert lines[-2].endswith("with the Python lines of fork and reap")


def test_a_virtual_environment_gets_the_line_for_sudo(tmp_path: Path) -> None:
    """Where sudo's PATH does not reach, the hint is a command to copy; it is no failure."""
    program = tmp_path / "my bin" / "forktrace"
    program.parent.mkdir()
    program.touch()
    if Path("/usr/local/bin/forktrace").exists():
        pytest.skip("there is a link in /usr/local/bin already")
    finding = checks._sudo(program)
    assert finding.good
    assert f"sudo ln -s '{program}' /usr/local/bin/" in finding.line()
    assert checks._sudo(Path("/usr/bin/ls")).mend == ""
    cached = tmp_path / ".cache/uv/forktrace"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert checks._sudo(cached).mend == 'sudo "$(command -v forktrace)" works'


def test_the_command_ends_with_78(monkeypatch: pytest.MonkeyPatch) -> None:
    """`forktrace doctor` prints one line each; any failure is status 78, and then nothing is tried."""
    good, bad = Finding(True, "kernel", "6.18"), Finding(False, "BTF", "missing", "do this")
    tried = Finding(True, "recording", "came")
    monkeypatch.setattr(checks, "try_out", lambda: iter([tried]))
    monkeypatch.setattr(checks, "examine", lambda: iter([good, bad]))
    done = CliRunner().invoke(cli, ["doctor"])
    assert (done.exit_code, done.stdout.splitlines()[:-1]) == (78, [good.line(), bad.line()])
    monkeypatch.setattr(checks, "examine", lambda: iter([good]))
    done = CliRunner().invoke(cli, ["doctor"])
    assert (done.exit_code, done.stdout.splitlines()[:-1]) == (0, [good.line(), tried.line()])


@pytest.mark.root
@pytest.mark.parametrize(
    "folder", ["lib/python3.9/site-packages", "lib64/python3.9/site-packages", "lib/python3/dist-packages"]
)
def test_a_bcc_beside_another_python(packages: Path, tmp_path: Path, folder: str) -> None:
    """It is found, if root has put it there."""
    (tmp_path / folder).mkdir(parents=True)
    place = put_bcc(tmp_path / folder)
    os.chown(place, 1, 1)
    assert bccloader.find_bcc() is None
    os.chown(place, 0, 0)
    assert bccloader.find_bcc() == place


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
    assert f"{namesake} is PyPI's package of that name and is not used" in checks._bcc().found


@pytest.mark.parametrize("source", ["raise OSError('libbcc.so.0: cannot open')", "x = 1"])
def test_a_broken_bcc_is_one_line(packages: Path, source: str) -> None:
    """A bcc that cannot be loaded is named with the reason, and can be loaded once it is mended."""
    place = put_bcc(packages, source)
    with pytest.raises(MachineLacks, match=f"bcc in {place} cannot be loaded: "):
        bccloader.load_bcc()
    (place / "__init__.py").write_text("from .libbcc import BPF\n# mended\n")
    assert bccloader.load_bcc().BPF
