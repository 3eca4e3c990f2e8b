"""Messages to the notification targets of a configuration."""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from flows.config.specs import NotifySpec

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0


def send(spec: NotifySpec, text: str) -> None:
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
        logger.warning("notify: %s is not set where the pipeline runs, so no notification was sent: %s", variable, text)
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
        raise TypeError(f"{name} is not a notification block")
    notify: Any = block.notify  # declared as a coroutine, but synchronous where nothing awaits it
    notify(text, subject="unetflow")
