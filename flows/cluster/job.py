"""One job: submitted unless it exists, followed to its end."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import NOT_RETRYABLE_EXIT_CODE, ConfigError, UserError
from flows.cluster.jobs_api import retry_connection
from flows.cluster.package import runtime_environment

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
FORGOTTEN = "A head that is restarted forgets its jobs: `unetflow submit CONFIG.yaml` again resumes what it finds"
DRIVER_MEMORY = 1 << 30
"""Bytes that the driver of a stage reserves on its node: Ray then places it like any work, where it would crowd the
head, and takes no CPU from the workers."""
PIPELINE_MEMORY = 1 << 28
"""Bytes that the driver of a pipeline reserves: it waits for the drivers of its stages, for which room must be left.
More than the heads of ``infra`` offer."""
PENDING_SECONDS = 60.0
"""Time after which a job that has not started is said to wait."""
STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
END_SECONDS = 15.0
"""Time that a stopped job has beyond the grace of a training: to tell Prefect and MLflow, and to remove its files."""
RAY_LINE = re.compile(
    r"^\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+.*(\tINFO |\tWARNING | I \d)|^Running entrypoint for job "
)
"""Lines that Ray writes about itself; ours begin with the time of day."""
PIPELINE_TAG, STAGE_TAG, OWNER_TAG = "unetflow.pipeline", "unetflow.stage", "unetflow.owner"
PREDICTION_TAG = "unetflow.prediction"
"""Metadata of jobs: a pipeline's model name; a stage's name, and the pipeline job it was started for; a prediction's
model."""


class JobFailedError(ChildProcessError):
    """A job ended without success for a reason that may pass: a node was lost, memory ran out."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that is to exist."""

    name: str
    """Its id without the number of the attempt."""
    entrypoint: str
    metadata: dict[str, str]
    variables: dict[str, str]
    """Environment variables beside the forwarded ones."""
    install: bool = False
    grace_seconds: float = 0.0
    """Time that a training in it may take to save a checkpoint when it is stopped."""
    memory: int = DRIVER_MEMORY
    """Bytes that its driver reserves."""


def stage_job_name(stage: str, key: str) -> str:
    """Return the name of the job that computes a stage: its id without the number of the attempt."""
    return f"{stage}-{key[:12]}"


def split_job_id(job_id: str) -> tuple[str, int]:
    """Split a job's id into its name and the number of the attempt; 0 where it has none."""
    name, _, number = job_id.rpartition("-")
    return (name, int(number)) if number.isdigit() else (job_id, 0)


def ensure_job(client: JobSubmissionClient, request: JobRequest, folder: Path) -> tuple[str, bool]:
    """Return (id, whether it is new): the attempt that waits or runs, else a new one with the ``packed`` folder."""
    attempts = sorted(_attempts(client, request.name), key=lambda found: found[0])
    if attempts and not attempts[-1][1].status.is_terminal():
        return str(attempts[-1][1].submission_id), False
    job_id = f"{request.name}-{attempts[-1][0] + 1 if attempts else 1}"
    # Ray kills a stopped job after three seconds.
    variables = request.variables | {STOP_VARIABLE: str(math.ceil(request.grace_seconds + END_SECONDS))}
    environment = runtime_environment(folder, variables, install=request.install)
    return job_id, retry_connection(lambda: _submit(client, job_id, request, environment), job_id)


def _submit(client: JobSubmissionClient, job_id: str, request: JobRequest, environment: dict[str, Any]) -> bool:
    """Submit the job; False where another process submitted the same a moment earlier."""
    try:
        client.submit_job(
            entrypoint=request.entrypoint,
            submission_id=job_id,
            runtime_env=environment,
            metadata=request.metadata,
            entrypoint_memory=request.memory,
        )
    except RuntimeError as error:
        if "already exists" in str(error):
            return False
        if "No available agent" in str(error):  # a cluster that has just started
            raise ConnectionError(f"{job_id}: no node of the cluster takes jobs yet") from None
        raise
    return True


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], None]) -> JobDetails:
    """Pass the job's output on until it has ended, and return its details. Survives a broken connection."""
    stop = threading.Event()
    tail = threading.Thread(target=_tail, args=(client, job_id, write, stop), name=f"tail-{job_id}", daemon=True)
    tail.start()
    waits_from = time.monotonic()
    try:
        while not (info := job_info(client, job_id)).status.is_terminal():
            if info.status == "PENDING" and time.monotonic() - waits_from > PENDING_SECONDS:
                logger.info(
                    "job %s has not started yet: %s", job_id, info.message or "it waits for room on the cluster"
                )
                waits_from = math.inf
            time.sleep(POLL_SECONDS)
        tail.join(timeout=10)  # the last lines
        write("\n")  # ends a line that was cut off
        return info
    finally:
        stop.set()


def job_info(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Return the cluster's details of a job. Raises ConfigError where there is no job of this id."""

    def ask() -> JobDetails:
        return client.get_job_info(job_id)

    try:
        return retry_connection(ask, job_id)
    except RuntimeError as error:
        if "404" in str(error) or "does not exist" in str(error):
            raise ConfigError(
                f"{job_id}: the cluster has no such job; `unetflow status` lists those it has. {FORGOTTEN}"
            ) from None
        raise


def stop_seconds(info: JobDetails) -> float:
    """Return how long the cluster waits for a stopped job to end by itself."""
    return float(((info.runtime_env or {}).get("env_vars") or {}).get(STOP_VARIABLE, END_SECONDS))


def require_success(info: JobDetails) -> None:
    """Raise UserError for a failure that a retry repeats, JobFailedError for any other."""
    if info.status.value == "SUCCEEDED":
        return
    first, *_ = (info.message or "").split(", last available logs")
    text = f"job {info.submission_id} {info.status.value.lower()}: {first}; see its output above"
    if "No module named" in (info.message or ""):
        text += (
            ". The `python` of the node that ran it lacks the packages: start Ray there with its environment on PATH, "
            "or submit with --install"
        )
    raise UserError(text) if info.driver_exit_code == NOT_RETRYABLE_EXIT_CODE else JobFailedError(text)


class Relay:
    """Copies a job's output to stderr, line by line, without Ray's own lines; keeps the result, one JSON object."""

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None
        self._rest = ""

    def __call__(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if RAY_LINE.match(line) or not line.strip():
                continue
            if line.startswith("{"):
                with suppress(ValueError):
                    self.result = json.loads(line)
                    continue
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _attempts(client: JobSubmissionClient, name: str) -> Iterator[tuple[int, JobDetails]]:
    for job in retry_connection(client.list_jobs, name):
        base, attempt = split_job_id(job.submission_id or "")
        if base == name and attempt:
            yield attempt, job


def _tail(client: JobSubmissionClient, job_id: str, write: Callable[[str], None], stop: threading.Event) -> None:
    """Each connection begins at the start of the log: what was passed on before is skipped."""
    written = 0

    async def once() -> None:
        nonlocal written
        seen = 0
        async for chunk in client.tail_job_logs(job_id):
            if stop.is_set():
                return
            fresh = chunk[max(0, written - seen) :]
            seen += len(chunk)
            if fresh:
                written = seen
                write(fresh)

    while not stop.is_set():
        with suppress(Exception):  # the status is what counts; the log is tried again
            asyncio.run(once())
            return
        stop.wait(POLL_SECONDS)
