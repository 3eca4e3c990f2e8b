"""The command that plans a configuration for a folder of labelled volumes or images."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.atomic import atomic_file
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError
from flows.cli.base import PIPELINE_PANEL, app, parse_gigabytes, parse_within, print_result
from flows.config.locations import state_folder

if TYPE_CHECKING:
    from flows.pipelines.segmentation.planning.options import PlanningOptions

logger = logging.getLogger(__name__)

Within = Annotated[str, typer.Option(help="Training time, such as 30m; default: the default number of steps.")]
Memory = Annotated[
    float | None,
    typer.Option(
        parser=parse_gigabytes,
        metavar="GB",
        help="GPU memory that training may take; default: 8GB, or what the network is meant for.",
    ),
]
Gpu = Annotated[
    bool | None,
    typer.Option("--gpu/--no-gpu", help="Plan for a GPU: larger batch and network; default: if this machine has one."),
]
Candidates = Annotated[
    bool, typer.Option("--candidates", help="Also train 2-D slices and a low resolution; register the best.")
]
DEFAULT_NETWORK = "nnunet"
Network = Annotated[
    str, typer.Option(help="Network: nnunet, or residual_encoder_m, _l or _xl for 8, 24 or 40 GB.", metavar="NAME")
]
Folds = Annotated[
    bool,
    typer.Option(
        "--folds", help="Train a network per fold and register their average; with --candidates, also a cascade."
    ),
]
DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
"""Devices of the drivers of NVIDIA and AMD."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options of a plan, as they were given."""

    within: str = ""
    """Training time; empty: the default number of steps."""
    memory: float | None = None
    """GPU memory in GB; None: what the network is meant for."""
    gpu: bool | None = None
    """True to plan for a GPU; None: if this machine has one."""
    candidates: bool = False
    network: str = DEFAULT_NETWORK
    folds: bool = False


@app.command("plan", rich_help_panel=PIPELINE_PANEL)
def plan(
    data: Annotated[Path, typer.Argument(help="Folder of cases with labels.", metavar="DATA")],
    within: Within = "",
    memory: Memory = None,
    gpu: Gpu = None,
    candidates: Candidates = False,
    network: Network = DEFAULT_NETWORK,
    folds: Folds = False,
) -> None:
    """Read a data set and print a configuration for it: each setting with its reason, by nnU-Net's rules."""
    if not data.is_dir():
        raise ConfigError(f"plan: there is no folder {data}; correct the path")
    print_result(planned_yaml(data, PlanOptions(within, memory, gpu, candidates, network, folds)).rstrip())


def planned_yaml(data: Path, options: PlanOptions = PlanOptions()) -> str:
    """Plan for a folder of cases; return the configuration as YAML."""
    from flows.pipelines.segmentation.planning.candidates import plan_candidates
    from flows.pipelines.segmentation.planning.effort import in_order_of_choice
    from flows.pipelines.segmentation.planning.rules import plan_candidate, plan_cascade, plan_settings
    from flows.pipelines.segmentation.planning.survey import survey
    from flows.pipelines.segmentation.planning.template import plan_yaml

    planning = _planning_options(options)
    root = data.expanduser().absolute()
    surveyed = survey(root)
    found = plan_candidates(surveyed.images(), planning.patch_memory_gb, planning.network)
    if planning.is_short_of_time:
        found = in_order_of_choice(found, surveyed.num_held_out, planning.within_seconds or 0)
    chosen, *others = found
    settings = plan_settings(surveyed, chosen, others, planning, found if options.candidates else ())
    if not options.candidates:
        return plan_yaml(str(root), settings, others)
    for other in others:
        settings += plan_candidate(surveyed, found, other, planning)
    if planning.folds:
        settings += plan_cascade(surveyed, found, planning)
    return plan_yaml(str(root), settings)


def _planning_options(given: PlanOptions) -> PlanningOptions:
    from flows.pipelines.segmentation.planning.networks import find_network
    from flows.pipelines.segmentation.planning.options import PlanningOptions

    network = find_network(given.network)
    use_gpu = finds_gpu() if given.gpu is None else given.gpu
    seconds = parse_within(given.within) if given.within else None
    planning = PlanningOptions(seconds, given.memory or network.memory_gb, use_gpu, network, given.folds)
    if given.gpu is None and use_gpu:
        logger.info("plans for the GPU of this machine, %g GB of its memory (--memory; --no-gpu)", planning.memory_gb)
    return planning


def planned_config(data: Path, options: PlanOptions) -> Path:
    """Plan for a folder of cases into a file of the user's state folder; return it."""
    root = data.resolve()
    path = state_folder() / "plans" / f"{root.name}-{digest_of(str(root))[:8]}.yaml"
    text = planned_yaml(data, options)
    with atomic_file(path) as partial:
        partial.write_text(text)
    logger.info("planned %s", path)
    return path


def finds_gpu() -> bool:
    """Tell whether torch sees a GPU. Without a driver it is not asked: its import takes seconds."""
    if not (shutil.which("nvidia-smi") or any(Path(device).exists() for device in DRIVERS)):
        return False
    import torch

    return torch.cuda.is_available()
