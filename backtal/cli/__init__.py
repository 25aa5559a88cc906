"""The command line: one short handler per command."""

import click

from backtal import __version__
from backtal.cli import annotating, clicks, data, exports, live, models, pictures, research, videos
from backtal.cli.command import keep_freed_memory, show_notes


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Temporal action localization from background clicks.

    \b
    backtal demo                                       everything once, on synthetic data
    backtal annotate VIDEOS --labels LABELS.txt        click background and tick labels, in the browser
    backtal train DATA --out RUN                       learn from video labels and clicks
    backtal localize DATA --model RUN --out FOUND.json find the actions
    backtal watch SOURCE --model RUN                   find the actions while a video still runs
    backtal evaluate FOUND.json --data DATA            compare with the ground truth
    backtal extract VIDEOS --extractor NAME --out DIR  features of video files
    backtal dataset check DATA                         what is missing, what does not line up
    backtal clicks stats DATA                          how good the clicks are; convert, simulate, check
    backtal report RUN --data DATA --out REPORT.html   numbers, errors and pictures on one page
    """
    keep_freed_memory()
    show_notes()


for _command in (
    models.train,
    models.localize,
    live.watch,
    models.evaluate,
    models.tune,
    data.dataset,
    clicks.clicks,
    exports.export,
    exports.predictions,
    pictures.diagnose,
    pictures.plot,
    pictures.report,
    research.recipes,
    research.convert,
    research.info,
    research.ablate,
    research.demo,
    videos.extract,
    annotating.annotate,
):
    main.add_command(_command)
