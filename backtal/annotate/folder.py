"""The folder that is annotated: which videos it holds, and that nothing outside it is read or written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import DataError, name_some
from backtal.files import name_fault, read_json, spelling
from backtal.video import videos_of

_PLAYED = {".m4v", ".mkv", ".mov", ".mp4", ".ogv", ".webm"}


@dataclass(frozen=True)
class Folder:
    """A dataset folder and the videos to annotate in it.

    Attributes:
        root: the folder, resolved; ``annotations.json``, ``clicks``, ``features`` and ``progress`` are in it.
        media: the folder that the videos are in, resolved.
        videos: file by name of the video: the file's without its ending, ``class/video`` in a folder of `media`.
        left_out: files that are not served, with the reason.
    """

    root: Path
    media: Path
    videos: dict[str, Path]
    left_out: dict[str, str]

    def video(self, name: str) -> Path:
        """The file of a video, looked at again: it may have become a link since.

        Raises:
            DataError: if there is no such video, or it leads out of the folder.
        """
        path = self.videos.get(name)
        if path is None or not path.is_file() or not is_inside(path, self.media):
            raise DataError(f"no video {name!r} in {self.media}")
        return path

    def own(self, *parts: str) -> Path:
        """A path in the dataset folder.

        Raises:
            DataError: if a link on the way leads out of the folder.
        """
        path = self.root.joinpath(*parts)
        if not is_inside(path, self.root):
            raise DataError(f"{path}: leads out of {self.root}")
        return path


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, lies in a folder."""
    return path.resolve().is_relative_to(folder)


def is_played(path: Path) -> bool:
    """Whether browsers play files of this kind, as far as the ending tells."""
    return path.suffix.lower() in _PLAYED


def open_folder(place: str | Path, data: str | Path | None = None) -> Folder:
    """Find the videos and the dataset folder that belongs to them.

    Videos are looked for in ``place/videos``, if there is that folder, else in `place`; a file stands for itself.
    Hidden files are left out. The dataset folder is `place`, or what a folder called ``videos`` is in.

    Args:
        place: a video or a folder.
        data: the dataset folder, if it is another.

    Raises:
        DataError: if there is no video, or two have one name.
    """
    place = Path(place)
    if not place.exists():
        raise DataError(f"{place}: no such video or folder")
    if place.is_file():
        media, files = place.parent, {place: place.stem}
    else:
        media = place / "videos" if (place / "videos").is_dir() else place
        files = videos_of(media)
    # The name counts as it is given: `videos` may be a link to where there is room for them.
    media = media.resolve() if media.name == ".." else media.absolute()
    root = Path(data or (media.parent if media.name == "videos" else media)).resolve()
    media = media.resolve()
    spell = _spelling(root / "annotations.json")
    videos, left_out = _sort_out({path: spell(name) for path, name in files.items()}, media)
    if not videos:
        because = f" that can be served ({next(iter(left_out.values()))})" if left_out else ""
        raise DataError(f"{place}: holds no video{because}; put them there or in {place / 'videos'}")
    return Folder(root, media, videos, left_out)


def _spelling(path: Path) -> Callable[[str], str]:
    """Gives a video the form of Unicode that its name has in the annotations, if there are any that can be read."""
    try:
        return spelling(read_json(path).get("database", ()))
    except (DataError, TypeError):
        return str


def _sort_out(files: Mapping[Path, str], media: Path) -> tuple[dict[str, Path], dict[str, str]]:
    videos: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    for path, name in files.items():
        if not is_inside(path, media):
            left_out[path.name] = "a link that leads out of the folder"
        elif not path.is_file():
            left_out[path.name] = "not a file"
        elif fault := name_fault(name):
            left_out[ascii(path.name)] = f"no video can be called so: {fault}"
        elif name in videos:
            names = name_some([videos[name].name, path.name])
            raise DataError(f"{media}: two videos are called {name}: {names}; rename one")
        else:
            videos[name] = path
    return videos, left_out
