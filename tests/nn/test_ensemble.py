import pytest
import torch

from backtal import BackTALModel, ConfigError, LocalizationConfig, ModelConfig, TimeAxis, VideoFeatures
from backtal.nn.ensemble import localize_together
from backtal.nn.localize import localize

CONFIG = ModelConfig(feature_dim=4, labels=("a", "b"), hidden_dim=8)


def model(seed, **settings):
    torch.manual_seed(seed)
    found = BackTALModel(CONFIG, LocalizationConfig(**settings)).eval()
    found.classifier.weight.data *= 30
    return found


@pytest.fixture
def video():
    torch.manual_seed(1)
    return VideoFeatures("v", torch.randn(4, 40), TimeAxis.even(40, 20.0))


def test_probabilities_are_averaged(video):
    models = [model(seed) for seed in range(3)]
    outputs = [m.run(video) for m in models]
    cas = sum(o.cas.softmax(1) for o in outputs) / 3
    scores = sum(o.scores.softmax(1) for o in outputs) / 3
    by_hand = outputs[0]._replace(cas=cas.log(), scores=scores.log())
    (expected,) = localize(by_hand, [video.axis], CONFIG.labels, models[0].localization, ["v"])
    found = localize_together(models, video)
    assert [(s.start, s.end, s.label) for s in found] == [(s.start, s.end, s.label) for s in expected]
    assert [s.score for s in found] == pytest.approx([s.score for s in expected], abs=1e-5)
    assert len(found) > 0


def test_one_model_is_itself(video):
    assert localize_together([model(0)], video) == model(0).localize(video)


def test_models_that_do_not_fit_are_refused(video):
    other = BackTALModel(ModelConfig(feature_dim=4, labels=("b", "a"), hidden_dim=8))
    with pytest.raises(ConfigError, match="differ in labels"):
        localize_together([model(0), other], video)
    with pytest.raises(ConfigError, match="at least one"):
        localize_together([], video)
    with pytest.raises(ConfigError, match="must be 'softmax'"):
        localize_together([model(0, frame_scores="minmax"), model(1)], video)
