"""`backtal watch`: segments while the video is still running."""

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backtal.cli.command import Command

if TYPE_CHECKING:
    from backtal.nn.live.watcher import Event, Watcher

_MOST_COMMANDS = 8  # that run at the same time


@click.command(cls=Command)
@click.argument("source")
@click.option("--model", "name", required=True, help="A run folder, a name (shrec22) or owner/name on the Hub.")
@click.option("--least-score", type=float, default=0.45, show_default=True, help="Leave out segments below.")
@click.option("--label", "labels", multiple=True, help="Only this class. Repeatable.  [default: all]")
@click.option("--longest", type=float, default=60.0, show_default=True, help="Close an action after so many seconds.")
@click.option("--running", type=float, metavar="SECONDS", help="Running form of recipes that need the whole video.")
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="DIR", help="Write a clip of each final segment to DIR."
)
@click.option("--before", type=float, default=2.0, show_default=True, help="Seconds of a clip before the segment.")
@click.option("--after", type=float, default=2.0, show_default=True, help="Seconds of a clip after the segment.")
@click.option("--exec", "command", metavar="COMMAND", help="Run for each final segment; its JSON is on standard input.")
@click.option("--extractor", "extractor_name", help="Of the features.  [default: the one the checkpoint names]")
@click.option(
    "--weights", multiple=True, type=click.Path(path_type=Path), help="The extractor's state dict; i3d: RGB, then flow."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one localization setting.")
@click.option(
    "--patience",
    type=float,
    default=10.0,
    show_default=True,
    help="Seconds without anything: an address is cut off, a file complete.",
)
@click.option(
    "--give-up", type=float, metavar="SECONDS", help="End after so long without a connection.  [default: never]"
)
@click.option("--bf16", is_flag=True, help="Compute in bfloat16.")
def watch(
    source: str,
    name: str,
    least_score: float,
    labels: tuple[str, ...],
    longest: float,
    running: float | None,
    save: Path | None,
    before: float,
    after: float,
    command: str | None,
    extractor_name: str | None,
    weights: tuple[Path, ...],
    settings: tuple[str, ...],
    patience: float,
    give_up: float | None,
    bf16: bool,
) -> None:
    """Find the actions in a video while it still runs.

    SOURCE is a camera (0, /dev/video0), an address (rtsp, http, HLS, tcp, udp), a pipe (-), or a file, which may still
    be written. Each segment that opens, changes or is final is a JSON object on a line of its own. Ctrl-C ends it, with
    all that is open.

    \b
    Examples:
      backtal watch 0 --model RUN
      backtal watch rtsp://camera/stream --model RUN --label fall --save CLIPS --exec ./alarm.sh
      backtal watch match.mp4 --model RUN
    """
    from backtal.nn.ensemble import with_localization
    from backtal.nn.live.watch import Saving
    from backtal.nn.pretrained import LocalizationModel

    model = with_localization(LocalizationModel.from_pretrained(name), settings)
    if bf16:
        model = model.bfloat16()
    stop = threading.Event()
    events = model.watch(
        source,
        extractor=model.extractor(extractor_name, weights),
        least_score=least_score,
        labels=labels or None,
        longest=longest,
        running=running,
        save=save and Saving(save, before, after),
        patience=patience,
        give_up=give_up,
        bf16=bf16,
        stop=stop,
        started=_say_latency,
    )
    commands: list[subprocess.Popen] = []
    with _stopping(stop):
        for event in events:
            line = json.dumps(event.to_dict())
            click.echo(line)
            if command and event.kind == "final":
                _run(command, line, event, commands)
    for running_one in commands:
        running_one.wait()


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Have Ctrl-C and a friendly kill set `stop`, until the block ends."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_latency(watcher: "Watcher") -> None:
    click.echo(f"{watcher.latency}, and said as open until then; a smaller --longest makes that shorter", err=True)


def _run(command: str, line: str, event: "Event", commands: list[subprocess.Popen]) -> None:
    """Start the user's command; nothing of the event becomes a word of the shell."""
    commands[:] = [one for one in commands if one.poll() is None]
    if len(commands) >= _MOST_COMMANDS:
        click.echo(f"backtal watch: --exec: {_MOST_COMMANDS} commands still run; waiting for the first", err=True)
        commands.pop(0).wait()
    values = {f"BACKTAL_{key.upper()}": str(value) for key, value in event.to_dict().items()}
    try:
        # What it prints goes to stderr: stdout is for JSON.
        started = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=2, env=os.environ | values, start_new_session=True
        )
    except (OSError, ValueError) as failure:
        click.echo(f"backtal watch: --exec: {failure}", err=True)
        return
    assert started.stdin is not None
    try:
        started.stdin.write(line.encode() + b"\n")
        started.stdin.close()
    except BrokenPipeError:
        pass
    commands.append(started)
