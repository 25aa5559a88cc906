"""A recipe judged inside the training subset: trained on two thirds of its videos or on one, measured on the others.

    python benchmarks/folds.py DATA --clicks A1.txt --fold 0 --out runs/folds [--recipe NAME] [--set KEY=VALUE ...]

Thirds are of consecutive videos, so that most people of a held-out third do not occur in training; fold 0 holds out the
last third, fold 1 the first; 2 and 3 train on the first and the last third alone, which tells more where two thirds are
enough for nearly everything. ``--full-labels`` reads start and end of the training part. Prints one line of JSON; a run
that is there is not made again. `suite.py --held-out` does the same for many rows and datasets.
"""

import argparse
import json
from pathlib import Path

from runs import Task, measure

from backtal.data import DatasetFolder
from backtal.settings import recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clicks", required=True)
    parser.add_argument("--fold", type=int, choices=(0, 1, 2, 3), default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="detector")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--full-labels", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="Folder of all runs.")
    arguments = parser.parse_args()
    task = Task(
        arguments.data,
        arguments.recipe,
        arguments.seed,
        recipe(arguments.recipe).with_settings([f"training.seed={arguments.seed}", *arguments.settings]),
        DatasetFolder(arguments.data).click_files([arguments.clicks])[0],
        located=None if arguments.full_labels else (),
        fold=arguments.fold,
    )
    print(json.dumps(vars(arguments) | measure(task, arguments.out), default=str))


if __name__ == "__main__":
    main()
