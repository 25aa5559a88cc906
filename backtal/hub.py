"""Checkpoints: names, folders and Hub repositories; reading what is not trusted, writing, publishing.

A checkpoint is ``config.json``, ``model.safetensors`` and a model card. Nothing in it is executed: the configuration is
checked field by field, the header of the weights is compared with the network that the configuration describes, and
only then is memory taken. Reading takes at most 64 MiB beyond the network itself and the mapped file, and no network
has more than `MAX_PARAMETERS`. Only `huggingface_hub` talks to the Hub; its cache and environment variables apply.
"""

import dataclasses
import json
import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backtal.config import LocalizationConfig, ModelConfig, from_dict
from backtal.errors import CheckpointError, ConfigError, name_some
from backtal.files import atomic_path
from backtal.presets import RECIPES

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RECIPE_FILE = "config.json", "model.safetensors", "README.md", "recipe.json"
MAX_CONFIG, MAX_HEADER, MAX_PARAMETERS = 2**20, 2**20, 2**28

# Short name -> repository and the commit that this version loads; None where nothing has been published.
PUBLISHED: dict[str, tuple[str, str | None]] = {
    "thumos14": ("backtal/thumos14", None),
    "activitynet1.2": ("backtal/activitynet1.2", None),
    "hacs": ("backtal/hacs", None),
    "beoid": ("backtal/beoid", None),
}
BUNDLED = {"shrec22": Path(__file__).parent / "checkpoints" / "shrec22"}

_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>.+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FLOATS = ("F16", "BF16", "F32", "F64")


def fetch(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder of a checkpoint, downloaded to the cache of `huggingface_hub` where it lives on the Hub.

    Args:
        name_or_path: a short name (`PUBLISHED`, `BUNDLED`), ``owner/name[@revision]``, or a folder: a `Path`, or
            text that names an existing folder or begins with ``.``, ``/`` or a drive. A short name always means the
            published checkpoint, whatever folder is called the same.
        revision: branch, tag or commit; instead of the one that a short name stands for.
        cache_dir: see `huggingface_hub.hf_hub_download`, as for the rest.
        token: of a private or gated repository.
        local_files_only: make no request.

    Raises:
        CheckpointError: if there is nothing of that name, or it cannot be downloaded; the message names repository,
            file and reason.

    Example:
        >>> fetch("./runs/mine")
        PosixPath('runs/mine')
    """
    short = isinstance(name_or_path, str) and (name_or_path in PUBLISHED or name_or_path in BUNDLED)
    if not short and _is_path(name_or_path):
        if revision is not None:
            raise CheckpointError(f"{name_or_path}: a folder has no revisions, but revision={revision!r} was given")
        return Path(name_or_path)
    name = str(name_or_path)
    if name in BUNDLED:
        return _bundled(name, revision)
    repository, wanted = PUBLISHED[name] if name in PUBLISHED else _parse(name)
    if name not in PUBLISHED and None not in (wanted, revision) and wanted != revision:
        raise CheckpointError(f"{name}: revision={revision!r} was given too; give one of them")
    source = _Repository(name, repository, revision or wanted, cache_dir, token, local_files_only)
    folder = source.download(CONFIG_FILE).parent
    load_config(folder)
    # The commit of the first file, so that both are of one commit even where a branch moves in between.
    commit = folder.name if _COMMIT.fullmatch(folder.name) else source.revision
    dataclasses.replace(source, revision=commit).download(WEIGHTS_FILE)
    if name in PUBLISHED and source.revision is None:
        warnings.warn(
            f"{name}: nothing was published when this version of backtal was; loaded {repository}@{commit}, "
            "which nobody has vouched for",
            stacklevel=3,
        )
    return folder


def _is_path(name: str | os.PathLike[str]) -> bool:
    if not isinstance(name, str):
        return True
    return name.startswith(".") or Path(name).is_absolute() or os.path.isdir(name)  # noqa: PTH112 (never raises)


def _parse(name: str) -> tuple[str, str | None]:
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise CheckpointError(
            f"{name}: neither a checkpoint's name ({', '.join([*PUBLISHED, *BUNDLED])}), "
            "nor an existing folder, nor owner/name[@revision] of a Hub repository"
        )
    return match["repository"], match["revision"]


def _bundled(name: str, revision: str | None) -> Path:
    if revision is not None:
        raise CheckpointError(f"{name}: is part of backtal and has no revisions, but revision={revision!r} was given")
    if not BUNDLED[name].is_dir():
        raise CheckpointError(f"{name}: {BUNDLED[name]} is missing from this installation; install backtal's wheel")
    return BUNDLED[name]


@dataclasses.dataclass(frozen=True)
class _Repository:
    name: str
    repository: str
    revision: str | None
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool

    def download(self, filename: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(
                self.repository,
                filename,
                revision=self.revision,
                cache_dir=self.cache_dir,
                token=self.token,
                local_files_only=self.local_files_only,
                library_name="backtal",
            )
        except Exception as failure:  # its own, its HTTP client's (which changes between versions), the disk's
            where = self.repository if self.revision is None else f"{self.repository}@{self.revision}"
            raise CheckpointError(f"{where}: {filename}: {self._reason(failure)}{self._advice()}") from None
        return Path(path)

    def _reason(self, failure: Exception) -> str:
        from huggingface_hub import constants, errors

        page = f"{constants.ENDPOINT}/{self.repository}"
        nor_folder = "; there is no such folder here either" if self.name == self.repository else ""
        if isinstance(failure, errors.GatedRepoError):
            return f"access is restricted: ask for it at {page}, then log in (`hf auth login`) or pass token="
        if isinstance(failure, errors.RepositoryNotFoundError):
            return f"no such repository at {constants.ENDPOINT} (or a private one: log in or pass token=){nor_folder}"
        if isinstance(failure, errors.RevisionNotFoundError):
            return f"no such revision at {page}"
        if isinstance(failure, errors.LocalEntryNotFoundError):
            if self.local_files_only or constants.HF_HUB_OFFLINE:
                return f"not in the cache, and requests are off (local_files_only or HF_HUB_OFFLINE){nor_folder}"
            cause = failure.__cause__ or failure
            return f"not in the cache, and asking {constants.ENDPOINT} failed: {_first_line(cause)}{nor_folder}"
        if isinstance(failure, errors.EntryNotFoundError):
            return f"no such file at {page}: not a checkpoint of backtal"
        return f"cannot be downloaded from {constants.ENDPOINT}: {_first_line(failure)}"

    def _advice(self) -> str:
        """How to get a model of a benchmark for which nothing is published."""
        if self.name not in PUBLISHED or PUBLISHED[self.name][1] is not None:
            return ""
        released = f"{self.name}-released"
        convert = (
            f"convert the released file:  backtal convert FILE.pth MODEL --recipe {released}"
            if released in RECIPES
            else "there is no recipe of a released system for it, so no file can be converted;"
        )
        return (
            f"\nNothing is published as {self.name!r} yet. Get a model today:"
            f"\n  {convert}"
            f"\n  or train on your features:  backtal train DATA --out RUN --recipe {self.name}"
        )


def _first_line(failure: BaseException) -> str:
    lines = str(failure).split("\n\n")[0].splitlines()
    return _shorten(f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__)


def _shorten(text: object) -> str:
    """Text of unknown origin for a message: bounded, and without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[:400])


def load_config(folder: str | Path) -> tuple[ModelConfig, LocalizationConfig, dict[str, str]]:
    """Read the configuration of a checkpoint folder, field by field, and the facts of its card.

    Raises:
        CheckpointError: if the file is missing or damaged, or a field is unknown, missing or wrong.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 (never raises)
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    path = Path(folder) / CONFIG_FILE
    content = _read_json(path)
    if not {"model", "localization"} <= set(content) <= {"model", "localization", "facts"}:
        found = _shorten(name_some(sorted(content)))
        raise CheckpointError(f"{path}: expected the keys 'model', 'localization' and 'facts', found {found}")
    facts = content.get("facts", {})
    try:
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ConfigError("facts: must be an object of texts")
        model = from_dict(ModelConfig, content["model"], "model")
        if not model.labels:
            raise ConfigError("model.labels: a model needs at least one label")
        return model, from_dict(LocalizationConfig, content["localization"], "localization"), facts
    except (ConfigError, RecursionError) as failure:
        raise CheckpointError(f"{path}: {_shorten(failure)}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """Read an untrusted JSON object of at most `MAX_CONFIG` bytes, without duplicate keys or broken Unicode."""
    try:
        if not path.is_file():  # a pipe or device would block or never end
            raise FileNotFoundError(2, "no such file")
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG + 1)
    except OSError as failure:
        raise CheckpointError(f"{path}: cannot be read: {failure.strerror}") from None
    if len(data) > MAX_CONFIG:
        raise CheckpointError(f"{path}: larger than {MAX_CONFIG:,} bytes")
    try:
        content = json.loads(data.decode(), object_pairs_hook=_unique)
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as failure:
        raise CheckpointError(f"{path}: not valid JSON: {_shorten(failure)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def load_weights(folder: str | Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights of a checkpoint folder, after comparing the header of the file with the network.

    Args:
        folder: the checkpoint folder.
        expected: the state of the network, on the ``meta`` device: names, shapes, types and memory layout.

    Returns:
        New tensors on the default device, of the expected type, whatever float type the file stores.

    Raises:
        CheckpointError: if the file is missing or damaged, or a tensor is missing, unexpected, not finite, or of
            another shape.
    """
    path = Path(folder) / WEIGHTS_FILE
    _check_sizes(path, _count(expected, path))
    state = {}
    try:
        with safe_open(path, framework="pt") as file:
            header = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            _check_shapes({name: entry.get_shape() for name, entry in header.items()}, expected, str(path))
            for name, entry in header.items():
                if entry.get_dtype() not in _FLOATS:
                    raise CheckpointError(f"{path}: {name} has type {entry.get_dtype()}, expected floating point")
            for name, tensor in expected.items():
                state[name] = torch.empty_like(tensor, device=torch.get_default_device()).copy_(file.get_tensor(name))
                _check_finite(name, state[name], str(path))
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as failure:
        reason = _shorten(failure)
        raise CheckpointError(f"{path}: not a readable safetensors file (truncated or damaged?): {reason}") from None
    return state


def _count(state: Mapping[str, Tensor], where: str | Path) -> int:
    count = sum(tensor.numel() for tensor in state.values())
    if count > MAX_PARAMETERS:
        raise CheckpointError(f"{where}: a network of {count:,} parameters; at most {MAX_PARAMETERS:,} are supported")
    return count


def _check_sizes(path: Path, parameters: int) -> None:
    """Bound what the safetensors library has to parse and map."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
    except OSError as failure:
        raise CheckpointError(f"{path}: cannot be read: {failure.strerror}") from None
    if header > MAX_HEADER or size > 8 + MAX_HEADER + 8 * parameters:
        raise CheckpointError(
            f"{path}: not a readable safetensors file: {size:,} bytes with a header of {header:,}, which do not fit a "
            f"network of {parameters:,} parameters"
        )


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError where `state` does not hold exactly the expected tensors, all finite."""
    _check_shapes({name: tensor.shape for name, tensor in state.items()}, expected, where)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{where}: {name} has type {tensor.dtype}, expected floating point")
        _check_finite(name, tensor, where)


def _check_shapes(shapes: Mapping[str, Sequence[int]], expected: Mapping[str, Tensor], where: str) -> None:
    if missing := sorted(set(expected) - set(shapes)):
        raise CheckpointError(f"{where}: missing tensor(s): {name_some(missing)}")
    if extra := sorted(set(shapes) - set(expected)):
        raise CheckpointError(f"{where}: unexpected tensor(s): {_shorten(name_some(extra))}")
    for name, tensor in expected.items():
        if list(shapes[name]) != list(tensor.shape):
            raise CheckpointError(
                f"{where}: {name} has shape {_shorten(list(shapes[name]))}, the configuration says {list(tensor.shape)}"
            )


def _check_finite(name: str, tensor: Tensor, where: str) -> None:
    if not tensor.isfinite().all():
        raise CheckpointError(f"{where}: {name} holds NaN or infinite values")


def save(
    folder: str | Path,
    model: ModelConfig,
    localization: LocalizationConfig,
    state: Mapping[str, Tensor],
    *,
    facts: Mapping[str, str] | None = None,
    name: str | None = None,
) -> None:
    """Write a checkpoint folder; each file appears whole or not at all, the configuration last.

    Args:
        folder: where to; the settings of a training run that lie there become facts.
        model: architecture and labels.
        localization: localization settings.
        state: the weights.
        facts: further rows of the model card, such as data, command, metrics and ``license``.
        name: what the card tells users to load; the folder by its name where None.

    Raises:
        CheckpointError: if the result could not be loaded: weights are not finite, or something exceeds the bounds.
    """
    folder = Path(folder)
    facts = run_facts(folder) | {str(key): str(value) for key, value in (facts or {}).items()}
    content = dataclasses.asdict(model), dataclasses.asdict(localization), facts
    text = json.dumps(dict(zip(("model", "localization", "facts"), content, strict=True)), indent=1) + "\n"
    if len(text) > MAX_CONFIG:
        raise CheckpointError(f"{folder}: labels and facts exceed {MAX_CONFIG:,} bytes")
    _count(state, folder)
    check_state(state, state, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
    for filename, written in (
        (CARD_FILE, model_card(model, facts, name or f"./{folder.resolve().name}")),
        (CONFIG_FILE, text),
    ):
        with atomic_path(folder / filename) as temporary:
            temporary.write_text(written, encoding="utf-8")


def run_facts(folder: str | Path) -> dict[str, str]:
    """What a run folder says about the training of its model; empty where it is none."""
    path = Path(folder) / RECIPE_FILE
    recipe = _read_json(path) if path.is_file() else {}
    training = recipe.get("training")
    if not isinstance(training, dict):
        return {}
    settings = ", ".join(f"{key} {value}" for key, value in training.items())
    return {"recipe": str(recipe.get("name")), "training": settings}


def push(
    repository: str,
    model: ModelConfig,
    localization: LocalizationConfig,
    state: Mapping[str, Tensor],
    *,
    facts: Mapping[str, str] | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Checkpoint of backtal",
    create_pr: bool = False,
) -> str:
    """Publish a checkpoint in a Hub repository, which is made where there is none.

    Returns:
        ``owner/name@commit``, which `fetch` takes.

    Raises:
        CheckpointError: if it cannot be saved, or the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="backtal")
    with tempfile.TemporaryDirectory() as folder:
        save(folder, model, localization, state, facts=facts, name=repository)
        try:
            repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
            if revision is not None and not create_pr:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
        except Exception as failure:  # as in downloading
            raise CheckpointError(f"{repository}: cannot be pushed to {api.endpoint}: {_first_line(failure)}") from None
    return f"{repository}@{commit.oid}"


def model_card(model: ModelConfig, facts: Mapping[str, str] | None = None, name: str = "FOLDER") -> str:
    """A model card: what the checkpoint knows, where it comes from, how to load and cite it.

    Args:
        model: architecture, labels and feature spec.
        facts: further rows, such as data, recipe and metrics; ``license`` also goes into the card's metadata.
        name: what `from_pretrained` takes to load it.

    Example:
        >>> print(model_card(ModelConfig(8, ("jump",)), {"data": "A1 clicks"}).splitlines()[12])
        | data | A1 clicks |
    """
    facts = facts or {}
    rows = {
        "labels": ", ".join(model.labels),
        "features": _features(model),
        **facts,
    }
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
    license_row = f"license: {json.dumps(facts['license'])}\n" if "license" in facts else ""
    return f"""---
library_name: backtal
{license_row}tags: [temporal-action-localization, weakly-supervised]
---
# BackTAL checkpoint

Temporal action localization learnt from video labels and background clicks.

| | |
|---|---|
{table}

```python
from backtal import BackTALModel

model = BackTALModel.from_pretrained({name!r})
found = model.localize("features/video.npz")
```

Method: Yang et al., "Background-Click Supervision for Temporal Action Localization", TPAMI 2021.

```bibtex
@article{{yang2021backtal,
  title   = {{Background-Click Supervision for Temporal Action Localization}},
  author  = {{Yang, Le and Han, Junwei and Zhao, Tao and Lin, Tianwei and Zhang, Dingwen and Chen, Jianxin}},
  journal = {{IEEE Transactions on Pattern Analysis and Machine Intelligence}},
  year    = {{2021}}
}}
```
"""


def _features(model: ModelConfig) -> str:
    known = {} if model.feature_spec is None else dataclasses.asdict(model.feature_spec)
    known |= {"dim": model.feature_dim}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
