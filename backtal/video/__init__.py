"""Raw video: decoding, optical flow, feature extractors. Needs PyAV, the extra `video`."""

from backtal.video import zoo  # noqa: F401  registers the extractors
from backtal.video.decode import Video, is_video, opens_as_video, videos_in, videos_of
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
    "opens_as_video",
    "register",
    "videos_in",
    "videos_of",
]
