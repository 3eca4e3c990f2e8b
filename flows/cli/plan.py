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
    from flows.pipelines.segmentation.planning.wishes import Wishes

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
        "--folds", help="Train a network per fold and register their average; with --candidates a cascade, too."
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
    """Whether to plan for a GPU; None: if this machine has one."""
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

    wishes = _wishes(options)
    root = data.expanduser().absolute()
    surveyed = survey(root)
    found = plan_candidates(surveyed.images(), wishes.patch_memory_gb, wishes.network)
    if wishes.is_slow:
        found = in_order_of_choice(found, surveyed.num_held_out, wishes.within_seconds or 0)
    chosen, *others = found
    settings = plan_settings(surveyed, chosen, others, wishes, found if options.candidates else ())
    if not options.candidates:
        return plan_yaml(str(root), settings, others)
    for other in others:
        settings += plan_candidate(surveyed, found, other, wishes)
    if wishes.folds:
        settings += plan_cascade(surveyed, found, wishes)
    return plan_yaml(str(root), settings)


def _wishes(options: PlanOptions) -> Wishes:
    from flows.pipelines.segmentation.planning.networks import find_network
    from flows.pipelines.segmentation.planning.wishes import Wishes

    network = find_network(options.network)
    use_gpu = finds_gpu() if options.gpu is None else options.gpu
    seconds = parse_within(options.within) if options.within else None
    wishes = Wishes(seconds, options.memory or network.memory_gb, use_gpu, network, options.folds)
    if options.gpu is None and use_gpu:
        logger.info("plans for the GPU of this machine, %g GB of its memory (--memory; --no-gpu)", wishes.memory_gb)
    return wishes


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
