"""The command line as a user meets it: the whole path, and every kind of bad input."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY, make_folder, train_options
from safetensors.torch import load_file, save_file

from backtal.cli import main

SETTINGS = train_options(*TINY)


def backtal(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset folder and a run on it, read-only for the tests."""
    base = tmp_path_factory.mktemp("cli")
    make_folder(base / "data")
    done = backtal("train", base / "data", "--out", base / "run", *SETTINGS)
    assert done.exit_code == 0, done.output
    return base


def test_the_whole_path(trained, tmp_path):
    out = tmp_path / "predictions.json"
    done = backtal("localize", trained / "data", "--model", trained / "run", "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "2 videos" in done.stderr
    assert set(json.loads(out.read_text())["results"]) == {"v6", "v7"}
    done = backtal("evaluate", out, "--data", trained / "data", "--tiou", "0.1:0.5:0.2", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report["mAP"]) == {"0.1", "0.3", "0.5"}
    assert report["average"] == pytest.approx(sum(report["mAP"].values()) / 3)
    assert {"f1", "ap"} <= set(report)
    assert (report["subset"], report["protocol"]) == ("test", None)
    table = backtal("evaluate", out, "--data", trained / "data", "--protocol", "thumos14")
    assert table.stdout.splitlines()[0].split() == ["tIoU", "0.3", "0.4", "0.5", "0.6", "0.7", "mean", "instances"]
    assert table.stdout.splitlines()[-1] == "subset test, thresholds of the protocol thumos14"


def test_feature_files_and_settings(trained, tmp_path):
    source = trained / "data" / "features" / "v6.npz"
    np.savez(tmp_path / "new.npz", features=np.load(source)["features"], duration=12.0)
    out = tmp_path / "p.json"
    arguments = ["localize", tmp_path / "new.npz", "--model", trained / "run", "--out", out]
    assert backtal(*arguments, "--set", "min_score=0.0").exit_code == 0
    assert set(json.loads(out.read_text())["results"]) == {"new"}
    refused = backtal(*arguments, "--set", "hidden_dim=3")
    assert refused.exit_code == 2
    assert "only localization settings" in refused.stderr


def test_localize_refuses_two_videos_of_one_name_and_a_folder_as_out(trained, tmp_path):
    source = trained / "data" / "features" / "v6.npz"
    (tmp_path / "other").mkdir()
    other = shutil.copy(source, tmp_path / "other")
    arguments = ["--model", trained / "run", "--out", tmp_path / "p.json"]
    for first in (source, trained / "data"):
        done = backtal("localize", first, other, *arguments)
        assert done.exit_code == 2
        assert f"{first} and {other} both hold video v6" in done.stderr
    done = backtal("localize", other, "--model", trained / "nowhere", "--out", tmp_path)
    assert done.exit_code == 2
    assert f"{tmp_path}: is a folder; --out names the predictions file" in done.stderr


def test_localize_skips_damaged_features_of_a_dataset(trained, tmp_path):
    data = shutil.copytree(trained / "data", tmp_path / "data")
    (data / "features" / "v6.npz").write_bytes(b"damaged")
    done = backtal("localize", data, "--model", trained / "run", "--out", tmp_path / "p.json")
    assert done.exit_code == 2
    assert "v6.npz: not a readable .npz file" in done.stderr
    assert set(json.loads((tmp_path / "p.json").read_text())["results"]) == {"v7"}


def test_localize_does_the_others_where_one_cannot_be_read(trained, tmp_path):
    v6, v7 = (trained / "data" / "features" / f"{name}.npz" for name in ("v6", "v7"))
    for source in (v6, v7):
        np.savez(tmp_path / source.name, features=np.load(source)["features"], duration=12.0)
    np.save(tmp_path / "array.npy", np.ones((30, 8)))
    np.savez(tmp_path / "transposed.npz", features=np.ones((30, 8)), duration=12.0)
    (tmp_path / "film.mp4").write_bytes(b"")
    names = ["v6.npz", "nowhere.npz", "array.npy", "transposed.npz", "film.mp4", "v7.npz"]
    out = tmp_path / "p.json"
    done = backtal("localize", *(tmp_path / name for name in names), "--model", trained / "run", "--out", out)
    assert done.exit_code == 2
    assert set(json.loads(out.read_text())["results"]) == {"v6", "v7"}
    for part in (
        "nowhere.npz: no such file or folder",
        "array.npy: this is an array of numpy (.npy), not an .npz file",
        "video transposed: features have 30 channels, expected 8; it has 8 snippets: are they [T, D]",
        "film: the checkpoint does not say what extracted its features",
    ):
        assert part in done.stderr


def test_localize_takes_a_folder_of_features(trained, tmp_path):
    place = tmp_path / "new" / "features"
    (place / "kitchen").mkdir(parents=True)
    for name, source in (("a.NPZ", "v6"), ("kitchen/b.npz", "v7")):
        features = np.load(trained / "data" / "features" / f"{source}.npz")["features"]
        np.savez(tmp_path / "one.npz", features=features, duration=12.0)
        (tmp_path / "one.npz").rename(place / name)
    out = tmp_path / "p.json"
    for given in (place, tmp_path / "new"):
        done = backtal("localize", given, "--model", trained / "run", "--out", out)
        assert done.exit_code == 0, done.output
        assert list(json.loads(out.read_text())["results"]) == ["a", "kitchen/b"]
    (place / "film.mp4").write_bytes(b"")
    for given, message in ((place, "holds videos and feature files"), (tmp_path, "holds neither video nor feature")):
        (tmp_path / "p.json").unlink(missing_ok=True)
        other = tmp_path / "empty"
        other.mkdir(exist_ok=True)
        done = backtal("localize", given if given == place else other, "--model", trained / "run", "--out", out)
        assert done.exit_code == 2
        assert message in done.stderr


def test_one_bad_feature_file_stops_neither_report_nor_diagnosis(trained, tmp_path):
    pytest.importorskip("matplotlib")
    data, found = shutil.copytree(trained / "data", tmp_path / "data"), tmp_path / "p.json"
    (data / "features" / "v6.npz").write_bytes(b"damaged")
    assert backtal("localize", data, "--model", trained / "run", "--out", found).exit_code == 2
    measured = backtal("evaluate", found, "--data", data, "--json")
    said = "1 of the 2 videos in subset 'test' are not among the predictions: v6; their instances count as missed"
    assert said in measured.stderr
    done = backtal("report", trained / "run", "--data", data, "--out", tmp_path / "r.html")
    assert done.exit_code == 2
    assert said in done.stderr
    assert "v6.npz: not a readable .npz file" in done.stderr
    text = (tmp_path / "r.html").read_text()
    assert "Could not be read: " in text
    assert f"<b>{100 * json.loads(measured.stdout)['average']:.1f}</b>" in text
    diagnosed = backtal("diagnose", found, "--data", data, "--model", trained / "run")
    assert diagnosed.exit_code == 2
    assert "no top-k frames: " in diagnosed.stderr
    assert "kind of prediction" in diagnosed.stdout
    (data / "features" / "v7.npz").unlink()
    nothing = backtal("report", trained / "run", "--data", data, "--out", tmp_path / "r.html")
    assert (nothing.exit_code, "none of the 2 videos can be used" in nothing.stderr) == (2, True)


def test_curves_of_the_files_that_can_be_read(trained, tmp_path):
    pytest.importorskip("matplotlib")
    found, picture = tmp_path / "p.json", tmp_path / "map.png"
    assert backtal("localize", trained / "data", "--model", trained / "run", "--out", found).exit_code == 0
    other = tmp_path / "other.json"
    other.write_text('{"results": {"elsewhere": []}}')
    done = backtal("plot", "curves", found, other, tmp_path / "no.json", "--data", trained / "data", "--out", picture)
    assert (done.exit_code, picture.exists()) == (2, True)
    assert f"{other}: no prediction is for a video of the ground truth" in done.stderr
    assert "no.json: cannot be read" in done.stderr


def test_training_names_every_video_that_cannot_be_used(trained, tmp_path):
    data = shutil.copytree(trained / "data", tmp_path / "data")
    (data / "features" / "v1.npz").write_bytes(b"damaged")
    (data / "features" / "v2.npz").unlink()
    np.save(data / "features" / "v2.npy", np.ones((3, 2)))
    done = backtal("train", data, "--out", tmp_path / "run", *SETTINGS)
    assert done.exit_code == 2
    assert "2 training videos cannot be used" in done.stderr
    assert "v1.npz: not a readable .npz file" in done.stderr
    assert "v2.npz: no such feature file; there is v2.npy" in done.stderr


def test_training_says_what_it_is_told_twice_and_what_looks_transposed(trained, tmp_path):
    data = shutil.copytree(trained / "data", tmp_path / "data")
    for path in (data / "features").glob("*.npz"):
        array = np.load(path)["features"][:, :20]
        np.savez(path, features=np.repeat(array, 30, axis=1))
    with (data / "clicks" / "A1.txt").open("a") as file:
        file.write("v0,v0.mp4,1,run,1,1,1,1\n")
    done = backtal("train", data, "--out", tmp_path / "run", *SETTINGS)
    assert done.exit_code == 0, done.output
    assert "1 action click(s) with a label that their video does not have: v0 at 1 s (run)" in done.stderr
    assert "6 training video(s) with more snippets than frames: are its features [T, D]" in done.stderr


def test_clicks_of_another_ending_are_named(trained, tmp_path):
    data = shutil.copytree(trained / "data", tmp_path / "data")
    (data / "clicks" / "A1.txt").rename(data / "clicks" / "A1.csv")
    done = backtal("train", data, "--out", tmp_path / "run", *SETTINGS)
    assert done.exit_code == 2
    assert "no click file with the ending .txt; it holds A1.csv, to be named with --clicks" in done.stderr
    (data / "clicks" / "A1.csv").rename(data / "clicks" / "A1.TXT")
    assert backtal("train", data, "--out", tmp_path / "run", *SETTINGS).exit_code == 0


def test_localize_in_bfloat16(trained, tmp_path):
    def scores(*options):
        done = backtal("localize", trained / "data", "--model", trained / "run", "--out", tmp_path / "p.json", *options)
        assert done.exit_code == 0, done.output
        results = json.loads((tmp_path / "p.json").read_text())["results"]
        return {video: max(found, key=lambda s: s["score"])["score"] for video, found in results.items()}

    exact, half = scores(), scores("--bf16")
    assert half != exact
    assert half == pytest.approx(exact, rel=0.05)


def test_resume_and_guard(trained, tmp_path):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    other = backtal("train", trained / "data", "--out", run, *SETTINGS, "--seed", "7")
    assert other.exit_code == 2
    assert "pass --resume" in other.stderr
    before = (run / "model.safetensors").read_bytes()
    for again in ([], ["--resume"]):  # the same command again has nothing to do
        assert backtal("train", trained / "data", "--out", run, *SETTINGS, *again).exit_code == 0
        assert (run / "model.safetensors").read_bytes() == before


def test_video_labels_only(trained, tmp_path):
    done = backtal("train", trained / "data", "--out", tmp_path / "run", "--video-labels-only", *SETTINGS)
    assert done.exit_code == 0, done.output
    both = backtal("train", trained / "data", "--out", tmp_path / "x", "--video-labels-only", "--clicks", "A1.txt")
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr


def every_command(group=main, names=()):
    yield names, group
    for name, command in getattr(group, "commands", {}).items():
        yield from every_command(command, (*names, name))


@pytest.mark.parametrize("names", [names for names, _ in every_command()], ids=" ".join)
def test_help(names):
    """Every example stands on a line of its own, and a list of commands says of each in full what it does."""
    done = backtal(*names, "--help")
    assert done.exit_code == 0
    assert "\\b" not in done.stdout
    if "Examples:" in done.stdout:
        examples = done.stdout.split("Examples:\n")[1].split("\n\n")[0].splitlines()
        assert all(f"{line} ".startswith(f"    {' '.join(('backtal', *names))} ") for line in examples)
    if "Commands:" in done.stdout:
        assert "..." not in done.stdout.split("Commands:")[1]
    assert backtal("--version").exit_code == 0


def annotations(change):
    def apply(root):
        content = json.loads((root / "annotations.json").read_text())
        change(content)
        (root / "annotations.json").write_text(json.dumps(content))

    return apply


def features(change, video="v1"):
    def apply(root):
        path = root / "features" / f"{video}.npz"
        np.savez(path, features=change(np.load(path)["features"]))

    return apply


def with_nan(x):
    x[3, 4] = np.nan
    return x


def truncate(root):
    path = root / "features" / "v1.npz"
    path.write_bytes(path.read_bytes()[:200])


def drop_clicks(root):
    path = root / "clicks" / "A1.txt"
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("v2,")))


def add_click(row):
    def apply(root):
        with (root / "clicks" / "A1.txt").open("a", encoding="utf-8") as file:
            file.write(row + "\n")

    return apply


BAD_DATA = {
    "no folder": (shutil.rmtree, "data: no such dataset folder"),
    "no annotations": (lambda r: (r / "annotations.json").unlink(), "annotations.json: cannot be read"),
    "annotations not JSON": (lambda r: (r / "annotations.json").write_text("{"), "annotations.json: not valid JSON"),
    "empty dataset": (annotations(lambda c: c.update(database={})), "annotations.json: no videos"),
    "no training videos": (
        annotations(lambda c: [v.update(subset="test") for v in c["database"].values()]),
        "no video in subset 'training'; the dataset has test",
    ),
    "nothing known of a video": (
        annotations(lambda c: c["database"]["v1"].pop("annotations")),
        "video v1: 'annotations' (empty where no action occurs) or 'labels' are missing; a new video",
    ),
    "unknown label": (
        annotations(lambda c: c["database"]["v1"]["annotations"][0].update(label="fly")),
        "video v1: unknown label 'fly'; known are jump, run",
    ),
    "no duration": (annotations(lambda c: c["database"]["v1"].pop("duration")), "video v1: 'duration' is missing"),
    "negative duration": (
        annotations(lambda c: c["database"]["v1"].update(duration=-1)),
        "duration must be a positive",
    ),
    "negative frame rate": (
        annotations(lambda c: c["database"]["v1"].update(fps=-25)),
        "video v1: fps must be positive and at most 10,000, got -25.0",
    ),
    "immense frame rate": (
        annotations(lambda c: c["database"]["v1"].update(fps=1e300)),
        "video v1: fps must be positive and at most 10,000, got 1e+300",
    ),
    "more frames than time": (
        annotations(lambda c: c["database"]["v1"].update(num_frames=10**12)),
        "video v1: num_frames must be at most 10,000 a second, got 1000000000000",
    ),
    "segment backwards": (
        annotations(lambda c: c["database"]["v1"]["annotations"][0].update(segment=[5, 2])),
        "video v1: segment [5.0, 2.0] of 'run': not an interval",
    ),
    "video with no labels": (
        annotations(lambda c: c["database"]["v1"].update(annotations=[])),
        "training videos without any label: v1",
    ),
    "missing features": (lambda r: (r / "features" / "v1.npz").unlink(), "v1.npz: no such feature file"),
    "truncated features": (truncate, "v1.npz: not a readable .npz file"),
    "NaN features": (features(with_nan), "v1.npz: NaN or infinite values in 1 snippet(s), the first is number 4"),
    "wrong dimension": (features(lambda x: x[:5]), "video v1: features have 5 channels, expected 8"),
    "T = 1": (features(lambda x: x[:, :1]), "video v1: 1 snippet(s), fewer than the"),
    "T shorter than the kernel": (features(lambda x: x[:, :2]), "video v1: 2 snippet(s), fewer than the"),
    "empty video": (features(lambda x: x[:, :0]), "v1.npz: `features` is empty"),
    "no click file": (lambda r: (r / "clicks" / "A1.txt").unlink(), "no click file"),
    "two click files": (
        lambda r: shutil.copy(r / "clicks" / "A1.txt", r / "clicks" / "A2.txt"),
        "holds A1.txt, A2.txt: choose one with --clicks",
    ),
    "video without click": (drop_clicks, "1 training video(s) without any click: v2"),
    "click outside its video": (
        add_click("v1,v1.mp4,2,background_background,99,99,1,1"),
        "video v1: click at 99.0 s, but the video lasts",
    ),
    "click on an unknown video": (
        add_click("w,w.mp4,2,background_background,1,1,1,1"),
        "clicks on video w, which is not in the dataset",
    ),
    "click with an unknown label": (add_click("v1,v1.mp4,7,fly,1,1,1,1"), "unknown label 'fly'"),
    "malformed click": (add_click("v1,v1.mp4,2,background_background,x,1,1,1"), "Start must be a number"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_exit_code_2_and_one_line(folder, tmp_path, case):
    damage, message = BAD_DATA[case]
    damage(folder)
    done = backtal("train", folder, "--out", tmp_path / "run", *SETTINGS)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("backtal train: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "recipe.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "epoch=3"], "unknown setting 'epoch'; did you mean 'epochs'"),
        (["--set", "epochs=0"], "must be at least 1"),
        (["--recipe", "thumos"], "unknown recipe 'thumos'"),
        (["--clicks", "B7.txt"], "B7.txt: no such click file"),
        (["--subset", "train"], "no video in subset 'train'; the dataset has test, training"),
        (["--recipe", "compact", "--set", "kernel_size=99"], "fewer than the 99 that one kernel spans"),
    ],
)
def test_bad_options_are_exit_code_2(trained, tmp_path, options, message):
    done = backtal("train", trained / "data", "--out", tmp_path / "run", *options)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_kernel_that_follows_the_clicks_fits_the_shortest_video(folder, tmp_path):
    arguments = ["train", folder, *train_options("epochs=1", "hidden_dim=8"), "--out"]
    features(lambda x: x[:, :6])(folder)
    done = backtal(*arguments, tmp_path / "labels", "--video-labels-only")
    assert done.exit_code == 2
    assert "video v1: 6 snippet(s), fewer than the 9 that one kernel spans" in done.stderr
    done = backtal(*arguments, tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["kernel_size"] == 5
    features(lambda x: x[:, :4])(folder)
    done = backtal(*arguments, tmp_path / "other")
    assert done.exit_code == 2
    assert "video v1: 4 snippet(s), fewer than the 5 that one kernel spans" in done.stderr


def checkpoint(change):
    def apply(run):
        state = load_file(run / "model.safetensors")
        change(state)
        save_file(state, run / "model.safetensors")

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (checkpoint(lambda s: s.pop("trunk.0.weight")), "missing tensor(s): trunk.0.weight"),
        (checkpoint(lambda s: s.update(extra=s["classifier.weight"].clone())), "unexpected tensor(s): extra"),
        (shutil.rmtree, "no such checkpoint folder"),
    ],
    ids=["missing tensor", "extra tensor", "no folder"],
)
def test_a_bad_checkpoint_is_exit_code_2(trained, tmp_path, damage, message):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    damage(run)
    done = backtal("localize", trained / "data", "--model", run, "--out", tmp_path / "p.json")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((5, 20), "features have 5 channels, expected 8"), ((8, 1), "1 snippet(s)"), ((8, 3), "3 snippet(s)")],
)
def test_features_that_do_not_fit_the_model(trained, tmp_path, shape, message):
    np.savez(tmp_path / "v.npz", features=np.ones(shape), duration=3.0)
    done = backtal("localize", tmp_path / "v.npz", "--model", trained / "run", "--out", tmp_path / "p.json")
    assert done.exit_code == 2
    assert message in done.stderr


def test_evaluate_refuses_what_it_cannot_compare(trained, tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"results": {"elsewhere": []}}')
    done = backtal("evaluate", path, "--data", trained / "data")
    assert done.exit_code == 2
    assert "no prediction is for a video of the ground truth in subset 'test'; predicted: elsewhere" in done.stderr
    for options, message in (
        (["--protocol", "x"], "unknown protocol 'x'"),
        (["--tiou", "3"], "FIRST:LAST:STEP"),
        (["--tiou", "0.5", "--protocol", "thumos14"], "exclude each other"),
        (["--subset", "x"], "no video in subset 'x'"),
    ):
        done = backtal("evaluate", path, "--data", trained / "data", *options)
        assert done.exit_code == 2
        assert message in done.stderr


def test_a_failure_that_is_not_the_inputs_fault_is_exit_code_1(trained, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "predictions.json"
    done = backtal("localize", trained / "data", "--model", trained / "run", "--out", out)
    assert done.exit_code == 1
    assert "Traceback" not in done.stderr


def test_help_keeps_the_lines_of_its_examples():
    for arguments in (["--help"], ["annotate", "--help"], ["extract", "--help"], ["plot", "--help"]):
        shown = backtal(*arguments).stdout
        assert "\\b" not in shown
        assert sum(line.startswith(("  backtal ", "    backtal ")) for line in shown.splitlines()) > 1, arguments
