"""Groups of workers one after the other: which ends are followed by another group, and when a group should grow."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.config.specs import ComputeSpec
from flows.training import groups
from flows.training.failures import WorkersLostError
from flows.training.groups import GROW_SECONDS, Growth, WorkerGroups
from flows.training.history import Start
from flows.training.stop import StopFile, Stopped, StopReason
from tests.support.signals import DeliveredError, delivered_signals

MAIN = threading.main_thread().ident or 0
END = threading.Event()
"""Ends threads that are stuck."""


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    with delivered_signals():
        yield


@dataclass
class Listened:
    """What the reports of the workers would tell."""

    name: str = "train"
    start: Start = field(default_factory=lambda: Start(step=0, num_workers=2))
    is_training: bool = True


def groups_of(
    tmp_path: Path,
    *bodies: Callable[[WorkerGroups], Stopped | None],
    grace: float = 30.0,
    num_workers: int | tuple[int, int] = 2,
    built: list[int | tuple[int, int]] | None = None,
) -> WorkerGroups:
    """Groups whose trainers run the given functions, in this order; their numbers of workers go to ``built``."""
    waiting, built = list(bodies), [] if built is None else built

    def build(compute: ComputeSpec) -> Any:
        built.append(compute.num_workers)
        body = waiting.pop(0)

        def fit() -> Any:
            stopped = body(found)
            return SimpleNamespace(return_value=stopped and stopped.model_dump_json())

        found.listener.is_training = True
        return SimpleNamespace(fit=fit)

    listener: Any = Listened()
    compute = ComputeSpec(stop_grace_seconds=grace, num_workers=num_workers)
    found = WorkerGroups(listener, compute, StopFile(tmp_path / "stop"), build)
    return found


def stops(step: int, reason: StopReason, *nodes: str) -> Callable[[WorkerGroups], Stopped]:
    return lambda _: Stopped(step=step, reason=reason, drained_nodes=nodes)


def ends(_: WorkerGroups) -> None:
    """Train to the last step."""


def test_announced_ends_are_followed_by_another_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "own_node_id", lambda: "mine")
    monkeypatch.setattr(groups, "count_places", lambda resources: 1)
    several = groups_of(
        tmp_path,
        stops(3, StopReason.WORKER_SIGTERM),
        stops(5, StopReason.NODE_DRAINED, "other"),
        stops(8, StopReason.MORE_WORKERS),
        ends,
    )
    several.stop.ask(StopReason.MORE_WORKERS)
    several.run()
    assert [record.getMessage() for record in caplog.records] == [
        "train: checkpoint at step 3: a training worker received SIGTERM; training continues",
        "train: checkpoint at step 5: Ray is about to take a node away; training continues",
        "train: checkpoint at step 8: the cluster has room for more workers; training continues",
    ]
    assert several.stop.read() is StopReason.NONE, "else the next group stops, too"


@pytest.mark.parametrize(
    ("num_workers", "places", "expected"),
    [((1, 4), 3, (1, 3)), ((1, 4), 1, 1), ((1, 4), 4, (1, 4)), ((2, 4), 1, (2, 4)), (2, 1, 2)],
)
def test_a_group_after_a_drained_node_does_not_wait_for_workers_there(
    tmp_path: Path,
    num_workers: int | tuple[int, int],
    places: int,
    expected: int | tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the one after that may have all again."""
    monkeypatch.setattr(groups, "own_node_id", lambda: "mine")
    monkeypatch.setattr(groups, "count_places", lambda resources: {1.0: places}[resources["CPU"]])
    built: list[int | tuple[int, int]] = []
    drained, grown = stops(5, StopReason.NODE_DRAINED, "other"), stops(8, StopReason.MORE_WORKERS)
    groups_of(tmp_path, drained, grown, ends, num_workers=num_workers, built=built).run()
    assert built == [num_workers, expected, num_workers]


def test_a_run_on_the_node_that_is_taken_away_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "own_node_id", lambda: "mine")
    with pytest.raises(WorkersLostError, match=r"stopped at step 5: .* the same command resumes from there"):
        groups_of(tmp_path, stops(5, StopReason.NODE_DRAINED, "mine")).run()


def wait_for_request(found: WorkerGroups) -> Stopped:
    """Workers that stop when they are asked to."""
    while found.stop.read() is StopReason.NONE:
        pass
    return Stopped(step=7, reason=found.stop.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_checkpoint(
    tmp_path: Path, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    def signalled(found: WorkerGroups) -> Stopped:
        signal.pthread_kill(MAIN, number)
        return wait_for_request(found)

    with pytest.raises(DeliveredError):
        groups_of(tmp_path, signalled).run()
    assert caplog.messages == [
        f"train: {number.name}: saving a checkpoint, within 30 s; another signal ends at once",
        f"train: stopped at step 7 by {number.name}; the same command resumes from there",
    ]


@pytest.mark.parametrize(("grace", "is_training"), [(0.0, True), (30.0, False)])
def test_nothing_is_waited_for_without_grace_or_before_the_first_step(
    tmp_path: Path, grace: float, is_training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "REPORT_SECONDS", 0.0)

    def stuck(found: WorkerGroups) -> None:
        found.listener.is_training = is_training
        signal.pthread_kill(MAIN, signal.SIGTERM)
        END.wait()

    with pytest.raises(DeliveredError):
        groups_of(tmp_path, stuck, grace=grace).run()
    END.set()


def test_a_group_grows_when_there_is_room_and_less_often_where_it_did_not_help() -> None:
    clock, free, asked = [0.0], [0], []

    def count_free(resources: dict[str, float]) -> int:
        asked.append(json.dumps(resources))
        return free[0]

    growth = Growth(ComputeSpec(num_workers=(1, 2), threads_per_worker=3), count_free, lambda: clock[0])

    def due_at(intervals: float, num_workers: int = 1) -> bool:
        clock[0] = intervals * GROW_SECONDS
        return growth.is_due(num_workers)

    free[0] = 1
    assert not due_at(0), "the group has just started"
    assert not due_at(0.9)
    assert asked == []
    assert due_at(1)
    assert asked == ['{"CPU": 3.0}']
    assert [due_at(time) for time in (1.5, 2.9, 3.1)] == [False, False, True]
    assert [due_at(time) for time in (5, 7)] == [False, False]
    assert not due_at(8, num_workers=2)
    assert [due_at(time) for time in (9, 9.5, 10)] == [False, False, True], "as at first, after it had grown"
    free[0] = 0
    assert not due_at(13)
