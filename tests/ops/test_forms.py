"""Which form and tiles a card is given, and what compilers say of all of them, without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backtal.ops import describe_form
from backtal.ops.forms import FORMS, choose_tile, form_of

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((8, 0), "Ampere (A100)"),
        ((8, 6), "Ampere"),
        ((8, 7), "Ampere"),
        ((8, 9), "Ada"),
        ((9, 0), "Hopper"),
        ((10, 3), "Blackwell (data centre)"),
        ((12, 1), "Blackwell"),
    ],
)
def test_newest_form_that_a_card_has(capability, name):
    assert form_of(capability).name == name


def test_older_cards_have_none():
    assert form_of((7, 5)) is None


def test_the_largest_tile_that_fits_and_fills_the_card():
    hopper, ada = FORMS[9, 0], FORMS[8, 9]
    assert choose_tile(hopper, 132, 750, 2048, 16, itemsize=2) == (256, 128, 64, 8, 4)
    assert choose_tile(hopper, 132, 750, 2048, 16, itemsize=2, accumulators=2) == (128, 128, 64, 8, 4)
    assert choose_tile(hopper, 132, 750, 2048, 1, itemsize=2) == (64, 128, 64, 4, 4)
    assert choose_tile(hopper, 132, 30, 60, 1, itemsize=2) == (64, 64, 64, 4, 4)
    assert choose_tile(hopper, 132, 750, 2048, 16, itemsize=4) == (256, 128, 32, 8, 4)
    assert choose_tile(hopper, 132, 750, 2048, 16, itemsize=4, exact=True) == (64, 64, 16, 4, 4)
    assert choose_tile(ada, 128, 750, 2048, 16, itemsize=2) == (128, 128, 32, 8, 4)
    assert choose_tile(ada, 128, 750, 2048, 16, itemsize=4) == (128, 128, 16, 8, 4)


def test_a_card_is_told_its_form_and_why(monkeypatch):
    assert describe_form(torch.device("cpu")).startswith("blas: ")
    card = type("Card", (), {"name": "NVIDIA L4", "major": 8, "minor": 9})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr("backtal.ops._HAS_TRITON", True)
    said = describe_form(torch.device("cuda"))
    assert said.startswith("triton, as for Ada: NVIDIA L4 has 8.9; asynchronous copies by pointers, mma.sync")
    monkeypatch.setattr("backtal.ops._HAS_TRITON", False)
    assert describe_form(torch.device("cuda")).startswith("blas: NVIDIA L4 has 8.9, but the package triton")
    card.major, card.minor = 7, 5
    assert describe_form(torch.device("cuda")).endswith("8.0 and newer, NVIDIA L4 has 7.5")


@pytest.mark.slow
def test_every_kernel_compiles_cleanly_for_every_generation():
    """No spill, nothing serialized, the generation's tensor cores, no more shared memory than the card has."""
    pytest.importorskip("triton.backends.nvidia")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--compile", "--json"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["capability"], row["kernel"], row["type"]) for row in rows} == {
        (capability, kernel, dtype)
        for capability in ("8.0", "8.9", "9.0", "10.0", "12.0")
        for kernel in ("forward", "input", "move", "scale", "weight")
        for dtype in ("bfloat16", "float16", "TF32")
    }
    for row in rows:
        shared = FORMS[tuple(int(part) for part in row["capability"].split("."))].shared / 1024
        assert row["spilled bytes"] == 0, row
        assert row["serialized"] == "no", row
        assert row["kernel"] in ("move", "scale") or int(row["products"].split()[0]) > 0, row
        assert row["kernel"] in ("move", "scale") or int(row["copies"]) > 0, row
        assert row["shared KiB"] <= shared, row
