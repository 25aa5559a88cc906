"""Tables of clicks as people and programs write them: every row is read, or the file is refused with a reason."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal import Click, ClickTrack, DataError, read_clicks, write_clicks

HEADER = "URLID,URL,TagID,Tag,Start,End,Time,State"
ROW = "day0,day0.mp4,3,background,3.5,3.5,1,1"
OURS = f"{HEADER}\n{ROW}\n"


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return {video: [(c.time, c.label) for c in t.clicks] for video, t in read_clicks(path, **options).items()}


@pytest.mark.parametrize(
    "text",
    [
        "day0,3.5\n",
        "day0.mp4,3.5\n",
        "day0;3,5\n",
        "day0\t3,5\n",
        'day0,"3,5"\n',
        "day0 , 3.5\r\n",
        "day0,3.5",
        "day0,3.5\r",
        "video,second\nday0,3.5\n",
        "Video,Seconds\nday0.MOV,3.5\n",
        "second,video\n3.5,day0\n",
        "video_id;time;label\nday0;3,5;background\n",
        "video\tstart\tend\tclass\nday0\t3\t4\tbackground\n",
        "video,start,end\nday0,3,4\n",
        "video,second,label,comment\nday0,3.5,background,sure\n",
        ",video,second\n0,day0,3.5\n",  # a data frame with its index
        "sep=;\nvideo;second\nday0;3,5\n",  # Excel's hint
        '#TYPE System.Object\r\n"video","second"\r\n"day0","3.5"\r\n',  # Windows PowerShell's Export-Csv
        "\n\nvideo,second\n,\nday0,3.5\n   ,\n\n",
        "video,second,,\nday0,3.5,,\n",
        OURS,
        OURS.replace(",", ";"),
        OURS.replace(",", ";").replace("3.5", "3,5"),
        OURS.replace(",", "\t"),
        OURS.replace("3.5", '"3,5"'),
        f"{OURS},,,,,,,\n",
        f"{HEADER},,\n{ROW},,\n",
        f"{OURS.rstrip()},,,\n",
        OURS.replace("\n", "\r\n"),
        OURS.replace(",1,1", ",1.0,1"),  # a whole number that went through a data frame
        '"' + OURS.replace(",", '","').replace("\n", '"\n"').removesuffix('"'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_click_at_three_and_a_half_seconds(tmp_path, text, encoding):
    assert read(tmp_path / "me.txt", text.encode(encoding)) == {"day0": [(3.5, "background")]}


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"])
def test_both_orders_of_utf_16_and_utf_32(tmp_path, encoding):
    content = f"\ufeff{OURS.replace('day0', 'Übung')}".encode(encoding)
    assert read(tmp_path / "me.txt", content) == {"Übung": [(3.5, "background")]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADER}\nday0,day0.mp4,3,background,3,5,3,5,1,1\n", "line 2: 10 fields, but the header has 8; is the dec"),
        (f"{HEADER},,\nday0,day0.mp4,3,background,3,5,3,5,1,1\n", "line 2: 10 fields, but the header has 8"),
        ("class,video_id,point\nbackground,v,45,5\n", "line 2: 4 fields, but the header has 3; is the decimal mark"),
        ("video,second\nday0,3,5\n", "line 2: 3 fields, but the header has 2; is the decimal mark a comma"),
        ("video;second\nday0;3;5\n", "line 2: 3 fields, but the header has 2$"),
        ("day0,3.5\nday0,7,5\n", "line 2: expected video,second, found 'day0,7,5'"),
        ("day0,7,5\nday0,9,5\n", "every label is a number, as with decimal commas"),
        ("day0,3,16\nday1,4,17\n", "every label is a number"),
        (f"{HEADER}\n{ROW[:-6]}\n", "line 2: 6 fields, but the header has 8; is the file cut off"),
        ("video,second\nday0\n", "line 2: 1 fields, but the header has 2; is the file cut off"),
        ("video,second,video\nday0,3.5,day1\n", "the column video is there twice"),
        ("video,Second,second\nday0,3.5,9\n", "the column Second, second is there twice"),
        ("", "is empty: a table of clicks begins with the header video,second"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        ("URLID,Tag,Start,End,Start\nv,background,1,2,1\n", "the column Start is there twice"),
        ("video,second,\nday0,3,5\n", "line 2: 3 fields, but the header has 2; is the decimal mark"),
        ("video,,second\nday0,x,5\n", "line 2: 'x' stands in a column without a name"),
        ("video,second\nday0,1:02.5\n", r"second must be a number that is not negative \(1:02.5 is written 62.5\)"),
        ("day0,1:02.5\n", "not a click file in a known form"),
        ("day0,3.5\nday0,1:02.5\n", "line 2: the second must be a number"),
        ("video,second\nday0,soon\n", "line 2: second must be a number that is not negative, found 'soon'"),
        ("video,second\nday0,-1\n", "must be a number that is not negative, found '-1'"),
        ("video,second\nday0,1e999\n", "must be a number that is not negative, found '1e999'"),
        ("video,second\nday0,1_0\n", "found '1_0'"),
        ("video,second\nday0,٣\n", "found '٣'"),
        ('video,second\nday0,"1,234"\n', "found '1,234'"),
        ("video,second\n,3.5\n", "line 2: the video is empty"),
        ("video,second,label\nday0,3.5,\n", "line 2: the label is empty"),
        ('day0,3.5\n"day0,4.5\nday1,5.5\n', "unexpected end of data"),
        ('day0,3.5\n"day0,4.5\nday1",5.5\n', "line 3: a field runs over several lines: is a quotation mark missing"),
        (f"{HEADER}\nv,v.mp4,3,background,5,3,1,1\n", "line 2: not a click: Start 5.0, End 3.0"),
        (f"{HEADER}\n{ROW[:-3]}1.5,1\n", "Time, the annotation round, must be a whole number, found '1.5'"),
        ("video second\nday0 3.5\n", "not a click file in a known form .*a table begins with the header video,second"),
        (OURS.replace("day0", "Übung").encode("cp1252"), "not a text file in UTF-8 .*in Excel: 'CSV UTF-8'"),
        (OURS.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (OURS.encode("utf-16")[:-1], "not a text file in UTF-8 or UTF-16: .*is it cut off"),
        (b"PK\x03\x04 a sheet", "not a text file, but a zip archive or a spreadsheet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "not a text file, but an Excel workbook"),
        (b"\x1f\x8b\x08\x00", "not a text file, but compressed with gzip: unpack it"),
    ],
)
def test_what_could_be_read_otherwise_is_refused_with_the_reason(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "me.txt", content, frame_rates=25.0)
    assert str(caught.value).startswith(str(tmp_path / "me.txt"))
    assert "\n" not in str(caught.value)


def test_files_put_together_leave_no_mark_in_a_name(tmp_path):
    content = "day0,3.5\n".encode("utf-8-sig") + "day1,4\n".encode("utf-8-sig")
    assert read(tmp_path / "me.txt", content) == {"day0": [(3.5, "background")], "day1": [(4.0, "background")]}


def test_of_two_columns_for_one_thing_it_is_said_which_is_read(tmp_path, caplog):
    assert read(tmp_path / "me.txt", "video,file,second,start\nday0,x/a.mp4,3.5,3\n") == {"day0": [(3.5, "background")]}
    assert "me.txt: read from the columns video, second; not from file, start" in caplog.text
    caplog.clear()
    assert read(tmp_path / "me.txt", "video,second,note\nday0,3.5,x\n")
    assert not caplog.text


def test_a_semicolon_in_a_name_is_part_of_it(tmp_path):
    assert read(tmp_path / "me.txt", "a;b,3.5\n") == {"a;b": [(3.5, "background")]}
    track = ClickTrack("a;b\tc", (Click(3.5, "jump; run"),))
    for form in ("backtal", "table", "sfnet"):
        write_clicks(tmp_path / form, [track], ["jump; run"], form=form)
        assert read_clicks(tmp_path / form) == {track.video_id: track}


def test_the_same_click_twice_stays_twice(tmp_path):
    assert read(tmp_path / "me.txt", "v,1\nv,1\nw,2\nv,1\n") == {
        "v": [(1.0, "background")] * 3,
        "w": [(2.0, "background")],
    }


def count(path, content):
    """How many clicks are read; None if the file is refused by name."""
    try:
        found = read(path, content, frame_rates=25.0)
    except DataError as failure:
        message = str(failure)
    else:
        return sum(map(len, found.values()))
    assert message.startswith(str(path))
    return None


cells = st.sampled_from(
    ["v", "w.mp4", "", " ", "1", "2.5", "3,5", "1:02", "background", "a;b", '"', "x\ny", "é", "7e1"]
)
headers = st.sampled_from(
    [[], ["video", "second"], ["video", "second", "label"], ["class", "video_id", "point"], HEADER.split(",")]
)


@settings(max_examples=300)
@given(
    headers,
    st.lists(st.lists(cells, max_size=9) | st.just(ROW.split(",")) | st.just(["v", "2.5"]), max_size=6),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)
def test_rows_in_are_clicks_out_or_the_file_is_refused(
    tmp_path_factory, header, lines, separator, ending, encoding, quoted
):
    """Kind 2: whatever is fed, no row is dropped, split or merged without a word."""
    path = tmp_path_factory.mktemp("rows") / "me.txt"
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=separator, lineterminator=ending, quoting=quoting).writerows([header, *lines])
    held = [line for line in lines if any(cell.strip() for cell in line)]
    assert count(path, text.getvalue().encode(encoding)) in (len(held), None)


@given(st.lists(st.sampled_from(["day0,3.5", "day0,4.5", '"day1",1', 'day1,"2', "day0", "", ",", 'x"y,3']), max_size=6))
def test_lines_in_are_clicks_out_or_the_file_is_refused(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "me.txt"
    held = sum(line.strip(", ") != "" for line in lines)
    assert count(path, "\n".join(["video,second", *lines])) in (held, None)
