"""Imports between folders go one way, in the order in which data flows, and importing the package stays light."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import backtal

PACKAGE = Path(backtal.__file__).parent
ORDER = [
    *("errors", "files", "ops", "segments", "clicks", "data", "settings", "video", "hub", "nn", "interop"),
    *("evaluation", "training", "plot", "report", "annotate", "demo", "environment", "cli", "__main__"),
]
HEAVY = [
    *("triton", "torchvision", "matplotlib", "av", "cv2", "timm", "ray", "starlette", "uvicorn", "pandas"),
    "accelerate",
]


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of the package that the code imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module="backtal", names=names):
                yield from ((node.lineno, f"backtal.{alias.name}") for alias in names if alias.name != "__version__")
            case ast.ImportFrom(module=str(module), level=0) if module.startswith("backtal."):
                yield node.lineno, module
            case ast.ImportFrom(level=level) if level:
                yield node.lineno, "a relative name"
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names if alias.name.startswith("backtal."))


def faults(path: str, source: str) -> Iterator[str]:
    """What breaks the order in the code of a file, whose path counts from the package's folder."""
    folder = path.split("/")[0].removesuffix(".py")
    for line, name in imported(source):
        other = name.removeprefix("backtal.").split(".")[0]
        if other not in ORDER:
            yield f"backtal/{path}:{line} imports {name}: not where it is defined"
        elif ORDER.index(other) > ORDER.index(folder):
            yield f"backtal/{path}:{line} imports {name}, but {other} comes after {folder}"


def test_imports_go_one_way():
    found = []
    for file in PACKAGE.rglob("*.py"):
        if file != PACKAGE / "__init__.py":
            found += faults(file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


def test_every_file_and_folder_has_its_place():
    there = {entry.stem for entry in PACKAGE.iterdir() if entry.suffix == ".py" or any(entry.glob("*.py"))}
    assert there - {"__init__"} == set(ORDER)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from backtal.nn.model import X", "2 imports backtal.nn.model, but nn comes after data"),
        ("def f():\n    import backtal.training", "3 imports backtal.training, but training comes after data"),
        ("from backtal import hub", "2 imports backtal.hub, but hub comes after data"),
        (
            "from backtal import BackTALModel",
            "2 imports backtal.BackTALModel: not where it is defined",
        ),
        ("from .features import X", "2 imports a relative name: not where it is defined"),
        ("from backtal.clicks.files import X\nimport backtal\nfrom backtal import __version__", None),
    ],
)
def test_the_import_that_breaks_the_order_is_named(code, message):
    found = list(faults("data/check.py", f"import os\n{code}\n"))
    assert found == ([f"backtal/data/check.py:{message}"] if message else [])


def test_importing_the_package_stays_light():
    code = f"import sys, backtal; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_documented():
    for name in backtal.__all__:
        assert getattr(backtal, name).__doc__, name


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_folders_hand_on_what_they_list(folder):
    """The names of a folder are there, and are not modules, which a function of the same name would hide."""
    handed_on = importlib.import_module(f"backtal.{folder}")
    assert handed_on.__doc__
    for name in getattr(handed_on, "__all__", []):
        assert not isinstance(getattr(handed_on, name), ModuleType), name
