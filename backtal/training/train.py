"""Training: one loop, resumable at every checkpoint, on one process or many (accelerate)."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from backtal.data.datasets import SHORTEST
from backtal.data.features import check_length
from backtal.errors import ConfigError, name_some
from backtal.files import note, progress
from backtal.nn.pretrained import LocalizationModel
from backtal.settings.config import Recipe
from backtal.training.augment import varied
from backtal.training.examples import Batch, TrainingSet, collate, on
from backtal.training.folder import RunFolder
from backtal.training.methods import method_of
from backtal.training.prior import least_action


def fit(
    training_set: TrainingSet,
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
) -> LocalizationModel:
    """Train a model and write a checkpoint folder.

    `out` also gets ``recipe.json`` (all settings), ``log.jsonl`` (the loss terms of every epoch) and, while
    training, ``state.safetensors``, from which `resume` continues to the same weights as an unbroken run.

    Args:
        training_set: the videos, their labels and clicks.
        recipe: all settings; labels, feature dimension and feature spec come from the training set.
        out: the folder to write.
        resume: continue a run that was stopped, or start it if there is none. A finished run of the same settings and
            data is left as it is, with or without.
        device: where to train; the accelerator if there is one, else the CPU.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ConfigError: if `out` holds an unfinished run and `resume` is False, or one with other settings or data.
    """
    recipe = for_dataset(recipe, training_set)
    return _fit(training_set, recipe, Path(out), resume, device, of_stages=recipe.training.stages)


def _fit(
    training_set: TrainingSet, recipe: Recipe, out: Path, resume: bool, device: str | None, of_stages: int
) -> LocalizationModel:
    if (stages := recipe.training.stages) > 1:
        before = replace(recipe, training=replace(recipe.training, stages=stages - 1))
        teacher = _fit(training_set, before, out / f"stage{stages - 1}", resume, device, of_stages)
        with torch.no_grad():
            training_set = training_set.taught_by(method_of(before, training_set).teach(teacher))
    accelerator = Accelerator(
        cpu=device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    with torch.random.fork_rng():
        run = _Run(training_set, recipe, out, accelerator)
        run.prepare_folder(resume)
        for epoch in run.epochs("training" if of_stages == 1 else f"training, stage {stages} of {of_stages}"):
            run.train_epoch(epoch)
            if epoch % recipe.training.checkpoint_every == 0 or epoch == recipe.training.epochs:
                run.save_state(epoch)
        return run.finish()


def for_dataset(recipe: Recipe, training_set: TrainingSet) -> Recipe:
    """Fill in what the dataset decides: labels, feature dimension and spec, and what a recipe leaves to it.

    Of a detector that is how much of what nobody clicked is action, and with `kernel_per_gap` the kernel size.

    Actions are about 0.3 times as long as two clicks are apart (median over median: 0.23 to 0.29 with the three
    files of human clicks of THUMOS14), and the network should see about one of them at a time: the odd number nearest
    to that many snippets, 5 to 15, and no more than the shortest video has.

    Raises:
        DataError: if the shortest video has fewer snippets than one kernel spans.
    """
    if recipe.architecture == "detector":
        stages = 1 if training_set.all_located else recipe.training.stages
        if stages == 1 and not training_set.all_located:
            raise ConfigError(
                "training.stages=1: a detector's first stage finds no segments unless start and end of every training "
                "video are known; set stages=2, or train with --full-labels"
            )
        recipe = replace(recipe, training=replace(recipe.training, stages=stages))
        if recipe.loss.covered and recipe.loss.covered_least is None:
            least = least_action(training_set, recipe.model.clip)
            recipe = replace(recipe, loss=replace(recipe.loss, covered_least=least))
        return replace(recipe, model=replace(recipe.model, **_read_from(training_set)))
    kernel_size, shortest = recipe.model.kernel_size, training_set.shortest
    gap = (recipe.training.kernel_per_gap or 0) * (training_set.click_gap or 0)
    check_length(training_set.shortest_id, shortest, min(SHORTEST, kernel_size) if gap else kernel_size)
    if gap:
        wanted = min(max(gap, SHORTEST), 15, shortest - 1)
        kernel_size = 2 * round((wanted - 1) / 2) + 1
    return replace(recipe, model=replace(recipe.model, kernel_size=kernel_size, **_read_from(training_set)))


def _read_from(training_set: TrainingSet) -> dict[str, Any]:
    names = {"labels": training_set.folder.labels, "feature_dim": training_set.feature_dim}
    return names | {"feature_spec": training_set.feature_spec}


class EpochOrder(Sampler[int]):
    """The order of the videos in an epoch of so many passes: shuffled from the seed and the epoch alone."""

    def __init__(self, indices: list[int], seed: int, passes: int = 1) -> None:
        self.indices, self.seed, self.passes, self.epoch = indices, seed, passes, 0

    def __len__(self) -> int:
        return len(self.indices) * self.passes

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        for _ in range(self.passes):
            yield from (self.indices[i] for i in torch.randperm(len(self.indices), generator=generator).tolist())


def _mix(*numbers: int) -> int:
    """One seed from several."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % 2**63
    return mixed


class _Run:
    """The state of a training run."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe, out: Path, accelerator: Accelerator) -> None:
        self.training_set, self.recipe, self.accelerator = training_set, recipe, accelerator
        self.folder = RunFolder(out, writes=accelerator.is_main_process)
        self.settings = recipe.training
        stage = self.settings.stages
        # A later stage starts from weights of its own.
        torch.manual_seed(self.settings.seed if stage == 1 else _mix(self.settings.seed, -stage))
        self.method = method_of(recipe, training_set)
        self.model = self.method.model()
        if stage == 1 and self.folder.writes:
            self._say_clipped()
        training, self.held_out = self._split()
        passes = math.ceil(self.settings.min_epoch_steps * self.settings.batch_size / len(training))
        self.order = EpochOrder(training, self.settings.seed, passes)
        numbers, size = range(len(training_set)), self.settings.batch_size
        loader = DataLoader(numbers, batch_size=size, sampler=self.order, collate_fn=list)  # type: ignore[arg-type]
        kind = torch.optim.AdamW if self.settings.decoupled else torch.optim.Adam
        optimizer = kind(
            self.model.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
        self.parallel, self.optimizer, self.loader = accelerator.prepare(self.model, optimizer, loader)
        if self.settings.compile:
            self.parallel.compile(dynamic=True)
        self.first_epoch, self.best, self.best_loss = 1, dict[str, Tensor](), math.inf
        self.average = self._weights() if self.settings.averaging else {}
        self.log: list[str] = []

    def _say_clipped(self) -> None:
        clip, farthest = self.model.clip, self.training_set.farthest()
        if clip is not None and (far := torch.nonzero(farthest > clip)[:, 0].tolist()):
            note(
                f"{len(far)} training video(s) have values more than {clip:g} deviations from the mean, which the "
                f"network clips to that: {name_some(self.training_set.videos[index].video_id for index in far)}"
            )

    def _split(self) -> tuple[list[int], list[int]]:
        """Indices to train on, and those held out; the same for every seed."""
        count = len(self.training_set) if self.settings.stages > 1 else self.training_set.known
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        count = round(len(order) * self.settings.held_out)
        if self.settings.held_out and not 0 < count < len(order):
            raise ConfigError(f"held_out={self.settings.held_out} of {len(order)} training videos leaves a part empty")
        return sorted(order[count:]), sorted(order[:count])

    def prepare_folder(self, resume: bool) -> None:
        """Start a run folder, or go on with the one that is there."""
        wanted = json.loads(json.dumps(dataclasses.asdict(self.recipe))) | {"data": self.training_set.fingerprint()}
        if self.folder.open(wanted, resume=resume):
            self._load_state()
        self.accelerator.wait_for_everyone()

    def epochs(self, what: str) -> Iterator[int]:
        """The epochs left, with progress on stderr."""
        bar = progress(
            range(self.first_epoch, self.settings.epochs + 1),
            desc=what,
            unit="epoch",
            initial=self.first_epoch - 1,
            total=self.settings.epochs,
            disable=not self.accelerator.is_main_process,
        )
        for epoch in bar:
            yield epoch
            bar.set_postfix(loss=f"{json.loads(self.log[-1])['total']:.3f}", refresh=False)

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training videos."""
        began = time.monotonic()
        self.order.epoch = epoch
        torch.manual_seed(_mix(self.settings.seed, epoch, self.accelerator.process_index))
        self.parallel.train()
        sums: dict[str, Tensor] = {}
        for step, batch in enumerate(self.training_set.hand_out(self.loader, self.accelerator.device)):
            rate = self._learning_rate(epoch - 1 + step / len(self.loader))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            terms = self._terms(batch)
            self.optimizer.zero_grad()
            self.accelerator.backward(terms["total"])
            if self.settings.clip_norm is not None:
                self.accelerator.clip_grad_norm_(self.parallel.parameters(), self.settings.clip_norm)
            self.optimizer.step()
            self._update_average((epoch - 1) * len(self.loader) + step)
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
        entry = {"epoch": epoch, **{name: float(value) / len(self.loader) for name, value in sums.items()}}
        if not math.isfinite(entry["total"]):
            raise ConfigError(f"the loss is {entry['total']} in epoch {epoch}: lower the learning rate")
        if self.held_out:
            entry["held_out"] = self._held_out_loss()
            if entry["held_out"] < self.best_loss:
                self.best_loss = entry["held_out"]
                self.best = {name: value.clone() for name, value in (self.average or self._weights()).items()}
        entry["seconds"] = round(time.monotonic() - began, 3)
        self.log.append(json.dumps(entry))
        self.folder.append_log(self.log[-1])

    def _learning_rate(self, epochs_done: float) -> float:
        settings = self.settings
        rate = settings.learning_rate * min(
            1.0, (epochs_done + 1 / len(self.loader)) / (settings.warmup_epochs or 1e-9)
        )
        if settings.schedule == "constant":
            return rate
        return rate * (1 + math.cos(math.pi * epochs_done / settings.epochs)) / 2

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _update_average(self, step: int) -> None:
        """The running mean of the weights; it forgets its start faster than its decay says."""
        if not self.average:
            return
        decay = min(self.settings.averaging, (2 + step) / (11 + step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        batch = varied(batch._replace(features=batch.features.float()), self.settings.stretch)
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=half):
            output = self.method.run(self.parallel, batch)
        return self.method.terms(_in_float32(output) if half else output, batch)

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Mean total loss over the held-out training videos, one by one, of the weights that are kept."""
        self.model.eval()
        trained = self._weights()
        self.model.load_state_dict(self.average or trained)
        device, losses = self.accelerator.device, []
        for index in self.held_out:
            batch = on(device, collate([self.training_set[index]]))
            losses.append(float(self.method.terms(self.method.run(self.model, batch), batch)["total"]))
        self.model.load_state_dict(trained)
        return sum(losses) / len(losses)

    def save_state(self, epoch: int) -> None:
        """Keep everything that the next epoch depends on."""
        moments = self.optimizer.state_dict()["state"]
        adam = {f"{index}.{name}": value for index, values in moments.items() for name, value in values.items()}
        parts = {"model": self.model.state_dict(), "best": self.best, "average": self.average, "adam": adam}
        texts = {"epoch": str(epoch), "best_loss": repr(self.best_loss), "log": "\n".join(self.log)}
        self.folder.write_state(parts, texts)

    def _load_state(self) -> None:
        found = self.folder.read_state()
        if found is not None:
            parts, texts = found
            self.model.load_state_dict(parts["model"])
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in parts.get("adam", {}).items():
                index, _, name = key.partition(".")
                parameter = self.optimizer.param_groups[0]["params"][int(index)]
                same_strides = torch.empty_like(parameter).copy_(value) if value.dim() else value
                moments.setdefault(int(index), {})[name] = same_strides
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
            self.best, self.best_loss = parts.get("best", {}), float(texts["best_loss"])
            average = parts.get("average", {})
            self.average = {name: value.to(self.accelerator.device) for name, value in average.items()}
            self.first_epoch, self.log = int(texts["epoch"]) + 1, texts["log"].splitlines()
        elif self.folder.is_finished:
            self.first_epoch = self.settings.epochs + 1
            self.model.load_state_dict(LocalizationModel.from_pretrained(self.folder.path).state_dict())
            self.average = {}
            return
        self.folder.write_log(self.log)

    def finish(self) -> LocalizationModel:
        """Write the checkpoint and drop the training state."""
        if kept := self.best or self.average:
            self.model.load_state_dict(kept)
        if self.folder.writes:
            self.model.save_pretrained(self.folder.path)
        self.folder.drop_state()
        self.accelerator.wait_for_everyone()
        # Where accelerate was told of mixed precision, it had wrapped `forward`.
        self.accelerator.unwrap_model(self.parallel, keep_fp32_wrapper=False)
        return self.model.eval()


def _in_float32(output: Any) -> Any:
    """The output with its tensors, nested ones too, in float32."""
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    return output if output is None else type(output)(*map(_in_float32, output))
