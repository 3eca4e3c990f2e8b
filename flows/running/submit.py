"""A whole pipeline as a job: submitted, listed, cancelled with everything it started.

A pipeline is a job that runs the steps; each of its stages is a job of its own, named by the stage's key. A retry, or
the same pipeline submitted again, follows the job that exists.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from flows.cluster.job import (
    OWNER_TAG,
    PIPELINE_MEMORY,
    PIPELINE_TAG,
    STAGE_TAG,
    JobRequest,
    ensure_job,
    job_info,
    split_job_id,
    stop_seconds,
)
from flows.cluster.jobs_api import AUTO, connect, is_loopback
from flows.cluster.package import CONFIG, CREDENTIALS, INSTALL_VARIABLE, folder_digest, packed
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import RUN_ID_VARIABLE, RUN_TAG, current_run_id, unique_name
from flows.doctor.servers import require_servers
from flows.pipelines.catalog import pipeline_of
from flows.stages.status import StageStatus

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

logger = logging.getLogger(__name__)

STOP_SECONDS = 60.0
"""Time that a cancelled job may take to end, beyond what the cluster waits before it kills the job."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A line of ``unetflow status``."""

    job_id: str
    what: str
    """``pipeline NAME``, the stage's name, ``STAGE of NAME`` without a job, or ``schedule NAME``."""
    owner: str
    """Job id of the pipeline that a stage was started for; its own for a pipeline."""
    state: str
    seconds: float
    message: str
    run_id: str = ""
    place: Literal["job", "local", "schedule"] = "job"
    """Job of a cluster, process of this storage, or deployment of a Prefect server."""
    progress: StageStatus | None = None
    """Progress of a stage; None where it is not known, as on an object store."""


def submit_pipeline(
    config: PipelineConfig, address: str, *, install: bool = False
) -> tuple[JobSubmissionClient, str, bool]:
    """Return (client, job id, whether it is new): the same configuration and code while it runs is the same job."""
    client = connect(address)
    require_servers()
    _check_storage(config, address)
    if kept := [name for name in CREDENTIALS if name in os.environ]:
        logger.info("%s: not sent, jobs use the credentials of their nodes", ", ".join(kept))
    entry_module = pipeline_of(config).entry_module
    run_id = current_run_id() or unique_name()
    with packed(config, entry_module) as folder:
        request = JobRequest(
            name=f"{config.registry.name}-{folder_digest(folder)[:10]}",
            entrypoint=f"python -m {entry_module} run {CONFIG} --json",
            metadata={PIPELINE_TAG: config.registry.name, RUN_TAG: run_id},
            variables={"UNETFLOW_JOBS_ADDRESS": AUTO, RUN_ID_VARIABLE: run_id}
            | ({INSTALL_VARIABLE: "1"} if install else {}),
            install=install,
            memory=PIPELINE_MEMORY,
        )
        return client, *ensure_job(client, request, folder)


def list_jobs(client: JobSubmissionClient, job_id: str | None = None) -> list[JobRow]:
    """List pipelines, newest first, each followed by its stages; or one pipeline and its stages."""
    jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id and job.metadata}
    if job_id is not None and job_id not in jobs:
        job_info(client, job_id)  # raises, naming it
    pipelines = [job for job in jobs.values() if PIPELINE_TAG in job.metadata and job_id in (None, job.submission_id)]
    rows = []
    for pipeline in sorted(pipelines, key=lambda job: -(job.start_time or 0)):
        stages = [job for job in jobs.values() if job.metadata.get(OWNER_TAG) == pipeline.submission_id]
        rows += [_row(job) for job in (pipeline, *sorted(stages, key=lambda job: job.start_time or 0))]
    if job_id is None:  # of `unetflow run` or a flow run somewhere else
        others = [job for job in jobs.values() if STAGE_TAG in job.metadata and not job.metadata.get(OWNER_TAG)]
        rows += [_row(job) for job in others if not job.status.is_terminal()]
    return rows


def cancel_pipeline(client: JobSubmissionClient, job_id: str) -> list[str]:
    """Stop the pipeline, then its stages, and wait until none runs; return the ids of those that were stopped.

    Raises ConfigError where there is no such job, TimeoutError where one does not end.
    """
    job_info(client, job_id)
    stopped = _stop(client, [job_id])  # first, and until it has ended: it may be about to start a stage
    return stopped + _stop(client, list(_stage_ids(client, job_id)))


def _stage_ids(client: JobSubmissionClient, job_id: str) -> Iterator[str]:
    """Yield the jobs of a pipeline's stages: it follows those that an earlier attempt, which died, has started."""
    base, attempt = split_job_id(job_id)
    for job in client.list_jobs():
        owner, number = split_job_id((job.metadata or {}).get(OWNER_TAG, ""))
        if job.submission_id and owner and owner == base and number <= attempt:
            yield job.submission_id


def _stop(client: JobSubmissionClient, ids: Iterable[str]) -> list[str]:
    """Stop those that run, and wait; return their ids."""
    running = [each for each in ids if not client.get_job_status(each).is_terminal()]
    for each in running:
        client.stop_job(each)
    seconds = STOP_SECONDS + max((stop_seconds(job_info(client, each)) for each in running), default=0.0)
    deadline = time.monotonic() + seconds
    while left := [each for each in running if not client.get_job_status(each).is_terminal()]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{', '.join(left)} did not end within {seconds:g} s; ask again, or look at the node")
        time.sleep(0.5)
    return running


def _row(job: JobDetails) -> JobRow:
    metadata = job.metadata or {}
    end = job.end_time or int(time.time() * 1000)
    return JobRow(
        job_id=str(job.submission_id),
        what=f"pipeline {metadata[PIPELINE_TAG]}" if PIPELINE_TAG in metadata else metadata[STAGE_TAG],
        owner=metadata.get(OWNER_TAG) or str(job.submission_id),
        state=job.status.value.lower(),
        seconds=max(0.0, (end - (job.start_time or end)) / 1000),
        message=(job.message or "").split("\n")[0],
        run_id=metadata.get(RUN_TAG, ""),
    )


def _check_storage(config: PipelineConfig, address: str) -> None:
    """Without a configured storage the default is a folder of this machine, which another does not see."""
    named = config.storage or os.environ.get("UNETFLOW_STORAGE")
    if is_loopback(address) or named or not storage.is_local(config.storage_uri):
        return
    raise ConfigError(
        f"{address} is another machine and {Path(config.storage_uri)} is a folder of this one: set `storage:` in the "
        "config (or UNETFLOW_STORAGE) to what both reach, such as s3://bucket/folder or a shared mount"
    )
