"""A page to try backtal: features or a video in, segments out. A Hugging Face Space, or `python app.py` anywhere."""

import functools
import re
import tempfile
from pathlib import Path

import gradio as gr

from backtal import BackTALError, BackTALModel, Localization, VideoFeatures, read_features, write_predictions
from backtal.nn import LocalizationModel
from backtal.plot import timeline_of_features
from backtal.report.html import picture
from backtal.segments import write_csv
from backtal.video import extract_file, load_extractor, opens_as_video

HERE = Path(__file__).parent
FROM_CHECKPOINT = "the checkpoint's own"
EXTRACTORS = [FROM_CHECKPOINT, "torchvision/s3d", "torchvision/mvit_v2_s", "torchvision/resnet50"]
COLUMNS = ["start (s)", "end (s)", "label", "score"]
INTRODUCTION = """# backtal
Temporal action localization from background clicks: an untrimmed video in, `(start, end, label, score)` out.

The example holds 40 s of made-up features for the checkpoint `shrec22` (hand gestures). Yours are a feature file,
`.npz` or `.npy`, or a video; a network finds only what it was trained for, in the features it was trained on.
"""
STYLE = ".timeline {overflow-x: auto} .timeline img {min-width: 640px; width: 100%; background: white}"


@functools.lru_cache(maxsize=2)
def load(name: str) -> LocalizationModel:
    """The checkpoint of a name; a path is none, since the page is open to everyone."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@\w+)?", name, re.ASCII) or name.startswith(".") or Path(name).exists():
        raise gr.Error(f"{name}: not the name of a checkpoint, such as shrec22 or owner/name of the Hub")
    return BackTALModel.from_pretrained(name)


def features_of(file: str, extractor: str, model: LocalizationModel) -> VideoFeatures:
    """Of a feature file as they are, of a video by the extractor."""
    if not opens_as_video(file):
        return read_features(file)
    return extract_file(file, model.extractor() if extractor == FROM_CHECKPOINT else load_extractor(extractor))


def find(file: str | None, checkpoint: str, extractor: str, least: float) -> tuple[str, list, str, str, str]:
    """The timeline, the table, what was found in words, and the files to download."""
    if not file:
        raise gr.Error("Choose a feature file or a video first.")
    try:
        model = load(checkpoint.strip())
        features = features_of(file, extractor, model)
        found = model.localize(features)
        shown = {checkpoint: found}
        figure = timeline_of_features(features, {checkpoint: model}, found=shown, least_score=least, title="")
    except (BackTALError, ImportError) as failure:
        raise gr.Error(str(failure).replace(str(Path(file).parent), "")) from None
    kept = sorted(found.above(least), key=lambda segment: segment.start)
    words = f"**{len(kept)} segments** in {found.duration:.1f} s, of {len(found)} candidates with any score."
    rows = [[round(s.start, 2), round(s.end, 2), s.label, round(s.score, 3)] for s in kept]
    image = f'<div class="timeline">{picture(figure, "What was found, along the time of the video")}</div>'
    return image, rows, words, *written(Localization(found.video_id, found.duration, tuple(kept)))


def written(found: Localization) -> tuple[str, str]:
    """JSON in ActivityNet's form, and CSV."""
    folder = Path(tempfile.mkdtemp())
    write_predictions(folder / "segments.json", [found])
    write_csv(folder / "segments.csv", [found])
    return str(folder / "segments.json"), str(folder / "segments.csv")


with gr.Blocks(title="backtal") as page:
    gr.Markdown(INTRODUCTION)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            file = gr.File(str(HERE / "example.npz"), label="Features or video", height=110)
            checkpoint = gr.Dropdown(["shrec22"], value="shrec22", label="Checkpoint", allow_custom_value=True)
            extractor = gr.Dropdown(EXTRACTORS, value=FROM_CHECKPOINT, label="Extractor, for a video")
            least = gr.Slider(0, 1, value=0.45, step=0.05, label="Least score")
            button = gr.Button("Find the actions", variant="primary")
        with gr.Column(scale=3, min_width=320):
            image = gr.HTML(label="Timeline")
            words = gr.Markdown()
            table = gr.Dataframe(headers=COLUMNS, interactive=False, label="Segments")
            with gr.Row():
                as_json = gr.DownloadButton("JSON", min_width=120)
                as_csv = gr.DownloadButton("CSV", min_width=120)
    inputs, outputs = [file, checkpoint, extractor, least], [image, table, words, as_json, as_csv]
    gr.on([button.click, least.release, page.load], find, inputs, outputs)

if __name__ == "__main__":
    page.launch(css=STYLE, max_file_size="200mb", show_error=True)
