"""The text of source lines in a trace: what the target's user can read, and nothing that only root can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded import DEBIAN, WORKLOADS, Recorded

pytestmark = pytest.mark.root

SECRET = "FORKTRACE-SECRET"
OPEN = "import os  # that everybody can read"
GIB = 1 << 30


@pytest.fixture(scope="module")
def folder(open_folder: Path) -> Iterator[Path]:
    """A directory with the program, and files of all kinds: readable and secret, no files at all, and without an end."""
    made = open_folder / "sources"
    made.mkdir(mode=0o755)
    shutil.copy(WORKLOADS / "hostile.py", made)
    for name, mode, text in (("open.py", 0o644, OPEN), ("relative.py", 0o644, OPEN), ("secret.py", 0o600, SECRET)):
        (made / name).write_text(f"# 1\n{text}\n# 3\n# 4\n")
        (made / name).chmod(mode)
    (made / "locked").mkdir(mode=0o700)
    shutil.copy(made / "secret.py", made / "locked" / "open.py")
    (made / "locked" / "open.py").chmod(0o644)
    (made / "link.py").symlink_to("secret.py")
    os.mkfifo(made / "fifo.py")
    (made / "fifo.py").chmod(0o666)
    (made / "directory.py").mkdir(mode=0o755)
    with (made / "endless.py").open("w") as file:
        file.truncate(64 * GIB)
    (made / "no-text.py").write_bytes(b"# 1\n\xff\xfe\x00\x80\n# 3\n")
    for path in (made / "hostile.py", made / "endless.py", made / "no-text.py"):
        path.chmod(0o644)
    yield made
    shutil.rmtree(made)


def hostile_names(folder: Path) -> list[str]:
    """File names whose text must not come into a trace that user nobody makes."""
    here = [
        "secret.py",
        "link.py",
        "locked/open.py",
        "fifo.py",
        "directory.py",
        "endless.py",
        "missing.py",
        "../sources/secret.py",
    ]
    devices = ["/dev/zero", "/dev/stdin", "/dev/fd/3", "/dev/tty"]
    kernel = ["/proc/self/environ", "/proc/self/mem", "/proc/self/maps", "/proc/1/environ", "/proc/kmsg", "/proc/self/fd/3"]
    more = ["/etc/shadow", "/root/.bashrc", "<string>", "", "/" * 300, "/proc/self/root" * 20 + "/etc/shadow"]
    return [str(folder / name) for name in here] + ["secret.py"] + devices + kernel + more


def sources(recorded: Recorded) -> dict[str, dict[int, str]]:
    """The text of each line by file, as the trace has it."""
    raw = recorded.raw
    found: dict[str, dict[int, str]] = {}
    for row in raw[raw["kind"] == "source"].itertuples():
        found.setdefault(row.file, {})[int(row.line)] = row.detail
    return found


def texts(recorded: Recorded) -> str:
    """Every text of the trace, but the arguments that the program was given."""
    raw = recorded.raw
    columns = [name for name in raw if name != "argv"]
    return "\n".join(str(value) for name in columns for value in raw[name].unique())


@pytest.fixture(scope="module")
def hostile(record: Callable[..., Recorded], folder: Path) -> Recorded:
    """What user nobody records of a program with these file names; run by root, with a secret in root's environment."""
    if not Path(DEBIAN).exists():
        pytest.skip("needs an interpreter that every user can execute")
    names = hostile_names(folder)
    command = [DEBIAN, str(folder / "hostile.py"), *names, str(folder / "open.py"), "relative.py", str(folder / "no-text.py")]
    recorded = record(command, "--user", "nobody", timeout_s=60, cwd=folder)
    assert recorded.returncode == 0, recorded.stderr
    return recorded


def test_no_secret_is_read(hostile: Recorded, folder: Path) -> None:
    """A file name of the target's choice makes root read nothing that the target's user could not read itself."""
    assert SECRET not in texts(hostile)
    assert "root:" not in texts(hostile)
    assert sources(hostile).keys() & set(hostile_names(folder)) == set()


def test_what_can_be_read_is_there(hostile: Recorded, folder: Path) -> None:
    """The lines on which frames stand are in the trace, stripped; of relative names too, seen from the target's directory."""
    found = sources(hostile)
    program = (WORKLOADS / "hostile.py").read_text().splitlines()
    assert found[str(folder / "open.py")][2] == OPEN
    assert found["relative.py"][2] == OPEN
    assert found[str(folder / "hostile.py")] == {7: program[6].strip()}


def test_every_fork_has_its_stack(hostile: Recorded, folder: Path) -> None:
    """Whatever the file is: the stack names it."""
    raw = hostile.raw
    forks = raw[(raw["kind"] == "fork") & (raw["origin"] == "forked")]
    assert len(forks) == len(hostile_names(folder)) + 3
    assert set(forks["stack_status"]) == {"ok"}


def test_no_source(record: Callable[..., Recorded], folder: Path) -> None:
    """--no-source leaves all text out, and the stacks in."""
    recorded = record([DEBIAN, str(folder / "hostile.py"), str(folder / "open.py")], "--no-source")
    assert sources(recorded) == {}
    assert OPEN not in texts(recorded)
    (fork,) = recorded.raw[(recorded.raw["kind"] == "fork") & (recorded.raw["origin"] == "forked")].itertuples()
    assert fork.stack == f"{folder}/hostile.py:7 <module>;{folder}/open.py:2 <module>"


def test_no_stacks(record: Callable[..., Recorded], folder: Path) -> None:
    """--no-stacks leaves stacks, their statuses and source lines out; all else is recorded."""
    recorded = record([DEBIAN, str(folder / "hostile.py"), str(folder / "open.py")], "--no-stacks")
    raw = recorded.raw
    assert raw["stack"].isna().all()
    assert raw["stack_status"].isna().all()
    assert sources(recorded) == {}
    assert recorded.table["exit_code"].tolist() == [0, 0]
    assert recorded.table["reap_call"].tolist()[1] == "wait4"
