"""Pipelines on a schedule, served from this process.

python -m flows.running.schedule    creates the automation for runs whose process died, for runs by workers
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig

UNRESPONSIVE_SECONDS = 180
"""Time without a heartbeat after which a run's process counts as dead."""
HEARTBEAT_SECONDS = 60
AUTOMATION = "unetflow: crash runs whose process died"


def serve(configs: Sequence[PipelineConfig], *, cron: str | None, interval: float | None, timezone: str) -> None:
    """Serve one deployment per configuration until interrupted; runs are processes of this machine, one at a time each.

    Raises ConfigError without a Prefect server, or without a schedule.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "serve needs a Prefect server that outlives it: set PREFECT_API_URL (`make stack` starts one)"
        )
    if (cron is None) == (interval is None):
        raise ConfigError("serve: give one of --cron and --interval")
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_SECONDS))
    from flows.running.prefect_flow import FLOWS  # isort: skip - before Prefect: it sets what Prefect reads at import
    from prefect import serve as serve_deployments
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron, Interval

    schedule = Cron(cron, timezone=timezone) if cron else Interval(interval or 0, timezone=timezone)
    deployments: list[Any] = [  # Prefect types them as perhaps a coroutine: a sync caller gets the deployment
        FLOWS[config.pipeline].to_deployment(
            name=config.registry.name,
            parameters={"config": config.model_dump(mode="json")},
            schedule=schedule,
            concurrency_limit=1,
            tags=["unetflow"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for config in configs
    ]
    ensure_automation()
    serve_deployments(*deployments)


def ensure_automation() -> None:
    """Create, once, the server's rule that a run without heartbeats becomes Crashed: its process died."""
    import flows.running.prefect_settings  # noqa: F401 # isort: skip - before Prefect
    from datetime import timedelta

    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    try:
        if Automation.read(name=AUTOMATION) is not None:
            return
    except ValueError:
        pass  # none of this name
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    Automation(
        name=AUTOMATION,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat"} | ends,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=UNRESPONSIVE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name=None, force=False, message="no heartbeat: the process of this run is gone"
            )
        ],
    ).create()


if __name__ == "__main__":
    ensure_automation()
