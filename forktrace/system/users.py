"""The user for whom the target runs and files are opened: the person who typed the command, not root."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forktrace.errors import PermissionMissing, UsageError


@dataclass(frozen=True)
class User:
    """The person for whom the target runs."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]
    umask: int | None = None  # None: that of this process


def named_user(name: str) -> User:
    """Return the user called `name`, or with that number; the environment is this process's with HOME, USER, LOGNAME and SHELL.

    Raises:
        UsageError: there is no such user.
        PermissionMissing: it is somebody else, and this process is not root.
    """
    try:
        entry = _password_entry(name)
    except (KeyError, OverflowError):
        raise UsageError(f"there is no user {name}") from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise PermissionMissing(f"only root can run a command as {entry.pw_name}", "sudo forktrace record --user does")
    changed = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return _user(entry, own_environment() | changed)


def _password_entry(name: str) -> pwd.struct_passwd:
    """As chown(1) does: digits that are a user's name are that name."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        if not (name.isascii() and name.isdigit()):
            raise
        return pwd.getpwuid(int(name))


def invoking_user() -> User:
    """Return who typed the command: this process's user; under sudo its caller, with the environment that sudo was given."""
    sudo = find_sudo_above() if os.geteuid() == 0 and "SUDO_UID" in os.environ else None
    if sudo is None:
        return User(_name_of(os.getuid()), os.getuid(), os.getgid(), tuple(os.getgroups()), own_environment())
    return sudo_caller(environment_of(sudo), umask_of_caller(sudo))


def sudo_caller(environment: Mapping[str, str], umask: int | None = None) -> User:
    """Return who called sudo, as sudo says (sudo(8), SUDO_UID), with all groups of that user."""
    uid = int(os.environ["SUDO_UID"])
    gid = int(os.environ.get("SUDO_GID", uid))
    try:
        name = pwd.getpwuid(uid).pw_name
        groups = tuple(os.getgrouplist(name, gid))
    except KeyError:  # a number without a name, as in some containers
        name, groups = str(uid), (gid,)
    return User(name, uid, gid, groups, environment, umask)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _user(entry: pwd.struct_passwd, environment: Mapping[str, str]) -> User:
    groups = os.getgroups() if entry.pw_uid == os.getuid() else os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), environment)


def find_sudo_above() -> int | None:
    """Return the pid of the sudo that this process runs under; None: there is none."""
    pid = os.getpid()
    while pid > 1:
        comm, parent = _name_and_parent(pid)
        if comm == "sudo":
            return pid
        pid = parent
    return None


def own_environment() -> dict[str, str]:
    """Return the environment that this process was given, without the LC_CTYPE that Python adds (PEP 538)."""
    return environment_of(os.getpid())


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with.

    sudo cleans the environment of its command and keeps the caller's for itself; with use_pty sudo is two processes.
    """
    raw = Path(f"/proc/{pid}/environ").read_bytes()
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def umask_of_caller(sudo: int) -> int | None:
    """Return the umask of the process that called sudo (sudo makes it stricter); None: not known."""
    pid = sudo
    while _name_and_parent(pid)[0] == "sudo" and pid > 1:
        pid = _name_and_parent(pid)[1]
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return int(status["Umask"][0], 8) if status["Uid"][0] == os.environ["SUDO_UID"] else None


def _name_and_parent(pid: int) -> tuple[str, int]:
    before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    return before.partition("(")[2], int(after.split()[1])


def become(who: User, real: int | None = None) -> None:
    """Become the user for good: groups, numbers and umask. `real` replaces the real and saved user number."""
    if who.umask is not None:
        os.umask(who.umask)
    if (who.uid, who.gid) == (os.getuid(), os.getgid()):
        return
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    real = who.uid if real is None else real
    os.setresuid(real, who.uid, real)


def as_user(who: User, function: Any, *arguments: Any) -> Any:
    """Call `function` with the rights of `who`."""
    if who.uid == os.geteuid():
        return function(*arguments)
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(who.groups)
    os.setegid(who.gid)
    os.seteuid(who.uid)
    try:
        return function(*arguments)
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
