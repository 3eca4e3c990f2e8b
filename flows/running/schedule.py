"""Pipelines that run by the clock, served from this process.

python -m flows.schedule      only makes the automation for runs whose process died, for those whom workers run
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from data_pipelines.errors import UserError
from flows.config.pipeline import Config
from flows.pipelines.segmentation.config import SegmentationConfig

UNRESPONSIVE_SECONDS = 180
"""Without a heartbeat for so long a run's process counts as dead."""
HEARTBEAT_SECONDS = 60


def serve(configs: Sequence[Config], *, cron: str | None, interval: float | None, timezone: str) -> None:
    """Serve one deployment for each config until interrupted; runs are processes of this machine, one at a time each.

    Raises UserError without a Prefect server, or without a schedule.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise UserError("serve needs a Prefect server that outlives it: set PREFECT_API_URL (`make stack` starts one)")
    if (cron is None) == (interval is None):
        raise UserError("serve: give one of --cron and --interval")
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_SECONDS))
    from prefect import serve as serve_deployments
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron, Interval

    from flows.running import prefect_flow

    schedule = Cron(cron, timezone=timezone) if cron else Interval(interval or 0, timezone=timezone)
    deployments = []
    for config in configs:
        flow: Any = (
            prefect_flow.segmentation_flow if isinstance(config, SegmentationConfig) else prefect_flow.diffusion_flow
        )
        deployments.append(
            flow.to_deployment(
                name=config.registry.name,
                parameters={"config": config.model_dump(mode="json")},
                schedule=schedule,
                concurrency_limit=1,
                tags=["unetflow"],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    ensure_automation()
    serve_deployments(*deployments)


def ensure_automation() -> None:
    """On the server: a run whose process died, and which therefore sends no heartbeat, becomes Crashed."""
    from datetime import timedelta

    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    name = "unetflow: crash runs whose process died"
    try:
        if Automation.read(name=name) is not None:
            return
    except ValueError:
        pass  # none of this name
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    Automation(
        name=name,
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
