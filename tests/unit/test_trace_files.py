"""Names of a rotation's files, and how a file is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from forktrace.trace.files import Numbered, numbered, paths, remove_unfinished, replaced


def names(folder: Path) -> list[str]:
    """What is in a directory."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/srv/forktrace-web.000012.arrows", ("forktrace-web", 12)),
        ("a.b.1000000.arrows", ("a.b", 1_000_000)),
        ("forktrace-web.4711.arrows", None),
        ("forktrace-web.000012.arrows.tmp", None),
        (".000012.arrows", None),
    ],
)
def test_the_number_is_in_the_name(path: str, found: tuple[str, int] | None) -> None:
    """Six digits and more; the process number of a single file is none."""
    assert numbered(path) == found
    if found:
        assert str(Numbered(*found)) == Path(path).name


def test_a_file_is_replaced_once_it_is_whole(tmp_path: Path) -> None:
    """Until then the old one is there; an error leaves it, and nothing else."""
    path = tmp_path / "a.000001.arrows"
    path.write_bytes(b"old")
    with replaced(str(path), 0o640) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
        assert paths(str(tmp_path)) == [str(path)]
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(KeyError), replaced(str(path)) as file:
        raise KeyError
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.000001.arrows"]


def test_what_a_killed_writer_leaves_is_removed(tmp_path: Path) -> None:
    """Of this name alone, also where it has characters that a pattern would read."""
    for name in ("a[1].000001.arrows", "a1.000001.arrows"):
        with replaced(str(tmp_path / name)) as file:
            pass
        Path(file.name).touch()
    remove_unfinished(str(tmp_path), "a[1]")
    assert [name.split(".arrows")[0] for name in names(tmp_path)] == [".a1.000001", "a1.000001", "a[1].000001"]
