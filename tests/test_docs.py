"""The documentation is true: every snippet on it runs, and the site builds without a warning.

Blocks tagged ``python`` and ``bash`` run, those of a page one after the other in one folder. A block that cannot run is
tagged ``console`` or ``text`` and, where it holds a command or Python, has its reason here.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from backtal import Segment, read_predictions, simulate_clicks, write_clicks
from backtal.cli import main
from backtal.demo import make_dataset
from backtal.files import write_json
from backtal.segments.segments import temporal_iou
from backtal.settings.presets import RECIPES

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a block begins with -> why it does not run.
NOT_RUN = {
    "backtal train DATA --out RUN --recipe detector": "tests/training/test_detector_training.py trains smaller",
    "python3 -m venv .venv && .venv/bin/pip install '.[plot]'": "installs; .ci/run runs it word for word",
    "python3 -m venv .venv\n.venv/bin/pip install '.[plot]'": "installs; .ci/run does the same",
    "git clone REPOSITORY": "installs and tests; .ci/run does the same",
    ".ci/release": "builds, installs and tests; .ci/run runs it",
    "backtal demo": "a minute; tests/test_demo.py runs it smaller, .ci/run as it is",
    "for table in": "93 trainings; tests/training/test_experiment.py runs one table smaller",
    "backtal train DATA --out RUN --recipe between-clicks": "tests/training/test_train.py trains two stages",
    "backtal ablate 7": "18 trainings; tests/training/test_experiment.py runs it smaller",
    "backtal tune data --model": "six trainings; tests/training/test_tune.py runs it smaller",
    "accelerate launch": "several processes; tests/training/test_train.py runs them",
    "pip install -e '.[annotate]'": "serves until it is stopped; tests/annotate/test_annotate_page.py uses it",
    "backtal annotate data --model": "serves until it is stopped; tests/annotate/test_annotate_page.py has suggestions",
    "backtal extract data/videos --extractor torchvision/s3d --out data/features\nbacktal train": "needs videos and "
    "weights; tests/annotate/test_annotate_page.py extracts and trains after annotating",
    "backtal watch 0 --model RUN": "needs a camera; tests/nn/live/test_watch.py has addresses, pipes and files",
    "backtal convert FILE.pth": "needs the authors' file; tests/interop/test_convert.py runs it on one made here",
    "backtal dataset convert SRC DATA": "SRC stands for another project's folder; tests/data/test_layouts.py has each",
    "backtal dataset import coded.boris data": "SRC stands for others' files; tests/cli/test_coded_cli.py has each",
    "backtal train DATA --out RUN --clicks A1.txt --clicks": "needs two projects' files; as tests/data/test_layouts.py",
    "pip install -e '.[video]'": "installs",
    "pip install -e '.[ray]'": "installs 591 MB; tests/video/test_ray.py runs it where Ray is there",
    "backtal clicks stats THUMOS14": "needs THUMOS14's annotations; tests/cli/test_clicks_cli.py has it",
    "python benchmarks/": "measures for many minutes",
    'model = BackTALModel.from_pretrained("owner/name")': "needs the Hub; tests/hub/test_hub.py has a server",
    'model = BackTALModel.from_pretrained("runs/mine")  # knows': "pushes; tests/hub/test_hub.py has a server",
}
PLAIN = (
    "mine/annotations.json",
    "URLID,URL",
    "video,second,label",
    "data/annotations.json",
    "data/clicks/me.txt",
)  # listings, neither commands nor Python
LEARNS = ("own-dataset.md", "video.md")  # what they find is looked at; elsewhere a few steps will do
SHORT = ("epochs=4", "min_epoch_steps=2")
EMPTY_AT_FIRST = ("quickstart.md", "own-dataset.md")
SHELL_FIRST = ("README.md",)  # its Python uses what its commands make


class Block(NamedTuple):
    """A fenced block: its language, its content and the line that it begins in."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [Block(m[2], textwrap.dedent(m[3]), text.count("\n", 0, m.start()) + 2) for m in found]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def reason(block: Block) -> str | None:
    return next((why for start, why in NOT_RUN.items() if block.code.startswith(start)), None)


RUN = [
    pytest.param(page, marks=pytest.mark.long if page.name in LEARNS else pytest.mark.slow)
    for page in PAGES
    if any(block.language in ("python", "bash") and not reason(block) for block in blocks(page))
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What most pages take for granted: a dataset, runs on it, what one of them found, another project's folder."""
    base = tmp_path_factory.mktemp("docs")
    data = make_dataset(base / "data", num_training=24, num_test=8)
    shutil.copytree(base / "data" / "features", base / "features")
    (base / "features" / "video_024.npz").rename(base / "features" / "video_7.npz")
    short = " ".join(f"--set {setting}" for setting in SHORT)
    for run, extra in (("mine", []), ("labels", ["--video-labels-only"])):
        command(f"backtal train {base}/data --out {base}/runs/{run} {short} {' '.join(extra)}")
    # As long as it needs to be sure of something.
    command(f"backtal train {base}/data --out {base}/runs/compact --recipe compact --set epochs=20")
    command(f"backtal localize {base}/data --model {base}/runs/compact --out {base}/found.json")
    shutil.copy(base / "found.json", base / "predictions.json")
    (base / "data" / "thumos" / "annotations").mkdir(parents=True)
    (base / "data" / "thumos" / "i3d").mkdir()
    database = {}
    for video in data.annotations.subset("test"):
        np.save(base / "data" / "thumos" / "i3d" / f"{video.video_id}.npy", data.features(video).features.T.numpy())
        segments = [{"label": s.label, "label_id": 0, "segment": [s.start, s.end]} for s in video.ground_truth]
        database[video.video_id] = {"subset": "validation", "duration": video.duration, "fps": 30.0}
        database[video.video_id]["annotations"] = [s for s in segments if s["label"] == segments[0]["label"]]
    labels = {entry["annotations"][0]["label"]: 0 for entry in database.values()}
    for entry in database.values():
        for annotation in entry["annotations"]:
            annotation["label_id"] = list(labels).index(annotation["label"])
    (base / "data" / "thumos" / "annotations" / "thumos14.json").write_text(json.dumps({"database": database}))
    return base


def make_videos(folder: Path) -> None:
    """Films in which a `flash` is to be found, with clicks; and S3D, with random weights, as if downloaded before."""
    from torchvision.models import get_model
    from torchvision.models.video import S3D_Weights
    from video_files import flash, times_at, write_video

    database, tracks, rng = {}, [], np.random.default_rng(0)
    (folder / "DATA" / "videos").mkdir(parents=True)
    for index in range(5):
        start = 0.9 + 0.6 * index
        path = folder / "match.mp4" if index == 4 else folder / "DATA" / "videos" / f"day{index}.mp4"
        write_video(path, times_at(15, 5.6), flash(start, 1.2))
        if index < 4:
            segment = Segment(start, start + 1.2, "flash")
            database[path.stem] = {"subset": "training", "duration": 5.6, "labels": ["flash"]}
            tracks.append(simulate_clicks(path.stem, [segment], 5.6, rng))
    write_json(folder / "DATA" / "annotations.json", {"labels": ["flash"], "database": database})
    write_clicks(folder / "DATA" / "clicks" / "me.txt", tracks, ["flash"])
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(get_model("s3d", weights=None).state_dict(), cache / S3D_Weights.DEFAULT.url.rpartition("/")[2])


def make_stream(folder: Path) -> None:
    """A film with a flash, and a model that finds it with an extractor that is registered."""
    from live_streams import feed, light_extractor, light_model

    from backtal.video import register

    register("light")(lambda name, options: light_extractor())
    light_model().save_pretrained(folder / "RUN")
    with (folder / "match.mp4").open("wb") as file:
        feed(file.write, [(3.3, 4.5)], 0.0, 6.0, began=None)
    os.utime(folder / "match.mp4", (0, 0))


def command(line: str) -> None:
    """Run a line of a shell: our own command within this process, anything else in bash."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["backtal"] and not re.search(r"[*|<>$;&]", line.split("#")[0]):
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
    elif words:
        script = f'set -euo pipefail; backtal() {{ "{sys.executable}" -m backtal "$@"; }}; {line}'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", RUN, ids=name)
def test_snippets_run(page, prepared, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    if page.name in EMPTY_AT_FIRST:
        folder.mkdir()
    else:
        shutil.copytree(prepared, folder)
    if page.name in SHELL_FIRST:
        shutil.rmtree(folder / "runs" / "mine")
    if page.name == "video.md":
        make_videos(folder)
        monkeypatch.setenv("TORCH_HOME", str(folder))
    if page.name == "watch.md":
        make_stream(folder)
    if page.name not in LEARNS:
        for name in ("compact", "between-clicks", "detector"):
            monkeypatch.setitem(RECIPES, name, RECIPES[name].with_settings(SHORT))
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {"__name__": "snippet"}
    run = [block for block in blocks(page) if block.language in ("python", "bash") and not reason(block)]
    if page.name in SHELL_FIRST:
        run.sort(key=lambda block: block.language != "bash")
    for block in run:
        if block.language == "python":
            if file := re.match(r"# (\w+\.py)\n", block.code):
                Path(file[1]).write_text(block.code)
            # Empty lines before it, so that a failure names the page's own line.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
        else:
            for line in block.code.replace("\\\n", " ").splitlines():
                command(line)
    if page.name == "own-dataset.md":
        done = CliRunner().invoke(main, ["evaluate", "found.json", "--data", "mine", "--json"])
        assert json.loads(done.stdout)["mAP"]["0.5"] > 0.5
        assert len(Path("new.csv").read_text().splitlines()) >= 2
    if page.name == "video.md":
        best = max(read_predictions("found.json")[0], key=lambda segment: segment.score)
        assert temporal_iou(np.array([[best.start, best.end]]), np.array([[3.3, 4.5]])) > 0.3


def test_what_does_not_run_has_a_reason():
    every = [(page, block) for page in PAGES for block in blocks(page)]
    shown = [(p, b) for p, b in every if b.language in ("console", "text", "") and not b.code.startswith(PLAIN)]
    for page, block in shown:
        assert reason(block), f"{name(page)}, line {block.line}: give a reason in NOT_RUN, or tag it python or bash"
    for start in NOT_RUN:
        assert any(block.code.startswith(start) for _, block in every), f"no block begins with {start!r}"
    languages = {block.language for _, block in every}
    assert languages <= {"python", "bash", "console", "text", "", "bibtex", "json"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings_handlers", "latex2mathml"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    return out


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    assert (site / "explain" / "method" / "index.html").exists()
    pages = set((ROOT / "docs").rglob("*.md"))
    assert len(list(site.rglob("index.html"))) == len(pages)


@pytest.mark.slow
def test_formulas_need_no_script_and_no_network(site):
    method = (site / "explain" / "method" / "index.html").read_text(encoding="utf-8")
    assert method.count("<math") > 20
    assert "$$" not in method
    for page in site.rglob("*.html"):
        outside = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', page.read_text("utf-8"))
        assert not outside, page


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    import backtal

    text = "".join(path.read_text(encoding="utf-8") for path in (site / "api").rglob("*.html"))
    documented = set(re.findall(r'<h\d id="backtal\.(?:\w+\.)*(\w+)"', text))
    assert set(backtal.__all__) - documented == set()
