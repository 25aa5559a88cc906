"""A recipe judged inside the training subset: trained on two thirds of its videos, measured on the other third.

    python benchmarks/folds.py DATA --clicks A1.txt --fold 0 --out runs/folds [--recipe NAME] [--set KEY=VALUE ...]

Thirds are of consecutive videos, so that most people of a held-out third do not occur in training; fold 0 holds out the
last third, fold 1 the first. ``--full-labels`` reads start and end of the training part. Prints one line of JSON.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from backtal.data import DatasetFolder
from backtal.evaluation import evaluate
from backtal.settings import recipe, tiou_range
from backtal.training import TrainingSet, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clicks", required=True)
    parser.add_argument("--fold", type=int, choices=(0, 1), default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="detector")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--full-labels", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="An empty folder, or one of a run to go on with.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = DatasetFolder(arguments.data)
    videos = dataset.annotations.subset("training")
    third = len(videos) // 3
    held = videos[-third:] if arguments.fold == 0 else videos[:third]
    names = {video.video_id for video in held}
    moved = {
        name: dataclasses.replace(video, subset="held out") if name in names else video
        for name, video in dataset.annotations.videos.items()
    }
    dataset.annotations = dataclasses.replace(dataset.annotations, videos=moved)
    chosen = recipe(arguments.recipe).with_settings([f"training.seed={arguments.seed}", *arguments.settings])
    located = [video.video_id for video in videos if video.video_id not in names] if arguments.full_labels else []
    clicks = dataset.clicks(dataset.click_files([arguments.clicks]))
    training_set = TrainingSet(dataset, "training", clicks, chosen.model, allow_unclicked=True, located=located)
    began = time.process_time()
    model = fit(training_set, chosen, arguments.out, resume=True, device="cpu")
    seconds = time.process_time() - began
    found = [model.localize(dataset.features(video)) for video in held]
    report = evaluate(found, dataset.annotations.truth("held out"), tiou_range("0.1:0.7:0.1"))
    print(json.dumps(vars(arguments) | report.to_dict() | {"training_seconds": seconds}, default=str))


if __name__ == "__main__":
    main()
