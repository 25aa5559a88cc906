"""I3D against values computed by hand, optical flow against OpenCV, and the extractors that come by name."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("av", reason="needs the extra `video`")

from video_files import moving_bar, times_at, write_video

from backtal import ConfigError, DataError
from backtal.video import Video, extract_file, load_extractor
from backtal.video.extractors import chosen_extractor, load_weights
from backtal.video.flow import flow_function, raft, rescale_flow
from backtal.video.i3d import InceptionI3d, MaxPoolSame, Unit3D, pad_same

# Channels, time, height and width after each layer for 16 frames of 224 x 224, by hand: "same" gives ceil(n / stride).
LAYERS = {
    "Conv3d_1a_7x7": (64, 8, 112, 112),
    "MaxPool3d_2a_3x3": (64, 8, 56, 56),
    "Conv3d_2b_1x1": (64, 8, 56, 56),
    "Conv3d_2c_3x3": (192, 8, 56, 56),
    "MaxPool3d_3a_3x3": (192, 8, 28, 28),
    "Mixed_3b": (256, 8, 28, 28),
    "Mixed_3c": (480, 8, 28, 28),
    "MaxPool3d_4a_3x3": (480, 4, 14, 14),
    "Mixed_4b": (512, 4, 14, 14),
    "Mixed_4c": (512, 4, 14, 14),
    "Mixed_4d": (512, 4, 14, 14),
    "Mixed_4e": (528, 4, 14, 14),
    "Mixed_4f": (832, 4, 14, 14),
    "MaxPool3d_5a_2x2": (832, 2, 7, 7),
    "Mixed_5b": (832, 2, 7, 7),
    "Mixed_5c": (1024, 2, 7, 7),
}


def widespread_names(in_channels: int) -> dict[str, torch.Size]:
    """The names and shapes of the PyTorch I3D weights that circulate, written down from their scheme."""
    found: dict[str, tuple[int, ...]] = {}

    def unit(name, inputs, outputs, kernel):
        found[f"{name}.conv3d.weight"] = (outputs, inputs, kernel, kernel, kernel)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{statistic}"] = (outputs,)
        found[f"{name}.bn.num_batches_tracked"] = ()

    unit("Conv3d_1a_7x7", in_channels, 64, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    unit("Conv3d_2c_3x3", 64, 192, 3)
    mixed = {
        "3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
        "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
        "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
        "4f": (528, 256, 160, 320, 32, 128, 128), "5b": (832, 256, 160, 320, 32, 128, 128),
        "5c": (832, 384, 192, 384, 48, 128, 128),
    }  # fmt: skip
    for block, (inputs, b0, b1a, b1b, b2a, b2b, b3b) in mixed.items():
        unit(f"Mixed_{block}.b0", inputs, b0, 1)
        unit(f"Mixed_{block}.b1a", inputs, b1a, 1)
        unit(f"Mixed_{block}.b1b", b1a, b1b, 3)
        unit(f"Mixed_{block}.b2a", inputs, b2a, 1)
        unit(f"Mixed_{block}.b2b", b2a, b2b, 3)
        unit(f"Mixed_{block}.b3b", inputs, b3b, 1)
    found["logits.conv3d.weight"], found["logits.conv3d.bias"] = (400, 1024, 1, 1, 1), (400,)
    return {name: torch.Size(shape) for name, shape in found.items()}


def random_weights(in_channels: int) -> dict[str, torch.Tensor]:
    weights = {}
    for name, shape in widespread_names(in_channels).items():
        value = torch.randn(shape) * (0.05 if len(shape) > 1 else 0.1)
        weights[name] = value.abs() + 0.5 if "running_var" in name or name.endswith("bn.weight") else value
        if "num_batches" in name:
            weights[name] = torch.tensor(7)
    return weights


@torch.inference_mode()
def test_i3d_layer_by_layer():
    network = InceptionI3d().eval()
    shapes = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    assert network(torch.randn(1, 3, 16, 224, 224)).shape == (1, 1024)
    assert shapes == LAYERS


def test_i3d_parameters():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    shapes = widespread_names(3)
    by_hand = sum(shape.numel() for name, shape in shapes.items() if "running" not in name and "num_b" not in name)
    assert count(InceptionI3d()) == by_hand == 12_697_264
    assert count(InceptionI3d(num_classes=None)) == 12_287_264
    assert count(InceptionI3d(2)) == by_hand - 64 * 7**3


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(224, 7, 2, 2, 3), (16, 7, 2, 2, 3), (112, 3, 2, 0, 1), (8, 3, 1, 1, 1), (7, 3, 2, 1, 1), (2, 2, 2, 0, 0)],
)
def test_same_padding_by_hand(size, kernel, stride, before, after):
    x = torch.ones(1, 1, size, 4, 4)
    padded = pad_same(x, (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    assert padded.tolist() == [0.0] * before + [1.0] * size + [0.0] * after
    assert MaxPoolSame((kernel, 1, 1), (stride, 1, 1))(x).shape[2] == -(-size // stride)
    assert Unit3D(1, 1, (kernel, 1, 1), (stride, 1, 1))(x).shape[2] == -(-size // stride)


def test_i3d_reads_the_widespread_weights_strictly(tmp_path):
    weights = random_weights(3)
    torch.save(weights, tmp_path / "rgb.pt")
    network = InceptionI3d()
    load_weights(network, tmp_path / "rgb.pt")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    for change, message in (
        ({"Mixed_3b.b0.bn.bias": None}, "Mixed_3b.b0.bn.bias is missing"),
        ({"more.weight": torch.ones(1)}, "more.weight is unexpected"),
        ({"logits.conv3d.bias": torch.ones(3)}, r"logits.conv3d.bias has shape \(3,\), expected \(400,\)"),
    ):
        changed = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
        torch.save(changed, tmp_path / "wrong.pt")
        with pytest.raises(DataError, match=rf"wrong\.pt: weights do not fit: {message}"):
            load_weights(network, tmp_path / "wrong.pt")
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "rgb.pt").read_bytes()[:5000])
    with pytest.raises(DataError, match="not readable weights"):
        load_weights(network, tmp_path / "damaged.pt")


def test_i3d_needs_its_weights():
    with pytest.raises(ConfigError, match=r"needs 2 file\(s\) of weights \(RGB, then flow\), got 0"):
        load_extractor("i3d")


def test_i3d_two_streams_on_a_video(tmp_path):
    pytest.importorskip("cv2", reason="needs the extra `flow`")
    torch.save(random_weights(3), tmp_path / "rgb.pt")
    torch.save(random_weights(2), tmp_path / "flow.pt")
    size = (32, 48)
    path = write_video(tmp_path / "a.mp4", times_at(25, 1.3), lambda t: moving_bar(t, size), size=size)
    both = load_extractor("i3d", weights=(tmp_path / "rgb.pt", tmp_path / "flow.pt"))
    assert both.spec == dataclasses.replace(both.spec, fps=25, window=16, stride=16, flow="tvl1", dim=2048)
    small = {"size": 32, "crop": 32}
    found = extract_file(path, dataclasses.replace(both, **small)).features
    rgb = load_extractor("i3d-rgb", weights=tmp_path / "rgb.pt")
    flow = load_extractor("i3d-flow", weights=tmp_path / "flow.pt")
    assert (rgb.spec.flow, flow.spec.flow) == (None, "tvl1")
    assert found.shape == (2048, 2)
    only_rgb = extract_file(path, dataclasses.replace(rgb, **small)).features
    only_flow = extract_file(path, dataclasses.replace(flow, **small)).features
    torch.testing.assert_close(found, torch.cat([only_rgb, only_flow]))

    import cv2

    frames = list(Video(path, 25, size=32))
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    moved = [cv2.optflow.DualTVL1OpticalFlow_create().calc(a, b, None) for a, b in itertools.pairwise(grey)]
    clip = torch.from_numpy(np.stack(moved[:16])[:, :, 8:40]).half().float()
    network = InceptionI3d(2).eval()
    load_weights(network, tmp_path / "flow.pt")
    with torch.inference_mode():
        expected = network((clip.clamp(-20, 20) / 20).permute(3, 0, 1, 2)[None])[0]
    torch.testing.assert_close(only_flow[:, 0], expected, rtol=2e-3, atol=2e-3)


def test_flow_sees_motion():
    """A textured picture that moves by (2, -1) pixels a frame."""
    texture = torch.nn.functional.interpolate(torch.rand(1, 1, 40, 40), size=160, mode="bicubic")[0, 0]
    picture = (texture.clamp(0, 1) * 255).byte().numpy()
    frames = np.stack([np.roll(picture, (-k, 2 * k), (0, 1))[20:140, 20:140] for k in range(3)])
    frames = np.repeat(frames[..., None], 3, axis=3)
    pytest.importorskip("cv2", reason="needs the extra `flow`")
    found = flow_function("tvl1")(frames)
    assert found.shape == (2, 120, 120, 2)
    assert np.abs(np.median(found[:, 20:-20, 20:-20], axis=(0, 1, 2)) - [2, -1]).max() < 0.1


def test_raft_takes_any_size():
    found = raft("raft_small", weights=None)(np.random.default_rng(0).integers(0, 255, (3, 50, 131, 3), np.uint8))
    assert found.shape == (2, 50, 131, 2)
    assert np.isfinite(found).all()


def test_flow_is_clipped_and_rescaled():
    found = rescale_flow(torch.tensor([-100.0, -20.0, -10.0, 0.0, 5.0, 20.0, 21.0]))
    assert found.tolist() == [-1.0, -1.0, -0.5, 0.0, 0.25, 1.0, 1.0]
    with pytest.raises(ConfigError, match="'farneback' is unknown"):
        flow_function("farneback")


@pytest.mark.parametrize(
    ("name", "dim", "fps", "crop"),
    [
        ("torchvision/s3d", 1024, 15, 224),
        ("torchvision/r2plus1d_18", 512, 15, 112),
        ("torchvision/mvit_v2_s", 768, 7.5, 224),
        ("torchvision/swin3d_t", 768, 15, 224),
        ("torchvision/resnet18", 512, 4, 224),
        ("torchvision/mobilenet_v3_small", 1024, 4, 224),
        ("torchvision/vit_b_16", 768, 4, 224),
        ("timm/tf_efficientnet_lite0", 1280, 4, 224),
        ("timm/vit_tiny_patch16_224", 192, 4, 224),
    ],
)
def test_models_by_name(tmp_path, name, dim, fps, crop):
    family, short = name.split("/")
    if family == "timm":
        timm = pytest.importorskip("timm", reason="needs the extra `video`")
        network = timm.create_model(short)
    else:
        from torchvision.models import get_model

        network = get_model(short, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    extractor = load_extractor(name, weights=tmp_path / "weights.pt")
    assert (extractor.spec.dim, extractor.spec.fps, extractor.spec.crop) == (dim, fps, f"center{crop}")
    assert extractor.name.startswith(f"{name}@")
    window = extractor.spec.window
    clip = torch.randint(0, 255, (1, window, crop, crop, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = extractor.network.eval()(clip)
    assert found.shape == (1, dim)
    again = load_extractor(extractor.name, weights=tmp_path / "weights.pt", stride=3)
    assert dataclasses.replace(again.spec, stride=extractor.spec.stride) == extractor.spec
    if family == "torchvision":
        with pytest.raises(ConfigError, match="your own need their file"):
            load_extractor(extractor.name)


@torch.inference_mode()
def test_features_are_what_the_classifier_sees(tmp_path):
    from torchvision.models import ResNet18_Weights, resnet18

    network = resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    extractor = load_extractor("torchvision/resnet18", weights=tmp_path / "w.pt")
    assert extractor.size == 256
    picture = torch.randint(0, 255, (1, 1, 224, 224, 3), dtype=torch.uint8)
    features = extractor.network.eval()(picture)
    looks = ResNet18_Weights.DEFAULT.transforms(resize_size=224)
    torch.testing.assert_close(network.fc(features), network(looks(picture[0].permute(0, 3, 1, 2))))


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    import urllib.request

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(ConfigError, match=r"not on this machine and cannot be downloaded from https.*no network"):
        load_extractor("torchvision/s3d")


def test_names_that_are_wrong():
    for name, message in (
        ("torchvision/nothing", "no video or image classifier 'nothing'"),
        ("torchvision/r2plus1d", "it has r2plus1d_18"),
        ("torchvision/s3d@OTHER", "torchvision has the weights KINETICS400_V1"),
        ("nothing", "'nothing' is unknown; there are"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_extractor(name)
    for place in ("nowhere.py:build", "nowhere:build", "json:nothing"):
        with pytest.raises(ConfigError, match="cannot be loaded"):
            chosen_extractor(place)


def test_an_extractor_of_ones_own_is_one_function():
    from backtal import FeatureSpec
    from backtal.video import Extractor, register

    @register("test-extractor")
    def build(name, options):
        return Extractor(FeatureSpec(name, fps=5, window=2, stride=1, dim=3), nn.Identity())

    assert load_extractor("test-extractor", fps=10).spec == FeatureSpec("test-extractor", 10, 2, 1, dim=3)
