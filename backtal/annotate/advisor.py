"""A model that looks at the videos while somebody annotates them: one thread, the video on the page first."""

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backtal.annotate.folder import Folder
from backtal.annotate.frames import RATE, count_of
from backtal.annotate.suggest import suggest, worth
from backtal.data.features import TimeAxis
from backtal.errors import BackTALError
from backtal.nn.pretrained import LocalizationModel
from backtal.nn.stream import open_features
from backtal.segments.segments import Localization


@dataclass(frozen=True, eq=False)
class Opinion:
    """What a model makes of a video: probabilities ``[C+1, n]`` at the strip's n frames, and the actions it detects."""

    probabilities: np.ndarray
    detected: Localization

    def to_dict(self, clicked: Sequence[float], labels: Sequence[str]) -> dict[str, Any]:
        """As JSON values, with the suggestions that hold for these clicks."""
        actions, background = self.probabilities[:-1], self.probabilities[-1]
        return {
            "labels": list(labels),
            "background": np.round(background, 3).tolist(),
            "strongest": np.round(actions.max(axis=0), 3).tolist(),
            "which": actions.argmax(axis=0).tolist(),
            "suggestions": [asdict(s) for s in suggest(background, self.detected, clicked, RATE)],
        }

    def worth(self, clicked: Sequence[float]) -> float:
        """What a minute of this video is worth to the annotator; see `backtal.annotate.suggest.worth`."""
        return worth(suggest(self.probabilities[-1], self.detected, clicked, RATE), self.detected.duration)


class Advisor:
    """Runs a model over the videos of a folder in a thread of its own.

    Features come from ``features/<video>.npz``; where there are none, the checkpoint's extractor makes that file.

    Args:
        model: a checkpoint.
        folder: the videos.
        detected_above: least score of a detected action.
    """

    def __init__(self, model: LocalizationModel, folder: Folder, detected_above: float = 0.3) -> None:
        self.model, self.folder, self.detected_above = model, folder, detected_above
        self._opinions: dict[str, Opinion] = {}
        self._failed: dict[str, str] = {}
        self._waiting = list(folder.videos)
        self._changed = threading.Condition()
        self._extractor: Any = None

    def start(self) -> None:
        """Begin; the thread ends with the program."""
        threading.Thread(target=self._work, daemon=True, name="advisor").start()

    def opinion(self, video: str) -> Opinion | None:
        """What the model makes of a video, if that is known yet; if not, the video is next.

        Raises:
            BackTALError: if the model cannot be run on the video.
        """
        with self._changed:
            if video in self._failed:
                raise BackTALError(self._failed[video])
            if video in self._waiting:
                self._waiting.remove(video)
                self._waiting.insert(0, video)
            return self._opinions.get(video)

    def ready(self) -> dict[str, Opinion]:
        """The opinions that there are so far, by video."""
        with self._changed:
            return dict(self._opinions)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                video = self._waiting[0]
            try:
                opinion, failure = self._look(video), ""
            except (BackTALError, ImportError, OSError, RuntimeError) as error:
                opinion, failure = None, str(error)
            with self._changed:
                self._waiting.remove(video)
                if opinion is None:
                    self._failed[video] = failure
                else:
                    self._opinions[video] = opinion

    def _look(self, video: str) -> Opinion:
        path = self.folder.own("features", f"{video}.npz")
        if not path.exists():
            self._extract(video)
        output, axis = self.model.summarize(open_features(path))
        detected = self.model.localize_output(output, [axis], [video])[0].above(self.detected_above)
        return Opinion(_on_strip(self.model.frame_probabilities(output).numpy(), axis), detected)

    def _extract(self, video: str) -> None:
        from backtal.video import extract_files

        try:
            self._extractor = self._extractor or self.model.extractor()
        except (BackTALError, ImportError, OSError) as failure:
            raise BackTALError(
                f"no features/{video}.npz, and the model's extractor cannot be built: {failure}; "
                f"make them with `backtal extract`"
            ) from None
        report = extract_files({self.folder.video(video): video}, self._extractor, self.folder.own("features"))
        if report.failed:
            raise BackTALError(next(iter(report.failed.values())))


def _on_strip(rows: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Rows ``[C+1, T]`` of the snippets at the frames of the strip, linear in between."""
    times = np.arange(count_of(axis.duration)) / RATE
    return np.stack([np.interp(times, axis.middles(), row) for row in rows])
