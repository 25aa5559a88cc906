"""Every layout, built from synthetic and from the real THUMOS14 annotations, read and converted."""

import json
import os
import pickle

import numpy as np
import processes
import pytest
import torch
from click.testing import CliRunner
from conftest import shared

from backtal import Click, ConfigError, DataError, Segment, TimeAxis, read_clicks, simulate_clicks, write_clicks
from backtal.cli import main
from backtal.clicks.clicks import ClickTrack
from backtal.data.annotations import read_annotations, write_annotations
from backtal.data.check import check_dataset
from backtal.data.datasets import DatasetFolder, write_folder
from backtal.data.layouts import LAYOUTS, LayoutOptions, open_layout
from backtal.data.npy import read_npy
from backtal.settings.presets import recipe
from backtal.training.examples import TrainingSet

DIM = 2
LABELS = ("jump", "run", "throw")


def synthetic(root):
    """Annotations of 8 videos and three click files, in our own form."""
    rng, database, tracks = np.random.default_rng(0), {}, [[], [], []]
    for index in range(8):
        duration, fps = round(float(rng.uniform(20, 60)), 3), (30.0, 25.0, 29.97)[index % 3]
        starts = np.sort(rng.uniform(0, duration - 6, 3)).round(1)
        segments = [Segment(float(s), float(s) + 4.0, LABELS[(index + i % 2) % 3]) for i, s in enumerate(starts)]
        name = f"v_{index}"
        database[name] = {
            "subset": "test" if index > 5 else "val",
            "duration": duration,
            "fps": fps,
            "num_frames": round(duration * fps),
            "annotations": [{"label": s.label, "segment": [s.start, s.end]} for s in segments],
        }
        for track in tracks if index < 6 else []:
            track.append(simulate_clicks(name, segments, duration, rng))
    root.mkdir(parents=True)
    (root / "annotations.json").write_text(json.dumps({"labels": LABELS, "database": database}))
    for number, track in enumerate(tracks, 1):
        write_clicks(root / "clicks" / f"A{number}.txt", track, LABELS)
    return root


@pytest.fixture(params=["synthetic", "thumos14"], scope="module")
def origin(request, tmp_path_factory):
    if request.param == "thumos14":
        return DatasetFolder(shared("data", "thumos14", "annotations.json").parent)
    return DatasetFolder(synthetic(tmp_path_factory.mktemp("origin") / "data"))


def clicked(origin):
    """The training videos: of the test videos two last shorter than their annotations say."""
    return origin.annotations.subset("val")


def arrays(origin, fps, stride, window=16):
    """Features ``[T, 2 * DIM]`` of every video, as many snippets as its duration holds."""
    rng = np.random.default_rng(1)
    made = {}
    for name, video in origin.annotations.videos.items():
        frames = round(video.duration * (fps or video.fps))
        made[name] = rng.normal(size=(max((frames - window) // stride + 1, 1), 2 * DIM)).astype(np.float32)
    return made


def entries(origin, **changes):
    """The database as another project writes it; a change of None leaves a key out."""
    database = {}
    for name, video in origin.annotations.videos.items():
        items = [{"label": s.label, "segment": [s.start, s.end]} for s in video.ground_truth]
        entry = {"subset": video.subset, "duration": video.duration, "fps": video.fps, "annotations": items}
        entry |= {key: change(video) for key, change in changes.items() if change}
        database[name] = {key: value for key, value in entry.items() if key not in changes or changes[key]}
    return {"version": "1", "database": database}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def make_released(root, origin):
    """Files by subset; clicks marked on 2 parts per second."""
    features, clicks = arrays(origin, 25, 16), origin.clicks(origin.click_files(["A1.txt"]))
    for name, video in origin.annotations.videos.items():
        parts = TimeAxis.even(int(2 * video.duration), video.duration)
        marks = np.zeros(parts.length)
        for click in clicks[name].clicks if name in clicks else ():
            marks[parts.index(click.time)] = 1
        folder = root / ("test" if video.subset == "test" else "train")
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / f"{name}.npz",
            feat_spa=features[name][:, :DIM],
            feat_tem=features[name][:, DIM:],
            cls_label=np.array([label in video.labels for label in origin.labels], dtype=np.float32),
            point_label=marks,
            vid_name=name,
            frame_num=video.num_frames,
            fps=video.fps,
            duration=video.duration,
        )
    return features, LayoutOptions(labels=origin.labels)


def make_bas_net(root, origin, joined=False, durations=True):
    features = arrays(origin, 25, 16)
    subsets = {"train": [], "test": []}
    for name, video in origin.annotations.videos.items():
        part = "test" if video.subset == "test" else "train"
        subsets[part].append(name)
        if joined:
            save(root / "features" / part / f"{name}.npy", features[name])
        else:
            save(root / "features" / part / "rgb" / f"{name}.npy", features[name][:, :DIM])
            save(root / "features" / part / "flow" / f"{name}.npy", features[name][:, DIM:])
    for part, names in subsets.items():
        (root / f"split_{part}.txt").write_text("\n".join(names) + "\n")
    content = entries(origin, fps=None, **({} if durations else {"duration": None}))
    if joined:
        content = entries(origin)
    (root / ("gt_full.json" if joined else "gt.json")).write_text(json.dumps(content))
    if not joined:
        rates = {name: video.fps for name, video in origin.annotations.videos.items()}
        (root / "fps_dict.json").write_text(json.dumps(rates))
    rows = ["class,start_frame,stop_frame,video_id,point"]
    for video in clicked(origin):
        for s in video.ground_truth:
            middle = round((s.start + s.end) / 2 * video.fps)
            rows.append(f"{s.label},{s.start * video.fps},{s.end * video.fps},{video.video_id},{middle}")
    (root / "point_labels").mkdir()
    (root / "point_labels" / "point_gaussian.csv").write_text("\n".join(rows))
    return features, LayoutOptions(labels=origin.labels)


def make_hr_pro(root, origin):
    return make_bas_net(root, origin, joined=True)


def make_actionformer(root, origin):
    features = arrays(origin, None, 4)
    ids = {label: index for index, label in enumerate(origin.labels)}
    content = entries(origin)
    for entry in content["database"].values():
        entry["frame"] = round(entry["duration"] * entry["fps"])
        for item in entry["annotations"]:
            item["label_id"] = ids[item["label"]]
        entry["annotations"].append({"label": "Ambiguous", "segment": [0.0, 1.0], "label_id": 99})
    for name, array in features.items():
        save(root / "i3d_features" / f"{name}.npy", array)
    (root / "annotations").mkdir()
    (root / "annotations" / "thumos14.json").write_text(json.dumps(content))
    return features, LayoutOptions()


def ragged(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def make_wtalc(root, origin):
    features = arrays(origin, 25, 16)
    videos = list(origin.annotations.videos.values())
    folder = root / "Thumos14reduced-Annotations"
    save(root / "Thumos14reduced-I3D-JOINTFeatures.npy", ragged([features[v.video_id] for v in videos]))
    save(folder / "videoname.npy", np.array([v.video_id.encode() for v in videos]))
    save(folder / "subset.npy", np.array([v.subset.encode() for v in videos]))
    save(folder / "duration.npy", np.array([[v.duration] for v in videos]))
    save(folder / "classlist.npy", np.array([label.encode() for label in origin.labels]))
    save(folder / "labels_all.npy", ragged([sorted(v.labels) for v in videos]))
    save(folder / "labels.npy", ragged([[s.label for s in v.ground_truth] for v in videos]))
    save(folder / "segments.npy", ragged([[[s.start, s.end] for s in v.ground_truth] for v in videos]))
    lines = [f"{v.video_id},{(s.start + s.end) / 2:.6f},{s.label}\n\n" for v in clicked(origin) for s in v.ground_truth]
    (folder / "single_frames").mkdir()
    (folder / "single_frames" / "THUMOS1.txt").write_text("".join(lines))
    return features, LayoutOptions()


MAKERS = {
    "released": make_released,
    "lacp": make_bas_net,
    "hrpro": make_hr_pro,
    "actionformer": make_actionformer,
    "wtalc": make_wtalc,
}
SPLITS = {"released", "lacp", "hrpro"}


def equal_annotations(found, expected, layout):
    assert found.labels == expected.labels
    assert set(found.videos) == set(expected.videos)
    for name, video in expected.videos.items():
        other = found.videos[name]
        assert other.duration == video.duration
        assert other.labels == video.labels
        if layout != "released":
            assert other.ground_truth == video.ground_truth
        subset = "training" if layout in SPLITS and video.subset != "test" else video.subset
        assert other.subset == subset


@pytest.mark.parametrize("layout", MAKERS)
def test_round_trip(layout, origin, tmp_path):
    root = tmp_path / "source"
    root.mkdir()
    features, options = MAKERS[layout](root, origin)
    opened = open_layout(layout, root, options)
    equal_annotations(opened.annotations, origin.annotations, layout)
    assert opened.feature_names() == set(features)

    human = [origin.root / "clicks" / f"A{number}.txt" for number in (1, 2, 3)]
    write_folder(opened, tmp_path / "out", clicks=human)
    folder = DatasetFolder(tmp_path / "out")
    equal_annotations(folder.annotations, origin.annotations, layout)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    for name, array in features.items():
        video = opened.annotations.videos[name]
        direct, written = opened.features(video), folder.features(video)
        assert np.array_equal(direct.features.numpy().T, array)
        assert torch.equal(direct.features, written.features)
        assert (direct.axis, direct.spec) == (written.axis, written.spec)
        frames_per_second = {"actionformer": video.fps, "released": None}.get(layout, 25)
        if frames_per_second:
            stride = 4 if layout == "actionformer" else 16
            for index in (0, len(array) - 1):
                assert direct.axis.start + (index + 0.5) * direct.axis.step == pytest.approx(
                    (index * stride + 8) / frames_per_second
                )
    for path in human:
        assert folder.read_clicks(folder.root / "clicks" / path.name) == read_clicks(path)
    for path in opened.click_paths():
        assert folder.clicks([folder.root / "clicks" / f"{path.stem}.txt"]) == opened.clicks([path])

    report = check_dataset(folder)
    assert not report.broken, str(report)
    if len(origin.labels) == 20 and layout != "released":
        inside = {count.file: count.inside for count in report.clicks}
        assert [inside[f"A{number}.txt"] for number in (1, 2, 3)] == [175, 52, 175]


def test_released_files_with_the_ground_truth_tell_the_clicks_inside_actions(origin, tmp_path):
    make_released(tmp_path, origin)
    opened = open_layout("released", tmp_path, LayoutOptions(annotations=origin.root / "annotations.json"))
    human = [origin.root / "clicks" / f"A{number}.txt" for number in (1, 2, 3)]
    counts = check_dataset(opened, human, features=False).clicks
    if len(origin.labels) == 20:
        assert [count.inside for count in counts] == [175, 52, 175]
    else:  # simulated clicks are inside only where an action ends exactly on the click
        assert [count.inside for count in counts] == [count.on_edge for count in counts]


def test_released_marks_keep_the_clicks_to_half_a_second(origin, tmp_path):
    _, options = make_released(tmp_path, origin)
    found = open_layout("released", tmp_path, options).clicks([tmp_path / "point_label"])
    for name, track in origin.clicks(origin.click_files(["A1.txt"])).items():
        distances = np.abs(np.subtract.outer(track.times(), found[name].times()))
        assert distances.min(axis=1).max() <= 0.51


def test_action_points_become_clicks_on_the_right_second(origin, tmp_path):
    make_bas_net(tmp_path, origin)
    opened = open_layout("lacp", tmp_path, LayoutOptions(labels=origin.labels))
    (path,) = opened.click_files()
    tracks = opened.read_clicks(path)
    for video in clicked(origin):
        middles = sorted(round((s.start + s.end) / 2 * video.fps) / video.fps for s in video.ground_truth)
        assert [click.time for click in tracks[video.video_id].clicks] == pytest.approx(middles)
        assert {click.label for click in tracks[video.video_id].clicks} == video.labels


@pytest.fixture
def small(tmp_path):
    origin = DatasetFolder(synthetic(tmp_path / "origin"))
    root = tmp_path / "source"
    root.mkdir()
    return origin, root, tmp_path / "out"


def test_training_reads_any_layout(small):
    origin, root, _ = small
    make_actionformer(root, origin)
    opened = open_layout("actionformer", root)
    clicks = opened.clicks([origin.root / "clicks" / "A1.txt"])
    training = TrainingSet(opened, "val", clicks, recipe("compact").model)
    assert len(training) == 6
    assert (training[0].clicks == len(LABELS)).sum() == len(clicks["v_0"])


def test_released_with_annotations(small):
    origin, root, _ = small
    _, options = make_released(root, origin)
    where = origin.root / "annotations.json"
    opened = open_layout("released", root, LayoutOptions(annotations=where))
    assert opened.annotations.videos["v_0"].ground_truth == origin.annotations.videos["v_0"].ground_truth
    with pytest.raises(DataError, match="in the order of `cls_label` with --labels"):
        open_layout("released", root, LayoutOptions(annotations=where, labels=("run", "jump", "throw")))
    with pytest.raises(DataError, match="`cls_label` has 3 entries, but there are 2 labels"):
        open_layout("released", root, LayoutOptions(labels=("run", "jump")))
    assert open_layout("released", root).labels == ("class000", "class001", "class002")
    assert options.labels == LABELS


def test_durations_come_from_the_features_where_nothing_else_tells(small):
    origin, root, _ = small
    features, options = make_bas_net(root, origin, durations=False)
    opened = open_layout("basnet", root, options)
    for name, array in features.items():
        assert opened.annotations.videos[name].duration == pytest.approx(len(array) * 16 / 25)


def test_truncated_features_are_named_where_they_tell_the_duration(small):
    origin, root, _ = small
    _, options = make_bas_net(root, origin, durations=False)
    os.truncate(root / "features" / "train" / "rgb" / "v_1.npy", 100)
    with pytest.raises(DataError, match=r"v_1\.npy: not a readable \.npy array"):
        open_layout("basnet", root, options)


@pytest.mark.parametrize("database", [[1], {"v_1": 1}, None])
def test_frame_rates_of_no_database(database, small):
    origin, root, _ = small
    make_wtalc(root, origin)
    (root / "truth.json").write_text(json.dumps({"database": database}))
    with pytest.raises(DataError, match=r"truth\.json: expected an object 'database' of videos"):
        open_layout("sfnet", root, LayoutOptions(annotations=root / "truth.json"))


@pytest.mark.parametrize("name", ["fps", "stride", "window"])
def test_zero_is_not_the_default(name, small):
    origin, root, _ = small
    make_actionformer(root, origin)
    with pytest.raises(ConfigError, match=f"{name} must be a positive number, got 0"):
        open_layout("actionformer", root, LayoutOptions(**{name: 0}))


def test_sf_net_counts_in_the_frame_rate_of_its_ground_truth(small):
    origin, root, _ = small
    make_wtalc(root, origin)
    truth = root / "beoid_groundtruth.json"
    truth.write_text(json.dumps(entries(origin)))
    opened = open_layout("sfnet", root, LayoutOptions(annotations=truth))
    video = opened.annotations.videos["v_0"]
    assert opened.features(video).axis.step == pytest.approx(16 / 30)
    assert opened.features(video).spec.fps is None


def test_a_stopped_conversion_goes_on(small, monkeypatch):
    origin, root, out = small
    _, options = make_wtalc(root, origin)
    opened = open_layout("wtalc", root, options)
    read, seen = opened.features, []

    def stumbling(video):
        seen.append(video.video_id)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return read(video)

    monkeypatch.setattr(opened, "features", stumbling)
    with pytest.raises(KeyboardInterrupt):
        write_folder(opened, out)
    with pytest.raises(DataError, match="cannot be read"):
        DatasetFolder(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "features").glob("*.npz")}
    assert len(before) == 3
    with pytest.raises(DataError, match="another conversion was begun"):
        write_folder(opened, out, half=True)
    write_folder(opened, out)
    assert len(DatasetFolder(out).feature_names()) == 8
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    with pytest.raises(DataError, match="already there and not empty"):
        write_folder(opened, out)


def test_missing_features_are_named_and_can_be_left_out(small):
    origin, root, out = small
    _, options = make_actionformer(root, origin)
    (root / "i3d_features" / "v_3.npy").unlink()
    opened = open_layout("actionformer", root, options)
    with pytest.raises(DataError, match="1 of 8 videos have no features: v_3"):
        write_folder(opened, out)
    assert not out.exists()
    clicks = origin.root / "clicks" / "A1.txt"
    write_folder(opened, out, clicks=[clicks], skip_missing=True)
    assert "v_3" not in DatasetFolder(out).annotations.videos
    assert "v_3" not in read_clicks(out / "clicks" / "A1.txt")


def entry_of_v_1(change):
    """Spoil the annotations of ActionFormer's video v_1."""

    def spoil(root):
        path = root / "annotations" / "thumos14.json"
        content = json.loads(path.read_text())
        change(content["database"]["v_1"])
        path.write_text(json.dumps(content))

    return spoil


def table(name, change):
    """Spoil a table, or the joint file, of W-TALC."""

    def spoil(root):
        (path,) = root.rglob(f"*{name}.npy")
        save(path, change(np.load(path, allow_pickle=True)))

    return spoil


def second(value):
    """Put another value in the place of the second video's."""

    def change(array):
        items = list(array)
        items[1] = value(items[1]) if callable(value) else value
        return ragged(items)

    return change


def value_of_v_1(**changes):
    """Spoil values of a released file."""

    def spoil(root):
        path = root / "train" / "v_1.npz"
        np.savez(path, **dict(np.load(path)) | changes)

    return spoil


CASES = {
    "annotations are texts": (
        "actionformer",
        entry_of_v_1(lambda e: e.update(annotations=["x"])),
        "thumos14.json: video v_1: 'annotations' must be a list of objects",
    ),
    "annotations are a number": (
        "actionformer",
        entry_of_v_1(lambda e: e.update(annotations=5)),
        "thumos14.json: video v_1: 'annotations' must be a list of objects",
    ),
    "an annotation without label": (
        "actionformer",
        entry_of_v_1(lambda e: e["annotations"][0].pop("label")),
        "thumos14.json: video v_1: 'annotations' must be a list of objects",
    ),
    "a label that is none": (
        "actionformer",
        entry_of_v_1(lambda e: e["annotations"][0].update(label=[])),
        "thumos14.json: malformed: ",
    ),
    "released: text as frame rate": (
        "released",
        value_of_v_1(fps="fast"),
        "v_1.npz: `fps`: malformed: could not convert",
    ),
    "released: a name twice": ("released", value_of_v_1(vid_name="v_0"), "v_1.npz: video v_0 is in .*v_0.npz too"),
    "a video in both splits": (
        "lacp",
        lambda r: (r / "split_test.txt").write_text("v_6\nv_1\nv_7\n"),
        "videos in train and in test: v_1",
    ),
    "fewer segments than labels": ("wtalc", table("segments", second(lambda s: s[1:])), "video v_1: malformed: zip"),
    "text segments": ("wtalc", table("segments", second([["x", 1.0]] * 3)), "video v_1: malformed: could not convert"),
    "text features": ("wtalc", table("JOINTFeatures", second("x")), "JOINTFeatures.npy, video v_1: malformed: could"),
    "joint file of one array": ("wtalc", table("JOINTFeatures", lambda _: np.array(1.0)), "features of 1 videos"),
    "no rows of a table": ("wtalc", table("subset", lambda _: np.array(b"x")), "videoname 8, subset 1"),
    "a name twice": ("wtalc", table("videoname", second(b"v_0")), "videoname.npy: videos that are there twice: v_0"),
    "a name that is no text": ("wtalc", table("videoname", second(b"\xff")), "videoname.npy: malformed: 'utf-8'"),
    "a class that is no text": ("wtalc", table("classlist", second(b"\xff")), "classlist.npy: malformed: 'utf-8'"),
    "characters that there are not": (
        "wtalc",
        table("subset", lambda _: np.full((8, 1), 2**31 - 1, dtype=np.uint32).view("U1")[:, 0]),
        "subset.npy: malformed: ",
    ),
    "released: characters that there are not": (
        "released",
        value_of_v_1(vid_name=np.array([2**31 - 1], dtype=np.uint32).view("U1")),
        "v_1.npz: `vid_name`: malformed: ",
    ),
    "no durations": ("wtalc", table("duration", lambda _: np.zeros((8, 0))), "video v_0: malformed: index 0"),
    "no rgb partner": (
        "lacp",
        lambda r: (r / "features" / "train" / "flow" / "v_1.npy").unlink(),
        "only one of rgb and flow: v_1",
    ),
    "unknown video in the split": (
        "lacp",
        lambda r: (r / "split_test.txt").write_text("ghost\n"),
        "no annotations of 1 videos that the split names: ghost",
    ),
    "no annotation file": ("lacp", lambda r: (r / "gt.json").unlink(), "no gt_full.json or gt.json"),
    "two annotation files": ("actionformer", lambda r: (r / "b.json").write_text("{}"), "found thumos14.json, b.json"),
    "truncated array": (
        "actionformer",
        lambda r: os.truncate(r / "i3d_features" / "v_1.npy", 100),
        "v_1.npy: not a readable .npy array",
    ),
    "NaN": (
        "actionformer",
        lambda r: save(r / "i3d_features" / "v_1.npy", np.full((5, 4), np.nan)),
        "v_1.npy: NaN or infinite",
    ),
    "not [T, D]": (
        "actionformer",
        lambda r: save(r / "i3d_features" / "v_1.npy", np.zeros((1, 5, 4))),
        r"`features` must be numbers \[D, T\]",
    ),
    "missing key": (
        "released",
        lambda r: np.savez(r / "train" / "v_1.npz", feat_spa=1),
        "v_1.npz: no cls_label, point_label, vid_name, frame_num, fps, duration; it holds feat_spa",
    ),
    "not an archive": ("released", lambda r: (r / "train" / "v_1.npz").write_text("x"), "not a readable .npz file"),
    "unlike lengths": (
        "wtalc",
        lambda r: save(r / "Thumos14reduced-Annotations" / "subset.npy", np.array([b"test"])),
        "not of one length: videoname 8, subset 1",
    ),
    "joint file of other videos": (
        "wtalc",
        lambda r: save(r / "Thumos14reduced-I3D-JOINTFeatures.npy", ragged([np.zeros((3, 4))])),
        "features of 1 videos, but videoname.npy names 8",
    ),
    "a name that leaves the folder": (
        "actionformer",
        lambda r: (r / "annotations" / "thumos14.json").write_text(
            (r / "annotations" / "thumos14.json").read_text().replace('"v_1"', '"../v_1"')
        ),
        "no video can be called '../v_1': it leads out of the folder of features",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_layouts_are_refused_with_the_reason(case, small):
    origin, root, out = small
    layout, spoil, message = CASES[case]
    _, options = MAKERS[layout](root, origin)
    spoil(root)
    with pytest.raises(DataError, match=message):
        write_folder(open_layout(layout, root, options), out)
    assert not (out / "annotations.json").exists()


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


def test_a_pickle_that_could_run_code_is_refused(small, monkeypatch, tmp_path):
    origin, root, _ = small
    make_wtalc(root, origin)
    monkeypatch.chdir(tmp_path)
    save(root / "Thumos14reduced-I3D-JOINTFeatures.npy", ragged([Malicious()]))
    opened = open_layout("wtalc", root)
    with pytest.raises(DataError, match=r"refused: it wants to load \w+\.system, which is no array"):
        opened.features(opened.annotations.videos["v_0"])
    assert not (tmp_path / "pwned").exists()


class Pointers:
    """Raw bytes as an array of objects, which numpy itself would take for their addresses."""

    def __reduce__(self):
        return np.ndarray, ((2,), np.dtype("O"), b"A" * 16)


class Flags:
    """A type of objects that says it is none."""

    def __reduce__(self):
        return np.dtype, ("O", False, True), (3, "|", None, None, None, -1, -1, 0)


class HiddenPointers:
    def __reduce__(self):
        return *np.zeros(0).__reduce__()[:2], (1, (2,), Flags(), False, b"A" * 16)


def pickled(path, content, protocol=4):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (len(content),)})
        file.write(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("payload", [Pointers(), HiddenPointers()])
def test_a_pickle_cannot_make_objects_of_raw_bytes(payload, tmp_path):
    # In a process of its own: where the array is made, reading it ends the process.
    path = pickled(tmp_path / "a.npy", [payload])
    code = "import sys; from backtal.data.npy import read_npy; print(read_npy(sys.argv[1]))"
    done = processes.run(processes.code, code, path)
    assert done.returncode == 1
    assert f"DataError: {path}: " in done.stderr


@pytest.mark.parametrize("state", [((2**40,), "O", []), ((-1, -2), "f8", b"A" * 16), ((2,), "V8", b"A" * 16)])
def test_a_pickle_cannot_claim_more_than_it_holds(state, tmp_path):
    class Claim:
        def __reduce__(self):
            shape, kind, data = state
            return *np.zeros(0).__reduce__()[:2], (1, shape, np.dtype(kind), False, data)

    with pytest.raises(DataError, match=r"a\.npy: refused: it holds an array "):
        read_npy(pickled(tmp_path / "a.npy", [Claim()]))


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_keep_what_they_hold(protocol, tmp_path):
    mixed = np.array([[1, "a"], [None, 2.5]], dtype=object, order="F")
    arrays = [np.arange(6.0).reshape(3, 2).T, np.array(["a", "bb"]), np.array([b"q", b"rr"]), np.zeros((0, 2)), mixed]
    arrays += [np.array(3.0), np.arange(3, dtype=">i4"), np.array([True]), np.array([], dtype=object)]
    others = [np.float32(3), np.str_("q"), np.str_(""), np.bytes_(b"z"), b"", b"\xff", None, True, ("a", 1)]
    content = ragged([*arrays, others])
    found = read_npy(pickled(tmp_path / "a.npy", content, protocol))
    assert type(found) is np.ndarray
    for array, expected in zip(found[:-1], arrays, strict=True):
        assert (array.shape, array.dtype.kind) == (expected.shape, expected.dtype.kind)
        assert np.array_equal(array, expected)
    assert found[-1] == others
    assert [type(item) for item in found[-1]] == [type(item) for item in others]


def test_arrays_pickled_by_python_2_are_read(tmp_path):
    # Protocol 2 as Python 2 wrote it: `U` begins a text of bytes, and the content of an array is one.
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03K\x02\x86"
    array += b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array += b"\x89U\x30" + np.arange(6.0).tobytes() + b"tb"
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(b"\x80\x02" + array + b".")
    assert np.array_equal(read_npy(tmp_path / "a.npy"), np.arange(6.0).reshape(3, 2))


def test_layout_names():
    with pytest.raises(DataError, match="unknown layout 'x'; known are released, basnet"):
        open_layout("x", ".")
    with pytest.raises(DataError, match="no such folder"):
        open_layout("lacp", "nowhere")
    assert set(MAKERS) < set(LAYOUTS)


def test_videos_known_by_their_labels_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": {"v": {"subset": "training", "duration": 5, "labels": ["jump"]}}}))
    annotations = read_annotations(path)
    assert annotations.videos["v"].labels == {"jump"}
    write_annotations(path, annotations)
    assert read_annotations(path) == annotations


def test_click_forms(tmp_path):
    path = tmp_path / "points.txt"
    path.write_text("v,1.5,jump\n\nv,2.5,run\n")
    assert [(c.time, c.label) for c in read_clicks(path)["v"].clicks] == [(1.5, "jump"), (2.5, "run")]
    path.write_text("v,1.5,jump\nv,later,run\n")
    with pytest.raises(DataError, match="line 2: expected video,second,label, found 'v,later,run'"):
        read_clicks(path)
    path.write_text("class,video_id,point\njump,v,30\n")
    assert read_clicks(path, frame_rates={"v": 20})["v"] == ClickTrack("v", (Click(1.5, "jump"),))
    with pytest.raises(DataError, match="line 2: the frame rate of video v is not known"):
        read_clicks(path)
    path.write_text("class,video_id,point\njump,v,x\n")
    with pytest.raises(DataError, match="line 2: needs class, video_id and a frame number"):
        read_clicks(path, frame_rates={"v": 20})


def test_the_command_line_converts_and_checks(small, tmp_path):
    origin, root, out = small
    make_actionformer(root, origin)
    clicks = origin.root / "clicks" / "A1.txt"
    arguments = ["dataset", "convert", root, out, "--layout", "opentad", "--clicks", clicks, "--stride", 4]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "8 videos (6 val, 2 test), 3 labels" in result.stderr
    assert "0 error(s)" in result.stderr
    result = CliRunner().invoke(main, ["dataset", "convert", str(root), str(tmp_path / "x"), "--layout", "unheard-of"])
    assert result.exit_code == 2
    assert "unknown layout 'unheard-of'" in result.stderr


def test_a_wrong_stride_shows_in_the_check(small):
    origin, root, out = small
    make_actionformer(root, origin)
    arguments = ["dataset", "convert", root, out, "--layout", "actionformer", "--stride", 16]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert "8 video(s) whose features do not cover their duration" in result.stderr
