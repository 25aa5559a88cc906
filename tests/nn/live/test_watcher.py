"""A stream finds what `localize` finds in the recording, whatever the pieces, and as soon as it promised."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from backtal import (
    BackTALModel,
    ConfigError,
    DataError,
    FeatureSpec,
    ModelConfig,
    TimeAxis,
    VideoFeatures,
)
from backtal.nn import DetectorModel
from backtal.settings import recipe
from backtal.settings.detector import DetectionConfig, DetectorConfig

DIM, LABELS = 12, ("a", "b", "c")
SPEC = FeatureSpec(fps=20, stride=4, window=8)
COMPACT = recipe("compact").localization


def curves(spec: FeatureSpec | None = None, **changes) -> BackTALModel:
    torch.manual_seed(0)
    config = ModelConfig(
        feature_dim=DIM, labels=LABELS, hidden_dim=16, filter_dim=6, embedding_dim=4, kernel_size=5, feature_spec=spec
    )
    model = BackTALModel(config, replace(COMPACT, **changes)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(60)
    return model


def detector(**changes) -> DetectorModel:
    torch.manual_seed(0)
    config = DetectorConfig(feature_dim=DIM, labels=LABELS, width=16, levels=3, embedding_dim=4, head_layers=1)
    model = DetectorModel(config, DetectionConfig(**({"thresholds": None} | changes))).eval()
    with torch.no_grad():
        model.heads.classes.bias.fill_(-8.0)
        model.heads.classes.weight.mul_(20)
    return model


def fused(**changes) -> DetectorModel:
    return detector(thresholds=(0.3, 1.0, 0.1), **changes)


MODELS = {
    "compact": (curves, 0.02),
    # A threshold that no two runs on the grid of positions meet exactly: there rounding decides.
    "hard": (lambda: curves(soft_nms_sigma=None, min_score=None, shrink=0.05, nms_threshold=0.4711), 0.02),
    "thresholded": (lambda: curves(contrast_on="thresholded", outer=1.5, upsample=3, smoothing=0.0), 0.02),
    "detector": (detector, 0.3),
    "fused": (fused, 0.3),
    "fused, hard": (lambda: fused(soft_nms_sigma=None, nms_threshold=0.4), 0.3),
    "fused, weak": (lambda: fused(min_score=0.05), 0.1),
    "fused, points": (lambda: fused(point_weight=1.0), 0.3),
    "fused, runs": (lambda: fused(point_weight=0.0), 0.2),
    "detector, all": (lambda: detector(min_score=0.2), 0.0),
    "detector, hard": (lambda: detector(soft_nms_sigma=None, nms_threshold=0.4), 0.3),
}


def recording(length: int, seed: int = 0, spec: FeatureSpec = SPEC) -> VideoFeatures:
    """Noise that changes slowly, so that actions last a while."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, DIM, length // 4 + 2, generator=generator)
    features = torch.nn.functional.interpolate(coarse, size=length, mode="linear")[0]
    features += 0.3 * torch.randn(DIM, length, generator=generator)
    assert spec.fps
    assert spec.stride
    duration = ((length - 1) * spec.stride + (spec.window or spec.stride)) / spec.fps - 0.05
    return VideoFeatures("v", features, TimeAxis.of(length, duration, None, spec), spec)


def streamed(model, video, sizes, **options):
    """All events, each with the seconds of the piece that brought it."""
    watcher = model.watcher(video.spec, **options)
    events, start = [], 0
    while start < video.axis.length:
        size = int(next(sizes))
        pushed = watcher.push(video.features[:, start : start + size])
        events += [(event, size * video.axis.step) for event in pushed]
        start += size
    return watcher, events + [(event, 0.0) for event in watcher.close(video.axis.duration)]


def assert_same(events, whole):
    found = sorted((e.label, e.start, e.end, e.score) for e, _ in events if e.kind == "final")
    wanted = sorted((s.label, s.start, s.end, s.score) for s in whole if s.end > s.start)
    assert [row[0] for row in found] == [row[0] for row in wanted]
    np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in wanted], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_finds_what_localize_finds(name):
    build, floor = MODELS[name]
    model, rng, count = build(), np.random.default_rng(1), 0
    for length in (1, 3, 7, 40, 300):
        video = recording(length, seed=length)
        if length < model.shortest:
            assert streamed(model, video, iter([length]))[1] == []
            continue
        whole = model.localize(video).above(floor)
        for sizes in (iter([length]), iter(lambda: rng.integers(1, 30), None)):
            options = {"longest": 60.0} if "detector" not in name and "fused" not in name else {"longest": 15.0}
            watcher, events = streamed(model, video, sizes, least_score=floor, **options)
            assert watcher.exact
            assert_same(events, whole)
            count += sum(event.stream < video.axis.duration - 5 for event, _ in events if event.kind == "final")
            for event, piece in events:
                if event.kind == "final":
                    assert event.stream - event.end - piece <= watcher.latency.most + 1e-6
    assert count > 5  # not only at the end


@pytest.mark.parametrize("name", ["compact", "detector", "fused"])
def test_a_snippet_that_is_known_is_told_at_once(name):
    """What opens does so without waiting for the network's reach; numbers and kinds follow each other."""
    build, floor = MODELS[name]
    video = recording(150)
    _, events = streamed(build(), video, iter(lambda: 1, None), least_score=floor, longest=10.0, every=0.2)
    states = {}
    for event, _ in events:
        before = states.setdefault(event.number, [])
        assert not before or before[-1] not in ("final", "withdrawn")
        assert event.kind in ("open", "final") if not before else event.kind != "open"
        assert event.end is not None or event.kind != "final"
        assert event.start <= event.stream
        assert event.label in LABELS
        before.append(event.kind)
    assert all(kinds[-1] in ("final", "withdrawn") for kinds in states.values())
    opened = {event.number: event for event, _ in events if event.kind == "open"}
    ended = [event for event, _ in events if event.kind == "final" and event.number in opened]
    assert np.median([opened[e.number].stream - e.start for e in ended]) < 2.5


def test_labels_and_scores_leave_out_what_is_not_asked_for():
    video, model = recording(300), curves()
    _, every = streamed(model, video, iter([300]), least_score=0.02)
    _, some = streamed(model, video, iter([300]), least_score=0.1, labels=["b"])
    kept = [(e.start, e.end) for e, _ in every if e.kind == "final" and e.label == "b" and e.score >= 0.1]
    assert sorted((e.start, e.end) for e, _ in some if e.kind == "final") == sorted(kept)
    assert {e.label for e, _ in some} == {"b"}
    assert kept


@pytest.mark.parametrize("build", [curves, detector, fused])
def test_after_a_gap_each_part_is_a_video_of_its_own(build):
    model, first, second = build(), recording(200, 1), recording(150, 2)
    watcher = model.watcher(SPEC, least_score=0.1)
    events = watcher.push(first.features) + watcher.close(first.axis.duration)
    watcher.resume(100.0)
    events += watcher.push(second.features) + watcher.close(second.axis.duration)
    finals = [e for e in events if e.kind == "final"]
    for begin, video in ((0.0, first), (100.0, second)):
        mine = [e for e in finals if (e.start >= 100) == bool(begin)]
        there = [(replace(e, start=e.start - begin, end=e.end - begin), 0) for e in mine]
        assert_same(there, model.localize(video).above(0.1))
    assert watcher.seen == pytest.approx(100 + second.axis.duration)


@pytest.mark.parametrize(("build", "floor"), [(curves, 0.05), (detector, 0.3), (fused, 0.2)])
def test_an_action_that_never_ends_is_closed(build, floor, caplog):
    model = build()
    features = recording(700).features * 0.05 + recording(700, 3).features[:, 300:301]
    watcher = model.watcher(SPEC, least_score=floor, longest=10.0)
    lengths, held = [], []
    for start in range(0, 700, 5):
        lengths += [e.end - e.start for e in watcher.push(features[:, start : start + 5]) if e.kind == "final"]
        stretch = watcher._stretch
        held.append(stretch._follower.held + stretch._held.shape[1])
    lengths += [e.end - e.start for e in watcher.close()]
    assert max(lengths, default=0) <= 10.0 + 1e-6
    assert caplog.text.count("closed after longest = 10 s") == (not watcher.exact)
    assert max(held[70:]) <= max(held[:70]) + 20


def test_recipes_that_need_the_whole_video_say_so_and_offer_a_running_form():
    config = recipe("thumos14")
    model = BackTALModel(
        replace(config.model, feature_dim=DIM, labels=LABELS, hidden_dim=16, temporal_length=50), config.localization
    )
    with pytest.raises(ConfigError, match=r"model.temporal_length = 50, frame_scores = minmax.*running=60 \(--running"):
        model.watcher(SPEC)
    short, long = recording(90), recording(1000)
    _, events = streamed(model, short, iter([90]), running=30.0, least_score=0.0)
    assert_same(events, model.localize(short).above(0.0))
    sizes = iter(lambda: 7, None)
    watcher, events = streamed(model, long, sizes, running=30.0, least_score=0.0)
    assert not watcher.exact
    finals = [event for event, _ in events]
    assert {e.kind for e in finals} == {"final"}
    assert finals[0].stream < 32
    assert all(e.stream - e.end <= watcher.latency.most + 7 * 0.2 + 1e-6 for e in finals)
    assert max(e.end for e in finals) > 190


def test_what_is_wrong_is_said(caplog):
    model = curves()
    with pytest.raises(ConfigError, match="says fps and stride"):
        model.watcher()
    with pytest.raises(ConfigError, match="no label 'd'"):
        model.watcher(SPEC, labels=["d"])
    with pytest.raises(ConfigError, match=r"no label 'a,c'; .*, one at a time: --label a --label c"):
        model.watcher(SPEC, labels="a,c")
    with pytest.raises(ConfigError, match="names none"):
        model.watcher(SPEC, labels=[])
    for wrong in ({"longest": 0}, {"longest": np.inf}, {"every": np.nan}, {"running": -3.0}, {"least_score": np.nan}):
        with pytest.raises(ConfigError, match="seconds above 0"):
            model.watcher(SPEC, **wrong)
    watcher = model.watcher(SPEC)
    with pytest.raises(DataError, match=r"must be \[12, n\], found \(3, 5\)"):
        watcher.push(torch.zeros(3, 5))
    with pytest.raises(DataError, match="must be numbers"):
        watcher.push(["many"] * DIM)
    with pytest.raises(DataError, match=r"features differ .* fps: 100 here"):
        curves(spec=SPEC).watcher(replace(SPEC, fps=100))
    with pytest.raises(DataError, match="NaN or infinite"):
        watcher.push(torch.full((DIM,), torch.nan))
    assert watcher.push(np.zeros((DIM, 0))) == []
    for build in (detector, fused):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "backtal"):
            watcher, _ = streamed(build(most=1), recording(300), iter([300]), least_score=0.2)
        assert "leaves out the weakest" in caplog.text
        assert not watcher.exact
