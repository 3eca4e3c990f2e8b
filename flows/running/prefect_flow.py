"""Pipelines as Prefect flows: each stage a task with retries, a time limit, a readable name and artifacts.

Every pipeline of the catalog is an attribute of this module, ``NAME_flow``: deployments name their flow by module and
attribute.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import Any

from flows.running import prefect_settings  # isort: skip - before Prefect, which reads settings at import

from prefect import Flow, flow, runtime, tags, task
from prefect.context import TagsContext
from prefect.settings import get_current_settings
from prefect.tasks import exponential_backoff

from data_pipelines.errors import NOT_RETRYABLE
from flows.cluster.connection import import_ray
from flows.config.environment import environment
from flows.config.loopback import require_loopback
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import RUN_ID_VARIABLE, current_run_id, unique_name
from flows.doctor.servers import require_servers
from flows.pipelines.catalog import PIPELINES, pipeline_of
from flows.registry import tracking
from flows.running.artifacts import leave_artifacts
from flows.running.automation import TAG, try_automation
from flows.running.execution import RunSummary, run_pipeline
from flows.running.notify import notify_of_champion, notify_of_failure
from flows.running.placement import run_or_submit
from flows.stages.pipeline import Pipeline
from flows.stages.record import Figures
from flows.stages.stage import Done, Stage

logger = logging.getLogger(__name__)


def build_flow(pipeline: Pipeline) -> Flow[[PipelineConfig], RunSummary]:
    """Build the flow of a pipeline; its parameter is the pipeline's configuration."""

    def run(config: PipelineConfig) -> RunSummary:
        return _run(config)

    # Prefect's form and validation follow the annotation, its entry points the names.
    run.__annotations__["config"] = pipeline.config
    run.__name__ = run.__qualname__ = f"{pipeline.name}_flow"
    return flow(
        name=pipeline.name,
        flow_run_name="{config.registry.name}",
        description=f"{pipeline.config.__doc__}\n\nStages: {', '.join(pipeline.step_names)}.",
    )(run)


FLOWS = {name: build_flow(pipeline) for name, pipeline in PIPELINES.items()}
globals().update({f"{name}_flow": each for name, each in FLOWS.items()})


def run_flow(config: PipelineConfig) -> RunSummary:
    """Run the flow of the pipeline that ``config`` belongs to."""
    require_servers()
    if not os.environ.get("PREFECT_API_URL"):
        # Imports Prefect's server, which takes seconds, and which Prefect then starts.
        from flows.running.temporary_server import watch_temporary_servers

        watch_temporary_servers()
        require_loopback()
    # Prefect's temporary server takes seconds to start, in a process of its own: time for what stages will import.
    ahead = threading.Thread(target=_import_ahead, args=(config.storage_uri,), name="import-ahead", daemon=True)
    ahead.start()
    try:
        with environment({RUN_ID_VARIABLE: current_run_id() or unique_name()}), tags(TAG, f"run:{current_run_id()}"):
            return build_flow(pipeline_of(config))(config)
    finally:
        ahead.join()  # an interpreter that ends in the middle of an import crashes


def _import_ahead(root: str) -> None:
    with suppress(Exception):  # a stage that needs it will fail with the reason
        import_ray()
        tracking.import_mlflow(tracking.tracking_uri(root))


def _run(config: PipelineConfig) -> RunSummary:
    _check_heartbeat()
    try_automation()
    try:
        # A scheduled run has the id that Prefect gave it.
        with environment({RUN_ID_VARIABLE: current_run_id() or str(runtime.flow_run.id)}):
            summary = run_pipeline(config, run=run_as_task)
    except BaseException as error:
        page = runtime.flow_run.ui_url or ""
        notify_of_failure(config.notify, config.registry.name, f"{type(error).__name__}: {error}", page)
        raise
    notify_of_champion(config.notify, summary)
    return summary


def _check_heartbeat() -> None:
    """Warn where Prefect had read another heartbeat before this module was imported, as a worker of a pool does."""
    seconds = get_current_settings().flows.heartbeat_frequency
    if seconds is not None and seconds > prefect_settings.MAX_HEARTBEAT_SECONDS:
        logger.warning(
            "this run sends a heartbeat every %d s, and counts as crashed after %d s without one: set %s=%d in the "
            "deployment's job_variables.env, as infra/prefect.yaml does",
            seconds,
            prefect_settings.UNRESPONSIVE_SECONDS,
            prefect_settings.HEARTBEAT,
            prefect_settings.HEARTBEAT_SECONDS,
        )


def is_worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Tell Prefect, and the user, whether a retry may help: a mistake in the data or the configuration stays one."""
    try:
        state.result()
    except NOT_RETRYABLE:
        return False
    except BaseException as error:  # anything else may succeed next time
        logger.warning("%s failed, retrying: %s", task.name, error)
        return True
    return False


def run_as_task(stage: Stage[Figures], config: PipelineConfig) -> Done[Figures]:
    """Run a stage as a Prefect task of the current flow."""
    compute = config.compute

    @task(
        name=stage.name,
        task_run_name=f"{stage.name}-{stage.key[:8]}",
        retries=compute.retries,
        retry_delay_seconds=exponential_backoff(compute.retry_delay_seconds),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_worth_retrying,
        timeout_seconds=compute.timeout_seconds,
        # For a limit on how many stages use GPUs at once. Every tag costs a second of asking for a slot: the run's own
        # is not passed on.
        tags=["gpu"] if compute.use_gpu and stage.uses_gpu else [],
        persist_result=False,
        log_prints=False,
    )
    def run() -> Done[Figures]:
        done = run_or_submit(stage, config)
        leave_artifacts(done.record)
        return done

    with TagsContext(current_tags=set()):
        return run()
