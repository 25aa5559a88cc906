"""Whatever a checkpoint folder holds, loading it gives a valid model or a CheckpointError, in bounded memory and time.

``BACKTAL_HOSTILE=10000 pytest tests/hub/test_hostile_checkpoints.py`` tries that many folders.
"""

import dataclasses
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import processes
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtal import BackTALModel, CheckpointError, FeatureSpec, LocalizationConfig, ModelConfig
from backtal.hub.checkpoint import MAX_HEADER

EXAMPLES = int(os.environ.get("BACKTAL_HOSTILE", "300"))
FILES = ("config.json", "model.safetensors")
CONFIG = ModelConfig(
    feature_dim=5,
    labels=("run", "Weitsprung", "跳远"),
    hidden_dim=6,
    filter_dim=3,
    embedding_dim=4,
    embedding_hidden_dim=4,
    standardize=True,
    feature_spec=FeatureSpec("i3d", fps=25.0, dim=5),
)


def stored(dtype: torch.dtype) -> dict[str, bytes]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        BackTALModel(CONFIG).save_pretrained(folder, facts={"data": "none"}, dtype=dtype)
        return {name: (Path(folder) / name).read_bytes() for name in FILES}


VALID = [stored(dtype) for dtype in (torch.float32, torch.float16)]
FIELDS = [("model", f.name) for f in dataclasses.fields(ModelConfig)]
FIELDS += [("localization", f.name) for f in dataclasses.fields(LocalizationConfig)]
FIELDS += [("model", "feature_spec", f.name) for f in dataclasses.fields(FeatureSpec)]
FIELDS += [("architecture",), ("model",), ("localization",), ("facts",), ("facts", "data"), ()]


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ODD_TEXT = [
    "",
    "a" * 300,
    "\x00",
    "\x1b[2J",
    "\ud800",
    "\u202e",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "__class__",
]
ODD_VALUES = [
    *(None, True, False, 0, -1, 1, 2, 7, 1.5, 101, 1001, 2**20, 2**20 + 1, 2**31, 2**53, 2**63, 10**400, -(2**63)),
    *(0.0, -0.0, 5e-324, 1e-9, 1e308, float("nan"), float("inf"), [], {}, [[]], nested(50), nested(900), {"": {}}),
    *([1], ["a", "a"], ["a"] * 3, ["a", 1], [""], list("abc"), list(map(str, range(20_000))), ["x" * 10**5, "b", "c"]),
    *([0, 1, 1e-12], [0.1, 0.9, 0.1], [0, 1e15, 1], "softmax", "minmax", "channel_blocks", "per_tap"),
    *ODD_TEXT,
    *([text, "b", "c"] for text in ODD_TEXT),
]
RAW_CONFIGS = [
    *(b"", b"{", b"null", b"[]", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'"\xed\xa0\x80"', b"{" * 10**5, b"[" * 10**6),
    *(b'{"a": 1' + b"0" * 5000 + b"}", b'{"model": {}, "model": {}, "localization": {}}', b" " * (2**20 + 1)),
    *(b'{"model": {"labels": ["a"], "labels": ["b"]}, "localization": {}}', b'{"a":' * 5000, b"[" * 500 + b"]" * 500),
    '{"model": {}, "localization": {}}'.encode("utf-16"),
]
DTYPES = ["F16", "BF16", "F64", "F8_E4M3", "F8_E8M0", "F4", "I64", "U8", "BOOL", "C64", "f32", "", 3, None]
SHAPES = [[], [0], [1], [-1], [2**62], [2**32, 2**32], [1] * 1000, [1.5], None, "6", [6, 5, 3, 1], [3, 5, 6]]
OFFSETS = [[0, 0], [0, 8], [8, 0], [0, 2**62], [-8, 0], [0, 10**9], [1, 5], None, [0], "0"]
LENGTHS = [0, 1, 2, 7, 2**20, 2**20 + 1, 10**8, 2**31, 2**63, 2**64 - 1]


def corrupt(draw: st.DrawFn, files: dict[str, bytes | None]) -> None:
    """Apply one corruption to the files of a checkpoint; None stands for a missing file."""
    kind = draw(st.sampled_from(["bytes", "bytes", "field", "field", "raw", "header", "header", "data", "special"]))
    if kind == "bytes":
        name = draw(st.sampled_from(FILES))
        files[name] = corrupt_bytes(draw, files[name] or b"")
    elif kind == "raw":
        files["config.json"] = draw(st.one_of(st.sampled_from(RAW_CONFIGS), st.binary(max_size=200)))
    elif kind == "special":
        files[draw(st.sampled_from(FILES))] = None
    elif kind == "field":
        files["config.json"] = corrupt_field(draw, files["config.json"])
    else:
        files["model.safetensors"] = corrupt_tensors(draw, files["model.safetensors"] or b"", kind)


def corrupt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "append", "overwrite", "swap"]))
    place = draw(st.integers(0, max(len(changed) - 1, 0)))
    if how == "flip" and changed:
        for _ in range(draw(st.integers(1, 8))):
            changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif how == "cut":
        del changed[place:]
    elif how == "append":
        changed += draw(st.binary(min_size=1, max_size=100))
    elif how == "overwrite":
        junk = draw(st.binary(min_size=1, max_size=20))
        changed[place : place + len(junk)] = junk
    else:
        changed = changed[place:] + changed[:place]
    return bytes(changed)


def corrupt_field(draw: st.DrawFn, content: bytes | None) -> bytes:
    """Set, add or delete a value anywhere in the configuration, where it is still one."""
    try:
        config = json.loads(content or b"")
        *parents, name = draw(st.sampled_from(FIELDS[:-1]))
        part = config
        for parent in parents:
            part = part[parent]
        how = draw(st.sampled_from(["set", "set", "set", "add", "delete"]))
        if how == "delete":
            del part[name]
        else:
            junk = st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5
            )
            value = draw(st.one_of(st.sampled_from(ODD_VALUES), junk))
            part[draw(st.sampled_from(ODD_TEXT)) if how == "add" else name] = value
        return json.dumps(config).encode()
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return content or b"{}"


def corrupt_tensors(draw: st.DrawFn, content: bytes, kind: str) -> bytes:
    """Change the header of a safetensors file, its length field, or the values themselves."""
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
        data = content[8 + length :]
        if kind == "data":
            value = draw(st.sampled_from([b"\xff", b"\x7f", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\x00\x7c"]))
            place = draw(st.integers(0, max(len(data) - 4, 0)))
            return content[: 8 + length] + data[:place] + value + data[place + len(value) :]
        name = draw(st.sampled_from(sorted(header)))
        how = draw(
            st.sampled_from(["dtype", "shape", "data_offsets", "drop", "rename", "add", "twice", "length", "meta"])
        )
        values = {"dtype": DTYPES, "shape": SHAPES, "data_offsets": OFFSETS}
        if how in values:
            header[name][how] = draw(st.sampled_from(values[how]))
        elif how == "drop":
            del header[name]
        elif how == "rename":
            header[draw(st.sampled_from(ODD_TEXT))] = header.pop(name)
        elif how == "add":
            header[draw(st.sampled_from(ODD_TEXT))] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        elif how == "meta":
            header["__metadata__"] = draw(
                st.sampled_from([{"a": "b"}, {"a": 1}, [], "x", nested(200), {"a": "b" * 10**6}])
            )
        text = json.dumps(header).encode()
        if how == "twice":
            text = text[:-1] + b"," + json.dumps({name: header[name]}).encode()[1:]
        size = draw(st.sampled_from(LENGTHS)) if how == "length" else len(text)
        return size.to_bytes(8, "little") + text + data
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return content


@st.composite
def folders(draw: st.DrawFn) -> dict[str, bytes | None]:
    files: dict[str, bytes | None] = dict(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        corrupt(draw, files)
    return files


def put(folder: Path, files: dict[str, bytes | None]) -> Path:
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def check(folder: Path) -> bool:
    """Load; True for a valid model, False for a CheckpointError that can be shown to somebody."""
    began = time.monotonic()
    try:
        model = BackTALModel.from_pretrained(folder)
    except CheckpointError as failure:
        text = str(failure)
        assert text.startswith(str(folder))
        assert text.isprintable()
        assert len(text) < 1500
        return False
    finally:
        assert time.monotonic() - began < 30
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in model.state_dict().values())
    classes = len(model.config.labels) + 1
    with torch.inference_mode():
        assert model(torch.zeros(1, model.config.feature_dim, 9)).cas.shape == (1, classes, 9)
    for label in model.config.labels:
        assert label.encode()
    return True


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 300,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(files=folders())
def test_any_folder_loads_or_is_refused(files):
    with tempfile.TemporaryDirectory() as folder:
        check(put(Path(folder), files))


@pytest.mark.parametrize("value", range(len(ODD_VALUES)))
def test_every_odd_value_in_every_field(tmp_path, value):
    put(tmp_path, VALID[0])
    for *parents, name in FIELDS[:-1]:
        config = json.loads(VALID[0]["config.json"])
        part = config
        for parent in parents:
            part = part[parent]
        part[name] = ODD_VALUES[value]
        (tmp_path / "config.json").write_text(json.dumps(config))
        check(tmp_path)


@pytest.mark.parametrize("content", RAW_CONFIGS, ids=range(len(RAW_CONFIGS)))
def test_no_raw_configuration_loads(tmp_path, content):
    assert not check(put(tmp_path, VALID[0] | {"config.json": content}))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "dangling", "unreadable"])
def test_what_is_no_file_is_refused(tmp_path, name, kind):
    put(tmp_path, VALID[0])
    assert check(tmp_path)
    path = tmp_path / name
    if kind != "unreadable":
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read anything")
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": tmp_path / "nothing"}[kind])
    assert not check(tmp_path)


HUGE = """
import re, sys
from pathlib import Path
from backtal import BackTALModel, CheckpointError

def resident(which):
    return int(re.search(which + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

BackTALModel.from_pretrained(sys.argv[1])
for folder in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")       # the peak starts again
    before = resident("VmRSS")
    try:
        BackTALModel.from_pretrained(folder)
        print(0, folder, "was loaded")
    except CheckpointError as failure:
        print(resident("VmHWM") - before, failure)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_memory_stays_bounded(tmp_path):
    """Each of these claims or holds gigabytes; refusing it takes less than 64 MiB (sparse files: no disk either)."""
    many = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(MAX_HEADER // 70)}

    def header(claims: dict) -> bytes:
        text = json.dumps(claims).encode()
        return len(text).to_bytes(8, "little") + text

    def config(**changes) -> bytes:
        content = json.loads(VALID[0]["config.json"])
        content["model"] |= changes
        return json.dumps(content).encode()

    def claims(width: int) -> bytes:
        """A header for just that trunk, over no data at all."""
        with torch.device("meta"):
            state = BackTALModel(dataclasses.replace(CONFIG, hidden_dim=width)).state_dict()
        entries, place = {}, 0
        for name, tensor in state.items():
            end = place + 4 * tensor.numel()
            entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [place, end]}
            place = end
        return header(entries)

    cases: dict[str, dict[str, bytes]] = {
        "wide": {"config.json": config(hidden_dim=2**20)},
        "wide-and-deep": {"config.json": config(hidden_dim=2**20, num_layers=100)},
        "deep": {"config.json": config(num_layers=100)},
        "long-kernel": {"config.json": config(hidden_dim=2**20, kernel_size=999, filter_dim=2**20)},
        "labels": {"config.json": config(labels=[f"{i:06}" for i in range(100_000)])},
        "many-labels": {"config.json": config(labels=[f"{i}" for i in range(10_000)])},
        "brackets": {"config.json": b'{"model": [' + b"[],{}," * 170_000 + b'1], "localization": {}}'},
        "objects": {"config.json": b'{"model": [' + b'{"a":[]},' * 116_000 + b'1], "localization": {}}'},
        "long-message": {"config.json": config(hidden_dim=[[]] * 200_000)},
        "many-tensors": {"model.safetensors": header(many)},
        "claims": {"config.json": config(hidden_dim=6000), "model.safetensors": claims(6000)},
        "huge-config": {"config.json": b"{"},
        "huge-weights": {"model.safetensors": VALID[0]["model.safetensors"]},
        "huge-header": {"model.safetensors": (2**35).to_bytes(8, "little") + b"{"},
        "long-header": {"model.safetensors": (2**26).to_bytes(8, "little") + b"{" + b" " * 2**26},
    }
    folders = []
    for name, files in {"valid": {}, **cases}.items():
        folder = tmp_path / name
        folder.mkdir()
        folders.append(put(folder, VALID[0] | files))
    for name, file in (("huge-config", FILES[0]), ("huge-weights", FILES[1]), ("huge-header", FILES[1])):
        os.truncate(tmp_path / name / file, 2**36)
    done = processes.run(processes.code, HUGE, *folders, check=True)
    grown = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert len(grown) == len(cases), done.stdout
    for growth, message in grown:
        assert "was loaded" not in message
        assert int(growth) < 2**26, message


@pytest.fixture(scope="module", autouse=True)
def _report():
    """How much memory the whole module took, for those who run it with many examples."""
    yield
    if EXAMPLES > 300:
        print(f"\npeak RSS: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr)
