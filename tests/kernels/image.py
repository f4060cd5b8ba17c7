"""The machines that boot other kernels: a root file system for each processor, and an initial one for each kernel.

All of it is made from Debian's packages and PyPI's wheels, without running any of it, in a directory of the project.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from debian import FETCH_S, Archive, unpack

PROJECT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("FORKTRACE_KERNELS") or PROJECT / ".cache" / "kernels")
GUEST_INIT = Path(__file__).with_name("guest_init")
PYTHON = f"python3.{sys.version_info.minor}"  # that of forktrace: the one that compiles its modules here
OTHER_PYTHONS = ("3.9", "3.11", "3.13", "3.14", "3.15")  # recorded; those of Debian's suites, of which each has one or two
OLD_LIBRARIES = {"3.9": ("libffi7", "libssl1.1")}  # which no newer suite has
WHEELS = {"amd64": "x86_64", "arm64": "aarch64"}
MANYLINUX = ("2_28", "2_27", "2_26", "2_24", "2_17")  # glibc of the wheels; pip takes each by its very name
PACKAGES = (
    *("python3", "libpython3.13", "busybox-static", "bash", "coreutils", "util-linux", "mount", "procps", "iproute2", "strace"),
    *("sudo", "passwd", "login", "findutils", "grep", "sed", "gawk", "ca-certificates", "dash", "tar", "hostname", "libc-bin"),
    *("libstdc++6", "libffi8", "libssl3t64", "libpam-modules", "libpam-runtime", "util-linux-extra", "runc", "systemd"),
)
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_mmio", "virtio_blk"),
    *("crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4"),
)
IMAGE_BYTES = 4 << 30
# What the packages' own scripts would have written.
CONFIGURATION = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "shadow": "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n",
    "group": "root:x:0:\nshadow:x:42:\nsudo:x:27:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost guest\n",
    "hostname": "guest\n",
    "machine-id": "7a1c0b5d9e3f42f08d6b1e2c3a4f5b6d\n",
    "systemd/system/work.service": (
        "[Unit]\nDescription=What the host wants done\n"
        "[Service]\nType=oneshot\nExecStart=/sbin/guest_init work\nStandardOutput=file:/dev/console\n"
    ),
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    **{f"pam.d/common-{kind}": f"{kind} required pam_unix.so\n" for kind in ("auth", "account", "session")},
    "pam.d/common-password": "password required pam_unix.so yescrypt\n",
    "pam.d/common-session-noninteractive": "session required pam_unix.so\n",
}


@dataclass(frozen=True)
class Kernel:
    """A kernel of Debian's: the newest of a series, in a flavour, for a processor; `newest` is a series too."""

    series: str
    architecture: str = "amd64"
    flavour: str = "cloud"

    def __str__(self) -> str:
        return "-".join(filter(None, (self.series, self.flavour if self.flavour != "cloud" else "", self.architecture)))

    @property
    def packages(self) -> str:
        """The names of the packages that hold it: in some suites it is in one with its modules, in some in one of its own."""
        series = r"\d+\.\d+" if self.series == "newest" else re.escape(self.series)
        flavour = f"{self.flavour}-" if self.flavour != "generic" else ""
        return rf"linux-(?:image|binary)-{series}\.\d+(?:[+-](?:\d+|deb\d+(?:\.\d+)?))?-{flavour}{self.architecture}"


@dataclass(frozen=True)
class Boot:
    """What QEMU is given: the kernel, by its release, and its initial file system."""

    release: str
    kernel: Path
    initial: Path


def boot_files(kernel: Kernel) -> Boot:
    """Return the newest kernel of a series that Debian has, or that was kept.

    Raises:
        LookupError: there is none.
    """
    archive = Archive(kernel.architecture, CACHE)
    names = archive.names(kernel.packages)
    if not names:
        raise LookupError(f"Debian has no kernel {kernel} any more: put its package into {CACHE}/packages (CONTRIBUTING.md)")
    release = names[-1].split("-", 2)[2]
    wanted = archive.names(rf"linux-(?:image|binary|modules)-{re.escape(release)}")
    packages = archive.fetch(archive.exactly(wanted))
    folder = CACHE / "boot" / f"{release}-{_digest(packages, [GUEST_INIT])}"
    if not folder.exists():
        _make_boot_files(folder, release, packages, archive)
    return Boot(release, folder / "kernel", folder / "initial")


def _make_boot_files(folder: Path, release: str, packages: Iterable[Path], archive: Archive) -> None:
    busybox = archive.fetch(archive.exactly(["busybox-static"]))
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        root, made = Path(place) / "root", Path(place) / "made"
        for each in (root, made):
            each.mkdir()
        unpack([*packages, *busybox], root)
        image = next(path for path in root.rglob("vmlinu[xz]*") if path.is_file() and not path.is_symlink())
        shutil.copy(image, made / "kernel")
        modules = {}
        for number, name in enumerate(MODULES):
            if found := next(iter(root.rglob(f"{name}.ko*")), None):
                modules[f"modules/{number:02}-{name}.ko"] = _uncompressed(found)
        binary = next(path for path in (root / "usr/bin/busybox", root / "bin/busybox") if path.exists()).read_bytes()
        files = {"bin/busybox": binary, "init": GUEST_INIT.read_bytes(), **modules}
        (made / "initial").write_bytes(gzip.compress(archive_of(files), 1))
        folder.parent.mkdir(exist_ok=True)
        made.rename(folder)


def _uncompressed(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
    return path.read_bytes()


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive as the kernel takes it, of files that can be run.

    The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."} | {
        "proc",
        "sys",
        "dev",
        "new",
    }
    entries = [(name, 0o40755, b"") for name in sorted(folders)] + [(name, 0o100755, data) for name, data in files.items()]
    made = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        made += b"070701" + b"".join(b"%08X" % one for one in numbers) + name.encode() + b"\0"
        made += bytes(-len(made) % 4) + data
        made += bytes(-len(made) % 4)
    return bytes(made)


def root_image(architecture: str) -> Path:
    """Return the root file system for a processor; made again when what it holds has changed."""
    archive = Archive(architecture, CACHE)
    others = [version for version in OTHER_PYTHONS if archive.names(re.escape(f"python{version}-minimal"))]
    parts = [part for version in others for part in _python_parts(version)]
    wanted = [*archive.with_dependencies(PACKAGES), *archive.exactly(parts)]
    requirements = _requirements()
    key = _digest([], [GUEST_INIT, Path(__file__)], *wanted, *requirements, PYTHON)
    image = CACHE / f"root-{architecture}-{key}.img"
    if not image.exists():
        for old in CACHE.glob(f"root-{architecture}-*.img"):
            old.unlink()
        _make_root(image, architecture, archive.fetch(wanted), requirements)
    return image


def _python_parts(version: str) -> tuple[str, ...]:
    name = f"python{version}"
    return name, f"{name}-minimal", f"lib{name}-minimal", f"lib{name}-stdlib", *OLD_LIBRARIES.get(version, ())


def _requirements() -> list[str]:
    about = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return [*about["dependencies"], *about["optional-dependencies"]["kafka"], "pytest>=8", "hypothesis>=6", "pip"]


def _make_root(image: Path, architecture: str, packages: Iterable[Path], requirements: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        root, made = Path(place) / "root", Path(place) / "image"
        root.mkdir()
        for name in ("bin", "sbin", "lib", "lib64"):  # they are links since trixie; older packages have folders of that name
            (root / "usr" / name).mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(f"usr/{name}")
        unpack(packages, root)
        for name in ("proc", "sys", "dev", "tmp", "run", "root", "host", "opt/site"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "sbin/guest_init").write_bytes(GUEST_INIT.read_bytes())
        (root / "sbin/guest_init").chmod(0o755)
        for name, text in CONFIGURATION.items():
            (root / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "etc" / name).write_text(text)
        wanted = root / "etc/systemd/system/multi-user.target.wants"
        wanted.mkdir(parents=True)
        (wanted / "work.service").symlink_to("../work.service")
        local = root / f"usr/local/lib/{PYTHON}/dist-packages"
        local.mkdir(parents=True)
        (local / "site.pth").write_text("/opt/site\n")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", root / "opt/site"]
        pip += ["--no-compile", "--only-binary=:all:", "--python-version", PYTHON.removeprefix("python")]
        pip += [f"--platform=manylinux_{glibc}_{WHEELS[architecture]}" for glibc in MANYLINUX]
        subprocess.run([*pip, *requirements], check=True, timeout=FETCH_S)
        for tests in list((root / "opt/site").rglob("tests")):  # a third of what would be compiled
            shutil.rmtree(tests)
        _compile(root, "opt/site")
        _compile(root, f"usr/lib/{PYTHON}")
        with made.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        owner = ["-E", "root_owner=0:0"] if os.geteuid() else []
        features = "^metadata_csum_seed,^orphan_file"  # which older kernels do not know
        mke2fs = shutil.which("mke2fs", path=os.defpath + ":/sbin:/usr/sbin") or "mke2fs"
        subprocess.run([mke2fs, "-q", "-t", "ext4", "-O", features, *owner, "-d", root, made], check=True)
        made.rename(image)


def _compile(root: Path, folder: str) -> None:
    """Compile modules here: in the machine it takes ten times as long. Not all of them are valid Python."""
    line = [sys.executable, "-m", "compileall", "-q", "-j0", "-s", root, "-p", "/", root / folder]
    subprocess.run(line, stdout=subprocess.DEVNULL, check=False)


def _digest(packages: Iterable[Path], files: Iterable[Path], *words: str) -> str:
    parts = [*(path.name for path in packages), *(path.read_text() for path in files), *words, sysconfig.get_python_version()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
