"""Pictures. Needs matplotlib, the extra `plot`.

Every function returns a matplotlib `Figure`, to be saved with ``figure.savefig("picture.png", dpi=150)``.
"""

from backtal.plot.affinity import affinity_mask
from backtal.plot.clicks import click_positions
from backtal.plot.curves import map_over_tiou, precision_recall, training_curves
from backtal.plot.errors import diagnosis_figure
from backtal.plot.style import save
from backtal.plot.timeline import timeline
from backtal.plot.video import affinity_of_video, timeline_of_features, timeline_of_video

__all__ = [
    "affinity_mask",
    "affinity_of_video",
    "click_positions",
    "diagnosis_figure",
    "map_over_tiou",
    "precision_recall",
    "save",
    "timeline",
    "timeline_of_features",
    "timeline_of_video",
    "training_curves",
]
