"""Reading and writing files so that nothing half-written is ever seen; names of files; progress bars."""

import json
import os
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
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".vob", ".webm", ".wmv"),
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
    """The feature files in a folder by their videos' names: ``class/video`` for those in a folder within it."""
    found = {}
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(place, name)
            if path.suffix.lower() == ".npz" and not name.startswith("._"):
                found[path.relative_to(folder).with_suffix("").as_posix()] = path
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
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: str | Path, error: type[BackTALError] = DataError) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BackTALError: of the given kind, if the file is missing, is not JSON, is not an object, or a key occurs twice.
    """
    try:
        content = json.loads(Path(path).read_bytes(), parse_int=_integer, object_pairs_hook=once)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}") from failure
    except (ValueError, RecursionError) as failure:
        raise error(f"{path}: not valid JSON: {failure}") from failure
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its keys and values, for ``json.loads(..., object_pairs_hook=once)``, which drops repeated keys.

    Raises:
        ValueError: if a key occurs twice.
    """
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
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise DataError(f"{path}: cannot be read: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise DataError(f"{path}: not a text file: {failure}") from failure
    return [line.strip() for line in text.splitlines() if line.strip()]


def progress(items: Iterable, **options: Any) -> tqdm:
    """A progress bar on stderr; where stderr is not a terminal, a line every ten seconds."""
    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10, dynamic_ncols=True, **options)
