from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flows.ablation.page import ablation_page, ablation_text
from flows.ablation.summary import VariantSummary, mean_curve, steps_until, wanted_quality
from flows.metrics import parse_metric_name
from flows.pipelines.segmentation.ablation import SKIPS
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.pipeline import Estimate, over_seeds
from tests.support.pages import assert_runs_no_foreign_script

DICE, LOSS = (parse_metric_name(name).metric for name in ("val/dice", "val/loss"))


def test_the_quality_is_a_share_of_what_the_reference_ends_with() -> None:
    assert wanted_quality([(10, 0.3), (20, 0.8)], DICE) == pytest.approx(0.95 * 0.8)
    assert wanted_quality([(10, 2.0), (20, 1.0)], LOSS) == pytest.approx(1.05), "95 % of the way down"


def test_steps_until_a_quality() -> None:
    curve = [(10, 0.2), (20, 0.76), (30, 0.7)]
    assert steps_until(curve, 0.76, DICE) == 20
    assert steps_until(curve, 0.77, DICE) == math.inf
    assert steps_until([(10, 2.0), (20, 1.0)], 1.05, LOSS) == 20


def test_curves_are_averaged_step_by_step() -> None:
    assert mean_curve([[(10, 0.2), (20, 0.6)], [(10, 0.4), (20, 1.0)]]) == [(10, pytest.approx(0.3)), (20, 0.8)]
    assert mean_curve([[(10, 0.2), (20, 0.6)], [(20, 1.0)]]) == [(20, 0.8)]
    assert mean_curve([[], [(20, 1.0)]]) == []


def test_interval_over_seeds_is_students() -> None:
    values = [0.7, 0.8, 0.75]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((0.75, low, high))
    assert math.isnan(over_seeds([0.7]).low)


def test_page_and_table_hold_every_variant() -> None:
    curve = [(10.0, 0.3), (20.0, 0.8)]
    summaries = [
        VariantSummary("all", 3, {"dice": Estimate(0.812, 0.8, 0.83)}, 20, curve),
        VariantSummary("none & nothing", 3, {"dice": Estimate(0.7, math.nan, math.nan)}, math.inf, curve),
    ]
    lines = ablation_text(summaries).splitlines()
    assert lines[0].split() == ["variant", "dice", "(95", "%)", "steps"]
    assert lines[1].split() == ["all", "0.812", "(0.800", "to", "0.830)", "20"]
    assert lines[2].split()[-1] == "never"
    page = ablation_page(SegmentationConfig(), SKIPS, summaries)
    assert "none &amp; nothing" in page
    assert "0.800 to 0.830" in page
    assert_runs_no_foreign_script(page)
