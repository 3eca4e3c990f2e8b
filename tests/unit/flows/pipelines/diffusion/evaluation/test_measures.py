"""From features to metrics: literal values, names that say extractor and N, and every name in the table."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data_pipelines.shards.writer import npy_bytes
from flows.metrics import parse_metric_name
from flows.pipelines.diffusion.evaluation.measures import Measured, gather_features, measure
from flows.pipelines.diffusion.evaluation.neighbours import find_among, select_queries
from flows.pipelines.diffusion.evaluation.parts import Part, Result
from tests.support.reports import diffusion_report


def encoded(features: np.ndarray) -> str:
    return base64.b64encode(npy_bytes(features.astype(np.float32))).decode()


def normal(count: int, dimension: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def measure_parts(parts: Sequence[Part], results: Sequence[Result]) -> Measured:
    """Measure with the neighbours among the training images of the parts."""
    sets = gather_features(parts, results)
    rows = range(max(map(len, sets["train"].values()), default=0))
    return measure(parts, results, sets, find_among(select_queries(sets), sets["train"], rows))


def measure_sets(extractor: str, count: int = 20, dimension: int = 3, **drawn: Any) -> Measured:
    """Measure sets of images whose features are all normal; ``drawn`` is what else was found in generated ones."""
    sets = ("generated", "prior", "train", "val")
    texts = [{extractor: encoded(normal(count, dimension, seed))} for seed in range(len(sets))]
    parts = [Part(name=name, kind="draw", rows=tuple(range(count))) for name in sets]
    results = [Result(features=texts[0], **drawn), *(Result(features=each) for each in texts[1:3])]
    results.append(Result(features=texts[3], restored=texts[0], squared_error=0.04))
    return measure_parts(parts, results)


def test_metrics_of_equal_sets() -> None:
    near, far = encoded(normal(40)), encoded(normal(40) + 10)
    rows = tuple(range(40))
    parts = [
        Part(name="generated", kind="draw"),
        Part(name="prior", kind="prior"),
        Part(name="train", kind="real", rows=rows),
        Part(name="val", kind="real", rows=rows),
    ]
    drawn = Result(features={"clip": near}, right=[[True], [True, False]], related=[True, False], alignment=[0.5, 0.7])
    val = Result(features={"clip": near}, restored={"clip": near}, squared_error=0.04)
    metrics = measure_parts(
        parts, [drawn, Result(features={"clip": far}), Result(features={"clip": near}), val]
    ).metrics
    assert metrics["frechet_distance[clip,n=40]"] == pytest.approx(0, abs=1e-6)
    assert metrics["frechet_distance[clip,n=40]/prior"] == pytest.approx(300, rel=1e-5)
    assert metrics["precision[clip,n=40]"] == metrics["recall[clip,n=40]"] == 1
    assert metrics["caption_accuracy"] == pytest.approx(2 / 3)
    assert metrics["relation_accuracy"] == 0
    assert metrics["alignment[clip,n=2]"] == pytest.approx(0.6)
    assert metrics["psnr"] == pytest.approx(20)


def test_distances_of_inception_features_are_called_fid() -> None:
    measured = measure_sets("inception")
    assert {"fid[n=20]", "fid[n=20]/prior", "fid[n=20]/reconstruction"} <= measured.metrics.keys()
    assert not any(name.startswith("frechet") for name in measured.metrics)
    assert "Inception" in measured.protocol


def measure_counts(generated: int, held_out: int) -> dict[str, float]:
    """Measure sets of which those generated and held out differ in number; all are of one distribution."""
    counts = {"generated": generated, "prior": generated, "train": 400, "val": held_out}
    parts = [Part(name=name, kind="draw", rows=tuple(range(count))) for name, count in counts.items()]
    results = [
        Result(features={"clip": text}, restored={"clip": text} if name == "val" else {})
        for name, text in ((name, encoded(normal(count, 8, i))) for i, (name, count) in enumerate(counts.items()))
    ]
    return measure_parts(parts, results).metrics


@pytest.mark.parametrize(
    ("generated", "held_out", "compared"),
    [
        (100, 30, {(100, ""), (100, "prior"), (30, "generated"), (30, "reconstruction")}),
        (30, 100, {(30, ""), (30, "prior"), (30, "reconstruction")}),
        (30, 30, {(30, ""), (30, "prior"), (30, "reconstruction")}),
        (30, 1, {(30, ""), (30, "prior")}),
    ],
)
def test_distances_are_measured_at_equal_n(generated: int, held_out: int, compared: set[tuple[int, str]]) -> None:
    parsed = [parse_metric_name(name) for name in measure_counts(generated, held_out)]
    for metric in ("frechet_distance", "kid"):
        assert {(each.num_images, each.part) for each in parsed if each.metric.name == metric} == compared


def test_a_frechet_distance_falls_with_n_and_so_needs_an_equal_one_beside_it() -> None:
    metrics = measure_counts(200, 20)
    whole, few = metrics["frechet_distance[clip,n=200]"], metrics["frechet_distance[clip,n=20]/generated"]
    assert few > 3 * whole  # of one distribution both
    assert metrics["frechet_distance[clip,n=20]/reconstruction"] == pytest.approx(few, rel=0.5)


def test_too_few_images_for_neighbours_still_have_a_distance() -> None:
    text = {"clip": encoded(normal(3, 2))}
    parts = [Part(name=name, kind="draw", rows=(0, 1, 2)) for name in ("generated", "prior", "train", "val")]
    metrics = measure_parts(parts, [Result(features=text, restored=text) for _ in parts]).metrics
    assert metrics["frechet_distance[clip,n=3]"] == pytest.approx(0, abs=1e-6)
    assert not any(name.startswith(("precision", "kid")) for name in metrics)


@pytest.mark.parametrize(
    ("extractor", "right", "kinds"),
    [
        (
            "clip",
            [[True], [True, False]],
            {
                *("frechet_distance", "kid", "precision", "recall", "nearest_ratio", "nearer_than_held_out"),
                *("caption_accuracy", "relation_accuracy", "alignment", "psnr"),
            },
        ),
        ("inception", [], {"fid", "kid", "precision", "recall", "nearest_ratio", "nearer_than_held_out", "psnr"}),
    ],
)
def test_every_metric_that_is_emitted_is_explained(extractor: str, right: list[list[bool]], kinds: set[str]) -> None:
    drawn = {"right": right, "related": [True] * len(right), "alignment": [0.5] * 20 if extractor == "clip" else []}
    measured = measure_sets(extractor, **drawn)
    parsed = [parse_metric_name(name) for name in measured.metrics]
    assert {each.metric.name for each in parsed} >= kinds
    for each in parsed:
        assert each.metric.meaning
        assert each.metric.direction
        assert each.protocol or each.metric.name in ("caption_accuracy", "relation_accuracy", "psnr")


def test_prompts_of_held_out_combinations_are_a_metric_of_their_own() -> None:
    features = {"clip": encoded(normal(20))}
    rows = tuple(range(20))
    names = ("generated", "held_out", "untrained", "prior", "train", "val")
    parts = [Part(name=name, kind="draw", rows=rows) for name in names]
    shares = {"generated": [[True, True]], "held_out": [[True, False]], "untrained": [[False, False]]}
    results = [
        Result(
            features={} if name in ("held_out", "untrained") else features,
            restored=features if name == "val" else {},
            right=shares.get(name, []),
            related=[True] * len(shares.get(name, [])),
        )
        for name in names
    ]
    metrics = measure_parts(parts, results).metrics
    found = {name: value for name, value in metrics.items() if name.startswith("caption_accuracy")}
    assert found == {"caption_accuracy": 1, "caption_accuracy/held_out": 0.5, "caption_accuracy/untrained": 0}


@pytest.mark.parametrize(
    ("extractor", "dimension", "shortage"),
    [
        ("inception", 48, "FID (n=100) has 48 features and 100 images, and would need 480"),
        (
            "clip",
            32,
            "Fréchet distance (clip,n=100, reconstruction) has 32 features and 100 images, and would need 320",
        ),
    ],
)
def test_the_reports_caution_has_the_measured_dimension(extractor: str, dimension: int, shortage: str) -> None:
    measured = measure_sets(extractor, 100, dimension)
    assert measured.dimensions == {extractor: dimension}
    html = diffusion_report(metrics=measured.metrics, dimensions=measured.dimensions)
    assert "Caution: few images for a Fréchet distance" in html
    assert shortage in html
    assert "assumed" not in html
    enough = measure_sets(extractor, 100, 10)
    assert "Caution" not in diffusion_report(metrics=enough.metrics, dimensions=enough.dimensions)
