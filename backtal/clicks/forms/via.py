"""VGG Image Annotator 3: the project (JSON) and both of its CSV exports. Time is in seconds."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtal.clicks.clicks import BACKGROUND, Click, ClickTrack
from backtal.clicks.forms.form import Form, Mark, Rates, Reading, expect, number
from backtal.clicks.forms.sheet import rows, table
from backtal.errors import DataError
from backtal.files import parse_json

_HEADER = "# CSV_HEADER = "
_FIELDS = ("metadata_id", "file_list", "flags", "temporal_coordinates", "spatial_coordinates", "metadata")
_CHECKBOX, _SELECT, _VIDEO, _LOCAL = 2, 4, 4, 1
_NO_TIME = "entr(ies) without a time, such as regions of images"


def _read_project(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    store = expect(dict, parse_json(text, where), where, "a VIA project")
    parts = {key: expect(dict, store.get(key), where, repr(key)) for key in ("metadata", "view", "file", "attribute")}
    for name, entry in parts["metadata"].items():
        place = f"{where}: metadata {name!r}"
        entry = expect(dict, entry, place, "it")
        times = expect(list, entry.get("z"), place, "'z'")
        if not times:
            reading.left[_NO_TIME] += 1
            continue
        video = _file_of(parts, str(entry.get("vid")), place, reading)
        for label in _labels(expect(dict, entry.get("av"), place, "'av'"), parts["attribute"], place, reading.left):
            yield _mark(video, times, label, place)


def _mark(video: str, times: Sequence[Any], label: str, place: str) -> Mark:
    start, end = (number(time, place, "its time") for time in (times[0], times[-1]))
    return Mark(video, start, end, label)


def _file_of(parts: Mapping[str, Any], view: str, place: str, reading: Reading) -> str:
    """The video of a view; where it shows several files side by side, the first."""
    shown = expect(dict, parts["view"].get(view), place, f"its view {view!r}")
    files = expect(list, shown.get("fid_list"), place, f"'fid_list' of view {view!r}")
    if not files:
        raise DataError(f"{place}: view {view!r} shows no file")
    file = expect(dict, parts["file"].get(str(files[0])), place, f"file {files[0]!r}")
    return reading.video(expect(str, file.get("fname") or file.get("src"), place, f"'fname' of file {files[0]!r}"))


def _labels(values: Mapping[str, Any], attributes: Mapping[str, Any], place: str, left: Counter[str]) -> list[str]:
    """The labels of the first attribute that was filled in: the option chosen, those that are ticked, or the text."""
    filled = {name: found for name, value in values.items() if (found := _chosen(value, attributes.get(name)))}
    if not filled:
        raise DataError(f"{place}: no label: none of its attributes is filled in")
    first, *others = filled
    for name in others:
        described = attributes.get(name)
        called = described.get("aname", name) if isinstance(described, dict) else name
        left[f"value(s) of the attribute {called!r}, beside the first one filled in"] += 1
    return filled[first]


def _chosen(value: Any, described: Any) -> list[str]:
    options = described.get("options") if isinstance(described, dict) else None
    if not isinstance(value, str) or not value:
        return []
    if not isinstance(options, dict):
        return [value]
    ticked = value.split(",") if isinstance(described, dict) and described.get("type") == _CHECKBOX else [value]
    return [text for text in (options.get(one, one) for one in ticked) if isinstance(text, str) and text]


def _read_table(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    columns, attributes = [], {}
    # Comments hold quotes that are not those of CSV; a row is one line, as its fields are JSON.
    for index, line in enumerate((line.rstrip("\r") for line in text.split("\n")), 1):
        place = f"{where}, line {index}"
        if line.startswith(_HEADER):
            columns = line.removeprefix(_HEADER).split(",")
        elif line.startswith("# ATTRIBUTE = "):
            attributes = expect(dict, parse_json(line.partition("=")[2], place), place, "ATTRIBUTE")
        elif line and not line.startswith("#"):
            for _, fields in rows(line, place):
                if len(fields) > len(columns):
                    raise DataError(f"{place}: {len(fields)} fields, but CSV_HEADER has {len(columns)}")
                yield from _row(dict(zip(columns, fields, strict=False)), attributes, place, reading)


def _row(row: Mapping[str, str], attributes: Mapping[str, Any], place: str, reading: Reading) -> Iterator[Mark]:
    if missing := {"file_list", "metadata"}.difference(row):
        raise DataError(f"{place}: no column {', '.join(sorted(missing))}")
    if "temporal_coordinates" in row:
        times = expect(list, parse_json(row["temporal_coordinates"], place), place, "temporal_coordinates")
    else:
        start = row.get("temporal_segment_start", "")
        times = [start, row.get("temporal_segment_end") or start]
    files = expect(list, parse_json(row["file_list"], place), place, "file_list")
    if not times:
        reading.left[_NO_TIME] += 1
        return
    if not files:
        raise DataError(f"{place}: file_list is empty")
    values = expect(dict, parse_json(row["metadata"], place), place, "metadata")
    video = reading.video(expect(str, files[0], place, "file_list[0]"))
    for label in _labels(values, attributes, place, reading.left):
        yield _mark(video, times, label, place)


def _attribute(labels: Sequence[str]) -> dict[str, Any]:
    options = {str(index): label for index, label in enumerate((*labels, BACKGROUND))}
    described = {"aname": "label", "anchor_id": "FILE1_Z2_XY0", "type": _SELECT, "desc": "What is clicked"}
    return {"1": {**described, "options": options, "default_option_id": ""}}


def _entries(tracks: Sequence[ClickTrack], labels: Sequence[str]) -> Iterator[tuple[str, int, Click, dict[str, str]]]:
    """What both files list: an id, the number of the video from 1, the click, its attribute values."""
    option = {label: str(index) for index, label in enumerate((*labels, BACKGROUND))}
    for number_, track in enumerate(tracks, 1):
        for index, click in enumerate(track.clicks):
            yield f"{number_}_{index:08d}", number_, click, {"1": option[click.label]}


def _write_project(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    names = {str(index): f"{track.video_id}.mp4" for index, track in enumerate(tracks, 1)}
    project = {"pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__"}
    project |= {"rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__", "pname": "clicks", "creator": "backtal"}
    project |= {"data_format_version": "3.1.2"}
    store = {
        "project": {**project, "created": 0, "vid_list": list(names)},
        "config": {
            "file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}},
            "ui": {
                "file_content_align": "center",
                "file_metadata_editor_visible": True,
                "spatial_metadata_editor_visible": False,
                "spatial_region_label_attribute_id": "",
            },
        },
        "attribute": _attribute(labels),
        "file": {i: {"fid": i, "fname": n, "type": _VIDEO, "loc": _LOCAL, "src": ""} for i, n in names.items()},
        "view": {i: {"fid_list": [i]} for i in names},
        "metadata": {
            name: {"vid": str(video), "flg": 0, "z": [float(click.time)], "xy": [], "av": values}
            for name, video, click, values in _entries(tracks, labels)
        },
    }
    return json.dumps(store)


def _write_table(tracks: Sequence[ClickTrack], labels: Sequence[str], rates: Rates) -> str:
    lines = [
        [name, json.dumps([f"{tracks[video - 1].video_id}.mp4"]), 0, f"[{float(click.time)!r}]", "[]", json.dumps(av)]
        for name, video, click, av in _entries(tracks, labels)
    ]
    comments = [
        "# Exported using backtal, in the form of VGG Image Annotator 3",
        f"# ATTRIBUTE = {json.dumps(_attribute(labels))}",
        _HEADER + ",".join(_FIELDS),
    ]
    return "\n".join(comments) + "\n" + table(lines)


def _is_project(text: str) -> bool:
    return text.lstrip().startswith("{") and '"metadata"' in text and '"fid_list"' in text


PROJECT = Form(_is_project, _read_project, _write_project)
TABLE = Form(lambda text: text.startswith("#") and _HEADER in text, _read_table, _write_table)
