"""Feature extractors: what one is, the registry of their names, and loading weights."""

import dataclasses
import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backtal.data.features import FeatureSpec
from backtal.errors import ConfigError, DataError, name_some
from backtal.video.flow import FlowFunction


@dataclass(frozen=True)
class Extractor:
    """How windows of frames become feature vectors.

    Args:
        spec: what the features are; its fps, window, stride and dim must be set.
        network: takes RGB ``[B, window, H, W, 3]`` (uint8), then, where `flow` is set, flow ``[B, window, H, W, 2]``
            (float16, pixels per frame), and returns ``[B, D]``.
        size: frames are resized to this shorter side, or ``(height, width)``.
        crop: side of the centre crop, in pixels; None keeps the frame, whose shape `size` must then give.
        flow: optical flow, as `backtal.video.flow.flow_function` gives it; computed before cropping.
    """

    spec: FeatureSpec
    network: nn.Module
    size: int | tuple[int, int] = 256
    crop: int | None = 224
    flow: FlowFunction | None = None

    def __post_init__(self) -> None:
        if missing := [f for f in ("extractor", "fps", "window", "stride", "dim") if getattr(self.spec, f) is None]:
            raise ConfigError(f"extractor {self.spec.extractor}: its spec says nothing of {', '.join(missing)}")
        if self.crop is None and not isinstance(self.size, tuple):
            raise ConfigError(f"extractor {self.spec.extractor}: without a crop, size must be (height, width)")

    @property
    def name(self) -> str:
        """Its name, as feature files and checkpoints store it."""
        return str(self.spec.extractor)


@dataclass(frozen=True)
class Options:
    """What the function behind a name is asked for.

    Args:
        weights: file of a state dict; None for the model's own download machinery.
        flow: optical flow algorithm, where the extractor reads flow.
        device: where optical flow networks run.
    """

    weights: tuple[Path, ...] = ()
    flow: str = "tvl1"
    device: str | torch.device = "cpu"


Builder = Callable[[str, Options], Extractor]
_BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Add an extractor: a function from the name asked for and `Options` to an `Extractor`.

    A name that ends in a slash is a family: it stands for all names that begin so.

    Example:
        >>> class MeanColour(nn.Module):
        ...     def forward(self, rgb):
        ...         return rgb.float().mean(dim=(1, 2, 3))
        >>> @register("mean-colour")
        ... def mean_colour(name: str, options: Options) -> Extractor:
        ...     return Extractor(FeatureSpec(name, fps=4, window=1, stride=1, dim=3), MeanColour(), size=32, crop=32)
        >>> load_extractor("mean-colour").spec.dim
        3
    """

    def add(build: Builder) -> Builder:
        _BUILDERS[name] = build
        return build

    return add


def load_extractor(
    name: str,
    *,
    weights: str | Path | tuple[str | Path, ...] = (),
    fps: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    flow: str | None = None,
    device: str | torch.device = "cpu",
) -> Extractor:
    """Build the extractor of a name.

    Args:
        name: ``"i3d"``, ``"i3d-rgb"``, ``"i3d-flow"``, ``"torchvision/s3d"`` and any other video or image model of
            torchvision, ``"timm/NAME"``, or a name that was registered.
        weights: file of a state dict, for ``"i3d"`` the one for RGB and the one for flow; where empty, torchvision
            and timm download theirs.
        fps: frames per second, where not the extractor's usual.
        window: frames of one snippet, where not the usual.
        stride: frames from one snippet to the next, where not the usual.
        flow: ``"tvl1"``, ``"raft_small"`` or ``"raft_large"``.
        device: where optical flow networks run.

    Raises:
        ConfigError: for an unknown name, or weights that are missing or cannot be downloaded.
        DataError: for a file of weights that does not fit.
    """
    build = _BUILDERS.get(name) or next((b for n, b in _BUILDERS.items() if n[-1] == "/" and name.startswith(n)), None)
    if build is None:
        known = ", ".join(n + "NAME" if n[-1] == "/" else n for n in _BUILDERS)
        raise ConfigError(f"extractor {name!r} is unknown; there are {known}, and yours as FILE.py:FUNCTION")
    files = (weights,) if isinstance(weights, str | Path) else tuple(weights)
    options = Options(tuple(map(Path, files)), flow or "tvl1", device)
    return adapted(build(name, options), fps=fps, window=window, stride=stride)


def adapted(extractor: Extractor, **changes: Any) -> Extractor:
    """The extractor with another fps, window or stride; None keeps what it has."""
    spec = dataclasses.replace(extractor.spec, **{key: value for key, value in changes.items() if value is not None})
    return dataclasses.replace(extractor, spec=spec)


def chosen_extractor(name: str, **options: Any) -> Extractor:
    """As `load_extractor`; also the function ``FILE.py:FUNCTION`` or ``package.module:FUNCTION``.

    That runs the file, so the name must be the user's own word, never a checkpoint's.
    """
    if ":" in name:
        register(name)(_imported(name))
    return load_extractor(name, **options)


def _imported(place: str) -> Builder:
    source, _, function = place.rpartition(":")
    try:
        if source.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(source).stem, source)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(source)
        return getattr(module, function)
    except (OSError, ImportError, AttributeError) as failure:
        raise ConfigError(f"extractor {place!r} cannot be loaded: {failure}") from None


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict strictly, from ``.safetensors`` or a PyTorch file, of which only tensors are read.

    Raises:
        DataError: if the file cannot be read or names or shapes do not fit.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        found: Any = state.get("state_dict", state)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file of weights") from None
    except Exception as failure:  # a damaged pickle raises anything
        raise DataError(f"{path}: not readable weights: {str(failure).splitlines()[0]}") from None
    state = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    own = network.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is unexpected" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        raise DataError(f"{path}: weights do not fit: {name_some(wrong)}")
    network.load_state_dict(state)


def own_weights(name: str, network: nn.Module, options: Options) -> str:
    """Load the user's file of weights; the name with the file's digest, by which its features are known again."""
    if len(options.weights) != 1:
        raise ConfigError(f"extractor {name}: takes one file of weights, got {len(options.weights)}")
    load_weights(network, options.weights[0])
    base, _, tag = name.partition("@")
    digest = hashlib.sha256(options.weights[0].read_bytes()).hexdigest()[:12]
    if tag not in ("", digest):
        raise DataError(f"{options.weights[0]}: these weights are {digest}, but {name} asks for {tag}")
    return f"{base}@{digest}"
