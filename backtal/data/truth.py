"""When actions occur in the videos of a subset, as far as anybody knows: what all that is measured is compared with."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backtal.errors import DataError, name_some
from backtal.files import note, spelling
from backtal.segments.segments import Localization


@dataclass(frozen=True, eq=False)
class Truth:
    """The true segments of a subset; iterated over, those of each video that can be measured on.

    `Annotations.truth` makes it. What is not known is not nothing: a find in a video that nobody has annotated is
    neither right nor wrong, and is left out. Whatever is left out is said, once, as a warning of the logger
    ``backtal``, which Python shows on stderr.

    Args:
        videos: with start and end of all their actions, but for the `unlocated` ones.
        labels: of the dataset.
        subset: its name.
        left_out: videos of the subset of which start and end of the actions are not known.
        unlocated: by video, further labels that occur in it, nobody knows when.
        elsewhere: videos of other subsets.

    Example:
        >>> from backtal import Segment
        >>> jump = (Segment(1, 3, "jump", 0.5),)
        >>> truth = Truth((Localization("v", 9.0, jump),), ("jump",), left_out=("w",))
        >>> [video.video_id for video in truth.judged([Localization("v", 9.0, jump), Localization("w", 9.0, jump)])]
        ['v']
    """

    videos: tuple[Localization, ...]
    labels: tuple[str, ...]
    subset: str = ""
    left_out: tuple[str, ...] = ()
    unlocated: Mapping[str, Collection[str]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    _said: dict[str, None] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, videos: "Truth | Iterable[Localization]") -> "Truth":
        """`videos` itself, or the truth of true segments of which nothing else is known."""
        if isinstance(videos, Truth):
            return videos
        videos = tuple(videos)
        return cls(videos, tuple(sorted({segment.label for video in videos for segment in video})))

    def __iter__(self) -> Iterator[Localization]:
        return iter(self.videos)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def remarks(self) -> list[str]:
        """What has been said."""
        return list(self._said)

    def judged(self, predictions: Iterable[Localization]) -> list[Localization]:
        """The predictions that are right or wrong, called as the dataset calls videos and labels.

        Those of videos that are left out or belong to other subsets are not among them, nor those of a video's
        `unlocated` labels. A video that the dataset does not have stays: as in ActivityNet's evaluation, what is found
        in it is wrong.

        Raises:
            DataError: if none is for a video of the truth, or none has a label of the dataset.
        """
        found, known = self._respelled(predictions), {video.video_id for video in self.videos}
        if not any(video.video_id in known for video in found):
            predicted = name_some(dict.fromkeys(video.video_id for video in found))
            raise DataError(
                f"no prediction is for a video of the ground truth{self._of}; predicted: {predicted or 'nothing'}"
            )
        kept = self._without(found, frozenset(self.left_out), "of which start and end of the actions are not known")
        kept = self._without(kept, self.elsewhere, "of other subsets")
        kept = self._without_unlocated(kept)
        self._compare_labels(kept)
        self._compare_times(kept)
        there = {video.video_id for video in kept}
        if foreign := sorted(there - known):
            self._say(
                f"{len(foreign)} predicted video(s) that the dataset does not have: {name_some(foreign)}; as in "
                "ActivityNet's evaluation, what is found in them counts as wrong"
            )
        if missing := [video.video_id for video in self.videos if video.video_id not in there]:
            self._say(
                f"{len(missing)} of the {len(self)} videos{self._of} are not among the predictions: "
                f"{name_some(missing)}; their instances count as missed"
            )
        return kept

    def say_what_is_not_known(self) -> None:
        """Say which videos and labels are left out of all that is measured, and why."""
        if self.left_out:
            self._say(
                f"{len(self.left_out)} of {len(self) + len(self.left_out)} videos{self._of} are left out, as start and "
                f"end of their actions are not known: {name_some(self.left_out)}"
            )
        if self.unlocated:
            pairs = [f"{label} in {video}" for video, labels in self.unlocated.items() for label in sorted(labels)]
            self._say(f"{len(pairs)} label(s) are left out where nobody knows when they occur: {name_some(pairs)}")
        occurring = {segment.label for video in self.videos for segment in video}
        if absent := [label for label in self.labels if label not in occurring]:
            self._say(
                f"{len(absent)} of {len(self.labels)} labels have no instance{self._of}, hence no average precision: "
                f"{name_some(absent)}"
            )

    @property
    def _of(self) -> str:
        return f" in subset {self.subset!r}" if self.subset else ""

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said[message] = None
            note(message)

    def _respelled(self, predictions: Iterable[Localization]) -> list[Localization]:
        """With names of videos and labels in the form of Unicode in which the dataset has them."""
        video = spelling([*(video.video_id for video in self.videos), *self.left_out, *self.elsewhere])
        label = spelling(self.labels)
        found = [replace(v, video_id=video(v.video_id)) for v in predictions]
        forms = {segment.label for v in found for segment in v}
        if all(label(form) == form for form in forms):
            return found
        return [replace(v, segments=tuple(replace(s, label=label(s.label)) for s in v)) for v in found]

    def _without(self, found: Sequence[Localization], videos: Collection[str], why: str) -> list[Localization]:
        if gone := [video for video in found if video.video_id in videos]:
            self._say(
                f"{sum(map(len, gone))} predicted segment(s) are left out, in {len(gone)} video(s) {why}: "
                f"{name_some(video.video_id for video in gone)}"
            )
        return [video for video in found if video.video_id not in videos]

    def _without_unlocated(self, found: Sequence[Localization]) -> list[Localization]:
        kept = []
        for video in found:
            labels = self.unlocated.get(video.video_id, ())
            kept.append(replace(video, segments=tuple(s for s in video if s.label not in labels)) if labels else video)
        if gone := sum(map(len, found)) - sum(map(len, kept)):
            self._say(f"{gone} predicted segment(s) are left out, whose label occurs in their video, nobody knows when")
        return kept

    def _compare_times(self, found: Sequence[Localization]) -> None:
        """Count what begins after the end of its video, as times in frames or milliseconds do."""
        lasts = {video.video_id: video.duration for video in self.videos}
        late = [(v, segment) for v in found for segment in v if segment.start >= lasts.get(v.video_id, math.inf)]
        if late:
            video, segment = late[0]
            self._say(
                f"{len(late)} of {sum(map(len, found))} predicted segment(s) begin after the end of their video, such "
                f"as {segment.start:g} to {segment.end:g} s in {video.video_id}, which lasts "
                f"{lasts[video.video_id]:g} s: are they in seconds?"
            )

    def _compare_labels(self, found: Sequence[Localization]) -> None:
        """Name predicted labels that the dataset does not have."""
        counts = Counter(segment.label for video in found for segment in video)
        strange = [label for label in counts if label not in self.labels]
        if strange and len(strange) == len(counts):
            raise DataError(
                f"no predicted label is one of the dataset's: predicted are {name_some(map(repr, strange))}, the "
                f"dataset has {name_some(map(repr, self.labels), 30)}"
            )
        if strange:
            named = name_some(f"{label!r} ({counts[label]} segments)" for label in strange)
            self._say(
                f"{len(strange)} predicted label(s) that the dataset does not have: {named}; what is found of them "
                "counts as wrong in F1, and not in mAP"
            )
