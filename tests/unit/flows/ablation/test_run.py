"""Configurations whose trainings cannot be compared step by step are refused before anything runs."""

from __future__ import annotations

import pytest
import ray

from data_pipelines.errors import ConfigError
from flows.ablation.run import check_comparable, find_ablation, share_cluster, share_workers
from flows.config.specs import ComputeSpec
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.segmentation.config import SegmentationConfig


@pytest.mark.parametrize(
    ("train", "message"),
    [({"validate_cases": 0}, "set train.validate_cases above 0"), ({"within": "5m"}, "not train.within")],
)
def test_trainings_are_compared_step_by_step(train: dict[str, object], message: str) -> None:
    check_comparable(SegmentationConfig())
    with pytest.raises(ConfigError, match=message):
        check_comparable(SegmentationConfig.model_validate({"train": train}))


def test_pipelines_without_ablations_say_so() -> None:
    assert find_ablation(SegmentationConfig(), "skips").name == "skips"
    with pytest.raises(ConfigError, match="pipeline restoration can compare nothing"):
        find_ablation(RestorationConfig(), "skips")


def test_a_variant_is_one_training() -> None:
    config = SegmentationConfig.model_validate({"candidates": {"wide": {"train": {"model": {"norm": "batch"}}}}})
    with pytest.raises(ConfigError, match=r"asks for 2 \(base, fold 0, wide, fold 0\)"):
        check_comparable(config)


def test_a_search_would_choose_another_network_for_each_variant() -> None:
    with pytest.raises(ConfigError, match="set search to null"):
        check_comparable(SegmentationConfig.model_validate({"search": {}}))


@pytest.mark.parametrize(
    ("compute", "num_cpus", "num_workers"),
    [
        ({"num_workers": 2}, 2, 1),  # two runs side by side
        ({"num_workers": 4}, 36, 3),  # twelve on three workers each
        ({"num_workers": 2, "threads_per_worker": 4}, 1000, 2),  # never more than were asked for
        ({"num_workers": [1, 8], "threads_per_worker": 2}, 24, 1),
        ({"num_workers": 8, "use_gpu": True}, 64, 8),
    ],
)
def test_runs_share_the_cluster(compute: dict[str, object], num_cpus: int, num_workers: int) -> None:
    """Twelve runs take as few workers each as leave none idle."""
    assert share_workers(ComputeSpec.model_validate(compute), 12, num_cpus).num_workers == num_workers


@pytest.mark.parametrize(
    ("has", "num_workers", "room"),
    [({"CPU": 16.0, "GPU": 1.0}, 1, 1), ({"CPU": 64.0, "GPU": 8.0}, 2, 4), ({"CPU": 4.0, "GPU": 8.0}, 1, 2)],
)
def test_runs_with_gpus_have_room_where_there_are_gpus(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, float], num_workers: int, room: int
) -> None:
    """And CPUs: two for each worker."""
    monkeypatch.setattr("flows.ablation.run.connect_workers", lambda compute: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: has)
    compute = ComputeSpec(num_workers=num_workers, use_gpu=True, threads_per_worker=2)
    assert share_cluster(compute, 18)[1] == room
