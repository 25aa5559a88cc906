"""Segments, what comes out: their arithmetic, and their files, those for other programs among them."""

from backtal.segments.predictions import label_studio_config, label_studio_tasks, to_pandas, write_csv
from backtal.segments.review import boris_project, elan_document, write_elan
from backtal.segments.segments import (
    Localization,
    Segment,
    nms,
    read_predictions,
    soft_nms,
    temporal_iou,
    write_predictions,
)

__all__ = [
    "Localization",
    "Segment",
    "boris_project",
    "elan_document",
    "label_studio_config",
    "label_studio_tasks",
    "nms",
    "read_predictions",
    "soft_nms",
    "temporal_iou",
    "to_pandas",
    "write_csv",
    "write_elan",
    "write_predictions",
]
