"""The dataset check finds what is wrong and says so; what is right stays silent."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import LABELS, make_folder, shared

from backtal import (
    Click,
    ClickTrack,
    FeatureSpec,
    TimeAxis,
    VideoFeatures,
    read_clicks,
    read_features,
    write_clicks,
    write_features,
)
from backtal.cli import main
from backtal.data.check import check_dataset
from backtal.data.datasets import DatasetFolder, write_folder


def run(*arguments):
    return CliRunner().invoke(main, ["dataset", "check", *map(str, arguments)])


def findings(folder, **options):
    return {finding.kind: finding for finding in check_dataset(DatasetFolder(folder), **options).findings}


def test_a_sound_folder(folder):
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "8 videos (6 training, 2 test), 2 labels, 8 instances" in result.stdout
    assert "features: 8 of 8 videos, 8 channels" in result.stdout
    assert "error:" not in result.stdout


def test_thumos14_without_features():
    data = shared("data", "thumos14", "annotations.json").parent
    result = run(data)
    assert result.exit_code == 2
    assert "error: no video has features" in result.stdout
    for name, clicks, videos, inside, share in (
        ("A1", 2264, 200, 175, "7.7"),
        ("A2", 2323, 199, 52, "2.2"),
        ("A3", 2344, 199, 175, "7.5"),
    ):
        line = f"clicks {name}.txt: {clicks} in {videos} videos; {inside} background clicks ({share} %) lie inside an"
        assert line in result.stdout
    result = run(data, "--clicks", "A1.txt", "--no-features", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert [count["inside"] for count in report["clicks"]] == [175]
    (inside,) = [finding for finding in report["findings"] if finding["kind"] == "click_inside_action"]
    assert len(inside["items"]) == 175
    assert "instance_outside" in {finding["kind"] for finding in report["findings"]}


def rewrite(change):
    def spoil(root):
        path = root / "annotations.json"
        content = json.loads(path.read_text())
        change(content["database"])
        path.write_text(json.dumps(content))

    return spoil


def with_clicks(*clicks, video="v0"):
    return lambda root: write_clicks(root / "clicks" / "A1.txt", [ClickTrack(video, clicks)], [*LABELS, "fly"])


def among_clicks(*clicks):
    """Other clicks on v0, beside those on the other videos."""

    def spoil(root):
        tracks = read_clicks(root / "clicks" / "A1.txt") | {"v0": ClickTrack("v0", clicks)}
        write_clicks(root / "clicks" / "A1.txt", tracks.values(), LABELS)

    return spoil


def features(change, video="v1"):
    def spoil(root):
        path = root / "features" / f"{video}.npz"
        np.savez(path, features=change(np.load(path)["features"]))

    return spoil


def other_spec(root):
    for index in range(8):
        path = root / "features" / f"v{index}.npz"
        video = read_features(path, duration=10.0)
        spec = FeatureSpec("i3d" if index else "s3d")
        axis = TimeAxis.even(video.axis.length, video.axis.length / 2)
        write_features(path, VideoFeatures(f"v{index}", video.features, axis, spec))


def quarter(root):
    path = root / "features" / "v1.npz"
    video = read_features(path, duration=10.0)
    spec = FeatureSpec(fps=20, stride=2)
    write_features(path, VideoFeatures("v1", video.features, TimeAxis.of(video.axis.length, 10.0, spec=spec), spec))


def with_nan(array):
    array[0, 3] = np.nan
    return array


BROKEN = {
    "missing_features": (lambda r: (r / "features" / "v1.npz").unlink(), "1 video(s) without features: v1"),
    "damaged_features": (features(with_nan), "NaN or infinite values in 1 snippet(s), the first is number 3"),
    "feature_dim": (features(lambda x: x[:5]), "do not have 8 channels like the others: v1 (5 channels)"),
    "short_video": (features(lambda x: x[:, :2]), "fewer than 5 snippets, the span of the smallest kernel: v1 (2)"),
    "feature_spec": (other_spec, "extractor: i3d here, s3d there"),
    "feature_length": (quarter, "v1 (2.0 s of features, 10.0 s of video)"),
    "click_file": (lambda r: (r / "clicks" / "A1.txt").write_text("a,b\n"), "A1.txt: not a click file in a known form"),
    "unknown_video": (with_clicks(Click(1.0), video="ghost"), "not in the dataset: ghost"),
    "unknown_label": (with_clicks(Click(1.0, "fly")), "v0 at 1 s (fly)"),
    "click_outside": (with_clicks(Click(99.0)), "1 click(s) after the end of the video: v0 at 99 s"),
    "unlabelled_videos": (
        rewrite(lambda d: d["v2"].update(annotations=[])),
        "1 video(s) of subset training without any label: v2",
    ),
    "unclicked_videos": (
        with_clicks(Click(0.5)),
        "A1.txt: 5 video(s) of subset training without any click: v1, v2, v3, v4, v5\n      click them, or train with "
        "--set allow_unclicked=true",
    ),
}
SUSPICIOUS = {
    "unlocated_videos": (
        rewrite(lambda d: d["v7"].update(labels=["run"], annotations=[])),
        "1 of 2 video(s) to measure on without start and end of their actions: v7\n      they are left out",
    ),
    "unlocated_labels": (
        rewrite(lambda d: d["v6"].update(labels=["run"])),
        "1 video(s) with labels of which it is not said when they occur: v6 (run)",
    ),
    "names_alike": (
        lambda r: (
            rewrite(lambda d: d.update(V6=d["v6"]))(r),
            (r / "features" / "V6.npz").write_bytes((r / "features" / "v6.npz").read_bytes()),
        ),
        "2 videos whose names differ in nothing but upper and lower case: v6, V6",
    ),
    "crowded_features": (
        rewrite(lambda d: d["v6"].update(fps=1)),
        "with more snippets than frames: are its features [T, D], where [D, T] is meant?: v6 (",
    ),
    "foreign_label": (
        among_clicks(Click(0.5), Click(3.0, "run")),
        "A1.txt: 1 action click(s) with a label that their video does not have: v0 at 3 s (run)",
    ),
    "extra_features": (lambda r: np.savez(r / "features" / "w.npz", features=1), "that are not annotated: w"),
    "feature_length": (features(lambda x: np.repeat(x, 2, 1)[:, : x.shape[1] * 5 // 4]), "v1 ("),
    "unlabelled_videos": (rewrite(lambda d: d["v7"].update(annotations=[])), "1 video(s) without any label: v7"),
    "frame_rate": (rewrite(lambda d: d["v2"].update(num_frames=900)), "v2 (900 frames at 20 fps"),
    "instance_outside": (rewrite(lambda d: d["v7"]["annotations"][0].update(segment=[1, 99])), "v7 (1-99 s of"),
    "empty_instance": (rewrite(lambda d: d["v7"]["annotations"][0].update(segment=[1, 1])), "zero length: v7 at 1 s"),
    "repeated_instance": (rewrite(lambda d: d["v7"].update(annotations=2 * d["v7"]["annotations"])), "given twice: v7"),
    "unused_labels": (
        rewrite(lambda d: [item.update(label="jump") for v in d.values() for item in v["annotations"]]),
        "1 label(s) that no video has: run",
    ),
    "repeated_click": (among_clicks(Click(0.5), Click(0.5)), "A1.txt: 1 click(s) given twice: v0 at 0.5 s"),
    "action_click_outside": (
        among_clicks(Click(0.0, "jump")),
        "outside every instance of their action: v0 at 0 s (jump)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_errors(kind, folder):
    spoil, message = BROKEN[kind]
    assert kind not in findings(folder)
    spoil(folder)
    result = run(folder)
    assert result.exit_code == 2, result.output
    assert findings(folder)[kind].level == "error"
    assert message in result.stdout, result.stdout


@pytest.mark.parametrize("kind", SUSPICIOUS)
def test_warnings(kind, folder):
    spoil, message = SUSPICIOUS[kind]
    assert kind not in findings(folder)
    spoil(folder)
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert findings(folder)[kind].level == "warning"
    assert message in result.stdout, result.stdout


def test_a_click_inside_an_action_counts_with_both_ends(folder):
    (segment,) = DatasetFolder(folder).annotations.videos["v0"].ground_truth
    times = (segment.start - 0.1, segment.start, segment.start + 0.1, segment.end, segment.end + 0.1)
    with_clicks(*map(Click, times))(folder)
    (count,) = check_dataset(DatasetFolder(folder)).clicks
    assert (count.clicks, count.inside, count.on_edge) == (5, 3, 2)
    with_clicks(*(Click(time, "jump") for time in times[1:4]))(folder)
    (count,) = check_dataset(DatasetFolder(folder)).clicks
    assert (count.background, count.inside) == (0, 0)
    assert "action_click_outside" not in findings(folder)


def test_unclicked_videos_are_a_warning_where_another_file_has_them(folder):
    whole = folder / "clicks" / "A2.txt"
    whole.write_bytes((folder / "clicks" / "A1.txt").read_bytes())
    with_clicks(Click(0.5))(folder)
    assert findings(folder)["unclicked_videos"].level == "warning"
    assert run(folder).exit_code == 0
    assert run(folder, "--clicks", "A1.txt").exit_code == 2
    write_clicks(whole, [], LABELS)
    assert findings(folder, click_files=["A2.txt"])["unclicked_videos"].items == tuple(f"v{i}" for i in range(6))


def test_where_no_subset_is_called_training_it_is_the_clicked_one(folder):
    rewrite(lambda d: [v.update(subset="val") for v in d.values() if v["subset"] == "training"])(folder)
    rewrite(lambda d: d["v7"].update(annotations=[]))(folder)
    assert findings(folder)["unlabelled_videos"].level == "warning"
    rewrite(lambda d: d["v2"].update(annotations=[]))(folder)
    assert "of subset val without any label: v2" in run(folder).stdout
    assert run(folder).exit_code == 2


def test_convert_has_the_exit_code_of_the_check(folder, tmp_path):
    def convert(name):
        arguments = ["dataset", "convert", folder, tmp_path / name, "--layout", "actionformer", "--fps", 20]
        arguments += ["--annotations", folder / "annotations.json", "--clicks", folder / "clicks" / "A1.txt"]
        return CliRunner().invoke(main, [*map(str, arguments), "--stride", "10", "--window", "10"])

    for path in sorted((folder / "features").iterdir()):
        np.save(path.with_suffix(".npy"), np.load(path)["features"].T)
    done = convert("sound")
    assert done.exit_code == 0, done.output
    with_clicks(Click(0.5))(folder)
    done = convert("broken")
    assert done.exit_code == 2, done.output
    assert "1 error(s)" in done.stderr
    assert "wrote" in done.stderr


def test_a_conversion_that_goes_on_removes_what_a_killed_one_left(folder, tmp_path, monkeypatch):
    def stop(path, content):
        raise KeyboardInterrupt

    out, data = tmp_path / "out", DatasetFolder(folder)
    with monkeypatch.context() as patch:
        patch.setattr("backtal.data.datasets.write_annotations", stop)
        with pytest.raises(KeyboardInterrupt):
            write_folder(data, out)
    (out / "features" / ".v2.npz.abc.tmp").write_bytes(b"half")
    write_folder(data, out)
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_bad_paths_are_exit_code_2(folder):
    assert run(folder / "nowhere").exit_code == 2
    result = run(folder, "--clicks", "B.txt")
    assert result.exit_code == 2
    assert "B.txt: no such click file" in result.stderr


def test_many_click_files_are_counted_one_by_one(tmp_path):
    root = make_folder(tmp_path / "data")
    for name in ("A2.txt", "A3.txt"):
        (root / "clicks" / name).write_bytes((root / "clicks" / "A1.txt").read_bytes())
    assert [count.file for count in check_dataset(DatasetFolder(root)).clicks] == ["A1.txt", "A2.txt", "A3.txt"]
