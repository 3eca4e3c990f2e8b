"""The command that searches for a network, then runs the pipeline with it."""

from __future__ import annotations

from typing import Annotated

import typer

from data_pipelines.errors import ConfigError
from flows.cli.base import PIPELINE_PANEL, Config, Json, Set, app
from flows.cli.pipelines import run_config
from flows.pipelines.catalog import load_config, pipeline_of


@app.command("search", rich_help_panel=PIPELINE_PANEL)
def search(
    config: Config,
    within: Annotated[
        str, typer.Option(help="Time of all trials together, such as 30m; default: that of the configuration, or 30m.")
    ] = "",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Search for the best network within a time, then run the pipeline with it. `search:` has its settings."""
    given = [*(overrides or ()), *([f"search.within={within}"] if within else [])]
    loaded = load_config(config, given)
    if "search" not in {step.name for step in pipeline_of(loaded).steps}:
        raise ConfigError(f"{config}: pipeline {loaded.pipeline} has no search; it is for segmentation")
    if loaded.model_dump()["search"] is None:
        loaded = load_config(config, [*given, "search={}"])
    run_config(loaded, as_json=as_json)
