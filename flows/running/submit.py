"""A whole pipeline as a job: submitted, looked at, cancelled with everything it started."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines import storage
from data_pipelines.errors import UserError
from flows.config.pipeline import Config
from flows.doctor.servers import require_servers
from flows.cluster.jobs_api import AUTO, connect, is_loopback
from flows.cluster.package import CONFIG, digest_of_folder, packed
from flows.cluster.job import OWNER, PIPELINE, STAGE, Request, ensure_job, job_info

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STOP_SECONDS = 60.0
"""How long a cancelled job may take to end."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A line of ``unetflow status``."""

    job_id: str
    what: str
    """``pipeline NAME``, or the stage's name."""
    owner: str
    """Job id of the pipeline that a stage was started for; its own for a pipeline."""
    state: str
    seconds: float
    message: str


def submit_pipeline(config: Config, address: str, *, install: bool = False) -> tuple[JobSubmissionClient, str, bool]:
    """(client, job id, whether it is new): the same config and code while it runs is the same job."""
    client = connect(address)
    require_servers()
    _require_shared_storage(config, address)
    with packed(config) as folder:
        request = Request(
            name=f"{config.registry.name}-{digest_of_folder(folder)[:10]}",
            entrypoint=f"python -m flows.cli run {CONFIG} --json",
            metadata={PIPELINE: config.registry.name},
            variables={"UNETFLOW_JOBS_ADDRESS": AUTO},
            install=install,
        )
        return client, *ensure_job(client, request, folder)


def job_rows(client: JobSubmissionClient, job_id: str | None = None) -> list[JobRow]:
    """Pipelines, newest first, each followed by its stages; or one pipeline and its stages."""
    jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id and job.metadata}
    if job_id is not None and job_id not in jobs:
        job_info(client, job_id)  # raises, naming it
    pipelines = [job for job in jobs.values() if PIPELINE in job.metadata and job_id in (None, job.submission_id)]
    rows = []
    for pipeline in sorted(pipelines, key=lambda job: -(job.start_time or 0)):
        stages = [job for job in jobs.values() if job.metadata.get(OWNER) == pipeline.submission_id]
        rows += [_row(job) for job in (pipeline, *sorted(stages, key=lambda job: job.start_time or 0))]
    return rows


def cancel_pipeline(client: JobSubmissionClient, job_id: str) -> list[str]:
    """Stop the pipeline, then its stages, and wait until none runs; returns the ids of those that were stopped.

    Raises UserError where there is no such job, TimeoutError where one does not end.
    """
    job_info(client, job_id)
    stopped = _stop(client, [job_id])  # first, and until it has ended: it may be about to start a stage
    return stopped + _stop(client, [row.job_id for row in job_rows(client, job_id)])


def _stop(client: JobSubmissionClient, ids: Iterable[str]) -> list[str]:
    """Ids of those that ran, once none of them does."""
    running = [each for each in ids if not client.get_job_status(each).is_terminal()]
    for each in running:
        client.stop_job(each)
    deadline = time.monotonic() + STOP_SECONDS
    while left := [each for each in running if not client.get_job_status(each).is_terminal()]:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{', '.join(left)} did not end within {STOP_SECONDS:g} s; ask again, or look at the node"
            )
        time.sleep(0.5)
    return running


def _row(job: JobDetails) -> JobRow:
    metadata = job.metadata or {}
    end = job.end_time or int(time.time() * 1000)
    return JobRow(
        job_id=str(job.submission_id),
        what=f"pipeline {metadata[PIPELINE]}" if PIPELINE in metadata else metadata[STAGE],
        owner=metadata.get(OWNER, str(job.submission_id)),
        state=job.status.value.lower(),
        seconds=max(0.0, (end - (job.start_time or end)) / 1000),
        message=(job.message or "").split("\n")[0],
    )


def _require_shared_storage(config: Config, address: str) -> None:
    """Where nobody named a storage, the default is a folder of this machine, which another does not see."""
    if is_loopback(address) or config.storage or not storage.is_local(config.storage_uri):
        return
    raise UserError(
        f"{address} is another machine and {Path(config.storage_uri)} is a folder of this one: set `storage:` in the "
        "config (or UNETFLOW_STORAGE) to what both reach, such as s3://bucket/folder or a shared mount"
    )
