"""Training: examples, the loop, the search for localization settings, tables of runs. Loads accelerate."""

from backtal.training.examples import Batch, Example, TrainingSet, collate
from backtal.training.experiment import TABLES, Protocol, Run, ablate, baseline_run, measure, measure_all
from backtal.training.train import fit, for_dataset
from backtal.training.tune import HeldOut, Tuned, agreement, click_precision, held_out, suggest, tune

__all__ = [
    "Batch",
    "Example",
    "HeldOut",
    "Protocol",
    "Run",
    "TABLES",
    "TrainingSet",
    "Tuned",
    "ablate",
    "agreement",
    "baseline_run",
    "click_precision",
    "collate",
    "fit",
    "for_dataset",
    "held_out",
    "measure",
    "measure_all",
    "suggest",
    "tune",
]
