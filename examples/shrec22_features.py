"""SHREC 2022 hand skeletons (the track's published text files) -> the features that the `shrec22` checkpoint reads.

    python examples/shrec22_features.py TRAINING_FOLDER TEST_FOLDER OUT

A text file has a line per frame, 20 a second: index, time, and 26 joints x (x, y, z) in metres, separated by semicolons
or blanks. Joint 0 is the wrist, 1 the palm; four joints of the thumb and five of each finger follow. The features are
``[372, T]`` with a snippet for every 4 frames (5 per second).

First the hand is made as large as everyone's: of a sequence, the palm's mean position is subtracted and everything is
divided by the median over its frames of the mean distance of the 26 joints from the palm. Then 186 quantities, each as
mean and as deviation (of 4, not of 3 degrees of freedom) over the 4 frames:

    0-74     position of each other joint relative to the palm
    75-152   change per frame, times 5: of the palm, then of those 25 relative positions; 0 on the first frame
    153-182  for each of joints 4, 9, 14, 19, 24 (a finger's last before its tip): distance to the wrist, and to each
             of these five
    183-185  position of the palm
    186-371  the deviations of the same, in the same order

Last, each is standardised by its mean and its deviation over the training set plus 0.001. Frames on which no hand was
tracked are zeros in the files, and count like others.

All this is known: computed from the joints of all 288 sequences, the features differ from the reference features by no
more than 0.1 mm in the joints explains, which is how those joints were rounded (half of all values by less than 0.004
deviations; `tests/test_examples.py`). Assumed is only the form of the text files, which were not at hand.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import torch

from backtal import DataError, FeatureSpec, TimeAxis, VideoFeatures, write_features

JOINTS, FPS, WINDOW, EPSILON = 26, 20, 4, 1e-3
WRIST, PALM, FINGERS = 0, 1, [4, 9, 14, 19, 24]
SPEC = FeatureSpec("shrec22-hand", fps=FPS, window=WINDOW, stride=WINDOW, dim=372)


def read_joints(path: Path) -> np.ndarray:
    """``[N, 26, 3]``, in metres; a line may also lack index and time."""
    frames = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = [field for field in re.split(r"[;,\s]+", line) if field]
        if not fields:
            continue
        try:
            values = np.array(fields, dtype=np.float64)
        except ValueError:
            raise DataError(f"{path}:{number}: expected numbers, found {line[:60]!r}") from None
        if not 3 * JOINTS <= len(values) <= 3 * JOINTS + 2 or not np.isfinite(values).all():
            raise DataError(f"{path}:{number}: expected index, time and {3 * JOINTS} coordinates, found {len(values)}")
        frames.append(values[-3 * JOINTS :].reshape(JOINTS, 3))
    if len(frames) < WINDOW:
        raise DataError(f"{path}: {len(frames)} frames; a snippet takes {WINDOW}")
    return np.stack(frames)


def normalized(joints: np.ndarray) -> np.ndarray:
    """``[N, 26, 3]`` in metres -> the same about the palm's mean position, in sizes of the hand."""
    from_palm = np.linalg.norm(joints - joints[:, PALM, None], axis=2).mean(axis=1)
    return (joints - joints[:, PALM].mean(axis=0)) / np.median(from_palm)


def quantities(joints: np.ndarray) -> np.ndarray:
    """Normalized ``[N, 26, 3] -> [N, 186]``."""
    palm = joints[:, PALM]
    pose = np.delete(joints, PALM, axis=1) - palm[:, None]
    moving = np.concatenate([palm, pose.reshape(len(joints), -1)], axis=1)
    change = np.diff(moving, axis=0, prepend=moving[:1]) * FPS / WINDOW
    fingers, ends = joints[:, FINGERS], joints[:, [WRIST, *FINGERS]]
    distances = np.linalg.norm(fingers[:, :, None] - ends[:, None], axis=3)
    return np.concatenate([pose.reshape(len(joints), -1), change, distances.reshape(len(joints), -1), palm], axis=1)


def snippets(joints: np.ndarray) -> np.ndarray:
    """``[N, 26, 3]`` in metres ``-> [372, N // 4]``, not standardised yet."""
    count = len(joints) // WINDOW
    windows = quantities(normalized(joints))[: count * WINDOW].reshape(count, WINDOW, -1)
    return np.concatenate([windows.mean(axis=1), windows.std(axis=1)], axis=1).T


def statistics(training: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What standardising subtracts and divides by, ``[372, 1]`` each, from the snippets of the training sequences."""
    every = np.concatenate(training, axis=1)
    return every.mean(axis=1, keepdims=True), every.std(axis=1, keepdims=True) + EPSILON


def main() -> None:
    """Read both folders, standardise by the training set, write ``training_001.npz`` and so on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("training", "test", "out"):
        parser.add_argument(name, type=Path)
    folders = parser.parse_args()
    sequences, lengths = {}, {}
    for subset in ("training", "test"):
        for path in sorted(getattr(folders, subset).glob("[0-9]*.txt")):
            joints = read_joints(path)
            video = f"{subset}_{int(path.stem):03d}"
            sequences[video], lengths[video] = snippets(joints), len(joints)
    training = [features for video, features in sequences.items() if video.startswith("training")]
    if not training:
        raise DataError(f"{folders.training}: holds no 1.txt, 2.txt, ...")
    mean, scale = statistics(training)
    for video, features in sequences.items():
        frames = lengths[video]
        axis = TimeAxis.of(features.shape[1], frames / FPS, frames, SPEC)
        standard = torch.from_numpy(((features - mean) / scale).astype(np.float32))
        write_features(folders.out / f"{video}.npz", VideoFeatures(video, standard, axis, SPEC))
    print(f"wrote {len(sequences)} files to {folders.out}")


if __name__ == "__main__":
    main()
