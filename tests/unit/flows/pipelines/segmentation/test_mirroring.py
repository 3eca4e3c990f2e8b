"""Test-time mirroring is kept where it pays."""

from __future__ import annotations

import math

import pytest

from flows.pipelines.segmentation.mirroring import Variant, choose_variant, measure_variant, tried_variants
from tests.support.reports import segmentation_report


def variants(mirrored: float, plain: float) -> list[Variant]:
    return [Variant(tta=True, dice=mirrored, seconds=8), Variant(tta=False, dice=plain, seconds=1)]


@pytest.mark.parametrize(
    ("mirrored", "plain", "expected"),
    [(0.9, 0.89, True), (0.8901, 0.89, False), (0.8, 0.9, False), (math.nan, math.nan, False), (0.5, math.nan, True)],
)
def test_mirroring_must_raise_dice_by_a_thousandth(mirrored: float, plain: float, expected: bool) -> None:
    assert choose_variant(variants(mirrored, plain)).tta == expected


@pytest.mark.parametrize("tta", [True, False])
def test_what_was_set_is_not_chosen(tta: bool) -> None:
    assert tried_variants(tta, (0, 1)) == {tta: ()}
    (alone,) = [each for each in variants(0.1, 0.9) if each.tta == tta]
    assert choose_variant([alone]) is alone


def test_auto_tries_both_where_an_axis_can_be_mirrored() -> None:
    assert tried_variants("auto", (0, 1)) == {True: (), False: ("plain",)}
    assert tried_variants("auto", ()) == {False: ()}


def test_dice_is_the_mean_over_cases_then_classes() -> None:
    rows = [
        {"case_id": case, "class_name": name, "dice": dice}
        for case, name, dice in [("a", "x", 0.8), ("b", "x", 0.6), ("a", "y", 0.2), ("b", "y", math.nan)]
    ]
    found = measure_variant(True, rows, [1.0, 9.0, 2.0], "p")
    assert found.dice == pytest.approx((0.7 + 0.2) / 2)
    assert (found.seconds, found.predictions) == (2.0, "p")
    assert Variant.model_validate_json(measure_variant(True, rows[3:], [1.0]).model_dump_json()).tta


def test_the_report_has_both_and_says_which_was_kept() -> None:
    page = segmentation_report(variants=variants(0.876, 0.874))
    row = page[page.index("Test-time mirroring") :]
    assert row.index("0.876") < row.index(">kept<") < row.index("0.874")
    assert "Test-time mirroring" not in segmentation_report(variants=variants(0.875, 0.874)[:1])
