"""The commands. Each reads its options, calls one library function and prints: data on stdout, words on stderr.

What a command needs is imported in its body, so that `forktrace --help` stays fast and works where a dependency is missing.
"""

from __future__ import annotations

import gc
import sys
from typing import Final, NoReturn

import click

from forktrace import __version__
from forktrace.cli.demo import demo
from forktrace.cli.doctor import doctor
from forktrace.cli.fleet import fleet
from forktrace.cli.gate import check, diff
from forktrace.cli.now import ps, top
from forktrace.cli.process import Group, ReaderLeft, complain_of, complain_of_usage, let_go_of_stdout, open_standard_streams
from forktrace.cli.read import events, export, page, report, timeline, why
from forktrace.cli.record import record
from forktrace.errors import ForktraceError

_GARBAGE: Final = 50_000  # objects, after which Python looks for garbage: every 700 it costs an eighth of a small report


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="forktrace", message="%(prog)s %(version)s")
def cli() -> None:
    """Show every zombie process of a program: who forked it, how long it stayed, and who reaped it.

    \b
    Examples:
        forktrace doctor                          can this machine record?
        forktrace record -- python consumer.py    asks sudo for the recorder alone
        forktrace report                          the newest trace here, in words
        forktrace why 4711                        one process, explained
        forktrace page                            all in one HTML file
        forktrace timeline -o consumer.png
        forktrace ps --watch                      the zombies of this machine, now
        forktrace check --max-zombie 5s           fails where one lasted longer
    """


for _command in (record, report, why, page, timeline, ps, top, events, export, check, diff, fleet, demo, doctor):
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command line and end with the status of DESIGN.md, section 6. Errors of users are one line, no traceback."""
    open_standard_streams()
    gc.set_threshold(_GARBAGE)
    try:
        status = cli.main(prog_name="forktrace", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        status = complain_of_usage(error)
    except click.Abort:
        status = 130  # 128 + SIGINT
    except (ForktraceError, ReaderLeft, OSError) as error:
        let_go_of_stdout()  # as long as there is the error: what pandas has put around stdout goes with it
        status = complain_of(error)
    sys.exit(status)
