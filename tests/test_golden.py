"""Parity with arrays computed by the released system."""

import gzip
import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, shared

from backtal import (
    BackTALLoss,
    BackTALModel,
    Localization,
    Segment,
    TimeAxis,
    affinity_conv1d,
    local_affinity,
)
from backtal.data.datasets import read_annotations
from backtal.evaluation.evaluate import evaluate
from backtal.interop.convert import convert_released
from backtal.nn.cas import BackTALOutput
from backtal.nn.localize import localize_arrays
from backtal.ops import BACKENDS
from backtal.settings.presets import recipe

SETTINGS = {
    "THUMOS14": "thumos14-released",
    "ActivityNet1.2": "activitynet1.2-released",
    "HACS": "hacs-released",
}


def relative_error(found, expected) -> float:
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", range(4))
def test_affinity_convolution(case, backend):
    arrays = np.load(GOLDEN / "affinity_conv_channel_blocks.npz")
    golden = {n.split("/")[1]: torch.from_numpy(arrays[n]) for n in arrays.files if n.startswith(f"case{case}/")}
    x, embedding, weight = (golden[name].clone().requires_grad_() for name in ("x", "embedding", "weight"))
    affinity = local_affinity(embedding, weight.shape[2])
    out = affinity_conv1d(x, weight, affinity, layout="channel_blocks", backend=backend)
    out.backward(golden["grad_out"])
    assert relative_error(out.detach(), golden["out"]) < 1e-5
    assert relative_error(x.grad, golden["grad_x"]) < 1e-5
    assert relative_error(weight.grad, golden["grad_weight"]) < 1e-5
    # In the one-frame case the exact gradient of the embedding is 0, hence the absolute part.
    torch.testing.assert_close(embedding.grad, golden["grad_embedding"], rtol=1e-5, atol=1e-5)


def test_network(tmp_path):
    golden = {name: torch.from_numpy(a) for name, a in np.load(GOLDEN / "network.npz").items()}
    convert_released(GOLDEN / "released_format_checkpoint.pth", recipe("thumos14-released")).save_pretrained(tmp_path)
    model = BackTALModel.from_pretrained(tmp_path)
    with torch.inference_mode():
        out = model(golden["x"], base_stream=True)
    assert relative_error(out.base_scores, golden["score_base"]) < 1e-5
    assert relative_error(out.base_cas, golden["cas_base"]) < 1e-5
    assert relative_error(out.scores, golden["score_supp"]) < 1e-5
    assert relative_error(out.cas, golden["cas_supp"]) < 1e-5
    assert relative_error(out.embedding, golden["embedding"]) < 1e-5
    assert relative_error(out.foreground, golden["foreground"]) < 1e-5
    assert relative_error(out.scores.softmax(1), golden["inference_score"]) < 1e-5
    assert relative_error(out.cas, golden["inference_cas"]) < 1e-5
    assert relative_error(out.first_layer, golden["inference_feature"]) < 1e-5


@pytest.mark.parametrize("setting", SETTINGS)
def test_losses(setting):
    golden = {name: torch.from_numpy(np.asarray(a)) for name, a in np.load(GOLDEN / f"loss_{setting}.npz").items()}
    released = recipe(SETTINGS[setting])
    names = ("cas_base", "cas_supp", "embedding", "foreground")
    inputs = {name: golden[name].clone().requires_grad_() for name in names}
    length, classes = golden["cas_base"].shape[2], golden["labels"].shape[1]

    def scores(cas):
        return cas.topk(int(golden["topk"]), dim=2).values.mean(2)

    output = BackTALOutput(
        scores=scores(inputs["cas_supp"]),
        cas=inputs["cas_supp"],
        foreground=inputs["foreground"],
        embedding=inputs["embedding"],
        first_layer=inputs["embedding"],
        lengths=torch.full((len(golden["labels"]),), length),
        base_scores=scores(inputs["cas_base"]),
        base_cas=inputs["cas_base"],
    )
    clicks = torch.where(golden["clicks"] > 0, classes, -1)
    terms = BackTALLoss(released.loss, released.model.topk_ratio)(output, golden["labels"], clicks)
    terms["total"].backward()
    expected = {
        "video_base": golden["cls_base"],
        "video_suppressed": golden["cls_supp"],
        "norm": golden["norm"],
        "frame": golden["frame"],
        "affinity": golden["affinity"],
        "separation": 2 * golden["separation"],
        "total": golden["total"],
    }
    # The golden separation is the rest of the total after the other terms, so it carries the float32
    # rounding of the total divided by its weight; its gradients, below, are exact.
    rounding = 2 * float(np.spacing(golden["total"].numpy())) / float(golden["weight_separation"])
    for name, value in expected.items():
        slack = 2 * rounding if name == "separation" else 0
        assert abs(float(terms[name].detach()) - float(value)) <= 1e-5 * abs(float(value)) + slack, name
    for name in names:
        assert relative_error(inputs[name].grad, golden[f"grad_{name}"]) < 1e-5, name


@pytest.mark.parametrize("setting", SETTINGS)
def test_localize(setting):
    arrays = np.load(GOLDEN / f"localize_{setting}.npz")
    golden = json.loads((GOLDEN / f"localize_{setting}.json").read_text())
    config = recipe(SETTINGS[setting]).localization
    total = apart = 0
    for case in golden["cases"]:
        cas, scores = arrays[f"{case['video']}/cas"], arrays[f"{case['video']}/scores"]
        name = f"{case['video']}/feature"
        magnitude = np.linalg.norm(arrays[name], axis=0) if name in arrays else np.zeros(cas.shape[1])
        axis = TimeAxis.even(cas.shape[1], case["duration"], case["num_frames"])
        found = localize_arrays(cas[:-1], scores[:-1], magnitude, axis, golden["labels"], config)
        rows = sorted((s.label, s.score, s.start, s.end) for s in found)
        expected = sorted((s["label"], s["score"], *s["segment"]) for s in case["segments"])
        assert [row[0] for row in rows] == [row[0] for row in expected]
        difference = np.abs(np.array([r[1:] for r in rows]) - np.array([e[1:] for e in expected]))
        frame = case["duration"] / case["num_frames"]
        off = (difference > 1e-5 * np.maximum(1, np.abs(np.array([e[1:] for e in expected])))).any(axis=1)
        assert (difference[off, 1:] < 1.01 * frame).all()
        total, apart = total + len(rows), apart + int(off.sum())
    assert apart <= total / 100


def test_evaluate_on_thumos14():
    annotations = read_annotations(shared("data", "thumos14", "annotations.json"))
    expected = json.loads(shared("golden", "evaluate_expected.json").read_text())
    with gzip.open(shared("golden", "evaluate_predictions.json.gz"), "rt") as file:
        results = json.load(file)["results"]
    predictions = [
        Localization(v, 1.0, tuple(Segment(*e["segment"], e["label"], e["score"]) for e in entries))
        for v, entries in results.items()
    ]
    truth = [v.ground_truth for v in annotations.videos.values() if v.subset == expected["subset"]]
    report = evaluate(predictions, truth, expected["tiou_thresholds"])
    assert np.abs(report.mean_ap - expected["mAP"]).max() < 1e-12
    assert abs(report.average - expected["average"]) < 1e-12
    assert set(report.labels) == set(expected["ap"])
    for label, row in zip(report.labels, report.ap, strict=True):
        assert np.abs(row - expected["ap"][label]).max() < 1e-12, label
