"""BORIS and ELAN: what they write is read as they mean it, and what cannot be told is refused or said."""

import csv
import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_click_files import changed, nodes, wrong_values

from backtal import DataError, read_clicks
from backtal.clicks.files import parse_marks
from backtal.clicks.forms.form import Reading


def marks(text, where="file", reading=None):
    text = text if isinstance(text, str) else json.dumps(text)
    found = parse_marks(text, where, reading or Reading())
    return [(mark.video, mark.start, mark.end, mark.label) for mark in found]


def observation(files, events, lengths=None, **more):
    """An observation as BORIS 8 stores it; `lengths` in seconds."""
    lengths = dict(zip(files, lengths or [60.0] * len(files), strict=True))
    players = {"1": files, **{str(i): [] for i in range(2, 9)}}
    told = {"file": players, "type": "MEDIA", "time offset": 0.0, "media_info": {"length": lengths}}
    return told | {"events": events} | more


def project(**observations):
    types = {"jump": "State event", "run": "State event with coding map", "cough": "Point event"}
    types["background"] = "Point event"
    ethogram = {str(i): {"type": kind, "code": code} for i, (code, kind) in enumerate(types.items())}
    return {"project_name": "x", "behaviors_conf": ethogram, "subjects_conf": {}, "observations": observations}


def event(time, code, subject="", modifier=""):
    return [time, subject, code, modifier, "", int(time * 25)]


def test_a_state_ends_with_the_next_event_of_its_behaviour_subject_and_modifiers(caplog):
    events = [
        event(1.0, "jump"),
        event(2.0, "jump", "mouse"),
        event(2.5, "cough"),
        event(3.0, "jump"),
        event(4.0, "run", modifier="fast"),
        event(5.0, "run", modifier="None"),
        event(6.0, "jump", "mouse"),
        event(7.0, "run", modifier="fast"),
        event(8.0, "run", modifier="None"),
        event(9.0, "jump"),
    ]
    found = marks(project(one=observation(["/films/day 1.mp4"], events)))
    assert sorted(found) == [
        ("day 1", 1.0, 3.0, "jump"),
        ("day 1", 2.0, 6.0, "jump"),
        ("day 1", 2.5, 2.5, "cough"),
        ("day 1", 4.0, 7.0, "run"),
        ("day 1", 5.0, 8.0, "run"),
    ]
    assert "file: left out: 1 state event(s) without their stop" in caplog.text
    assert "file: left out: 2 modifier(s), as labels are behaviours" in caplog.text


def test_times_run_on_over_queued_files_and_count_from_the_time_offset():
    events = [event(t, "jump") for t in (105.0, 109.0, 115.0, 117.5, 109.5, 131.0)]
    events[4:] = [event(109.5, "run"), event(131.0, "run"), event(112.0, "cough")]
    reading = Reading()
    queued = observation(["C:\\films\\a.mp4", "b.mp4", "c.mp4"], events, [10.0, 20.0, 5.0], **{"time offset": 100.0})
    assert sorted(marks(project(one=queued), reading=reading)) == [
        ("a", 5.0, 9.0, "jump"),
        ("a", 9.5, 10.0, "run"),
        ("b", 0.0, 20.0, "run"),
        ("b", 2.0, 2.0, "cough"),
        ("b", 5.0, 7.5, "jump"),
        ("c", 0.0, 1.0, "run"),
    ]
    assert reading.durations == {"a": 10.0, "b": 20.0, "c": 5.0}


def test_what_is_not_of_a_video_is_left_out_and_said(caplog):
    live = {"type": "LIVE", "file": [], "events": [[1.0, "", "jump", "", ""]] * 3}
    pictures = {"type": "IMAGES", "events": [[None, "", "jump", "", "", 1, "a.jpg"]]}
    seen = observation(["v.mp4"], [event(1.0, "background")])
    assert marks(project(one=live, two=pictures, three=seen)) == [("v", 1.0, 1.0, "background")]
    assert "left out: 4 event(s) of observations that are not of videos" in caplog.text


def test_several_observations_of_a_video_are_rounds(tmp_path):
    path = tmp_path / "p.boris"
    path.write_text(json.dumps(project(**{n: observation(["v.mp4"], [event(1.0, "background")]) for n in "ab"})))
    assert [(c.time, c.round) for c in read_clicks(path)["v"].clicks] == [(1.0, 1), (1.0, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": [[True, "", "jump", "", ""]]}, r"observation 'one', event 0: needs a time in seconds"),
        ({"events": [["1.0", "", "jump", "", ""]]}, r"event 0: needs a time in seconds"),
        ({"events": [[1.0, ""]]}, r"event 0: needs a time in seconds, a subject and a behaviour"),
        ({"events": [[1.0, "", 7]]}, r"event 0: its behaviour must be a text, found int"),
        ({"events": [[1.0, "", ""]]}, r"event 0: no behaviour"),
        ({"events": {}}, r"'events' must be a list, found dict"),
        ({"events": [event(5.0, "jump"), event(4.0, "jump")]}, r"event 1: stops at 4 s what started at 5 s"),
        ({"file": []}, r"'file' must be an object, found list"),
        ({"file": {"1": []}}, r"observation 'one': no media file"),
        ({"time offset": "x"}, r"'time offset' must be a number, found 'x'"),
        ({"time offset": 100.0}, r"cough at 1 to 1 s, but the time offset is 100 s, and its media last 60 s"),
        ({"events": [event(1.7e9, "cough")]}, r"its media last 60 s: does it count from the date of the files"),
        (
            {"file": {"1": ["a.mp4", "b.mp4"]}},
            r"run on over 2 media files, whose lengths the file does not say",
        ),
    ],
)
def test_a_damaged_project_is_named(change, message):
    damaged = project(one=observation(["v.mp4"], [event(1.0, "cough")]) | change)
    with pytest.raises(DataError, match=message):
        marks(damaged)


TOP = ["Observation id", "Observation date", "Description", "Observation duration", "Observation type", "Source"]
TOP += ["Time offset (s)", "Media duration (s)", "FPS", "weather", "Subject", "Behavior", "Behavioral category"]
EVENTS = [*TOP, "Modifier #1", "Behavior type", "Time", "Media file name", "Image index", "Image file path", "Comment"]
STATES = [*TOP[:10], "Subject", "Observation duration by subject by observation", "Behavior", "Behavioral category"]
STATES += ["Modifier #1", "Behavior type", "Start (s)", "Stop (s)", "Duration (s)", "Media file name", "Comment start"]


SOURCE = "player #1:/films/a.mp4;b.mp4|player #2:c.mp4"
NUMBERS = ("Time", "Start (s)", "Stop (s)", "Time offset (s)", "Media duration (s)")


def rows(header, *values, separator="\t", lengths="10.000;20.000|5.000"):
    """A table as BORIS 8 exports it; with semicolons, as a spreadsheet with decimal commas saves it."""
    fixed = {"Observation id": "one", "Observation type": "Media file(s)", "Source": SOURCE, "Time offset (s)": "0.0"}
    fixed |= {"Media duration (s)": lengths, "Comment": 'a "b"', "Comment start": "two\nlines"}
    lines = [fixed | value for value in values]
    if separator == ";":
        lines = [line | {name: line[name].replace(".", ",") for name in NUMBERS if name in line} for line in lines]
    text = io.StringIO()
    table = csv.writer(text, delimiter=separator)
    table.writerows([header, *([line.get(name, "") for name in header] for line in lines)])
    return text.getvalue()


def happening(kind, time, behaviour="jump", **more):
    return {"Behavior": behaviour, "Behavior type": kind, "Time": time, **more}


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_tables_of_events(separator, caplog):
    text = rows(
        EVENTS,
        happening("START", "5.000"),
        happening("START", "6.000", Subject="mouse"),
        happening("POINT", "7.250", "cough", **{"Modifier #1": "loud"}),
        happening("STOP", "9.000"),
        happening("STOP", "15.500", Subject="mouse"),
        happening("STOP", "16.000", "run"),
        separator=separator,
    )
    assert sorted(marks(text)) == [
        ("a", 5.0, 9.0, "jump"),
        ("a", 6.0, 10.0, "jump"),
        ("a", 7.25, 7.25, "cough"),
        ("b", 0.0, 5.5, "jump"),
    ]
    assert "left out: 1 state event(s) without their start" in caplog.text
    assert "left out: 1 modifier(s)" in caplog.text


def test_tables_of_aggregated_events(caplog):
    def state(kind, start, stop, **more):
        return {"Behavior": "jump", "Behavior type": kind, "Start (s)": start, "Stop (s)": stop, **more}

    lines = [
        state("STATE", "2.000", "4.000"),
        state("STATE", "1.500", "3.250", Subject="m"),
        state("STATE", "NA", "NA"),
    ]
    lines += [state("POINT", "12.000", "12.000", Behavior="cough"), state("STATE", "104.0", "106.0")]
    lines[-1] |= {"Observation id": "two", "Source": "player #1: d.avi", "Time offset (s)": "100.0"}
    lines[-1] |= {"Media duration (s)": "60.000"}
    lines.append(state("STATE", "1.0", "2.0") | {"Observation id": "x", "Observation type": "Live observation"})
    found = marks(rows(STATES, *lines))
    assert sorted(found) == [
        ("a", 1.5, 3.25, "jump"),
        ("a", 2.0, 4.0, "jump"),
        ("b", 2.0, 2.0, "cough"),
        ("d", 4.0, 6.0, "jump"),
    ]
    assert "left out: 1 event(s) without a time" in caplog.text
    assert "left out: 1 event(s) of observations that are not of videos" in caplog.text


def test_tables_up_to_version_7():
    above = "Observation id\tone\t\t\n\t\t\t\nTime offset (s)\t1.0\t\t\nindependent variables\t\t\t\n"
    header = "Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tComment\tStatus\n"
    times = ((3.3, "START"), (7.75, "STOP"))
    events = "".join(f"{time}\tv.mp4\t60.0\t25.0\t\tjump\t\t\t{kind}\n" for time, kind in times)
    assert marks(above + header + events) == [("v", 2.3, 6.75, "jump")]
    header = "Observation id\tMedia file\tTotal length\tSubject\tBehavior\tBehavior type\tStart (s)\tStop (s)\n"
    assert marks(f"{header}one\tv.mp4\t60\t\tjump\tSTATE\t1.8\t8.125\n") == [("v", 1.8, 8.125, "jump")]
    two = f"{header}one\tv.mp4\t90\t\tjump\tSTATE\t1.8\t8.125\none\tw.mp4\t90\t\tjump\tSTATE\t70.0\t71.0\n"
    with pytest.raises(DataError, match=r"its times run on over 2 media files, whose lengths .*read the project"):
        marks(two)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows(EVENTS, happening("BEGIN", "1.0")), "line 2: expected START, STOP or POINT as its type, found 'BEGIN'"),
        (rows(EVENTS, happening("POINT", "0:01")), "line 2: '0:01' is not a number: BORIS writes seconds"),
        (rows(EVENTS, happening("POINT", "1.0"), lengths="10.000"), "run on over 2 media files, whose lengths"),
        (rows(EVENTS, happening("POINT", "1.0"), lengths="ten;20"), "Media duration .s. must be seconds: 'ten'"),
        (rows(EVENTS, happening("POINT", "40.0")), "jump at 40 to 40 s, .*and its media last 30 s"),
        (
            rows(EVENTS, happening("POINT", "1.0", Comment="x")).rstrip() + "\textra",
            "line 2: 21 fields, but the header",
        ),
        (rows([*EVENTS, "Time"], happening("POINT", "1.0")), "the column Time is there twice"),
        ("Observation id\tSubject\none\tx\n", "no column Behavior"),
    ],
)
def test_a_damaged_table_is_named(text, message):
    with pytest.raises(DataError, match=message):
        marks(text)


codes = st.sampled_from(["jump", "run", "cough", "background"])
happenings = st.lists(st.tuples(st.integers(0, 59_000), codes, st.sampled_from(["", "m"])), max_size=12, unique=True)


@given(happenings)
def test_every_event_is_in_a_mark_or_counted_as_left_out(happenings):
    """Kind 2: a point is one mark, a state is two events in one mark, and what has no partner is said."""
    events = [event(time / 1000, code, subject) for time, code, subject in sorted(happenings)]
    reading = Reading()
    found = marks(project(one=observation(["v.mp4"], events)), reading=reading)
    points = sum(code in ("cough", "background") for _, _, code, *_ in events)
    states = [mark for mark in found if mark[3] in ("jump", "run")]
    assert len(found) - len(states) == points
    assert points + 2 * len(states) + reading.left["state event(s) without their stop"] == len(events)


VIDEO = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///films/day 1.mp4" MIME_TYPE="video/mp4"/>'


def elan(*tiers, slots=None, media=VIDEO, units=""):
    slots = slots or {"ts1": 1500, "ts2": 4000, "ts3": 4000, "ts4": 6250}
    listed = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="{name}"{"" if time is None else f""" TIME_VALUE="{time}" """}/>'
        for name, time in slots.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT AUTHOR="" FORMAT="3.0" VERSION="3.0">'
        f'<HEADER MEDIA_FILE=""{units}>{media}</HEADER><TIME_ORDER>{listed}</TIME_ORDER>{"".join(tiers)}'
        "</ANNOTATION_DOCUMENT>"
    )


def tier(name, *annotations, parent=""):
    inner = "".join(f"<ANNOTATION>{annotation}</ANNOTATION>" for annotation in annotations)
    above = f' PARENT_REF="{parent}"' if parent else ""
    return f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="{name}"{above}>{inner}</TIER>'


def aligned(value, first="ts1", last="ts2"):
    refs = f'ANNOTATION_ID="a1" TIME_SLOT_REF1="{first}" TIME_SLOT_REF2="{last}"'
    return f"<ALIGNABLE_ANNOTATION {refs}><ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>"


REFERS = '<REF_ANNOTATION ANNOTATION_ID="a9" ANNOTATION_REF="a1"><ANNOTATION_VALUE/></REF_ANNOTATION>'


def test_annotations_of_elan(caplog):
    text = elan(
        tier("gestures", aligned("high\n jump "), aligned("run", "ts3", "ts4")),
        tier("smile", aligned("")),
        tier("phase", aligned("hold"), REFERS, parent="gestures"),
    )
    assert marks(text) == [("day 1", 1.5, 4.0, "high jump"), ("day 1", 4.0, 6.25, "run"), ("day 1", 1.5, 4.0, "smile")]
    assert "left out: 2 annotation(s) on tiers that depend on another one" in caplog.text


def test_the_document_begins_at_the_time_origin_of_its_video():
    sound = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///a.wav" MIME_TYPE="audio/x-wav"/>'
    video = '<MEDIA_DESCRIPTOR MEDIA_URL="{}" MIME_TYPE="video/mp4" TIME_ORIGIN="2300"/>'
    for url, name in {
        "file:///C:/films/day%201.mp4": "day 1",
        "file:///films/v#1?.avi": "v#1?",
        "./v.mkv": "v",
        "https://x.org/a%20b.mp4?t=1": "a b",
    }.items():
        assert marks(elan(tier("t", aligned("jump")), media=sound + video.format(url))) == [(name, 3.8, 6.3, "jump")]
    assert marks(elan(tier("t", aligned("jump")), media=sound)) == [("a.wav", 1.5, 4.0, "jump")]


def test_which_video_is_meant_is_said_where_the_document_leaves_it_open(caplog):
    assert marks(elan(tier("t", aligned("jump")), media=""), "coded/day 2.eaf") == [("day 2", 1.5, 4.0, "jump")]
    assert "no media file is linked: the video is taken to be called day 2" in caplog.text
    two = "".join(f'<MEDIA_DESCRIPTOR MEDIA_URL="file:///{n}.mp4" MIME_TYPE="video/mp4"/>' for n in "ab")
    assert marks(elan(tier("t", aligned("jump")), media=two)) == [("a", 1.5, 4.0, "jump")]
    assert "of several videos, the annotations count for the first, a; not for b" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (elan(tier("t", aligned("x")))[:-20], "not valid XML"),
        (elan(tier("t", aligned("x", "ts9"))), "tier 't', annotation a1: its time slot ts9 is not there"),
        (elan(tier("t", aligned("x", "ts4", "ts1"))), "annotation a1: 'x' from 6.25 to 1.5 s"),
        (elan(tier("t", aligned("x")), slots={"ts1": "soon", "ts2": 2}), "the time slot ts1 must be a number"),
        (elan(tier("t", REFERS)), "tier 't': an annotation without a time, on a tier without a parent"),
        (elan(tier("", aligned(" "))), "'no label' from 1.5"),
        (
            elan(tier("t", aligned("x")), units=' TIME_UNITS="PAL-frames"'),
            "TIME_UNITS is 'PAL-frames'; only",
        ),
        (
            elan(tier("t", aligned("x")), media='<MEDIA_DESCRIPTOR MEDIA_URL="v.mp4" TIME_ORIGIN="x"/>'),
            "TIME_ORIGIN must be milliseconds, found 'x'",
        ),
        (
            elan(tier("t", aligned("x")), media='<MEDIA_DESCRIPTOR MEDIA_URL="v.mp4" TIME_ORIGIN="-9000"/>'),
            "'x' from 1.5",
        ),
        (
            elan().replace("</TIME_ORDER>", '<TIME_SLOT TIME_SLOT_ID="ts1"/></TIME_ORDER>'),
            "slot ts1 is there twice",
        ),
    ],
)
def test_a_damaged_document_is_named(text, message):
    with pytest.raises(DataError, match=message):
        marks(text)


def test_annotations_between_slots_without_a_time_are_left_out_and_said(caplog):
    slots = {"ts1": 1500, "ts2": None, "ts3": 4000, "ts4": 5000}
    assert marks(elan(tier("t", aligned("x"), aligned("y", "ts3", "ts4")), slots=slots)) == [("day 1", 4.0, 5.0, "y")]
    assert "left out: 1 annotation(s) without a time of their own" in caplog.text


def read_or_refused(text):
    try:
        found = marks(text)
    except DataError as failure:
        message = str(failure)
    else:
        message = "file"
        assert all(0 <= start <= end < math.inf for _, start, end, _ in found)
    assert message.startswith("file")


WHOLE = project(
    one=observation(["a.mp4", "b.mp4"], [event(1.0, "jump"), event(70.0, "jump", "m"), event(75.0, "jump", "m")]),
    two={"type": "LIVE", "file": [], "events": [[1.0, "", "jump", "", ""]]},
)


@given(st.data())
def test_a_wrong_value_anywhere_in_a_project_is_read_or_refused(data):
    path = data.draw(st.sampled_from(list(nodes(WHOLE))))
    read_or_refused(json.dumps(changed(WHOLE, path, data.draw(wrong_values))))


TEXTS = [
    json.dumps(WHOLE),
    rows(EVENTS, happening("START", "5.0"), happening("STOP", "9.0")),
    rows(STATES, {"Behavior": "jump", "Behavior type": "STATE", "Start (s)": "5.0", "Stop (s)": "9.0"}, separator=","),
    elan(tier("gestures", aligned("jump"), aligned("run", "ts3", "ts4")), tier("phase", REFERS, parent="gestures")),
]


@settings(max_examples=300)
@given(st.sampled_from(TEXTS), st.data())
def test_a_damaged_text_is_read_or_refused(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 12)))
    put = data.draw(
        st.text(max_size=6) | st.sampled_from(['"', "[", "}", "<", "null", "-1", "1e999", "NaN", "\n", "\t"])
    )
    read_or_refused(text[:start] + put + text[end:])
