"""How good segments are, and why not better; nothing here trains."""

from backtal.evaluation.diagnose import Diagnosis, Group, VideoScore, diagnose, rank_videos
from backtal.evaluation.evaluate import DetectionReport, average_precision, evaluate
from backtal.evaluation.topk import TopFrames, count_inside, measure_top_frames

__all__ = [
    "DetectionReport",
    "Diagnosis",
    "Group",
    "TopFrames",
    "VideoScore",
    "average_precision",
    "count_inside",
    "diagnose",
    "evaluate",
    "measure_top_frames",
    "rank_videos",
]
