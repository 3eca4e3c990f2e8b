"""The pipelines as Prefect flows: each stage a task with retries, a time limit, a readable name and artifacts."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.config.pipeline import Config
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.config.locations import state_folder


def set_prefect_defaults() -> None:
    """Before Prefect is imported: its files go to the user's state folder, and it tells nobody about this run."""
    defaults = {
        "PREFECT_HOME": str(state_folder() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # its database is made at the first start
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,data_pipelines,unet_models",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # its server cannot make its parents


set_prefect_defaults()

from prefect import flow, runtime, task  # noqa: E402 - its settings are read at import
from prefect.artifacts import create_link_artifact, create_markdown_artifact  # noqa: E402
from prefect.tasks import exponential_backoff  # noqa: E402

from data_pipelines import storage  # noqa: E402
from data_pipelines.errors import MISTAKES  # noqa: E402
from flows.registry import tracking  # noqa: E402
from flows.cluster.connection import import_ray  # noqa: E402
from flows.doctor.servers import require_servers  # noqa: E402
from flows.running.notify import report_link, tell_of_champion, tell_of_failure  # noqa: E402
from flows.running.execution import Pipeline  # noqa: E402
from flows.running.execution import run_in_place  # noqa: E402
from flows.stages.stage import Done, Stage  # noqa: E402
from flows.stages.record import Record  # noqa: E402

logger = logging.getLogger(__name__)


@flow(name="segmentation", flow_run_name="{config.registry.name}")
def segmentation_flow(config: SegmentationConfig) -> dict[str, Any]:
    """Raw volumes to a registered segmentation model."""
    return _run(config)


@flow(name="diffusion", flow_run_name="{config.registry.name}")
def diffusion_flow(config: DiffusionConfig) -> dict[str, Any]:
    """Captioned images to a registered text-to-image model."""
    return _run(config)


def run_flow(config: Config) -> dict[str, Any]:
    """The flow that the config is of."""
    require_servers()
    # Prefect's temporary server takes seconds to start, in a process of its own: time for what stages will import.
    ahead = threading.Thread(target=_import_ahead, args=(config.storage_uri,), name="import-ahead", daemon=True)
    ahead.start()
    try:
        return segmentation_flow(config) if isinstance(config, SegmentationConfig) else diffusion_flow(config)
    finally:
        ahead.join()  # an interpreter that ends in the middle of an import crashes


def _import_ahead(root: str) -> None:
    with suppress(Exception):  # a stage that needs it will fail with the reason
        import_ray()
        tracking.import_mlflow(root)


def _run(config: Config) -> dict[str, Any]:
    try:
        result = Pipeline(config, run=_as_task)()
    except BaseException as error:
        tell_of_failure(config.notify, config.registry.name, f"{type(error).__name__}: {error}", _own_page())
        raise
    tell_of_champion(config.notify, result)
    return result


def _own_page() -> str:
    """The run's page in Prefect's UI."""
    return runtime.flow_run.ui_url or ""


def is_worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Whether trying again may help: a mistake in the data or the config stays one."""
    try:
        state.result()
    except MISTAKES:
        return False
    except BaseException:  # whatever else went wrong may go right next time
        return True
    return False


def _as_task(stage: Stage, config: Config) -> Done:
    compute = config.compute

    @task(
        name=stage.name,
        task_run_name=f"{stage.name}-{stage.key[:8]}",
        retries=compute.retries,
        retry_delay_seconds=exponential_backoff(compute.retry_delay_seconds),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_worth_retrying,
        timeout_seconds=compute.timeout_seconds,
        # For a limit on how many stages use GPUs at once; every tag costs a second of asking for a slot.
        tags=["gpu"] if compute.use_gpu and stage.name not in ("shard", "register") else [],
        persist_result=False,
        log_prints=False,
    )
    def run_as_task() -> Done:
        done = run_in_place(stage, config)
        _leave_artifacts(done.record)
        return done

    return run_as_task()


def _leave_artifacts(record: Record) -> None:
    """What a person wants to see on the run's page. A failure here never fails the stage."""
    try:
        if record.stage == "evaluate":
            create_markdown_artifact(_metrics_table(record.figures["metrics"]), key="metrics", description="Scores")
            if not tracking.tracking_uri(record.root).startswith("http"):  # else registration brings it to the server
                create_link_artifact(report_link(record.output("report")), key="report", link_text="Evaluation report")
            if "overlay" in record.outputs:
                _image_artifact(record.output("overlay"))
        elif record.stage == "register":
            figures = record.figures
            pages = figures.get("pages", {})
            name = f"`{figures['model_uri']}`, version {figures['model_version']}"
            text = f"[{name}]({pages['model']})" if pages else name
            create_markdown_artifact(
                f"{text}: {figures['reason']}", key="registered-model", description="Registered model"
            )
            if pages:
                create_link_artifact(pages["report"], key="report", link_text="Evaluation report")
    except Exception as error:  # the API may be gone; the work is done
        logger.warning("no artifact for stage %s: %s", record.stage, error)


def _image_artifact(uri: str) -> None:
    """The worst case, or the grid of samples, carried inline: the report's folder is not a web server."""
    import base64

    data = base64.b64encode(storage.read_bytes(uri)).decode()
    create_markdown_artifact(
        f"![overlay](data:image/png;base64,{data})", key="overlay", description="Worst case, or samples"
    )


def _metrics_table(metrics: dict[str, float]) -> str:
    rows = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    return "\n".join(["| metric | value |", "|---|---|", *rows])
