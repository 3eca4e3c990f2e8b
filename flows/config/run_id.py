"""Id of a run: one for all stages of a pipeline, in the console, MLflow, Prefect and the metadata of jobs."""

from __future__ import annotations

import os
import re
import time
import uuid

RUN_ID_VARIABLE = "UNETFLOW_RUN_ID"
"""Environment variable by which the processes of a run know its id."""
RUN_TAG = "unetflow.run_id"
"""Tag of an MLflow run and a model version, and metadata of a job: the id of the run."""
UNIQUE_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
"""The names that ``unique_name`` returns; the garbage collection removes folders by it."""


def unique_name() -> str:
    """Return a new name that sorts by time: ``20260101-020000-a1b2c3``."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def current_run_id() -> str:
    """Return the id of the run that this process belongs to; empty outside a run."""
    return os.environ.get(RUN_ID_VARIABLE, "")


def run_tags() -> dict[str, str]:
    """Return the tag with the id of the run that this process belongs to; none outside a run."""
    return {RUN_TAG: run_id} if (run_id := current_run_id()) else {}
