"""`forktrace doctor`."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--sudoers", is_flag=True, help="Print the rule by which you may record without a password, and nothing else.")
def doctor(sudoers: bool) -> None:
    """Check what recording needs of this machine, and try it.

    One line for each requirement; a failure names the command that mends it. With the rights to record the probes are loaded
    one by one, and a child is recorded from its fork to its reap. The last line is the verdict.

    \b
    Examples:
        forktrace doctor
        sudo forktrace doctor
        forktrace doctor --sudoers | sudo tee /etc/sudoers.d/forktrace
    """
    if sudoers:
        from forktrace.launcher.recorder_process import sudoers_rule
        from forktrace.system.users import invoking_user

        click.echo(sudoers_rule(invoking_user().name), nl=False)
        return
    from forktrace.cli.checks import examine, try_out, verdict
    from forktrace.errors import MachineLacks

    findings = []
    for look in (examine, try_out):
        for finding in look():
            findings.append(finding)
            click.echo(finding.line())
        if not all(finding.good for finding in findings):
            break
    click.echo(verdict(findings))
    if not all(finding.good for finding in findings):
        sys.exit(MachineLacks.exit_status)
