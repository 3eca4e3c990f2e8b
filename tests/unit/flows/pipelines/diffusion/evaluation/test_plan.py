"""What an evaluation draws: the same images whatever the number of workers, in the sizes of the captions' own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.asking import MAX_REAL, Samples
from flows.pipelines.diffusion.evaluation.plan import Plan, plan_parts
from tests.support.diffusion import diffusion_config


def plan(config: DiffusionConfig, captions: Sequence[str], splits: Sequence[str], buckets: Sequence[str]) -> Plan:
    return plan_parts(config, Samples(captions, splits, buckets))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_is_drawn_does_not_depend_on_the_number_of_workers(workers: int) -> None:
    columns = ["a"] * 30, ["train"] * 20 + ["val"] * 10, ["64x64"] * 30
    evaluate = {"num_images": 37, "batch_size": 4}
    shared = plan(diffusion_config(evaluate=evaluate, compute={"num_workers": workers}), *columns)
    alone = plan(diffusion_config(evaluate=evaluate, compute={"num_workers": 1}), *columns)
    for name in ("generated", "prior", "held_out", "untrained"):
        requests = [[r for p in found.parts if p.name == name for r in p.requests] for found in (shared, alone)]
        assert requests[0] == requests[1] != []
    sizes = [len(part.requests) for part in shared.parts if part.name == "generated"]
    assert all(size % 4 == 0 for size in sizes[:-1]), "batches must begin at the same images"
    assert len({r.seed for part in shared.parts for r in part.requests if part.name == "generated"}) == 37


def test_real_captions_are_asked_for_in_turn() -> None:
    config = diffusion_config(data={"layout": "auto", "resolution": 32}, evaluate={"num_images": 8})
    found = plan(config, ["x", "a", "b", "c"], ["train", "val", "val", "val"], ["32x32"] * 4)
    assert found.prompts == ["a", "b", "c", "a", "b", "c", "a", "b"]
    assert not any(part.checks for part in found.parts)


@pytest.mark.parametrize("workers", [1, 3])
def test_with_buckets_an_image_has_the_size_of_its_captions_own(workers: int) -> None:
    data = {"layout": "auto", "resolution": 32, "crop": "buckets", "bucket_multiple": 8}
    evaluate = {"num_images": 40, "batch_size": 2, "num_shown": 2}
    config = diffusion_config(data=data, evaluate=evaluate, compute={"num_workers": workers})
    buckets = {"x": "40x24", "y": "40x24", "z": "32x32", "a": "64x16", "b": "32x32"}
    found = plan(config, [*buckets], ["train"] * 3 + ["val"] * 2, [*buckets.values()])
    drawn = [part for part in found.parts if part.name == "generated"]
    for part in drawn:
        assert {(r.prompt, r.width, r.height) for r in part.requests} in ({("a", 64, 16)}, {("b", 32, 32)})
    batches = [part.requests[i : i + 2] for part in drawn for i in range(0, len(part.requests), 2)]
    assert len(batches) == 20, "whole ones, whatever the number of workers"
    (shown,) = (part for part in found.parts if part.name == "sizes")
    assert [(r.width, r.height) for r in shown.requests] == [(40, 24), (32, 32)], "those trained on, the fullest first"
    assert len({r.seed for r in shown.requests}) == 1
    assert all(r.width is None for part in found.parts if part.name == "grid" for r in part.requests)


def test_with_buckets_what_draws_from_an_image_keeps_its_size() -> None:
    data = {"layout": "auto", "resolution": 32, "crop": "buckets", "bucket_multiple": 8}
    model = {"channels": (32,), "attention_levels": (True,), "in_channels": 9}
    train = {"model": model, "image_condition": {"kind": "masked"}, "global_batch_size": 12}
    config = diffusion_config(data=data, train=train, evaluate={"num_images": 8, "num_shown": 2})
    buckets = {"x": "40x24", "a": "64x16", "b": "32x32"}
    found = plan(config, [*buckets], ["train", "val", "val"], [*buckets.values()])
    rows = {"a": (64, 16), "b": (32, 32)}
    for name in ("generated", "grid", "sweep", "trace"):
        requests = [request for part in found.parts if part.name == name for request in part.requests]
        assert requests
        assert all((request.width, request.height) == rows[request.prompt] for request in requests), name
    assert not [part for part in found.parts if part.name == "sizes"], "an image has one size"


def test_real_images_are_evenly_spaced_over_their_side() -> None:
    samples = Samples(["c"] * 20_000, ["train", "val"] * 10_000, ["8x8"] * 20_000)
    rows = samples.rows("train")
    assert len(rows) == MAX_REAL
    assert all(row % 2 == 0 for row in rows)
    assert rows == sorted(set(rows))
    assert rows[-1] > 19_000


@pytest.mark.parametrize("has_text", [True, False])
def test_every_condition_is_that_of_the_held_out_image(*, has_text: bool) -> None:
    model = {"channels": (32,), "attention_levels": (True,), "in_channels": 9, "num_class_embeds": 3}
    train = {
        "model": model | {"context_dim": 128 if has_text else None},
        "image_condition": {"kind": "masked"},
        "global_batch_size": 12,
    }
    data = {"layout": "shapes", "class_from": "shape"}
    config = diffusion_config(data=data, train=train, evaluate={"num_images": 8, "num_shown": 2, "batch_size": 4})
    samples = Samples(["x", "a", "b"], ["train", "val", "val"], ["64x64"] * 3, ["circle", "square", "circle"])
    parts = plan_parts(config, samples).parts
    asked = [
        (request.prompt, request.class_name, row)
        for part in parts
        if part.name == "generated"
        for request, row in zip(part.requests, part.given, strict=True)
    ]
    assert asked == [("a" if has_text else "", "square", 1), ("b" if has_text else "", "circle", 2)] * 4
    assert {part.name for part in parts if part.checks} == ({"generated", "untrained"} if has_text else set())
    assert all(len(part.given) == len(part.requests) for part in parts if part.kind in ("draw", "trace"))
