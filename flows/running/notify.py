"""Notification of failures and new champions, with the report linked."""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any

from data_pipelines import storage
from flows.config.specs import NotifySpec
from flows.registry.gate import CHAMPION
from flows.running.execution import RunSummary

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0


def notify_of_champion(spec: NotifySpec, summary: RunSummary) -> None:
    """Notify of a new champion. Challengers and cache hits are not announced."""
    registered = next((stage for stage in summary.stages if stage.name == "register"), None)
    if registered is None or registered.cached or summary.alias != CHAMPION:
        return
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in summary.metrics.items() if "/" not in name)
    text = f"{summary.model_name}: version {summary.model_version} is champion ({summary.reason}). {metrics}"
    link = summary.pages.get("report") or (report_link(summary.report) if summary.report else "")
    _send(spec, f"{text}\nreport: {link}" if link else text)


def notify_of_failure(spec: NotifySpec, name: str, error: str, link: str = "") -> None:
    """Notify of a failed pipeline; ``link`` leads to the run."""
    first, *_ = error.strip().splitlines() or ["no message"]
    _send(spec, f"{name}: the pipeline failed: {first}" + (f"\nrun: {link}" if link else ""))


def report_link(uri: str) -> str:
    """Return what a browser on this machine opens, where no MLflow server shows the report."""
    return storage.local_path(uri).as_uri() if storage.is_local(uri) else uri


def _send(spec: NotifySpec, text: str) -> None:
    """Send a message; one that cannot be sent is logged: the run is what counts."""
    try:
        if spec.webhook:
            body = json.dumps({"text": text}).encode()
            request = urllib.request.Request(spec.webhook, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
        if spec.block:
            from prefect.blocks.abstract import NotificationBlock
            from prefect.blocks.core import Block

            block: Any = Block.load(spec.block)
            if not isinstance(block, NotificationBlock):
                raise TypeError(f"{spec.block} is no notification block")
            send: Any = block.notify  # declared as a coroutine, but synchronous where nothing awaits it
            send(text, subject="unetflow")
    except Exception as error:  # any failure of the other side
        logger.warning("notify: %s: %s", spec.webhook.split("?")[0] or spec.block, error)
