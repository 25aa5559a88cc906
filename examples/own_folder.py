"""From arrays and clicks of your own to a trained model, its numbers and a picture. Needs the extra `plot`."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from backtal import Click, ClickTrack, Localization, Segment, TimeAxis, VideoFeatures, write_clicks, write_features
from backtal.data import Annotations, DatasetFolder, Video, write_annotations
from backtal.evaluation import diagnose
from backtal.plot import save, timeline_of_video
from backtal.settings import recipe
from backtal.training import TrainingSet, fit

LABELS = ("open", "close", "stir")
QUICK = ("epochs=12", "batch_size=8", "hidden_dim=32", "learning_rate=0.005")  # enough for actions as plain as these
root, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)

# 30 videos of 60 s, 120 snippets each: two of three actions, each visible in three channels.
videos, tracks = {}, []
for index in range(30):
    name, features, segments = f"v{index}", rng.normal(0, 0.7, (16, 120)), []
    for action, first in zip(
        rng.choice(3, 2, replace=False), (rng.integers(8, 40), rng.integers(65, 100)), strict=True
    ):
        features[3 * action : 3 * action + 3, first : first + 12] += 1.5
        segments.append(Segment(first / 2, first / 2 + 6, LABELS[action]))
    seconds = [s / 2 for s in (segments[0].start, segments[0].end + segments[1].start, segments[1].end + 60)]
    tracks.append(ClickTrack(name, tuple(Click(second) for second in seconds)))
    video = VideoFeatures(name, torch.from_numpy(features).float(), TimeAxis.even(120, 60.0))
    write_features(root / "data" / "features" / f"{name}.npz", video)
    subset = "training" if index < 20 else "test"
    videos[name] = Video(name, subset, 60.0, None, Localization(name, 60.0, tuple(segments)))
write_annotations(root / "data" / "annotations.json", Annotations(LABELS, videos))
write_clicks(root / "data" / "clicks" / "me.txt", tracks[:20], LABELS)

folder, chosen = DatasetFolder(root / "data"), recipe("compact").with_settings(QUICK)
clicks = folder.clicks(folder.click_files())
model = fit(TrainingSet(folder, "training", clicks, chosen.model), chosen, root / "run", device="cpu")

test = folder.annotations.subset("test")
found = [model.localize(folder.features(video)) for video in test]
diagnosis = diagnose(found, folder.annotations.truth("test"))
print(diagnosis)
assert diagnosis.mean_ap > 0.5
save(timeline_of_video(test[0], folder, {"mine": model}, clicks=tracks[20]), root / "timeline.png")
print(f"wrote {root / 'timeline.png'}")
