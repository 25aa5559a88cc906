"""Raw video: decoding, optical flow, feature extractors. Needs PyAV: ``pip install "backtal[video]"``."""

from backtal.video import zoo  # noqa: F401  registers the extractors
from backtal.video.decode import Video, is_video, videos_in
from backtal.video.extract import FeatureStream, Report, extract_file, extract_files
from backtal.video.extractors import Extractor, Options, adapted, chosen_extractor, load_extractor, register

__all__ = [
    "Extractor",
    "FeatureStream",
    "Options",
    "Report",
    "Video",
    "adapted",
    "chosen_extractor",
    "extract_file",
    "extract_files",
    "is_video",
    "load_extractor",
    "register",
    "videos_in",
]
