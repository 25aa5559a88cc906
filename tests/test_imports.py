"""Imports go one way, in the order in which data flows, and importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import backtal

PACKAGE = Path(backtal.__file__).parent
ORDER = [
    *("errors", "files", "segments", "predictions", "clicks", "click_files", "features", "npy", "config", "presets"),
    *("annotations", "click_stats", "datasets", "layouts", "check", "ops", "layers", "cas", "losses", "localize"),
    *("checkpoint", "hub", "video", "stream", "model", "ensemble", "convert", "info", "evaluate", "topk", "diagnose"),
    *("train", "tune", "experiment", "plot", "report", "export", "annotate", "demo", "cli", "__main__"),
]
HEAVY = [
    *("triton", "torchvision", "matplotlib", "av", "cv2", "timm", "ray", "starlette", "uvicorn", "pandas"),
    "accelerate",
]


def test_imports_point_upwards():
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "backtal":
                parts = node.module.split(".")
                names = [parts[1]] if len(parts) > 1 else [a.name for a in node.names if a.name in ORDER]
                for name in names:
                    assert ORDER.index(name) <= ORDER.index(module), f"{module} imports {name}"


def test_importing_the_package_stays_light():
    code = f"import sys, backtal; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_documented():
    for name in backtal.__all__:
        assert getattr(backtal, name).__doc__, name
