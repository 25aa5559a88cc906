"""Released checkpoints: the golden one loads, every spoilt one is refused with the reason; recipes and sizes."""

import json
import os
import pickle
import zipfile

import pytest
import torch
from click.testing import CliRunner
from conftest import GOLDEN

from backtal import BackTALModel, CheckpointError, ConfigError
from backtal.cli import main
from backtal.interop.convert import convert_released
from backtal.interop.info import measure
from backtal.settings.presets import RECIPES, SOURCES, recipe, sources

RELEASED = GOLDEN / "released_format_checkpoint.pth"


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def spoilt(path, change):
    content = torch.load(RELEASED, weights_only=True)
    change(content["state_dict"])
    torch.save(content, path)


def rename(state):
    state["base_module.conv_9.weight"] = state.pop("base_module.conv_1.weight")


def reshape(state):
    state["base_module.conv_2.weight"] = state["base_module.conv_2.weight"][:, :-1].clone()


def flatten(state):
    state["classifier_module.conv.weight"] = state["classifier_module.conv.weight"].flatten()


def text(state):
    state["classifier_module.conv.weight"] = "not a tensor"


def nan(state):
    state["classifier_module.conv.weight"][0] = float("nan")


KERNEL = "classifier_module.conv.weight"


def huge(state):
    """Kilobytes that claim terabytes: every number of a tensor is the same one of the file."""
    state["base_module.conv_1.weight"] = torch.zeros(1).expand(2**20, 2**20, 3)


def mutated(path, old, new):
    """The same archive with a changed pickle, its checksums right."""
    with zipfile.ZipFile(RELEASED) as archive, zipfile.ZipFile(path, "w") as out:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename.endswith("data.pkl"):
                assert old in content
                content = content.replace(old, new, 1)
            out.writestr(info.filename, content)


class Malicious:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


SPOILT = {
    "renamed key": (lambda p: spoilt(p, rename), r"missing tensor\(s\): base_module.conv_1.weight"),
    "extra key": (lambda p: spoilt(p, lambda s: s.update(x=torch.zeros(1))), r"unexpected tensor\(s\): x"),
    "wrong shape": (
        lambda p: spoilt(p, reshape),
        r"base_module.conv_2.weight has shape \[32, 31, 3\], .* \[32, 32, 3\]",
    ),
    "not a convolution": (
        lambda p: spoilt(p, flatten),
        "classifier_module.conv.weight has shape .* not that of a convolution",
    ),
    "not a tensor": (lambda p: spoilt(p, text), "expected {'epoch'"),
    "NaN": (lambda p: spoilt(p, nan), "classifier_module.conv.weight holds NaN"),
    "sparse": (lambda p: spoilt(p, lambda s: s.update({KERNEL: s[KERNEL].to_sparse()})), f"{KERNEL} is sparse"),
    "without content": (lambda p: spoilt(p, lambda s: s.update({KERNEL: s[KERNEL].to("meta")})), f"{KERNEL} is sparse"),
    "8 bits": (
        lambda p: spoilt(p, lambda s: s.update({KERNEL: s[KERNEL].to(torch.float8_e4m3fn)})),
        f"{KERNEL} has type torch.float8_e4m3fn, expected",
    ),
    "terabytes": (lambda p: spoilt(p, huge), r"base_module.conv_1.weight has shape .*, but the file holds fewer"),
    "zero width": (
        lambda p: spoilt(p, lambda s: s.update({"base_module.conv_1.weight": torch.zeros(0, 48, 3)})),
        "hidden_dim: must be at least 1, got 0",
    ),
    "a type in the pickle": (lambda p: mutated(p, b"FloatStorage", b"float32"), "not a readable PyTorch file"),
    "a mark less in the pickle": (lambda p: mutated(p, b"}q\x00(", b"}q\x00"), "not a readable PyTorch file"),
    "truncated": (lambda p: p.write_bytes(RELEASED.read_bytes()[:5000]), "not a readable PyTorch file"),
    "corrupted": (lambda p: p.write_bytes(b"\x80\x02garbage"), "refused: damaged, or no PyTorch file$"),
    "no checkpoint": (lambda p: torch.save([1, 2], p), "expected {'epoch'"),
    "malicious": (
        lambda p: torch.save({"state_dict": Malicious()}, p),
        r"refused: it wants to load \w+\.system, which is no tensor$",
    ),
    "malicious, old format": (
        lambda p: p.write_bytes(pickle.dumps(Malicious(), 2)),
        r"refused: it wants to load \w+\.system, which is no tensor$",
    ),
    "missing": (lambda p: None, "no such file"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_checkpoints_are_refused_with_the_reason(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil, message = SPOILT[case]
    path = tmp_path / "a.pth"
    spoil(path)
    with pytest.raises(CheckpointError, match=message):
        convert_released(path, recipe("thumos14-released"))
    result = run("convert", path, tmp_path / "out", "--recipe", "thumos14-released")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"backtal convert: {path}: ")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pwned").exists()


def test_flipped_bytes_in_the_archive_are_noticed(tmp_path):
    content = bytearray(RELEASED.read_bytes())
    with zipfile.ZipFile(RELEASED) as archive:
        record = max(archive.infolist(), key=lambda r: r.file_size)
    start = record.header_offset + 200
    content[start : start + 4] = bytes(255 - b for b in content[start : start + 4])
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged: the checksum of .* is wrong"):
        convert_released(path, recipe("thumos14-released"))


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {n for n in RECIPES if n.endswith("-released")}))
def test_only_recipes_of_the_released_system_fit(name, tmp_path):
    result = run("convert", RELEASED, tmp_path / "out", "--recipe", name)
    assert result.exit_code == 2
    assert (
        f"{RELEASED}: recipe '{name}' is not of the released system; choose one of thumos14-released," in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_the_golden_checkpoint_converts(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"action {i}\n" for i in range(20)))
    result = run("convert", RELEASED, tmp_path / "out", "--recipe", "thumos14-released", "--labels", labels)
    assert result.exit_code == 0, result.output
    model = BackTALModel.from_pretrained(tmp_path / "out")
    assert model.config.labels[3] == "action 3"
    assert (model.config.layout, model.config.feature_dim) == ("channel_blocks", 48)
    assert model.facts == {"recipe": "thumos14-released", "converted from": RELEASED.name}
    result = run("convert", RELEASED, tmp_path / "out", "--recipe", "thumos14-released")
    assert result.exit_code == 2
    assert "out: already there and not empty; choose another folder" in result.stderr
    labels.write_text("one\n")
    result = run("convert", RELEASED, tmp_path / "other", "--recipe", "thumos14-released", "--labels", labels)
    assert result.exit_code == 2
    assert "20 classes, but 1 labels were given" in result.stderr


def test_every_source_names_a_value():
    for name in RECIPES:
        rows = sources(name)
        assert set(SOURCES[name]) == {field for field, _, _ in rows}
    with pytest.raises(ConfigError, match="unknown recipe 'x'"):
        sources("x")


def test_recipes_are_listed_and_printed():
    printed = [line.split(maxsplit=1) for line in run("recipes").stdout.splitlines()]
    assert [name for name, _ in printed] == list(RECIPES)  # and each says what it is for
    assert json.loads(run("recipes", "--json").stdout) == list(RECIPES)
    printed = run("recipes", "thumos14-released").stdout
    assert "model.layout                      channel_blocks          released system" in printed
    content = json.loads(run("recipes", "hacs", "--json").stdout)
    assert content["model.temporal_length"] == {"value": 200, "source": "paper 4.1"}
    assert run("recipes", "nothing").exit_code == 2


def test_sizes(tmp_path):
    released = measure("thumos14-released")
    assert released.by_module == {
        "embedding_head": 3 * 2048 * 512 + 512 + 3 * 512 * 32 + 32,
        "foreground_filter": 2048 * 512 + 512 + 512 + 1,
        "trunk": 2 * 3 * 2048 * 2048,
        "classifier": 2048 * 21,
    }
    assert released.flops == pytest.approx(2 * 750 * released.parameters, rel=0.01)
    run("convert", RELEASED, tmp_path / "model", "--recipe", "thumos14-released")
    small = json.loads(run("info", tmp_path / "model", "--json").stdout)
    assert small["about"]["labels"].startswith("class000, class001")
    model = BackTALModel.from_pretrained(tmp_path / "model")
    assert small["parameters"] == sum(p.numel() for p in model.parameters())
    assert small["paper"]["parameters"] == 4.29e6
    printed = run("info", "compact").stdout
    assert printed.startswith("recipe compact\n")
    assert "4.29 M" in printed
    assert "6.51 G" in printed
    assert run("info", "nothing").exit_code == 2
