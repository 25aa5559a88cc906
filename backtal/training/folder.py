"""The folder of a training run: its settings, the log of its epochs, and the state from which it goes on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backtal.errors import CheckpointError, ConfigError
from backtal.files import atomic_path, read_json, write_json

RECIPE_FILE, LOG_FILE, STATE_FILE = "recipe.json", "log.jsonl", "state.safetensors"


class RunFolder:
    """What a training run keeps on disk; every file appears whole or not at all.

    Args:
        path: the folder.
        writes: whether this process writes; of several that train together, one does.
    """

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path, self.writes = path, writes

    @property
    def is_finished(self) -> bool:
        """Whether the run that is there is complete: the same command again has nothing to do."""
        return (self.path / "config.json").exists() and not (self.path / STATE_FILE).exists()

    def open(self, settings: dict[str, Any], *, resume: bool) -> bool:
        """Begin a run, or find the one that is there.

        Args:
            settings: of the run, and a digest of its data under ``"data"``.
            resume: whether a run that is there may be gone on with.

        Returns:
            Whether there was one.

        Raises:
            ConfigError: if there is an unfinished run that may not be gone on with, or one of other settings or data.
        """
        recipe = self.path / RECIPE_FILE
        if resume and self.writes:
            for leftover in self.path.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        if not recipe.exists():
            if self.writes:
                write_json(recipe, settings)
            return False
        differing = sorted(_differences(read_json(recipe, ConfigError), settings))
        if not resume and (differing or not self.is_finished):
            raise ConfigError(f"{self.path}: already holds a run; pass --resume to continue it, or another --out")
        if differing:
            raise ConfigError(f"{self.path}: the run was started with other settings or data: {'; '.join(differing)}")
        return True

    def read_state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]] | None:
        """Tensors by part and name, and texts, as `write_state` was given them; None where there are none.

        Raises:
            CheckpointError: if the file is damaged.
        """
        path = self.path / STATE_FILE
        if not path.exists():
            return None
        parts: dict[str, dict[str, Tensor]] = {}
        try:
            with safe_open(path, framework="pt") as file:
                texts = file.metadata()
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    part, _, name = key.partition(".")
                    parts.setdefault(part, {})[name] = file.get_tensor(key)
        except (SafetensorError, OSError) as failure:
            raise CheckpointError(f"{path}: damaged; delete it to start the run again: {failure}") from None
        if "model" not in parts or not texts or not {"epoch", "best_loss", "log"} <= set(texts):
            raise CheckpointError(f"{path}: not the state of a training run; delete it to start the run again")
        return parts, texts

    def write_state(self, parts: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, str]) -> None:
        """Write everything that the next epoch depends on, in one file."""
        if not self.writes:
            return
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        with atomic_path(self.path / STATE_FILE) as temporary:
            save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, temporary, dict(texts))

    def drop_state(self) -> None:
        """The run is complete."""
        if self.writes:
            (self.path / STATE_FILE).unlink(missing_ok=True)

    def write_log(self, lines: list[str]) -> None:
        """Write the log anew, with a line for each epoch."""
        if self.writes:
            with atomic_path(self.path / LOG_FILE) as temporary:
                temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def append_log(self, line: str) -> None:
        """Add the line of an epoch."""
        if self.writes:
            with (self.path / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _differences(found: dict, wanted: dict, prefix: str = "") -> Iterator[str]:
    for name in found.keys() | wanted.keys():
        a, b = found.get(name), wanted.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield ("other videos, labels or clicks" if name == "data" else f"{prefix}{name} was {a!r}, is {b!r}")
