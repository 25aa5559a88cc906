"""The extractors that come with the package: I3D, torchvision's video and image models, timm's image models."""

import contextlib
import difflib
import sys
from typing import Any

import torch
from torch import Tensor, nn

from backtal.data.features import FeatureSpec
from backtal.errors import ConfigError, DataError, install
from backtal.video.extractors import Extractor, Options, load_weights, own_weights, register
from backtal.video.flow import flow_function, rescale_flow, torchvision_models
from backtal.video.i3d import FEATURE_DIM, InceptionI3d


class Normalised(nn.Module):
    """A network on clips or pictures, from RGB bytes.

    Args:
        network: takes ``[B, 3, window, H, W]``, or ``[B, 3, H, W]`` for a window of one frame, and returns ``[B, D]``.
        mean: of each channel, in [0, 1].
        deviation: of each channel.
        clips: whether the network takes clips.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...], *, clips: bool
    ) -> None:
        super().__init__()
        self.network, self.clips = network, clips
        self.register_buffer("mean", 255 * torch.tensor(mean))
        self.register_buffer("scale", 1 / (255 * torch.tensor(deviation)))

    def forward(self, rgb: Tensor) -> Tensor:
        """``[B, window, H, W, 3]`` (uint8) -> ``[B, D]``; pictures of one window are averaged."""
        x = (rgb.float() - self.mean) * self.scale
        if self.clips:
            return self.network(x.permute(0, 4, 1, 2, 3)).flatten(1)
        batch, window = x.shape[:2]
        features = self.network(x.flatten(0, 1).permute(0, 3, 1, 2)).flatten(1)
        return features.unflatten(0, (batch, window)).mean(1)


class TwoStream(nn.Module):
    """I3D on RGB, flow, or both, whose features are stacked in this order."""

    def __init__(self, rgb: InceptionI3d | None, flow: InceptionI3d | None) -> None:
        super().__init__()
        self.rgb, self.flow = rgb, flow

    def forward(self, rgb: Tensor, flow: Tensor | None = None) -> Tensor:
        """``[B, window, H, W, 3]`` (uint8) and ``[B, window, H, W, 2]`` -> ``[B, 1024]`` or ``[B, 2048]``."""
        parts = []
        if self.rgb is not None:
            parts.append(self.rgb((rgb.float() / 127.5 - 1).permute(0, 4, 1, 2, 3)))
        if self.flow is not None:
            assert flow is not None
            parts.append(self.flow(rescale_flow(flow.float()).permute(0, 4, 1, 2, 3)))
        return torch.cat(parts, dim=1)


@register("i3d-flow")
@register("i3d-rgb")
@register("i3d")
def i3d(name: str, options: Options) -> Extractor:
    """Two-stream I3D, or one of its streams, with users' weights."""
    wanted = {"i3d": ("RGB", "flow"), "i3d-rgb": ("RGB",), "i3d-flow": ("flow",)}[name]
    if len(options.weights) != len(wanted):
        raise ConfigError(
            f"extractor {name}: needs {len(wanted)} file(s) of weights ({', then '.join(wanted)}), got "
            f"{len(options.weights)}; none can be downloaded: pass --weights FILE for each, in the usual naming "
            "(Conv3d_1a_7x7.conv3d.weight, ...)"
        )
    streams = {}
    for kind, path in zip(wanted, options.weights, strict=True):
        streams[kind] = InceptionI3d(3 if kind == "RGB" else 2)
        load_weights(streams[kind], path)
    uses_flow = "flow" in wanted
    spec = FeatureSpec(name, 25, 16, 16, "center224", options.flow if uses_flow else None, FEATURE_DIM * len(wanted))
    flow = flow_function(options.flow, options.device) if uses_flow else None
    return Extractor(spec, TwoStream(streams.get("RGB"), streams.get("flow")), flow=flow)


@register("torchvision/")
def torchvision_model(name: str, options: Options) -> Extractor:
    """Any video or image classifier of torchvision, without its last linear layer.

    Video models see windows of 16 frames, 8 apart, at the frame rate of their training; image models 4 frames a second.
    """
    models = torchvision_models(f"extractor {name}")
    short, _, tag = name.removeprefix("torchvision/").partition("@")
    clips = short in models.list_models(module=models.video)
    pictures = models.list_models(module=models)
    if not clips and short not in pictures:
        near = difflib.get_close_matches(short, [*models.list_models(module=models.video), *pictures])
        hint = f"; it has {', '.join(near)}" if near else ""
        raise ConfigError(f"extractor {name!r}: torchvision has no video or image classifier {short!r}{hint}")
    choices = models.get_model_weights(short)
    if options.weights:
        weights, network = choices["DEFAULT"], models.get_model(short, weights=None)
        name = own_weights(name, network, options)
    elif (tag or "DEFAULT") in choices.__members__:
        weights = choices[tag or "DEFAULT"]
        network, name = _downloaded(name, short, weights), f"torchvision/{short}@{weights.name}"
    else:
        raise ConfigError(
            f"{name!r}: torchvision has the weights {', '.join(choices.__members__)}; your own need their file"
        )
    network, dim = _headless(network, name)
    looks: Any = weights.transforms()
    crop, size = looks.crop_size[0], looks.resize_size
    size = size[0] if len(size) == 1 else tuple(size)
    if clips:
        fps = 7.5 if short.startswith("mvit") else 15
        spec = FeatureSpec(name, fps, 16, 8, f"center{crop}", None, dim)
    else:
        spec = FeatureSpec(name, 4, 1, 1, f"center{crop}", None, dim)
    return Extractor(spec, Normalised(network, tuple(looks.mean), tuple(looks.std), clips=clips), size, crop)


def _downloaded(name: str, short: str, weights: Any) -> nn.Module:
    models = torchvision_models(f"extractor {name}")
    try:
        # torch.hub announces the download on stdout, which is for JSON.
        with contextlib.redirect_stdout(sys.stderr):
            return models.get_model(short, weights=weights)
    except OSError as failure:
        raise ConfigError(
            f"extractor {name}: its weights are not on this machine and cannot be downloaded from {weights.url} "
            f"({failure}); fetch that file elsewhere and put it into {torch.hub.get_dir()}/checkpoints, "
            "or pass a file of weights"
        ) from None


def _headless(network: nn.Module, name: str) -> tuple[nn.Module, int]:
    """The network with its last linear layer, or S3D's last convolution, left out; and the width before it."""
    kinds = (nn.Linear, nn.Conv3d) if "s3d" in name else (nn.Linear,)
    heads = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, kinds)]
    if not heads:
        raise ConfigError(f"extractor {name!r}: the network has no linear layer at its end to take features before")
    path, layer = heads[-1]
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


@register("timm/")
def timm_model(name: str, options: Options) -> Extractor:
    """Any image model of timm, its pooled features: 4 frames a second."""
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError:
        raise ImportError(f"extractor {name} needs timm: {install('video')}") from None

    short = name.removeprefix("timm/").partition("@")[0]
    try:
        if options.weights:
            network: Any = timm.create_model(short)
            name = own_weights(name, network, options)
            network.reset_classifier(0)
        else:
            network = timm.create_model(short, pretrained=True, num_classes=0)
            tag = network.pretrained_cfg.get("tag")
            name = name if "." in short or not tag else f"{name}.{tag}"
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError) as failure:
        reason = str(failure).strip().splitlines()[0]
        raise ConfigError(f"extractor {name}: unknown to timm, or its weights cannot be downloaded: {reason}") from None
    looks = resolve_model_data_config(network)
    crop = looks["input_size"][-1]
    spec = FeatureSpec(name, 4, 1, 1, f"center{crop}", None, int(network.num_features))
    size = round(crop / looks["crop_pct"])
    return Extractor(spec, Normalised(network, looks["mean"], looks["std"], clips=False), size, crop)
