"""Take models and predictions elsewhere."""

from pathlib import Path

import click

from backtal.cli.command import Command


@click.command(cls=Command)
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write: .onnx or .pt2.")
@click.option("--format", "form", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True)
def export(model: str, out: Path, form: str) -> None:
    """Write the network of MODEL as an ONNX or torch.export graph.

    It runs without backtal, for any batch size and length. The file is run on random videos and compared with PyTorch;
    stderr says how far apart they are. What goes in and comes out: the documentation of `backtal.interop.export`.

    \b
    Examples:
      backtal export RUN --out model.onnx
      backtal export shrec22 --format torch --out model.pt2
    """
    from backtal.interop.export import export as write
    from backtal.nn.model import BackTALModel

    written = write(BackTALModel.from_pretrained(model), out, form)
    click.echo(f"wrote {out}; greatest difference from PyTorch {written.difference:.1e}", err=True)


@click.command(cls=Command)
@click.argument("found", metavar="FOUND.json", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["activitynet", "csv", "label-studio"]), required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--least-score", type=float, default=None, help="Leave weaker segments out.")
@click.option("--data", type=click.Path(path_type=Path), help="Dataset folder: frame rates, labels.  [label-studio]")
@click.option(
    "--url", default="/data/local-files/?d={video}.mp4", show_default=True, help="Of a video.  [label-studio]"
)
def predictions(form: str, found: Path, out: Path, least_score: float | None, data: Path | None, url: str) -> None:
    """Convert predictions for other programs.

    FOUND.json is what `backtal localize` wrote. For Label Studio, OUT holds the tasks, and OUT with the ending .xml the
    labelling configuration of the project.

    \b
    Examples:
      backtal predictions found.json --to csv --out found.csv
      backtal predictions found.json --to activitynet --least-score 0.3 --out strong.json
      backtal predictions found.json --to label-studio --data DATA --least-score 0.3 --out tasks.json
    """
    from backtal.data.datasets import DatasetFolder
    from backtal.errors import DataError
    from backtal.files import atomic_path, write_json
    from backtal.segments.predictions import label_studio_config, label_studio_tasks, write_csv
    from backtal.segments.segments import read_predictions, write_predictions

    videos = read_predictions(found)
    videos = videos if least_score is None else [video.above(least_score) for video in videos]
    if form != "label-studio":
        (write_csv if form == "csv" else write_predictions)(out, videos)
    else:
        if data is None:
            raise DataError("--to label-studio needs --data: it counts in frames, and the dataset knows their rates")
        annotations = DatasetFolder(data).annotations
        rates = {name: video.frame_rate or 0.0 for name, video in annotations.videos.items()}
        urls = {video.video_id: url.replace("{video}", video.video_id) for video in videos}
        write_json(out, label_studio_tasks(videos, urls, rates))
        with atomic_path(out.with_suffix(".xml")) as temporary:
            temporary.write_text(label_studio_config(annotations.labels) + "\n", encoding="utf-8")
    click.echo(f"wrote {out}: {sum(map(len, videos))} segments in {len(videos)} videos", err=True)
