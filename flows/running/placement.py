"""Run a stage in this process, or as a job of the cluster whose address is HTTP. One code path either way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TypeVar

from data_pipelines.errors import ConfigError
from flows.cluster.job import (
    OWNER_TAG,
    STAGE_TAG,
    JobRequest,
    Relay,
    ensure_job,
    follow,
    require_success,
    stage_job_name,
)
from flows.cluster.jobs_api import connect, jobs_address
from flows.cluster.package import CONFIG, INSTALL_VARIABLE, packed
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import RUN_ID_VARIABLE, RUN_TAG, current_run_id
from flows.pipelines.catalog import pipeline_of
from flows.running.exporter import serve_metrics
from flows.stages.context import context_of
from flows.stages.record import Figures
from flows.stages.stage import Done, Stage, find_record, run_stage

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Figures)


def run_or_submit(stage: Stage[F], config: PipelineConfig) -> Done[F]:
    """Return the stage's record: a cache hit, computed here, or computed by a job."""
    address = jobs_address()
    if address is None:
        with serve_metrics():
            return run_stage(stage, config.storage_uri, context_of(config))
    return run_as_job(stage, config, address, owner=_own_job_id())


def run_as_job(stage: Stage[F], config: PipelineConfig, address: str, owner: str) -> Done[F]:
    """Return the stage's record: a cache hit, or made by one job of the cluster, which every caller follows."""
    root = config.storage_uri
    if found := find_record(stage, root):
        logger.info("%s: cache hit (%s)", stage.name, stage.key[:12])
        return Done(found, cached=True)
    client = connect(address)
    entry_module = pipeline_of(config).entry_module
    request = JobRequest(
        name=stage_job_name(stage.name, stage.key),
        entrypoint=f"python -m {entry_module} stage {stage.name} {CONFIG} --key {stage.key}",
        metadata={STAGE_TAG: stage.name, OWNER_TAG: owner, RUN_TAG: current_run_id()},
        variables={RUN_ID_VARIABLE: current_run_id()},
        install=bool(os.environ.get(INSTALL_VARIABLE)),
        grace_seconds=config.compute.stop_grace_seconds,
    )
    with packed(config, entry_module) as folder:
        job_id, new = ensure_job(client, request, folder)
    logger.info("%s: job %s %s", stage.name, job_id, "submitted" if new else "exists already, following it")
    try:
        require_success(follow(client, job_id, Relay()))
    except asyncio.CancelledError:  # of Prefect, where compute.timeout_seconds are over
        logger.warning("%s: job %s did not end within compute.timeout_seconds, stopping it", stage.name, job_id)
        client.stop_job(job_id)
        raise
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, a cancelled flow run
            logger.warning(
                "%s: job %s continues on the cluster: the same command follows it, `unetflow cancel %s` stops it",
                stage.name,
                job_id,
                job_id,
            )
        raise
    if (record := find_record(stage, root)) is None:
        raise ConfigError(
            f"job {job_id} succeeded, but {stage.uri(root)} holds no record of it: name a storage that "
            "both this process and the cluster reach (`storage:` or UNETFLOW_STORAGE, such as s3://bucket/folder), and "
            "let nobody change the raw data while the pipeline runs"
        )
    return Done(record, cached=False)


def _own_job_id() -> str:
    """Return the id of the pipeline's job that this process is; empty where it is none."""
    described = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return str(described.get("metadata", {}).get("job_submission_id", ""))
