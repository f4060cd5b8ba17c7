"""The errors a user can meet. Each carries one line that says what went wrong and, in `hint`, what to do next.

`exit_status` is the status the command line ends with (DESIGN.md, section 6); `record` turns its own failures into 125.
"""


class ForktraceError(Exception):
    """Base of all errors that forktrace raises on purpose; printed as one line, never as a traceback."""

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ForktraceError):
    """The command line cannot be executed as typed."""

    exit_status = 2


class TraceError(ForktraceError):
    """A trace is empty, damaged, not a trace, or from a newer forktrace."""

    exit_status = 65


class CannotTell(ForktraceError):
    """The recording is not enough to answer: what is missing could change the answer."""

    exit_status = 66


class GateFailed(ForktraceError):
    """`check` or `diff` itself failed: neither a limit that is broken nor one that holds."""

    exit_status = 70


class NoFile(ForktraceError, FileNotFoundError):
    """There is no such file; also a FileNotFoundError."""


class PermissionMissing(ForktraceError):
    """The right that is needed (root, a capability, a file's owner) is missing."""

    exit_status = 77


class MachineLacks(ForktraceError):
    """The machine lacks something: BTF, bcc, a tracepoint, which `forktrace doctor` lists; or a Python package."""

    exit_status = 78


def package_missing(package: str, extra: str, instead: str = "") -> MachineLacks:
    """Return the error that a Python package is missing which comes with `forktrace[extra]`; `instead`: what needs none."""
    hint = f"pip install 'forktrace[{extra}]'"
    return MachineLacks(f"the package {package} is not installed", f"{hint}; {instead}" if instead else hint)


class CommandError(ForktraceError):
    """The command to record could not be started; 126 when it cannot be executed, 127 when it is not found."""

    def __init__(self, message: str, exit_status: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_status = exit_status


def in_words(error: OSError) -> str:
    """Return what the kernel refused, in one line."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
