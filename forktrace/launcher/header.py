"""The header of a trace: what is known of a recording at its start."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forktrace.system.procfs import clock_offset_ns, kernel_boottime_ns
from forktrace.trace.trace_context import parse_traceparent


def working_directory() -> str:
    """Return the working directory, which may be gone: then what the kernel says of it, `/path (deleted)`."""
    return os.readlink("/proc/self/cwd")


def header(command: list[str], target_pid: int, user: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what is known of a recording at its start (docs/trace-format.md); `environment` is the target's."""
    from forktrace import __version__

    start_ns = kernel_boottime_ns()
    return {
        "forktrace": __version__,
        "command": command,
        "cwd": working_directory(),
        "target_pid": target_pid,
        "target_start_ns": None,
        "user": user,
        "host": platform.node(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "kernel": platform.release(),
        "start_ns": start_ns,
        "clock_offset_ns": clock_offset_ns(),
        "recorder_pid": os.getpid(),
        "pid_ns": os.stat("/proc/self/ns/pid").st_ino,
        **_traceparent(environment),
    }


def _traceparent(environment: Mapping[str, str]) -> dict[str, str]:
    """The span in which the target was started, if its environment names one; nothing else of the environment is kept."""
    named = environment.get("TRACEPARENT", "")
    return {"traceparent": named} if parse_traceparent(named) else {}
