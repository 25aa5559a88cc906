"""Reading ``.npy`` and ``.npz`` files of other projects, pickled arrays too, without ever running what they hold."""

import math
import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from backtal.data.kinds import npz_fault
from backtal.errors import DataError, name_some


class _Kind:
    """In the place of ``numpy.dtype``, which would believe any flags: the code and the byte order, nothing else."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufcSU]\d+|O\d*", code):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}, which is no number, text or object")
        self.dtype = np.dtype(object if code[0] == "O" else code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that takes from a pickle only what fits: of raw bytes numpy would make pointers to objects."""

    def __setstate__(self, state: Sequence[Any]) -> None:
        *_, sizes, kind, by_column, data = state
        shape = tuple(int(size) for size in sizes)
        if isinstance(data, str):  # by Python 2
            data = data.encode("latin1")
        objects = kind.dtype.hasobject
        size = math.prod(shape) * (1 if objects else kind.dtype.itemsize)
        if objects != isinstance(data, list) or min(shape, default=0) < 0 or len(data) != size:
            raise pickle.UnpicklingError("it holds an array whose content does not fit its type and shape")
        super().__setstate__((1, shape, kind.dtype, by_column, data))


def _reconstruct(*_: Any) -> np.ndarray:
    return _Array(0, np.uint8)


def _frombuffer(data: bytes, kind: _Kind, shape: tuple[int, ...], order: str) -> np.ndarray:
    array = _Array(0, np.uint8)
    array.__setstate__((shape, kind, order == "F", bytes(memoryview(data))))
    return array


def _scalar(kind: _Kind, data: bytes) -> Any:
    array = _Array(0, np.uint8)
    array.__setstate__(((), kind, False, data))
    return array[()]


# What pickled arrays ask for, and what they get: never numpy's own types, which can be made to read any memory.
_GIVEN = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Kind,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, lists, texts and numbers; refuses whatever could run code."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _GIVEN:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which is no array")
        return _GIVEN[module, name]


def read_npy(path: str | Path) -> np.ndarray:
    """Read a ``.npy`` file; arrays of objects may hold arrays, lists, texts and numbers, nothing else.

    Raises:
        DataError: if the file is missing, damaged, or holds anything that could run code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(path, np.array([np.zeros((3, 2)), np.zeros((5, 2))], dtype=object))
        >>> [video.shape for video in read_npy(path)]
        [(3, 2), (5, 2)]
    """
    try:
        with Path(path).open("rb") as file:
            return read_array(file, path)
    except OSError as failure:
        raise DataError(f"{path}: cannot be read: {failure.strerror}") from failure


def read_array(file: IO[bytes], where: str | Path) -> np.ndarray:
    """Read an array in ``.npy`` form from an open, seekable file; `where` begins the messages. See `read_npy`."""
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject:
            array = _ArrayUnpickler(file, encoding="latin1").load()
            if isinstance(array, np.ndarray):
                return np.asarray(array)
            return np.asarray(array, dtype=object).reshape(shape)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except pickle.UnpicklingError as failure:
        raise DataError(f"{where}: refused: {failure}") from None
    except Exception as failure:  # a damaged pickle raises anything
        raise DataError(f"{where}: not a readable .npy array (truncated or damaged?): {failure}") from None


def read_npz(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some arrays of an ``.npz`` file, each as `read_npy` does.

    Raises:
        DataError: if the file or an array is missing, damaged, or holds anything that could run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            present = set(archive.namelist())
            if missing := [name for name in names if f"{name}.npy" not in present]:
                known = name_some(sorted(name.removesuffix(".npy") for name in present), 12)
                raise DataError(f"{path}: no {', '.join(missing)}; it holds {known}")
            found = {}
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    found[name] = read_array(file, f"{path}: {name}")  # type: ignore[arg-type]
            return found
    except DataError:
        raise
    except Exception as failure:  # a damaged archive raises anything
        raise DataError(f"{path}: {npz_fault(path, failure)}") from None


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file of numbers and texts.

    Raises:
        DataError: if it is missing, damaged or no such file, which is told apart, or an array is in it twice.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as members:
            if twice := [name for name, count in Counter(members.namelist()).items() if count > 1]:
                raise ValueError(f"{name_some(twice)} is in it twice, and only one can count")
            if not any(name.endswith(".npy") for name in members.namelist()):
                raise ValueError("it holds no array")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: np.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such feature file{_like(path)}") from None
    except Exception as failure:  # a damaged archive raises anything
        raise DataError(f"{path}: {npz_fault(path, failure)}") from failure


def _like(path: Path) -> str:
    """Names the files whose names say that they may be meant."""
    try:
        there = [other.name for other in path.parent.iterdir() if other.stem.casefold() == path.stem.casefold()]
    except OSError:
        return f", and no folder {path.parent}"
    return f"; there is {name_some(sorted(there))}" if there else ""
