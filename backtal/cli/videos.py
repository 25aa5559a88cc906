"""`backtal extract`: features of video files."""

import json
from pathlib import Path

import click

from backtal.cli.command import Command


@click.command(cls=Command)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--extractor", "name", required=True, help="i3d, torchvision/NAME, timm/NAME or FILE.py:FUNCTION.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write <video>.npz to.")
@click.option(
    "--weights", multiple=True, type=click.Path(path_type=Path), help="File of a state dict; i3d: RGB, then flow."
)
@click.option("--fps", type=float, help="Frames per second to look at.  [default: the extractor's]")
@click.option("--window", type=int, help="Frames of one snippet.  [default: the extractor's]")
@click.option("--stride", type=int, help="Frames from one snippet to the next.  [default: the extractor's]")
@click.option("--flow", help="Optical flow: tvl1, raft_small or raft_large.  [default: tvl1]")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Snippets at once.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Threads that decode.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--bf16", is_flag=True, help="Compute in bfloat16.")
@click.option("--keep-damaged", is_flag=True, help="Use what can be decoded of damaged videos.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--actors", type=click.IntRange(min=1), default=1, show_default=True, help="Copies of the network (ray).")
@click.pass_context
def extract(
    ctx: click.Context,
    videos: tuple[Path, ...],
    name: str,
    out: Path,
    weights: tuple[Path, ...],
    fps: float | None,
    window: int | None,
    stride: int | None,
    flow: str | None,
    batch_size: int,
    workers: int,
    device: str,
    bf16: bool,
    keep_damaged: bool,
    engine: str,
    actors: int,
) -> None:
    """Write the features of video files.

    VIDEOS are files or folders of them. Stopped or killed, the same command goes on where it was. A video that cannot
    be read is reported and skipped, and the exit code is 2 then. Prints as JSON what was written, kept from before, and
    failed.

    \b
    Examples:
      backtal extract DATA/videos --extractor torchvision/s3d --out DATA/features
      backtal extract a.mp4 b.mkv --extractor i3d --weights rgb.pt --weights flow.pt --out FEATURES
      backtal extract DATA/videos --extractor mine.py:build --out DATA/features --engine ray --actors 8
    """
    from backtal.video import videos_in

    paths = videos_in(videos)
    chosen = {"name": name, "weights": weights, "fps": fps, "window": window, "stride": stride, "flow": flow}
    options = {"workers": workers, "batch_size": batch_size, "bf16": bf16, "keep_damaged": keep_damaged}
    options["device"] = None if device == "auto" else device
    if engine == "ray":
        from backtal.video.bulk import extract_on_ray

        report = extract_on_ray(paths, chosen, out, actors=actors, **options)
    else:
        from backtal.video import chosen_extractor, extract_files

        report = extract_files(paths, chosen_extractor(**chosen), out, **options)
    for path, reason in report.failed.items():
        click.echo(f"backtal extract: {path}: {reason}", err=True)
    counts = f"wrote {len(report.written)}, kept {len(report.kept)}, failed {len(report.failed)}"
    click.echo(f"{counts}: {out}", err=True)
    click.echo(json.dumps(report.to_dict(), indent=1))
    ctx.exit(2 if report.failed else 0)
