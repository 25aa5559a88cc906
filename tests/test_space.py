"""The page of `examples/space` in a browser: the example is found at once, files come down, a phone can read it."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from annotate_server import chromium

pytest.importorskip("gradio")
pytest.importorskip("av")
pytest.importorskip("matplotlib")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.long

SPACE = Path(__file__).parents[1] / "examples" / "space"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    folder = tmp_path_factory.mktemp("space")
    with subprocess.Popen(
        [sys.executable, SPACE / "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(r"http://\S+", line):
                yield found[0]
                break
        else:
            pytest.fail("the page does not begin")
        server.kill()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, address, **options):
    """The page once it shows what is in the example; everything that it loads lies on this machine."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(120_000)
    page.route(lambda url: not url.startswith(address), lambda route: route.abort())
    page.goto(address)
    page.locator(".timeline img").wait_for()
    return page


def test_the_example_is_shown_and_comes_down(browser, address, tmp_path):
    page = opened(browser, address)
    assert "4 segments in 40.0 s" in page.locator("body").inner_text()
    for name in ("CIRCLE", "V", "WAVE", "GRAB"):
        assert page.get_by_role("gridcell", name=name, exact=True).count() == 1
    files = {}
    for name in ("JSON", "CSV"):
        with page.expect_download() as started:
            page.get_by_role("button", name=name).click()
        files[name] = tmp_path / name
        started.value.save_as(files[name])
    rows = list(csv.DictReader(files["CSV"].read_text(encoding="utf-8").splitlines()))
    assert [row["label"] for row in rows] == ["CIRCLE", "V", "WAVE", "GRAB"]
    assert [round(float(row["start"])) for row in rows] == [4, 12, 20, 31]
    (found,) = json.loads(files["JSON"].read_text())["results"].values()
    assert {segment["label"] for segment in found} == {"CIRCLE", "V", "WAVE", "GRAB"}
    if pictures := os.environ.get("BACKTAL_PICTURES"):
        page.screenshot(path=Path(pictures) / "space.png", full_page=True)


def test_what_cannot_be_read_is_said(browser, address, tmp_path):
    page = opened(browser, address)
    (tmp_path / "mine.npz").write_bytes(b"no features")
    page.get_by_label("Clear").first.click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.npz")
    page.get_by_text("mine.npz").wait_for()
    page.get_by_role("button", name="Find the actions").click()
    page.get_by_text("not a readable .npz file").wait_for()
    page.get_by_label("Checkpoint").fill("/etc")
    page.get_by_label("Checkpoint").press("Enter")
    page.get_by_role("button", name="Find the actions").click()
    page.get_by_text("/etc: not the name of a checkpoint").wait_for()


def test_a_phone_shows_it_too(browser, address):
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    button = page.get_by_role("button", name="Find the actions").bounding_box()
    assert button["width"] > 200
    if pictures := os.environ.get("BACKTAL_PICTURES"):
        page.screenshot(path=Path(pictures) / "space-phone.png", full_page=True)
