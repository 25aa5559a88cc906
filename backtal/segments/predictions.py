"""Found segments for other programs: CSV, pandas, and Label Studio to look them through."""

import csv
import math
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from backtal.errors import DataError, install
from backtal.files import atomic_path
from backtal.segments.segments import Localization

if TYPE_CHECKING:
    import pandas

COLUMNS = ("video", "start", "end", "label", "score")


def to_pandas(found: Iterable[Localization]) -> "pandas.DataFrame":
    """One data frame of all videos, with the columns video, start, end, label, score; seconds.

    Example:
        >>> from backtal import Segment
        >>> to_pandas([Localization("v", 9.0, (Segment(1, 2, "jump", 0.5),))]).loc[0, "label"]
        'jump'
    """
    try:
        import pandas
    except ImportError:
        raise ImportError(f"data frames need pandas: {install('pandas')}") from None
    return pandas.DataFrame(_rows(found), columns=list(COLUMNS))


def write_csv(path: str | Path, found: Iterable[Localization]) -> None:
    """Write the columns video, start, end, label, score (seconds), atomically; within a video by time."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for video in found:
            writer.writerows((*row[:-1], round(row[-1], 6)) for row in sorted(_rows([video]), key=itemgetter(1, 2, 3)))


def _rows(found: Iterable[Localization]) -> list[tuple[str, float, float, str, float]]:
    return [(video.video_id, s.start, s.end, s.label, s.score) for video in found for s in video]


def label_studio_tasks(
    found: Iterable[Localization], urls: Mapping[str, str], frame_rates: Mapping[str, float], *, model: str = "backtal"
) -> list[dict[str, Any]]:
    """Tasks for Label Studio with the found segments as predictions, to be looked through and corrected there.

    The form is that of Label Studio's ``TimelineLabels`` (1.14 and later): frames, counted from 1, both ends
    included. The project needs the configuration that `label_studio_config` gives.

    Args:
        found: segments; a video without any becomes a task too.
        urls: by video, where Label Studio finds its file.
        frame_rates: by video, frames per second.
        model: what to call the predictions' maker.

    Raises:
        DataError: if the URL or frame rate of a video is missing.

    Example:
        >>> from backtal import Segment
        >>> video = Localization("v", 9.0, (Segment(1.0, 2.0, "jump", 0.5),))
        >>> task = label_studio_tasks([video], {"v": "v.mp4"}, {"v": 25.0})[0]
        >>> task["predictions"][0]["result"][0]["value"]
        {'ranges': [{'start': 26, 'end': 50}], 'timelinelabels': ['jump']}
    """
    tasks = []
    for video in found:
        rate = frame_rates.get(video.video_id)
        if video.video_id not in urls or not rate:
            what = "URL" if video.video_id not in urls else "frame rate"
            raise DataError(f"video {video.video_id}: its {what} is not known")
        result = []
        for number, segment in enumerate(video):
            first = math.floor(segment.start * rate + 1e-6) + 1
            last = max(first, math.ceil(segment.end * rate - 1e-6))
            region = timeline_region(f"{video.video_id}-{number}", first, last, segment.label)
            result.append({**region, "score": segment.score})
        score = max((segment.score for segment in video), default=0.0)
        tasks.append(
            {
                "data": {"video": urls[video.video_id], "video_id": video.video_id, "fps": rate},
                "predictions": [{"model_version": model, "score": score, "result": result}],
            }
        )
    return tasks


def timeline_region(name: str, first: int, last: int, label: str) -> dict[str, Any]:
    """A region of Label Studio's ``TimelineLabels``: frames `first` to `last`, counted from 1, both included."""
    value = {"ranges": [{"start": first, "end": last}], "timelinelabels": [label]}
    return {"id": name, "from_name": "actions", "to_name": "video", "type": "timelinelabels", "value": value}


def label_studio_config(labels: Iterable[str]) -> str:
    """The labelling configuration that the tasks of `label_studio_tasks` need; it goes into the project's settings.

    Example:
        >>> print(label_studio_config(["jump"]))
        <View>
          <TimelineLabels name="actions" toName="video">
            <Label value="jump"/>
          </TimelineLabels>
          <Video name="video" value="$video" frameRate="$fps"/>
        </View>
    """
    return "\n".join(
        [
            "<View>",
            '  <TimelineLabels name="actions" toName="video">',
            *(f"    <Label value={quoteattr(label)}/>" for label in labels),
            "  </TimelineLabels>",
            '  <Video name="video" value="$video" frameRate="$fps"/>',
            "</View>",
        ]
    )
