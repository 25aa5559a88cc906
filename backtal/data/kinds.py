"""What a file is, whatever it is called: by its first bytes."""

import zipfile
from pathlib import Path

VIDEO = "a video"
_SAVE = "write np.savez('{stem}.npz', features=array), with array [D, T]: array.T where yours is [T, D]"
_NUMPY = "an array of numpy (.npy)"
_TORCH = "a file of PyTorch"
_PICKLE = "a pickle"
_LFS = "a pointer of Git LFS"
_PAGE = "a web page"
_ADVICE = {
    _NUMPY: f"load it with np.load, and {_SAVE}",
    _TORCH: f"load it with torch.load, and {_SAVE}",
    _PICKLE: f"where it was made, {_SAVE}",
    "an HDF5 file": f"read its array with h5py, and {_SAVE}",
    "a MATLAB file": f"load it with scipy.io.loadmat, and {_SAVE}",
    _LFS: "fetch the file itself with `git lfs pull`",
    _PAGE: "the download went wrong",
    "an archive": "unpack it",
    VIDEO: "give its features, or the video where a command takes videos",
}
_BEGINNINGS = (
    (b"\x93NUMPY", _NUMPY),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB", "a MATLAB file"),
    (b"version https://git-lfs", _LFS),
    (b"<!DOCTYPE", _PAGE),
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b"\x1f\x8b", "an archive"),
    (b"7z\xbc\xaf", "an archive"),
    (b"Rar!", "an archive"),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
    (b"\x1aE\xdf\xa3", VIDEO),  # Matroska, WebM
    (b"\x00\x00\x01\xba", VIDEO),  # MPEG program stream, .vob
    (b"\x00\x00\x01\xb3", VIDEO),  # MPEG video
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),  # .wmv
    (b"FLV\x01", VIDEO),
    (b"OggS", VIDEO),
    (b"\x06\x0e\x2b\x34", VIDEO),  # MXF
    (b".RMF", VIDEO),
    (b"YUV4MPEG2", VIDEO),
    (b"DKIF", VIDEO),  # IVF
    (b"GIF8", VIDEO),
    (b"\x00\x00\x00\x01", VIDEO),  # H.264 and H.265 without a container
    (b"{", "JSON"),
)


def kind_of(path: str | Path) -> str | None:
    """What a file is by its first bytes: a video, an array of numpy, a page that was downloaded in its place ...

    None for what is not known, such as a zip archive of arrays, which ``.npz`` is.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "v1.npz"
        >>> _ = path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
        >>> kind_of(path)
        'a pointer of Git LFS'
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(600)
    except OSError:
        return None
    if not start:
        return "empty"
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    if start[4:8] == b"ftyp" or (start[:4] == b"RIFF" and start[8:11] == b"AVI"):
        return VIDEO
    if len(start) > 376 and start[0] == start[188] == start[376] == 0x47:  # MPEG transport stream
        return VIDEO
    if start.startswith(b"PK"):
        return _kind_of_zip(Path(path))
    return None


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive raises anything
        return None
    if any(name.endswith("data.pkl") for name in names):
        return _TORCH
    return None if any(name.endswith(".npy") for name in names) else "an archive"


def npz_fault(path: str | Path, failure: object) -> str:
    """What to say of a file that cannot be read as ``.npz``: what it is instead, and what to do; else the failure."""
    kind = kind_of(path)
    if kind is None:
        return f"not a readable .npz file (truncated or damaged?): {failure}"
    advice = _ADVICE.get(kind, "").format(stem=Path(path).stem)
    return f"this is {kind}, not an .npz file{f'; {advice}' if advice else ''}"
