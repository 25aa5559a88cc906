"""The click page in a real browser: from start to end by mouse and by keyboard, and everything that may go wrong."""

import contextlib
import json
import re
import shutil
import time
from urllib.parse import quote

import numpy as np
import pytest
from annotate_server import Served, chromium, make_videos
from click.testing import CliRunner
from conftest import TINY, train_options

from backtal import read_clicks
from backtal.cli import main
from backtal.data.datasets import DatasetFolder

pytest.importorskip("starlette")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.long

EXTRACTOR = """
import torch
from backtal import FeatureSpec
from backtal.video import Extractor

class Mean(torch.nn.Module):
    def forward(self, pictures):
        halves = pictures.float().unflatten(2, (2, -1)).mean((1, 3, 4))
        return torch.cat([halves.flatten(1), halves.flatten(1).square() / 255, halves.mean(1)], 1)[:, :14] / 255

def build(name, options):
    return Extractor(FeatureSpec("mine", fps=4, window=2, stride=2, crop="center64", dim=14), Mean(), size=64, crop=64)
"""
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    executable = chromium()
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def data(tmp_path):
    return make_videos(tmp_path / "data", {"a.mp4": 20, "b.mp4": 12, "c.avi": 6})


@pytest.fixture
def serve(tmp_path):
    """Starts servers, and stops them in the end."""
    started = []

    def start(place, *options, port=0):
        served = Served(place, "--port", str(port), *options, log=tmp_path / f"log{len(started)}.txt")
        started.append(served)
        return served

    yield start
    for served in started:
        assert "Traceback" not in served.stop()


@pytest.fixture
def visit(browser):
    """Opens the page in a browser profile of its own; fails the test for whatever the page complains about."""
    contexts, trouble = [], []

    def go(served, context=None, *, away=False, opens=True, **options):
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda failure: trouble.append(str(failure)))
        page.on("dialog", lambda dialog: leave(dialog) if dialog.type == "beforeunload" else trouble.append("dialog"))
        # That a server which was killed does not answer is what some tests are about.
        ignored = r"ERR_|40[39]|422|507" if away else r"409"
        asked = page.leaving = []

        def leave(dialog):
            asked.append(dialog)
            dialog.accept()

        page.on(
            "console",
            lambda message: None if re.search(ignored, message.text) else trouble.append(message.text),
        )
        page.goto(served.url)
        if opens:
            ready(page)
        return page

    yield go
    for context in contexts:
        context.close()
    assert trouble == []


def ready(page):
    page.wait_for_selector("#f0[style*='blob:']")


def until(page, expression):
    """Waits for a JavaScript expression; `wait_for_function` needs eval, which the page's policy forbids."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(sync_api.Error):  # in the middle of a reload
            if page.evaluate(expression):
                return
        time.sleep(0.05)
    pytest.fail(f"never: {expression}")


def named(page, video):
    """Waits until a video is on the page."""
    until(page, f"document.getElementById('name').textContent.startsWith({json.dumps(video)})")
    ready(page)


def saved(page):
    until(page, "document.getElementById('saved').textContent === 'all saved'")


def marked(page):
    return page.eval_on_selector_all(".cell[aria-selected=true]", "all => all.map(cell => Number(cell.dataset.frame))")


def on_disk(data, annotator="me"):
    path = data / "clicks" / f"{annotator}.txt"
    return {name: track.times() for name, track in read_clicks(path).items()} if path.exists() else {}


def trains(data, tmp_path):
    """Whether `backtal train` runs on what was saved."""
    (tmp_path / "mine.py").write_text(EXTRACTOR)
    videos, out = str(data / "videos"), str(data / "features")
    done = CliRunner().invoke(main, ["extract", videos, "--extractor", f"{tmp_path}/mine.py:build", "--out", out])
    assert done.exit_code == 0, done.output
    sets = train_options(*TINY)
    done = CliRunner().invoke(main, ["train", str(data), "--out", str(tmp_path / "run"), "--clicks", "me.txt", *sets])
    assert done.exit_code == 0, done.output
    return (tmp_path / "run" / "model.safetensors").exists()


def test_from_start_to_end_by_mouse(data, serve, visit, tmp_path):
    served = serve(data, "--labels", str(data / "labels.txt"))
    page = visit(served)
    assert page.locator("#videos .title").all_inner_texts() == ["a", "b", "c"]
    page.get_by_text("0:20 · new").wait_for()
    for frame in (4, 9, 20):
        page.click(f"#f{frame}")
    assert marked(page) == [4, 9, 20]
    page.click("#f9")
    saved(page)
    assert on_disk(data) == {"a": [2.0, 10.0]}
    page.click("#undo")
    saved(page)
    assert on_disk(data) == {"a": [2.0, 4.5, 10.0]}
    page.click("#undo")
    page.click("#redo")
    page.click("#redo")
    saved(page)
    assert on_disk(data) == {"a": [2.0, 10.0]}
    page.reload()
    ready(page)
    assert marked(page) == [4, 20]
    # An action click ticks its label as well.
    page.click("#mode-action")
    page.select_option("#action", "run")
    page.click("#f14")
    page.click("#mode-background")
    page.click("#finish")
    assert page.is_checked("input[value=run]")
    page.check("input[value=jump]")
    page.click("#labels button[type=submit]")
    named(page, "b")
    page.click("#f0")
    page.click("#finish")
    assert "No label is ticked" in page.inner_text("#warning")
    page.check("input[value='<i>wave</i>']")
    page.click("#labels button[type=submit]")
    named(page, "c")
    page.click("#play")
    assert "Browsers do not play .avi" in page.inner_text("#film-says")
    page.click("#film-close")
    page.click("#f11")
    page.click("#finish")
    page.check("input[value=jump]")
    page.click("#labels button[type=submit]")
    page.get_by_text("All videos are done").wait_for()
    saved(page)
    assert on_disk(data) == {"a": [2.0, 10.0], "b": [0.0], "c": [5.5]}
    assert read_clicks(data / "clicks" / "me.txt")["a"].times("run") == [7.0]
    annotations = DatasetFolder(data).annotations
    assert {name: video.labels for name, video in annotations.videos.items()} == {
        "a": {"jump", "run"},
        "b": {"<i>wave</i>"},
        "c": {"jump"},
    }
    assert "3 of 3 videos done" in page.inner_text("#total")
    page.reload()
    ready(page)
    progress = json.loads((data / "progress" / "me.json").read_text())["videos"]
    assert all(entry["done"] for entry in progress.values())
    assert sum(progress["a"]["seconds"].values()) > 0.1
    assert "paper: 48 s" in page.inner_text("#spent")
    assert trains(data, tmp_path)


def test_from_start_to_end_by_keyboard(data, serve, visit, tmp_path):
    served = serve(data, "--labels", str(data / "labels.txt"))
    page = visit(served)

    def press(*keys):
        for key in keys:
            page.keyboard.press(key)

    press("?")
    assert page.is_visible("#help")
    press("Escape")
    assert page.is_hidden("#help")
    press("ArrowRight", "ArrowRight", "Space", "End", "Space", "Home", "ArrowDown", "Enter")
    per_row = int(page.evaluate("document.querySelectorAll('.row')[0].querySelectorAll('.cell').length"))
    assert marked(page) == [2, per_row, 39]
    press("Control+z", "Control+z", "Control+y")
    assert marked(page) == [2, 39]
    press("r", "u", "u", "r")
    saved(page)
    assert on_disk(data) == {"a": [1.0, 19.5]}
    before = page.evaluate("document.querySelector('.cell').clientWidth")
    press("+")
    assert page.evaluate("document.querySelector('.cell').clientWidth") > before
    press("-", "-")
    assert page.evaluate("document.querySelector('.cell').clientWidth") < before
    press("k")
    until(page, "document.getElementById('cursor').textContent.startsWith('0:01.0')")
    press("j")
    until(page, "document.getElementById('cursor').textContent.startsWith('0:19.5')")
    press("m", "2", "ArrowLeft", "Space", "m")  # an action click on the frame before
    until(page, "location.hash.endsWith('t=19')")  # noted in the address a moment later
    page.reload()
    ready(page)
    assert page.inner_text("#cursor").startswith("0:19.0")
    press("d")
    page.keyboard.type("wav")
    press("Enter", "1", "Enter")
    named(page, "b")
    press("Space", "d", "2", "Enter")
    named(page, "c")
    press(",")
    named(page, "b")
    press("l")
    assert page.evaluate("document.activeElement.dataset.video") == "b"
    press("Tab", "Enter")
    named(page, "c")
    press("ArrowRight", "Space", "d", "3", "Enter")
    page.get_by_text("All videos are done").wait_for()
    saved(page)
    assert on_disk(data) == {"a": [1.0, 19.5], "b": [0.0], "c": [0.5]}
    assert read_clicks(data / "clicks" / "me.txt")["a"].times("run") == [19.0]
    labels = {name: video.labels for name, video in DatasetFolder(data).annotations.videos.items()}
    assert labels == {"a": {"run", "<i>wave</i>", "jump"}, "b": {"run"}, "c": {"<i>wave</i>"}}
    assert trains(data, tmp_path)


def test_two_tabs_on_one_video(data, serve, visit):
    served = serve(data, "--labels", str(data / "labels.txt"))
    first = visit(served)
    # Another browser, which hears of nothing until it saves.
    second = visit(served)
    held(second, "**/api/videos/a?*")  # nor by looking again, as the page does when it comes to the front
    first.click("#f4")
    saved(first)
    second.click("#f8")
    second.get_by_text("your changes were put on top").wait_for()
    saved(second)
    assert marked(second) == [4, 8]
    assert on_disk(data) == {"a": [2.0, 4.0]}
    second.click("#undo")  # takes back its own click alone
    saved(second)
    assert on_disk(data) == {"a": [2.0]}
    # Tabs of one browser tell each other.
    third = visit(served, first.context)
    third.click("#f12")
    saved(third)
    first.wait_for_selector("#f12[aria-selected=true]")
    assert on_disk(data) == {"a": [2.0, 6.0]}


def test_a_server_that_is_killed_between_two_clicks(data, serve, visit):
    labels = ("--labels", str(data / "labels.txt"))
    served = serve(data, *labels)
    page = visit(served, away=True)
    page.click("#f4")
    saved(page)
    served.kill()
    page.click("#f8")
    page.get_by_text("the server does not answer").wait_for()
    assert page.inner_text("#saved") == "1 change not saved"
    assert on_disk(data) == {"a": [2.0]}
    again = serve(data, *labels, port=served.port)
    page.get_by_text("open the address that").wait_for()
    page.click("#f10")
    other = visit(again, page.context, away=True)  # as the command opens it
    saved(page)
    saved(other)
    assert on_disk(data) == {"a": [2.0, 4.0, 5.0]}
    assert page.locator(".unsaved").count() == 0


def test_a_browser_that_is_closed_with_changes_unsent(data, serve, visit):
    labels = ("--labels", str(data / "labels.txt"))
    served = serve(data, *labels)
    page = visit(served, away=True)
    context = page.context
    page.click("#f4")
    saved(page)
    served.kill()
    page.click("#f4")
    page.click("#f8")
    page.get_by_text("not saved").first.wait_for()
    page.close()
    again = serve(data, *labels, port=served.port)
    other = visit(again, context)
    other.get_by_text("2 changes had not been saved; this was made up for").wait_for()
    saved(other)
    assert on_disk(data) == {"a": [4.0]}
    assert (
        other.evaluate("Object.keys(localStorage).filter(key => key.startsWith('backtal:') && key.includes(':a'))")
        == []
    )


def test_an_answer_that_is_lost_and_a_change_taken_back_meanwhile(data, serve, visit):
    served = serve(data, "--labels", str(data / "labels.txt"))
    page = visit(served, away=True)

    def lose(route):
        route.fetch()
        route.abort()

    page.click("#f4")
    saved(page)
    page.route("**/api/videos/a?*", lambda route: lose(route) if route.request.method == "PUT" else route.continue_())
    page.click("#f8")
    page.get_by_text("the server does not answer").wait_for()
    assert on_disk(data) == {"a": [2.0, 4.0]}  # it has arrived, but the page cannot know
    page.click("#undo")
    page.unroute("**/api/videos/a?*")
    until(page, "document.getElementById('saved').className === ''")
    saved(page)
    assert on_disk(data) == {"a": [2.0]}
    assert marked(page) == [4]


def test_a_change_taken_back_after_two_answers_were_lost(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")), away=True)
    puts = []

    def lose(route):
        if route.request.method != "PUT":
            route.continue_()
            return
        puts.append(route.request.post_data_json["marks"])
        if len(puts) == 1:
            route.fetch()  # arrives, and only the answer is lost; later ones do not arrive
        route.abort()

    page.route("**/api/videos/a?*", lose)
    page.click("#f8")
    page.get_by_text("the server does not answer").wait_for()
    page.click("#undo")
    while len(puts) < 2:
        page.wait_for_timeout(100)
    assert puts[-1] == []
    page.unroute("**/api/videos/a?*")
    saved(page)
    assert on_disk(data) in ({}, {"a": []})
    assert marked(page) == []


def test_an_answer_that_breaks_off_counts_as_none(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    puts = []

    def cut(route):
        if route.request.method == "PUT" and not puts:
            puts.append(route.fetch())
            route.fulfill(status=200, content_type="application/json", body='{"marks": [')
        else:
            route.continue_()

    page.route("**/api/videos/a?*", cut)
    page.click("#f8")
    page.get_by_text("the server's answer broke off").wait_for()
    page.click("#f12")
    saved(page)
    assert on_disk(data) == {"a": [4.0, 6.0]}


def test_a_change_that_was_half_written_is_taken_back_wholly(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")), away=True)

    def halve(route):
        if route.request.method == "PUT":
            # The labels are written, then the disk is full.
            route.fetch(post_data=json.dumps({**route.request.post_data_json, "done": False}))
            route.fulfill(status=507, content_type="application/json", body='{"error": "No space left on device"}')
        else:
            route.continue_()

    page.click("#f4")
    saved(page)
    page.route("**/api/videos/a?*", halve)
    page.click("#finish")
    page.check("input[value=jump]")
    page.click("#labels button[type=submit]")
    page.get_by_text("No space left on device").wait_for()
    named(page, "b")
    page.keyboard.press(",")
    named(page, "a")
    assert ticked(data) == {"a": {"jump"}}
    page.click("#undo")
    assert page.inner_text("#saved") != "all saved"
    page.unroute("**/api/videos/a?*")
    saved(page)
    assert ticked(data) == {"a": set()}
    assert "no label ticked" in page.inner_text("#counts")


def test_a_folder_that_cannot_be_written(data, serve, visit):
    served = serve(data, "--labels", str(data / "labels.txt"))
    page = visit(served, away=True)
    (data / "clicks").write_text("a file where the folder should be")
    page.click("#f4")
    page.get_by_text("Not saved yet, kept in this browser").wait_for()
    page.get_by_text("exists").wait_for()
    (data / "clicks").unlink()
    saved(page)
    assert on_disk(data) == {"a": [2.0]}


def held(page, pattern, method="GET"):
    """From now on such requests wait in the list that this returns."""
    waiting = []
    page.route(pattern, lambda route: waiting.append(route) if route.request.method == method else route.continue_())
    return waiting


def ticked(data):
    return {name: video.labels for name, video in DatasetFolder(data).annotations.videos.items()}


def done(data, annotator="me"):
    videos = json.loads((data / "progress" / f"{annotator}.json").read_text())["videos"]
    return sorted(name for name, entry in videos.items() if entry.get("done"))


def test_keys_pressed_while_the_next_video_is_on_its_way_go_to_no_video(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    page.click("#f4")
    waiting = held(page, "**/api/videos/b?*")
    for key in ("d", "1", "Enter", "d", "Enter", "Space"):
        page.keyboard.press(key)
    page.click("#finish")
    assert page.is_hidden("#labels")
    assert marked(page) == [4]
    until(page, "document.getElementById('total').textContent.startsWith('1 of 3')")
    saved(page)
    waiting[0].continue_()
    named(page, "b")
    assert marked(page) == []
    page.keyboard.press("d")
    assert page.locator("#choices input:checked").count() == 0
    page.keyboard.press("Escape")
    assert (ticked(data), done(data), on_disk(data)) == ({"a": {"jump"}}, ["a"], {"a": [2.0]})


def test_of_two_videos_asked_for_the_last_one_comes(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    waiting = held(page, "**/api/videos/b?*")
    page.click("button[data-video=b]")
    page.click("button[data-video=c]")
    named(page, "c")
    with page.expect_response("**/api/videos/b?*"):
        waiting[0].continue_()
    page.click("#f2")
    saved(page)
    assert page.inner_text("#name") == "c"
    assert on_disk(data) == {"c": [1.0]}


def test_a_label_ticked_elsewhere_while_the_dialog_is_open_stays(data, serve, visit):
    served = serve(data, "--labels", str(data / "labels.txt"))
    first = visit(served)
    second = visit(served, first.context)
    first.click("#finish")
    second.click("#finish")
    second.check("input[value=run]")
    second.keyboard.press("Escape")
    until(first, "document.getElementById('counts').textContent.includes('run')")
    first.check("input[value=jump]")
    first.keyboard.press("Escape")
    until(first, "document.getElementById('counts').textContent.includes('jump')")
    saved(first)
    assert ticked(data) == {"a": {"jump", "run"}}
    first.click("#finish")
    first.keyboard.type("jum")
    first.keyboard.press("Enter")  # ticks it, which it is already
    assert first.is_checked("input[value=jump]")
    first.uncheck("input[value=jump]")
    first.keyboard.press("Escape")
    until(first, "!document.getElementById('counts').textContent.includes('jump')")
    saved(first)
    assert ticked(data) == {"a": {"run"}}


def test_names_are_text_and_never_markup(tmp_path, serve, visit):
    data = make_videos(tmp_path / "data", {f"{EVIL}.mp4": 5, "50% #1?&+é.mp4": 5})
    (data / "labels.txt").write_text(f"{EVIL}\n")
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    page.get_by_role("button", name=EVIL).click()
    named(page, EVIL)
    assert page.inner_text("#name") == EVIL
    page.click("#mode-action")
    page.click("#f3")
    assert page.inner_text("#f3 .badge") == EVIL
    page.click("#finish")
    page.click("#labels button[type=submit]")
    named(page, "50%")
    page.click("#mode-background")
    page.click("#f2")
    saved(page)
    assert page.locator("img").count() == 0
    assert on_disk(data) == {EVIL: [], "50% #1?&+é": [1.0]}


def test_annotators_have_their_own_clicks(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt"), "--annotator", "anna"))
    page.click("#f4")
    saved(page)
    page.select_option("#who", "")
    page.fill("#newcomer-name", "ben")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('who').value === 'ben'")
    ready(page)
    assert marked(page) == []
    page.click("#f6")
    saved(page)
    assert (on_disk(data, "anna"), on_disk(data, "ben")) == ({"a": [2.0]}, {"a": [3.0]})
    page.select_option("#who", "anna")
    until(page, "document.getElementById('who').value === 'anna'")
    page.wait_for_selector("#f4[aria-selected=true]")


def test_names_that_the_server_refuses(data, serve, visit):
    served = serve(data, "--labels", str(data / "labels.txt"))
    page = visit(served, away=True)
    page.select_option("#who", "")
    for name in ("ben", "Ève 2", "a_b.c-d", "x", "O'Brien", "../me", ".ben", "ben-", "", "a:b"):
        page.fill("#newcomer-name", name)
        taken = served.ask(f"/api/videos?annotator={quote(name)}")[0] == 200 and name != ""
        assert page.evaluate("document.getElementById('newcomer-name').checkValidity()") == taken, name
    page.fill("#newcomer-name", "O'Brien")
    page.keyboard.press("Enter")
    assert page.is_visible("#newcomer")
    page.keyboard.press("Escape")
    # The same name from an old address.
    page.evaluate("location.hash = 'who=O%27Brien&video=b'")
    page.reload()
    page.get_by_text("a name has up to 40 letters").wait_for()
    named(page, "b")
    assert page.input_value("#who") == "me"
    assert "Brien" not in page.url


def test_what_one_annotator_could_not_save_is_saved_after_another_came(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")), away=True)
    page.select_option("#who", "")
    page.fill("#newcomer-name", "ben")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('who').value === 'ben'")
    ready(page)
    # On its way: the page waits for it.
    waiting = held(page, "**/api/videos/a?*", "PUT")
    page.click("#f4")
    page.select_option("#who", "me")
    page.wait_for_timeout(500)
    assert page.input_value("#who") == "ben"
    waiting[0].continue_()
    page.unroute("**/api/videos/a?*")
    until(page, "document.getElementById('who').value === 'me'")
    ready(page)
    assert on_disk(data, "ben") == {"a": [2.0]}
    assert page.leaving == []
    # It cannot be saved: the browser asks, and keeps it.
    page.route("**/api/videos/a?*", lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    page.click("#f6")
    page.get_by_text("the server does not answer").wait_for()
    page.select_option("#who", "ben")
    until(page, "document.getElementById('who').value === 'ben'")
    page.get_by_text("a (me): 1 change had not been saved; this was made up for").wait_for()
    assert [dialog.type for dialog in page.leaving] == ["beforeunload"]
    assert page.inner_text("#saved") != "all saved"
    page.unroute("**/api/videos/a?*")
    saved(page)
    assert on_disk(data) == {"a": [3.0]}
    assert marked(page) == [4]


def test_the_film_plays_and_the_cursor_goes_with_it(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    page.click("#f4")
    page.keyboard.press("v")
    cursor = "Number(document.querySelector('.cursor').dataset.frame)"
    until(page, f"{cursor} >= 6")
    page.keyboard.press("v")
    assert page.evaluate("document.getElementById('video').paused")
    assert page.evaluate(f"{cursor} / 2 <= document.getElementById('video').currentTime")  # it never runs ahead
    page.keyboard.press("Escape")
    assert page.is_hidden("#film")


def test_a_video_that_cannot_be_read_is_passed_over(data, serve, visit):
    shutil.copy(data / "labels.txt", data / "videos" / "a.mp4")
    (data / "videos" / "b2.mp4").write_text("nothing either")
    page = visit(serve(data, "--labels", str(data / "labels.txt")), away=True)
    named(page, "b")
    assert page.is_enabled("#finish")
    page.keyboard.press(".")
    named(page, "c")
    page.keyboard.press(",")
    named(page, "b")
    # The page asks for what the server has read; ever less often where a file stays unread.
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/api/videos?" in request.url else None)
    page.wait_for_timeout(9000)
    assert len(asked) <= 2


def test_opening_many_videos_does_not_make_the_page_ask_more_often(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    asked = []

    def advised(route):
        asked.append(route.request.url)
        content = route.fetch().json() | {"advised": True}
        content["videos"][2]["duration"] = None  # is still being read
        route.fulfill(json=content)

    advice = {"labels": ["jump"], "suggestions": []} | dict.fromkeys(["background", "strongest", "which"], [0] * 40)
    page.route("**/api/videos?*", advised)
    page.route("**/api/videos", advised)
    page.route("**/suggestions?*", lambda route: route.fulfill(json=advice))
    page.reload()
    ready(page)
    for video in "babababa":
        with page.expect_response("**/api/videos?*"):  # asks again when the advice is there
            page.click(f"button[data-video={video}]")
        named(page, video)
    page.wait_for_timeout(1000)
    asked.clear()
    page.wait_for_timeout(9000)
    assert len(asked) <= 3


def test_a_folder_with_no_video_that_can_be_read(data, serve, visit):
    for path in (data / "videos").iterdir():
        path.write_text("nothing")
    page = visit(serve(data, "--labels", str(data / "labels.txt")), away=True, opens=False)
    page.locator(".notice.bad").nth(2).wait_for()
    assert page.locator("#tools button:not(:disabled)").count() == 0
    for key in (".", ",", "d", "v", "+", "Escape", "Space"):
        page.keyboard.press(key)
    page.keyboard.press("l")
    assert page.evaluate("document.activeElement.dataset.video") == "a"


def test_a_key_that_is_held_marks_once_and_the_overview_follows_the_zoom(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")), viewport={"width": 400, "height": 760})
    for _ in range(4):
        page.keyboard.down("Space")  # again without up: a repeat
    page.keyboard.up("Space")
    assert marked(page) == [0]
    picture = "document.getElementById('overview').toDataURL()"
    before = page.evaluate(picture)
    for _ in range(3):
        page.keyboard.press("+")
    assert page.evaluate(picture) != before
    page.keyboard.press("?")
    assert page.evaluate("document.getElementById('help').scrollTop") == 0
    assert page.evaluate("document.activeElement.id") == "help-title"


def test_a_small_window(data, serve, visit):
    page = visit(
        serve(data, "--labels", str(data / "labels.txt")), viewport={"width": 380, "height": 640}, has_touch=True
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.evaluate("document.getElementById('strip').clientHeight") > 250
    assert page.is_hidden("#list")
    page.tap("#list-button")
    page.tap("button[data-video=b]")
    named(page, "b")
    assert page.is_hidden("#list")
    page.tap("#f1")
    saved(page)
    assert on_disk(data) == {"b": [0.5]}
    page.tap("#finish")
    assert page.evaluate("document.getElementById('labels').getBoundingClientRect().width") <= 380


CONTRAST = """selectors => selectors.map(selector => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const element = [...document.querySelectorAll(selector)].find(e => e.offsetParent !== null);
  if (!element) return [selector, -1];
  let under = element;
  while (under.parentElement && numbers(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor].map(c => light(numbers(c)));
  return [selector, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(data, serve, visit, scheme):
    page = visit(serve(data, "--labels", str(data / "labels.txt")), color_scheme=scheme)
    page.click("#f4")
    nameless = page.eval_on_selector_all(
        "button, select, input",
        "all => all.filter(e => !(e.textContent || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)",
    )
    assert nameless == []
    assert page.get_attribute("#strip", "aria-activedescendant") == "f4"
    assert page.get_attribute("#f4", "aria-label") == "0:02.0, click: background"
    seen = ["h1", "#saved", "#name", "nav .facts", "#total", "#counts", "#spent", ".badge", ".time", "#mode-background"]
    seen += ["#mode-action", "#finish", "#help-button"]
    low = [(name, ratio) for name, ratio in page.evaluate(CONTRAST, seen) if ratio < 4.5]
    assert low == []
    page.keyboard.press("d")
    assert [name for name, ratio in page.evaluate(CONTRAST, ["#warning", "#choices label span"]) if ratio < 4.5] == []


def test_suggestions_are_shown_and_nothing_is_clicked(data, serve, visit, tmp_path):
    write = {"a": [2.0, 9.0, 17.0], "b": [1.0, 8.0], "c": [3.0]}
    first = serve(data, "--labels", str(data / "labels.txt"))
    for name, seconds in write.items():
        state = first.ask(f"/api/videos/{name}")[1]
        marks = [{"time": second, "label": "background"} for second in seconds]
        change = {"base": state["revision"], "marks": marks, "labels": ["jump"], "done": False}
        assert first.ask(f"/api/videos/{name}", change)[0] == 200
    assert trains(data, tmp_path)
    shutil.rmtree(data / "clicks")
    (data / "features" / "c.npz").unlink()
    page = visit(serve(data, "--model", str(tmp_path / "run")), away=True)
    page.wait_for_selector("canvas.curve")
    page.get_by_text("worth").first.wait_for()
    assert re.search(r"model: (jump|run|<i>wave</i>) \d\.\d\d, background \d\.\d\d", page.inner_text("#cursor"))
    assert page.locator(".cell.unsure").count() > 0
    worths = [float(text) for text in re.findall(r"worth (\d+\.\d)", page.inner_text("#videos"))]
    assert worths == sorted(worths, reverse=True)
    page.keyboard.press("n")
    until(page, "document.querySelector('.cursor.unsure, .cursor.between') !== null")
    assert marked(page) == []
    page.keyboard.press("Space")
    saved(page)
    assert page.locator(".cell.cursor.unsure").count() == 0
    # This one has no features, and the extractor is not one that a checkpoint may name.
    page.click("button[data-video=c]")
    page.get_by_text("No suggestions: no features/c.npz, and the model's extractor cannot be built").wait_for()
    assert sum(map(len, on_disk(data).values())) == 1


def test_scrolling_far_keeps_few_frames_in_the_page(tmp_path, serve, visit):
    data = make_videos(tmp_path / "data", {"long.mp4": 900})
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    for share in np.linspace(0.1, 1, 10):
        page.evaluate(
            f"document.getElementById('strip').scrollTop = {share} * document.querySelector('.body').offsetHeight"
        )
        until(
            page, "[...document.querySelectorAll('.cell')].every(cell => cell.style.backgroundImage.startsWith('url'))"
        )
        assert page.locator(".cell").count() < 150
    page.wait_for_selector("#f1799")
    page.click("#f1799")
    saved(page)
    assert on_disk(data) == {"long": [899.5]}


def worked(page):
    """Seconds of work that the page shows."""
    found = re.match(r"(\d+):(\d+) of work", page.inner_text("#spent"))
    assert found is not None
    return int(found[1]) * 60 + int(found[2])


def test_time_is_counted_once_when_a_video_is_visited_again(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    # The clock runs ahead: 5 s pass at once, of which the page takes 2 s for work.
    page.evaluate("performance.now = (now => () => now.call(performance) + (window.ahead || 0))(performance.now)")
    for turn in range(30):
        page.mouse.move(300 + 5 * turn, 300)
        page.evaluate("window.ahead = (window.ahead || 0) + 5000")
        page.wait_for_timeout(300)
    assert worked(page) >= 15
    with page.expect_response("**/api/videos/a/time*"):
        page.click("button[data-video=b]")
    named(page, "b")
    start, before = time.monotonic(), json.loads((data / "progress" / "me.json").read_text())["videos"]["a"]["seconds"]
    page.click("button[data-video=a]")
    named(page, "a")
    assert abs(worked(page) - sum(before.values())) <= time.monotonic() - start + 2
    page.reload()
    ready(page)
    assert 15 <= worked(page) <= sum(before.values()) + time.monotonic() - start + 4


def test_time_when_nobody_is_there_does_not_count(data, serve, visit):
    page = visit(serve(data, "--labels", str(data / "labels.txt")))
    page.mouse.move(300, 300)
    start, before = time.monotonic(), worked(page)
    page.evaluate("performance.now = (now => () => now.call(performance) + (window.ahead || 0))(performance.now)")
    page.wait_for_timeout(1500)
    page.evaluate("window.ahead = 60000")
    page.wait_for_timeout(2500)
    assert worked(page) - before <= time.monotonic() - start - 0.5
