"""The command that runs pipelines on a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.base import CLUSTER_PANEL, Set, app
from flows.pipelines.catalog import load_config


@app.command(rich_help_panel=CLUSTER_PANEL)
def serve(
    configs: Annotated[list[Path], typer.Argument(help="YAML files of pipelines.", metavar="CONFIG.yaml...")],
    cron: Annotated[str | None, typer.Option(help="Schedule, such as '0 2 * * *': every night at two.")] = None,
    interval: Annotated[float | None, typer.Option(help="Or an interval in seconds.")] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of --cron.")] = "UTC",
    overrides: Set = None,
) -> None:
    """Run pipelines on a schedule on this machine, through a Prefect server, until Ctrl-C."""
    from flows.running.schedule import serve as serve_configs

    loaded = [load_config(path, overrides or ()) for path in configs]
    serve_configs(loaded, cron=cron, interval=interval, timezone=timezone)
