"""Finds and loads the distribution's bcc, by its own path: the rest of its directory stays off `sys.path`.

PyPI's `bcc` is another package (body-centred cubic lattices), and a virtual environment can contain it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Final

from forktrace.errors import MachineLacks

INSTALL: Final = "sudo apt-get install -y python3-bpfcc"

_VERSION: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
PLACES: Final = tuple(
    Path(place)
    for place in (
        "/usr/lib/python3/dist-packages/bcc",  # Debian, Ubuntu
        f"/usr/lib/{_VERSION}/site-packages/bcc",  # Fedora, Arch
        f"/usr/local/lib/{_VERSION}/dist-packages/bcc",  # built from source
        f"/usr/local/lib/{_VERSION}/site-packages/bcc",
    )
)
USR: Final = Path("/usr")


def load_bcc() -> ModuleType:
    """Return the module `bcc`; BCC_KERNEL_SOURCE must be set before.

    Raises:
        MachineLacks: it is not installed (and perhaps its namesake is), or it cannot be loaded.
    """
    if "bcc" in sys.modules and is_real(Path(str(sys.modules["bcc"].__file__)).parent):
        return sys.modules["bcc"]
    place = find_bcc()
    if place is None:
        raise MachineLacks(absence(), INSTALL)
    try:
        return _load(place)
    except Exception as error:  # an incomplete installation can raise anything
        raise MachineLacks(
            f"bcc in {place} cannot be loaded: {error}", INSTALL.replace("install", "install --reinstall")
        ) from error


def absence() -> str:
    """Return the sentence that says that bcc is missing, and what is there instead."""
    namesake = find_namesake()
    also = f" ({namesake} is PyPI's package of that name, which has nothing to do with eBPF)" if namesake else ""
    return f"the distribution's bcc is not installed{also}"


def find_bcc() -> Path | None:
    """Return the directory of the real bcc: one of the distributions' places, else wherever Python would find it."""
    candidates = [*PLACES, *_for_other_pythons(), *filter(None, [_importable()])]
    return next(filter(is_real, candidates), None)


def _for_other_pythons() -> list[Path]:
    """bcc for another version of Python, as on RHEL 9 and Amazon Linux: it is Python and ctypes, so it works here too."""
    found = sorted(USR.glob("lib*/python3*/*-packages/bcc"), reverse=True)
    return [place for place in found if place.stat().st_uid == 0]


def find_namesake() -> Path | None:
    """Return the directory of a `bcc` that Python would import and that is not the real one."""
    place = _importable()
    return None if place is None or is_real(place) else place


def is_real(place: Path) -> bool:
    """Return whether the package in the directory `place` is the one that drives eBPF."""
    return (place / "__init__.py").is_file() and (place / "libbcc.py").is_file()


def _importable() -> Path | None:
    spec = importlib.machinery.PathFinder.find_spec("bcc")
    return Path(spec.origin).parent if spec and spec.origin else None


def _load(place: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bcc", place / "__init__.py", submodule_search_locations=[str(place)])
    if spec is None or spec.loader is None:
        raise ImportError("not a Python package")
    module = sys.modules["bcc"] = importlib.util.module_from_spec(spec)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # its sources have some for Python 3.12 and later
            spec.loader.exec_module(module)
        module.BPF  # noqa: B018 - the class that everything goes through
    except BaseException:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
            del sys.modules[name]
        raise
    return module
