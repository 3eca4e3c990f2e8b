"""Notification of failures and new champions, with the report linked."""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

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
    if spec.webhook:
        _post(spec.webhook, text)
    if spec.block:
        try:
            _send_by_block(spec.block, text)
        except Exception as error:  # any failure of the other side
            logger.warning("notify: %s: %s", spec.block, error)


def _post(variable: str, text: str) -> None:
    """Post to the URL in an environment variable. It is a secret: of it, only the host is ever logged."""
    url = os.environ.get(variable, "")
    if not url:
        logger.warning("notify: %s is not set where the pipeline runs, so nobody is told: %s", variable, text)
        return
    try:
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except (OSError, ValueError, HTTPException) as error:
        reason = error if isinstance(error, OSError) else type(error).__name__  # others repeat the URL
        logger.warning("notify: %s, %s: %s", variable, urlsplit(url).hostname or "no URL", reason)


def _send_by_block(name: str, text: str) -> None:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block: Any = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise TypeError(f"{name} is no notification block")
    send: Any = block.notify  # declared as a coroutine, but synchronous where nothing awaits it
    send(text, subject="unetflow")
