import functools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, make_folder, train_options
from safetensors.torch import load_file

from backtal import (
    BackTALLoss,
    BackTALModel,
    CheckpointError,
    Click,
    ClickTrack,
    ConfigError,
    DataError,
    ModelConfig,
    TrainingConfig,
)
from backtal.data.datasets import DatasetFolder
from backtal.settings.presets import recipe, video_labels_only
from backtal.training.examples import TrainingSet, collate
from backtal.training.train import EpochOrder, fit, for_dataset

RECIPE = recipe("compact").with_settings([*TINY, "checkpoint_every=1"])


def training_set(root, recipe=RECIPE):
    folder = DatasetFolder(root)
    return TrainingSet(folder, "training", folder.clicks(folder.click_files()), recipe.model)


def run(root, out, recipe=RECIPE, *, resume=False):
    return fit(training_set(root, recipe), recipe, out, resume=resume, device="cpu")


def weights(out):
    return load_file(out / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_seed_one_checkpoint(folder, tmp_path):
    run(folder, tmp_path / "a")
    torch.randn(3)
    before = torch.get_rng_state()
    run(folder, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before)
    run(folder, tmp_path / "c", RECIPE.with_settings(["seed=1"]))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_training_learns_the_weak_labels(folder, tmp_path):
    changed = RECIPE.with_settings(["epochs=60", "learning_rate=0.01", "input_dropout=0", "dropout=0", "hidden_dim=16"])
    model = run(folder, tmp_path / "a", changed)
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == list(range(1, 61))
    assert log[-1]["total"] < 0.7 * log[0]["total"]
    data = DatasetFolder(folder)
    for video in data.annotations.subset("test"):
        found = model.localize(data.features(video))
        assert found.segments[0].label in video.labels


def test_the_schedule(folder, tmp_path):
    rates = []

    class Spy(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Spy)
        run(folder, tmp_path / "a", RECIPE.with_settings(["epochs=5", "schedule=cosine", "learning_rate=0.5"]))
    assert rates[0] == 0.5
    assert rates == sorted(rates, reverse=True)
    assert rates[5] == pytest.approx(0.25)


@pytest.mark.parametrize("settings", [[], ["held_out=0.34"]], ids=["all", "held-out"])
def test_a_stopped_run_resumes_to_the_same_weights(folder, tmp_path, monkeypatch, settings):
    import backtal.training.train

    chosen = RECIPE.with_settings(["epochs=5", "checkpoint_every=2", *settings])
    run(folder, tmp_path / "whole", chosen)
    original = backtal.training.train._Run.train_epoch

    def stop_at_four(self, epoch):
        if epoch == 4:
            raise KeyboardInterrupt
        original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(backtal.training.train._Run, "train_epoch", stop_at_four)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "cut", chosen)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    run(folder, tmp_path / "cut", chosen, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    strip = [[{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log] for log in logs]
    assert strip[0] == strip[1]
    run(folder, tmp_path / "cut", chosen, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [
        "README.md",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
    ]


def test_a_second_stage_resumes_and_is_taught_by_the_first(folder, tmp_path, monkeypatch):
    import backtal.training.train

    chosen = RECIPE.with_settings(["epochs=3", "stages=2"])
    run(folder, tmp_path / "whole", chosen)
    original = backtal.training.train._Run.train_epoch

    def stop_in_the_second(self, epoch):
        if self.settings.stages == 2 and epoch == 3:
            raise KeyboardInterrupt
        original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(backtal.training.train._Run, "train_epoch", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "cut", chosen)
    run(folder, tmp_path / "cut", chosen, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    run(folder, tmp_path / "first", RECIPE.with_settings(["epochs=3"]))
    assert same(weights(tmp_path / "whole" / "stage1"), weights(tmp_path / "first"))
    run(folder, tmp_path / "untaught", chosen.with_settings(["teacher=0"]))
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "untaught"))
    assert "teacher" in json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])


def _child(root, out):
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    run(root, out, RECIPE.with_settings(["epochs=15"]), resume=True)


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path, monkeypatch):
    """Each killed run, resumed, ends with the weights of the unbroken one: one moment in each sixth of its time."""
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    context.set_forkserver_preload(["preload_training"])
    root = make_folder(tmp_path / "data")

    def start(out):
        process = context.Process(target=_child, args=(root, out))
        process.start()
        return process

    start(tmp_path / "warm-up").join()
    began = time.monotonic()
    start(tmp_path / "whole").join()
    whole = time.monotonic() - began
    moments, epochs, trials = random.Random(), [], 6
    for trial in range(trials):
        out = tmp_path / f"cut{trial}"
        process = start(out)
        time.sleep(whole * (trial + moments.random()) / trials)
        process.kill()  # SIGKILL; a run that has just ended is left alone
        process.join()
        log = out / "log.jsonl"
        epochs.append(len(log.read_text().splitlines()) if log.exists() else 0)
        process = start(out)
        process.join()
        assert process.exitcode == 0
        assert same(weights(tmp_path / "whole"), weights(out)), f"killed after epoch {epochs[-1]}"
        assert not list(out.glob(".*"))
    assert len(set(epochs)) > 2


def test_the_run_folder_is_guarded(folder, tmp_path):
    model = run(folder, tmp_path / "a")
    again = run(folder, tmp_path / "a")  # finished, with the same settings and data: nothing to do
    assert same(model.state_dict(), again.state_dict())
    with pytest.raises(ConfigError, match="already holds a run; pass --resume"):
        run(folder, tmp_path / "a", RECIPE.with_settings(["epochs=9"]))
    with pytest.raises(ConfigError, match=r"other settings or data: training.epochs was 4, is 9"):
        run(folder, tmp_path / "a", RECIPE.with_settings(["epochs=9"]), resume=True)
    clicks = (folder / "clicks" / "A1.txt").read_text(encoding="utf-8-sig").splitlines()
    (folder / "clicks" / "A1.txt").write_text("\n".join(clicks[:-1]))
    with pytest.raises(ConfigError, match="other videos, labels or clicks"):
        run(folder, tmp_path / "a", resume=True)


def test_a_damaged_state_is_named(folder, tmp_path, monkeypatch):
    run(folder, tmp_path / "a")
    (tmp_path / "a" / "state.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(CheckpointError, match=r"state.safetensors: damaged; delete it"):
        run(folder, tmp_path / "a", resume=True)


def test_a_full_disk_loses_nothing(folder, tmp_path, monkeypatch):
    import backtal.training.folder

    real, calls = backtal.training.folder.save_file, []

    def full(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(backtal.training.folder, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            run(folder, tmp_path / "a")
    assert not list((tmp_path / "a").glob(".*"))
    run(folder, tmp_path / "a", resume=True)
    run(folder, tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_diverged_run_says_so(folder, tmp_path):
    with pytest.raises(ConfigError, match="the loss is nan in epoch"):
        run(folder, tmp_path / "a", RECIPE.with_settings(["learning_rate=1e15", "batch_size=1", "weight_decay=1e15"]))


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = EpochOrder(list(range(20)), seed)
        sampler.epoch = epoch
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert sorted(order(0, 1)) == list(range(20))
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9


@pytest.mark.parametrize(("least", "steps"), [(1, 2), (2, 2), (3, 4), (8, 8)])
def test_few_videos_are_seen_several_times_an_epoch(folder, tmp_path, monkeypatch, least, steps):
    seen = []
    monkeypatch.setattr(BackTALLoss, "forward", record(seen, BackTALLoss.forward))
    run(folder, tmp_path / "a", RECIPE.with_settings([f"min_epoch_steps={least}", "epochs=1"]))
    assert len(seen) == steps
    assert sorted(torch.cat(seen).tolist()) == sorted([[1, 0], [0, 1]] * (3 * steps // 2))


@pytest.mark.parametrize(("gap", "kernel_size"), [(1, 5), (12, 5), (19, 5), (21, 7), (30, 9), (36, 11), (90, 15)])
def test_the_kernel_size_follows_the_distance_between_clicks(folder, gap, kernel_size):
    training_set = TrainingSet(DatasetFolder(folder), "training", None, ModelConfig())
    assert training_set.click_gap is None
    assert for_dataset(recipe("compact"), training_set).model.kernel_size == 9
    training_set.click_gap, training_set.shortest = gap, 40
    assert for_dataset(recipe("compact"), training_set).model.kernel_size == kernel_size
    assert for_dataset(recipe("compact").with_settings(["kernel_size=3"]), training_set).model.kernel_size == 3
    assert for_dataset(recipe("thumos14"), training_set).model.kernel_size == 3
    training_set.shortest = 10
    assert for_dataset(recipe("compact"), training_set).model.kernel_size == min(kernel_size, 9)


def test_the_distance_between_clicks_is_a_median_in_snippets(folder):
    data = DatasetFolder(folder)
    names = [video.video_id for video in data.annotations.subset("training")]
    times = [(1, 2, 4), (1, 5), (2, 3), (4,), (5,), (6,)]  # 1, 2, 4 and 1 seconds apart, two snippets a second
    clicks = {n: ClickTrack(n, (*map(Click, t), Click(9.9, "jump"))) for n, t in zip(names, times, strict=True)}
    assert TrainingSet(data, "training", clicks, ModelConfig()).click_gap == 3
    halved = TrainingSet(data, "training", clicks, ModelConfig(temporal_length=10)).click_gap
    assert 1 < halved < 2


def record(seen, forward):
    def recording(self, output, labels, *others):
        seen.append(labels)
        return forward(self, output, labels, *others)

    return recording


def test_training_sees_the_label_set_and_the_clicks_only(folder):
    examples = training_set(folder)
    annotations = json.loads((folder / "annotations.json").read_text())
    for entry in annotations["database"].values():
        for item in entry["annotations"]:
            item["segment"] = [0.0, 0.5]
    (folder / "annotations.json").write_text(json.dumps(annotations))
    for a, b in zip(examples, training_set(folder), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    batch = collate([examples[0], examples[1]])
    assert batch.features.shape[0] == 2
    assert (batch.clicks == 2).sum() == sum(len(examples.clicks[f"v{i}"]) for i in (0, 1))
    assert batch.labels.tolist() == [[1, 0], [0, 1]]


def test_uncached_features_are_read_again(folder):
    data = DatasetFolder(folder)
    lazy = TrainingSet(data, "training", None, RECIPE.model, cache_bytes=0)
    assert torch.equal(lazy[2].features, training_set(folder)[2].features)


def test_statistics_are_those_of_all_snippets(folder):
    examples = training_set(folder)
    everything = torch.cat([example.features for example in examples], dim=1)
    torch.testing.assert_close(examples.mean, everything.mean(1))
    torch.testing.assert_close(examples.deviation, everything.std(1, correction=0))


def test_a_network_clips_what_is_beyond_all_that_training_saw(folder, tmp_path, caplog):
    model = run(folder, tmp_path / "usual")
    assert model.clip == 10
    assert BackTALModel.from_pretrained(tmp_path / "usual").clip == 10
    path = sorted((folder / "features").glob("*.npz"))[0]
    content = dict(np.load(path))
    content["features"][3, 4] = 60_000.0
    np.savez(path, **content)
    examples = training_set(folder)
    clip = run(folder, tmp_path / "far").clip
    assert 10 < examples.farthest().max() <= clip < examples.farthest().max() + 1
    assert json.loads((tmp_path / "far" / "recipe.json").read_text())["model"]["clip"] is None
    assert not caplog.text
    run(folder, tmp_path / "given", RECIPE.with_settings(["clip=5"]))
    assert (
        "1 training video(s) have values more than 5 deviations from the mean, which the network clips" in caplog.text
    )
    assert caplog.text.rstrip().endswith(path.stem)


def test_video_labels_only_reads_no_click(folder, tmp_path):
    chosen = video_labels_only(RECIPE)
    examples = TrainingSet(DatasetFolder(folder), "training", None, chosen.model)
    assert all((example.clicks == -1).all() for example in examples)
    model = fit(examples, chosen, tmp_path / "a", device="cpu")
    assert not model.config.affinity


def test_held_out_must_leave_both_parts(folder, tmp_path):
    with pytest.raises(ConfigError, match="leaves a part empty"):
        run(folder, tmp_path / "a", RECIPE.with_settings(["held_out=0.01"]))


@pytest.mark.slow
def test_two_processes_train_together(folder, tmp_path):
    """Hugging Face accelerate, two gloo processes on the CPU: they agree and write one checkpoint."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    command += [
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "--main_process_port=0",
        "--num_cpu_threads_per_process=1",
    ]
    command += ["-m", "backtal", "train", str(folder), "--out", str(tmp_path / "two")]
    command += train_options(*TINY, "batch_size=2")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert BackTALModel.from_pretrained(tmp_path / "two").config.labels == ("jump", "run")
    log = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3, 4]


@pytest.mark.parametrize("settings", [["precision=bfloat16"], ["compile=true"]])
def test_faster_arithmetic_learns_the_same(folder, tmp_path, settings, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    recipe = RECIPE.with_settings(["dropout=0", "input_dropout=0"])
    run(folder, tmp_path / "a", recipe)
    run(folder, tmp_path / "b", recipe.with_settings(settings))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert {value.dtype for value in b.values()} == {torch.float32}
    before, after = (
        [json.loads(line)["total"] for line in (tmp_path / out / "log.jsonl").read_text().splitlines()] for out in "ab"
    )
    assert after == pytest.approx(before, rel=0.01)
    compiled = settings == ["compile=true"]
    assert same(a, b) == compiled
    assert (1 <= len(graphs) <= 2) == compiled


def test_training_config_defaults_are_the_papers():
    assert (TrainingConfig().batch_size, TrainingConfig().learning_rate, TrainingConfig().weight_decay) == (
        16,
        1e-4,
        5e-4,
    )


def test_unclicked_and_unlabelled_videos_are_refused_unless_allowed(folder):
    data = DatasetFolder(folder)
    tracks = data.clicks(data.click_files())
    del tracks["v3"]
    with pytest.raises(DataError, match=r"1 training video\(s\) without any click: v3; .*allow_unclicked=true"):
        TrainingSet(data, "training", tracks, RECIPE.model)
    assert len(TrainingSet(data, "training", tracks, RECIPE.model, allow_unclicked=True)) == 6


def test_what_accelerate_wraps_comes_back_as_it_was(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    model = run(folder, tmp_path / "run")
    assert "forward" not in vars(model)
    x = torch.randn(1, model.config.feature_dim, 20)
    with torch.inference_mode():
        torch.testing.assert_close(model(x).cas, BackTALModel.from_pretrained(tmp_path / "run")(x).cas)
