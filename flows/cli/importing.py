"""The command that registers models which others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from data_pipelines.errors import ConfigError
from flows.cli.base import MODEL_PANEL, Json, app, print_json, print_result

Precision = Literal["fp32", "bf16"]


@app.command("import", rich_help_panel=MODEL_PANEL)
def import_model(
    source: Annotated[str, typer.Argument(help="Framework that trained the model: nnunet.", metavar="FRAMEWORK")],
    folder: Annotated[Path, typer.Argument(help="Folder TRAINER__PLANS__CONFIGURATION of results.", metavar="RESULTS")],
    name: Annotated[str | None, typer.Option(help="Name of the registered model; default: the data set's.")] = None,
    fold: Annotated[list[str] | None, typer.Option(help="Fold to take; may be repeated. Default: all.")] = None,
    precision: Annotated[
        Precision, typer.Option(help="Precision of predictions; bf16 is faster where the hardware has it, and rounds.")
    ] = "fp32",
    as_json: Json = False,
) -> None:
    """Register a model that nnU-Net 2 trained: it predicts the same labels, several folds as an ensemble."""
    from flows.config.locations import storage_root
    from flows.doctor.servers import require_mlflow
    from flows.pipelines.segmentation.nnunet.results import import_results

    if source != "nnunet":
        raise ConfigError(f"import: {source} is not read; write `unetflow import nnunet {folder}`")
    require_mlflow()
    imported = import_results(folder.expanduser(), storage_root(), name, fold or (), precision)
    if as_json:
        print_json(imported)
        return
    members = f"{len(imported.folds)} folds averaged" if len(imported.folds) > 1 else f"fold {imported.folds[0]}"
    registered, _, version = imported.model_uri.removeprefix("models:/").rpartition("/")
    promote = f"nothing was compared; to make it champion: unetflow champion {registered} {version}"
    print_result(f"{imported.model_uri}: {imported.configuration}, {members}\n{promote}")
