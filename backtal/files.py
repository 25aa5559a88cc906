"""Reading and writing files so that nothing half-written is ever seen; names of files; notes and progress on stderr."""

import json
import logging
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backtal.errors import BackTALError, DataError

VIDEO_SUFFIXES = {
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".hevc", ".m2ts", ".m2v", ".m4v"),
    *(".mjpeg", ".mjpg", ".mkv", ".mod", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rm"),
    *(".tod", ".ts", ".vob", ".webm", ".wmv"),
}


_LONGEST_NAME = 255 - len(".npz")  # bytes, of a file in most file systems


def composed(name: str) -> str:
    """A name in the composed form of Unicode: macOS takes the accents of file names apart, which nobody sees.

    Example:
        >>> composed("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def spelling(names: Iterable[str]) -> Callable[[str], str]:
    """What gives a name the form of Unicode that it has among `names`; other names stay as they are.

    Example:
        >>> spelling(["caf\u00e9"])("cafe\u0301") == "caf\u00e9"
        True
    """
    known = set(names)
    forms = {composed(name): name for name in known}
    return lambda name: name if name in known else forms.get(composed(name), name)


def is_text(name: str) -> bool:
    """Whether a name has nothing that files and tables cannot hold, such as line breaks and halves of characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def name_fault(name: str) -> str | None:
    """What keeps a video from being called so, None for nothing: its feature file has its name, a slash is a folder.

    Example:
        >>> name_fault("Abuse/clip 1 (日本語).v2"), name_fault("../clip1")
        (None, 'it leads out of the folder of features')
    """
    if not name:
        return "it is empty"
    if not is_text(name):
        return "it has line breaks or other characters that are no text"
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0]:
        return "it leads out of the folder of features"
    if {"", "."}.intersection(parts):
        return "it is no path of a file"
    longest = max(len(part.encode()) for part in name.split("/"))
    if longest > _LONGEST_NAME:
        return f"it has {longest} bytes, and names of files at most {_LONGEST_NAME} before their ending"
    return None


def npz_files(folder: Path) -> dict[str, Path]:
    """The feature files in a folder by their videos' names: ``class/video`` for those in a folder within it.

    Raises:
        DataError: if two are one video's, their names differing in the form of Unicode or the case of the ending.
    """
    found, forms = {}, dict[str, Path]()
    for place, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() == ".npz" and not name.startswith("._"):
                video = path.relative_to(folder).with_suffix("").as_posix()
                if (other := forms.setdefault(composed(video), path)) != path:
                    raise DataError(f"{other} and {path}: features of one video; delete one")
                found[video] = path
    return dict(sorted(found.items()))


def is_taken(folder: Path) -> bool:
    """Whether something is where a new folder is to be made: a file, or a folder that is not empty."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Parent folders are made. If the block raises (a full disk, an interrupt), `path` keeps its old
    content and the temporary file is removed.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("hello")
        >>> target.read_text()
        'hello'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not called after `path`, whose name may be as long as names can be.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, atomically; its line endings stay as they are."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def read_text(path: str | Path, error: type[BackTALError] = DataError, *, what: str = "") -> str:
    """Read a text as programs write it: UTF-8, or UTF-16 or -32 with a byte order mark. Line endings stay as they are.

    Args:
        path: the file.
        error: the kind of exception.
        what: what the file is, for the message that it cannot be read.

    Raises:
        BackTALError: if the file is missing, or not text; the message says what it is instead.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as failure:
        raise error(f"{path}: {what and what + ' '}cannot be read: {failure.strerror}") from failure
    return decode_text(data, str(path), error)


def decode_text(data: bytes, where: str, error: type[BackTALError] = DataError) -> str:
    r"""The text that bytes stand for, without byte order marks. See `read_text`.

    Example:
        >>> decode_text("v,1".encode("utf-16"), "clicks.txt")
        'v,1'
    """
    for start, (kind, advice) in _NO_TEXT.items():
        if data.startswith(start):
            raise error(f"{where}: not a text file, but {kind}: {advice}")
    encoding = next((name for start, name in _MARKED.items() if data.startswith(start)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as failure:
        advice = "save it as UTF-8 (in Excel: 'CSV UTF-8')" if encoding == "utf-8" else "is it cut off?"
        raise error(f"{where}: not a text file in UTF-8 or UTF-16: {failure}; {advice}") from failure
    if "\0" in text[:2]:
        raise error(f"{where}: UTF-16 without a byte order mark: save it as UTF-8")
    return _MARK.sub("", text)


# Files that were put together have a mark at the beginning of each.
_MARK = re.compile("^\ufeff+", re.MULTILINE)
_MARKED = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NO_TEXT = {
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save the sheet as 'CSV UTF-8'"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save the sheet as 'CSV UTF-8'"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it"),
}


def read_json(path: str | Path, error: type[BackTALError] = DataError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BackTALError: of the given kind, if the file is missing, is not JSON, is not an object, or a key occurs twice.
    """
    content = parse_json(read_text(path, error), str(path), error)
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def parse_json(text: str, where: str, error: type[BackTALError] = DataError) -> Any:
    """The content of a JSON text; `where` begins the messages.

    Raises:
        BackTALError: of the given kind, if it is not JSON, or a key occurs twice in one object.
    """
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=_once)
    except (ValueError, RecursionError) as failure:
        raise error(f"{where}: not valid JSON: {failure}") from failure


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in content if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object, and only one of them can count")
    return content


def _integer(digits: str) -> int:
    """Whole numbers that fit a float; of longer ones the first sum of seconds would overflow."""
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a text file that hold something, without the blanks around them.

    Raises:
        DataError: if the file is missing or not text.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def progress(items: Iterable, **options: Any) -> tqdm:
    """A progress bar on stderr; where stderr is not a terminal, a line every ten seconds."""
    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10, dynamic_ncols=True, **options)


def note(message: str) -> None:
    """Say what was left out, guessed or converted: a warning of the logger ``backtal``, which ends on stderr."""
    logging.getLogger("backtal").warning(message)
