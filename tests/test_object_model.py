"""docs/object-model.md says of multiprocessing what the sources of the standard library say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from recorded import WORKLOADS, interpreters

Model = dict[str, Any]

PAGE = (Path(__file__).parents[1] / "docs/object-model.md").read_text()
TODAY, OLD = PAGE.split("\n## Python 2.7\n")
BOX = re.compile(r"┌─ (\S+) ─+┐\n((?:│.*│\n)+)└")
HEADING = re.compile(r"(?P<name>\w+)(?:\((?P<base>[\w.]+)\))?(?=$|  )")
MEMBER = re.compile(r"  (?P<name>\w+)(?:\(\))? +(?P<words>.*)")
CALL = re.compile(r"([\w.]+)\(\)")
IN_THE_DRAWING = (
    "process.py",
    "context.py",
    "popen_fork.py",
    "popen_spawn_posix.py",
    "popen_forkserver.py",
    "popen_spawn_win32.py",
)


class Drawn(NamedTuple):
    """A class as the page draws it, or what stands in a module outside of classes (`name` is empty)."""

    module: str
    name: str
    system: str
    base: str
    attributes: dict[str, str]
    members: dict[str, list[str]]


def drawn(page: str) -> list[Drawn]:
    """Return the classes of the page's boxes, and a nameless one for each module; a line may go on in the next."""
    found: list[Drawn] = []
    for module, inside in BOX.findall(page):
        lines = [line[2:-1].rstrip() for line in inside.splitlines()]
        found.append(module_level := Drawn(module, "", "", "", {}, {}))
        member = ""
        for line in lines:
            if line.startswith(" " * 8):
                found[-1].members[member] += CALL.findall(line)
            elif line.startswith("  "):
                match = MEMBER.fullmatch(line)
                assert match, line
                member = match["name"]
                found[-1].members[member] = CALL.findall(match["words"])
            elif line[0] == "_" and "(" not in line.split()[0] and not re.match(r"_[A-Z]", line):
                module_level.attributes[line.split()[0]] = ""
            elif re.match(r"[a-z_]+\(\)", line):
                name, _, words = line.partition("()")
                module_level.members[name] = CALL.findall(words)
            else:
                found.append(class_of(module, line))
    return found


def class_of(module: str, line: str) -> Drawn:
    """Return the class that a line in a box begins."""
    match = HEADING.match(line)
    assert match, line
    system = next((system for system in ("windows", "unix") if line.lower().endswith(f"  on {system}")), "")
    attributes = dict(re.findall(r"(\w+) = (\w+)", line))
    return Drawn(module, match["name"], system, match["base"] or "", attributes, {})


def table(page: str) -> dict[str, list[str]]:
    """Return the cells of the page's table by the method in the first."""
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@cache
def model_of(python: str) -> Model:
    """Return what tests/workloads/object_model.py says of this interpreter."""
    command = [python, str(WORKLOADS / "object_model.py")]
    model: Model = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return model


def todays() -> dict[str, str]:
    """The interpreters that the first drawing is for: this one, and those of 3.8 and later beside it."""
    others = {name: path for name, path in interpreters().items() if not name.startswith(("2.", "3.6.", "3.7."))}
    return {"this": sys.executable} | others


@pytest.fixture(params=todays().values(), ids=todays().keys())
def today(request: pytest.FixtureRequest) -> Model:
    """The model of a Python 3.8 or later."""
    return model_of(request.param)


@pytest.fixture
def old() -> Model:
    """The model of a Python 2.7."""
    found = [path for name, path in interpreters().items() if name.startswith("2.7.")]
    if not found:
        pytest.skip("no Python 2.7 in pyenv")
    return model_of(found[0])


def class_in(model: Model, module: str, name: str, system: str) -> Model:
    """Return the one class of that name for that system; a whole module may be for one system."""
    classes = [each for each in model["modules"][module]["classes"] if each["name"] == name]
    matching = [each for each in classes if each["system"] == system] if len(classes) > 1 and system else classes
    matching = matching if system else [each for each in matching if each["system"] != "windows"]
    assert len(matching) == 1, f"{module} has {len(matching)} classes {name} for {system or 'any system'}"
    return matching[0]


def is_call(said: str, made: str, imports: list[str]) -> bool:
    """Say whether the call of the sources is the one of the page: `poll()` on whatever object, `os.fork()` by that name."""
    module, _, name = said.rpartition(".")
    return made == said or (not module and made.rpartition(".")[2] == said) or (module in imports and made == name)


def calls_missing(said: list[str], body: Model) -> list[str]:
    """Return those calls of the page that the body does not make, or not in this order."""
    made = iter(body["calls"])
    return [call for call in said if not any(is_call(call, each, body["imports"]) for each in made)]


def faults(one: Drawn, model: Model) -> list[str]:
    """Return in what a drawn class, or the rest of a drawn module, is not as in the sources."""
    if one.name:
        found = class_in(model, one.module, one.name, one.system)
        bodies = found["members"]
        bases = [base.removeprefix("process.") for base in found["bases"]]
        wrong = [] if bases == [one.base or "object"] else [f"bases are {bases}"]
        wrong += [f"{key} is not {value}" for key, value in one.attributes.items() if found["attributes"].get(key) != value]
    else:
        module = model["modules"][one.module]
        bodies = module["functions"]
        wrong = [f"no {name}" for name in one.attributes if name not in module["variables"]]
    wrong += [f"no {name}()" for name in one.members if name not in bodies]
    lacks = {name: calls_missing(said, bodies[name]) for name, said in one.members.items() if name in bodies}
    wrong += [f"{name}() does not then call {missing}" for name, missing in lacks.items() if missing]
    return [f"{one.module} {one.name}: {text}" for text in wrong]


def test_drawing_agrees_with_the_standard_library(today: Model) -> None:
    """Each module, class, base and method of the first drawing exists, and calls what the drawing says, in this order."""
    boxes = drawn(TODAY)
    assert tuple(dict.fromkeys(one.module for one in boxes)) == IN_THE_DRAWING
    assert sum(len(one.members) for one in boxes) > 30
    assert not [text for one in boxes for text in faults(one, today)]


def test_drawing_of_2_7_agrees_with_its_standard_library(old: Model) -> None:
    """The same of the second drawing, which has the modules process and forking."""
    boxes = drawn(OLD)
    assert {one.module for one in boxes} == {"process.py", "forking.py"}
    assert {one.system for one in boxes if one.name == "Popen"} == {"unix", "windows"}
    assert not [text for one in boxes for text in faults(one, old)]


def of_interest(name: str, bases: list[str]) -> bool:
    """Say whether a class of the sources has to be drawn: it makes processes, waits for them, or chooses who does."""
    return name in ("Popen", "BaseProcess", "BaseContext") or bases in (["process.BaseProcess"], ["BaseContext"])


def test_no_class_is_missing_from_the_drawing(today: Model) -> None:
    """Every Popen, process class and context of the sources is drawn."""
    there = {
        (module, each["name"])
        for module in today["modules"]
        for each in today["modules"][module]["classes"]
        if of_interest(each["name"], each["bases"])
    }
    assert there == {(one.module, one.name) for one in drawn(TODAY) if one.name}


def bodies_calling(model: Model, call: str) -> set[str]:
    """Return the functions and methods of the drawn modules that make a call of that name."""
    found = set()
    for module, content in model["modules"].items():
        found |= {f"{module} {name}" for name, body in content["functions"].items() if call in body["calls"]}
        for each in content["classes"]:
            found |= {f"{module} {each['name']}.{name}" for name, body in each["members"].items() if call in body["calls"]}
    return found


def test_what_follows_follows(today: Model) -> None:
    """Only poll() waits, and `_cleanup()` is called by start() and active_children() alone: the page says so in words."""
    assert bodies_calling(today, "os.waitpid") == {"popen_fork.py Popen.poll"}
    assert bodies_calling(today, "_cleanup") == {"process.py BaseProcess.start", "process.py active_children"}


def test_who_ends_a_forked_child(today: Model) -> None:
    """What a child does at its end moved from `_bootstrap()` to `_launch()` with 3.13."""
    late = tuple(today["version"]) >= (3, 13)
    assert bodies_calling(today, "atexit._run_exitfuncs") == ({"popen_fork.py Popen._launch"} if late else set())
    assert bodies_calling(today, "util._exit_function") == (set() if late else {"process.py BaseProcess._bootstrap"})


def test_the_same_follows_in_2_7(old: Model) -> None:
    """The three steps of start() and the zombies are those of Python 2.7."""
    assert bodies_calling(old, "os.waitpid") == {"forking.py Popen.poll"}
    assert bodies_calling(old, "_cleanup") == {"process.py Process.start", "process.py active_children"}


def cell_faults(cell: str, method: str, found: Model) -> list[str]:
    """Return in what a cell is not as in the class: `none`, inherited, the same as another, or the calls that it names."""
    body = found["members"].get(method)
    if cell == "none":
        return [f"{method} is there"] if body or method in found["attributes"] else []
    if cell == "as fork":
        return [f"{method} is not inherited"] if body or found["bases"] != ["popen_fork.Popen"] else []
    if cell.startswith("the same as "):
        return [] if found["attributes"].get(method) == cell.rpartition(" ")[2] else [f"{method} is not {cell}"]
    if not body:
        return [f"no {method}"]
    return [f"{method} does not call {call}" for call in re.findall(r"`([^`]+)`", cell) if call not in body["calls"]]


def table_faults(page: str, classes: list[Model], version: tuple[int, ...]) -> list[str]:
    """Return where the table of methods is not as the classes, one for each column, are."""
    wrong, methods = [], set()
    for first, cells in table(page).items():
        method = first.split("`")[1]
        since = re.search(r"\((\d+)\.(\d+) and later\)", first)
        if since and version < tuple(map(int, since.groups())):
            continue
        methods.add(method)
        assert len(cells) == len(classes)
        wrong += [text for cell, found in zip(cells, classes, strict=True) for text in cell_faults(cell, method, found)]
    there = {name for found in classes for name in found["members"]}
    return wrong + [f"{name} is not in the table" for name in sorted(there - methods)]


def test_table_of_methods_agrees(today: Model) -> None:
    """Each method of the four Popen classes is in the table, and does what its cell says."""
    modules = ("popen_fork.py", "popen_spawn_posix.py", "popen_forkserver.py", "popen_spawn_win32.py")
    classes = [class_in(today, module, "Popen", "") for module in modules]
    assert not table_faults(TODAY, classes, tuple(today["version"]))


def test_table_of_methods_of_2_7_agrees(old: Model) -> None:
    """Each method of the two Popen classes of Python 2.7 is in its table, and does what its cell says."""
    classes = [class_in(old, "forking.py", "Popen", system) for system in ("unix", "windows")]
    assert not table_faults(OLD, classes, (2, 7))
