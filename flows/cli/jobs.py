"""The verbs for a Ray cluster: send a pipeline there, look at it, cancel it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.errors import UserError
from flows.cli.base import Config, Json, Set, app, print_result
from flows.cli.tables import jobs_text, summary_text

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

Address = Annotated[
    str, typer.Option("--address", envvar="RAY_ADDRESS", help="The cluster's dashboard, http://HOST:8265.")
]
Follow = Annotated[bool, typer.Option("--follow", help="Show its output until it ends; Ctrl-C leaves it running.")]


@app.command()
def submit(
    config: Config,
    address: Address = "",
    overrides: Set = None,
    follow: Follow = False,
    install: Annotated[
        bool, typer.Option("--install", help="Install the lock's versions for the job; else those the cluster has.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The whole pipeline as jobs of a Ray cluster. Typed again while it runs, it finds the same job."""
    from flows.pipelines.catalog import load_config
    from flows.running.submit import submit_pipeline

    client, job_id, new = submit_pipeline(load_config(config, overrides or ()), _given(address), install=install)
    sys.stderr.write(f"{job_id}: {'submitted' if new else 'is there already'}\n")
    if follow:
        _follow(client, job_id, as_json)
    else:
        sys.stderr.write(_how_to_go_on(job_id))
        print_result(json.dumps({"job_id": job_id, "new": new}) if as_json else job_id)


@app.command()
def status(
    job_id: Annotated[str | None, typer.Argument(help="A pipeline's job; none: all of them.")] = None,
    address: Address = "",
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Pipelines on the cluster and their stages."""
    from dataclasses import asdict

    from flows.cluster.jobs_api import connect
    from flows.running.submit import job_rows

    client = connect(_given(address))
    if follow and job_id is None:
        raise UserError("status --follow needs the id of one job; `unetflow status` lists them")
    if follow and job_id is not None:
        _follow(client, job_id, as_json)
        return
    rows = job_rows(client, job_id)
    print_result(json.dumps([asdict(row) for row in rows]) if as_json else jobs_text(rows))


@app.command()
def cancel(
    job_id: Annotated[str, typer.Argument(help="A pipeline's job.")], address: Address = "", as_json: Json = False
) -> None:
    """Stop a pipeline on the cluster, and the stage it is in. Submitted again, it goes on from the last checkpoint."""
    from flows.cluster.jobs_api import connect
    from flows.running.submit import cancel_pipeline

    stopped = cancel_pipeline(connect(_given(address)), job_id)
    print_result(
        json.dumps({"stopped": stopped}) if as_json else f"stopped {', '.join(stopped) or 'nothing: it had ended'}"
    )


def _given(address: str) -> str:
    if not address:
        raise UserError("which cluster? give --address http://HOST:8265, or set RAY_ADDRESS to it")
    return address


def _follow(client: JobSubmissionClient, job_id: str, as_json: bool) -> None:
    from flows.cluster.job import Relay, follow, require_success

    relay = Relay()
    try:
        require_success(follow(client, job_id, relay))
    except KeyboardInterrupt:
        sys.stderr.write(f"\ndetached; {job_id} goes on\n{_how_to_go_on(job_id)}")
        os._exit(130)  # the thread that reads the log would keep the interpreter waiting
    if relay.result is not None:
        print_result(json.dumps(relay.result) if as_json else summary_text(relay.result))


def _how_to_go_on(job_id: str) -> str:
    return f"follow it with   unetflow status {job_id} --follow\ncancel it with   unetflow cancel {job_id}\n"
