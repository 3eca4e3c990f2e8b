"""Notification of failures and new champions, with the report linked."""

from __future__ import annotations

from data_pipelines import storage
from flows.config.specs import NotifySpec
from flows.notification import send
from flows.registry.gate import CHAMPION
from flows.running.execution import RunSummary


def notify_of_champion(spec: NotifySpec, summary: RunSummary) -> None:
    """Notify of a new champion. Challengers and cache hits are not announced."""
    registered = next((stage for stage in summary.stages if stage.name == "register"), None)
    if registered is None or registered.cached or summary.alias != CHAMPION:
        return
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in summary.metrics.items() if "/" not in name)
    text = f"{summary.model_name}: version {summary.model_version} is champion ({summary.reason}). {metrics}"
    link = summary.pages.get("report") or (report_link(summary.report) if summary.report else "")
    send(spec, f"{text}\nreport: {link}" if link else text)


def notify_of_failure(spec: NotifySpec, name: str, error: str, link: str = "") -> None:
    """Notify of a failed pipeline; ``link`` leads to the run."""
    first, *_ = error.strip().splitlines() or ["no message"]
    send(spec, f"{name}: the pipeline failed: {first}" + (f"\nrun: {link}" if link else ""))


def report_link(uri: str) -> str:
    """Return what a browser on this machine opens, where no MLflow server shows the report."""
    return storage.local_path(uri).as_uri() if storage.is_local(uri) else uri
