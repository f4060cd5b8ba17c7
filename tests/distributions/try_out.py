"""Does on fresh Debian systems what README says, as a stranger would: `make test-distributions`, as root.

Each suite is installed by debootstrap into a directory, with this project in a user's home of mode 0700; there the user types
`make demo` with sudo, then records without it in front, under sudo and sudo-rs, and asks `forktrace doctor`. The kernel is this
machine's. What was printed is in .cache/distributions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / ".cache" / "distributions"
MIRROR = "http://deb.debian.org/debian"
SUITES = ("bookworm", "trixie", "sid")
SHARED = ("proc", "sys", "dev")
# How this machine reaches its registries, which a fresh one would not have to be told.
SETTINGS = ("/etc/apt/apt.conf.d/99artifact-registry", "/etc/resolv.conf")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PIP = "[global]\ncert = /etc/certificates-of-the-host.crt\n"

SETUP = """
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -qy --no-install-recommends git make sudo ca-certificates {more}
useradd -m -s /bin/bash alice && chmod 700 /home/alice
echo 'alice ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/alice
mv /srv/forktrace /home/alice/ && chown -R alice: /home/alice
"""
DEMO = "cd ~/forktrace && sudo make demo"
RECORD = (
    "cd ~/forktrace && .venv/bin/forktrace record -o run.arrows -- python3 -c 'import os; os.fork() or os._exit(3); os.wait()'"
)
WHY = "cd ~/forktrace && .venv/bin/forktrace why run.arrows"
SUDO_RS = "cp -p $(command -v sudo-rs || echo /usr/lib/cargo/bin/sudo) /usr/local/bin/sudo; mv /usr/bin/sudo /usr/bin/sudo.ws"


@contextlib.contextmanager
def installed(suite: str) -> Iterator[Path]:
    """A fresh system of a suite, which is removed in the end."""
    root = CACHE / suite
    _remove(root)
    subprocess.run(["debootstrap", "--variant=minbase", suite, str(root), MIRROR], check=True, stdout=subprocess.DEVNULL)
    try:
        for name in SHARED:
            subprocess.run(["mount", "--rbind", "--make-rslave", f"/{name}", str(root / name)], check=True)
        for setting in filter(os.path.exists, SETTINGS):
            shutil.copy(setting, root / setting.lstrip("/"))
        shutil.copy(CERTIFICATES, root / "etc/certificates-of-the-host.crt")
        (root / "etc/pip.conf").write_text(PIP)
        files = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True
        ).stdout
        (root / "srv/forktrace").mkdir(parents=True)
        packed = subprocess.run(["tar", "-c", "--null", "-T", "-"], input=files, cwd=PROJECT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", root / "srv/forktrace"], input=packed.stdout, check=True)
        yield root
    finally:
        _remove(root)


def _remove(root: Path) -> None:
    for name in SHARED:
        if os.path.ismount(root / name):
            subprocess.run(["umount", "-R", "-l", str(root / name)], check=True)
    if root.exists():
        shutil.rmtree(root)


def inside(root: Path, log: Path, user: str, script: str) -> str:
    """Run a shell script there; what it prints goes to the log, and is returned.

    Raises:
        AssertionError: it fails.
    """
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    line = ["chroot", str(root), "su", "-", user, "-c", script]
    done = subprocess.run(
        line, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with log.open("a") as file:
        file.write(f"$ {script}\n{done.stdout}\n")
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}"
    return done.stdout


def try_out(suite: str) -> str:
    """Do all of it on one suite; return a line with what came."""
    log = CACHE / f"{suite}.txt"
    log.write_text("")
    with installed(suite) as root:
        has_sudo_rs = suite != "bookworm"
        inside(root, log, "root", SETUP.format(more="sudo-rs" if has_sudo_rs else ""))
        began = time.monotonic()
        said = inside(root, log, "alice", DEMO)
        assert "Why they were reaped" in said
        assert "forktrace-kafka." in said
        took_s = time.monotonic() - began
        inside(root, log, "alice", "sudo chown -R alice: ~/forktrace")
        sudos = ["sudo"]
        inside(root, log, "alice", RECORD)
        explained = inside(root, log, "alice", WHY)
        assert "os.wait" in explained or "wait4" in explained
        if has_sudo_rs:  # in the place of sudo, as where a distribution has chosen it
            inside(root, log, "root", SUDO_RS)
            inside(root, log, "alice", f"rm -f ~/forktrace/run.arrows; {RECORD}")
            sudos.append("sudo-rs")
        verdict = inside(root, log, "root", "cd /home/alice/forktrace && .venv/bin/forktrace doctor").splitlines()[-1]
        assert verdict == "forktrace can record here", verdict
        bcc = inside(root, log, "root", "apt-cache policy python3-bpfcc | sed -n 's/ *Candidate: //p'").strip()
        python = inside(root, log, "alice", "cd ~/forktrace && .venv/bin/python -V").strip()
    return f"{suite}: make demo in {took_s:.0f} s; record under {' and '.join(sudos)}; {python}, python3-bpfcc {bcc}; {verdict}"


def main() -> None:
    """Print a line for each suite, and end with 1 where something failed."""
    if os.geteuid() != 0:
        sys.exit("debootstrap and chroot need root")
    CACHE.mkdir(parents=True, exist_ok=True)
    failed = 0
    for suite in sys.argv[1:] or SUITES:
        try:
            print(try_out(suite), flush=True)
        except (AssertionError, subprocess.CalledProcessError) as error:
            failed += 1
            print(f"{suite}: {error}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
