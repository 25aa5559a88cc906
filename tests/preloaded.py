"""Imported once by the server that `processes` forks from."""

import contextlib

import torch

import backtal.cli
import backtal.nn.live
import backtal.nn.many
import backtal.settings.presets
import backtal.training.train

with contextlib.suppress(ImportError):  # without these extras
    import uvicorn  # noqa: F401

    import backtal.annotate.server
    import backtal.video  # noqa: F401

torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports most of torch on its first use
