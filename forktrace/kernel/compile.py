"""Compiles the probes' sources into the object, with bcc, which is needed for nothing else. As a program: `make object`."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from forktrace.errors import MachineLacks
from forktrace.kernel.bccloader import load_bcc
from forktrace.kernel.btf import Btf
from forktrace.kernel.facts import facts_of
from forktrace.kernel.layout import probe_directory
from forktrace.kernel.loops import with_jumps_at_loops
from forktrace.kernel.objects import CALL_MARK, FORMAT, FROM_MAP, LOAD_64, OBJECT, SHARED, MapSpec, ProbesObject, instructions
from forktrace.system.machine import this_machine

# The compiler reads them in this order, as one file.
SOURCES: Final = (
    *("events.h", "kernel.bpf.h", "process_table.bpf.h", "work.bpf.h", "pycode.bpf.h", "pystack.bpf.h"),
    *("release.bpf.c", "fork.bpf.c", "exec.bpf.c", "exit.bpf.c", "signal.bpf.c", "libpython.bpf.c", "wait.bpf.c"),
    *("failed_fork.bpf.c", "request.bpf.c", "calls.bpf.c", "tasks.bpf.c"),
)
# Entries of the maps; the loader may choose others.
ENTRIES: Final = {"FOLLOWED": 65536, "NUMBERS": 131072, "INTERPRETERS": 4096, "CODES": 16384, "PLACES": 16384} | {
    "WANTED": 16384,
    "REPORTED_TASKS": 16384,
    "MAPPED": 65536,
}
RING_BYTES: Final = 16 << 20
QUESTION_BYTES: Final = 1 << 20  # thousands of programs can be new at once


def read_sources(folder: Path) -> str:
    """Return the sources of the probes as one text."""
    return "".join((folder / name).read_text() for name in SOURCES).replace("#pragma once", "")


def digest_of(folder: Path, facts: Sequence[str]) -> str:
    """Return the digest of these sources with these facts."""
    stub = sorted((folder / "stub").rglob("*.h"))
    texts = [FORMAT, *facts, *map(str, ENTRIES.items()), read_sources(folder), *(path.read_text() for path in stub)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def prelude(text: str, facts: Sequence[str]) -> str:
    """Return the text before the sources: macros for the facts, and declarations of the shared functions."""
    shared = re.findall(rf"^u64 {SHARED}(\w+)\(", text, re.MULTILINE)
    lines = [f"#define {fact} FACT({number:04x})" for number, fact in enumerate(facts)]
    lines += [f"static u64 (*{name})(u64) = (void *){CALL_MARK + number:#x};" for number, name in enumerate(shared)]
    return "#include <linux/types.h>\n" + "\n".join(lines) + "\n"


def compile_probes(facts: Sequence[str], folder: Path | None = None) -> ProbesObject:
    """Compile the probes. Takes seconds, and 150 MB that are not freed.

    Raises:
        MachineLacks: bcc is missing, or does not compile them.
    """
    folder = folder or probe_directory()
    text = read_sources(folder)
    digest = digest_of(folder, facts)
    os.environ["BCC_KERNEL_SOURCE"] = str(folder / "stub")
    bcc = load_bcc()
    defined = ENTRIES | {"RING_PAGES": RING_BYTES // mmap.PAGESIZE, "QUESTION_PAGES": QUESTION_BYTES // mmap.PAGESIZE}
    flags = [f"-D{name}={value}" for name, value in (defined | {"CONFIG_BPF_SYSCALL": 1}).items()]
    flags += ["-Doffsetof(t,m)=__builtin_offsetof(t,m)", "-I/usr/include", f"-I{this_machine().headers}", "-Wno-everything"]
    try:
        compiled = _without_loading(bcc)(text=prelude(text, facts) + text, cflags=flags)
    except Exception as error:  # bcc raises bare Exception
        raise MachineLacks(
            f"the probes cannot be compiled: {str(error) or type(error).__name__}", "forktrace doctor"
        ) from error
    maps, numbers = _maps(bcc.lib, compiled.module)
    functions = {
        name: with_jumps_at_loops(_numbered(code, numbers)) for name, code in _functions(bcc.lib, compiled.module).items()
    }
    order = re.findall(rf"^(?:u64|int) ((?:{SHARED}|on_)\w+)\(", text, re.MULTILINE)
    return ProbesObject({name: functions[name] for name in order}, maps, tuple(facts), digest, f"bcc {bcc.__version__}")


def _without_loading(bcc: Any) -> Any:
    """Return bcc's class for compiled code, without its automatic attaching by name."""

    class Compiled(bcc.BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            pass

    return Compiled


def _functions(lib: Any, module: Any) -> dict[str, bytes]:
    names = [lib.bpf_function_name(module, number) for number in range(lib.bpf_num_functions(module))]
    return {
        name.decode(): ctypes.string_at(lib.bpf_function_start(module, name), lib.bpf_function_size(module, name))
        for name in names
    }


def _maps(lib: Any, module: Any) -> tuple[tuple[MapSpec, ...], dict[int, int]]:
    """Return the maps, and the number of each by bcc's descriptor."""
    parts = ("name", "type_id", "key_size_id", "leaf_size_id", "max_entries_id", "flags_id", "fd_id")
    functions = [getattr(lib, f"bpf_table_{part}") for part in parts]
    for function in functions:
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    functions[0].restype = ctypes.c_char_p
    found = []
    for number in range(lib.bpf_num_tables(module)):
        name, *numbers, descriptor = (function(module, number) for function in functions)
        found.append((MapSpec(name.decode(), *numbers), descriptor))
    found.sort()
    return tuple(spec for spec, _ in found), {descriptor: number for number, (_, descriptor) in enumerate(found)}


def _numbered(code: bytes, numbers: dict[int, int]) -> bytes:
    """Return the instructions with map numbers in the place of bcc's descriptors."""
    found = instructions(code)
    for at in range(len(found)):
        if found["op"][at] == LOAD_64 and found["registers"][at] >> 4 == FROM_MAP:
            found["value"][at] = numbers[int(found["value"][at])]
    return found.tobytes()


def main() -> None:
    """Write the object beside the sources."""
    path = probe_directory() / OBJECT
    path.write_bytes(compile_probes(facts_of(Btf(), this_machine()).names).to_bytes())
    print(f"wrote {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
