"""What goes in: features with their time axis, annotations, datasets in our and other layouts, and checks of them."""

from backtal.data.annotations import Annotations, Video, read_annotations, write_annotations
from backtal.data.check import DatasetReport, Finding, check_dataset
from backtal.data.click_stats import (
    Agreement,
    ClickCount,
    ClickReport,
    ClickStats,
    Stretches,
    click_report,
    count_clicks,
    kolmogorov_smirnov,
)
from backtal.data.coded import Coded, import_coded, read_coded
from backtal.data.datasets import DatasetFolder, VideoDataset, write_folder
from backtal.data.features import FeatureSpec, TimeAxis, VideoFeatures, read_features, write_features
from backtal.data.layouts import LAYOUTS, LayoutOptions, open_layout
from backtal.data.npy import read_npy, read_npz
from backtal.data.truth import Truth

__all__ = [
    "Agreement",
    "Annotations",
    "ClickCount",
    "ClickReport",
    "ClickStats",
    "Coded",
    "DatasetFolder",
    "DatasetReport",
    "FeatureSpec",
    "Finding",
    "LAYOUTS",
    "LayoutOptions",
    "Stretches",
    "TimeAxis",
    "Truth",
    "Video",
    "VideoDataset",
    "VideoFeatures",
    "check_dataset",
    "click_report",
    "count_clicks",
    "import_coded",
    "kolmogorov_smirnov",
    "open_layout",
    "read_annotations",
    "read_coded",
    "read_features",
    "read_npy",
    "read_npz",
    "write_annotations",
    "write_features",
    "write_folder",
]
