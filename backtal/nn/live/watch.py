"""A source that goes on, watched: its events as they come, with clips of what is final."""

import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtal.errors import DataError
from backtal.files import note
from backtal.nn.live.watcher import Event, Watcher

if TYPE_CHECKING:
    from backtal.nn.pretrained import LocalizationModel
    from backtal.video import Extractor
    from backtal.video.clips import Ring

_SHORT = 0.5  # seconds that a clip may lack at its beginning


@dataclass(frozen=True)
class Saving:
    """Clips of final segments.

    Args:
        folder: to write to; made where it does not exist.
        before: seconds before the start.
        after: seconds after the end.
    """

    folder: Path
    before: float = 2.0
    after: float = 2.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*.tmp"):  # of a run that was killed while it wrote
            if time.time() - left.stat().st_mtime > 60:
                left.unlink(missing_ok=True)

    def path(self, event: Event, began: float) -> Path:
        """Where the clip of a segment is put, by when and what it is.

        Args:
            event: the segment.
            began: wall-clock time at which second 0 of the stream was.
        """
        at = datetime.fromtimestamp(began + event.start, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-5]
        label = re.sub(r"[^\w-]+", "_", event.label)[:60]
        return self.folder / f"{at}Z-{label}-{event.number}.mkv"


def watch(
    model: "LocalizationModel",
    source: str | Path,
    *,
    extractor: "Extractor | None" = None,
    save: str | Path | Saving | None = None,
    batch_size: int = 8,
    bf16: bool = False,
    patience: float = 10.0,
    give_up: float | None = None,
    stop: threading.Event | None = None,
    started: Callable[[Watcher], None] | None = None,
    **options: Any,
) -> Iterator[Event]:
    """See `LocalizationModel.watch`."""
    from backtal.video.clips import Ring
    from backtal.video.extract import Engine
    from backtal.video.live import Live

    extractor = extractor or model.extractor()
    watcher = Watcher(model, extractor.spec, **options)
    saving = Saving(Path(save)) if isinstance(save, str | Path) else save
    ring = None
    if saving:
        ring = Ring(watcher.latency.most + watcher.latency.longest + saving.before + saving.after + 10)
    if started:
        started(watcher)
    stop = stop or threading.Event()
    engine = Engine(extractor, next(model.parameters()).device, bf16=bf16)
    live = Live(
        source,
        extractor,
        engine,
        batch_size=batch_size,
        patience=patience,
        give_up=give_up,
        stop=stop,
        taken=ring.take if ring else None,
    )
    began = time.time()
    for connection in live:
        clips = _Clips(ring, saving, began) if ring and saving else None
        with closing(connection.features()) as pieces:
            for features in pieces:
                watcher.resume(connection.begin)
                events = watcher.push(features)
                yield from events
                if clips:
                    clips.follow(events, watcher.seen, connection.begin)
        events = watcher.close(connection.duration or None)
        yield from events
        if clips:
            clips.follow(events, math.inf, connection.begin)


class _Clips:
    """The clips of one connection that are not written yet."""

    def __init__(self, ring: "Ring", saving: Saving, began: float) -> None:
        self._ring, self._saving, self._began = ring, saving, began
        self._waiting: list[Event] = []
        ring.clear()

    def follow(self, events: list[Event], seen: float, begin: float) -> None:
        """Write what is due, with what has been seen of the stream; the connection began at its second `begin`."""
        self._waiting += [event for event in events if event.kind == "final"]
        due = [event for event in self._waiting if event.segment.end + self._saving.after <= seen]
        self._waiting = [event for event in self._waiting if event not in due]
        for event in due:
            path, segment = self._saving.path(event, self._began), event.segment
            start, end = segment.start - self._saving.before - begin, segment.end + self._saving.after - begin
            try:
                kept = self._ring.write(path, start, end)
                if kept is None:
                    note(f"{path}: no clip: the pictures are not kept any more")
                elif kept > max(start, 0) + _SHORT:
                    note(f"{path}: begins {kept - max(start, 0):.1f} s late: what was before is not kept any more")
            except (OSError, DataError) as failure:
                note(f"{path}: no clip: {failure}")
