"""Found segments go to BORIS and ELAN, are corrected there, and come back as ground truth."""

import json

import pytest
from click.testing import CliRunner
from conftest import LABELS

from backtal import Localization, Segment, write_predictions
from backtal.cli import main
from backtal.data import read_annotations


def backtal(*arguments, code=0):
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def found(tmp_path):
    videos = [
        Localization(f"v{i}", 9.0, (Segment(1, 2.5, LABELS[i], 0.9), Segment(3, 4, LABELS[0], 0.1))) for i in (0, 1)
    ]
    write_predictions(tmp_path / "found.json", videos)
    return tmp_path / "found.json"


def truth(folder):
    videos = read_annotations(folder / "annotations.json").videos
    return {name: [(s.start, s.end, s.label) for s in videos[name].ground_truth] for name in ("v0", "v1")}


@pytest.mark.parametrize("form", ["boris", "elan"])
def test_there_and_back(folder, found, tmp_path, form):
    out = tmp_path / ("review.boris" if form == "boris" else "review")
    place = "films/{video}.mp4"
    backtal("predictions", found, "--to", form, "--data", folder, "--least-score", 0.5, "--url", place, "--out", out)
    again = backtal("predictions", found, "--to", form, "--data", folder, "--out", out, code=2)
    assert "already there, and may have been edited" in again.stderr
    sources = [out] if form == "boris" else sorted(out.glob("*.eaf"))
    assert all("films/v0.mp4" in source.read_text() for source in sources[:1])
    done = backtal("dataset", "import", *sources, folder)
    assert truth(folder) == {"v0": [(1, 2.5, LABELS[0])], "v1": [(1, 2.5, LABELS[1])]}
    assert done.stdout == ""
    assert "replaced the annotations of 2 video(s): v0, v1" in done.stderr
    assert "annotations.json: 2 segments in 2 videos" in done.stderr


@pytest.mark.parametrize("form", ["boris", "elan", "label-studio"])
def test_names_with_folders_come_back(folder, tmp_path, form):
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    names = {"v0": "cam 1/day", "v1": "cam 2/day"}
    content["database"] = {names.get(name, name): entry for name, entry in content["database"].items()}
    path.write_text(json.dumps(content))
    segments = {name: (Segment(1, 2.5, label),) for name, label in zip(names.values(), LABELS, strict=True)}
    write_predictions(tmp_path / "found.json", [Localization(n, 9.0, listed) for n, listed in segments.items()])
    out = tmp_path / {"boris": "r.boris", "elan": "review", "label-studio": "tasks.json"}[form]
    backtal("predictions", tmp_path / "found.json", "--to", form, "--data", folder, "--out", out)
    if form == "label-studio":  # somebody submits what was proposed, and the export forgets our field
        tasks = json.loads(out.read_text())
        for task in tasks:
            del task["data"]["video_id"]
            task["annotations"] = task.pop("predictions")
        out.write_text(json.dumps(tasks))
    backtal("dataset", "import", out, folder)
    videos = read_annotations(path).videos
    assert set(videos) == set(content["database"])
    for name, listed in segments.items():
        (segment,) = videos[name].ground_truth
        assert (segment.start, segment.end, segment.label) == pytest.approx((1, 2.5, listed[0].label), abs=0.06)


def test_a_folder_without_a_document_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    done = backtal("dataset", "import", tmp_path / "empty", folder, code=2)
    assert "empty: a folder without a document of ELAN (.eaf)" in done.stderr


def test_what_is_left_out_as_weaker_is_counted(found, tmp_path):
    done = backtal("predictions", found, "--to", "csv", "--least-score", 0.5, "--out", tmp_path / "x.csv")
    assert "2 segments in 2 videos; 2 weaker ones are left out" in done.stderr


def test_what_boris_needs_is_asked_for(folder, found, tmp_path):
    done = backtal("predictions", found, "--to", "boris", "--out", tmp_path / "r.boris", code=2)
    assert "--to boris needs --data" in done.stderr
    assert not (tmp_path / "r.boris").exists()


def test_a_new_dataset_takes_its_durations_from_the_videos(tmp_path):
    pytest.importorskip("av")
    from video_files import moving_bar, times_at, write_video

    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "day1.mp4", times_at(25, 2), moving_bar)
    (tmp_path / "coded.csv").write_text("video,start,end,label\nday1.mp4,0.5,1.5,jump\n")
    data = tmp_path / "data"
    done = backtal("dataset", "import", tmp_path / "coded.csv", data, "--subset", "test", code=2)
    assert "the duration of 1 video(s) is not known: day1" in done.stderr
    backtal("dataset", "import", tmp_path / "coded.csv", data, "--subset", "test", "--videos", tmp_path / "films")
    entry = json.loads((data / "annotations.json").read_text())["database"]["day1"]
    assert entry["duration"] == pytest.approx(2, abs=0.1)
    assert entry["annotations"] == [{"label": "jump", "segment": [0.5, 1.5]}]


def test_each_note_is_written_once(tmp_path):
    (tmp_path / "p.csv").write_text("class,video_id,point\njump,v,50\n")
    done = backtal("clicks", "convert", tmp_path / "p.csv", tmp_path / "o.txt", "--to", "sfnet", "--fps", 25)
    assert done.stderr.count("frames counted at 25 a second, as given") == 1
