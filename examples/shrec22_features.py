"""SHREC 2022 hand skeletons (the track's published text files) -> the features that the `shrec22` checkpoint reads.

    python examples/shrec22_features.py TRAINING_FOLDER TEST_FOLDER OUT

A text file has a line per frame, 20 a second: index, time, and 26 joints x (x, y, z) in metres, separated by semicolons
or blanks. Its features are ``[372, T]`` with a snippet for every 4 frames (5 per second): 186 quantities, each as mean
and as deviation over the 4 frames, and standardised by its mean and deviation over the training set.

    0-74     position of joints 1-25 relative to joint 0, the palm
    75-152   change per frame, times 5: of the palm, then of those 25 relative positions
    153-182  for each of joints 4, 9, 14, 19, 24 (a finger's last before its tip): distance to the wrist, joint 1, and
             to each of these five
    183-185  position of the palm
    186-371  the deviations of the same, in the same order

The files from which the reference features were made were not at hand when this was written. Checked on the reference
features themselves (288 sequences) is the structure:

    * ``T = frames // 4``; every channel has mean 0 over the training set, and deviation s / (s + 0.0001);
    * 10 channels are zero: the distance of a joint to itself, as mean and as deviation; equal distances are equal;
    * with the scales that s gives away, each of the 15 distances is the norm of the difference of its two joints, to
      0.14 mm (at most 1.2 % of its spread, where the hand is tracked steadily); no other pair of joints fits;
    * the palm's position, and each relative position, is the running sum of its own change divided by 5 (94 to 97 % of
      the variance of a step between snippets); the lag between the two says that a change looks back by one frame;
    * the deviation divides by 4, not by 3: 0.2235 of the change where a hand moves evenly (0.2236 and 0.2582).

Assumed is what they cannot tell: the order of the 26 joints in a file (palm, wrist, then four joints of the thumb and
five of each finger, as in OpenXR; the reference features agree as to which joints form a finger), the origin of the
palm's position (the file's), and a change of zero on the first frame.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import torch

from backtal import DataError, FeatureSpec, TimeAxis, VideoFeatures, write_features

JOINTS, FPS, WINDOW, EPSILON = 26, 20, 4, 1e-4
PALM, WRIST, FINGERS = 0, 1, [4, 9, 14, 19, 24]
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


def quantities(joints: np.ndarray) -> np.ndarray:
    """``[N, 26, 3] -> [N, 186]``."""
    palm = joints[:, PALM]
    pose = np.delete(joints, PALM, axis=1) - palm[:, None]
    moving = np.concatenate([palm, pose.reshape(len(joints), -1)], axis=1)
    change = np.diff(moving, axis=0, prepend=moving[:1]) * FPS / WINDOW
    fingers, ends = joints[:, FINGERS], joints[:, [WRIST, *FINGERS]]
    distances = np.linalg.norm(fingers[:, :, None] - ends[:, None], axis=3)
    return np.concatenate([pose.reshape(len(joints), -1), change, distances.reshape(len(joints), -1), palm], axis=1)


def snippets(joints: np.ndarray) -> np.ndarray:
    """``[N, 26, 3] -> [372, N // 4]``, not standardised yet."""
    count = len(joints) // WINDOW
    windows = quantities(joints)[: count * WINDOW].reshape(count, WINDOW, -1)
    return np.concatenate([windows.mean(axis=1), windows.std(axis=1)], axis=1).T


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
    every = np.concatenate(training, axis=1)
    mean, scale = every.mean(axis=1, keepdims=True), every.std(axis=1, keepdims=True) + EPSILON
    for video, features in sequences.items():
        frames = lengths[video]
        axis = TimeAxis.of(features.shape[1], frames / FPS, frames, SPEC)
        standard = torch.from_numpy(((features - mean) / scale).astype(np.float32))
        write_features(folders.out / f"{video}.npz", VideoFeatures(video, standard, axis, SPEC))
    print(f"wrote {len(sequences)} files to {folders.out}")


if __name__ == "__main__":
    main()
