"""Voxel counts and the figures made of them, against literals and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_dice, compute_iou

from unet_models.metrics import overlap

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 2, 0]])
PREDICTION = np.array([[0, 1, 1, 1], [0, 2, 0, 0], [0, 2, 2, 2]])


def label_pairs(num_classes: int = 4):
    shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5)
    labels = st.integers(0, num_classes - 1)
    return shapes.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=labels), hnp.arrays(np.int16, shape, elements=labels)
        )
    )


def one_hot(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), num_classes).movedim(-1, 0)[None]


def test_confusion_counts_true_labels_in_rows_and_predicted_ones_in_columns():
    assert overlap.confusion_matrix(PREDICTION, TRUTH, 3).tolist() == [[3, 1, 1], [1, 2, 0], [1, 0, 3]]


def test_figures_of_a_confusion_worked_out_by_hand():
    confusion = np.array([[3, 1, 1], [1, 2, 0], [1, 0, 3]])
    np.testing.assert_allclose(overlap.dice(confusion), [6 / 10, 4 / 6, 6 / 8])
    np.testing.assert_allclose(overlap.iou(confusion), [3 / 7, 2 / 4, 3 / 5])
    np.testing.assert_allclose(
        overlap.volume_error_percent(np.array([[0, 0, 0], [2, 4, 0], [4, 0, 0]])), [np.nan, -100 / 3, -100]
    )
    np.testing.assert_allclose(overlap.volume_error_percent(np.array([[5, 3], [0, 2]])), [-37.5, 150])
    np.testing.assert_allclose(overlap.volume_error_ml(np.array([[5, 3], [0, 2]]), 0.5), [1.5, 1.5])


def test_class_in_neither_map_has_no_value_and_class_in_one_map_scores_zero():
    # Class 1 is only true, class 2 only predicted, class 3 in neither.
    confusion = overlap.confusion_matrix(np.array([[0, 2], [2, 2]]), np.array([[0, 1], [1, 0]]), 4)
    np.testing.assert_equal(overlap.dice(confusion)[1:], [0, 0, np.nan])
    np.testing.assert_equal(overlap.iou(confusion)[1:], [0, 0, np.nan])
    np.testing.assert_equal(overlap.volume_error_ml(confusion, 1.0)[1:], [2, 3, np.nan])
    np.testing.assert_equal(overlap.volume_error_percent(confusion)[1:], [-100, np.nan, np.nan])


@settings(deadline=None, max_examples=50)
@given(label_pairs())
def test_dice_and_iou_are_monais(pair: tuple[np.ndarray, np.ndarray]):
    prediction, truth = pair
    confusion = overlap.confusion_matrix(prediction, truth, 4)
    hot = one_hot(prediction, 4), one_hot(truth, 4)
    np.testing.assert_allclose(
        overlap.dice(confusion), compute_dice(*hot, ignore_empty=False)[0].numpy() * present(confusion), rtol=1e-6
    )
    np.testing.assert_allclose(
        overlap.iou(confusion), compute_iou(*hot, ignore_empty=False)[0].numpy() * present(confusion), rtol=1e-6
    )


@settings(deadline=None, max_examples=30)
@given(label_pairs())
def test_dice_of_regions_is_monais_without_ignored_voxels(pair: tuple[np.ndarray, np.ndarray]):
    prediction, truth = pair
    prediction = np.minimum(prediction, 2)  # of three classes; a truth of 3 is ignored
    seen = truth < 3
    masks = [torch.from_numpy(np.stack([(x >= 1) & seen, (x == 2) & seen])[None]) for x in (prediction, truth)]
    is_there = (masks[0] | masks[1]).flatten(2).any(2)[0].numpy()
    theirs = compute_dice(*(each.float() for each in masks), ignore_empty=False)[0].numpy()
    ours = overlap.target_dice(prediction, truth, ((1, 2), (2,)), 3)
    np.testing.assert_allclose(ours, np.where(is_there, theirs, np.nan), rtol=1e-6)


def test_figures_of_regions_worked_out_by_hand():
    confusion, regions = np.array([[3, 1, 1], [1, 2, 0], [1, 0, 3]]), ((1, 2), (2,))
    # Of the first region 5 voxels are in both maps, 7 predicted, 7 true.
    np.testing.assert_allclose(overlap.dice(confusion, regions), [10 / 14, 6 / 8])
    np.testing.assert_allclose(overlap.iou(confusion, regions), [5 / 9, 3 / 5])
    np.testing.assert_allclose(overlap.volume_error_percent(confusion, regions), [0, 0])
    np.testing.assert_allclose(overlap.volume_error_ml(np.array([[0, 2], [0, 3]]), 0.5, ((1,),)), [1])


def present(confusion: np.ndarray) -> np.ndarray:
    """1 for classes in either map; NaN for the rest, which MONAI scores 1 when told not to drop empty truths."""
    return np.where(confusion.sum(axis=0) + confusion.sum(axis=1) > 0, 1.0, np.nan)


@settings(deadline=None, max_examples=50)
@given(label_pairs())
def test_identities(pair: tuple[np.ndarray, np.ndarray]):
    prediction, truth = pair
    confusion = overlap.confusion_matrix(prediction, truth, 4)
    assert confusion.sum() == truth.size
    np.testing.assert_array_equal(confusion.T, overlap.confusion_matrix(truth, prediction, 4))
    dice, iou = overlap.dice(confusion), overlap.iou(confusion)
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))
    perfect = overlap.dice(overlap.confusion_matrix(truth, truth, 4))
    assert set(perfect[~np.isnan(perfect)]) == {1.0}


def test_counting_in_blocks_loses_no_voxel(monkeypatch: pytest.MonkeyPatch):
    labels = np.random.default_rng(0).integers(0, 3, (2, 5, 7, 3))
    whole = overlap.confusion_matrix(*labels, 3)
    monkeypatch.setattr(overlap, "_BLOCK_VOXELS", 4)
    np.testing.assert_array_equal(overlap.confusion_matrix(*labels, 3), whole)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "uint64", "int64", ">i2"])
def test_any_integer_type_counts_alike(dtype: str):
    labels = np.array([[0, 1], [1, 1]]).astype(dtype)
    assert overlap.confusion_matrix(labels, labels[::-1], 2).tolist() == [[0, 1], [1, 2]]


def test_many_classes_do_not_overflow_the_code():
    labels = np.array([[0, 254], [255, 255]], dtype=np.uint8)
    confusion = overlap.confusion_matrix(labels, labels, 256)
    assert (confusion[0, 0], confusion[254, 254], confusion[255, 255], confusion.sum()) == (1, 1, 2, 4)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"got \(2, 2\) and \(2, 3\)"),
        (np.zeros(4, int), np.zeros(4, int), "2 or 3 axes"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "prediction must hold integer labels, got float64"),
        (np.zeros((2, 2), int), np.full((2, 2), 3), "truth must hold labels 0 to 2, got values from 3 to 3"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "got values from -1 to -1"),
    ],
)
def test_bad_label_maps_are_refused(prediction: np.ndarray, truth: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        overlap.confusion_matrix(prediction, truth, 3)


def test_voxel_volume():
    assert overlap.voxel_volume_ml((2.0, 0.5, 3.0)) == pytest.approx(0.003)
    assert overlap.voxel_volume_ml((2.0, 0.5)) == pytest.approx(0.001)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_bad_spacing_is_refused(spacing: tuple[float, ...]):
    with pytest.raises(ValueError, match="3 positive numbers"):
        overlap.spacing_array(spacing, 3)
