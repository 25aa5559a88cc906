"""Without any extra: what needs none works, and every command that needs one says which, in one line.

The commands run in a process in which no package of an extra can be imported, as in an environment where only
`pip install backtal` was said (`.ci/matrix` runs this file in one).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, make_folder, train_options

from backtal.cli import main

EXTRAS = [
    *("av", "cv2", "filelock", "matplotlib", "onnx", "onnxruntime", "onnxscript", "optuna", "pandas", "PIL", "ray"),
    *("starlette", "timm", "torchvision", "uvicorn"),
]
# huggingface-hub, torch or accelerate may bring these: a bare environment can have them.
EXTRAS.remove("filelock")

NETWORK = ["--model", "run"]
WORK = {
    "train": ["data", "--out", "run", *train_options(*TINY[:-2], "epochs=1")],
    "localize": ["data", *NETWORK, "--out", "found.json"],
    "evaluate": ["found.json", "--data", "data"],
    "predictions": ["found.json", "--to", "csv", "--out", "found.csv"],
    "diagnose": ["found.json", "--data", "data"],
    "dataset": ["check", "data"],
    "clicks": ["stats", "data"],
    "recipes": [],
    "info": ["--environment"],
    "export": ["run", "--format", "torch", "--out", "model.pt2"],
}
S3D, MINE = ["--extractor", "torchvision/s3d"], ["--extractor", "mine.py:build"]
NEED = {
    "extract": (["film.mp4", *MINE, "--out", "features"], "reading video needs PyAV", "video"),
    "extract by torchvision": (["film.mp4", *S3D, "--out", "features"], "torchvision/s3d needs torchvision", "video"),
    "extract by Ray": (["film.mp4", *MINE, "--out", "features", "--engine", "ray"], "needs Ray Data", "ray"),
    "localize": (["film.mp4", *NETWORK, *MINE, "--out", "o.json"], "reading video needs PyAV", "video"),
    "watch": (["film.mp4", *NETWORK, *MINE], "reading video needs PyAV", "video"),
    "annotate": (["data", "--labels", "labels.txt"], "the page needs the package av", "annotate"),
    "plot": (["timeline", "data", *NETWORK, "--video", "v6", "--out", "a.png"], "pictures need matplotlib", "plot"),
    "report": (["run", "--data", "data", "--out", "r.html"], "pictures need matplotlib", "plot"),
    "diagnose": (["found.json", "--data", "data", "--figure", "f.png"], "pictures need matplotlib", "plot"),
    "export": (["run", "--out", "m.onnx"], "ONNX export needs onnx, onnxscript, onnxruntime", "export"),
    "tune": (["data", *NETWORK, "--out", "tuned"], "tuning needs the package optuna", "tune"),
}
ELSEWHERE = {"ablate": "trains, as train does", "convert": "tests/interop", "demo": "tests/test_demo.py"}

EXTRACTOR = """
import torch
from backtal import FeatureSpec
from backtal.video import Extractor

def build(name, options):
    return Extractor(FeatureSpec("mine", fps=4, window=1, stride=1, dim=8), torch.nn.Identity())
"""
SCRIPT = """
import importlib.machinery, json, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nothing())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in {extras} else find_spec(name, *rest)
from click.testing import CliRunner
from backtal.cli import main
from backtal.segments import to_pandas
from backtal.video import chosen_extractor
from backtal.video.flow import flow_function

results = []
for words in json.load(sys.stdin):
    done = CliRunner().invoke(main, words)
    failure = done.exception
    known = failure is None or isinstance(failure, SystemExit)
    results.append([done.exit_code, done.stderr if known else repr(failure)])
for call in (
    lambda: chosen_extractor("i3d-rgb"),
    lambda: chosen_extractor("torchvision/s3d"),
    lambda: chosen_extractor("timm/resnet18"),
    lambda: flow_function("raft_small"),
    lambda: flow_function("tvl1"),
    lambda: to_pandas([]),
):
    try:
        call()
        results.append([0, ""])
    except Exception as failure:
        results.append([1, f"{{type(failure).__name__}}: {{failure}}"])
print(json.dumps(results), file=sys.__stdout__)
"""
CALLS = {
    "i3d": "ConfigError: extractor i3d-rgb: needs 1 file(s) of weights",  # and no package
    "torchvision": "extractor torchvision/s3d needs torchvision",
    "timm": "extractor timm/resnet18 needs timm",
    "raft": "flow raft_small needs torchvision",
    "tvl1": "TV-L1 needs OpenCV with its contributed modules",
    "pandas": "data frames need pandas",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[tuple[str, str], tuple[int, str]]:
    folder = tmp_path_factory.mktemp("bare")
    make_folder(folder / "data")
    (folder / "labels.txt").write_text("jump\nrun\n")
    (folder / "mine.py").write_text(EXTRACTOR)
    (folder / "film.mp4").write_bytes(b"")
    commands = [[name, *words] for name, words in WORK.items()]
    commands += [[name.split()[0], *words] for name, (words, _, _) in NEED.items()]
    places = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(extras=EXTRAS)],
        input=json.dumps(commands), cwd=folder, env=os.environ | {"PYTHONPATH": places},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    keys = [("work", name) for name in WORK] + [("need", name) for name in NEED] + [("call", name) for name in CALLS]
    return dict(zip(keys, map(tuple, json.loads(done.stdout)), strict=True))


@pytest.mark.parametrize("name", WORK)
def test_works_without_an_extra(name, results):
    code, said = results["work", name]
    assert code == 0, said


@pytest.mark.parametrize("name", NEED)
def test_says_which_extra_it_needs(name, results):
    code, said = results["need", name]
    _, reason, extra = NEED[name]
    assert code in (1, 2)
    assert reason in said
    assert f"pip install -e '.[{extra}]' in a checkout of backtal; pip install 'backtal[{extra}]' once" in said
    assert said.splitlines()[-1].lstrip().startswith(f"backtal {name.split()[0]}")  # after progress, if any
    assert "Traceback" not in said


@pytest.mark.parametrize("name", CALLS)
def test_functions_say_it_too(name, results):
    code, said = results["call", name]
    assert code == 1
    assert said.startswith(CALLS[name] if name == "i3d" else f"ImportError: {CALLS[name]}: pip install"), said


def test_every_command_is_looked_at():
    looked_at = {name.split()[0] for name in (*WORK, *NEED, *ELSEWHERE)}
    assert looked_at == set(main.commands)
