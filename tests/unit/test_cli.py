"""The command line: statuses, one-line errors, and data that goes where it should."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from traces import HEADER

from forktrace.cli import cli
from forktrace.cli.options import Seconds
from forktrace.trace import events as ev
from forktrace.trace import stream

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
COMMANDS = ("report", "why", "timeline", "events", "export")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run forktrace as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "forktrace", *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def run_record(outcome: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `forktrace record` where launching is `outcome`: Python statements that see command and options."""
    program = (
        "import sys, types\n"
        "from forktrace.errors import *\n"
        "def record(command, options, user, written):\n"
        f"    {outcome}\n"
        "sys.modules['forktrace.launcher.command'] = types.SimpleNamespace(record=record)\n"
        "from forktrace.cli import main; main()"
    )
    program = program.replace("import sys, types", "import sys, types, forktrace.launcher")
    return subprocess.run(
        [sys.executable, "-c", program, "record", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A directory with one small trace."""
    path = tmp_path / "forktrace-consumer.100.arrows"
    ms = 1_000_000
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        rows = [
            ev.fork(0, 100, by=50, origin="target", comm="python"),
            ev.fork(5 * ms, 101, by=100, comm="python"),
            ev.exit_(9 * ms, 101, parent=100),
            ev.zombie(9 * ms, 101, parent=100),
            ev.reap(50 * ms, 101, by=100),
            ev.exit_(60 * ms, 100, parent=50),
            ev.zombie(60 * ms, 100, parent=50),
            ev.reap(61 * ms, 100, by=50),
            ev.end(62 * ms),
        ]
        writer.write(stream.batch_of(rows))
        writer.close()
    return path


def cpu_seconds(*arguments: str) -> float:
    """Return the least processor time of seven runs of Python."""
    seconds = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def test_help_is_fast_and_imports_little() -> None:
    """`forktrace --help` takes at most 0.15 s of a processor, more only where all takes long; it imports nothing large."""
    program = (
        "import sys\n"
        "from forktrace.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'pyarrow', 'pandas', 'numpy', 'matplotlib', 'bcc', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    assert cpu_seconds("-m", "forktrace", "--help") <= max(0.15, 8 * cpu_seconds("-c", ""))


def test_a_report_imports_only_what_it_prints_with(trace: Path) -> None:
    """What writes JSON, Parquet and pictures is loaded by the commands that do."""
    program = (
        "import sys\n"
        "from forktrace.cli import cli\n"
        f"cli.main(['report', {str(trace)!r}], standalone_mode=False)\n"
        "heavy = {'pyarrow.parquet', 'matplotlib', 'forktrace.views.formats.report_json'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)


def test_version() -> None:
    """`--version` names the version on stdout."""
    assert run("--version").stdout == "forktrace 0.1.0\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_newest_trace_is_found_and_named(trace: Path, command: str) -> None:
    """Without TRACE the newest one in the directory is read, and stderr says which."""
    old = trace.with_name("forktrace-old.1.arrows")
    old.write_bytes(b"damaged")
    os.utime(old, (1, 1))
    done = run(command, cwd=trace.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == f"forktrace: reading {trace.name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_trace_at_all(tmp_path: Path, command: str) -> None:
    """A directory without a trace is a usage error that says how to make one."""
    done = run(command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("forktrace: no trace (*.arrows) in this directory\n  ")
    assert "forktrace record --" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_trace_is_65(tmp_path: Path, command: str) -> None:
    """One line that names the file, no traceback, status 65, no output file."""
    (tmp_path / "t.arrows").write_bytes(b"hello, world")
    done = run(command, "t.arrows", cwd=tmp_path)
    assert done.returncode == 65
    assert done.stderr.startswith("forktrace: t.arrows: ")
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["t.arrows"]


def test_ps_of_a_moment(trace: Path) -> None:
    """The processes on stdout, what the moment is on stderr; a moment that is none, or not in the recording, is 2."""
    done = run("ps", "--at", "20ms", cwd=trace.parent)
    assert (done.returncode, [line.split() for line in done.stdout.splitlines()[1:]]) == (
        0,
        [["100", "50", "-", "00:00", "[python]"], ["101", "100", "Z", "00:00", "[python]", "<defunct>"]],
    )
    assert done.stderr.splitlines()[0] == f"forktrace: reading {trace.name}"
    assert done.stderr.splitlines()[1].startswith("forktrace: +0.020 s, ")
    for wrong in ("63ms", "yesterday"):
        done = run("ps", trace.name, "--at", wrong, cwd=trace.parent)
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["t.arrows"], "which moment of t.arrows?"),
        (["t.arrows", "--at", "1s", "--json"], "--json and --watch are for the zombies of now"),
        (["--at", "1s", "--watch"], "--json and --watch are for the zombies of now"),
        (["--watch", "0"], "'--watch'"),
        (["--watch", "nan"], "'--watch'"),
    ],
)
def test_ps_of_now_or_of_a_moment(arguments: list[str], words: str) -> None:
    """A trace and a moment belong together; --json and --watch are for now."""
    done = run("ps", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_report_of_a_cut_trace_says_so_once(trace: Path) -> None:
    """In the report, where it belongs: stderr has nothing to add. Without any event it is all there is to say."""
    whole = trace.read_bytes()
    for size, words in [(len(whole) - 8, "The trace is not whole: "), (whole.index(b"\xff" * 4, 8), "Nothing was recorded: ")]:
        trace.write_bytes(whole[:size])
        done = run("report", trace.name, cwd=trace.parent)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(words) == done.stdout.count("its end mark") == 1
    assert len(done.stdout.splitlines()) == 2


def test_a_cut_trace_is_shown_with_a_warning(trace: Path) -> None:
    """What is there is shown; stderr says why the rest is not."""
    trace.write_bytes(trace.read_bytes()[:-8])
    done = run("events", trace.name, cwd=trace.parent)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 9
    assert "without its end mark" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["nonsense"], 2),
        (["--nonsense"], 2),
        (["report", "--nonsense"], 2),
        (["report", "none.arrows"], 1),
        (["report", "a", "b", "c"], 2),
        (["export", "--table", "nonsense"], 2),
        (["timeline", "-o", "x.gif"], 2),
        (["export", "-o", "x.gif"], 2),
        (["events", "--pid", "99999"], 2),
        (["why", "99999"], 2),
        (["why", "#99"], 2),
        (["why", "a", "b", "c"], 2),
        (["events", "--since", "yesterday"], 2),
        (["record"], 125),
        (["record", "--nonsense", "true"], 125),
        (["record", "-d", "0", "true"], 125),
        (["record", "-d", "-1", "true"], 125),
        (["record", "-d", "inf", "true"], 125),
        (["record", "-d", "nan", "true"], 125),
        (["record", "-d", "never", "true"], 125),
        (["record", "--max-size", "63K", "true"], 125),
        (["record", "--max-size", "10Q", "true"], 125),
        (["record", "--max-size", "", "true"], 125),
    ],
)
def test_what_cannot_be_carried_out(trace: Path, arguments: list[str], status: int) -> None:
    """Mistakes are one line `forktrace: ...` with a hint, never a traceback."""
    done = run(*arguments, cwd=trace.parent)
    assert done.returncode == status
    complaint = [line for line in done.stderr.splitlines() if not line.startswith("forktrace: reading ")]
    assert complaint[0].startswith("forktrace: ")
    assert len(complaint) <= 2
    assert [path.name for path in trace.parent.iterdir()] == [trace.name]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["record", "--rotate"], 125, "forktrace: Option '--rotate' requires an argument.\n  forktrace record --help shows"),
        (["report", "--since"], 2, "forktrace: Option '--since' requires an argument.\n  forktrace report --help shows"),
        (["--nonsense"], 2, "forktrace: No such option '--nonsense'.\n  forktrace --help shows"),
        (["record", "--keep", "x", "true"], 125, "forktrace: Invalid value for '--keep': 'x' is not a valid whole number.\n"),
        (["demo", "--speed", "x"], 2, "forktrace: Invalid value for '--speed': 'x' is not a valid number.\n"),
    ],
)
def test_a_mistake_names_the_help_of_its_command(arguments: list[str], status: int, words: str) -> None:
    """An option without its value does so as well, and a number is called one."""
    done = run(*arguments)
    assert (done.stderr[: len(words)], done.returncode) == (words, status)


@pytest.mark.parametrize(
    ("module", "package", "extra", "arguments", "status"),
    [
        ("textual", "textual", "top", "top", 78),
        ("duckdb", "duckdb", "fleet", "fleet fleet", 78),
        ("opentelemetry", "opentelemetry-sdk", "otel", "export x.arrows --otlp x.jsonl", 78),
        ("perfetto.trace_builder.proto_builder", "perfetto", "perfetto", "export {} -o {}.pftrace", 78),
        ("prometheus_client", "prometheus-client", "metrics", "record --metrics x.prom true", 125),
    ],
)
def test_a_package_that_is_missing(trace: Path, module: str, package: str, extra: str, arguments: str, status: int) -> None:
    """It is named with how to get it, in the same words and with one status wherever it is: 78, and 125 of record."""
    day = trace.parent / "fleet/table=lifecycles/date=2026-11-29"
    day.mkdir(parents=True)
    (day / "x.parquet").touch()
    program = f"import sys; sys.modules['{module}'] = None; from forktrace.cli import main; main()"
    line = [sys.executable, "-c", program, *arguments.format(trace, trace).split()]
    done = subprocess.run(line, cwd=trace.parent, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    first, second = done.stderr.splitlines()
    assert first == f"forktrace: the package {package} is not installed"
    assert second.startswith(f"  pip install 'forktrace[{extra}]'")
    assert done.returncode == status


def test_nothing_is_overwritten_without_force(trace: Path) -> None:
    """A file that exists stays; --force replaces it."""
    taken = trace.with_name("x.csv")
    taken.write_text("mine")
    done = run("export", "-o", "x.csv", cwd=trace.parent)
    assert (done.returncode, taken.read_text()) == (2, "mine")
    assert "--force" in done.stderr
    assert run("export", "-o", "x.csv", "--force", cwd=trace.parent).returncode == 0
    assert taken.read_text().startswith("id,parent_id,pid")


def test_a_file_that_cannot_be_written(trace: Path) -> None:
    """A directory that is not there is one line and status 1; no permission is 77."""
    done = run("export", "-o", "none/x.csv", cwd=trace.parent)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "forktrace: none/x.csv: No such file or directory")
    full = subprocess.run(
        f"{shlex.quote(sys.executable)} -m forktrace events {trace} > /dev/full",
        shell=True,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (full.returncode, full.stderr) == (1, "forktrace: No space left on device\n")


@pytest.mark.parametrize("command", ["events", "export", "report", "why", "timeline -o -"])
def test_head_ends_it_quietly(trace: Path, command: str) -> None:
    """A reader that leaves is no error worth a word; the status is that of other programs then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "forktrace", *command.split(), trace],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize("table", ["lifecycles", "events"])
def test_a_terminal_gets_no_control_characters(trace: Path, table: str) -> None:
    """Names from a trace cannot steer the terminal that a table is printed to, by way of a pipe neither."""
    with trace.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        evil = (
            ev.fork(0, 100, by=50, origin="target", comm="\x1b[31m"),
            ev.exec_(1, 100, ["\x1b]0;"], file="\x1b", comm="\x1b[31m"),
        )
        writer.write(stream.batch_of([*evil, ev.end(2)]))
        writer.close()
    assert "\x1b" not in run("export", str(trace)).stdout
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "forktrace", "export", str(trace), "--table", table]
    subprocess.run(command, env=ENVIRONMENT, stdout=its, check=True)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert rb"\x1b" in shown
    assert b"\x1b" not in shown


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["why"], "101 was a zombie for 41 ms"),
        (["why", "101"], "101 was a zombie for 41 ms"),
        (["why", "#0"], "100 is the command itself; forktrace, its parent, waited for it"),
        (["why", "forktrace-consumer.100.arrows"], "101 was a zombie for 41 ms"),
        (["why", "forktrace-consumer.100.arrows", "100"], "100 is the command itself; forktrace, its parent, waited for it"),
    ],
)
def test_why_takes_a_trace_a_process_or_both(trace: Path, arguments: list[str], first: str) -> None:
    """A lone number is a process of the newest trace, unless a file is called so; without one it is the worst."""
    done = run(*arguments, cwd=trace.parent)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, first)
    trace.rename(trace.with_name("100"))
    assert run("why", "100", cwd=trace.parent).stdout.startswith("101 was a zombie")


def test_a_report_of_one_process(trace: Path) -> None:
    """`report` names a process as `why` does: a number alone, after the trace, or --of, whose old name is --pid."""
    ways = (["101"], ["#1"], [trace.name, "101"], [trace.name, "--of", "101"], ["--pid", "101"])
    said = {run("report", *way, cwd=trace.parent).stdout for way in ways}
    assert len(said) == 1
    assert "Only a part is shown: 1 of 2 processes." in said.pop()
    both = run("report", trace.name, "101", "--of", "100", cwd=trace.parent)
    assert (both.returncode, both.stderr.splitlines()[0]) == (2, "forktrace: only 101, or only 100?")


def test_the_newest_trace_of_any_name(trace: Path) -> None:
    """A trace that -o named is found too; what is no file is not."""
    trace.rename(trace.with_name("mine.arrows"))
    trace.with_name("z.arrows").mkdir()
    assert run("report", cwd=trace.parent).stderr == "forktrace: reading mine.arrows\n"


@pytest.mark.parametrize(
    ("written", "seconds"), [("2", 2), ("2s", 2), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5), (".5", 0.5), ("0.25s", 0.25)]
)
def test_durations(written: str, seconds: float) -> None:
    """With a unit, or seconds."""
    assert Seconds(0, 1e9).convert(written, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", ".", "s", "-1", "1e3", "nan", "inf", "1 s", "1d", "0x10", "1_0", "1" * 14])
def test_no_durations(written: str) -> None:
    """What is none says how one looks."""
    with pytest.raises(click.BadParameter):
        Seconds(0, 1e9).convert(written, None, None)


def on_terminal(command: list[str], cwd: Path, **environment: str) -> tuple[str, int]:
    """Run forktrace with its stdout on a terminal; return what that shows, and the status."""
    ours, its = pty.openpty()
    line = [sys.executable, "-m", "forktrace", *command]
    there = {name: value for name, value in ENVIRONMENT.items() if name not in ("NO_COLOR", "CLICOLOR_FORCE")}
    there |= {"TERM": "xterm"} | environment
    done = subprocess.run(line, env=there, cwd=cwd, stdout=its, stderr=subprocess.PIPE, check=False)
    os.close(its)
    shown = done.stderr
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    return shown.decode(), done.returncode


@pytest.mark.parametrize(
    "command",
    [["timeline", "-o", "-"], ["export", "--to", "parquet"], ["record", "-o", "-", "true"], ["record", "-o", "-", "-p", "1"]],
)
def test_nothing_binary_goes_to_a_terminal(trace: Path, command: list[str]) -> None:
    """It is refused, with what to type instead."""
    shown, status = on_terminal(command, trace.parent)
    assert status == (125 if command[0] == "record" else 2)
    assert "is not for a terminal\n  forktrace" in shown.replace("\r", "")


@pytest.mark.parametrize(
    ("arguments", "environment", "coloured"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        ([], {"CLICOLOR_FORCE": "1"}, True),
        ([], {"CLICOLOR_FORCE": "0"}, False),
        ([], {"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False),
        (["--color", "never"], {"CLICOLOR_FORCE": "1"}, False),
    ],
)
def test_colours_in_a_pipe(trace: Path, arguments: list[str], environment: dict[str, str], coloured: bool) -> None:
    """None, unless they are asked for; the option comes before the environment."""
    line = [sys.executable, "-m", "forktrace", "why", *arguments, trace.name]
    done = subprocess.run(line, cwd=trace.parent, env=ENVIRONMENT | environment, capture_output=True, text=True, check=True)
    assert ("\x1b[1m" in done.stdout) == coloured


def test_colours_on_a_terminal(trace: Path) -> None:
    """As it is asked for."""
    assert "\x1b[1m" in on_terminal(["why", trace.name], trace.parent)[0]
    assert "\x1b[" not in on_terminal(["why", "--color", "never", trace.name], trace.parent)[0]


def test_a_script_is_no_command(tmp_path: Path) -> None:
    """A Python file, or another file here, that is no command: what was probably meant is asked."""
    (tmp_path / "consumer.py").write_text("")
    (tmp_path / "tool").write_text("")
    said = run("record", "consumer.py", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (127, "forktrace: consumer.py: command not found\n  python consumer.py?\n")
    assert run("record", "tool", cwd=tmp_path).stderr.endswith("\n  ./tool?\n")
    assert run("record", "other.py", cwd=tmp_path).stderr == "forktrace: other.py: command not found\n"


def test_help_fits_80_columns() -> None:
    """That of all commands together too."""
    done = CliRunner().invoke(cli, ["--help"], terminal_width=80)
    assert max(map(len, done.output.splitlines())) <= 80


def test_selections_reach_the_tables(trace: Path) -> None:
    """--of, --since and --until leave out what was not asked for."""
    lines = run("export", str(trace), "--of", "101").stdout.splitlines()
    assert [line.split(",")[2] for line in lines[1:]] == ["101"]
    late = run("events", str(trace), "--since", "0.055s", "--until", "0.0605s").stdout.splitlines()
    assert len(late) == 2


@pytest.mark.parametrize("command", ["report", "export"])
def test_rules_of_the_user(trace: Path, command: str) -> None:
    """--causes takes a file of rules; one that is none is a line with a hint."""
    file = trace.with_name("own.toml")
    file.write_text("[[cause]]\nname = 'mine'\nframes = ['a.py reap']")
    assert run(command, "--causes", "own.toml", cwd=trace.parent).returncode == 0
    file.write_text("[[cause]]\nname = 'mine'")
    done = run(command, "--causes", "own.toml", cwd=trace.parent)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        "forktrace: own.toml: [[cause]] 1: frames is no list of texts",
        "  docs/causes.md shows how rules are written",
    ]


@pytest.mark.parametrize("table", ["lifecycles", "events", "starts", "waits", "signals", "failed_forks", "stolen", "orphans"])
def test_every_table_in_every_format(trace: Path, table: str) -> None:
    """Each table can be written as each format, by the file's name."""
    for form in ("csv", "json", "parquet"):
        file = trace.with_name(f"{table}.{form}")
        done = CliRunner().invoke(cli, ["export", str(trace), "--table", table, "-o", str(file)], catch_exceptions=False)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"wrote {file}\n")
        assert file.stat().st_size > 0


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures(trace: Path, form: str, magic: bytes) -> None:
    """The name says the format; the command says what it wrote."""
    done = run("timeline", str(trace), "-o", f"x.{form}", cwd=trace.parent)
    assert done.stderr == f"wrote x.{form}\n"
    assert trace.with_name(f"x.{form}").read_bytes().startswith(magic)


def test_record_hands_on_what_was_typed() -> None:
    """Options before the command are record's, all after it are the command's; `--` may be left out."""
    say = "print(list(command), user, vars(options), flush=True); return 0"
    plain = run_record(say, "python", "x.py", "-q", "--force", "--", "-o")
    assert plain.stdout.startswith("['python', 'x.py', '-q', '--force', '--', '-o'] None {'output': None, 'force': False,")
    full = run_record(say, "-o", "t.arrows", "--force", "-d", "2.5", "-q", "--user", "alice", "--max-size", "1g", "--", "--odd")
    assert full.stdout.startswith(
        "['--odd'] alice {'output': 't.arrows', 'force': True, 'duration_s': 2.5, 'quiet': True,"
        " 'stacks': True, 'source': True, 'own': (), 'max_size': 1073741824"
    )


@pytest.mark.parametrize("code", [0, 42, 255])
def test_record_ends_with_the_status_of_the_command(code: int) -> None:
    """The command's exit code is forktrace's."""
    assert run_record(f"return {code << 8}", "x").returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGSEGV, 35])
def test_record_ends_by_the_signal_of_the_command(number: int) -> None:
    """A command killed by a signal: forktrace dies of it too, also where it is ignored or blocked, and leaves no core."""
    outcome = (
        "import signal, resource; resource.setrlimit(resource.RLIMIT_CORE, (-1, -1));"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}]);"
        f"{int(number)} == 9 or signal.signal({int(number)}, signal.SIG_IGN); return {int(number)}"
    )
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != -1:
        outcome = outcome.replace("resource.setrlimit(resource.RLIMIT_CORE, (-1, -1));", "")
    done = run_record(outcome, "x")
    assert (done.returncode, done.stderr) == (-number, "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("PermissionMissing('no root', 'sudo forktrace')", 125),
        ("MachineLacks('no BTF', 'forktrace doctor')", 125),
        ("UsageError('t exists', '--force')", 125),
        ("CommandError('x: cannot be executed', 126, 'chmod +x x')", 126),
        ("CommandError('x: not found', 127, 'is it in PATH?')", 127),
    ],
)
def test_records_own_failures(error: str, status: int) -> None:
    """125 for its own, 126 and 127 for a command that cannot be executed or found; one line and a hint."""
    done = run_record(f"raise {error}", "x")
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.startswith("forktrace: ")


def test_an_error_steers_no_terminal(tmp_path: Path) -> None:
    """A message quotes names as they can be seen."""
    (tmp_path / "\x1b[2J.arrows").write_bytes(b"no trace")
    done = run("report", "\x1b[2J.arrows", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (65, r"forktrace: \x1b[2J.arrows: not a trace of forktrace")
