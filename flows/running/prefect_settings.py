"""Environment that Prefect reads when it is imported. Import this module before Prefect: it works at import.

Heartbeats, and the patience of the automation that listens for them (``flows.running.automation``), are set here alone.
Prefect's files go to the user's state folder, nothing is reported to anybody, and the loggers of this project are those
that a run's page shows. Variables that are set already stay as they are.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flows.config.locations import state_folder, writable_folder
from flows.config.loopback import exempt_loopback

logger = logging.getLogger(__name__)

HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
HEARTBEAT_SECONDS = 30
"""Time between two heartbeats of a run; Prefect's minimum, and its default is 180."""
UNRESPONSIVE_SECONDS = 180
"""Time without a heartbeat after which a run counts as crashed."""
MAX_HEARTBEAT_SECONDS = UNRESPONSIVE_SECONDS // 3
"""Longest interval at which a healthy run that loses some heartbeats does not count as crashed."""

for _name, _value in {
    "PREFECT_HOME": str(state_folder() / "prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # its database is made at the first start
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,data_pipelines,unet_models",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)


def _set_heartbeat() -> None:
    """Set the heartbeat; one that is too long for the automation is shortened."""
    given = os.environ.setdefault(HEARTBEAT, str(HEARTBEAT_SECONDS))
    if given.isdigit() and int(given) > MAX_HEARTBEAT_SECONDS:
        os.environ[HEARTBEAT] = str(HEARTBEAT_SECONDS)
        logger.warning(
            "%s=%s is too long: runs without a heartbeat for %d s count as crashed; using %d s",
            HEARTBEAT,
            given,
            UNRESPONSIVE_SECONDS,
            HEARTBEAT_SECONDS,
        )


_set_heartbeat()
exempt_loopback()
# Prefect's server cannot make the parents of its folder.
writable_folder(Path(os.environ["PREFECT_HOME"]), "PREFECT_HOME or XDG_STATE_HOME")
