"""A predictions file that grows while videos are localized, and goes on where it was cut off."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backtal.errors import DataError
from backtal.files import atomic_path, note
from backtal.segments.segments import Localization, parse_prediction, prediction_line, write_predictions


class GrowingPredictions:
    """Results as JSON Lines beside the file to write, ``OUT.part``, whose first line says how they were made.

    Args:
        out: the predictions file to write in the end.
        made: what the results depend on, as JSON values.
        resume: go on with the results that are there.

    Attributes:
        done: names of the videos that have a result.

    Raises:
        DataError: if results are to be kept that were made otherwise.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "found.jsonl"
        >>> growing = GrowingPredictions(out, {"model": "run"})
        >>> growing.add([Localization("v1", 10.0, ())])
        >>> GrowingPredictions(out, {"model": "run"}, resume=True).done
        {'v1'}
    """

    def __init__(self, out: str | Path, made: Mapping[str, Any], *, resume: bool = False) -> None:
        self.out, self.part, self.done = Path(out), Path(f"{out}.part"), set[str]()
        header = json.dumps(dict(made), sort_keys=True) + "\n"
        if resume and self.part.exists():
            self._keep(header)
        else:
            if self.part.exists():
                note(f"{self.part}: begun anew; --resume would have kept what it holds")
            with atomic_path(self.part) as temporary:
                temporary.write_text(header, encoding="utf-8", newline="")

    def _keep(self, header: str) -> None:
        """Drop a line that was cut off, and see what the others are."""
        with self.part.open("rb+") as file:
            if file.readline() != header.encode():
                raise DataError(
                    f"{self.part}: these results were made with other models, settings or videos; delete it, or leave "
                    "out --resume, to begin anew"
                )
            end = file.tell()
            while (line := file.readline()).endswith(b"\n"):
                self.done.add(parse_prediction(line.decode(), str(self.part)).video_id)
                end = file.tell()
            file.truncate(end)

    def has(self, videos: Iterable[str]) -> bool:
        """Whether all of these have a result."""
        return self.done.issuperset(videos)

    def add(self, found: Iterable[Localization]) -> None:
        """Write results at once; of videos that have one already nothing is written."""
        new = [one for one in found if one.video_id not in self.done]
        with self.part.open("a", encoding="utf-8", newline="") as file:
            file.write("".join(map(prediction_line, new)))
        self.done.update(one.video_id for one in new)

    def finish(self) -> int:
        """Write the predictions file, and return how many segments are in it."""
        self.count = 0
        write_predictions(self.out, self._results())
        self.part.unlink()
        return self.count

    def _results(self) -> Iterator[Localization]:
        with self.part.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                found = parse_prediction(line, str(self.part))
                self.count += len(found)
                yield found
