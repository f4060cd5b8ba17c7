"""`forktrace demo`."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Final

import click

from forktrace.cli.options import Number, Whole, color_option, force_option, opened, read, say, screen
from forktrace.scenes import SCENES

_SCENES: Final = tuple(each.name for each in SCENES)


@click.command()
@click.argument("scene", metavar="[SCENE]", type=click.Choice(_SCENES), required=False)
@click.option("--list", "listing", is_flag=True, help="Name the scenes, what they show and need, and end.")
@click.option("--speed", type=Number(0.1, 10), default=1.0, help="Run the scene X times as fast.", metavar="X")
@click.option("--bootstrap-servers", metavar="HOST:PORT", help="kafka: a broker that runs already [default: one of its own].")
@click.option("--burst", metavar="N", type=Whole(1, 300), help="kafka: messages of the burst [default: 5].")
@click.option("-o", "--output", metavar="NAME", help="Write NAME.html, .arrows and .png [forktrace-SCENE.PID].")
@force_option
@color_option
def demo(
    scene: str | None,
    listing: bool,
    speed: float,
    bootstrap_servers: str | None,
    burst: int | None,
    output: str | None,
    force: bool,
) -> None:
    """Record a built-in scene and show the result.

    Prints its report, writes its page and draws its timeline. Without SCENE it is kafka, a consumer that reads from a broker
    of its own, where kafka-python and confluent-kafka are installed, else start.

    \b
    Examples:
        forktrace demo
        forktrace demo --list
        forktrace demo kafka --speed 2 -o consumer
    """
    from forktrace.cli import demonstration
    from forktrace.scenes import scene as scene_of

    if listing:
        for each in SCENES:
            needs = f"; needs {' and '.join(each.packages)}" if each.packages else ""
            click.echo(f"{each.name:8}  {each.summary}{needs}")
        return
    chosen = scene_of(scene) if scene else demonstration.default_scene()
    name = re.sub(r"\.(arrows|html|png)$", "", output or f"forktrace-{chosen.name}.{os.getpid()}")
    trace, page, picture = (f"{name}.{form}" for form in ("arrows", "html", "png"))
    servers = ["--bootstrap-servers", bootstrap_servers] if bootstrap_servers else []
    feeding = [*servers, *(["--burst", str(burst)] if burst else [])]
    demonstration.check_feeder(chosen, feeding)
    demonstration.check_modules(chosen)
    if not force:
        demonstration.check_absent(Path(trace), Path(page), Path(picture))
    status = demonstration.record_scene(chosen, Path(trace), speed=speed, force=force, say=say, feeding=feeding)
    if status:
        sys.exit(status if status > 0 else 128 - status)
    _show(trace, page, picture, force)


def _show(trace: str, page: str, picture: str, force: bool) -> None:
    """Print the report of a trace, write its page, draw its timeline and say what matters most.

    Under sudo with the rights of its caller, who owns them.
    """
    from forktrace.analysis import recording  # noqa: F401 - with our own rights, like the three below
    from forktrace.system.users import as_user, invoking_user
    from forktrace.views.pictures.page import write_page
    from forktrace.views.pictures.timeline import write_timeline
    from forktrace.views.text.report import headline, report

    who = invoking_user()
    recorded = as_user(who, partial(read, trace, None, None, None, says_cut=True))
    report(recorded, screen())
    with opened(page, force, partial(as_user, who)) as sink:
        write_page(recorded, sink)
    with opened(picture, force, partial(as_user, who)) as sink:
        write_timeline(recorded, sink, "png")
    say(f"wrote {page}, which any browser opens, {trace} and {picture}; next: forktrace why {trace}")
    say(f"forktrace: {headline(recorded).plain}")
