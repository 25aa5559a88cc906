"""Batches: what is handed out, and how it is kept."""

import numpy as np
import pytest
import torch
from conftest import TINY
from torch._subclasses.fake_tensor import FakeTensorMode

from backtal import BackTALModel, ModelConfig
from backtal.data.datasets import DatasetFolder
from backtal.nn.beyond import ExtendedLoss
from backtal.settings.presets import recipe
from backtal.training.examples import TrainingSet, collate


def training_set(root, **options):
    folder = DatasetFolder(root)
    clicks = folder.clicks(folder.click_files())
    return TrainingSet(folder, "training", clicks, recipe("compact").with_settings(TINY).model, **options)


def store(root, kind):
    for path in (root / "features").glob("*.npz"):
        content = dict(np.load(path))
        np.savez(path, **content | {"features": content["features"].astype(np.float16).astype(kind)})


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("cache_bytes", [4 << 30, 2000, 0], ids=["all in memory", "some", "none"])
def test_batches_are_those_of_the_examples(folder, cache_bytes):
    store(folder, np.float16)
    examples = training_set(folder, cache_bytes=cache_bytes)
    batches = [batch._replace(features=batch.features.float().clone()) for batch in examples.batches(4)]
    assert [len(batch.lengths) for batch in batches] == [4, len(examples) - 4]
    for start, batch in zip((0, 4), batches, strict=True):
        assert_same(batch, collate([examples[index] for index in range(start, min(start + 4, len(examples)))]))


def test_features_are_kept_as_they_are_stored(folder):
    store(folder, np.float16)
    half = training_set(folder)
    assert {batch.features.dtype for batch in half.batches(2)} == {torch.float16}
    assert half[0].features.dtype == torch.float32
    store(folder, np.float32)
    assert {batch.features.dtype for batch in training_set(folder).batches(2)} == {torch.float16}
    path = sorted((folder / "features").glob("*.npz"))[0]
    content = dict(np.load(path))
    content["features"][0, 0] = 1 / 3
    np.savez(path, **content)
    exact = training_set(folder)
    assert exact[0].features[0, 0] == np.float32(1 / 3)
    assert {batch.features.dtype for batch in exact.batches(len(exact))} == {torch.float32}


def test_a_batch_is_there_until_the_next_is_asked_for(folder):
    examples = training_set(folder)
    for index, batch in enumerate(examples.batches(1)):
        assert torch.equal(batch.features[0].float(), examples[index].features)


def test_no_step_waits_for_the_host():
    """On tensors without values, whatever asks for one fails."""
    model = BackTALModel(ModelConfig(feature_dim=8, labels=("a", "b"), hidden_dim=16)).train()
    criterion = ExtendedLoss(recipe("between-clicks").loss)
    with FakeTensorMode(allow_non_fake_inputs=True):
        features, labels = torch.randn(2, 8, 24), torch.ones(2, 2)
        clicks, taught = torch.full((2, 24), -1), torch.rand(2, 3, 24)
        output = model(features, torch.tensor([24, 20]), base_stream=True)
        criterion(output, labels, clicks, taught)["total"].backward()
