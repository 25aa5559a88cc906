"""What a release needs agrees: version, changelog, citation, tested Pythons, workflows and what they call."""

import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_version_changelog_and_citation_agree():
    heading = re.search(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {heading[1], citation["version"], version("backtal")} == {PROJECT["version"]}
    assert str(citation.get("date-released", "unreleased")) == heading[2]
    assert citation["license"] == PROJECT["license"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paper = citation["preferred-citation"]
    assert paper["title"] in readme
    assert all(f"{person['family-names']}, {person['given-names']}" in readme for person in paper["authors"])


def test_pythons_that_are_named_are_tested():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    checks = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    tested = checks["jobs"]["quick"]["strategy"]["matrix"]["python"]
    assert named == tested
    assert PROJECT["requires-python"] == f">={named[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_what_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}  # more only where a job says so
    for script in re.findall(r"\.ci/\w+", text):
        assert os.access(ROOT / script, os.X_OK), script


def test_forms_ask_for_a_command_that_is_there():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert any("backtal info --environment" in str(part["attributes"]) for part in form["body"]), path.name


def test_both_ways_to_install_an_extra_are_said():
    """Before the first release and after it."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for extra in re.findall(r"pip install -e '\.\[(\w+)\]'", text):
            if extra != "test":
                assert f"pip install 'backtal[{extra}]'" in text, f"{page.name}: say what it is after the release"
