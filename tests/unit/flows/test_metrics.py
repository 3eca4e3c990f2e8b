"""The one table of metrics: names are taken apart, values compared in the right direction, unknown names refused."""

from __future__ import annotations

import math

import pytest

from flows.metrics import (
    FRECHET_METRICS,
    METRICS,
    Metric,
    check_metric_names,
    find_value,
    parse_metric_name,
    without_protocol,
)
from unet_models.metrics.summary import METRIC_NAMES

WATCHED = ("loss", "learning_rate", "samples_per_second", "gpu_memory", "goodput_percent", "time_seconds")
"""Metrics that no model is judged by."""


@pytest.mark.parametrize(
    ("name", "metric", "phase", "protocol", "part", "title"),
    [
        ("dice", "dice", "", "", "", "Dice"),
        ("dice/liver", "dice", "", "", "liver", "Dice (liver)"),
        ("val/dice/left lung", "dice", "val", "", "left lung", "Dice (left lung)"),
        ("val/dice", "dice", "val", "", "", "Dice"),
        ("train/loss", "loss", "train", "", "", "Loss"),
        ("hd95_mm/a/b", "hd95_mm", "", "", "a/b", "HD95 (mm) (a/b)"),
        ("kid[clip,n=100]", "kid", "", "clip,n=100", "", "KID (clip,n=100)"),
        ("fid[n=5]/prior", "fid", "", "n=5", "prior", "FID (n=5, prior)"),
        ("frechet_distance[clip]/two_sets", "frechet_distance", "", "clip", "two_sets", None),
        ("caption_accuracy/held_out", "caption_accuracy/held_out", "", "", "", "Caption accuracy (held out)"),
        ("caption_accuracy/two_items", "caption_accuracy", "", "", "two_items", "Caption accuracy (two items)"),
        ("psnr", "psnr", "", "", "", "PSNR (dB)"),
    ],
)
def test_names_are_taken_apart(name: str, metric: str, phase: str, protocol: str, part: str, title: str | None) -> None:
    parsed = parse_metric_name(name)
    assert (parsed.metric.name, parsed.phase, parsed.protocol, parsed.part) == (metric, phase, protocol, part)
    assert parsed.title == (title or "Fréchet distance (clip, two sets)")


@pytest.mark.parametrize(
    ("protocol", "extractor", "num_images"),
    [("clip,n=100", "clip", 100), ("n=100", "", 100), ("clip", "clip", None), ("", "", None)],
)
def test_a_protocol_names_extractor_and_number_of_images(protocol: str, extractor: str, num_images: int | None) -> None:
    parsed = parse_metric_name(f"kid[{protocol}]/prior")
    assert (parsed.extractor, parsed.num_images) == (extractor, num_images)


@pytest.mark.parametrize(
    "name", ["sparkle", "sparkle[clip]", "val/sparkle", "kid[", "", "/", "psnr_of_nothing", "step"]
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(KeyError, match="not in the table of metrics"):
        parse_metric_name(name)
    with pytest.raises(KeyError, match="not in the table of metrics"):
        check_metric_names(["dice", name])


def test_every_metric_that_segmentation_emits_is_explained() -> None:
    for name in METRIC_NAMES:
        assert METRICS[name].meaning
        assert METRICS[name].direction


def test_the_table_is_complete() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert parse_metric_name(name).metric is metric
        # A curve that only watches a training explains itself; whatever a model is judged by needs a direction.
        assert metric.meaning or metric.name in WATCHED
        assert not metric.meaning or metric.direction
    assert {METRICS[name].better for name in FRECHET_METRICS} == {"lower"}


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "better"),
    [
        ("dice", 0.9, 0.8, True),
        ("dice", 0.8, 0.8, False),
        ("hd95_mm", 9.0, 1.0, False),
        ("hd95_mm", 1.0, 9.0, True),
        ("volume_error_ml", 9.0, 1.0, False),
        ("volume_error_ml", 1.0, 9.0, True),
        ("volume_error_percent", -1.0, 5.0, True),
        ("volume_error_percent", 5.0, -1.0, False),
        ("volume_error_percent", -5.0, 1.0, False),
        ("volume_error_percent", -5.0, 5.0, False),
        ("fid[n=10]", 3.0, 4.0, True),
        ("frechet_distance[clip,n=10]/prior", 4.0, 3.0, False),
        ("val/psnr", 31.0, 30.0, True),
        ("nearer_than_held_out[clip,n=9]", 0.5, 0.05, False),
        ("dice", math.nan, 0.5, False),
        ("volume_error_ml", math.nan, 0.5, False),
    ],
)
def test_values_are_compared_in_the_direction_of_their_metric(
    name: str, ours: float, theirs: float, better: bool
) -> None:
    score = parse_metric_name(name).metric.score
    assert (score(ours) > score(theirs)) is better


def test_what_has_no_direction_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="learning_rate has no direction"):
        parse_metric_name("learning_rate").metric.score(1.0)
    assert METRICS["learning_rate"].direction == ""


def test_titles_have_units() -> None:
    assert METRICS["hd95_mm"].titled == "HD95 (mm)"
    assert METRICS["dice"].titled == "Dice"
    assert Metric("x", "X", "nearest_zero").direction == "nearer 0 is better"


def test_values_are_found_whatever_their_protocol() -> None:
    metrics = {"kid[clip,n=100]": 0.1, "kid[clip,n=100]/prior": 0.2, "dice": 0.3}
    assert (find_value(metrics, "kid"), find_value(metrics, "kid/prior"), find_value(metrics, "dice")) == (
        0.1,
        0.2,
        0.3,
    )
    assert find_value(metrics, "kid[clip,n=100]") == 0.1
    assert math.isnan(find_value(metrics, "fid"))
    assert math.isnan(find_value(metrics, "kid[clip,n=99]"))
    assert without_protocol("frechet_distance[clip,n=100]/prior") == "frechet_distance/prior"
    assert without_protocol("dice/lesion [1]") == "dice/lesion [1]"
