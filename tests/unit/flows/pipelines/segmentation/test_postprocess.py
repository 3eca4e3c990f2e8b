"""Small components and holes: removed as written, and only where the truth says so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from flows.pipelines.segmentation.postprocess import Case, Postprocessing, choose_postprocessing
from tests.support.volumes import numbered

LABELS = numbered("background", "organ", "vessel")


def organ() -> np.ndarray:
    truth = np.zeros((16, 16, 16), np.uint8)
    truth[3:10, 3:10, 3:10] = 1
    truth[3:10, 12:14, 3:5], truth[3:10, 12:14, 9:11] = 2, 2  # two vessels: not one component
    return truth


def with_speck(truth: np.ndarray) -> np.ndarray:
    prediction = truth.copy()
    prediction[13:15, 3:5, 3:5] = 1
    return prediction


def test_the_largest_component_alone_stays() -> None:
    processed = Postprocessing(largest_component=(1,)).apply(with_speck(organ()), (1, 1, 1))
    np.testing.assert_array_equal(processed, organ())


def test_components_below_a_size_in_mm_go() -> None:
    prediction = with_speck(organ())  # a speck of 8 voxels
    small, large = (Postprocessing(smallest_component={1: size}) for size in (16.0, 16.1))
    np.testing.assert_array_equal(small.apply(prediction, (1, 1, 2)), prediction)
    np.testing.assert_array_equal(large.apply(prediction, (1, 1, 2)), organ())


def test_neighbours_across_corners_are_one_component() -> None:
    prediction = np.zeros((4, 4), np.uint8)
    prediction[0, 0] = prediction[1, 1] = 1
    np.testing.assert_array_equal(Postprocessing(largest_component=(1,)).apply(prediction, (1, 1)), prediction)


def test_holes_are_filled_where_they_are_background() -> None:
    prediction = organ()
    prediction[5, 5, 5], prediction[6, 6, 6] = 0, 2
    processed = Postprocessing(fill_holes=(1,)).apply(prediction, (1, 1, 1))
    assert (processed[5, 5, 5], processed[6, 6, 6]) == (1, 2)
    np.testing.assert_array_equal(processed == 1, ndimage.binary_fill_holes(processed == 1) & (processed != 2))


def test_nothing_is_done_to_absent_classes_and_without_steps() -> None:
    empty = np.zeros((3, 3), np.uint8)
    every = Postprocessing(largest_component=(1,), smallest_component={2: 5.0}, fill_holes=(1, 2))
    np.testing.assert_array_equal(every.apply(empty, (1, 1)), empty)
    assert every
    assert not Postprocessing()


def test_what_raises_the_dice_is_kept() -> None:
    """Specks of the organ are wrong in every case; the vessels are two in truth, and must both stay."""
    cases = [lambda: Case(with_speck(organ()), organ(), (1.0, 1.0, 1.0))] * 3
    choice = choose_postprocessing(cases, LABELS)
    assert choice.kept.largest_component == (1,)
    assert 2 not in choice.kept.smallest_component
    assert choice.after == 1.0
    assert choice.before == pytest.approx((2 * 343 / (343 + 351) + 1) / 2)
    tried = {(each.trial.step, each.trial.class_name): each.helps for each in choice.tried}
    assert tried[("largest_component", "organ")]
    assert not tried[("largest_component", "vessel")]


def test_perfect_predictions_are_left_alone() -> None:
    choice = choose_postprocessing([lambda: Case(organ(), organ(), (1.0, 1.0, 1.0))], LABELS)
    assert not choice.kept
    assert choice.before == choice.after == 1.0


def test_steps_that_do_not_help_together_are_not_kept_together() -> None:
    """A hole that is filled before the organ's larger false part is removed, and the like: the best alone stays."""
    truth = organ()
    prediction = with_speck(truth)
    prediction[5, 5, 5] = 0
    choice = choose_postprocessing([lambda: Case(prediction, truth, (1.0, 1.0, 1.0))], LABELS)
    assert choice.after == max(choice.after, *(each.after for each in choice.tried))
    assert choice.after == 1.0
