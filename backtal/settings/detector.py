"""Settings of the detector, which is not part of the paper: its network, its losses, its segments."""

from dataclasses import dataclass

from backtal.settings.checks import at_least, at_most, is_grid, require
from backtal.settings.config import NetworkConfig


@dataclass(frozen=True)
class DetectorConfig(NetworkConfig):
    """Settings of the detector's network.

    Args:
        feature_dim: feature channels D.
        labels: names of the C action classes; background is not among them.
        temporal_length: length T that every video is rescaled to; None keeps the native length.
        feature_spec: what the features must be.
        width: channels W of every level.
        levels: levels of the pyramid; level i has a stride of ``2**i`` snippets.
        kernel_size: taps of its affinity convolutions, odd.
        stem_blocks: blocks at stride 1 before the first level; each further level has one.
        head_layers: convolutions in the towers of the two heads.
        embedding_dim: embedding size E of the affinity.
        embedding_hidden_dim: width of a first embedding convolution, or None for a single one.
        affinity: weigh the taps by affinity; False gives plain convolutions.
        dropout: probability, in every block.
        input_dropout: probability, on the features.
        head_dropout: probability, before the classifiers.
        clip: standardised features are clipped to this many deviations.
    """

    width: int = 128
    levels: int = 5
    kernel_size: int = 3
    stem_blocks: int = 2
    head_layers: int = 2
    embedding_dim: int = 32
    embedding_hidden_dim: int | None = 64
    affinity: bool = True
    dropout: float = 0.1
    input_dropout: float = 0.3
    head_dropout: float = 0.3
    clip: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "width", "levels", "kernel_size", "stem_blocks", "embedding_dim", "embedding_hidden_dim")
        at_least(self, 0, "head_layers")
        at_most(self, 2**20, "width", "embedding_dim", "embedding_hidden_dim")
        at_most(self, 12, "levels")
        at_most(self, 100, "stem_blocks", "head_layers")
        at_most(self, 1000, "kernel_size")
        require(self.kernel_size % 2 == 1, self, "kernel_size", "an odd number")
        for name in ("dropout", "input_dropout", "head_dropout"):
            require(0 <= getattr(self, name) < 1, self, name, "in [0, 1)")
        require(self.clip > 0, self, "clip", "positive")


@dataclass(frozen=True)
class DetectorLossConfig:
    """Weights of the detector's loss terms; a weight of 0 switches a term off.

    Args:
        click: a clicked or labelled snippet is of its class.
        possible: a snippet is of a label of its video, or background.
        somewhere: every label of a video occurs in it.
        between: something occurs between two consecutive background clicks.
        between_miss: probability that it does not after all, as after a wrong click.
        place: half way between two clicks there rather is an action, and near a click background.
        covered: at least `covered_least` of what nobody clicked is an action.
        covered_least: a share of the snippets; None for what `backtal.training.prior` reads from clicks and features.
        teacher: agreement with what the stage before says of every snippet.
        classes: the classes at every point of the pyramid.
        edges: overlap of the segment at every positive point with its target.
        radius: points within so many strides of the middle of a segment are positive.
    """

    click: float = 1.0
    possible: float = 1.0
    somewhere: float = 0.3
    between: float = 0.3
    between_miss: float = 0.05
    place: float = 0.05
    covered: float = 1.0
    covered_least: float | None = None
    teacher: float = 1.0
    classes: float = 1.0
    edges: float = 1.0
    radius: float = 1.5

    def __post_init__(self) -> None:
        at_least(self, 0, "click", "possible", "somewhere", "between", "place", "covered")
        at_least(self, 0, "teacher", "classes", "edges")
        require(0 <= (self.covered_least or 0) < 1, self, "covered_least", "in [0, 1)")
        require(0 <= self.between_miss < 1, self, "between_miss", "in [0, 1)")
        require(self.radius > 0, self, "radius", "positive")


@dataclass(frozen=True)
class DetectionConfig:
    """From the detector's points and activations to segments.

    Args:
        min_score: points and segments below are left out.
        soft_nms_sigma: scale a weaker segment's score by ``exp(-tiou**2 / sigma)``; None for dropping it.
        nms_threshold: temporal IoU at which a weaker segment is dropped, where `soft_nms_sigma` is None.
        most: segments of a class at the points that are kept for every 100 snippets, best first.
        thresholds: start, stop and step of the thresholds whose runs of activations are segments too; None for the
            points alone.
        outer: width of each outer area of a run's contrast, as a fraction of the run.
        smoothing: standard deviation, in snippets, by which activations are smoothed before.
        point_weight: how much the points count where they and the runs judge a segment, 0 to 1.
    """

    min_score: float = 0.001
    soft_nms_sigma: float | None = 0.5
    nms_threshold: float = 0.5
    most: int = 100
    thresholds: tuple[float, float, float] | None = (0.05, 1.0, 0.05)
    outer: float = 0.5
    smoothing: float = 1.0
    point_weight: float = 0.3

    def __post_init__(self) -> None:
        require(0 < self.min_score < 1, self, "min_score", "in (0, 1)")
        require(self.soft_nms_sigma is None or self.soft_nms_sigma > 0, self, "soft_nms_sigma", "positive")
        require(0 < self.nms_threshold <= 1, self, "nms_threshold", "in (0, 1]")
        at_least(self, 1, "most")
        at_least(self, 0, "outer", "smoothing")
        at_most(self, 1000, "outer", "smoothing")
        is_grid(self, "thresholds")
        require(0 <= self.point_weight <= 1, self, "point_weight", "in [0, 1]")
