"""`backtal clicks` as a user meets it."""

import json

import pytest
from click.testing import CliRunner
from conftest import LABELS, shared

from backtal import Click, ClickTrack, DataError, read_clicks, write_clicks
from backtal.cli import clicks as commands
from backtal.cli import main
from backtal.clicks.files import FORMS
from backtal.data.annotations import read_annotations, read_dialect, write_annotations
from backtal.data.check import check_dataset
from backtal.data.datasets import DatasetFolder


def backtal(*arguments, code=0):
    done = CliRunner().invoke(main, ["clicks", *map(str, arguments)])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


def test_the_command_offers_every_form():
    assert [name for name, form in FORMS.items() if form.write] == list(commands.FORMS)


@pytest.mark.parametrize("form", commands.FORMS)
def test_convert_there_and_back(folder, tmp_path, form):
    source, there, back = folder / "clicks" / "A1.txt", tmp_path / "there", tmp_path / "back.txt"
    before = source.read_bytes()
    done = backtal("convert", source, there, "--to", form, "--data", folder)
    assert done.stdout == ""
    assert "background)" in done.stderr
    backtal("convert", there, back, "--to", "backtal", "--data", folder)
    assert read_clicks(back) == read_clicks(source)  # 20 frames a second hold the half seconds
    assert source.read_bytes() == before


@pytest.mark.parametrize("form", commands.FORMS)
def test_training_reads_every_form(folder, form):
    dataset = DatasetFolder(folder)
    tracks = dataset.clicks(dataset.click_files())
    rates = dataset.annotations.frame_rates
    write_clicks(folder / "clicks" / "other", tracks.values(), LABELS, form=form, frame_rates=rates)
    assert dataset.clicks([folder / "clicks" / "other"]) == tracks


def test_convert_puts_files_together_and_takes_names(tmp_path):
    (tmp_path / "a").write_text("v,1.0,nichts\n")
    (tmp_path / "b").write_text("class,video_id,point\njump,v,50\n")
    out = tmp_path / "out.txt"
    arguments = ["convert", tmp_path / "a", tmp_path / "b", out, "--to", "backtal", "--fps", 25]
    backtal(*arguments, "--background", "Nichts")
    assert read_clicks(out)["v"].clicks == (Click(1.0), Click(2.0, "jump"))
    assert out.read_text(encoding="utf-8-sig").splitlines()[1].split(",")[2] == "1"  # C, as there is one label
    (tmp_path / "labels.txt").write_text("run\njump\n")
    backtal(*arguments, "--background", "Nichts", "--labels", tmp_path / "labels.txt")
    assert [row.split(",")[2] for row in out.read_text().splitlines()[1:]] == ["2", "1"]
    done = backtal(*arguments, "--labels", tmp_path / "labels.txt", code=2)
    said, failure = done.stderr.splitlines()
    assert said == f"{tmp_path / 'b'}: frames counted at 25 a second, as given"
    assert failure == "backtal clicks convert: video v: click with unknown label 'nichts'"
    done = backtal(*arguments[:4], "--to", "cvat", code=2)
    assert "line 2: the frame rate of video v is not known" in done.stderr
    assert "--fps" in done.stderr


def test_simulate(folder, tmp_path):
    out = tmp_path / "s.txt"
    done = backtal("simulate", folder, "--out", out, "--seed", 3)
    assert "simulated clicks in 6 videos" in done.stderr
    tracks = read_clicks(out)
    assert tracks.keys() == {f"v{i}" for i in range(6)}
    report = check_dataset(DatasetFolder(folder), [out], features=False)
    assert report.findings == ()
    first = out.read_bytes()
    backtal("simulate", folder, "--out", out, "--seed", 3)
    assert out.read_bytes() == first
    backtal("simulate", folder, "--out", out, "--seed", 4)
    assert out.read_bytes() != first
    backtal("simulate", folder, "--out", out, "--kind", "both", "--subset", "test")
    labels = {click.label for track in read_clicks(out).values() for click in track.clicks}
    assert labels == {*LABELS, "background"}
    backtal("simulate", folder, "--out", out, "--wrong", 1)
    videos = read_annotations(folder / "annotations.json").videos
    for name, track in read_clicks(out).items():
        (action,) = videos[name].ground_truth
        assert all(action.start <= time < action.end for time in track.times())
    for option in (["--missed", "1.5"], ["--wrong", "-1"], ["--frame-rate", "0"], ["--subset", "nowhere"]):
        backtal("simulate", folder, "--out", out, *option, code=2)


def test_simulate_like_human(folder, tmp_path):
    out = tmp_path / "s.txt"
    backtal("simulate", folder, "--out", out, "--like", "human", "--seed", 1)
    first = out.read_bytes()
    assert read_clicks(out).keys() <= {f"v{i}" for i in range(6)}
    backtal("simulate", folder, "--out", out, "--like", "human", "--seed", 1)
    assert out.read_bytes() == first
    for option in (["--missed", "0.1"], ["--wrong", "0.1"], ["--shortest-gap", "1"], ["--kind", "action"]):
        done = backtal("simulate", folder, "--out", out, "--like", "human", *option, code=2)
        assert "--like human has its own rates" in done.stderr


def test_simulate_needs_start_and_end(folder, tmp_path):
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    entry = content["database"]["v0"]
    entry |= {"labels": [LABELS[0]], "annotations": []}
    path.write_text(json.dumps(content))
    done = backtal("simulate", folder, "--out", tmp_path / "s.txt", code=2)
    assert "1 video(s) without start and end of actions: v0" in done.stderr
    assert not (tmp_path / "s.txt").exists()


def test_a_video_that_nobody_has_labelled_is_not_one_without_actions(folder, tmp_path):
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    unlabelled = {"subset": "unlabelled", "duration": 60.0, "labels": []}
    content["database"] |= {"new": unlabelled, "empty": {"subset": "test", "duration": 60.0, "annotations": []}}
    path.write_text(json.dumps(content))
    annotations = read_annotations(path)
    assert [annotations.videos[name].located for name in ("new", "empty", "v0")] == [False, True, True]
    write_annotations(path, annotations)
    assert read_annotations(path) == annotations
    assert json.loads(path.read_text())["database"]["new"] == unlabelled
    for video, located in (("new", False), ("empty", True)):
        write_clicks(folder / "clicks" / "me.txt", [ClickTrack(video, (Click(5.0), Click(9.0)))], LABELS)
        stats = backtal("stats", folder, "me.txt").stdout
        assert (" ".join(stats.split()).count("start and end of actions 1"), "distance" in stats) == (located, located)
        checked = check_dataset(DatasetFolder(folder), ["me.txt"], features=False)
        assert ("lie inside an action" in str(checked)) == located
    done = backtal("simulate", folder, "--out", tmp_path / "s.txt", "--subset", "unlabelled", code=2)
    assert "1 video(s) without start and end of actions: new" in done.stderr
    backtal("simulate", folder, "--out", tmp_path / "s.txt", "--subset", "test")


def test_the_dialects_of_others_know_videos_that_nobody_has_labelled_too(tmp_path):
    path = tmp_path / "anet.json"
    entry = {"subset": "testing", "duration": 9.0}
    jump = {"label": "jump", "segment": [1, 2]}
    database = {"a": entry, "b": entry | {"annotations": []}, "c": entry | {"annotations": [jump]}}
    path.write_text(json.dumps({"database": database}))
    videos = read_dialect(path, None).videos
    assert [videos[name].located for name in "abc"] == [False, True, True]


def test_check_looks_at_clicks_alone(folder):
    for path in folder.glob("features/*"):
        path.unlink()
    assert "0 error(s), 0 warning(s)" in backtal("check", folder).stdout
    write_clicks(
        folder / "clicks" / "A2.txt", [ClickTrack("v0", (Click(99.0),)), ClickTrack("w", (Click(1.0),))], LABELS
    )
    done = backtal("check", folder, code=2)
    assert "A2.txt: 1 click(s) after the end of the video: v0 at 99 s" in done.stdout
    assert "clicks on 1 video(s) that are not in the dataset: w" in done.stdout
    report = json.loads(backtal("check", folder, "A1.txt", "--json").stdout)
    assert [count["file"] for count in report["clicks"]] == ["A1.txt"]
    assert "no such click file" in backtal("check", folder, "A3.txt", code=2).stderr


def test_click_files_of_other_endings_are_named_and_can_be_chosen(folder):
    (folder / "clicks" / "A1.txt").rename(folder / "clicks" / "me.csv")
    (folder / "clicks" / ".hidden.csv").touch()
    dataset = DatasetFolder(folder)
    with pytest.raises(DataError, match=r"no click file with the ending .txt; it holds me.csv, to be named"):
        dataset.click_files()
    assert dataset.click_files(["me.csv"]) == [folder / "clicks" / "me.csv"]
    backtal("check", folder, "me.csv")


def test_stats(folder, tmp_path):
    pytest.importorskip("matplotlib")
    write_clicks(folder / "clicks" / "A2.txt", [ClickTrack("v0", (Click(0.5),))], LABELS)
    done = backtal("stats", folder, "--figure", tmp_path / "p.svg")
    assert done.stdout.splitlines()[0].split() == ["A1", "A2"]
    assert "A1 and A2: of 2 background stretches" in done.stdout
    assert "<svg" in (tmp_path / "p.svg").read_text()
    values = json.loads(backtal("stats", folder, "A2.txt", "--json").stdout)
    assert list(values["annotators"]) == ["A2"]
    assert values["annotators"]["A2"]["clicks"] == 1
    done = backtal("stats", folder / "clicks" / "A1.txt")
    assert "background clicks" in done.stdout
    assert "stretch" not in done.stdout
    refused = backtal("stats", folder / "clicks" / "A1.txt", "--figure", tmp_path / "q.png", code=2)
    assert "needs clicks and annotated actions" in refused.stderr
    assert "no such dataset folder" not in refused.stderr
    assert "cannot be read" in backtal("stats", folder / "gone.txt", code=2).stderr


def test_stats_where_nothing_can_be_compared(folder, tmp_path):
    write_clicks(tmp_path / "other.txt", [ClickTrack("elsewhere", (Click(1.0),))], LABELS)
    done = backtal("stats", folder, "A1.txt", tmp_path / "other.txt")
    rows = {line[:36].strip(): line[36:].split() for line in done.stdout.splitlines()}
    assert rows["videos"] == ["6", "1"]
    assert len(rows["background stretches"]) == 1
    (folder / "clicks" / "A1.txt").unlink()
    assert "no click file in its folder clicks; name one" in backtal("stats", folder, code=2).stderr
    assert "no click file" not in backtal("check", folder).stderr


def test_stats_of_files_of_one_name(folder, tmp_path):
    other = tmp_path / "A1.txt"
    other.write_bytes((folder / "clicks" / "A1.txt").read_bytes())
    values = json.loads(backtal("stats", folder, folder / "clicks" / "A1.txt", other, "--json").stdout)
    assert list(values["annotators"]) == [str(folder / "clicks" / "A1.txt"), str(other)]
    assert values["agreements"][0]["kappa"] == 1.0


def test_stats_of_thumos14():
    data = shared("data", "thumos14", "annotations.json").parent
    text = backtal("stats", data).stdout
    for row in (
        ("background clicks inside actions", "175 (7.7 %)", "52 (2.2 %)", "175 (7.5 %)"),
        ("pairs of clicks with one action run", "1346 (65.2 %)", "1789 (84.2 %)", "1698 (79.2 %)"),
        ("p-value", "0.030", "0.431", "0.475"),
    ):
        assert any(" ".join(line.split()) == " ".join(row) for line in text.splitlines()), row
