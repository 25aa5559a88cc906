"""Names are the user's: hostile but legal ones go through every command, file and page, and come back as they were."""

import csv
import json
import unicodedata

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY, make_folder, train_options
from hypothesis import assume, given
from hypothesis import strategies as st

from backtal import Click, ClickTrack, DataError, Localization, Segment, read_clicks, write_clicks
from backtal.cli import main
from backtal.data import DatasetFolder, VideoFeatures, read_annotations, write_annotations, write_features
from backtal.data.annotations import Annotations, Video, parse_annotations
from backtal.data.features import TimeAxis
from backtal.files import composed, name_fault, spelling
from backtal.segments.segments import read_predictions, write_predictions

NAMES = [
    *("Abuse/clip 1", "a,b;c\"d'e", "50% $x$ #1?&", "跳" * 83, unicodedata.normalize("NFD", "café"), " <b>x</b> "),
    *("-dash.v2.mp4", "日本/می‌خواهم"),
]
LABELS = ["$\\alpha$ % <b>|x", 'öffnen, "schnell"']
SETTINGS = train_options(*TINY)


def backtal(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    return done


def rename(root, names, labels):
    """Call the videos and labels of `make_folder` otherwise."""
    content = json.loads((root / "annotations.json").read_text())
    old = dict(zip(content["database"], names, strict=True))
    label_of = dict(zip(content["labels"], labels, strict=True))
    for entry in content["database"].values():
        for item in entry["annotations"]:
            item["label"] = label_of[item["label"]]
    database = {old[name]: entry for name, entry in content["database"].items()}
    (root / "annotations.json").write_text(json.dumps({"labels": labels, "database": database}))
    tracks = read_clicks(root / "clicks" / "A1.txt").items()
    write_clicks(root / "clicks" / "A1.txt", [ClickTrack(old[name], track.clicks) for name, track in tracks], labels)
    for name, other in old.items():
        target = root / "features" / f"{other}.npz"
        target.parent.mkdir(exist_ok=True)
        (root / "features" / f"{name}.npz").rename(target)
    return root


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A dataset with such names, and a run."""
    base = tmp_path_factory.mktemp("names")
    rename(make_folder(base / "data"), NAMES, LABELS)
    done = backtal("train", base / "data", "--out", base / "run", *SETTINGS)
    assert done.exit_code == 0, done.output
    return base


def test_hostile_names_go_through_every_command_and_come_back(named, tmp_path):
    data, run, found = named / "data", named / "run", tmp_path / "found.json"
    checked = backtal("dataset", "check", data)
    assert checked.exit_code == 0, checked.output
    assert "0 error(s), 0 warning(s)" in checked.stdout
    done = backtal("localize", data, "--model", run, "--out", found, "--set", "min_score=0")
    assert done.exit_code == 0, done.output
    results = json.loads(found.read_text())["results"]
    assert list(results) == NAMES[6:]
    assert {item["label"] for items in results.values() for item in items} == set(LABELS)
    measured = backtal("evaluate", found, "--data", data)
    assert (measured.exit_code, measured.stderr) == (0, "")
    assert f"\n{LABELS[0]}" in measured.stdout
    assert backtal("diagnose", found, "--data", data, "--model", run).exit_code == 0
    assert backtal("predictions", found, "--to", "csv", "--out", tmp_path / "found.csv").exit_code == 0
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        assert {row["video"] for row in csv.DictReader(file)} == set(NAMES[6:])
    by_file = backtal("localize", data / "features", "--model", run, "--out", tmp_path / "all.json")
    assert by_file.exit_code == 2, by_file.output  # these files do not say how long their videos are
    assert by_file.stderr.count("no duration known") == len(NAMES)
    copy = tmp_path / "copy.txt"
    assert (
        backtal("clicks", "convert", data / "clicks" / "A1.txt", copy, "--to", "backtal", "--data", data).exit_code == 0
    )
    assert read_clicks(copy) == read_clicks(data / "clicks" / "A1.txt")


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")  # which scripts the fonts of a machine have
def test_hostile_names_in_pictures_and_on_the_page(named, tmp_path):
    pytest.importorskip("matplotlib")
    data, run, page = named / "data", named / "run", tmp_path / "report.html"
    clips = tmp_path / "clips"
    (clips / "日本").mkdir(parents=True)
    (clips / f"{NAMES[7]}.mp4").write_bytes(b"")
    done = backtal("report", run, "--data", data, "--videos", clips, "--out", page)
    assert done.exit_code == 0, done.output
    text = page.read_text(encoding="utf-8")
    assert "clips/%E6%97%A5%E6%9C%AC/" in text
    assert "$\\alpha$ % &lt;b&gt;|x" in text
    for name in (NAMES[0], NAMES[4], unicodedata.normalize("NFC", NAMES[4])):
        drawn = ["plot", "timeline", data, "--model", run, "--video", name, "--out", tmp_path / "video.png"]
        assert backtal(*drawn, "--clicks", "A1.txt").exit_code == 0


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_either_form_of_unicode_is_the_same_name_in_every_file(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    mine, theirs = ([unicodedata.normalize(f, f"é/café{i}") for i in range(8)] for f in (form, other))
    labels = [unicodedata.normalize(form, label) for label in ("öffnen", "schließen")]
    data = rename(make_folder(tmp_path / "data"), mine, labels)
    (data / "features" / unicodedata.normalize(form, "é")).rename(data / "features" / unicodedata.normalize(other, "é"))
    for path in sorted((data / "features").rglob("*.npz")):
        path.rename(path.with_name(unicodedata.normalize(other, path.stem) + ".NPZ"))
    clicks = data / "clicks" / "A1.txt"
    clicks.write_text(unicodedata.normalize(other, clicks.read_text(encoding="utf-8")), encoding="utf-8")
    assert backtal("dataset", "check", data).exit_code == 0
    assert backtal("train", data, "--out", tmp_path / "run", *SETTINGS).exit_code == 0
    found = tmp_path / "found.json"
    assert backtal("localize", data, "--model", tmp_path / "run", "--out", found).exit_code == 0
    assert list(json.loads(found.read_text())["results"]) == mine[6:]
    before = backtal("evaluate", found, "--data", data)
    results = json.loads(found.read_text())["results"].values()
    found.write_text(json.dumps({"results": dict(zip(theirs[6:], results, strict=True))}))
    assert backtal("evaluate", found, "--data", data).stdout == before.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../clip", "leads out"),
        ("/clip", "leads out"),
        ("..\\clip", "leads out"),
        ("a//b", "no path of a file"),
        ("a/", "no path of a file"),
        ("./a", "no path of a file"),
        ("", "empty"),
        ("a\nb", "line breaks"),
        ("a\0b", "line breaks"),
        ("a\u2028b", "line breaks"),
        ("\ud800", "line breaks"),
        ("跳" * 84, "has 252 bytes"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_by_the_first_command(tmp_path, name, reason):
    entry = {"subset": "test", "duration": 9, "annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps({"labels": ["a"], "database": {name: entry}}))
    for command in (["dataset", "check"], ["train", "--out", tmp_path / "run"], ["clicks", "check"]):
        done = backtal(*command, tmp_path)
        assert done.exit_code == 2
        assert f"no video can be called {name!r}: it {'is' if reason == 'empty' else ''}" in done.stderr
        assert reason in done.stderr


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["Background"], "no label can be called 'Background', which means background in click files"),
        (["background_background"], "which means background in click files"),
        (["a\nb"], "label 'a\\nb' has line breaks"),
        (
            ["caf\u00e9", "cafe\u0301"],
            "labels 'caf\\xe9' and 'cafe\\u0301' differ in nothing but their form of Unicode",
        ),
        (["a", "a"], "must be different from each other"),
    ],
)
def test_labels_that_files_cannot_tell_apart_are_refused(labels, reason):
    entry = {"subset": "test", "duration": 9, "annotations": []}
    with pytest.raises(DataError) as failure:
        parse_annotations({"labels": labels, "database": {"v": entry}}, "a.json")
    assert reason in str(failure.value)


def test_two_videos_of_one_name_are_refused(tmp_path):
    entry = {"subset": "test", "duration": 9, "annotations": []}
    with pytest.raises(DataError, match=r"videos 'caf\\xe9' and 'cafe\\u0301' differ in nothing but their form"):
        parse_annotations({"database": {"caf\u00e9": entry, "cafe\u0301": entry}}, "a.json")
    content = {"labels": ["a"], "database": {"caf\u00e9": {**entry, "labels": ["a"]}}}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    folder = DatasetFolder(tmp_path)
    for name in ("cafe\u0301.npz", "cafe\u0301.NPZ"):
        (tmp_path / "features").mkdir(exist_ok=True)
        np.savez(tmp_path / "features" / "x.npz", features=np.ones((2, 3)))
        (tmp_path / "features" / "x.npz").rename(tmp_path / "features" / name)
    with pytest.raises(DataError, match="features of one video; delete one"):
        folder.features(folder.annotations.video("caf\u00e9"))


CHARACTERS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
TEXTS = st.text(CHARACTERS, min_size=1, max_size=40)


@given(st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=4), st.lists(TEXTS, min_size=1, max_size=3))
def test_any_legal_names_come_back_from_every_file(tmp_path_factory, parts, labels):
    names = list({composed(f"{a}/{a}" if nested else a): f"{a}/{a}" if nested else a for a, nested in parts}.values())
    labels = list({composed(label): label for label in labels}.values())
    assume(not any(map(name_fault, names)) and len({n.casefold() for n in names}) == len(names))
    assume(not any(label.casefold() in ("background", "background_background") for label in labels))
    root = tmp_path_factory.mktemp("any")
    segments = tuple(Segment(1, 2, label, 0.5) for label in labels)
    videos = {name: Video(name, "test", 9.0, None, Localization(name, 9.0, segments)) for name in names}
    write_annotations(root / "annotations.json", Annotations(tuple(labels), videos))
    for index, name in enumerate(names):
        features = VideoFeatures(name, np_tensor(index), TimeAxis.even(3, 9.0))
        write_features(root / "features" / f"{name}.npz", features)
    tracks = [ClickTrack(name, tuple(Click(3.0, label) for label in [*labels, "background"])) for name in names]
    write_clicks(root / "clicks" / "me.txt", tracks, labels)
    write_predictions(root / "found.json", [video.ground_truth for video in videos.values()])
    folder = DatasetFolder(root)
    assert (list(folder.annotations.videos), list(folder.labels)) == (names, labels)
    assert read_annotations(root / "annotations.json") == folder.annotations
    assert folder.feature_names() == set(names)
    for index, name in enumerate(names):
        found = folder.features(folder.annotations.video(name))
        assert (found.video_id, float(found.features[0, 0])) == (name, index)
    assert folder.clicks(folder.click_files()) == {track.video_id: track for track in tracks}
    assert [(v.video_id, v.segments) for v in read_predictions(root / "found.json")] == [(n, segments) for n in names]


def np_tensor(value):
    import torch

    return torch.full((2, 3), float(value))


def test_a_name_keeps_its_form_unless_the_dataset_has_it_otherwise():
    spell = spelling(["cafe\u0301", "caf\u00e8"])
    assert [spell(name) for name in ("caf\u00e9", "cafe\u0301", "caf\u00e8", "x\u0301")] == [
        *("cafe\u0301", "cafe\u0301", "caf\u00e8", "x\u0301")
    ]
