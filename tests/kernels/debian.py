"""Debian's packages for another suite or processor: looked up, verified and fetched by apt, unpacked and not installed.

apt gets a configuration and a state of its own below one directory, so that the system's own is neither read nor changed.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

SUITES = ("bullseye", "bookworm", "trixie", "sid")
MIRROR = "http://deb.debian.org/debian"
LISTS_S = 12 * 3600  # as long what the suites hold is believed
FETCH_S = 300  # how long apt or pip may take for one call
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Archive:
    """The packages of one processor architecture (`amd64`, `arm64`), and if wanted their sources, kept in a directory."""

    def __init__(self, architecture: str, folder: Path, with_sources: bool = False) -> None:
        self.architecture = architecture
        self._packages = folder / "packages"
        self._state = folder / f"apt-{architecture}"
        for place in ("lists/partial", "cache/archives/partial"):
            (self._state / place).mkdir(parents=True, exist_ok=True)
        self._packages.mkdir(parents=True, exist_ok=True)
        (self._state / "status").touch()
        kinds = ("deb", "deb-src") if with_sources else ("deb",)
        sources = [f"{kind} [signed-by={KEYRING}] {MIRROR} {suite} main\n" for kind in kinds for suite in SUITES]
        (self._state / "sources.list").write_text("".join(sources))
        (self._state / "preferences").write_text("Package: *\nPin: release n=trixie\nPin-Priority: 990\n")

    def names(self, pattern: str) -> list[str]:
        """Return the names of the packages that fit a regular expression, in the order of the versions in them."""
        self._update()
        known = self._apt("apt-cache", "pkgnames").splitlines()
        return sorted((name for name in known if re.fullmatch(pattern, name)), key=_by_version)

    def with_dependencies(self, names: Sequence[str]) -> list[str]:
        """Return `package=version` for packages of trixie and all that they depend on."""
        self._update()
        lines = self._apt("apt-get", "install", "-y", "--simulate", *names).splitlines()
        found = [re.match(r"Inst (\S+) \((\S+) ", line) for line in lines]
        return sorted(f"{one[1].partition(':')[0]}={one[2]}" for one in found if one)

    def exactly(self, names: Iterable[str]) -> list[str]:
        """Return `package=version` for the newest version of each package in any suite, and for nothing else."""
        self._update()
        wanted, versions = list(names), dict[str, str]()
        for line in self._apt("apt-cache", "madison", *wanted).splitlines():
            name, version, _ = (part.strip() for part in line.split("|"))
            versions.setdefault(name, version)
        if missing := set(wanted) - set(versions):
            raise LookupError(f"Debian has no package {min(missing)} for {self.architecture} any more")
        return [f"{name}={versions[name]}" for name in wanted]

    def fetch(self, wanted: Iterable[str]) -> list[Path]:
        """Return the files of packages (`package=version`), which stay for the next time."""
        found, missing = [], []
        for one in wanted:
            name, _, version = one.partition("=")
            path = self._kept(name, version)
            if path is None:
                missing.append(one)
            else:
                found.append(path)
        if missing:
            self._update()
            self._apt("apt-get", "download", *missing, folder=self._packages)
            return found + self.fetch(missing)
        return found

    def source(self, name: str, suite: str) -> Path:
        """Return what its makers released as the source of a package."""
        self._update()
        self._apt("apt-get", "source", "--download-only", f"{name}/{suite}", folder=self._packages)
        return max(self._packages.glob(f"{name}_*.orig.tar.*z"))

    def _kept(self, name: str, version: str) -> Path | None:
        spelled = version.replace(":", "%3a")
        files = (self._packages / f"{name}_{spelled}_{kind}.deb" for kind in (self.architecture, "all"))
        return next((path for path in files if path.exists()), None)

    def _update(self) -> None:
        said = self._state / "updated"
        if not said.exists() or time.time() - said.stat().st_mtime > LISTS_S:
            self._apt("apt-get", "update", "-q")
            said.touch()

    def _apt(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        state = self._state
        settings = {
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::preferences": state / "preferences",
            **dict.fromkeys(("Dir::Etc::sourceparts", "Dir::Etc::parts", "Dir::Etc::preferencesparts"), "/dev/null"),
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "APT::Cache-Limit": 0,
            # The lists are read once: images for Docker turn that off, and then each call takes three seconds.
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Acquire::GzipIndexes": "false",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "1",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        done = subprocess.run(
            [program, *options, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_S
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


def unpack(packages: Iterable[Path], root: Path) -> None:
    """Unpack packages into the directory `root`, without their scripts."""
    for package in packages:
        data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], stdin=data.stdout, check=True)
        if data.wait():
            raise RuntimeError(f"{package} is damaged: remove it")


def _by_version(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
