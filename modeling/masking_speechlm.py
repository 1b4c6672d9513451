"""Which frames pre-training hides: fairseq's span sampler, draw for draw, and the alignment of labels with frames."""

import numpy as np
import torch


def sample_spans(
    shape: tuple[int, int],
    prob: float,
    length: int,
    rng: np.random.RandomState,
    valid_frames: list[int] | None = None,
    min_spans: int = 2,
) -> np.ndarray:
    """Spans of `length` frames that may overlap; every row ends with the same number of masked frames.

    The draws follow fairseq's `compute_mask_indices` (static lengths), so a `RandomState` with the original's seed
    gives the original's mask.

    Args:
        shape (`tuple[int, int]`): rows and frames.
        prob (`float`): `prob * frames / length` spans start in a row, rounded up or down at random.
        rng (`np.random.RandomState`): the legacy generator fairseq draws from.
        valid_frames (`list[int]`, *optional*): frames of each row that are not padding.

    Returns:
        `np.ndarray`: bool, True where a frame is masked.
    """
    rows, frames = shape
    whole_batch = max(min_spans, int(prob * frames / length + rng.rand()))
    picked = []
    for row in range(rows):
        row_frames = frames if valid_frames is None else valid_frames[row]
        spans = whole_batch if valid_frames is None else int(prob * row_frames / length + rng.rand())
        spans = max(min_spans, spans)
        span = length if row_frames - length > spans else row_frames - spans - 1
        starts = rng.choice(row_frames - span, spans, replace=False)
        covered = (starts[:, None] + np.arange(length)).ravel()
        picked.append(np.unique(covered[covered < row_frames]))
    fewest = min(len(frames_of_row) for frames_of_row in picked)
    mask: np.ndarray = np.zeros(shape, dtype=bool)
    for row, frames_of_row in enumerate(picked):
        if len(frames_of_row) > fewest:
            frames_of_row = rng.choice(frames_of_row, fewest, replace=False)
        mask[row, frames_of_row] = True
    return mask


def align_labels(labels_BN: torch.Tensor, frames: int, labels_per_frame: float, offset: int = 0) -> torch.Tensor:
    """The label of each frame, (B, T'), T' being `frames` or fewer when the labels end before the sound does."""
    frames = min(frames, int(labels_BN.shape[1] / labels_per_frame))
    index_T = (torch.arange(frames, device=labels_BN.device) * labels_per_frame).long() + offset
    return labels_BN[:, index_T.clamp_(max=labels_BN.shape[1] - 1)]
