"""Prefect artifacts of a stage: scores, report, worst case or samples, registered model."""

from __future__ import annotations

import base64
import logging

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from data_pipelines import storage
from flows.registry import tracking
from flows.registry.register import RegistrationFigures
from flows.running.notify import report_link
from flows.stages.record import EvaluationFigures, Figures, Record

logger = logging.getLogger(__name__)


def leave_artifacts(record: Record[Figures]) -> None:
    """Create the artifacts that a person wants on the run's page. A failure here never fails the stage."""
    try:
        if isinstance(record.figures, EvaluationFigures):
            _leave_scores(record, record.figures)
        elif isinstance(record.figures, RegistrationFigures):
            _leave_model(record.figures)
    except Exception as error:  # the API may be gone; the work is done
        logger.warning("no artifact for stage %s: %s", record.stage, error)


def _leave_scores(record: Record[Figures], figures: EvaluationFigures) -> None:
    create_markdown_artifact(_metrics_table(figures.metrics), key="metrics", description="Scores")
    on_server = tracking.tracking_uri(record.root).startswith("http")  # registration brings the report there
    if "report" in record.outputs and not on_server:
        create_link_artifact(report_link(record.output("report")), key="report", link_text="Evaluation report")
    if "overlay" in record.outputs:
        _leave_image(record.output("overlay"))


def _leave_model(figures: RegistrationFigures) -> None:
    name = f"`{figures.model_uri}`, version {figures.model_version}"
    text = f"[{name}]({figures.pages['model']})" if "model" in figures.pages else name
    create_markdown_artifact(f"{text}: {figures.reason}", key="registered-model", description="Registered model")
    if "report" in figures.pages:
        create_link_artifact(figures.pages["report"], key="report", link_text="Evaluation report")


def _leave_image(uri: str) -> None:
    """Carry the image inline: the report's folder is not a web server."""
    data = base64.b64encode(storage.read_bytes(uri)).decode()
    create_markdown_artifact(
        f"![overlay](data:image/png;base64,{data})", key="overlay", description="Worst case, or samples"
    )


def _metrics_table(metrics: dict[str, float]) -> str:
    rows = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    return "\n".join(["| metric | value |", "|---|---|", *rows])
