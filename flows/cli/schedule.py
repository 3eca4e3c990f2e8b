"""The verb that runs pipelines by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.base import Set, app


@app.command()
def serve(
    configs: Annotated[list[Path], typer.Argument(help="YAML files of pipelines.", metavar="CONFIG.yaml...")],
    cron: Annotated[str | None, typer.Option(help="When, such as '0 2 * * *': every night at two.")] = None,
    interval: Annotated[float | None, typer.Option(help="Or every so many seconds.")] = None,
    timezone: Annotated[str, typer.Option(help="Of --cron.")] = "UTC",
    overrides: Set = None,
) -> None:
    """Run pipelines by the clock on this machine, through a Prefect server, until Ctrl-C."""
    from flows.pipelines.catalog import load_config
    from flows.running.schedule import serve as serve_configs

    loaded = [load_config(path, overrides or ()) for path in configs]
    serve_configs(loaded, cron=cron, interval=interval, timezone=timezone)
