"""One list of what runs: stages of this storage, jobs of a cluster, schedules of a Prefect server."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from flows.cluster.job import split_job_id, stage_job_name
from flows.doctor.servers import prefect_server
from flows.running.automation import TAG
from flows.running.submit import JobRow
from flows.stages.lock import try_lock
from flows.stages.record import RECORD
from flows.stages.status import StageStatus, find_statuses

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

logger = logging.getLogger(__name__)

NUM_RUNS = 20
"""Flow runs of a deployment that are looked through: those that run, and the next ones."""


def list_local(root: str) -> list[JobRow]:
    """List stages of the storage ``root`` that are computed, and those whose process ended before they were done."""
    rows = []
    for status in find_statuses(root):
        stage_uri = storage.join(root, status.stage, status.key)
        with try_lock(stage_uri) as is_free:
            is_running = not is_free
        if is_running or storage.size(storage.join(stage_uri, RECORD)) is None:  # else it died once it was done
            rows.append(_local_row(status, is_running=is_running))
    return rows


def join_progress(jobs: Sequence[JobRow], local: Sequence[JobRow]) -> list[JobRow]:
    """Add the progress of stages to their jobs; stages without a job follow."""
    by_name = {stage_job_name(row.progress.stage, row.progress.key): row for row in local if row.progress}
    joined = []
    for job in jobs:
        status = by_name.pop(split_job_id(job.job_id)[0], None) if job.state == "running" else None
        joined.append(job if status is None else replace(job, progress=status.progress))
    return joined + list(by_name.values())


def list_schedules() -> list[JobRow]:
    """List the deployments of ``PREFECT_API_URL``, if any, with the run that runs or else the next one."""
    if (server := prefect_server()) is None:
        return []
    if problem := server.problem():
        logger.warning("schedules are not listed: %s: %s; %s", server.name, problem.text, problem.remedy)
        return []
    import flows.running.prefect_settings  # noqa: F401 # isort: skip - before Prefect
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        deployments = client.read_deployments(
            deployment_filter=filters.DeploymentFilter(tags=filters.DeploymentFilterTags(all_=[TAG]))
        )
        rows = []
        for deployment in deployments:
            runs = client.read_flow_runs(
                flow_run_filter=filters.FlowRunFilter(
                    deployment_id=filters.FlowRunFilterDeploymentId(any_=[deployment.id]),
                    state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=_STATES)),
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                limit=NUM_RUNS,
            )
            rows.append(schedule_row(deployment.name, deployment.paused, runs))
    return rows


_STATES: Any = ["RUNNING", "PENDING", "SCHEDULED"]


def schedule_row(name: str, paused: bool, runs: Sequence[FlowRun]) -> JobRow:
    """Build the row of a deployment from its runs that run or are to come, earliest first."""
    running = next((run for run in runs if run.state_type and run.state_type.value == "RUNNING"), None)
    coming = next((run for run in runs if run is not running and run.expected_start_time), None)
    state, message = "paused" if paused else "idle", ""
    if coming is not None and coming.expected_start_time is not None and not paused:
        state, message = "waiting", f"next run {coming.expected_start_time.astimezone():%Y-%m-%d %H:%M}"
    if running is not None:
        state, message = "running", f"run {running.name}"
    seconds = running.total_run_time.total_seconds() if running is not None else 0.0
    return JobRow(name, f"schedule {name}", name, state, seconds, message, place="schedule")


def _local_row(status: StageStatus, *, is_running: bool) -> JobRow:
    state = "running" if is_running else "stopped"
    message = "" if is_running else f"stopped at step {status.step}" if status.num_steps else "stopped"
    seconds = (time.time() if is_running else status.updated) - status.started
    return JobRow(
        job_id=status.run_id or status.key[:12],
        what=f"{status.stage} of {status.model}" if status.model else status.stage,
        owner=status.run_id or status.key[:12],
        state=state,
        seconds=max(0.0, seconds),
        message=message,
        place="local",
        progress=status,
    )
