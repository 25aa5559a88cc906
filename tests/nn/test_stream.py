"""Chunks with a halo give what the whole gives, in bounded memory."""

import json

import numpy as np
import processes
import pytest
import torch

from backtal import (
    BackTALModel,
    DataError,
    LocalizationConfig,
    ModelConfig,
    TimeAxis,
    VideoFeatures,
    localize,
    read_features,
    write_features,
)
from backtal.nn.cas import BackTALOutput, join_outputs
from backtal.nn.stream import Source, open_features, pieces, run_chunked

LENGTHS = sorted(int(n) for n in np.random.default_rng(7).integers(1, 3000, 20))
NETWORKS = {
    "paper": {},
    "released": {"embedding_hidden_dim": 5, "layout": "channel_blocks"},
    "wide kernels": {"kernel_size": 7, "num_layers": 3},
    "plain": {"affinity": False, "num_layers": 1},
    "standardised": {"standardize": True, "embedding_hidden_dim": 4},
}


def network(**changes) -> BackTALModel:
    sizes = {"feature_dim": 12, "labels": ("a", "b", "c"), "hidden_dim": 16, "filter_dim": 6, "embedding_dim": 4}
    model = BackTALModel(ModelConfig(**sizes | changes), LocalizationConfig(class_threshold=0.0)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # so that what lies at the halo's edge is felt
    if model.config.standardize:
        model.set_feature_statistics(torch.randn(12), torch.rand(12) + 0.5)
    return model


def in_chunks(model: BackTALModel, parts, chunk: int) -> BackTALOutput:
    return join_outputs(run_chunked(model, model.reach, parts, chunk=chunk), model.config.topk_ratio)


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_chunks_equal_the_whole(name):
    model = network(**NETWORKS[name])
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        features = torch.randn(12, length)
        whole = model(features[None])
        sizes = rng.integers(1, 300, length)
        parts = features.split([int(n) for n in _sizes(sizes, length)], dim=1)
        for chunk in (64, 501):
            found = in_chunks(model, parts, chunk)
            assert found.cas.shape == whole.cas.shape
            torch.testing.assert_close(found.cas, whole.cas, rtol=0, atol=1e-5)
            torch.testing.assert_close(found.scores, whole.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(found.first_layer[:, 0], whole.first_layer.norm(dim=1), rtol=0, atol=1e-5)


def _sizes(sizes, length):
    left = length
    for size in sizes:
        yield min(size, left)
        left -= min(size, left)
        if left == 0:
            return


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_the_reach_is_no_wider_and_no_narrower_than_needed(name):
    model = network(**NETWORKS[name])
    features = torch.randn(1, 12, 101)
    before = model(features).cas[0, :, 50]
    for distance, matters in ((model.reach, model.config.affinity), (model.reach + 1, False)):
        changed = features.clone()
        changed[..., 50 - distance] += 100
        same = torch.equal(model(changed).cas[0, :, 50], before)
        assert same != matters


@pytest.mark.parametrize("frame_scores", ["softmax", "minmax"])
def test_segments_equal_the_whole(frame_scores):
    model = network()
    model.localization = LocalizationConfig(
        class_threshold=0.0, frame_scores=frame_scores, smoothing=1.0, feature_thresholds=(0.3, 0.6, 0.1)
    )
    for length in LENGTHS[-8:]:
        axis = TimeAxis.even(length, length * 0.64)
        features = torch.randn(12, length)
        with torch.inference_mode():
            whole = localize(model(features[None]), [axis], model.config.labels, model.localization, ["v"])[0]
            joined = in_chunks(model, pieces(features, 100), chunk=300)
            found = localize(joined, [axis], model.config.labels, model.localization, ["v"])[0]
        assert len(found) == len(whole) > 0
        for one, other in zip(sorted(found, key=_place), sorted(whole, key=_place), strict=True):
            assert one.label == other.label
            assert (one.start, one.end, one.score) == pytest.approx((other.start, other.end, other.score), abs=1e-5)
        assert model.localize(VideoFeatures("v", features, axis)).video_id == "v"


def _place(segment):
    return segment.label, round(segment.start, 3), round(segment.end, 3)


@pytest.mark.parametrize(("total", "length"), [(1, 4), (7, 100), (500, 100), (1001, 750), (100, 100)])
def test_rescaling_piece_by_piece(total, length):
    video = VideoFeatures("v", torch.randn(12, total), TimeAxis.even(total, 10.0))
    expected = video.rescaled(length).features
    for known in (total, None):
        source = Source("v", 12, known, None, list(pieces(video.features, 33)), lambda: video.axis)
        torch.testing.assert_close(source.rescaled(length), expected, rtol=0, atol=1e-5)


def test_a_fixed_length_network_is_given_the_whole(tmp_path):
    model = network(temporal_length=100)
    video = VideoFeatures("v", torch.randn(12, 1234).half().float(), TimeAxis.even(1234, 600.0))
    write_features(tmp_path / "v.npz", video)
    with torch.inference_mode():
        rescaled = video.rescaled(100)
        output = model(rescaled.features[None])
        expected = localize(output, [rescaled.axis], model.config.labels, model.localization, ["v"])[0]
    found = model.localize(tmp_path / "v.npz")
    assert [s.label for s in found] == [s.label for s in expected]
    assert [s.score for s in found] == pytest.approx([s.score for s in expected], abs=1e-5)


@pytest.mark.parametrize("stored", ["rows", "columns", "float32", "rgb and flow", "compressed"])
def test_feature_files_piece_by_piece(tmp_path, stored):
    path, video = tmp_path / "v.npz", np.random.default_rng(0).normal(size=(12, 777)).astype(np.float16)
    if stored == "rgb and flow":
        np.savez(path, rgb=video[:5], flow=video[5:], duration=60.0)
    elif stored == "compressed":
        np.savez_compressed(path, features=video, duration=60.0)
    else:
        kinds = {"rows": video, "columns": np.asfortranarray(video), "float32": video.astype(np.float32)}
        np.savez(path, features=kinds[stored], duration=60.0)
    source, whole = open_features(path, size=100), read_features(path)
    found = list(source.pieces)
    assert torch.equal(torch.cat([torch.as_tensor(piece) for piece in found], dim=1), whole.features)
    assert source.axis() == whole.axis
    assert (source.dim, source.length) == (12, 777)
    if stored != "compressed":
        assert max(piece.shape[1] for piece in found) == 100


def test_bad_feature_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no such feature file"):
        open_features(tmp_path / "none.npz")
    path = tmp_path / "v.npz"
    np.savez(path, features=np.ones((12, 500), np.float16), duration=60.0)
    whole = path.read_bytes()
    for damage in (whole[:4000], whole[:4000] + b"x" + whole[4001:], b"text"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"v\.npz: not a readable \.npz file"):
            open_features(path)
    features = np.ones((12, 500), np.float16)
    features[3, 333] = np.nan
    np.savez(path, features=features, duration=60.0)
    with pytest.raises(DataError, match=r"v\.npz: NaN or infinite values in 1 snippet\(s\), the first is number 333"):
        list(open_features(path, size=100).pieces)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path):
    """Four times as long a feature file may cost what its class activations need, and little else."""
    code = """
import sys, json, resource, torch
torch.set_num_threads(1)
from backtal import BackTALModel
model = BackTALModel.from_pretrained(sys.argv[1])
model.localize(sys.argv[2])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""
    model = BackTALModel(ModelConfig(feature_dim=512, labels=("a",), hidden_dim=64), LocalizationConfig())
    model.save_pretrained(tmp_path / "m")
    peaks = []
    for length in (10_000, 60_000):
        rows = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float16, (512, length))
        for start in range(0, length, 5000):
            rows[:, start : start + 5000] = np.random.default_rng(start).normal(size=(512, 5000))
        np.savez(tmp_path / "v.npz", features=rows, duration=length * 0.64)
        done = processes.run(processes.code, code, tmp_path / "m", tmp_path / "v.npz", check=True)
        peaks.append(json.loads(done.stdout) / 1024)
    # Whole, the longer one would need 100 MB more for its features and 13 MB more for each hidden layer.
    assert peaks[1] - peaks[0] < 50, peaks
