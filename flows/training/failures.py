"""Failures of training workers, in words for users, and which of them a restart would only repeat."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from data_pipelines.errors import NOT_RETRYABLE, ConfigError, first_line
from flows.cluster.folders import log_folder
from flows.training.space import is_full

_OUT_OF_MEMORY = re.compile(r"Memory on the node \(IP: ([^,)]+)[^)]*\) was ([\d.]+) ?GB used / ([\d.]+) ?GB")
_NODE_LOST = re.compile(r"node (has died|is dead|was dead|died)|node failure|its node", re.IGNORECASE)
_DEATHS = ("ActorDiedError", "ActorUnavailableError", "OutOfMemoryError", "WorkerCrashedError", "NodeDiedError")


class WorkersLostError(ChildProcessError):
    """Training workers ended too often for a reason that may pass: a node was lost, memory ran out."""


def final_error(failures: Iterable[Exception]) -> Exception | None:
    """Return the failure that a restart would only repeat, if any: a user's mistake, a divergence, a full disk."""
    return next((each for each in failures if isinstance(each, NOT_RETRYABLE) or is_full(each)), None)


def _fills_gpu(error: Exception) -> bool:
    """Tell whether torch found no memory on a GPU. (Ray's error of this name is of a node's memory.)"""
    return type(error).__name__ == "OutOfMemoryError" and type(error).__module__.partition(".")[0] == "torch"


def explain(error: Exception) -> Exception:
    """Return what Ray Train's error means: a final one of a worker, WorkersLostError, or the error as it is.

    Too little memory of a GPU, where restarts found no more either, is a ConfigError.
    """
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    controller: Exception = getattr(error, "controller_failure", error)
    if (final := final_error([controller, *failures.values()])) is not None:
        return final  # keeps its type and words, so that it is not retried
    if (full := next(filter(_fills_gpu, failures.values()), None)) is not None:
        return ConfigError(
            f"the memory of a GPU is too small for this training: {first_line(full)} Lower its micro_batch_size, "
            "patch_size or global_batch_size, set its precision to bf16, or use larger GPUs"
        )
    if lines := [describe_failure(rank, each) for rank, each in failures.items() if is_death(each)]:
        return WorkersLostError(f"{'; '.join(lines)}. Ray's log files: {log_folder()}")
    if is_death(controller):
        return WorkersLostError(f"{_describe('the controller of the training', controller)}. Log files: {log_folder()}")
    return error


def is_death(error: Exception) -> bool:
    """Tell whether a process ended, rather than its code failed."""
    kind = type(_cause(error))
    return kind.__name__ in _DEATHS and kind.__module__.partition(".")[0] == "ray"


def describe_failures(failures: Mapping[int, Exception]) -> list[str]:
    """Return a line per failed worker; where one died, errors of those that talked with it say nothing more."""
    dead = {rank: error for rank, error in failures.items() if is_death(error)}
    return [describe_failure(rank, error) for rank, error in sorted((dead or failures).items())]


def describe_failure(rank: int, error: Exception) -> str:
    """Return one line about the failure of a worker."""
    return _describe(f"training worker {rank}", error)


def _describe(who: str, error: Exception) -> str:
    error = _cause(error)
    text = str(error)
    if memory := _OUT_OF_MEMORY.search(text):
        node, used, total = memory.groups()
        return (
            f"{who} was killed: out of memory (its node {node} used {used} of {total} GB); use nodes "
            "with more memory, or lower compute.num_workers or compute.loader_processes, and it resumes from the last "
            "checkpoint; a lower train.micro_batch_size is another training, from its start"
        )
    if not is_death(error):
        return f"{who} failed: {type(error).__name__}: {first_line(error)}"
    if _NODE_LOST.search(text):
        return f"{who} was lost with its node"
    return f"{who} was killed, or crashed"


def _cause(error: Exception) -> Exception:
    """Return what a failed health check of Ray Train found."""
    found: Exception = getattr(error, "health_check_failure", error)
    return found
