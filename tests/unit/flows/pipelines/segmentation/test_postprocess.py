"""Small components and holes: removed as written, and only where the truth says so."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from flows.pipelines.segmentation.postprocess import Case, Load, Postprocessing, choose_postprocessing
from tests.support.volumes import numbered
from unet_models.metrics.overlap import target_dice

LABELS = numbered("background", "organ", "vessel")
ORGAN = numbered("background", "organ")


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


def loads(*pairs: tuple[np.ndarray, np.ndarray]) -> list[Load]:
    return [partial(Case, prediction, truth, (1.0, 1.0, 1.0)) for prediction, truth in pairs]


def cubes(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    numbers = np.zeros((16, 16, 16), np.uint8)
    for box in boxes:
        numbers[box] = 1
    return numbers


LARGE, SMALL, FALSE = np.s_[1:8, 1:8, 1:8], np.s_[9:14, 9:14, 9:14], np.s_[9:13, 9:14, 1:7]
"""Cubes of 343 and 125 voxels, and a box of 120."""


def test_holes_and_small_components_are_found_to_help() -> None:
    """Organs have holes and specks, and in one case two true parts, so that the largest must not stay alone."""
    truth = cubes(LARGE, SMALL)
    prediction = cubes(LARGE, SMALL, np.s_[13:15, 1:3, 1:3])
    prediction[4, 4, 4] = 0
    choice = choose_postprocessing(loads((prediction, truth)), ORGAN)
    assert choice.kept == Postprocessing(smallest_component={1: 62.5}, fill_holes=(1,))
    assert choice.after == 1.0
    assert {each.trial.step for each in choice.tried if each.helps} == {"smallest_component", "fill_holes"}


def test_steps_that_do_not_help_together_are_not_kept_together() -> None:
    """To keep the largest component takes away the organ's second part, whose hole would have been filled."""
    hollow = cubes(LARGE, SMALL)
    hollow[10:13, 10:13, 10:13] = 0
    pairs = (hollow, cubes(LARGE, SMALL)), (cubes(LARGE, FALSE), cubes(LARGE))
    choice = choose_postprocessing(loads(*pairs), ORGAN)
    helping = {each.trial.step: each.after - each.before for each in choice.tried if each.helps}
    assert 0 < helping["largest_component"] < helping["fill_holes"]
    assert choice.kept == Postprocessing(fill_holes=(1,))
    assert choice.after == pytest.approx(choice.before + helping["fill_holes"])
    dice = [2 * 441 / (441 + 468), 2 * 343 / (343 + 463)]
    assert choice.before == pytest.approx(np.mean(dice))


def test_a_step_is_tried_within_the_box_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the Dice is that of whole volumes, ignored voxels and cases without a class included."""
    random = np.random.default_rng(0)
    truth = organ()
    truth[:, :, 15] = LABELS.num_classes  # ignored
    noisy = np.where(random.random(truth.shape) < 0.02, random.integers(0, 3, truth.shape), organ()).astype(np.uint8)
    empty = np.zeros_like(truth)
    pairs = [(with_speck(organ()), truth), (noisy, truth), (empty, truth)]
    shapes: list[tuple[int, ...]] = []
    apply = Postprocessing.apply

    def watched(steps: Postprocessing, numbers: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        shapes.append(numbers.shape)
        return apply(steps, numbers, spacing)

    with monkeypatch.context() as patch:
        patch.setattr(Postprocessing, "apply", watched)
        choose_postprocessing(loads(pairs[0]), LABELS)
    assert set(shapes) == {(12, 7, 7), (7, 2, 8)}, "of the organ with its speck, and of the vessels"
    choice = choose_postprocessing(loads(*pairs), LABELS)
    for each in choice.tried:
        whole = [apply(each.trial.steps, prediction, (1.0, 1.0, 1.0)) for prediction, _ in pairs]
        scores = [
            target_dice(prediction, true, [[1], [2]], LABELS.num_classes)
            for prediction, (_, true) in zip(whole, pairs, strict=True)
        ]
        assert each.after == pytest.approx(np.mean(np.mean(scores, axis=0)), rel=1e-12)
