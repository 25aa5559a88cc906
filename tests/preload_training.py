"""Imported once by the fork server of test_train.py, so that a child starts training at once."""

import torch

import backtal.settings.presets
import backtal.training.train  # noqa: F401

torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports most of torch on its first use
