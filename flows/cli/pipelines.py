"""The verbs that run pipelines, or a part of one, from here."""

from __future__ import annotations

import json
import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipelines.errors import UserError
from flows.cli.base import Config, DryRun, Json, Set, app, print_result
from flows.cli.tables import plan_text, summary_text

if TYPE_CHECKING:
    from flows.config.pipeline import Config as PipelineConfig


@app.command()
def demo(
    pipelines: Annotated[
        list[str] | None,
        typer.Argument(help="segmentation, diffusion; none: one after the other.", metavar="[PIPELINE]..."),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Whole pipelines on generated data: no server, no GPU, no account. With --json one object a line."""
    from flows.running.execution import STAGES

    for name in pipelines or STAGES:
        if name not in STAGES:
            raise UserError(f"demo {name}: there is no such demo; choose {' or '.join(STAGES)}")
    for name in pipelines or STAGES:
        _run(Path(str(files("flows") / "configs" / f"demo_{name}.yaml")), overrides, as_json, False)


@app.command()
def run(config: Config, overrides: Set = None, as_json: Json = False, dry_run: DryRun = False) -> None:
    """The whole pipeline, as a Prefect flow; stages that are done are found, not redone."""
    _run(config, overrides, as_json, dry_run)


def _add_stage_command(name: str, about: str) -> None:
    def command(config: Config, overrides: Set = None, as_json: Json = False, dry_run: DryRun = False) -> None:
        _run(config, overrides, as_json, dry_run, until=name)

    command.__doc__ = f"{about} Runs the stages before it where they are not done; without Prefect."
    app.command(name)(command)


_add_stage_command("shard", "Raw cases to shards.")
_add_stage_command("encode", "Captioned shards to latents and text states, training the encoders first.")
_add_stage_command("train", "Shards to a checkpoint.")
_add_stage_command("evaluate", "Checkpoint to scores and a report.")
_add_stage_command("register", "Checkpoint and scores to a registered model.")


@app.command("stage", hidden=True)
def stage(name: str, config: Config) -> None:
    """What a job of a cluster runs: one stage, those before it being done."""
    logging.getLogger("flows.stages").addFilter(lambda record: "found done" not in record.msg)  # the pipeline said it
    _run(config, None, True, False, until=name)


def _run(path: Path, overrides: list[str] | None, as_json: bool, dry_run: bool, until: str | None = None) -> None:
    from flows.pipelines.catalog import load_config
    from flows.running.execution import STAGES, Pipeline, plan

    config = load_config(path, overrides or ())
    names = STAGES[config.pipeline]
    if until is not None and until not in names:
        raise UserError(f"{path}: pipeline {config.pipeline} has no stage {until}; it has {', '.join(names)}")
    wanted = names[: names.index(until or "register") + 1]
    if dry_run:
        stages = [stage for stage in plan(config) if stage["name"] in wanted]
        print_result(json.dumps({"pipeline": config.pipeline, "stages": stages}) if as_json else plan_text(stages))
        return
    names_server = bool(os.environ.get("PREFECT_API_URL"))
    all_done = all(stage["done"] for stage in plan(config, look_outside=True) if stage["name"] in wanted)
    without_prefect = until is not None or (all_done and not names_server)  # nothing to orchestrate: no server needed
    result = Pipeline(config, until=wanted[-1])() if without_prefect else _run_flow(config)
    print_result(json.dumps(result) if as_json else summary_text(result))


def _run_flow(config: PipelineConfig) -> dict[str, Any]:
    from flows.running.prefect_flow import run_flow

    return run_flow(config)
