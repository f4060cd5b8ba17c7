"""Which files are interpreters, and the text of source lines: a helper looks, the registry and the sources remember."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forktrace.cpython.layouts import Unsupported, describe
from forktrace.kernel import file_keys
from forktrace.recorder.interpreters import INTERPRETERS_MOST, OTHERS_MOST, Interpreters
from forktrace.recorder.sources import ProcessRoot, Sources, files_of, lines_of
from forktrace.system.files import read_regular
from forktrace.trace.stacks import Frame

PATIENCE_S = 60


@pytest.fixture
def registry() -> Iterator[Interpreters]:
    """One that knows nothing yet."""
    made = Interpreters()
    yield made
    made.helper.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH of one directory, with python in it."""
    (tmp_path / "python3").symlink_to(os.path.realpath(sys.executable))
    return str(tmp_path)


@pytest.mark.parametrize("how", ["PATH", "script"])
def test_the_interpreters_on_the_path_are_expected(how: str, path: str, registry: Interpreters) -> None:
    """A program, a script's interpreter, and what is found by PATH."""
    (Path(path) / "run").write_text("#!/usr/bin/env python3\n")
    registry.expect_on(path) if how == "PATH" else registry.expect(f"{path}/run", path)
    (version,) = {found.version for found in registry.found.values()}
    assert sys.version.startswith(version)
    assert all(registry.known[file]["file"] == file for file in registry.found)
    assert registry.take() == (registry.known, [])
    assert registry.take() == ({}, [])


def test_no_interpreter_is_remembered(registry: Interpreters) -> None:
    """So that the probes can say `not-python`."""
    registry.expect("/bin/sh")
    (file,) = registry.known
    assert registry.not_python(file)
    assert not registry.not_python(file + 1)
    registry.expect("/nowhere/at/all")
    assert len(registry.known) == 1


def test_no_link_leads_out_of_a_root(tmp_path: Path) -> None:
    """Of a container: absolute names, links and `..` mean what they mean in there."""
    (tmp_path / "root/srv").mkdir(parents=True)
    (tmp_path / "outside.py").write_text("outside")
    (tmp_path / "root/srv/a.py").write_text("inside")
    for name, target in (("absolute", "/srv/a.py"), ("out", "../../outside.py"), ("absent", str(tmp_path / "outside.py"))):
        (tmp_path / "root" / name).symlink_to(target)
    root = os.open(tmp_path / "root", os.O_PATH)
    try:
        for name in ("/srv/a.py", "srv/../srv/a.py", "/../../srv/a.py", "/absolute"):
            assert read_regular(name, root) == b"inside"
        for name in ("/out", "/absent", "/../outside.py", "/srv"):
            with pytest.raises(OSError, match=name):
                read_regular(name, root)
    finally:
        os.close(root)


def test_files_of_a_process_that_is_gone() -> None:
    """A number that is another's by now has no lines: nothing is read where it is not known whose it would be."""
    with subprocess.Popen(["sleep", "600"]) as process:
        there = os.open(f"/proc/{process.pid}", os.O_PATH)
        try:
            files = ProcessRoot(there, with_all_rights=False)
            assert lines_of(lambda read, *names: read(*names), "/", files, __file__, [1])[0][0] == 1
        finally:
            process.kill()
    files = ProcessRoot(os.dup(there), with_all_rights=False)  # another number: what was read is remembered
    assert lines_of(lambda read, *names: read(*names), "/", files, __file__, [1]) == []
    for descriptor in (there, files.process):
        os.close(descriptor)


@pytest.mark.root
def test_files_of_the_next_process_of_that_number() -> None:
    """They are not read: what is known of the process is no number."""
    with subprocess.Popen(["sleep", "600"]) as process:
        there = os.open(f"/proc/{process.pid}", os.O_PATH)
        process.kill()
    for _ in range(500):  # others fork too
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(process.pid - 1))
        with subprocess.Popen(["sleep", "600"]) as another:
            read = lines_of(lambda read, *names: read(*names), "/", ProcessRoot(there, with_all_rights=True), __file__, [1])
            another.kill()
        if another.pid == process.pid:
            break
    else:
        pytest.skip(f"the number {process.pid} is not to be had")
    os.close(there)
    assert read == []


@pytest.fixture
def processes() -> Iterator[list[int]]:
    """The numbers of two processes that run."""
    with subprocess.Popen(["sleep", "600"]) as first, subprocess.Popen(["sleep", "600"]) as second:
        yield [first.pid, second.pid]
        first.kill()
        second.kill()


def test_whose_files_are_read(processes: list[int]) -> None:
    """Those from here where a name means the same to all; none of a number that has become another's, or is nobody's."""
    starts = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) for pid in processes}
    for rights in (False, True):
        assert files_of(processes, starts, with_all_rights=rights) == (True, None)
        assert files_of(processes, {}, with_all_rights=rights) == (True, None)
        assert files_of(processes, starts | {processes[1]: starts[processes[1]] + 1}, with_all_rights=rights) == (False, None)
        assert files_of([*processes, 1 << 22], starts, with_all_rights=rights) == (False, None)
    assert files_of([], starts, with_all_rights=False) == (False, None)


def test_more_processes_than_may_be_open(processes: list[int]) -> None:
    """As in a large control group: they are looked at one after the other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert files_of(processes * 100, {}, with_all_rights=False) == (True, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.root
def test_whose_files_are_read_elsewhere(tmp_path: Path) -> None:
    """Those of the one root that all have, by a descriptor of a process; of two roots none."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    started = [
        subprocess.Popen([sys.executable, "-c", f"import os, time; os.chroot({str(tmp_path / name)!r}); print(1, flush=True); "
                          "time.sleep(600)"], stdout=subprocess.PIPE)
        for name in ("one", "one", "two")
    ]  # fmt: skip
    try:
        for each in started:
            assert each.stdout
            each.stdout.readline()
        pids = [each.pid for each in started]
        assert files_of(pids, {}, with_all_rights=True) == (False, None)
        known, files = files_of(pids[:2], {}, with_all_rights=True)
        assert known
        assert files
        assert os.readlink("root", dir_fd=files.process) == str(tmp_path / "one")
        os.close(files.process)
    finally:
        for each in started:
            each.kill()
            each.communicate()


def test_source_lines_are_read_once(tmp_path: Path) -> None:
    """The line without its indentation; not twice, not of the standard library, not beyond the end, not of what is no file."""
    (tmp_path / "a.py").write_text("one\n    two  \n\n")
    os.mkfifo(tmp_path / "pipe")

    def as_user(function: Callable[[str, int | None], bytes], name: str, root: int | None) -> bytes:
        with (tmp_path / "asked").open("a") as asked:
            asked.write(f"{name}\n")
        return function(name, root)

    sources = Sources(as_user, str(tmp_path))
    names = ["a.py", str(tmp_path / "pipe"), str(tmp_path), "<string>", "/lib/x.py", "/lib/site-packages/y.py", "\0"]
    with (tmp_path / "a.py").open() as ours:  # means another file to every process
        names += [f"{place}/{ours.fileno()}" for place in ("/dev/fd", "/proc/self/fd", "//proc/self/fd", "/x/../proc/self/fd")]
        frames = [Frame(name, line, "f") for name in names for line in (0, 2, 3, 9)]
        sources.ask(frames, ["/lib"])
        assert list(sources.take(PATIENCE_S)) == [("a.py", 2, "two")]
        sources.ask(frames, ["/lib"])
        assert list(sources.take(PATIENCE_S)) == []
    sources.helper.close()
    said = (tmp_path / "asked").read_text().splitlines()
    assert sorted(said) == sorted({*said})
    assert "/lib/x.py" not in said
    assert "/lib/site-packages/y.py" in said


def key_of(path: Path, secret: int = 0) -> int:
    """As the probes know a file."""
    return file_keys.key_of(secret, path.stat())


def test_programs_that_have_ended(tmp_path: Path, registry: Interpreters) -> None:
    """A program is examined by its name, once; a name that is not absolute, or of no file, is nobody's."""
    program = tmp_path / "true"
    shutil.copy(shutil.which("true") or "/bin/true", program)
    assert not registry.not_python(key_of(program))
    registry.look_at(["true", str(tmp_path), str(tmp_path / "missing"), str(program)])
    assert registry.not_python(key_of(program))
    registry.known.clear()
    registry.look_at([str(program)])
    assert not registry.known


def test_files_one_after_the_other(tmp_path: Path, registry: Interpreters) -> None:
    """Two files that have had the same numbers are two files, if their sizes differ (temporary file systems reuse both)."""
    program = tmp_path / "true"
    shutil.copy(shutil.which("true") or "/bin/true", program)
    before = key_of(program)
    with program.open("ab") as file:
        file.write(b"longer")
    registry.look_at([str(program)])
    assert key_of(program) != before
    assert registry.not_python(key_of(program))
    assert not registry.not_python(before)


def examined(registry: Interpreters, kind: str, *numbers: int) -> None:
    """Let the helper have found files of a kind."""
    said: dict[str, list[object]] = {"python": [{"version": 0x30B}, "/python", "3.11.7", []]}
    fields = (said | {"unsupported": ["/usr/bin/python", "it is odd"]}).get(kind, [])
    registry._note([(["file", "/x"], [[number, kind, *fields] for number in numbers])])


def test_the_probes_map_does_not_get_full(registry: Interpreters) -> None:
    """Of files that are no interpreter the oldest are forgotten there, and told again when they are asked about."""
    told: set[int] = set()
    for start in range(0, 10_000, 500):
        examined(registry, "other", *range(start, start + 500))
        news, forgotten = registry.take()
        told = (told | news.keys()) - set(forgotten)
        assert len(told) <= OTHERS_MOST
    assert 9_999 in told
    assert 0 not in told
    assert registry.not_python(0)
    registry.answer({"file": 0, "pid": 1, "mapped": 0})
    assert registry.take() == ({0: {}}, [])


def test_no_more_interpreters_than_there_is_room_for(registry: Interpreters) -> None:
    """Those that were found first stay; of later ones the stacks have no runtime."""
    examined(registry, "python", *range(2 * INTERPRETERS_MOST))
    news, forgotten = registry.take()
    assert (sorted(news), forgotten) == (list(range(INTERPRETERS_MOST)), [])
    assert len(registry.found) == INTERPRETERS_MOST


def test_interpreters_that_are_not_walked(registry: Interpreters) -> None:
    """Each that a process runs is told once, with the reason; none that only lies there."""
    examined(registry, "unsupported", 1, 2)
    assert registry.not_walked() == []
    for _ in range(3):
        registry.answer({"file": 1, "pid": 100, "mapped": 0})
    assert registry.not_walked() == [("/usr/bin/python", "it is odd")]
    registry.answer({"file": 1, "pid": 101, "mapped": 0})
    assert registry.not_walked() == []


@pytest.mark.parametrize("name", ["pypy3.11", "libpypy3.11-c.so"])
def test_pypy(tmp_path: Path, name: str) -> None:
    """It is told apart from what is no Python, by its name."""
    shutil.copy("/bin/true", tmp_path / name)
    with (tmp_path / name).open("rb") as file, pytest.raises(Unsupported, match="it is PyPy"):
        describe(file.fileno(), name)


def test_memory_is_bounded(registry: Interpreters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without end are not kept without end; interpreters are kept."""
    monkeypatch.setattr("forktrace.recorder.interpreters.FILES_MOST", 100)
    examined(registry, "python", 7)
    examined(registry, "other", *range(1000, 2000))
    examined(registry, "unsupported", *range(3000, 4000))
    assert len(registry.known) <= 102
    assert len(registry._unsupported) <= 1000
    assert registry.known[7]["file"] == 7


def test_a_question_without_an_answer(registry: Interpreters, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose server does not answer is not asked about again; that of a process that has ended is, by the next one."""
    monkeypatch.setattr(registry.helper, "take", lambda: [(["question", 5, 1, 0], None), (["question", 6, 1, 0], [])])
    asked: list[list[int]] = []
    registry.take()
    monkeypatch.setattr(registry.helper, "ask", lambda request: asked.append(request) or True)
    for file in (5, 6, 6):
        registry.answer({"file": file, "pid": 2, "mapped": 0})
    assert asked == [["question", 6, 2, 0]]
