"""Segmentation losses, as sums of named terms, and the contrastive loss; one value per sample, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce

from unet_models.distributed import rank, world_size
from unet_models.precision import full_precision
from unet_models.specs.segmentation import LossSpec, TargetSpec

SMOOTH = 1e-5
"""Added to numerator and denominator of the overlap terms: classes that are absent and not predicted cost nothing."""


def segmentation_loss(
    logits: Float[Tensor, "batch outputs *spatial"],
    masks: Int[Tensor, " batch *spatial"],
    spec: LossSpec,
    targets: TargetSpec | None = None,
) -> Float[Tensor, " batch"]:
    """Compute the weighted sum of ``spec.terms`` for each sample; ``targets`` None: exclusive classes, one per output.

    Voxel terms (cross_entropy, focal) are means over the voxels that are not ignored; of regions each is the mean of
    the binary ones. Overlap terms (dice, iou, tversky) leave the background (class 0) out and average over the other
    classes, or over all regions. With ``spec.batch_dice`` their sums run over the global batch (over all ranks, with
    gradient) and every sample gets the same value.
    """
    targets = targets or TargetSpec(num_classes=logits.shape[1])
    compare = _compare_regions if targets.regions else _compare_classes
    compared = compare(logits.float(), masks, targets)
    loss = logits.new_zeros(logits.shape[0], dtype=torch.float32)
    overlap_sums: tuple[Tensor, Tensor, Tensor] | None = None
    for term, weight in spec.terms.items():
        if term == "cross_entropy":
            loss = loss - weight * _mean(compared.log_likelihood, compared.weights)
        elif term == "focal":
            loss = loss + weight * _mean(_focal(compared.log_likelihood, spec.focal_gamma), compared.weights)
        else:
            overlap_sums = overlap_sums or _overlap_sums(compared, over_batch=spec.batch_dice)
            missing = 1 - _overlap(term, *overlap_sums, alpha=spec.tversky_alpha)
            loss = loss + weight * _mean(missing, _overlap_weights(targets, missing))
    return loss


def deeply_supervised_loss(
    outputs: Float[Tensor, "batch outputs *spatial"] | Sequence[Tensor],
    masks: Int[Tensor, " batch *spatial"],
    spec: LossSpec,
    targets: TargetSpec | None = None,
) -> Float[Tensor, " batch"]:
    """Compute the weighted mean of the losses of all outputs, finest first; each weighs half of the one before.

    Coarse masks hold the voxel of ``masks`` nearest to the centre of each coarse one (``nearest-exact``), as in
    nnU-Net; outputs of padded inputs are cropped to them. A single tensor is the only output.
    """
    if isinstance(outputs, Tensor):
        return segmentation_loss(outputs, masks, spec, targets)
    weights = [0.5**i for i in range(len(outputs))]
    total = torch.zeros((), device=masks.device)
    for weight, logits in zip(weights, outputs, strict=True):
        steps = [m // n for m, n in zip(outputs[0].shape[2:], logits.shape[2:], strict=True)]
        coarse = _downsample(masks, steps)
        logits = logits[(slice(None), slice(None), *(slice(n) for n in coarse.shape[1:]))]
        total = total + weight / sum(weights) * segmentation_loss(logits, coarse, spec, targets)
    return total


def _downsample(masks: Tensor, steps: Sequence[int]) -> Tensor:
    """Take the voxel at the centre of every ``steps`` voxels of (B, *spatial) masks; of cut-off ones the last voxel."""
    for axis, step in enumerate(steps, start=1):
        size = masks.shape[axis]
        if step > 1:
            centres = torch.arange(-(-size // step), device=masks.device) * step + step // 2
            masks = masks.index_select(axis, centres.clamp(max=size - 1))
    return masks


class _Compared(NamedTuple):
    """Prediction and truth of a batch, voxel by voxel."""

    log_likelihood: Tensor
    """(B, 1, *spatial) log-probability of the true class, or (B, R, *spatial) of each region's true answer."""
    weights: Tensor | None
    """Weights of these, 0 where the truth is ignored; None: all weigh alike."""
    probs: Tensor
    """(B, N, *spatial) probabilities of the foreground classes or of the regions."""
    truth: Tensor
    """(B, N, *spatial) whether they are there."""


def _compare_classes(logits: Tensor, masks: Tensor, targets: TargetSpec) -> _Compared:
    """Compare exclusive classes: softmax."""
    log_probs, numbers = F.log_softmax(logits, dim=1), masks.long()
    weights = None
    if targets.weights or targets.has_ignored:
        table = torch.tensor([*(targets.weights or (1.0,) * targets.num_classes), 0.0])
        weights = table.to(masks.device)[numbers].unsqueeze(1)
    if targets.has_ignored:
        numbers = numbers.clamp(max=targets.num_classes - 1)
    classes = torch.arange(1, logits.shape[1], device=masks.device).view(1, -1, *[1] * (masks.ndim - 1))
    probs, truth = log_probs[:, 1:].exp(), masks.unsqueeze(1) == classes
    if targets.has_ignored:
        probs = probs * (masks < targets.num_classes).unsqueeze(1)
    return _Compared(-F.nll_loss(log_probs, numbers, reduction="none").unsqueeze(1), weights, probs, truth)


def _compare_regions(logits: Tensor, masks: Tensor, targets: TargetSpec) -> _Compared:
    """Compare regions, which may overlap: a sigmoid each."""
    members = torch.zeros(targets.num_classes + 1, len(targets.regions), dtype=torch.bool)
    for region, classes in enumerate(targets.regions):
        members[list(classes), region] = True
    truth = members.to(masks.device)[masks.long()].movedim(-1, 1)  # (B, R, *spatial)
    probs, weights = logits.sigmoid(), None
    if targets.weights or targets.has_ignored:
        of_region = logits.new_tensor(targets.weights or (1.0,) * len(targets.regions))
        is_annotated = (masks < targets.num_classes).unsqueeze(1)
        weights = of_region.view(1, -1, *[1] * (masks.ndim - 1)) * is_annotated
        probs = probs * is_annotated
    return _Compared(F.logsigmoid(torch.where(truth, logits, -logits)), weights, probs, truth)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Average all but the first axis, (B,), weighted; 0 where nothing has a weight."""
    if weights is None:
        return values.flatten(1).mean(dim=1)
    weights = weights.expand_as(values)
    return (values * weights).flatten(1).sum(dim=1) / weights.flatten(1).sum(dim=1).clamp(min=SMOOTH)


def _focal(log_likelihood: Tensor, gamma: float) -> Tensor:
    """Compute (1 - p)^gamma times the cross-entropy (Lin 2017, eq. 4)."""
    others = (1 - log_likelihood.exp()).clamp(min=torch.finfo(torch.float32).eps)  # a root has no slope at 0
    return -(others**gamma) * log_likelihood


def _overlap_weights(targets: TargetSpec, values: Tensor) -> Tensor | None:
    """Return the weights (1, N) of the foreground classes or regions."""
    if not targets.weights:
        return None
    return values.new_tensor(targets.weights if targets.regions else targets.weights[1:]).unsqueeze(0)


def _overlap_sums(compared: _Compared, *, over_batch: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Compute soft true positives, predicted and reference sizes of the foreground, each (B, N)."""
    probs, truth = compared.probs, compared.truth
    true_positive = (probs * truth).flatten(2).sum(dim=2)
    predicted = probs.flatten(2).sum(dim=2)
    reference = truth.flatten(2).sum(dim=2).to(probs.dtype)
    if not over_batch:
        return true_positive, predicted, reference
    sums = torch.stack([true_positive, predicted, reference]).sum(dim=1, keepdim=True)  # (3, 1, N)
    if world_size() > 1:
        sums = all_reduce(sums)
    tp, p, r = sums.expand(-1, probs.shape[0], -1)
    return tp, p, r


def _overlap(term: str, true_positive: Tensor, predicted: Tensor, reference: Tensor, alpha: float) -> Tensor:
    """Compute Dice (Milletari 2016, plain sums), IoU or Tversky (Salehi 2017), (B, N) scores in [0, 1]."""
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
