"""The same network in other forms: released checkpoints, exported graphs, its size in numbers."""

from backtal.interop.convert import convert_released
from backtal.interop.export import Exported, export, open_onnx, open_torch
from backtal.interop.info import Complexity, measure

__all__ = [
    "Complexity",
    "Exported",
    "convert_released",
    "export",
    "measure",
    "open_onnx",
    "open_torch",
]
