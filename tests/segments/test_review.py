"""Found segments for BORIS and ELAN: what is written there is what is read back."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import DataError, Localization, Segment
from backtal.data import read_coded
from backtal.files import write_json
from backtal.segments import boris_project, elan_document, write_elan

names = st.text(st.characters(codec="utf-8", categories=["L", "N"], include_characters="-_.,&<>\"'()# "), min_size=1)
labels = st.sampled_from(["jump", "High Jump", 'Ünïcode, "quoted" & <b>\'s', "跳"])


@st.composite
def localizations(draw):
    videos = draw(st.lists(names.filter(lambda name: name.strip(". ") == name), min_size=1, max_size=3, unique=True))
    times = st.tuples(st.integers(0, 50_000), st.integers(1, 9_000), labels, st.floats(0, 1))
    return [
        Localization(
            video, 60.0, tuple(Segment(a / 1000, (a + b) / 1000, label, s) for a, b, label, s in draw(st.lists(times)))
        )
        for video in videos
    ]


def as_rows(segments):
    return sorted((s.start, s.end, s.label) for s in segments)


def written(found):
    return {video.video_id: as_rows(video) for video in found if len(video)}


@given(localizations())
def test_boris_gives_back_what_it_was_given(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("boris") / "review.boris"
    ids = [video.video_id for video in found]
    files = {name: f"films/{name}.mp4" for name in ids}
    write_json(path, boris_project(found, files, dict.fromkeys(ids, 60.0), dict.fromkeys(ids, 25.0)))
    coded = read_coded(path)
    assert {video: as_rows(segments) for video, segments in coded.segments.items()} == written(found)
    assert coded.durations == dict.fromkeys(written(found), 60.0)


@given(localizations())
def test_elan_gives_back_what_it_was_given(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("elan")
    write_elan(folder, found, {video.video_id: f"films/{video.video_id}.mp4" for video in found})
    assert len(list(folder.glob("*.eaf"))) == len(found)
    coded = read_coded(*folder.glob("*.eaf"))
    assert {video: as_rows(segments) for video, segments in coded.segments.items()} == written(found)


OVERLAPPING = Localization("v", 60.0, (Segment(1, 5, "jump", 0.9), Segment(3, 8, "jump", 0.5), Segment(5, 6, "jump")))


def test_segments_that_overlap_are_kept_apart():
    project = boris_project([OVERLAPPING], {"v": "v.mp4"}, {"v": 60.0}, {"v": 25.0}, ["run", "jump"])
    events = [tuple(event[:3]) for event in project["observations"]["v"]["events"]]
    assert events == [
        (1.0, "", "jump"),
        (3.0, "overlapping 2", "jump"),
        (5.0, "", "jump"),
        (5.0, "", "jump"),
        (6.0, "", "jump"),
        (8.0, "overlapping 2", "jump"),
    ]
    assert [entry["name"] for entry in project["subjects_conf"].values()] == ["overlapping 2"]
    assert [entry["code"] for entry in project["behaviors_conf"].values()] == ["run", "jump"]
    root = ElementTree.fromstring(elan_document(OVERLAPPING, "v.mp4"))
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE", -1)) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    for tier in root.iter("TIER"):
        spans = [
            (slots[one.get("TIME_SLOT_REF1")], slots[one.get("TIME_SLOT_REF2")])
            for one in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert [tier.get("TIER_ID") for tier in root.iter("TIER")][::2] == ["jump", "jump (2)"]


def test_scores_can_be_seen_in_both():
    project = boris_project([OVERLAPPING], {"v": "v.mp4"}, {"v": 60.0}, {"v": 25.0})
    comments = [event[4] for event in project["observations"]["v"]["events"]]
    assert sorted(filter(None, comments)) == ["score 0.500", "score 0.900", "score 1.000"]
    root = ElementTree.fromstring(elan_document(OVERLAPPING, "v.mp4"))
    values = {one.get("ANNOTATION_REF"): one.findtext("ANNOTATION_VALUE", "") for one in root.iter("REF_ANNOTATION")}
    assert sorted(values.values()) == ["0.500", "0.900", "1.000"]
    assert values.keys() == {one.get("ANNOTATION_ID") for one in root.iter("ALIGNABLE_ANNOTATION")}


def test_where_elan_finds_the_video():
    for file, url, relative in (
        ("films/v.mov", "file:///films/v.mov", "./films/v.mov"),
        ("/films/v.mp4", "file:///films/v.mp4", None),
        ("https://x.org/v.webm", "https://x.org/v.webm", None),
    ):
        media = next(ElementTree.fromstring(elan_document(OVERLAPPING, file)).iter("MEDIA_DESCRIPTOR"))
        assert (media.get("MEDIA_URL"), media.get("RELATIVE_MEDIA_URL")) == (url, relative)
        assert media.get("MIME_TYPE", "").startswith("video/")


def test_what_boris_needs_and_what_would_be_lost_is_refused(tmp_path):
    files, seconds, rates = {"v": "v.mp4"}, {"v": 60.0}, {"v": 25.0}
    with pytest.raises(DataError, match="video v: its file is not known"):
        boris_project([OVERLAPPING], {}, seconds, rates)
    with pytest.raises(DataError, match="video v: its duration is not known"):
        boris_project([OVERLAPPING], files, {}, rates)
    with pytest.raises(DataError, match="video v: its frame rate is not known"):
        boris_project([OVERLAPPING], files, seconds, {})
    with pytest.raises(DataError, match="two results of video v"):
        boris_project([OVERLAPPING, OVERLAPPING], files, seconds, rates)
    (tmp_path / "v.eaf").write_text("two hours of work")
    with pytest.raises(DataError, match=r"v.eaf: already there, and may have been edited"):
        write_elan(tmp_path, [Localization("a", 9.0, ()), OVERLAPPING], {"a": "a.mp4", "v": "v.mp4"})
    assert [path.name for path in tmp_path.iterdir()] == ["v.eaf"]
    with pytest.raises(DataError, match=r"video '\.\./a' is no name for a file"):
        write_elan(tmp_path, [Localization("../a", 9.0, ())], {"../a": "a.mp4"})
