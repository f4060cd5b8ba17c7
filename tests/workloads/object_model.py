"""Prints as JSON what the multiprocessing of this Python is made of: modules, classes, methods and what each calls, in order.

From the sources, not from imported modules: so the classes for Windows are seen on Linux too.
"""

import ast
import json
import multiprocessing
import os
import sys

FOLDER = os.path.dirname(multiprocessing.__file__)
MODULES = ("process", "context", "popen_fork", "popen_spawn_posix", "popen_forkserver", "popen_spawn_win32", "forking")


def dotted(node):
    """`os.waitpid` of the node; of a longer chain, or one on a call, the last name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.value.id + "." + node.attr if isinstance(node.value, ast.Name) else node.attr
    return ""


def constant(node):
    """The value of a string in the source; Python 2 has it elsewhere. Not of anything else."""
    return getattr(node, "value", None) if hasattr(ast, "Constant") else getattr(node, "s", None)


def calls(node):
    """What is called below the node, in the order of evaluation."""
    found = [name for each in ast.iter_child_nodes(node) for name in calls(each)]
    return found + ([dotted(node.func)] if isinstance(node, ast.Call) else [])


def names(node):
    """The plain names that an assignment gives a value; also `kill = terminate`."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [each.id for each in targets if isinstance(each, ast.Name)]


def imported(node):
    """The modules that an import below the node names, without dots."""
    return [each.module for each in ast.walk(node) if isinstance(each, ast.ImportFrom) and each.module]


def class_of(node, system):
    """One class."""
    members, attributes = {}, {}
    for each in node.body:
        if isinstance(each, ast.FunctionDef):
            members.setdefault(each.name, {"calls": calls(each), "imports": imported(each)})
        for name in names(each):
            attributes[name] = dotted(each.value) or constant(each.value)
    bases = [dotted(base) for base in node.bases]
    return {"name": node.name, "system": system, "bases": bases, "members": members, "attributes": attributes}


def bodies(tree):
    """Statements with the system that they are for, as `if sys.platform != 'win32'` says it."""
    for node in tree.body:
        if isinstance(node, ast.If) and "win32" in ast.dump(node.test):
            first, second = ("unix", "windows") if "NotEq" in ast.dump(node.test) else ("windows", "unix")
            for each in node.body:
                yield each, first
            for each in node.orelse:
                yield each, second
        else:
            yield node, ""


def module_of(path):
    """One module."""
    model = {"functions": {}, "variables": [], "classes": []}
    with open(path) as source:
        tree = ast.parse(source.read())
    for node, system in bodies(tree):
        if isinstance(node, ast.ClassDef):
            model["classes"].append(class_of(node, system))
        elif isinstance(node, ast.FunctionDef):
            model["functions"][node.name] = {"calls": calls(node), "imports": imported(node)}
        else:
            model["variables"] += names(node)
    return model


paths = {name + ".py": os.path.join(FOLDER, name + ".py") for name in MODULES}
modules = {name: module_of(path) for name, path in paths.items() if os.path.exists(path)}
print(json.dumps({"version": sys.version_info[:2], "modules": modules}, indent=1))
