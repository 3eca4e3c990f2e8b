"""Scores of a case and their summary over cases."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from unet_models.metrics.summary import METRIC_NAMES, MetricSummary, score_case, summarise
from unet_models.metrics.surface import hd95_mm, surface_dice

TARGETS = {"left": (1,), "right": (2,)}
NAN = float("nan")
MODULES = ("overlap", "surface", "surface_elements", "summary", "frechet", "kernel", "manifold")
"""All but ``inception``."""


def rows_of(metric: str, table: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"case_id": f"case_{index}", "class_name": name, metric: value}
        for name, values in table.items()
        for index, value in enumerate(values)
    ]


def by_class(summaries: list[MetricSummary]) -> dict[str, MetricSummary]:
    return {summary.class_name: summary for summary in summaries}


# score_case


def test_scores_worked_out_by_hand():
    truth, prediction = np.zeros((2, 8, 10), dtype=np.uint8)
    truth[2:6, 1:5] = 1  # 16 pixels of 2 mm^2
    prediction[2:6, 2:5] = 1  # 12 of them: the first column is missing
    truth[1:3, 7:9] = prediction[1:3, 7:9] = 2
    scores = score_case(prediction, truth, TARGETS, 3, (2.0, 1.0), tolerance_mm=1.0)
    assert list(scores) == ["left", "right"]
    assert all(tuple(values) == METRIC_NAMES for values in scores.values())
    assert scores["left"] == pytest.approx(
        {
            "dice": 24 / 28,
            "iou": 12 / 16,
            "hd95_mm": 1.0,
            "surface_dice": 1.0,
            "volume_error_ml": 4 * 2 / 1000,
            "volume_error_percent": -25.0,
        }
    )
    assert scores["right"] == {
        "dice": 1.0,
        "iou": 1.0,
        "hd95_mm": 0.0,
        "surface_dice": 1.0,
        "volume_error_ml": 0.0,
        "volume_error_percent": 0.0,
    }


def test_surface_scores_are_those_of_the_whole_masks():
    labels = np.random.default_rng(0).integers(0, 4, (2, 5, 6, 7)).repeat(2, axis=1)
    labels[0, :, :2] = labels[1, :, 4:] = 0
    classes, spacing = {"c": (3,), "a": (1,), "b": (2,)}, (1.0, 0.5, 2.0)
    scores = score_case(*labels, classes, 4, spacing, tolerance_mm=0.7)
    assert list(scores) == ["c", "a", "b"]
    for name, values in scores.items():
        masks = labels == classes[name][0]
        assert values["hd95_mm"] == hd95_mm(*masks, spacing)
        assert values["surface_dice"] == surface_dice(*masks, spacing, 0.7)


def test_absent_classes():
    # Left is only true, right only predicted, other in neither.
    truth, prediction = np.zeros((2, 3, 4, 12), dtype=np.int64)
    truth[0, 0, 0], prediction[1, 1, 1] = 1, 2
    scores = score_case(prediction, truth, TARGETS | {"other": (3,)}, 4, (1.0, 1.0, 1.0), tolerance_mm=1.0)
    for name in ("left", "right"):
        assert (scores[name]["dice"], scores[name]["iou"], scores[name]["surface_dice"]) == (0, 0, 0)
        assert scores[name]["hd95_mm"] == pytest.approx(13)  # the diagonal of the image, not of the class's box
        assert scores[name]["volume_error_ml"] == pytest.approx(0.001)
    assert scores["left"]["volume_error_percent"] == -100
    assert np.isnan(scores["right"]["volume_error_percent"])
    assert np.isnan(list(scores["other"].values())).all()


def test_regions_and_ignored_voxels():
    truth, prediction = np.zeros((2, 6, 12), dtype=np.uint8)
    truth[1:3, 1:5], truth[1, 1] = 1, 2
    prediction[1:3, 1:4] = 1
    truth[5], prediction[5] = 3, 2  # ignored
    scores = score_case(prediction, truth, {"whole": (1, 2), "core": (2,)}, 3, (1.0, 1.0), tolerance_mm=1.0)
    whole = np.isin(prediction[:5], (1, 2)), np.isin(truth[:5], (1, 2))
    assert scores["whole"]["dice"] == pytest.approx(2 * 6 / (6 + 8))
    assert scores["whole"]["hd95_mm"] == hd95_mm(*whole, (1.0, 1.0))
    assert scores["whole"]["surface_dice"] == surface_dice(*whole, (1.0, 1.0), 1.0)
    assert scores["core"]["dice"] == 0
    assert scores["core"]["volume_error_percent"] == -100


def test_bad_cases_are_refused():
    labels = np.zeros((4, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match="labels 0 to 2, got values from 3 to 3"):
        score_case(labels + 3, labels, TARGETS, 3, (1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="one shape"):
        score_case(labels, labels[1:], TARGETS, 3, (1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="2 positive numbers"):
        score_case(labels, labels, TARGETS, 3, (1.0, 1.0, 1.0), 1.0)
    with pytest.raises(ValueError, match="tolerance_mm"):
        score_case(labels, labels, TARGETS, 3, (1.0, 1.0), -1.0)


# summarise


def test_every_metric_of_every_class_then_the_mean():
    values = dict.fromkeys(METRIC_NAMES, 1.0)
    rows = [{"case_id": case, "class_name": name, **values} for case in ("x", "y") for name in ("right", "left")]
    found = [(summary.metric, summary.class_name, summary.num_cases) for summary in summarise(rows)]
    assert found == [(metric, name, 2) for metric in METRIC_NAMES for name in ("right", "left", "mean")]


def test_means_leave_out_missing_values_per_class():
    summaries = by_class(summarise(rows_of("dice", {"a": [0.8, NAN, 0.6], "b": [0.1, 0.2], "c": [NAN, NAN]})))
    assert (summaries["a"].mean, summaries["a"].num_cases) == (pytest.approx(0.7), 2)
    assert (summaries["b"].mean, summaries["b"].num_cases) == (pytest.approx(0.15), 2)
    assert (summaries["mean"].mean, summaries["mean"].num_cases) == (pytest.approx((0.7 + 0.15) / 2), 3)
    absent = summaries["c"]
    assert np.isnan([absent.mean, absent.low, absent.high]).all()
    assert absent.num_cases == 0


def test_interval_of_two_cases_in_closed_form():
    # Drawing two of {0, 1} gives a mean of 0, 1/2, 1 with probability 1/4, 1/2, 1/4. Missing cases change nothing.
    for values in ([0.0, 1.0], [NAN, 0.0, NAN, 1.0]):
        for summary in summarise(rows_of("dice", {"a": values})):
            assert (summary.mean, summary.low, summary.high) == (0.5, 0.0, 1.0)


def test_interval_is_that_of_scipy():
    values = np.random.default_rng(1).beta(8, 2, 60)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    summary = summarise(rows_of("iou", {"a": values.tolist()}))[0]
    # The ends of 2,000 resamples scatter by about 0.001 here; the interval is 0.05 wide.
    assert (summary.low, summary.high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert summary.low < summary.mean < summary.high


def test_intervals_of_five_cases_cover_the_mean_as_often_as_they_say():
    """Plain percentiles cover it in 83 % of the sets."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        summary = summarise(rows_of("dice", {"a": generator.normal(0.8, 0.05, 5).tolist()}), num_resamples=500)[0]
        covered += summary.low <= 0.8 <= summary.high
    assert 0.91 <= covered / 400 <= 0.98


def test_cases_are_drawn_whole_for_the_mean():
    # The classes of a case add up to 1, so every draw of whole cases has the mean 1/2.
    values = np.random.default_rng(3).random(20)
    summaries = by_class(summarise(rows_of("dice", {"a": values.tolist(), "b": (1 - values).tolist()})))
    assert summaries["a"].high - summaries["a"].low > 0.1
    mean = summaries["mean"]
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.5, 0.5, 0.5))


def test_rare_class_missing_from_a_draw_leaves_the_mean_over_the_others():
    summaries = by_class(summarise(rows_of("dice", {"a": [0.6] * 10, "rare": [0.2] + [NAN] * 9})))
    assert summaries["rare"].num_cases == 1
    assert (summaries["rare"].low, summaries["rare"].high) == pytest.approx((0.2, 0.2))
    # A draw of ten cases lacks the rare one with probability 0.9^10 = 0.35: then the mean is 0.6, else 0.4.
    mean = summaries["mean"]
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.4, 0.4, 0.6))


def test_seed_decides_the_interval_and_nothing_else():
    rows = rows_of("hd95_mm", {"a": np.random.default_rng(4).random(15).tolist()})
    assert summarise(rows) == summarise(rows)
    other = summarise(rows, seed=1)
    assert [s.mean for s in other] == [s.mean for s in summarise(rows)]
    assert [s.low for s in other] != [s.low for s in summarise(rows)]


def test_interval_of_a_class_is_the_same_whatever_classes_stand_beside_it():
    table = {name: np.random.default_rng(5).random(12).tolist() for name in ("a", "b")}
    alone = by_class(summarise(rows_of("dice", {"b": table["b"]})))["b"]
    assert by_class(summarise(rows_of("dice", table)))["b"] == alone


def test_no_rows_give_no_summary():
    assert summarise([]) == []


def test_bad_rows_are_refused():
    rows = rows_of("dice", {"a": [0.5]})
    with pytest.raises(ValueError, match="once, got 1 repeated"):
        summarise(rows * 2)
    with pytest.raises(ValueError, match="rename the class"):
        summarise(rows_of("dice", {"mean": [0.5]}))


def test_import_loads_numpy_alone():
    heavy = "{'scipy', 'torch', 'monai', 'data_pipelines'}"
    modules = ", ".join(f"unet_models.metrics.{name}" for name in MODULES)
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "[]"
