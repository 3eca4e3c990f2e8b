"""Commands for a Ray cluster: submit a pipeline, look at it, cancel it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.errors import ConfigError
from flows.cli.base import CLUSTER_PANEL, Config, Json, Set, app, print_json, print_result
from flows.cli.tables import no_jobs_text, status_text, summary_text
from flows.pipelines.catalog import load_config

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

Address = Annotated[
    str, typer.Option("--address", envvar="RAY_ADDRESS", help="The cluster's dashboard, http://HOST:8265.")
]
Follow = Annotated[bool, typer.Option("--follow", help="Show its output until it ends; Ctrl-C detaches.")]


@app.command(rich_help_panel=CLUSTER_PANEL)
def submit(
    config: Config,
    address: Address = "",
    overrides: Set = None,
    follow: Follow = False,
    install: Annotated[
        bool, typer.Option("--install", help="Install the lock's versions for the job; default: those of the cluster.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Submit the whole pipeline as jobs of a Ray cluster. Submitted again while it runs, it is the same job."""
    from flows.running.submit import submit_pipeline

    loaded = load_config(config, overrides or ())
    client, job_id, new = submit_pipeline(loaded, _require(address), install=install)
    sys.stderr.write(f"{job_id}: {'submitted' if new else 'exists already'}\n")
    if follow:
        _follow(client, job_id, as_json)
        return
    sys.stderr.write(_next_steps(job_id))
    if as_json:
        print_json({"job_id": job_id, "new": new})
    else:
        print_result(job_id)


@app.command(rich_help_panel=CLUSTER_PANEL)
def status(
    job_id: Annotated[str | None, typer.Argument(help="A pipeline's job; none: all that runs anywhere.")] = None,
    address: Address = "",
    follow: Follow = False,
    storage: Annotated[str, typer.Option(help="Storage to look into; default: UNETFLOW_STORAGE.")] = "",
    as_json: Json = False,
) -> None:
    """List what runs: jobs of a cluster, processes of this storage, schedules of a Prefect server."""
    from flows.cluster.jobs_api import connect, head_start
    from flows.config.locations import storage_root
    from flows.running.status import join_progress, list_local, list_schedules
    from flows.running.submit import list_jobs

    is_joined = address == os.environ.get("RAY_ADDRESS") and not address.startswith(("http://", "https://"))
    is_named = follow or job_id or (address and not is_joined)
    client = connect(_require(address)) if is_named else None
    if follow:
        if job_id is None:
            raise ConfigError("status --follow needs the id of one job; `unetflow status` lists them")
        assert client is not None
        _follow(client, job_id, as_json)
        return
    rows = join_progress(list_jobs(client, job_id) if client else [], list_local(storage_root(storage)))
    rows = [row for row in rows if row.place == "job"] if job_id else rows + list_schedules()
    if as_json:
        print_json(rows)
    else:
        print_result(status_text(rows, time.time()))
        if client is not None and not any(row.place == "job" for row in rows):
            print_result(no_jobs_text(head_start(client)))


@app.command(rich_help_panel=CLUSTER_PANEL)
def cancel(
    job_id: Annotated[str, typer.Argument(help="A pipeline's job.")], address: Address = "", as_json: Json = False
) -> None:
    """Stop a pipeline on the cluster and its current stage. Submitted again, it resumes from the last checkpoint."""
    from flows.cluster.jobs_api import connect
    from flows.running.submit import cancel_pipeline

    stopped = cancel_pipeline(connect(_require(address)), job_id)
    if as_json:
        print_json({"stopped": stopped})
    else:
        print_result(f"stopped {', '.join(stopped) or 'nothing: it had ended'}")


def _require(address: str) -> str:
    if not address:
        raise ConfigError("which cluster? give --address http://HOST:8265, or set RAY_ADDRESS to it")
    return address


def _follow(client: JobSubmissionClient, job_id: str, as_json: bool) -> None:
    from flows.cluster.job import Relay, follow, require_success
    from flows.running.execution import RunSummary

    relay = Relay()
    try:
        require_success(follow(client, job_id, relay))
    except (KeyboardInterrupt, SystemExit) as stop:
        sys.stderr.write(f"\ndetached; {job_id} continues\n{_next_steps(job_id)}")
        os._exit(
            stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
        )  # the thread that reads the log would keep the interpreter waiting
    if relay.result is None:
        return
    summary = RunSummary.model_validate(relay.result)
    if as_json:
        print_json(summary)
    else:
        print_result(summary_text(summary))


def _next_steps(job_id: str) -> str:
    return f"follow it with   unetflow status {job_id} --follow\ncancel it with   unetflow cancel {job_id}\n"
