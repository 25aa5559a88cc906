"""Found segments for the programs in which people code videos, BORIS and ELAN, to be looked through and corrected."""

import datetime
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from backtal.errors import DataError
from backtal.files import write_text
from backtal.segments.segments import Localization, Segment

_KEYS = string.ascii_lowercase + string.digits + string.ascii_uppercase
_TYPES = {".avi": "video/x-msvideo", ".mkv": "video/x-matroska", ".mov": "video/quicktime", ".webm": "video/webm"}


class _Bout(NamedTuple):
    """A segment in whole milliseconds, at least one long."""

    start: int
    end: int
    score: float


def boris_project(
    found: Iterable[Localization],
    files: Mapping[str, str],
    durations: Mapping[str, float],
    frame_rates: Mapping[str, float],
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """A project for BORIS (version 8 and later): an observation for each video, a state for each segment.

    BORIS ends a state by the next event of the same behaviour and subject, so segments of one label that overlap get
    subjects of their own. The score stands in the comment of a start; times are whole milliseconds.

    Args:
        found: segments; a video without any becomes an observation too.
        files: by video, where its file lies.
        durations: by video, seconds.
        frame_rates: by video, frames per second.
        labels: behaviours to offer beside those that were found.

    Raises:
        DataError: if the file, duration or frame rate of a video is missing, or a video comes twice.

    Example:
        >>> from backtal import Segment
        >>> video = Localization("v", 9.0, (Segment(1.0, 2.5, "jump", 0.5),))
        >>> project = boris_project([video], {"v": "v.mp4"}, {"v": 9.0}, {"v": 25.0})
        >>> project["observations"]["v"]["events"]
        [[1.0, '', 'jump', '', 'score 0.500', 25], [2.5, '', 'jump', '', '', 62]]
    """
    found = list(found)
    now = datetime.datetime.now().isoformat(timespec="seconds")
    behaviours = list(dict.fromkeys([*labels, *(segment.label for video in found for segment in video)]))
    subjects, observations = [""], {}
    for video in found:
        name = video.video_id
        for what, known in (("file", files), ("duration", durations), ("frame rate", frame_rates)):
            if not known.get(name):
                raise DataError(f"video {name}: its {what} is not known")
        if name in observations:
            raise DataError(f"two results of video {name}; a project holds one observation of that name")
        events = []
        for label, lane, bouts in _lanes(video):
            while len(subjects) <= lane:
                subjects.append(f"overlapping {len(subjects) + 1}")
            for bout in bouts:
                for time, comment in ((bout.start, f"score {bout.score:.3f}"), (bout.end, "")):
                    frame = int(time / 1000 * frame_rates[name])
                    events.append([time / 1000, subjects[lane], label, "", comment, frame])
        events.sort(key=lambda event: event[0])
        observations[name] = _observation(files[name], durations[name], frame_rates[name], events, now)
    return {
        "time_format": "hh:mm:ss",
        "project_date": now,
        "project_name": "segments found by backtal",
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(i): {"key": "", "name": name, "description": "of one label at the same time"}
            for i, name in enumerate(subjects[1:])
        },
        "behaviors_conf": {str(i): _behaviour(label, i) for i, label in enumerate(behaviours)},
        "observations": observations,
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }


def _behaviour(label: str, index: int) -> dict[str, Any]:
    blank = dict.fromkeys(("description", "color", "category", "excluded", "coding map"), "")
    return {"type": "State event", "key": _KEYS[index % len(_KEYS)], "code": label, "modifiers": {}, **blank}


def _observation(file: str, duration: float, rate: float, events: list[list[Any]], date: str) -> dict[str, Any]:
    info = {"length": duration, "fps": rate, "hasVideo": True, "hasAudio": False}
    return {
        "file": {"1": [file], **{str(player): [] for player in range(2, 9)}},
        "type": "MEDIA",
        "date": date,
        "description": "",
        "time offset": 0.0,
        "events": events,
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {**{name: {file: value} for name, value in info.items()}, "offset": {"1": 0.0}},
    }


def elan_document(video: Localization, file: str) -> str:
    """A document for ELAN (format 3.0): a tier for each label, an annotation with that label for each segment.

    Annotations of one tier may not overlap, so segments of one label that do get tiers of their own. The score stands
    in a tier that depends on that of the segment; times are whole milliseconds.

    Args:
        video: its segments.
        file: where its file lies: a path, or an address.

    Example:
        >>> from backtal import Segment
        >>> text = elan_document(Localization("v", 9.0, (Segment(1.0, 2.5, "jump", 0.5),)), "v.mp4")
        >>> "<ANNOTATION_VALUE>jump</ANNOTATION_VALUE>" in text, 'TIME_VALUE="2500"' in text
        (True, True)
    """
    root = Element("ANNOTATION_DOCUMENT", AUTHOR="backtal", FORMAT="3.0", VERSION="3.0")
    root.set("DATE", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    root.set("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance")
    root.set("xsi:noNamespaceSchemaLocation", "http://www.mpi.nl/tools/elan/EAFv3.0.xsd")
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    kind = next((kind for ending, kind in _TYPES.items() if file.lower().endswith(ending)), "video/mp4")
    media = SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=_address(file), MIME_TYPE=kind)
    if "://" not in file and not file.startswith("/"):
        media.set("RELATIVE_MEDIA_URL", f"./{file}")
    order, tiers, names, count = Element("TIME_ORDER"), list[Element](), set[str](), 0
    for label, lane, bouts in _lanes(video):
        name = _unused(label if lane == 0 else f"{label} ({lane + 1})", names)
        tier = Element("TIER", LINGUISTIC_TYPE_REF="segments", TIER_ID=name)
        scores = Element("TIER", LINGUISTIC_TYPE_REF="scores", PARENT_REF=name)
        scores.set("TIER_ID", _unused(f"score of {name}", names))
        for bout in bouts:
            slots = [str(time) for time in (bout.start, bout.end)]
            first = len(order) + 1
            for index, time in enumerate(slots):
                SubElement(order, "TIME_SLOT", TIME_SLOT_ID=f"ts{first + index}", TIME_VALUE=time)
            refs = {"TIME_SLOT_REF1": f"ts{first}", "TIME_SLOT_REF2": f"ts{first + 1}"}
            segment = SubElement(SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", ANNOTATION_ID=f"a{count + 1}")
            segment.attrib.update(refs)
            SubElement(segment, "ANNOTATION_VALUE").text = label
            score = SubElement(SubElement(scores, "ANNOTATION"), "REF_ANNOTATION", ANNOTATION_ID=f"a{count + 2}")
            score.set("ANNOTATION_REF", f"a{count + 1}")
            SubElement(score, "ANNOTATION_VALUE").text = f"{bout.score:.3f}"
            count += 2
        tiers += [tier, scores]
    SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId").text = str(count)
    order[:] = sorted(order, key=lambda slot: int(slot.get("TIME_VALUE", 0)))
    root.extend([order, *tiers])
    alone = {"LINGUISTIC_TYPE_ID": "segments", "TIME_ALIGNABLE": "true", "GRAPHIC_REFERENCES": "false"}
    dependent = {"LINGUISTIC_TYPE_ID": "scores", "TIME_ALIGNABLE": "false", "GRAPHIC_REFERENCES": "false"}
    SubElement(root, "LINGUISTIC_TYPE", alone)
    SubElement(root, "LINGUISTIC_TYPE", dependent, CONSTRAINTS="Symbolic_Association")
    described = "1-1 association with a parent annotation"
    SubElement(root, "CONSTRAINT", STEREOTYPE="Symbolic_Association", DESCRIPTION=described)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def write_elan(folder: str | Path, found: Iterable[Localization], files: Mapping[str, str]) -> None:
    """Write a document ``<video>.eaf`` for each video into a folder, each atomically.

    Raises:
        DataError: if one is there already, as it may have been edited, or a name is none for a file; nothing is
            written then.
    """
    documents = {}
    for video in found:
        path = Path(folder) / f"{video.video_id}.eaf"
        if ".." in path.parts or Path(video.video_id).is_absolute():
            raise DataError(f"video {video.video_id!r} is no name for a file in {folder}")
        if path.exists() or path in documents:
            raise DataError(f"{path}: already there, and may have been edited; choose another folder")
        documents[path] = elan_document(video, files[video.video_id])
    for path, text in documents.items():
        write_text(path, text)


def _address(file: str) -> str:
    """A path as ELAN writes it: as an address, but without any character escaped."""
    if "://" in file:
        return file
    return f"file://{file}" if file.startswith("/") else f"file:///{file}"


def _unused(name: str, names: set[str]) -> str:
    while name in names:
        name += "'"
    names.add(name)
    return name


def _lanes(video: Localization) -> Iterator[tuple[str, int, list[_Bout]]]:
    """The segments by label, those of one label in as many lanes as overlap: label, lane from 0, segments in order."""
    for label in dict.fromkeys(segment.label for segment in video):
        lanes: list[list[_Bout]] = []
        for bout in sorted(map(_bout, (segment for segment in video if segment.label == label))):
            free = next((lane for lane in lanes if lane[-1].end <= bout.start), None)
            if free is None:
                lanes.append(free := [])
            free.append(bout)
        yield from ((label, index, lane) for index, lane in enumerate(lanes))


def _bout(segment: Segment) -> _Bout:
    start = max(round(segment.start * 1000), 0)
    return _Bout(start, max(round(segment.end * 1000), start + 1), segment.score)
