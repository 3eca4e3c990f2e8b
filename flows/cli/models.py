"""Commands for those who consume models: predict with one, list them, choose the champion."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from data_pipelines.cores import count_cpus
from data_pipelines.errors import InputError
from flows.cli.base import MODEL_PANEL, Json, app, parse_gigabytes, print_json, print_result
from flows.cli.tables import models_text

LabelFormat = Literal["nii.gz", "nii", "nrrd", "mha", "tif", "png", "dcm"]


@app.command(rich_help_panel=MODEL_PANEL)
def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@champion or models:/NAME/VERSION", metavar="MODEL")],
    source: Annotated[
        str, typer.Argument(help="Volumes or images: a file, a folder or a glob; prompts: a file.", metavar="INPUT")
    ],
    output: Annotated[str, typer.Argument(help="Folder for the results.", metavar="OUTPUT")],
    num_workers: Annotated[int, typer.Option(min=1, help="Workers that predict side by side.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPUs of each worker; default: this machine's, shared out.")
    ] = None,
    use_gpu: Annotated[bool, typer.Option("--gpu", help="One GPU per worker.")] = False,
    memory: Annotated[
        float | None,
        typer.Option(
            parser=parse_gigabytes,
            metavar="GB",
            help="Memory for the prediction of a volume, such as 4GB; default: the model's.",
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the calibrated probability of each class.")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write the entropy of the probabilities, 0 to 1.")
    ] = False,
    label_format: Annotated[
        LabelFormat | None, typer.Option("--format", help="Format of label maps; default: that of each input.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict with a registered model over many inputs. The same command again predicts what is missing."""
    from flows.cluster.jobs_api import jobs_address
    from flows.config.locations import storage_root
    from flows.config.specs import ComputeSpec
    from flows.doctor.servers import require_mlflow
    from flows.running.prediction.job import predict_as_job
    from flows.running.prediction.predict import Options
    from flows.running.prediction.predict import predict as predict_here

    suffix = f".{label_format}" if label_format else ""
    shared_out = max(count_cpus() // num_workers, 1)
    compute = ComputeSpec(num_workers=num_workers, threads_per_worker=threads or shared_out, use_gpu=use_gpu)
    options = Options(memory_gb=memory, probabilities=probabilities, uncertainty=uncertainty)
    require_mlflow()
    address = jobs_address()
    summary = (
        predict_as_job(model, source, output, compute, address, options, suffix)
        if address
        else predict_here(model, source, output, compute, storage_root(), options, suffix)
    )
    if as_json:
        print_json(summary)
    else:
        skipped = f", {len(summary.skipped)} skipped" if summary.skipped else ""
        print_result(
            f"{summary.output}: {summary.num_predicted} predicted, {summary.num_found_done} done already{skipped}"
        )
    if failures := summary.failures:
        raise InputError(f"{len(failures)} of the inputs could not be predicted:\n  " + "\n  ".join(failures.values()))


@app.command("models", rich_help_panel=MODEL_PANEL)
def models(
    name: Annotated[str | None, typer.Argument(help="One model; none: all.")] = None, as_json: Json = False
) -> None:
    """List registered versions: metrics, aliases, and with a name the lineage of each."""
    from flows.config.locations import storage_root
    from flows.doctor.servers import require_mlflow
    from flows.registry.models import list_versions

    require_mlflow()
    versions = list_versions(storage_root(), name)
    if as_json:
        print_json(versions)
    else:
        print_result(models_text(versions, lineage=name is not None))


@app.command("champion", rich_help_panel=MODEL_PANEL)
def champion(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str | None, typer.Argument(help="Version to promote; none: the previous champion.")] = None,
    as_json: Json = False,
) -> None:
    """Promote a version to champion, or roll back to the previous champion."""
    from flows.config.locations import storage_root
    from flows.doctor.servers import require_mlflow
    from flows.registry.models import set_champion

    require_mlflow()
    chosen = set_champion(storage_root(), name, version)
    if as_json:
        print_json(chosen)
    else:
        print_result(f"models:/{name}@champion is version {chosen.version} now")
