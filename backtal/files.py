"""Reading and writing files so that nothing half-written is ever seen; progress bars."""

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backtal.errors import BackTALError, DataError

VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
}


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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
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
        BackTALError: of the given kind, if the file is missing, is not JSON or is not an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_int=_integer)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}") from failure
    except (ValueError, RecursionError) as failure:
        raise error(f"{path}: not valid JSON: {failure}") from failure
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object, found {type(content).__name__}")
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
