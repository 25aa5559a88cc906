"""`backtal annotate`: the page on which people click."""

import tempfile
import webbrowser
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from backtal.cli.command import Command, read_labels
from backtal.errors import install


@click.command(cls=Command)
@click.argument("place", metavar="VIDEO_OR_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--labels", type=click.Path(path_type=Path), help="File of the actions, one a line.  [default: annotations.json's]"
)
@click.option("--annotator", default="me", show_default=True, help="Whose clicks: clicks/NAME.txt.")
@click.option("--model", "name", help="A run folder or name: show where a click would teach it most.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Dataset folder to write to.  [default: FOLDER; the one around it if it is called videos]",
)
@click.option("--subset", default="training", show_default=True, help="Subset of a video once its labels are ticked.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port, 0 for any.  [default: from 8765 on]")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def annotate(
    place: Path,
    labels: Path | None,
    annotator: str,
    name: str | None,
    data: Path | None,
    subset: str,
    port: int | None,
    no_browser: bool,
) -> None:
    """Click background and tick labels, in the browser.

    Skim the frames of a video, two a second, and click one in every stretch that shows none of the actions; at the
    end tick the actions that the video contains: that is all that training needs. Everything is saved at once, in
    FOLDER/clicks/NAME.txt and FOLDER/annotations.json; stop with Ctrl-C and go on whenever you like. The page is
    only for this machine and needs no network. Videos are taken from FOLDER/videos, if there is that folder, else
    from FOLDER.

    \b
    Examples:
      backtal annotate DATA --labels labels.txt
      backtal annotate DATA --annotator anna --model RUN
      backtal annotate match.mp4 --labels labels.txt --data DATA

    \b
    Then:
      backtal extract DATA/videos --extractor torchvision/s3d --out DATA/features
      backtal train DATA --out RUN --clicks me.txt
    """
    from backtal.annotate import open_folder

    try:
        import av  # noqa: F401

        from backtal.annotate.server import serve
    except ImportError as failure:
        raise ImportError(f"the page needs the package {failure.name}: {install('annotate')}") from None
    folder = open_folder(place, data)
    for file, reason in folder.left_out.items():
        click.echo(f"backtal annotate: {file} is left out: {reason}", err=True)
    model = None
    if name is not None:
        from backtal.nn.pretrained import LocalizationModel

        model = LocalizationModel.from_pretrained(name)

    with ExitStack() as stack:

        def opened(address: str) -> None:
            click.echo(f"{len(folder.videos)} video(s) in {folder.media}; saving to {folder.root}", err=True)
            click.echo(f"open {address}\nCtrl-C stops; every change is saved at once.", err=True)
            if not no_browser:
                with suppress(OSError):
                    webbrowser.open(_way_to(address, stack))

        serve(folder, read_labels(labels), annotator=annotator, model=model, subset=subset, port=port, opened=opened)


def _way_to(address: str, stack: ExitStack) -> str:
    """The address of a file that leads on to `address`, until `stack` ends: only its owner can read it.

    What a browser is started with, every user of the machine can read, and `address` holds the token.
    """
    # A browser that is a snap sees no other program's /tmp.
    place = Path.home() if Path("/snap").is_dir() else None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="backtal-", dir=place))
    page = Path(folder) / "open.html"
    page.touch(0o600)
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">\n', encoding="utf-8")
    return page.as_uri()
