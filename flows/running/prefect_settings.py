"""Environment that Prefect reads when it is imported. Import this module before Prefect: it works at import.

Prefect's files go to the user's state folder, nothing is reported to anybody, and the loggers of this project are those
that a run's page shows. Variables that are set already stay as they are.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.config.locations import state_folder

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

Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # its server cannot make its parents
