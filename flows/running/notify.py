"""Tells people that a run failed or that there is a new champion, with the report linked."""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any

from data_pipelines import storage
from flows.config.specs import NotifySpec

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0


def tell_of_champion(spec: NotifySpec, result: dict[str, Any]) -> None:
    """``result`` is the pipeline's final record. Nothing is said of challengers and of what was found done."""
    registered = next((stage for stage in result["stages"] if stage["name"] == "register"), None)
    if registered is None or registered["cached"] or result["alias"] != "champion":
        return
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items() if "/" not in name)
    text = f"{result['model_name']}: version {result['model_version']} is champion ({result['reason']}). {metrics}"
    _tell(spec, f"{text}\nreport: {result['pages'].get('report') or report_link(result['report'])}")


def tell_of_failure(spec: NotifySpec, name: str, error: str, link: str = "") -> None:
    """``link`` leads to the run."""
    first, *_ = error.strip().splitlines() or ["no message"]
    _tell(spec, f"{name}: the pipeline failed: {first}" + (f"\nrun: {link}" if link else ""))


def report_link(uri: str) -> str:
    """What a browser on this machine opens, where no MLflow server shows the report."""
    return storage.local_path(uri).as_uri() if storage.is_local(uri) else uri


def _tell(spec: NotifySpec, text: str) -> None:
    """A message that cannot be sent is logged: the run is what counts."""
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
            send: Any = block.notify  # declared as a coroutine, and none where nothing awaits it
            send(text, subject="unetflow")
    except Exception as error:  # whatever the other side does
        logger.warning("notify: %s: %s", spec.webhook.split("?")[0] or spec.block, error)
