"""The verbs for those who consume models: predict with one, list them, choose the champion."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.base import Json, app, print_result
from flows.cli.tables import models_text


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@champion or models:/NAME/VERSION", metavar="MODEL")],
    source: Annotated[
        str, typer.Argument(help="Volumes: a file, a folder or a glob; prompts: a file.", metavar="INPUT")
    ],
    output: Annotated[str, typer.Argument(help="Folder for the results.", metavar="OUTPUT")],
    num_workers: Annotated[int, typer.Option(min=1, help="Actors that predict side by side.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPUs of each.")] = 1,
    use_gpu: Annotated[bool, typer.Option("--gpu", help="One GPU for each.")] = False,
    as_json: Json = False,
) -> None:
    """A registered model over many inputs. Typed again, it goes on with what is missing."""
    from data_pipelines.errors import UserError
    from flows.config.locations import storage_root
    from flows.cluster.jobs_api import jobs_address
    from flows.running.predict_job import predict_as_job
    from flows.running.predict import predict as predict_here
    from flows.config.specs import ComputeSpec

    compute = ComputeSpec(num_workers=num_workers, threads_per_worker=threads, use_gpu=use_gpu)
    address = jobs_address()
    result = (
        predict_as_job(model, source, output, compute, address)
        if address
        else predict_here(model, source, output, compute, storage_root())
    )
    print_result(
        json.dumps(result)
        if as_json
        else f"{result['output']}: {result['num_predicted']} predicted, {result['num_found_done']} found done"
    )
    if failures := result["failures"]:
        raise UserError(f"{len(failures)} of the inputs could not be predicted:\n  " + "\n  ".join(failures.values()))


@app.command("models")
def models(
    name: Annotated[str | None, typer.Argument(help="One model; none: all.")] = None, as_json: Json = False
) -> None:
    """Registered versions: metrics, aliases, and with a name where each comes from."""
    from flows.config.locations import storage_root
    from flows.registry.models import list_versions

    versions = list_versions(storage_root(), name)
    print_result(
        json.dumps([asdict(v) for v in versions]) if as_json else models_text(versions, lineage=name is not None)
    )


@app.command("champion")
def champion(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str | None, typer.Argument(help="Its new champion; none: the one before.")] = None,
    as_json: Json = False,
) -> None:
    """Roll back: make the champion before this one champion again, or the version you name."""
    from flows.config.locations import storage_root
    from flows.registry.models import set_champion

    chosen = set_champion(storage_root(), name, version)
    print_result(json.dumps(asdict(chosen)) if as_json else f"models:/{name}@champion is version {chosen.version} now")
