"""Time of predictions without a GPU, and what a plan makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.pipelines.segmentation.planning import effort
from flows.pipelines.segmentation.planning.candidates import Candidate, Images, plan_candidates
from flows.pipelines.segmentation.planning.effort import Effort, in_order_of_choice


@pytest.fixture(autouse=True)
def _known_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "CPU_VOXELS_PER_SECOND", 250_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("data_pipelines.cores.QUOTA", Path("none"))


def planned(shape: tuple[int, ...], number: int) -> list[Candidate]:
    return plan_candidates(Images([(1.0,) * len(shape)] * number, [shape] * number, num_classes=3), memory_gb=0.6)


def test_windows_of_an_image_take_their_voxels_over_the_pace() -> None:
    full = planned((256, 256, 256), 12)[0]
    assert full.sizes.topology.patch_size == (56, 56, 56)
    found = Effort(full, held_out=3)
    assert found.seconds == pytest.approx(9**3 * 56**3 / 500_000), "a window every 28 voxels"
    assert 1 / found.num_validated == pytest.approx(5**3 * 56**3 / 500_000), "windows side by side"
    assert found.evaluation_seconds(0) == pytest.approx(3 * found.seconds)
    assert found.evaluation_seconds(3) == pytest.approx(24 * found.seconds)


def test_an_image_within_one_window_is_predicted_once() -> None:
    full = planned((36, 50, 35), 10)[0]
    assert Effort(full, 1).seconds == pytest.approx(40 * 56 * 40 / 500_000)


@pytest.mark.parametrize(
    ("shape", "number", "minutes", "first"),
    [
        ((256, 256, 256), 12, 10, "3d_lowres"),
        ((256, 256, 256), 12, 240, "3d_fullres"),
        ((140, 180, 140), 5, 30, "3d_fullres"),
        ((140, 180, 140), 500, 30, "3d_lowres"),
        ((36, 50, 35), 260, 1, "3d_fullres"),
        ((2048, 2048), 1000, 1, "2d"),
    ],
    ids=["large", "large, much time", "moderate", "many of them", "small", "no volumes"],
)
def test_the_time_decides_the_resolution(shape: tuple[int, ...], number: int, minutes: float, first: str) -> None:
    candidates = planned(shape, number)
    found = in_order_of_choice(candidates, -(-number // 5), 60 * minutes)
    assert found[0].name == first
    assert sorted(each.name for each in found) == sorted(each.name for each in candidates)
