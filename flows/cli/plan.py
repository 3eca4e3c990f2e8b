"""The command that plans a configuration for a folder of labelled volumes or images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import ConfigError
from flows.cli.base import PIPELINE_PANEL, app, parse_gigabytes, parse_within, print_result
from flows.config.locations import state_folder

logger = logging.getLogger(__name__)

Within = Annotated[str, typer.Option(help="Training time, such as 30m; default: the default number of steps.")]
Memory = Annotated[
    float,
    typer.Option(parser=parse_gigabytes, metavar="GB", help="GPU memory that training may take, such as 8GB."),
]
Gpu = Annotated[bool, typer.Option("--gpu", help="Plan for a GPU: larger batch and network.")]

Candidates = Annotated[
    bool, typer.Option("--candidates", help="Train slices and a low resolution, too, and register the best.")
]


@app.command("plan", rich_help_panel=PIPELINE_PANEL)
def plan(
    data: Annotated[Path, typer.Argument(help="Folder of cases with labels.", metavar="DATA")],
    within: Within = "",
    memory: Memory = 8.0,
    gpu: Gpu = False,
    candidates: Candidates = False,
) -> None:
    """Read a data set and print a configuration for it: each setting with its reason, by nnU-Net's rules."""
    if not data.is_dir():
        raise ConfigError(f"plan: there is no folder {data}; correct the path")
    print_result(planned_yaml(data, within, memory, gpu=gpu, candidates=candidates).rstrip())


def planned_yaml(
    data: Path, within: str = "", memory: float = 8.0, *, gpu: bool = False, candidates: bool = False
) -> str:
    """Plan for a folder of cases; return the configuration as YAML."""
    from flows.pipelines.segmentation.planning.candidates import plan_candidates
    from flows.pipelines.segmentation.planning.effort import in_order_of_choice
    from flows.pipelines.segmentation.planning.rules import plan_candidate, plan_settings
    from flows.pipelines.segmentation.planning.survey import survey
    from flows.pipelines.segmentation.planning.template import plan_yaml
    from flows.pipelines.segmentation.planning.wishes import Wishes

    seconds = parse_within(within) if within else None
    root = data.expanduser().absolute()
    surveyed = survey(root)
    wishes = Wishes(seconds, memory, gpu)
    found = plan_candidates(surveyed.images(), wishes.patch_memory_gb)
    if wishes.is_slow:
        found = in_order_of_choice(found, surveyed.num_held_out, seconds or 0)
    chosen, *others = found
    settings = plan_settings(surveyed, chosen, others, wishes)
    if not candidates:
        return plan_yaml(str(root), settings, others)
    for other in others:
        settings += plan_candidate(surveyed, found, other, wishes)
    return plan_yaml(str(root), settings)


def planned_config(data: Path, within: str = "") -> Path:
    """Plan for a folder of cases, and a training time, into a file of the user's state folder; return it."""
    path = state_folder() / "plans" / f"{data.resolve().name}.yaml"
    text = planned_yaml(data, within)
    with atomic_file(path) as partial:
        partial.write_text(text)
    logger.info("planned %s", path)
    return path
