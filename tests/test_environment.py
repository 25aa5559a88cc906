"""`backtal info --environment`: what a report of a problem needs, and nothing about the person."""

import getpass
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from click.testing import CliRunner

from backtal import environment as module
from backtal.cli import main
from backtal.environment import environment


def test_versions_device_and_backends_are_said():
    found = json.loads(CliRunner().invoke(main, ["info", "--environment", "--json"]).stdout)
    assert found == environment()
    assert found["backtal"] == version("backtal")
    assert found["packages"]["core"]["torch"] == version("torch")
    assert {"video", "plot", "annotate", "export"} <= set(found["packages"])
    assert "test" not in found["packages"]
    assert found["backends"]["blas"] == "runs"
    printed = CliRunner().invoke(main, ["info", "--environment"]).stdout
    assert f"numpy {version('numpy')}" in printed
    assert f"python              {platform.python_version()}\n" in printed
    for private in (str(Path.home()), getpass.getuser() + "@", platform.node()):
        assert private not in printed


def test_what_is_not_installed_and_what_cannot_run_is_said(monkeypatch):
    monkeypatch.setattr(module, "requires", lambda name: ["numpy>=2", "no-such-package>=3 ; extra == 'video'"])
    monkeypatch.setattr(module, "why_not_triton", lambda x: "needs the package triton, which is not installed")
    lines = module.environment_text().splitlines()
    assert "extra video         no-such-package not installed" in lines
    assert "triton backend      needs the package triton, which is not installed" in lines


def test_the_device_is_named(monkeypatch):
    assert " cores, " in environment()["device"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert environment()["device"].startswith("Apple's MPS, ")


def test_a_checkpoint_or_the_environment():
    for arguments in (["info"], ["info", "shrec22", "--environment"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert "name a checkpoint or a recipe, or ask for --environment" in done.stderr
