"""The method as one would first write it down: unfolded convolutions, two full streams, loops in the losses.

The yardstick of `speed.py`, and a second opinion on the library: `speed.py` checks that both give the same loss.
"""

import torch
from torch.nn import functional as F


def affinity_conv1d(x, weight, affinity):
    """Equations 14-16 on the unfolded input, ``[B, D * K, T]``."""
    channels, taps = weight.shape[1:]
    unfolded = F.unfold(x.unsqueeze(2), (1, taps), padding=(0, taps // 2))
    return weight.flatten(1) @ (unfolded * affinity.repeat(1, channels, 1))


def forward(model, x):
    """Both streams of a `BackTALModel` in the paper's layout, on videos of one length, without dropout."""
    embedding = model.embedding_head(x)
    padded = F.pad(embedding, (model.config.kernel_size // 2,) * 2)
    windows = padded.unfold(2, model.config.kernel_size, 1)
    affinity = torch.einsum("bet,betk->bkt", embedding, windows)
    foreground = model.foreground_filter(x)
    streams = []
    for features in (x, x * foreground):
        for layer in model.trunk:
            features = F.leaky_relu(affinity_conv1d(features, layer.weight, affinity), 0.01)
        cas = model.classifier(features)
        k = max(1, int(cas.shape[2] * model.config.topk_ratio))
        streams.append((cas.topk(k, dim=2).values.mean(2), cas))
    return streams, embedding, foreground, k


def loss(model, config, x, labels, clicks):
    """The complete objective (`LossConfig` of a released recipe), one video after another."""
    ((base_scores, base), (scores, cas)), embedding, foreground, k = forward(model, x)
    total = config.norm * foreground.sum((1, 2)).mean()
    for logits, background in ((base_scores, 1.0), (scores, 0.0)):
        target = torch.cat([labels, torch.full((len(labels), 1), background)], 1)
        total = total - (target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    frames, separation, similarity = [], [], []
    for video in range(len(x)):
        clicked = clicks[video].nonzero()[:, 0]
        if not len(clicked):
            continue
        frames.append(-base[video, -1, clicked] + base[video, :, clicked].logsumexp(0))
        terms, action = [], []
        for label in labels[video].nonzero()[:, 0]:
            scores_of_label = base[video, label]
            pair = torch.stack([scores_of_label.topk(k).values.mean(), scores_of_label[clicked].mean()])
            terms.append(-2 * pair.log_softmax(0)[0])
            action.append(cas[video, label].topk(k).indices)
        separation.append(torch.stack(terms).mean())
        a, b = embedding[video][:, torch.cat(action)], embedding[video][:, clicked]
        similarity.append(
            (config.tau_same - (a.T @ a).amin(1)).clamp(min=0).mean()
            + (config.tau_same - (b.T @ b).amin(1)).clamp(min=0).mean()
            + ((a.T @ b).amax(1) - config.tau_diff).clamp(min=0).mean()
            + ((a.T @ b).amax(0) - config.tau_diff).clamp(min=0).mean()
        )
    total = total + config.frame * torch.cat(frames).mean()
    total = total + config.separation * torch.stack(separation).mean()
    return total + config.affinity * torch.stack(similarity).mean()


def localize(frame_scores, probabilities, axis, labels, config):
    """Segments of one video, one threshold and one run after another (thresholds, contrast, NMS; no extras)."""
    import numpy as np

    count = axis.num_frames
    found = []
    for index in np.flatnonzero(probabilities >= config.class_threshold):
        row = frame_scores[index]
        low, high = max(row.min(), 0), max(row.max(), 0)
        row = (row - low) / (high - low if high > low else 1)
        centres = (np.arange(count) + 0.5) * len(row) / count - 0.5
        row = np.interp(centres, np.arange(len(row)), row)
        proposals = []
        for threshold in np.arange(*config.thresholds):
            start = None
            for frame in range(count + 1):
                active = frame < count and row[frame] >= threshold and row[frame] > 0
                if active and start is None:
                    start = frame
                elif not active and start is not None:
                    n = frame - start
                    around = np.concatenate(
                        [
                            row[max(0, int(start - config.outer * n)) : start],
                            row[frame : int(frame - 1 + config.outer * n)],
                        ]
                    )
                    score = row[start:frame].mean() - (around.mean() if len(around) else 0)
                    score += config.gamma * probabilities[index]
                    proposals.append(
                        (
                            score,
                            axis.seconds(start * len(frame_scores[index]) / count),
                            axis.seconds(frame * len(frame_scores[index]) / count),
                        )
                    )
                    start = None
        proposals.sort(reverse=True)
        kept = []
        for score, start, end in proposals:
            for _, other_start, other_end, _ in kept:
                inter = max(0.0, min(end, other_end) - max(start, other_start))
                if inter >= config.nms_threshold * (end - start + other_end - other_start - inter):
                    break
            else:
                kept.append((score, start, end, labels[index]))
        found += kept
    return found
