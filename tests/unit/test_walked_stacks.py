"""From what the probes read of code objects and frames to the text of a stack."""

from __future__ import annotations

import dis
import os
import subprocess
import sys
from types import CodeType
from typing import Any

import numpy as np
import pytest

from forktrace.cpython.line_tables import Code
from forktrace.kernel.layout import layouts
from forktrace.recorder.stack_table import StackTable
from forktrace.trace.events import STACK_STATUSES
from forktrace.trace.stacks import Frame

SOURCE = (
    """
def f(a, b):
    x = [i
         for i in a
         if i]

    if b:
        return (x,
                b)
    for y in x:
        try:
            print(y)
        finally:
            pass
    with open(b) as c:
        return c
"""
    + "\n" * 300
    + "def g(): return 1\n"
)

# Prints the line table of a program's code objects and, by this version's own dis, which line each instruction is on.
PRINTS_LINES = """
import dis, json, sys
def codes(code):
    yield code
    for const in code.co_consts:
        if hasattr(const, "co_code"):
            for one in codes(const):
                yield one
for code in codes(compile(open(sys.argv[1]).read(), "f.py", "exec")):
    table = code.co_linetable if sys.version_info >= (3, 10) else code.co_lnotab
    starts = dict(dis.findlinestarts(code))
    print(json.dumps([code.co_firstlineno, [ord(c) for c in table] if sys.version_info < (3,) else list(table),
                      sorted((k, v or 0) for k, v in starts.items()), sys.version_info[0] * 256 + sys.version_info[1]]))
"""


def code_record(key: int, path: bytes = b"/srv/a.py", name: bytes = b"f", version: int = 0x30B, **more: Any) -> bytes:
    """A `struct code_record` as the probes send it."""
    one = np.zeros(1, layouts()["code_record"])
    fields = {"key": key, "version": version, "first_line": 7, "file": 99, "path_width": 1, "name_width": 1} | more
    for field, value in fields.items():
        one[field] = value
    one["name_bytes"], one["path_bytes"] = len(name), len(path)
    one["data"][0][: len(name + path)] = list(name + path)
    return one.tobytes()[: len(one.tobytes()) - layouts()["code_record"]["data"].itemsize + len(name + path)]


def stack_record(identity: int, *frames: tuple[int, int], handled: int = 0) -> bytes:
    """A `struct stack_record` with these frames, innermost first."""
    one = np.zeros(1, layouts()["stack_record"])
    one["id"], one["count"] = identity, len(frames)
    one["frames"]["code"][0][: len(frames)] = [code for code, _ in frames]
    one["frames"]["instruction"][0][: len(frames)] = [instruction for _, instruction in frames]
    one["frames"]["handled"][0][0] = handled
    whole = one.tobytes()
    return whole[: len(whole) - (1024 - len(frames)) * layouts()["frame"].itemsize]


def fresh() -> tuple[StackTable, list[Any]]:
    """Stacks, and the list of what it asked the probes to forget."""
    forgotten: list[Any] = []
    return StackTable(lambda codes, stacks: forgotten.append((codes, stacks)), {77}.__contains__), forgotten


def texts(stacks: StackTable, *events: tuple[int, str]) -> list[tuple[str | None, str]]:
    """What becomes of events with these stacks and statuses."""
    ids = np.array([identity for identity, _ in events], np.uint64)
    statuses = np.array([STACK_STATUSES.index(status) for _, status in events], np.uint32)
    found, status = stacks.texts(ids, statuses)
    return list(zip(found, [STACK_STATUSES[code] for code in status.tolist()], strict=True))


def all_codes(code: CodeType) -> list[CodeType]:
    """A code object and those inside it."""
    inner = [one for const in code.co_consts if isinstance(const, CodeType) for one in all_codes(const)]
    return [code, *inner]


def test_lines_are_those_of_this_interpreter() -> None:
    """Every instruction is on the line that Python itself says it is on."""
    compared = 0
    for code in all_codes(compile(SOURCE, "f.py", "exec")):
        mine = Code(
            "f.py", code.co_name, code.co_firstlineno, code.co_linetable, sys.version_info[0] << 8 | sys.version_info[1]
        )
        for start, end, line in code.co_lines():
            for at in range(start, end, 2):
                assert mine.line(at) == (line or 0), (code, at)
                compared += 1
    assert compared > 60


def test_lines_of_every_interpreter(tmp_path: Any) -> None:
    """The same for the line tables of other versions, as far as they are here: each instruction that begins a line is on it."""
    folder = os.path.expanduser("~/.pyenv/versions")
    pythons = [f"{folder}/{name}/bin/python" for name in sorted(os.listdir(folder))] if os.path.isdir(folder) else []
    (tmp_path / "f.py").write_text(SOURCE)
    for python in pythons:
        said = subprocess.run(
            [python, "-c", PRINTS_LINES, tmp_path / "f.py"], capture_output=True, text=True, check=True
        ).stdout
        for line in said.splitlines():
            first, table, starts, version = eval(line)  # lists of numbers
            mine = Code("f.py", "f", first, bytes(table), version)
            units = 2 if version == 0x30A else 1  # 3.10 counts instructions
            assert [(at, mine.line(at // units)) for at, _ in starts] == [tuple(one) for one in starts], (python, first)


@pytest.mark.parametrize("version", [0x309, 0x30A])
def test_lines_beyond_a_cut_table_are_not_known(version: int) -> None:
    """Where the table was too long to be sent, no line is made up."""
    whole, cut = (Code("f.py", "f", 10, bytes([4, 1, 4, 1]), version, is_cut) for is_cut in (False, True))
    assert [whole.line(0), cut.line(0)] == [10 + (version == 0x30A)] * 2
    assert (whole.line(100), cut.line(100)) == (12, 0)


def test_dis_agrees_on_the_first_instruction() -> None:
    """The test above reads what dis says: it says something."""
    assert list(dis.findlinestarts(compile("x = 1\ny = 2", "f.py", "exec")))


def test_frames_become_text() -> None:
    """Outermost first; calls from C and the frame of a class's call are left out."""
    stacks, _ = fresh()
    for key, name in ((1, b"inner"), (2, b"outer"), (3, b"__init__")):
        stacks.add_code(code_record(key, name=name, path=b"__init__" if key == 3 else b"/srv/a.py"))
    stacks.add_stack(stack_record(10, (1, 0), (0, 0), (3, 0), (2, 0)))
    assert texts(stacks, (10, "ok"), (0, "not-python"), (10, "truncated")) == [
        ("/srv/a.py:0 outer;/srv/a.py:0 inner", "ok"),
        (None, "not-python"),
        ("/srv/a.py:0 outer;/srv/a.py:0 inner", "truncated"),
    ]
    assert stacks.new_frames == {
        Frame("/srv/a.py", 0, "inner"),
        Frame("/srv/a.py", 0, "outer"),
        Frame("__init__", 0, "__init__"),
    }
    assert stacks.interpreters == {99}


def test_a_signal_handler_is_told_from_a_call() -> None:
    """A frame of its own stands between the handler and what it interrupted."""
    stacks, _ = fresh()
    for key, name in ((1, b"reap"), (2, b"main")):
        stacks.add_code(code_record(key, name=name))
    stacks.add_stack(stack_record(10, (1, 0), (0, 0), (2, 0), handled=17))
    assert texts(stacks, (10, "ok")) == [("/srv/a.py:0 main;<signal handler>:0 SIGCHLD;/srv/a.py:0 reap", "ok")]


def test_what_did_not_arrive_is_lost() -> None:
    """A stack that was lost, or one with code that was."""
    stacks, _ = fresh()
    stacks.add_stack(stack_record(10, (1, 0)))
    assert texts(stacks, (10, "ok"), (11, "read-fault")) == [(None, "lost"), (None, "lost")]


def test_a_file_that_turns_out_to_be_no_interpreter() -> None:
    """An event from before the probes knew says so afterwards; of a file that nobody has examined it is not said."""
    stacks, _ = fresh()
    assert texts(stacks, (77, "no-runtime"), (78, "no-runtime")) == [(None, "not-python"), (None, "no-runtime")]


@pytest.mark.parametrize(
    ("text", "width", "version"),
    [("caf\xe9.py", 1, 0x30B), ("日本.py", 2, 0x308), ("🐍.py", 4, 0x30D), ("日本.py", 1, 0x207)],
)
def test_names_of_any_script(text: str, width: int, version: int) -> None:
    """A str has 1, 2 or 4 bytes a character; in Python 2 a file name is bytes, by custom UTF-8."""
    encoding = "utf-8" if version < 0x300 else {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[width]
    stacks, _ = fresh()
    stacks.add_code(code_record(1, path=text.encode(encoding), path_width=width, version=version))
    stacks.add_stack(stack_record(10, (1, 0)))
    line = 0 if version >= 0x30B else 7  # an empty table: no line, or the first
    assert texts(stacks, (10, "ok")) == [(f"{text}:{line} f", "ok")]


def test_too_many_stacks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in the probes at once, so that the probes send them again."""
    stacks, forgotten = fresh()
    monkeypatch.setattr("forktrace.recorder.stack_table.MOST_BYTES", 2000)
    stacks.add_code(code_record(1))
    for identity in (10, 11):
        stacks.add_stack(stack_record(identity, (1, 0)))
    stacks.make_room()
    assert forgotten == []
    stacks.add_stack(stack_record(12, (1, 0)))
    stacks.make_room()
    assert forgotten == [([1], [10, 11, 12])]
    ((text, status),) = texts(stacks, (10, "ok"))
    assert (text is not None, status) == (True, "ok")  # its event was in the ring by then
    stacks.add_stack(stack_record(13, (1, 0)))  # so was its code
    assert texts(stacks, (13, "ok")) == [(text, "ok")]
    for identity in range(20, 26):
        stacks.add_stack(stack_record(identity, (1, 0)))
    stacks.make_room()
    assert forgotten[1:] == [([], [13, *range(20, 26)])]
    assert texts(stacks, (10, "ok"), (13, "ok")) == [(None, "lost"), (text, "ok")]
