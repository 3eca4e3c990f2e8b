"""Losses against numbers worked out by hand, against MONAI, and over two processes."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unet_models.specs.segmentation import LossSpec, TargetSpec
from unet_models.training.losses import SMOOTH, contrastive_loss, deeply_supervised_loss, segmentation_loss

TERMS = ["cross_entropy", "dice", "iou", "tversky", "focal"]


def only(term: str, **fields: float | bool) -> LossSpec:
    return LossSpec(terms={term: 1.0}, **fields)


def logits_of(*probs: float) -> Tensor:
    """(1, 2, 1, N) logits of two classes whose class 1 has these probabilities."""
    p = torch.tensor(probs)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def random_case(ndim: int = 3, batch: int = 2, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (6, 5, 4)[:ndim]
    logits = 2 * torch.randn(batch, classes, *size, generator=generator)
    return logits, torch.randint(classes, (batch, *size), generator=generator).to(torch.uint8)


def one_hot_logits(masks: Tensor, classes: int, certainty: float = 30.0) -> Tensor:
    return certainty * F.one_hot(masks.long(), classes).movedim(-1, 1).float()


# --- By hand ---------------------------------------------------------------------------------------------------------

# Two pixels with p = 0.75 and 0.5 for class 1, the first of which is class 1:
# true positives 0.75, predicted 1.25, reference 1; false positives 0.5, false negatives 0.25.
BY_HAND = {
    "cross_entropy": -(math.log(0.75) + math.log(0.5)) / 2,
    "focal": -(0.25**2 * math.log(0.75) + 0.5**2 * math.log(0.5)) / 2,
    "dice": 1 - 1.5 / 2.25,
    "iou": 1 - 0.75 / 1.5,
    "tversky": 1 - 0.75 / (0.75 + 0.3 * 0.5 + 0.7 * 0.25),
}


@pytest.mark.parametrize("term", TERMS)
def test_two_pixels_by_hand(term: str) -> None:
    loss = segmentation_loss(logits_of(0.75, 0.5), torch.tensor([[[1, 0]]]), only(term))
    assert loss.tolist() == pytest.approx([BY_HAND[term]], rel=1e-4)


def test_terms_are_weighted_and_summed() -> None:
    spec = LossSpec(terms={term: weight for weight, term in enumerate(TERMS, start=1)})
    loss = segmentation_loss(logits_of(0.75, 0.5), torch.tensor([[[1, 0]]]), spec)
    assert loss.item() == pytest.approx(sum(w * BY_HAND[term] for w, term in enumerate(TERMS, start=1)), rel=1e-4)


def test_tversky_weighs_false_positives_by_alpha_and_focal_focuses_by_gamma() -> None:
    case = logits_of(0.75, 0.5), torch.tensor([[[1, 0]]])
    tversky = segmentation_loss(*case, only("tversky", tversky_alpha=0.9)).item()
    assert tversky == pytest.approx(1 - 0.75 / (0.75 + 0.9 * 0.5 + 0.1 * 0.25), rel=1e-4)
    assert segmentation_loss(*case, only("focal", focal_gamma=0)).item() == pytest.approx(BY_HAND["cross_entropy"])


def test_batch_dice_sums_before_it_divides() -> None:
    logits = torch.cat([logits_of(0.75, 0.5), logits_of(0.25, 0.1)])
    masks = torch.tensor([[[1, 0]], [[1, 1]]])
    each = segmentation_loss(logits, masks, only("dice"))
    assert each.tolist() == pytest.approx([1 - 1.5 / 2.25, 1 - 0.7 / 2.35], rel=1e-4)
    both = segmentation_loss(logits, masks, only("dice", batch_dice=True))
    assert both.tolist() == pytest.approx([1 - 2 * (0.75 + 0.35) / (1.25 + 0.35 + 1 + 2)] * 2, rel=1e-4)


# --- MONAI -----------------------------------------------------------------------------------------------------------

OPTIONS = {"include_background": False, "softmax": True, "to_onehot_y": True}
SMOOTHED = {"smooth_nr": SMOOTH, "smooth_dr": SMOOTH}


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """MONAI's losses, imported here because the spawned processes below import this file too."""
    import monai.losses

    return monai.losses


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_overlap_terms_are_those_of_monai(theirs: ModuleType, ndim: int, batch_dice: bool) -> None:
    logits, masks = random_case(ndim)
    # MONAI's Jaccard doubles both sides of the fraction, so its smoothing is half of ours.
    doubled = {name: 2 * value for name, value in SMOOTHED.items()}
    references = {
        "dice": theirs.DiceLoss(**OPTIONS, **SMOOTHED, batch=batch_dice),
        "iou": theirs.DiceLoss(**OPTIONS, **doubled, batch=batch_dice, jaccard=True),
        "tversky": theirs.TverskyLoss(**OPTIONS, **SMOOTHED, batch=batch_dice, alpha=0.3, beta=0.7),
    }
    for term, reference in references.items():
        ours = segmentation_loss(logits, masks, only(term, batch_dice=batch_dice))
        torch.testing.assert_close(ours.mean(), reference(logits, masks[:, None]), rtol=1e-5, atol=1e-6)


def test_dice_of_each_sample_is_that_of_monai(theirs: ModuleType) -> None:
    logits, masks = random_case(batch=3)
    each = theirs.DiceLoss(**OPTIONS, **SMOOTHED, reduction="none")(logits, masks[:, None])
    torch.testing.assert_close(segmentation_loss(logits, masks, only("dice")), each.flatten(1).mean(1))


def test_default_loss_and_gradient_are_those_of_monai(theirs: ModuleType) -> None:
    logits, masks = random_case()
    gradients = []
    for loss in (
        lambda x: segmentation_loss(x, masks, LossSpec()).mean(),
        lambda x: theirs.DiceCELoss(**OPTIONS, **SMOOTHED)(x, masks[:, None]),
    ):
        leaf = logits.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(leaf), leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_focal_is_that_of_monai(theirs: ModuleType) -> None:
    logits, masks = random_case()
    each = theirs.FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True, reduction="none")(logits, masks[:, None])
    torch.testing.assert_close(segmentation_loss(logits, masks, only("focal")), each.sum(1).flatten(1).mean(1))


# --- Ignored voxels, regions, weights ---------------------------------------------------------------------------------

REGIONS = TargetSpec(num_classes=4, regions=((1, 2, 3), (2, 3), (3,)))


def regions_of(masks: Tensor) -> Tensor:
    """(B, 3, *spatial) of the regions above: classes from 1, from 2, from 3 on."""
    return torch.stack([masks >= 1, masks >= 2, masks >= 3], dim=1).float()


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("targets", [TargetSpec(num_classes=4), REGIONS])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_ignored_voxels_cost_what_they_would_were_they_cut_off(
    term: str, targets: TargetSpec, batch_dice: bool
) -> None:
    logits, masks = random_case()
    logits = logits[:, : len(targets.regions) or 4]
    partial = masks.clone()
    partial[:, 4:] = 4
    targets = targets.model_copy(update={"has_ignored": True})
    leaf, spec = logits.clone().requires_grad_(), only(term, batch_dice=batch_dice)
    loss = segmentation_loss(leaf, partial, spec, targets)
    torch.testing.assert_close(loss, segmentation_loss(logits[:, :, :4], masks[:, :4], spec, targets))
    gradient = torch.autograd.grad(loss.sum(), leaf)[0]
    assert (gradient[:, :, 4:] == 0).all()
    assert (gradient[:, :, :4] != 0).any()


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("targets", [TargetSpec(num_classes=3), REGIONS])
def test_patches_without_annotation_cost_nothing(term: str, targets: TargetSpec) -> None:
    logits, masks = random_case(classes=3)
    targets = targets.model_copy(update={"has_ignored": True})
    leaf = logits.requires_grad_()
    loss = segmentation_loss(leaf, torch.full_like(masks, targets.num_classes), only(term), targets)
    torch.testing.assert_close(loss, torch.zeros(2), atol=1e-6, rtol=0)
    assert torch.autograd.grad(loss.sum(), leaf)[0].isfinite().all()


def test_weighted_cross_entropy_is_that_of_torch() -> None:
    logits, masks = random_case()
    masks[0, 0] = 4
    weights = torch.tensor([1.0, 2.0, 0.5, 4.0])
    targets = TargetSpec(num_classes=4, has_ignored=True, weights=tuple(weights.tolist()))
    loss = segmentation_loss(logits, masks, only("cross_entropy"), targets)
    for i in range(2):
        theirs = F.cross_entropy(logits[i : i + 1], masks[i : i + 1].long(), weights, ignore_index=4)
        torch.testing.assert_close(loss[i], theirs)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_regions_have_binary_cross_entropy_and_monais_sigmoid_terms(theirs: ModuleType, batch_dice: bool) -> None:
    logits, masks = random_case()
    logits, truth = logits[:, :3], regions_of(masks)
    cross_entropy = segmentation_loss(logits, masks, only("cross_entropy"), REGIONS)
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(cross_entropy, bce)
    dice = segmentation_loss(logits, masks, only("dice", batch_dice=batch_dice), REGIONS)
    reference = theirs.DiceLoss(sigmoid=True, batch=batch_dice, **SMOOTHED)
    torch.testing.assert_close(dice.mean(), reference(logits, truth))
    focal = theirs.FocalLoss(gamma=2.0, reduction="none")(logits, truth).flatten(1).mean(1)
    torch.testing.assert_close(segmentation_loss(logits, masks, only("focal"), REGIONS), focal)


def test_weights_of_regions(theirs: ModuleType) -> None:
    logits, masks = random_case()
    logits, truth, weights = logits[:, :3], regions_of(masks), torch.tensor([1.0, 2.0, 5.0])
    targets = REGIONS.model_copy(update={"weights": tuple(weights.tolist())})
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(2).mean(2)
    dice = theirs.DiceLoss(sigmoid=True, reduction="none", **SMOOTHED)(logits, truth).flatten(1)
    for term, of_region in (("cross_entropy", bce), ("dice", dice)):
        loss = segmentation_loss(logits, masks, only(term), targets)
        torch.testing.assert_close(loss, (of_region * weights).sum(1) / weights.sum())


def test_weights_of_classes_in_overlap_terms() -> None:
    logits, masks = random_case()
    alone = [
        segmentation_loss(logits, masks, only("dice"), TargetSpec(num_classes=4, weights=weights))
        for weights in ((9.0, 1e9, 1.0, 1.0), (9.0, 1.0, 1e9, 1.0), (9.0, 1.0, 1.0, 1e9))
    ]
    weighted = segmentation_loss(logits, masks, only("dice"), TargetSpec(num_classes=4, weights=(9.0, 1.0, 2.0, 5.0)))
    torch.testing.assert_close(weighted, (alone[0] + 2 * alone[1] + 5 * alone[2]) / 8)


def test_deep_supervision_of_regions_with_ignored_voxels() -> None:
    logits, masks = random_case(ndim=2)
    masks = masks[:, :4, :4].contiguous()
    masks[:, 0] = 4
    targets, spec = REGIONS.model_copy(update={"has_ignored": True}), LossSpec()
    fine, coarse = logits[:, :3, :4, :4], logits[:, :3, :2, :2]
    a, b = (segmentation_loss(x, m, spec, targets) for x, m in ((fine, masks), (coarse, masks[:, 1::2, 1::2])))
    torch.testing.assert_close(deeply_supervised_loss([fine, coarse], masks, spec, targets), a * 2 / 3 + b / 3)


# --- Limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("batch_dice", [False, True])
def test_perfect_prediction_costs_nothing_even_of_absent_classes(term: str, batch_dice: bool) -> None:
    _, masks = random_case(classes=3)
    masks[1] = 0
    loss = segmentation_loss(one_hot_logits(masks, 5), masks, only(term, batch_dice=batch_dice))
    torch.testing.assert_close(loss, torch.zeros(2), atol=2e-3 if "cross" not in term else 1e-6, rtol=0)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite(term: str, scale: float) -> None:
    logits, masks = random_case()
    masks[0] = 0
    leaf = (logits * scale).requires_grad_()
    loss = segmentation_loss(leaf, masks, only(term))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_gradients_of_a_focal_loss_with_a_small_exponent_are_finite(gamma: float) -> None:
    leaf = torch.tensor([[[20.0], [-5.0]]], requires_grad=True)
    loss = segmentation_loss(leaf, torch.zeros(1, 1, dtype=torch.long), only("focal", focal_gamma=gamma))
    loss.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits = logits_of(0.75, 0.5).repeat(1, 1, 300, 300).bfloat16()
    masks = torch.tensor([1, 0]).repeat(1, 300, 300)
    loss = segmentation_loss(logits, masks, only("dice"))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(BY_HAND["dice"], rel=1e-3)  # 90,000 halves added up in bf16 would stop at 256


# --- Deep supervision ------------------------------------------------------------------------------------------------


def test_weights_halve_and_sum_to_one() -> None:
    logits, masks = random_case(ndim=2)
    masks = masks[:, :4, :4]
    fine, coarse, coarsest = logits[..., :4, :4], logits[..., :2, :2], logits[..., :1, :1]
    spec = LossSpec()
    a = segmentation_loss(fine, masks, spec)
    b = segmentation_loss(coarse, masks[:, 1::2, 1::2], spec)
    c = segmentation_loss(coarsest, masks[:, 2::4, 2::4], spec)
    torch.testing.assert_close(deeply_supervised_loss([fine, coarse], masks, spec), a * 2 / 3 + b / 3)
    torch.testing.assert_close(
        deeply_supervised_loss([fine, coarse, coarsest], masks, spec), a * 4 / 7 + b * 2 / 7 + c / 7
    )
    torch.testing.assert_close(deeply_supervised_loss(fine, masks, spec), a)
    torch.testing.assert_close(deeply_supervised_loss([fine], masks, spec), a)


@pytest.mark.parametrize("size", [(9, 16), (3, 5), (17, 40), (1, 33)])
def test_coarse_references_lie_where_padded_outputs_do(size: tuple[int, int]) -> None:
    masks = torch.randint(3, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    padded = F.pad(masks.float(), (0, -size[1] % 16, 0, -size[0] % 16), mode="replicate")
    rows, columns = padded.shape[2:]
    targets = [
        F.interpolate(padded, (rows // s, columns // t), mode="nearest-exact")
        for s, t in ((1, 1), (2, 2), (4, 2), (8, 4))
    ]
    outputs = [one_hot_logits(target[:, 0], 3) for target in targets]
    loss = deeply_supervised_loss(outputs, masks[:, 0], only("cross_entropy"))
    torch.testing.assert_close(loss, torch.zeros(2), atol=1e-6, rtol=0)


# --- Contrastive loss ------------------------------------------------------------------------------------------------


def test_contrastive_loss_by_hand() -> None:
    vectors = torch.eye(2)
    losses = contrastive_loss(vectors, vectors, torch.tensor(2.0))
    expected = -torch.log_softmax(torch.tensor([2.0, 0.0]), dim=0)[0].item()
    assert losses.tolist() == pytest.approx([expected] * 2)


def test_autocast_does_not_reach_the_similarities() -> None:
    vectors = F.normalize(torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    expected = contrastive_loss(*vectors, torch.tensor(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive_loss(*vectors, torch.tensor(100.0)), expected)
