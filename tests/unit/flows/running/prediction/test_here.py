"""Items are mapped in threads of this process, as many at once as asked for."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from data_pipelines.errors import ConfigError
from flows.config.specs import ComputeSpec
from flows.running.prediction.here import map_here, runs_here

ONE = ComputeSpec(num_workers=1)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")


def test_one_worker_without_a_cluster_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_here(ONE)
    assert not runs_here(ComputeSpec(num_workers=2))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not runs_here(ONE)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_every_item_is_mapped_and_so_many_at_once(calls: int) -> None:
    """Each call waits for as many others as may run beside it."""
    together = threading.Barrier(calls, timeout=20)
    names = set()

    def call(item: dict[str, Any]) -> dict[str, Any]:
        together.wait()
        names.add(threading.current_thread().name)
        return {"twice": 2 * item["number"]}

    found = map_here(call, [{"number": number} for number in range(6)], ONE, calls)
    assert sorted(row["twice"] for row in found) == [0, 2, 4, 6, 8, 10]
    assert len(names) == calls
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_nothing_more_is_begun_where_the_caller_stops() -> None:
    begun, go_on = [], threading.Event()

    def call(item: dict[str, Any]) -> dict[str, Any]:
        begun.append(item)
        assert len(begun) == 1 or go_on.wait(20)
        return item

    rows = map_here(call, [{"number": number} for number in range(9)], ONE, 1)
    next(rows)
    rows.close()  # type: ignore[attr-defined]  # a generator
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "predict-0":
            thread.join(20)
    assert len(begun) <= 2


def test_a_gpu_that_is_not_there_is_not_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--gpu: torch finds no GPU here"):
        list(map_here(lambda item: item, [{"a": 1}], ComputeSpec(num_workers=1, use_gpu=True), 1))


def test_a_gpu_that_was_asked_for_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert list(map_here(lambda item: item, [{"a": 1}], ComputeSpec(num_workers=1, use_gpu=True), 2)) == [{"a": 1}]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
