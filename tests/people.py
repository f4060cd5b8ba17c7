"""An ordinary user of this machine, made for a test, and forktrace installed where such a user can run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import pytest
from recorded import DEBIAN, MARK, PATIENCE_S, wait_until

import forktrace

PASSWORD: Final = "correct horse"
DEPENDENCIES: Final = ("click", "numpy", "numpy.libs", "pyarrow")  # of record; what others need is imported elsewhere
SCRIPT: Final = "#!{python}\nimport sys\nfrom forktrace.cli import main\nsys.exit(main())\n"
RECORDER: Final = (
    "from forktrace.launcher.recorder_process import recorder_command as it; import shlex; print(shlex.join(it()))"
)


@dataclass(frozen=True)
class Person:
    """A user with a home, a password, and a group besides the own one."""

    name: str
    uid: int
    gid: int
    home: Path

    def environment(self, mark: str = "", **more: str) -> dict[str, str]:
        """What the person's shell exports."""
        own = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "SHELL": "/bin/sh", "TERM": "dumb"}
        return own | {"PATH": "/usr/bin:/bin", "MAIL": "of the person", MARK: mark} | more

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command line by which root becomes the person, as login does."""
        return ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "--inh-caps=-all", *command]

    def run(self, command: Sequence[str], timeout_s: float = PATIENCE_S, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the person would from cron: without a terminal."""
        return subprocess.run(
            self.command(command),
            env=self.environment(**more),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,
        )

    def owns(self, path: Path) -> None:
        """Give a file, or a directory with all that is in it, to the person."""
        for each in (path, *path.rglob("*")):
            os.chown(each, self.uid, self.gid, follow_symlinks=False)

    @contextmanager
    def may(self, command: str, *defaults: str, password: bool = False) -> Iterator[None]:
        """Let sudo run `command` for the person."""
        rule = Path("/etc/sudoers.d", self.name)
        lines = [f"Defaults:{self.name} {one}" for one in ("timestamp_timeout=0", *defaults)]
        rule.write_text("\n".join([*lines, f"{self.name} ALL=(ALL:ALL) {'' if password else 'NOPASSWD: '}{command}", ""]))
        rule.chmod(0o440)
        try:
            yield
        finally:
            rule.unlink()


@contextmanager
def somebody(folder: Path) -> Iterator[Person]:
    """Make a person, and remove everything about them again."""
    if subprocess.run(["sh", "-c", "command -v sudo useradd setpriv"], capture_output=True, check=False).returncode:
        pytest.skip("sudo, useradd or setpriv is not installed")
    name, home = f"ft-person-{os.getpid()}", folder / "home"
    subprocess.run(["groupadd", f"{name}-too"], check=True)
    try:
        subprocess.run(["useradd", "-m", "-d", home, "-s", "/bin/sh", "-U", "-G", f"{name}-too", name], check=True)
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}\n", text=True, check=True)
        home.chmod(0o755)
        about = home.stat()
        yield Person(name, about.st_uid, about.st_gid, home)
    finally:
        gone = ["userdel", "--remove", name]
        wait_until(lambda: subprocess.run(gone, capture_output=True, check=False).returncode in (0, 6), f"{name} is gone")
        subprocess.run(["groupdel", f"{name}-too"], check=False)


def open_to_all(path: Path) -> bool:
    """Whether everybody may go to this place and look."""
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


def python_for_all() -> str:
    """An interpreter that everybody may execute, for which the modules of the tests are built."""
    for python in (os.path.realpath(sys.executable), DEBIAN):
        if os.path.exists(python) and open_to_all(Path(os.path.realpath(python)).parent):
            version = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
            if version.stdout.split() == [str(number) for number in sys.version_info[:2]]:
                return python
    pytest.skip("no Python of the tests' version can be executed by everybody")


def dependencies(folder: Path) -> Path:
    """A directory that everybody can read, with what forktrace imports; a copy only where there is none yet."""
    here = Path(str(click.__file__)).parents[1]
    if open_to_all(here):
        return here
    made = folder / "dependencies"
    for name in DEPENDENCIES:
        if not (made / name).exists() and (here / name).exists():
            shutil.copytree(here / name, made / name)
    return made


def put_package(place: Path) -> None:
    """Install the package, as a wheel has it."""
    package, probes = Path(str(forktrace.__file__)).parent, Path(str(forktrace.__file__)).parents[1] / "probes"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, place / "forktrace", ignore=ignore, dirs_exist_ok=True)
    if probes.is_dir():  # a checkout
        shutil.copytree(probes, place / "forktrace/probes", dirs_exist_ok=True)


def make_venv(folder: Path, base: Path) -> Path:
    """Install forktrace in a virtual environment and return its command."""
    python = python_for_all()
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{dependencies(base)}\n")
    put_package(packages)
    command = folder / "bin/forktrace"
    command.write_text(SCRIPT.format(python=folder / "bin/python"))
    command.chmod(0o755)
    return command


def make_pipx(person: Person, base: Path) -> Path:
    """Install it as pipx and uv do: a virtual environment somewhere, and a link to its command."""
    command = person.home / ".local/bin/forktrace"
    command.parent.mkdir(parents=True)
    command.symlink_to(make_venv(person.home / ".local/share/pipx/venvs/forktrace", base))
    person.owns(person.home / ".local")
    return command


def make_user_site(person: Person, base: Path) -> list[str]:
    """Install it as `pip install --user` does: where a Python that is cut off from the user's modules does not look."""
    python, version = python_for_all(), "python{}.{}".format(*sys.version_info)
    packages = person.home / ".local/lib" / version / "site-packages"
    put_package(packages)
    for name in DEPENDENCIES:
        if (dependencies(base) / name).exists():
            (packages / name).symlink_to(dependencies(base) / name)
    person.owns(person.home / ".local")
    return [python, "-m", "forktrace"]


def recorder_line(python: str, person: Person) -> str:
    """What sudo is asked to run, as a rule in sudoers(5) has it."""
    done = person.run([python, "-c", RECORDER])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
