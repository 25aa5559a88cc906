"""Events of a stream: what opens, changes and is final, while features are pushed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from backtal.data.features import FeatureSpec, TimeAxis, check_fit
from backtal.errors import ConfigError, DataError, name_some
from backtal.files import note
from backtal.nn.live.stretch import Exact, Found, Running
from backtal.segments.segments import Segment

if TYPE_CHECKING:
    from backtal.nn.pretrained import LocalizationModel

Kind = Literal["open", "change", "final", "withdrawn"]

_NOTABLE = 0.05  # change of a score that is told


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a segment.

    Args:
        kind: ``"open"`` when it is first seen, ``"change"`` when its edges or its score move, ``"final"`` when nothing
            that follows can change it, ``"withdrawn"`` when it turned out to be none.
        number: of the segment; the same in all of its events.
        label: its class.
        start: second of the stream.
        end: second of the stream; None while it goes on.
        score: as `localize` gives it, so far.
        stream: seconds of the stream that had been seen.
        clock: when this was said, ISO 8601 in UTC.
    """

    kind: Kind
    number: int
    label: str
    start: float
    end: float | None
    score: float
    stream: float
    clock: str

    @property
    def segment(self) -> Segment:
        """The segment so far; one that goes on ends at what has been seen."""
        end = max(self.stream, self.start) if self.end is None else self.end
        return Segment(self.start, end, self.label, self.score)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them; numbers have six decimals."""
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Latency:
    """How long after its end a segment is final, in seconds of the stream.

    Args:
        network: until what the network says of the end no longer changes: its reach, smoothing, the window of the last
            snippet, and the snippets after which it runs.
        wait: then until nothing can come any more that suppresses it.
        growth: seconds more for each second that its class stays above the lowest threshold: what follows within that,
            and the outer area.
        longest: seconds after which an action is closed.
    """

    network: float
    wait: float
    growth: float
    longest: float

    @property
    def most(self) -> float:
        """Seconds at the latest."""
        return self.network + self.wait + self.growth * self.longest

    def __str__(self) -> str:
        short = self.network + self.wait + 2 * self.growth
        grows = f", if its class was active for 2 s at most {short:.1f} s" if self.growth else ""
        return (
            f"a segment is final at most {self.most:.1f} s after its end{grows} ({self.network:.1f} s for the network)"
        )


@dataclass
class _Told:
    """What was last said of a segment that is not final."""

    number: int
    start: float
    end: float | None
    score: float


class Watcher:
    """Segments of a stream of features, as they come: `LocalizationModel.watcher` makes one.

    Args:
        model: the network.
        spec: of the features, with `fps` and `stride`; the model's where None.
        least_score: segments below are left out.
        labels: classes to look for, or one; all where None.
        longest: seconds; an action that goes on longer is closed.
        running: seconds of the window through which settings that need a whole video look; None refuses them.
        every: seconds after which the network runs again.
        ignore_spec: fields of the feature spec that may differ from the model's.

    Attributes:
        latency: how long after its end a segment is final.
        exact: whether what was final so far is what `localize` finds in each stretch without a gap.

    Raises:
        ConfigError: if the settings need the whole video and `running` is None, or a value is out of range.
        DataError: if the spec does not fit the model.
    """

    def __init__(
        self,
        model: "LocalizationModel",
        spec: FeatureSpec | None = None,
        *,
        least_score: float = 0.45,
        labels: str | Collection[str] | None = None,
        longest: float = 60.0,
        running: float | None = None,
        every: float = 0.5,
        ignore_spec: Collection[str] = (),
    ) -> None:
        spec, config = spec or model.config.feature_spec, model.config
        if spec is None or spec.fps is None or spec.stride is None:
            raise ConfigError("a stream needs a FeatureSpec that says fps and stride, from which its seconds follow")
        check_fit("of the stream", config.feature_dim, spec, config.feature_dim, config.feature_spec, ignore_spec)
        seconds = (longest, every, 1.0 if running is None else running)
        if not all(0 < one < np.inf for one in seconds) or not 0 <= least_score < np.inf:
            raise ConfigError("longest, every and running are seconds above 0, least_score is not negative")
        self._model, self._spec, self._floor = model.eval(), spec, least_score
        self._axis = TimeAxis.of(1, 1.0, None, spec)
        self._window = (spec.window or spec.stride) / spec.fps
        self._classes = _chosen(model.config.labels, labels)
        self._every, self._longest = (max(round(seconds / self._axis.step), 1) for seconds in (every, longest))
        self._running = None if running is None else max(round(running / self._axis.step / 4), 1) * 4
        self._offset, self._numbers, self._forced, self._said = 0.0, 0, 0, False
        self._told: dict[int, list[_Told]] = {index: [] for index in self._classes}
        self._stretch = self._anew()
        self.latency = self._latency()

    def push(self, features: Tensor | np.ndarray) -> list[Event]:
        """Take the next features.

        Args:
            features: ``[D, n]`` of any n, or ``[D]`` of one snippet.

        Raises:
            DataError: if they have another number of channels, or are not finite.

        Example:
            >>> from backtal import BackTALModel, FeatureSpec, LocalizationConfig, ModelConfig
            >>> config = ModelConfig(feature_dim=16, labels=("jump", "run"), hidden_dim=32)
            >>> model = BackTALModel(config, LocalizationConfig(gamma=0.0))
            >>> watcher = model.watcher(FeatureSpec(fps=10, stride=1))
            >>> events = [event for _ in range(100) for event in watcher.push(torch.randn(16))]
            >>> {event.kind for event in events + watcher.close()} <= {"open", "change", "final", "withdrawn"}
            True
        """
        try:
            given = torch.as_tensor(features)
        except (TypeError, ValueError) as failure:
            raise DataError(f"features of a stream must be numbers: {failure}") from None
        given = given[:, None] if given.dim() == 1 else given
        if given.dim() != 2 or given.shape[0] != self._model.config.feature_dim:
            shape, wanted = tuple(given.shape), self._model.config.feature_dim
            raise DataError(f"features of a stream must be [{wanted}, n], found {shape}")
        if not given.shape[1]:
            return []
        given = given.detach().float().cpu()
        if not given.isfinite().all():
            raise DataError(f"NaN or infinite values in the features after {self.seen:.1f} s of the stream")
        found = self._stretch.push(given)
        return [] if found is None else self._events(found)

    def close(self, duration: float | None = None) -> list[Event]:
        """The stream has ended: what is open ends with it, and is final.

        Args:
            duration: seconds of the stretch since the last gap; until the end of the last window where None.
        """
        length = self._stretch.length
        ended = self._duration(length) if duration is None else duration
        self._axis = TimeAxis.of(max(length, 1), ended, None, self._spec)
        events = self._events(self._stretch.end(self._axis))
        self._offset += self._axis.duration if length else 0.0
        self._forced += self._stretch.forced
        self._stretch = self._anew()
        return events

    def resume(self, second: float) -> None:
        """After `close`, go on with a stretch that begins at a second of the stream; what lies between is a gap."""
        self._offset = second

    @property
    def seen(self) -> float:
        """Seconds of the stream that features were pushed of."""
        return self._offset + (self._duration(self._stretch.length) if self._stretch.length else 0.0)

    @property
    def exact(self) -> bool:
        """See `Watcher`."""
        return self._running is None and self._forced + self._stretch.forced == 0

    def _duration(self, length: int) -> float:
        return (length - 1) * self._axis.step + self._window

    def _anew(self) -> Exact | Running:
        self._axis = TimeAxis.of(1, np.inf, None, self._spec)
        if self._running is not None:
            return Running(self._model, self._classes, self._floor, self._running, self._axis.step)
        first = max(-self._axis.start / self._axis.step, 0.0)
        self._follower = self._model.follower(self._classes, self._floor, self._longest, first)
        return Exact(self._model, self._follower, self._classes, self._every)

    def _latency(self) -> Latency:
        step, after = self._axis.step, self._axis.start  # a snippet's window ends so much after what it stands for
        if self._running is not None:
            return Latency(self._running * step + after, 0.0, 0.0, self._running * step)
        network = self._model.reach + self._model.multiple - 1 + self._every + self._follower.delay
        follower, longest = self._follower, self._longest * step
        return Latency(network * step + after, follower.wait * step, follower.growth, longest)

    def _events(self, found: Found) -> list[Event]:
        now, clock = self.seen, datetime.now(UTC).isoformat(timespec="milliseconds")
        events = []

        def say(kind: Kind, index: int, told: _Told) -> None:
            label = self._model.config.labels[index]
            events.append(Event(kind, told.number, label, told.start, told.end, told.score, now, clock))

        for index, start, end, score in self._seconds(found.final):
            told = _Told(self._number(index, start, end), start, end, score)
            if end > start:
                say("final", index, told)
        events.sort(key=lambda event: event.start)
        if self._running is None and not self.exact and not self._said:
            self._said = True
            note(
                f"after {now:.1f} s of the stream: closed after longest = {self._longest * self._axis.step:g} s, "
                "though what followed might have changed it; localize may find it otherwise. Said once"
            )
        before, self._told = self._told, {index: [] for index in self._classes}
        ongoing = self._offset + self._axis.start + (self._stretch.length - 1) * self._axis.step
        for index, start, end, score in self._seconds(found.expected):
            old = _nearest(before[index], start, end)
            new = _Told(old.number if old else self._new(), start, None if end > ongoing else end, score)
            if old is None:
                say("open", index, new)
            elif self._differs(old, new):
                before[index].remove(old)
                say("change", index, new)
            else:
                before[index].remove(old)
                new = old
            self._told[index].append(new)
        for index, left in before.items():
            for old in left:
                say("withdrawn", index, old)
        return events

    def _seconds(self, rows: np.ndarray) -> Iterator[tuple[int, float, float, float]]:
        for (start, end), index, score in zip(self._axis.all_seconds(rows[:, :2]), rows[:, 2], rows[:, 3], strict=True):
            yield int(index), self._offset + float(start), self._offset + float(end), float(score)

    def _number(self, index: int, start: float, end: float) -> int:
        old = _nearest(self._told[index], start, end)
        if old is None:
            return self._new()
        self._told[index].remove(old)
        return old.number

    def _new(self) -> int:
        self._numbers += 1
        return self._numbers

    def _differs(self, a: _Told, b: _Told) -> bool:
        moved = abs(a.start - b.start) >= self._axis.step or abs(a.score - b.score) >= _NOTABLE
        return moved or (a.end is None) != (b.end is None) or abs((a.end or 0) - (b.end or 0)) >= self._axis.step


def _chosen(known: Sequence[str], labels: str | Collection[str] | None) -> list[int]:
    if labels is None:
        return list(range(len(known)))
    labels = [labels] if isinstance(labels, str) else labels
    if not labels:
        raise ConfigError("labels names none to look for; leave it out for all")
    if unknown := [label for label in labels if label not in known]:
        parts = [part.strip() for part in unknown[0].split(",")]
        hint = ", one at a time: --label " + " --label ".join(parts) if set(parts) <= set(known) else ""
        raise ConfigError(f"the model has no label {unknown[0]!r}; it has {name_some(known, 20)}{hint}")
    return [index for index, label in enumerate(known) if label in labels]


def _nearest(told: list[_Told], start: float, end: float) -> _Told | None:
    """The one that shares the most with a segment, None where none does."""
    shared = [min(one.end or np.inf, end) - max(one.start, start) for one in told]
    return told[int(np.argmax(shared))] if shared and max(shared) > 0 else None
