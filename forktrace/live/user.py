"""For whom the target runs, and with whose rights files are opened: the person who typed the command, never root for them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forktrace.errors import UsageError


@dataclass(frozen=True)
class User:
    """The person for whom the target runs."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]


def named_user(name: str) -> User:
    """Return the user called `name`, or with that number; the environment is this process's with HOME, USER, LOGNAME and SHELL.

    Raises:
        UsageError: there is no such user.
    """
    try:
        entry = _password_entry(name)
    except (KeyError, OverflowError):
        raise UsageError(f"there is no user {name}") from None
    changed = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell}
    return _user(entry, dict(os.environ) | changed)


def _password_entry(name: str) -> pwd.struct_passwd:
    """As chown(1) does it: a number that is somebody's name is that name."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        if not (name.isascii() and name.isdigit()):
            raise
        return pwd.getpwuid(int(name))


def invoking_user() -> User:
    """Return who typed the command: under sudo the caller, with the environment that sudo itself was given; else root."""
    environment = sudo_environment()
    if environment is None or "SUDO_UID" not in os.environ:
        return _user(pwd.getpwuid(0), dict(os.environ))
    uid = int(os.environ["SUDO_UID"])
    try:
        return _user(pwd.getpwuid(uid), environment)
    except KeyError:  # a number without a name, as in some containers
        gid = int(os.environ.get("SUDO_GID", uid))
        return User(str(uid), uid, gid, (gid,), environment)


def _user(entry: pwd.struct_passwd, environment: Mapping[str, str]) -> User:
    groups = os.getgroups() if entry.pw_uid == os.getuid() else os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), environment)


def sudo_environment() -> dict[str, str] | None:
    """Return the environment of the sudo above this process, None when there is none.

    sudo gives its command a cleaned environment, and keeps the caller's own for itself; with use_pty it is two processes alike.
    """
    pid, sudo = os.getpid(), 0
    while pid > 1:
        comm, parent = _name_and_parent(pid)
        if comm == "sudo":
            sudo = pid
            break
        pid = parent
    if not sudo:
        return None
    raw = Path(f"/proc/{sudo}/environ").read_bytes()
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _name_and_parent(pid: int) -> tuple[str, int]:
    before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    return before.partition("(")[2], int(after.split()[1])


def become(who: User) -> None:
    """Take on the user's groups and numbers, for good."""
    if (who.uid, who.gid) == (os.getuid(), os.getgid()):
        return
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)


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
