"""Export a network as ONNX and find segments with onnxruntime alone. Needs the extra `export`."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from backtal import BackTALModel, BackTALOutput, TimeAxis, localize
from backtal.interop import export

model = BackTALModel.from_pretrained("shrec22")
path = Path(tempfile.mkdtemp()) / "shrec22.onnx"
print(f"greatest difference from PyTorch: {export(model, path).difference:.1e}")

session = onnxruntime.InferenceSession(path)
axes = [TimeAxis.even(length, length / 5) for length in (150, 90)]
features = np.random.default_rng(0).standard_normal((2, 372, 150)).astype(np.float32)
lengths = np.array([axis.length for axis in axes])
scores, cas, foreground, magnitude = session.run(None, {"features": features, "lengths": lengths})

output = BackTALOutput(
    *map(torch.from_numpy, (scores, cas, foreground)),
    torch.empty(0),
    torch.from_numpy(magnitude),
    torch.tensor(lengths),
)
for found in localize(output, axes, model.config.labels, model.localization, ["noise", "shorter noise"]):
    print(f"{found.video_id}: {len(found)} candidates, the best {found.segments[0]}")
