import dataclasses
import json

import pytest

from backtal import ConfigError, FeatureSpec, LocalizationConfig, LossConfig, ModelConfig, Recipe, TrainingConfig
from backtal.settings.config import from_dict
from backtal.settings.presets import PROTOCOLS, RECIPES, protocol, recipe, tiou_range


@pytest.mark.parametrize("part", ["model", "loss", "training", "localization"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name, part):
    config = getattr(recipe(name), part)
    assert from_dict(type(config), json.loads(json.dumps(dataclasses.asdict(config))), part) == config


def test_nested_spec_survives_json():
    config = ModelConfig(labels=("a",), feature_spec=FeatureSpec("i3d", fps=25.0))
    assert from_dict(ModelConfig, json.loads(json.dumps(dataclasses.asdict(config))), "model") == config


def test_settings_by_full_and_bare_name():
    changed = Recipe().with_settings(
        ["training.epochs=3", "tau_same=0.4", "temporal_length=null", "layout=channel_blocks"]
    )
    assert changed.training.epochs == 3
    assert changed.loss.tau_same == 0.4
    assert changed.model.layout == "channel_blocks"
    assert Recipe().with_settings(["thresholds=[0, 0.5, 0.1]"]).localization.thresholds == (0, 0.5, 0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "expected key=value"),
        ("epoch=3", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("training.frame=3", "unknown setting"),
        ("affinity=1", "ambiguous: write model.affinity or loss.affinity"),
        ("epochs=many", "training.epochs: must be int, got 'many'"),
        ("epochs=1.5", "must be int"),
        ("epochs=true", "must be int"),
        ("epochs=0", "TrainingConfig.epochs: must be at least 1"),
        ("learning_rate=NaN", "must be float"),
        ("kernel_size=4", "must be an odd number"),
        ("dropout=1", "must be in \\[0, 1\\)"),
        ("layout=blocks", "must be one of 'per_tap', 'channel_blocks'"),
        ("thresholds=[0.1]", "must have 3 values"),
        ("thresholds=[1, 0, 0.1]", "first < end"),
        ("labels=[1]", "must be str"),
        ('labels=["a", "a"]', "all different"),
        ('feature_spec={"fpz": 1}', "unknown field 'fpz'; did you mean 'fps'"),
    ],
)
def test_bad_settings_say_why(setting, message):
    with pytest.raises(ConfigError, match=message):
        Recipe().with_settings([setting])


def test_a_setting_that_soft_suppression_does_not_read_is_named(caplog):
    for chosen in (recipe("detector"), recipe("between-clicks")):
        caplog.clear()
        assert chosen.with_settings(["nms_threshold=0.3"]).localization.nms_threshold == 0.3
        assert "localization.nms_threshold has no effect while soft_nms_sigma=" in caplog.text
        caplog.clear()
        chosen.with_settings(["nms_threshold=0.3", "soft_nms_sigma=null"])
        assert not caplog.text


def test_unknown_names_list_the_known():
    with pytest.raises(ConfigError, match=r"unknown recipe 'x'; known are compact, between-clicks"):
        recipe("x")
    with pytest.raises(ConfigError, match="unknown protocol 'x'; known are thumos14"):
        protocol("x")


def test_tiou_ranges():
    assert tiou_range("0.1:0.7:0.1") == PROTOCOLS["beoid"]
    assert tiou_range("0.5:0.95:0.05") == PROTOCOLS["activitynet"]
    assert tiou_range("0.5") == (0.5,)
    assert tiou_range("0.5:0.99:0.1") == (0.5, 0.6, 0.7, 0.8, 0.9)
    assert tiou_range("0.1:0.78:0.1")[-1] == 0.7
    for bad in ("", "a:b:c", "0.1:0.7", "0.7:0.1:0.1", "0:1:0.1", "0.1:1.1:0.1", "0.1:0.7:0", "0.1:0.7:1e-9"):
        with pytest.raises(ConfigError, match="FIRST:LAST:STEP"):
            tiou_range(bad)


def test_configs_are_frozen():
    for config in (ModelConfig(), LossConfig(), TrainingConfig(), LocalizationConfig(), Recipe()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.name = "x"
