"""The command that prints configuration templates and the configuration reference."""

from __future__ import annotations

from typing import Annotated

import typer

from data_pipelines.errors import ConfigError
from flows.cli.base import OTHER_PANEL, app, print_result
from flows.pipelines.catalog import PIPELINES


@app.command("config", rich_help_panel=OTHER_PANEL)
def config(
    pipeline: Annotated[str | None, typer.Argument(help="Pipeline whose template is printed.")] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print the reference of all fields, in Markdown.")
    ] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="Print the table of metrics, in Markdown.")] = False,
) -> None:
    """Print a commented template of a pipeline's configuration, or the configuration reference."""
    from flows.config.reference import metrics_markdown, reference_markdown, template_yaml

    if reference:
        print_result(reference_markdown([(name, each.config) for name, each in PIPELINES.items()]).rstrip("\n"))
    elif metrics:
        print_result("\n".join(metrics_markdown()))
    elif pipeline in PIPELINES:
        print_result(template_yaml(PIPELINES[pipeline].config).rstrip("\n"))
    else:
        raise ConfigError(f"config: name a pipeline ({' or '.join(PIPELINES)}), --reference or --metrics")
