"""What a checkpoint says of itself, and the parameters and floating-point operations of its network, counted."""

import dataclasses
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from backtal.errors import CheckpointError
from backtal.hub.checkpoint import CheckpointConfig, describe, load_config, run_facts, shorten
from backtal.hub.hub import fetch
from backtal.nn.pretrained import network
from backtal.settings.presets import RECIPES

PAPER_PARAMETERS, PAPER_FLOPS = 4.29e6, 6.51e9
_WHY = (
    "The paper does not describe the network it counted: two operations per parameter and frame at T = 750 fit one "
    "stream of a much narrower one (a trunk 512 wide, with embedding and classifier, has 4.1 M), while the released "
    "network, which the recipes rebuild, is 2048 wide."
)


@dataclass(frozen=True)
class Complexity:
    """Size of a network, and the operations on one video of `length` snippets.

    `flops` are those of convolutions and matrix products, an addition and a multiplication counted as two. `about` is
    what a checkpoint's card says; empty for a recipe.
    """

    name: str
    about: dict[str, str]
    parameters: int
    by_module: dict[str, int]
    flops: int
    flops_training: int
    length: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, beside the paper's figures."""
        return asdict(self) | {"paper": {"parameters": PAPER_PARAMETERS, "flops": PAPER_FLOPS, "note": _WHY}}

    def __str__(self) -> str:
        modules = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in self.by_module.items())
        rows = {shorten(key, 40): shorten(value, 4000) for key, value in self.about.items()}
        width = max(map(len, rows), default=0) + 2
        about = [
            textwrap.fill(value, 120, initial_indent=key.ljust(width), subsequent_indent=" " * width)
            for key, value in rows.items()
        ]
        return "\n".join(
            (
                f"{'checkpoint' if about else 'recipe'} {self.name}",
                *about,
                "",
                f"one video of T = {self.length} snippets",
                f"{'':22}{'counted':>12}{'paper (Table 10)':>20}",
                f"{'parameters':22}{self.parameters / 1e6:>10.2f} M{PAPER_PARAMETERS / 1e6:>18.2f} M",
                f"{'FLOPs, inference':22}{self.flops / 1e9:>10.2f} G{PAPER_FLOPS / 1e9:>18.2f} G",
                f"{'FLOPs, both streams':22}{self.flops_training / 1e9:>10.2f} G",
                "",
                f"parameters by part: {modules}",
                textwrap.fill(_WHY, 120),
            )
        )


def measure(name: str | Path) -> Complexity:
    """Count the parameters and operations of a checkpoint's network, or of a recipe's.

    A name that is both, such as ``thumos14``, is the recipe: nothing has to be downloaded to know its size. A recipe
    without labels counts with 20, the number of THUMOS14; one without a temporal length with T = 750.

    Raises:
        CheckpointError: if `name` is neither a recipe nor a checkpoint, or the checkpoint is damaged.
    """
    config, about = _config(name)
    length = config.model.temporal_length or 750
    with torch.device("meta"):
        model, features = network(config), torch.zeros(1, config.model.feature_dim, length)
    counts = {}
    for training in (False, True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.train(training)(features)
        counts[training] = counter.get_total_flops()
    sizes = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    return Complexity(
        name=str(name),
        about=about,
        parameters=sum(sizes.values()),
        by_module={part: size for part, size in sizes.items() if size},
        flops=counts[False],
        flops_training=counts[True],
        length=length,
    )


def _config(name: str | Path) -> tuple[CheckpointConfig, dict[str, str]]:
    if name in RECIPES:
        recipe = RECIPES[str(name)]
        model = dataclasses.replace(recipe.model, labels=tuple(f"class{i:03d}" for i in range(20)))
        return CheckpointConfig(recipe.architecture, model, recipe.localization, {}), {}
    try:
        folder = fetch(name)
        config = load_config(folder)
        return config, describe(config.model, run_facts(folder) | config.facts)
    except CheckpointError as failure:
        raise CheckpointError(f"{failure}\nNor is it a recipe; those are {', '.join(RECIPES)}") from None
