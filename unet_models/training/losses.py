"""Segmentation losses, as sums of named terms, and the contrastive loss; one value per sample, in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce

from unet_models.distributed import rank, world_size
from unet_models.precision import full_precision
from unet_models.specs.segmentation import LossSpec

SMOOTH = 1e-5
"""Added to numerator and denominator of the overlap terms: classes that are absent and not predicted cost nothing."""


def segmentation_loss(
    logits: Float[Tensor, "batch classes *spatial"], masks: Int[Tensor, " batch *spatial"], spec: LossSpec
) -> Float[Tensor, " batch"]:
    """Compute the weighted sum of ``spec.terms`` for each sample.

    Overlap terms (dice, iou, tversky) leave the background (class 0) out and average over the other classes. With
    ``spec.batch_dice`` their sums run over the global batch (over all ranks, with gradient) and every sample gets the
    same value.
    """
    logits = logits.float()
    log_probs = F.log_softmax(logits, dim=1)
    loss = logits.new_zeros(logits.shape[0])
    overlap_sums: tuple[Tensor, Tensor, Tensor] | None = None
    for term, weight in spec.terms.items():
        if term == "cross_entropy":
            loss = loss + weight * _cross_entropy(log_probs, masks)
        elif term == "focal":
            loss = loss + weight * _focal(log_probs, masks, spec.focal_gamma)
        else:
            overlap_sums = overlap_sums or _overlap_sums(log_probs.exp(), masks, over_batch=spec.batch_dice)
            loss = loss + weight * (1 - _overlap(term, *overlap_sums, alpha=spec.tversky_alpha)).mean(dim=1)
    return loss


def deeply_supervised_loss(
    outputs: Float[Tensor, "batch classes *spatial"] | Sequence[Tensor],
    masks: Int[Tensor, " batch *spatial"],
    spec: LossSpec,
) -> Float[Tensor, " batch"]:
    """Compute the weighted mean of the losses of all outputs, finest first; each weighs half of the one before.

    Coarse masks hold the voxel of ``masks`` nearest to the centre of each coarse one (``nearest-exact``), as in
    nnU-Net; outputs of padded inputs are cropped to them. A single tensor is the only output.
    """
    if isinstance(outputs, Tensor):
        return segmentation_loss(outputs, masks, spec)
    weights = [0.5**i for i in range(len(outputs))]
    total = torch.zeros((), device=masks.device)
    for weight, logits in zip(weights, outputs, strict=True):
        steps = [m // n for m, n in zip(outputs[0].shape[2:], logits.shape[2:], strict=True)]
        coarse = _downsample(masks, steps)
        logits = logits[(slice(None), slice(None), *(slice(n) for n in coarse.shape[1:]))]
        total = total + weight / sum(weights) * segmentation_loss(logits, coarse, spec)
    return total


def _downsample(masks: Tensor, steps: Sequence[int]) -> Tensor:
    """Take the voxel at the centre of every ``steps`` voxels of (B, *spatial) masks; of cut-off ones the last voxel."""
    for axis, step in enumerate(steps, start=1):
        size = masks.shape[axis]
        if step > 1:
            centres = torch.arange(-(-size // step), device=masks.device) * step + step // 2
            masks = masks.index_select(axis, centres.clamp(max=size - 1))
    return masks


def _cross_entropy(log_probs: Tensor, masks: Tensor) -> Tensor:
    return F.nll_loss(log_probs, masks.long(), reduction="none").flatten(1).mean(dim=1)


def _focal(log_probs: Tensor, masks: Tensor, gamma: float) -> Tensor:
    """Compute (1 - p)^gamma times the cross-entropy (Lin 2017, eq. 4)."""
    log_p = log_probs.gather(1, masks.long().unsqueeze(1)).squeeze(1)
    return -((1 - log_p.exp()) ** gamma * log_p).flatten(1).mean(dim=1)


def _overlap_sums(probs: Tensor, masks: Tensor, *, over_batch: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Compute soft true positives, predicted and reference sizes of the foreground classes, each (B, K-1)."""
    classes = torch.arange(1, probs.shape[1], device=masks.device).view(1, -1, *[1] * (masks.ndim - 1))
    is_class = masks.unsqueeze(1) == classes  # (B, K-1, *spatial)
    foreground = probs[:, 1:]
    true_positive = (foreground * is_class).flatten(2).sum(dim=2)
    predicted = foreground.flatten(2).sum(dim=2)
    reference = is_class.flatten(2).sum(dim=2).to(probs.dtype)
    if not over_batch:
        return true_positive, predicted, reference
    sums = torch.stack([true_positive, predicted, reference]).sum(dim=1, keepdim=True)  # (3, 1, K-1)
    if world_size() > 1:
        sums = all_reduce(sums)
    tp, p, r = sums.expand(-1, probs.shape[0], -1)
    return tp, p, r


def _overlap(term: str, true_positive: Tensor, predicted: Tensor, reference: Tensor, alpha: float) -> Tensor:
    """Compute Dice (Milletari 2016, plain sums), IoU or Tversky (Salehi 2017), (B, K-1) scores in [0, 1]."""
    if term == "dice":
        return (2 * true_positive + SMOOTH) / (predicted + reference + SMOOTH)
    if term == "iou":
        return (true_positive + SMOOTH) / (predicted + reference - true_positive + SMOOTH)
    false_positive, false_negative = predicted - true_positive, reference - true_positive
    return (true_positive + SMOOTH) / (true_positive + alpha * false_positive + (1 - alpha) * false_negative + SMOOTH)


def contrastive_loss(
    image_vectors: Float[Tensor, "batch vector"], text_vectors: Float[Tensor, "batch vector"], scale: Float[Tensor, ""]
) -> Float[Tensor, " batch"]:
    """Compute the symmetric cross-entropy of each pair against all others of the global batch (Radford 2021, fig. 3).

    ``scale`` is the scalar factor of the similarities, up to 100: they are computed in float32 whatever autocast is on.
    Vectors of all ranks are gathered, with gradient, so the loss does not depend on the number of ranks, which must
    hold shares of equal size.
    """
    image_vectors, text_vectors, scale = image_vectors.float(), text_vectors.float(), scale.float()
    all_images, all_texts, first = image_vectors, text_vectors, 0
    if world_size() > 1:
        all_images, all_texts = (torch.cat(list(all_gather(v))) for v in (image_vectors, text_vectors))
        first = rank() * len(image_vectors)
    own = torch.arange(first, first + len(image_vectors), device=image_vectors.device)
    with full_precision(image_vectors.device):
        by_image = F.cross_entropy(scale * image_vectors @ all_texts.T, own, reduction="none")
        by_text = F.cross_entropy(scale * text_vectors @ all_images.T, own, reduction="none")
    return (by_image + by_text) / 2
