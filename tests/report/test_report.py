"""The report: what it says, and that a browser shows it without a network."""

import re
import shutil
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from conftest import TINY, make_folder, train_options

from backtal.cli import main
from backtal.report.html import html, table, tag

pytest.importorskip("matplotlib")


def backtal(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of one recipe on a dataset whose name needs escaping, a folder of videos, and the report."""
    base = tmp_path_factory.mktemp("report")
    data = make_folder(base / "a <b> & c")
    settings = train_options(*TINY)
    for seed in (0, 1):
        done = backtal("train", data, "--out", base / f"seed{seed}", "--seed", seed, *settings)
        assert done.exit_code == 0, done.output
    (base / "clips").mkdir()
    (base / "clips" / "v6.mp4").write_bytes(b"")
    out = base / "out" / "report.html"
    done = backtal("report", base / "seed0", base / "seed1", "--data", data, "--videos", base / "clips", "--out", out)
    assert done.exit_code == 0, done.output
    return base


class Reader(HTMLParser):
    """Collects text, links and images, and sees that every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.sources, self.alts, self.text = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        self.alts += [values["alt"]] if "alt" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def read(made):
    reader = Reader()
    reader.feed((made / "out" / "report.html").read_text())
    assert reader.open == []
    return reader


def test_it_is_one_file_without_a_network(made, read):
    assert all(source.startswith("data:image/png;base64,") for source in read.sources)
    assert len(read.sources) == 7  # two curves, diagnosis, worst and best, affinity, training
    assert len(set(read.alts)) == 7
    text = (made / "out" / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script|<link", text)


def test_numbers_are_those_of_evaluate(made, read):
    data = next(made.glob("a *"))
    found = made / "found.json"
    assert backtal("localize", data, "--model", made / "seed0", "--out", found).exit_code == 0
    table = backtal("evaluate", found, "--data", data).stdout.splitlines()
    mean = next(line for line in table if line.startswith("mean")).split()[1:]
    for value in mean:
        assert value in read.text
    assert "standard deviation" in read.text
    assert backtal("diagnose", found, "--data", data, "--model", made / "seed0").stdout.splitlines()[0] in read.text


def test_it_names_protocol_seeds_settings_and_errors(read):
    for text in ("as ActivityNet computes it", "subset 'test'", "seed0", "seed1", "learning_rate", "nms_threshold"):
        assert text in read.text
    assert "a <b> & c" in read.text
    assert "localization (0.1 to 0.5, right label)" in read.text


def test_segments_link_to_their_time_in_the_video(read):
    links = [link for link in read.links if not link.startswith("#")]
    assert "../clips/v6.mp4" in links
    assert all(re.fullmatch(r"\.\./clips/v6\.mp4(#t=\d+\.\d\d)?", link) for link in links)  # v7 has no file
    assert len(links) > 2
    anchors = {link for link in read.links if link.startswith("#")}
    assert anchors == {"#numbers", "#errors", "#videos", "#inside", "#settings"}


def test_a_predictions_file_and_a_checkpoint_without_a_log(made):
    data, out = next(made.glob("a *")), made / "other.html"
    checkpoint = made / "checkpoint"
    shutil.copytree(made / "seed0", checkpoint)
    (checkpoint / "recipe.json").unlink()
    (checkpoint / "log.jsonl").unlink()
    found = made / "few.json"
    found.write_text('{"results": {"v6": [{"segment": [1, 2], "label": "jump", "score": 0.9}]}}')
    done = backtal("report", checkpoint, "--data", data, "--predictions", found, "--out", out, "--show", 0)
    assert done.exit_code == 0, done.output
    text = out.read_text()
    assert "no training log" in text
    assert "not known from this" in text
    assert "<td>checkpoint</td><td>0</td>" in text  # the seed, from the model card


def test_bad_input_is_named(made):
    data, out = next(made.glob("a *")), made / "x.html"
    two = backtal("report", made / "seed0", made / "seed1", "--data", data, "--predictions", "p.json", "--out", out)
    assert (two.exit_code, out.exists()) == (2, False)
    assert "belongs to one run" in two.stderr
    no_videos = backtal("report", made / "seed0", "--data", data, "--videos", made / "none", "--out", out)
    assert no_videos.exit_code == 2
    assert "no such folder of videos" in no_videos.stderr


def test_pieces_are_escaped():
    assert tag("p", "<script>", title='"') == '<p title="&quot;">&lt;script&gt;</p>'
    assert html(["a<", tag("b", 1)]) == "a&lt;<b>1</b>"
    assert "<td>&lt;i&gt;</td>" in table(["x"], [["<i>"]])


def test_it_opens_in_a_browser(made, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        trouble, requests = [], []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda failure: trouble.append(str(failure)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((made / "out" / "report.html").as_uri())
        assert page.title() == "backtal: seed0, seed1 on a <b> & c"
        sizes = page.eval_on_selector_all("img", "all => all.map(image => [image.complete, image.naturalWidth])")
        assert all(complete and width > 400 for complete, width in sizes)
        page.click("nav a[href='#settings']")
        assert page.locator("#settings").is_visible()
        assert page.evaluate("window.scrollY") > 500
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert trouble == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
