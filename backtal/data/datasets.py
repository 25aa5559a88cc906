"""Datasets: the folder of ``annotations.json``, ``clicks/*.txt`` and ``features/<video>.npz``."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backtal.clicks.clicks import Click, ClickTrack, check_clicks
from backtal.clicks.files import read_clicks, write_clicks
from backtal.data.annotations import Annotations, Video, read_annotations, write_annotations
from backtal.data.features import VideoFeatures, read_features, write_features
from backtal.errors import DataError, name_some
from backtal.files import composed, is_taken, note, npz_files, progress, read_json, spelling, write_json

SHORTEST = 5  # snippets: the smallest kernel that `backtal.training.for_dataset` derives from clicks
_MARKER = ".conversion.json"


class VideoDataset:
    """Annotated videos with their features and clicks, however they are stored.

    `DatasetFolder` opens our own folder, `backtal.data.layouts` those of other projects.

    Args:
        root: where the dataset lies, for messages.
        annotations: labels and videos.
        readers: by video name, what reads the features of a video; a video without features is not in it.
        click_readers: by path, what reads the clicks that lie there, by video.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: Annotations,
        readers: Mapping[str, Callable[[Video], VideoFeatures]],
        click_readers: Mapping[Path, Callable[[], dict[str, ClickTrack]]] | None = None,
    ) -> None:
        self.root, self.annotations = Path(root), annotations
        spell = spelling(annotations.videos)
        self._readers, self._click_readers = {spell(name): read for name, read in readers.items()}, click_readers or {}
        self._click_place = self.root

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.annotations.labels

    def feature_names(self) -> set[str]:
        """The videos that have features, whether or not they are annotated."""
        return set(self._readers)

    def features(self, video: Video) -> VideoFeatures:
        """Read the features of a video; the annotations give its duration.

        Raises:
            DataError: if there are none, or they are damaged.
        """
        if video.video_id not in self._readers:
            raise DataError(f"{self.root}: no features of video {video.video_id}")
        return self._readers[video.video_id](video)

    def click_paths(self) -> list[Path]:
        """The click files that belong to the dataset."""
        return list(self._click_readers)

    def click_files(self, names: Sequence[str | Path] = ()) -> list[Path]:
        """The click files to use: those named (paths, or names of the dataset's own), else the only one there is.

        Raises:
            DataError: if a file is missing, there is none, or there are several to choose from.
        """
        present = self.click_paths()
        if names:
            own = {path.name: path for path in present}
            found = [p if (p := Path(name)).exists() else own.get(p.name, self._click_place / p.name) for name in names]
            for name, path in zip(names, found, strict=True):
                if not path.exists():
                    raise DataError(f"{name}: no such click file, neither as a path nor in {self._click_place}")
            return found
        if not present:
            others = sorted(path.name for path in self._click_place.glob("[!.]*") if path.is_file())
            hint = "; give one, or train from video labels only"
            if others:
                hint = f" with the ending .txt; it holds {name_some(others)}, to be named with --clicks"
            raise DataError(f"{self._click_place}: no click file{hint}")
        if len(present) > 1:
            raise DataError(
                f"{self._click_place} holds {name_some(p.name for p in present)}: choose one with --clicks "
                "(repeat the option to put several together)"
            )
        return present

    def read_clicks(self, path: str | Path) -> dict[str, ClickTrack]:
        """Read one click file, in any form that `backtal.read_clicks` knows, without comparing it with the videos.

        Raises:
            DataError: if it is missing or malformed.
        """
        if path in self._click_readers:
            tracks = self._click_readers[Path(path)]()
        else:
            tracks = read_clicks(path, frame_rates=self.annotations.frame_rates, videos=self.annotations.videos)
        return self._respelled(tracks)

    def _respelled(self, tracks: dict[str, ClickTrack]) -> dict[str, ClickTrack]:
        """With names of videos and labels in the form of Unicode in which the annotations have them."""
        video, label = spelling(self.annotations.videos), spelling(self.labels)
        found: dict[str, ClickTrack] = {}
        for name, track in tracks.items():
            clicks = tuple(replace(click, label=label(click.label)) for click in track.clicks)
            before = found[video(name)].clicks if video(name) in found else ()
            found[video(name)] = ClickTrack(video(name), before + clicks)
        return found

    def clicks(self, files: Sequence[str | Path]) -> dict[str, ClickTrack]:
        """Read click files, put them together and check that every click belongs to a video of the dataset.

        Raises:
            DataError: for a click outside its video, on an unknown video or with an unknown label.
        """
        found: dict[str, tuple[Click, ...]] = {}
        for path in files:
            for video, track in self.read_clicks(path).items():
                found[video] = found.get(video, ()) + track.clicks
        tracks = {video: ClickTrack(video, clicks) for video, clicks in found.items()}
        durations = {name: video.duration for name, video in self.annotations.videos.items()}
        check_clicks(tracks, durations, self.labels)
        if foreign := foreign_clicks(tracks, self.annotations):
            note(
                f"{len(foreign)} action click(s) with a label that their video does not have: {name_some(foreign)}; "
                "either the click or the video's labels are wrong, and training is told both"
            )
        return tracks


def foreign_clicks(tracks: Mapping[str, ClickTrack], annotations: Annotations) -> list[str]:
    """Action clicks whose label their video does not have, as text: ``"v1 at 3 s (jump)"``."""
    return [
        f"{name} at {click.time:g} s ({click.label})"
        for name, track in tracks.items()
        if name in annotations.videos
        for click in track.clicks
        if click.label in annotations.labels and click.label not in annotations.videos[name].labels
    ]


class DatasetFolder(VideoDataset):
    """A dataset folder: annotations, clicks and features by video.

    Args:
        root: the folder, with ``annotations.json``, ``clicks/*.txt`` and ``features/<video>.npz``, which is
            ``features/class/video.npz`` for a video called ``class/video``.

    Raises:
        DataError: if the folder or its annotations are missing or malformed.
    """

    def __init__(self, root: str | Path) -> None:
        if not Path(root).is_dir():
            hint = f"; did you mean {Path(root).parent}?" if Path(root).is_file() else ""
            raise DataError(f"{root}: no such dataset folder{hint}")
        super().__init__(root, read_annotations(Path(root) / "annotations.json"), {})
        self._click_place = self.root / "clicks"
        self._other_spellings: dict[str, Path] | None = None

    def feature_names(self) -> set[str]:
        """The videos that have a feature file, whether or not they are annotated."""
        spell = spelling(self.annotations.videos)
        found = {spell(name) for name in npz_files(self.root / "features")}
        return found | {name for name in self.annotations.videos if self._usual_path(name).exists()}

    def features(self, video: Video) -> VideoFeatures:
        """Read the features of a video; the annotations give its duration."""
        found = read_features(self.feature_path(video), duration=video.duration, num_frames=video.num_frames)
        return replace(found, video_id=video.video_id)

    def checksums(self, video: Video) -> list[tuple[str, int]]:
        """Name and CRC-32 of each array in a video's feature file, which stand there: no feature is read.

        Raises:
            DataError: if the file is missing or damaged.
        """
        try:
            with zipfile.ZipFile(self.feature_path(video)) as file:
                return [(array.filename, array.CRC) for array in file.infolist()]
        except (OSError, ValueError, zipfile.BadZipFile) as failure:
            raise DataError(f"{self.feature_path(video)}: cannot be read: {failure}") from None

    def _usual_path(self, name: str) -> Path:
        return self.root / "features" / f"{name}.npz"

    def feature_path(self, video: Video) -> Path:
        """The feature file of a video, whatever the form of Unicode of its name and the case of its ending."""
        usual = self._usual_path(video.video_id)
        if usual.exists():
            return usual
        if self._other_spellings is None:
            self._other_spellings = {composed(n): path for n, path in npz_files(self.root / "features").items()}
        return self._other_spellings.get(composed(video.video_id), usual)

    def click_paths(self) -> list[Path]:
        """The files in ``clicks/``."""
        return sorted(path for path in self._click_place.glob("*") if path.suffix.lower() == ".txt")


def write_folder(
    dataset: VideoDataset,
    out: str | Path,
    *,
    clicks: Sequence[str | Path] = (),
    skip_missing: bool = False,
    half: bool = False,
) -> None:
    """Write a dataset as our dataset folder; stopped, it goes on where it was when called again.

    Each file appears whole or not at all, and ``annotations.json`` last: without it the folder is no dataset yet.

    Args:
        dataset: what to write, for example what `backtal.data.open_layout` opened.
        out: the folder to write.
        clicks: click files beside the dataset's own.
        skip_missing: leave out the videos that have no features, instead of refusing.
        half: store features as float16 (half the size, three significant digits).

    Raises:
        DataError: if `out` holds another dataset, features are missing or damaged, or clicks do not fit.
    """
    out, videos = Path(out), dict(dataset.annotations.videos)
    if missing := [name for name in videos if name not in dataset.feature_names()]:
        if not skip_missing or len(missing) == len(videos):
            raise DataError(
                f"{dataset.root}: {len(missing)} of {len(videos)} videos have no features: {name_some(missing)}; "
                "add them, or leave these videos out with --skip-missing"
            )
        videos = {name: video for name, video in videos.items() if name not in set(missing)}
    paths = [*dataset.click_paths(), *map(Path, clicks)]
    if len({path.stem for path in paths}) < len(paths):
        raise DataError(f"click files of one name: {name_some(paths)}")
    tracks = {path: dataset.clicks([path]) for path in paths}
    first = dataset.features(next(iter(videos.values())))
    made = {"spec": repr(first.spec), "start": first.axis.start, "step": first.axis.step, "half": half}
    made |= {"source": str(dataset.root.resolve()), "labels": list(dataset.labels), "videos": sorted(videos)}
    _claim(out / _MARKER, made)
    for name, video in progress(videos.items(), desc="converting", unit="video"):
        target = out / "features" / f"{name}.npz"
        if not target.exists():
            write_features(target, dataset.features(video), half=half)
    for path, found in tracks.items():
        kept = [track for name, track in found.items() if name in videos]
        write_clicks(out / "clicks" / f"{path.stem}.txt", kept, dataset.labels)
    write_annotations(out / "annotations.json", Annotations(dataset.labels, videos))
    (out / _MARKER).unlink()


def _claim(marker: Path, conversion: dict[str, Any]) -> None:
    """Begin a conversion in an empty folder, or go on with the same one."""
    out = marker.parent
    if marker.exists():
        if read_json(marker) != conversion:
            raise DataError(f"{out}: another conversion was begun here; delete the folder or choose another")
        for leftover in out.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    elif is_taken(out):
        raise DataError(f"{out}: already there and not empty; delete it or choose another folder")
    else:
        write_json(marker, conversion)
