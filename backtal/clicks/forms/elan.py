"""ELAN: annotation files (.eaf). Time is in milliseconds of the document, which may begin later than its media."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from backtal.clicks.forms.form import Form, Mark, Reading, number, parse_xml
from backtal.errors import DataError
from backtal.files import note


class _Video(NamedTuple):
    name: str
    origin: float  # the second of the video at which the document begins


def _read(text: str, where: str, reading: Reading) -> Iterator[Mark]:
    root = parse_xml(text, where)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise DataError(f"{where}: expected an ANNOTATION_DOCUMENT, found {root.tag}")
    video = _video(root, where, reading)
    slots: dict[str | None, str | None] = {}
    for slot in root.iter("TIME_SLOT"):
        if slot.get("TIME_SLOT_ID") in slots:
            raise DataError(f"{where}: the time slot {slot.get('TIME_SLOT_ID')} is there twice")
        slots[slot.get("TIME_SLOT_ID")] = slot.get("TIME_VALUE")
    for tier in root.iter("TIER"):
        name = tier.get("TIER_ID", "")
        if tier.get("PARENT_REF"):
            reading.left["annotation(s) on tiers that depend on another one"] += len(tier)
            continue
        for item in tier:
            annotation = item.find("ALIGNABLE_ANNOTATION")
            if annotation is None:
                raise DataError(f"{where}: tier {name!r}: an annotation without a time, on a tier without a parent")
            place = f"{where}: tier {name!r}, annotation {annotation.get('ANNOTATION_ID')}"
            start, end = (_seconds(annotation, key, slots, place) for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"))
            if start is None or end is None:
                reading.left["annotation(s) without a time of their own"] += 1
                continue
            label = " ".join((annotation.findtext("ANNOTATION_VALUE") or name).split())
            if not label or end < start or start + video.origin < 0:
                raise DataError(f"{place}: {label or 'no label'!r} from {start:g} to {end:g} s")
            yield Mark(video.name, round(start + video.origin, 6), round(end + video.origin, 6), label)


def _seconds(annotation: Element, key: str, slots: dict[str | None, str | None], place: str) -> float | None:
    slot = annotation.get(key)
    if slot not in slots:
        raise DataError(f"{place}: its time slot {slot} is not there")
    value = slots[slot]
    return None if value is None else number(value, place, f"the time slot {slot}") / 1000


def _video(root: Element, where: str, reading: Reading) -> _Video:
    """The first video that is linked, else the first media file; without any, the video is called as the document."""
    header = root.find("HEADER")
    units = header.get("TIME_UNITS", "milliseconds") if header is not None else "milliseconds"
    if units != "milliseconds":
        raise DataError(f"{where}: TIME_UNITS is {units!r}; only milliseconds, which ELAN writes, are read")
    media = list(root.iter("MEDIA_DESCRIPTOR"))
    videos = [one for one in media if one.get("MIME_TYPE", "").startswith("video")] or media
    names = [_name(one, reading) for one in videos]
    if not videos or not names[0]:
        note(f"{where}: no media file is linked: the video is taken to be called {Path(where).stem}")
        return _Video(Path(where).stem, 0.0)
    if others := [name for name in names[1:] if name != names[0]]:
        note(
            f"{where}: of several videos, the annotations count for the first, {names[0]}; not for {', '.join(others)}"
        )
    origin = videos[0].get("TIME_ORIGIN") or "0"
    try:
        return _Video(names[0], int(origin) / 1000)
    except ValueError:
        raise DataError(f"{where}: TIME_ORIGIN must be milliseconds, found {origin!r}") from None


def _name(media: Element, reading: Reading) -> str:
    """The name of a linked video. ELAN escapes no character of a path, but other programs do."""
    address = media.get("MEDIA_URL") or media.get("RELATIVE_MEDIA_URL") or ""
    if address.startswith(("http://", "https://")):
        return reading.video(address)
    return reading.video(unquote(address.removeprefix("file://")))


DOCUMENT = Form(lambda text: text.lstrip().startswith("<") and "<ANNOTATION_DOCUMENT" in text, _read, None)
