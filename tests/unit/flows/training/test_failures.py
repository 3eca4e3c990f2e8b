"""Failures of workers become one line each; those that a restart would only repeat keep their type and words."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from data_pipelines.errors import ConfigError, DataError, TrainingDiverged
from flows.training.failures import WorkersLostError, describe_failures, explain
from flows.training.progress import WriteReports

OUT_OF_MEMORY = OutOfMemoryError(
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: e9f68829d9"
    "dddbb1004629a785f3b5824d7ba149ae67676240ba27b8) was 8.10GB used / 23.54GB limit (0.344084)\n"
    "OOM kill reason: Memory usage 8682422272B exceeded threshold of 8189586432B (32.4% of 25276502016B limit)\n"
    "Top 10 memory users: PID\tMEM(GB)\tCOMMAND\n25612\t2.16\tray::RayTrainWorker\n"
)
"""As Ray 2.60 wrote it, without its middle."""
KILLED = "Worker unexpectedly exits with a connection error code 2. End of file."


def died(failure: Exception) -> Exception:
    """What Ray Train reports of a worker whose process ended."""
    return WorkerHealthCheckFailedError("A worker health check failed.", failure)


def lost(text: str) -> Exception:
    error = ActorDiedError()
    error.error_msg = text
    return died(error)


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (
            died(OUT_OF_MEMORY),
            "training worker 1 was killed: out of memory (its node 192.0.2.2 used 8.10 of 23.54 GB); use "
            "nodes with more memory, or lower compute.num_workers or compute.loader_processes, and it resumes from the "
            "last checkpoint; a lower train.micro_batch_size is another training, from its start",
        ),
        (lost(KILLED), "training worker 1 was killed, or crashed"),
        (lost("The actor died because its node has died."), "training worker 1 was lost with its node"),
        (died(NodeDiedError("the node died")), "training worker 1 was lost with its node"),
        (ValueError("first line\nsecond"), "training worker 1 failed: ValueError: first line"),
        (ValueError(), "training worker 1 failed: ValueError: no message"),
    ],
)
def test_a_failure_is_one_line(failure: Exception, line: str) -> None:
    assert describe_failures({1: failure}) == [line]


def test_errors_of_those_that_talked_with_a_dead_worker_say_nothing_more() -> None:
    failures = {0: RuntimeError("[gloo] Connection closed by peer"), 1: lost(KILLED)}
    assert describe_failures(failures) == ["training worker 1 was killed, or crashed"]
    told = explain(WorkerGroupError("an essay", failures))
    assert isinstance(told, WorkersLostError)
    assert str(told).startswith("training worker 1 was killed, or crashed. Ray's log files: /")


def test_a_gpu_whose_memory_is_too_small_is_a_users_mistake() -> None:
    """Ray's error of the same name is of a node, and says that the process was killed."""
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    told = explain(WorkerGroupError("an essay", {0: full}))
    assert isinstance(told, ConfigError)
    assert str(told).startswith(
        "the memory of a GPU is too small for this training: CUDA out of memory. Tried to allocate 2.00 GiB. Lower its "
        "micro_batch_size"
    )


def test_a_dead_controller_is_told_of() -> None:
    told = explain(OUT_OF_MEMORY)
    assert isinstance(told, WorkersLostError)
    assert str(told).startswith("the controller of the training was killed: out of memory (its node 192.0.2.2 used")


@pytest.mark.parametrize("bug", [WorkerGroupError("essay", {0: ValueError("a bug")}), ControllerError(ValueError())])
def test_a_bug_stays_what_it_is(bug: Exception) -> None:
    assert explain(bug) is bug


FINAL: list[Exception] = [
    ConfigError("a wrong field"),
    DataError([]),
    TrainingDiverged("the loss is NaN"),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("final", FINAL)
def test_what_a_restart_would_only_repeat_ends_the_training_at_once(tmp_path: Path, final: Exception) -> None:
    """An error that a callback raises ends Ray Train's controller, however many restarts are left."""
    failures: dict[int, Any] = {0: RuntimeError("[gloo] Connection closed by peer"), 1: final}
    with pytest.raises(type(final)) as raised:
        WriteReports(str(tmp_path / "reports")).after_exception(None, failures)
    assert raised.value is final
    assert explain(ControllerError(final)) is final
    assert explain(WorkerGroupError("an essay", failures)) is final
