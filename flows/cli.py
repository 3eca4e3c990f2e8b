"""``unetflow``: the verbs, in data order. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_pipelines.errors import UserError

if TYPE_CHECKING:
    from flows.config import Config as PipelineConfig

app = typer.Typer(
    help="From medical volumes or captioned images to a registered, deployable U-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="YAML file of the pipeline.", metavar="CONFIG.yaml")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print the final record as one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print each stage with its key and whether it is done.")]


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
    from flows.pipeline import STAGES

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


def _run(path: Path, overrides: list[str] | None, as_json: bool, dry_run: bool, until: str | None = None) -> None:
    from flows.config import load_config
    from flows.pipeline import STAGES, Pipeline, plan

    config = load_config(path, overrides or ())
    names = STAGES[config.pipeline]
    if until is not None and until not in names:
        raise UserError(f"{path}: pipeline {config.pipeline} has no stage {until}; it has {', '.join(names)}")
    wanted = names[: names.index(until or "register") + 1]
    if dry_run:
        stages = [stage for stage in plan(config) if stage["name"] in wanted]
        _print(json.dumps({"pipeline": config.pipeline, "stages": stages}) if as_json else _plan_text(stages))
        return
    names_server = bool(os.environ.get("PREFECT_API_URL"))
    all_done = all(stage["done"] for stage in plan(config, look_outside=True) if stage["name"] in wanted)
    without_prefect = until is not None or (all_done and not names_server)  # nothing to orchestrate: no server needed
    result = Pipeline(config, until=wanted[-1])() if without_prefect else _run_flow(config)
    _print(json.dumps(result) if as_json else _summary_text(result))


def _run_flow(config: PipelineConfig) -> dict[str, Any]:
    from flows.prefect_flow import run_flow

    return run_flow(config)


def _plan_text(stages: list[dict[str, Any]]) -> str:
    lines = []
    for stage in stages:
        key = stage["key"][:12] if stage["key"] else "(key known once the stage before is done)"
        lines.append(f"{stage['name']:<18} {'done' if stage['done'] else 'to run':<7} {key}")
    return "\n".join(lines)


def _summary_text(result: dict[str, Any]) -> str:
    took = {s["name"]: "found done" if s["cached"] else f"{s['seconds']:.0f} s" for s in result["stages"]}
    lines = ["", "stages   " + ", ".join(f"{name} {text}" for name, text in took.items())]
    if result["metrics"]:
        table = _class_table if result["pipeline"] == "segmentation" else _metrics_table
        lines += ["", *table(result["metrics"]), "", f"report   {result['report']}"]
    if result["model_uri"]:
        lines += [
            f"model    {result['model_uri']} (version {result['model_version']}: {result['reason']})",
            "",
            "load it with",
            f'  import mlflow; mlflow.set_tracking_uri("{result["tracking_uri"]}")',
            f'  model = mlflow.pyfunc.load_model("{result["model_uri"]}")',
        ]
    return "\n".join(lines)


def _metrics_table(metrics: dict[str, float]) -> list[str]:
    width = max(map(len, metrics))
    return [f"{name:<{width}}{value:>12.4f}" for name, value in metrics.items()]


def _class_table(metrics: dict[str, float]) -> list[str]:
    """Classes down, measures across."""
    columns = [("dice", "Dice"), ("iou", "IoU"), ("hd95_mm", "HD95 mm"), ("surface_dice", "surface Dice")]
    classes = [name.split("/", 1)[1] for name in metrics if name.startswith("dice/")]
    width = max(len(name) for name in [*classes, "class"])
    lines = [f"{'class':<{width}}" + "".join(f"{label:>14}" for _, label in columns)]
    for name, suffix in [*((c, f"/{c}") for c in classes), ("mean", "")]:
        cells = [f"{metrics[c + suffix]:>14.4f}" if c + suffix in metrics else f"{'absent':>14}" for c, _ in columns]
        lines.append(f"{name:<{width}}" + "".join(cells))
    return lines


def _print(text: str) -> None:
    os.write(_result_fd, text.encode() + b"\n")


_result_fd = 1


def _keep_stdout_for_results() -> None:
    """Libraries and Ray's workers print where they like; whatever they say goes to stderr."""
    global _result_fd
    _result_fd = os.dup(1)
    os.dup2(2, 1)


def _configure_logging() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for name in ("flows", "data_pipelines", "unet_models"):
        logging.getLogger(name).setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake is a message and exit code 2, never a traceback (UNETFLOW_DEBUG=1 shows it)."""
    _keep_stdout_for_results()
    _configure_logging()
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line in this process; returns its exit code."""
    try:
        app(list(arguments), prog_name="unetflow", standalone_mode=False)
    except typer.TyperException as error:
        error.show() if hasattr(error, "show") else sys.stderr.write(f"unetflow: {error}\n")
        return error.exit_code
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("unetflow: stopped; the same command goes on from the last checkpoint\n")
        return 130
    except (ValueError, FloatingPointError, OSError) as error:  # UserError is a ValueError
        if os.environ.get("UNETFLOW_DEBUG"):
            raise
        sys.stderr.write(f"unetflow: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    main()
