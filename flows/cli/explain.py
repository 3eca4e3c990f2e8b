"""Command that shows what a registered model looks at."""

from __future__ import annotations

from typing import Annotated

import typer

from data_pipelines.errors import InputError
from flows.cli.base import MODEL_PANEL, Json, app, print_json, print_result


@app.command(rich_help_panel=MODEL_PANEL)
def explain(
    model: Annotated[str, typer.Argument(help="models:/NAME@champion or models:/NAME/VERSION", metavar="MODEL")],
    source: Annotated[
        str, typer.Argument(help="As of predict: a file, a folder or a glob; prompts: a file.", metavar="INPUT")
    ],
    output: Annotated[str, typer.Argument(help="Folder for the pictures.", metavar="OUTPUT")],
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class whose saliency is drawn; none: all.", metavar="NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw what a registered model looks at: attention maps, and the saliency of classes."""
    from flows.config.locations import storage_root
    from flows.doctor.servers import require_mlflow
    from flows.running.explain import explain as explain_here

    require_mlflow()
    summary = explain_here(model, source, output, class_name, storage_root())
    if as_json:
        print_json(summary)
    else:
        print_result(f"{summary.output}: {len(summary.files)} pictures")
    if failures := summary.failures:
        raise InputError(f"{len(failures)} of the inputs could not be explained:\n  " + "\n  ".join(failures.values()))
