"""Builds a free-threaded Python from a source package of Debian, if there is none yet: for `make test-free-threaded`."""

import os
import subprocess
import tempfile
from pathlib import Path

from debian import Archive
from recorded import BUILT_PYTHONS

PACKAGE, SUITE, NAME = "python3.13", "trixie", "3.13t"
OPTIONS = ("--disable-gil", "--without-ensurepip", "--disable-test-modules", "--quiet", "OPT=-DNDEBUG -O1 -fwrapv")


def build(source: Path, into: Path) -> None:
    """Build and install CPython as `into`/bin/python."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["tar", "-x", "--strip-components=1", "-f", source, "-C", place], check=True)
        subprocess.run([f"{place}/configure", *OPTIONS, f"--prefix={into}"], cwd=place, check=True)
        for target in ("all", "altinstall"):
            subprocess.run(["make", "-s", f"-j{os.cpu_count()}", target], cwd=place, check=True)
    (into / "bin" / "python").symlink_to(f"python{NAME}")


if __name__ == "__main__":
    if not (BUILT_PYTHONS / NAME / "bin" / "python").exists():
        processor = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
        build(Archive(processor, BUILT_PYTHONS / "debian", with_sources=True).source(PACKAGE, SUITE), BUILT_PYTHONS / NAME)
