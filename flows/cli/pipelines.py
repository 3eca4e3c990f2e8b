"""Commands that run pipelines, or a part of one, from here."""

from __future__ import annotations

import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.errors import ConfigError
from flows.cli.base import (
    CLUSTER_PANEL,
    PANELS,
    PIPELINE_PANEL,
    STAGE_PANEL,
    Config,
    DryRun,
    Json,
    Set,
    Verify,
    app,
    print_json,
    print_result,
)
from flows.cli.plan import DEFAULT_NETWORK, Candidates, Folds, Gpu, Memory, Network, PlanOptions, planned_config
from flows.cli.tables import plan_text, summary_text
from flows.pipelines.catalog import PIPELINES, load_config

if TYPE_CHECKING:
    from flows.config.pipeline import PipelineConfig
    from flows.running.execution import RunSummary


@app.command(rich_help_panel=PIPELINE_PANEL)
def demo(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Pipelines; none: all, one after the other.", metavar="[PIPELINE]..."),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Whole pipelines on generated data: no server, no GPU, no account. With --json one object per line."""
    demos = {name: path for name in PIPELINES if (path := _demo_config(name)).is_file()}
    for name in names or demos:
        if name not in demos:
            raise ConfigError(f"demo {name}: unknown demo; choose {' or '.join(demos)}")
    for name in names or demos:
        run_config(load_config(demos[name], overrides or ()), as_json=as_json)


@app.command(rich_help_panel=PIPELINE_PANEL)
def run(
    config: Annotated[
        Path,
        typer.Argument(help="YAML file, or a folder of cases to plan for.", metavar="CONFIG.yaml|DATA"),
    ],
    within: Annotated[str, typer.Option(help="Training time, such as 30m: sets train.within.")] = "",
    memory: Memory = None,
    gpu: Gpu = None,
    candidates: Candidates = False,
    network: Network = DEFAULT_NETWORK,
    folds: Folds = False,
    overrides: Set = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    verify: Verify = False,
) -> None:
    """Run the whole pipeline as a Prefect flow; stages that are done are cache hits. A folder is planned for first."""
    options = PlanOptions(within, memory, gpu, candidates, network, folds)
    if not config.is_dir() and options != PlanOptions(within):
        raise ConfigError(
            "run: --memory, --gpu, --candidates, --network and --folds plan for a folder of cases; "
            f"{config} is not a folder"
        )
    path = planned_config(config, options) if config.is_dir() else config
    given = [*(overrides or ()), *([f"train.within={within}"] if within else [])]
    run_config(load_config(path, given), as_json=as_json, dry_run=dry_run, verify=verify)


def add_stage_commands() -> None:
    """Add one command per stage of the pipelines of the catalog, where it does not exist yet."""
    known = {command.name for command in app.registered_commands}
    for pipeline in PIPELINES.values():
        for step in pipeline.all_steps:
            if step.name not in known:
                known.add(step.name)
                _add_stage_command(step.name, step.about)
    app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))


def _add_stage_command(name: str, about: str) -> None:
    def command(
        config: Config, overrides: Set = None, as_json: Json = False, dry_run: DryRun = False, verify: Verify = False
    ) -> None:
        loaded = load_config(config, overrides or ())
        run_config(loaded, as_json=as_json, dry_run=dry_run, verify=verify, until=name)

    command.__doc__ = f"{about} Runs missing earlier stages first, without Prefect."
    app.command(name, rich_help_panel=STAGE_PANEL)(command)


@app.command("stage", hidden=True, rich_help_panel=CLUSTER_PANEL)
def stage(
    name: str,
    config: Config,
    key: Annotated[str, typer.Option(help="Key of the stage as it was planned: nothing else is computed.")] = "",
) -> None:
    """Run one stage, those before it being done: the entry point of a job of the cluster."""
    from flows.doctor.servers import require_login
    from flows.running.execution import require_planned

    require_login()  # else a node without credentials would say so after the training
    # The pipeline that submitted the job has reported the cache hits.
    logging.getLogger("flows.stages.stage").addFilter(lambda record: "cache hit" not in record.msg)
    loaded = load_config(config)
    if key:
        require_planned(loaded, name, key)
    run_config(loaded, as_json=True, until=name)


def _demo_config(name: str) -> Path:
    return Path(str(files("flows") / "configs" / f"demo_{name}.yaml"))


def run_config(
    config: PipelineConfig,
    *,
    as_json: bool,
    dry_run: bool = False,
    verify: bool = False,
    until: str | None = None,
) -> None:
    """Run, or with ``dry_run`` plan, the pipeline up to a stage, and print the result."""
    from data_pipelines.digests import VERIFY_VARIABLE
    from flows.running.execution import plan_pipeline

    if verify:
        os.environ[VERIFY_VARIABLE] = "1"
    if dry_run:
        planned = plan_pipeline(config, until)
        stages = [{"name": stage.name, "key": stage.key, "done": stage.done} for stage in planned]
        if as_json:
            print_json({"pipeline": config.pipeline, "stages": stages})
        else:
            print_result(plan_text(planned))
        return
    summary = _run_stages(config, until)
    if as_json:
        print_json(summary)
    else:
        print_result(summary_text(summary))


def _run_stages(config: PipelineConfig, until: str | None) -> RunSummary:
    """Run through Prefect where there is a whole pipeline to orchestrate, or a server that wants to know of it."""
    from flows.running.execution import plan_pipeline, run_pipeline

    if until is not None:
        return run_pipeline(config, until=until)
    if not os.environ.get("PREFECT_API_URL") and all(s.done for s in plan_pipeline(config, check_external=True)):
        return run_pipeline(config)  # all cache hits: no server is started for them
    from flows.running.prefect_flow import run_flow

    return run_flow(config)
