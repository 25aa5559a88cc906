"""Reading ``.npy`` and ``.npz`` files of other projects, pickled arrays too, without ever running what they hold."""

import importlib
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from backtal.errors import DataError, name_some

_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, lists, texts and numbers; refuses whatever could run code."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}, which is no array")
        return getattr(importlib.import_module(module), name)


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
            return array if isinstance(array, np.ndarray) else np.asarray(array, dtype=object).reshape(shape)
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
    except (OSError, zipfile.BadZipFile) as failure:
        raise DataError(f"{path}: not a readable .npz file (truncated or damaged?): {failure}") from None
