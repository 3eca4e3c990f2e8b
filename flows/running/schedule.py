"""Pipelines on a schedule, served from this process.

python -m flows.running.schedule    creates the automation for runs whose process died, for runs by workers
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig
from flows.running.automation import TAG, ensure_automation


def serve(configs: Sequence[PipelineConfig], *, cron: str | None, interval: float | None, timezone: str) -> None:
    """Serve one deployment per configuration until interrupted; runs are processes of this machine, one at a time each.

    Raises ConfigError without a Prefect server, or without a valid schedule.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "serve needs a Prefect server that outlives it: set PREFECT_API_URL (`make stack` starts one)"
        )
    if (cron is None) == (interval is None):
        raise ConfigError("serve: give one of --cron and --interval")
    if interval is not None and interval <= 0:
        raise ConfigError(
            f"serve: --interval {interval:g} must be positive: it is the time between two runs in seconds"
        )
    _check_timezone(timezone)
    _check_names(configs)
    from flows.running.prefect_flow import FLOWS  # isort: skip - before Prefect: it sets what Prefect reads at import
    from prefect import serve as serve_deployments
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron, Interval

    try:
        schedule = Cron(cron, timezone=timezone) if cron else Interval(interval or 0, timezone=timezone)
    except ValueError:
        raise ConfigError(
            f"serve: --cron {cron!r} must be minute, hour, day, month and weekday; '0 2 * * *' is every night at two"
        ) from None
    deployments: list[Any] = [  # Prefect types them as perhaps a coroutine: a sync caller gets the deployment
        FLOWS[config.pipeline].to_deployment(
            name=config.registry.name,
            parameters={"config": config.model_dump(mode="json")},
            schedule=schedule,
            concurrency_limit=1,
            tags=[TAG],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for config in configs
    ]
    ensure_automation()
    serve_deployments(*deployments)


def _check_names(configs: Sequence[PipelineConfig]) -> None:
    """Raise ConfigError where two configurations would be one deployment: Prefect keeps the last one alone."""
    names = Counter((config.pipeline, config.registry.name) for config in configs)
    if twice := [f"{pipeline}/{name}" for (pipeline, name), number in names.items() if number > 1]:
        raise ConfigError(
            f"serve: {', '.join(twice)} is the name of several of these configurations, and a deployment has one: give "
            "each a registry.name of its own"
        )


def _check_timezone(name: str) -> None:
    """Raise ConfigError for a time zone that this machine does not know: the server would run nothing, ever."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = get_close_matches(name, available_timezones(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"serve: --timezone {name!r} is not a time zone; write it as Europe/Berlin or UTC{hint}"
        ) from None


if __name__ == "__main__":
    ensure_automation()
