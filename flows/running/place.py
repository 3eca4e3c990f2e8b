"""Where a stage runs: in this process, or as a job of the cluster whose address is HTTP. One code path either way."""

from __future__ import annotations

import json
import os

from flows.config.pipeline import Config
from flows.cluster.jobs_api import jobs_address
from flows.running.execution import run_as_job
from flows.stages.stage import Done, Stage, run_stage


def run_in_place(stage: Stage, config: Config) -> Done:
    """The stage's record, found or computed."""
    address = jobs_address()
    if address is None:
        return run_stage(stage, config.storage_uri)
    return run_as_job(stage, config, address, owner=_own_job_id())


def _own_job_id() -> str:
    """Id of the pipeline's job that this process is, or empty."""
    described = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return str(described.get("metadata", {}).get("job_submission_id", ""))
