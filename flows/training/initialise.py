"""The weights that a network takes over when its training starts, as one file for the workers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from data_pipelines import storage
from data_pipelines.errors import WeightsError, name_some
from flows.stages.attempt import Attempt
from flows.training.initial import NO_MEANING, Initialisation, Meaning, Origin, Reinitialised
from flows.training.origins import keeps_classes, open_weights
from unet_models.networks.weights_file import read_weights_file
from unet_models.training.transfer import Transfer, Weights, match_weights

if TYPE_CHECKING:
    from flows.training.task import TrainingTask

logger = logging.getLogger(__name__)

FILE = "initial.safetensors"
MOSTLY = 0.5
"""Share of the weights below which a start is likely a mistake."""
NUM_LISTED = 20
"""Weights that are listed on the console; the record and the report list all."""


def initialise(origin: Origin, task: TrainingTask, meaning: Meaning, attempt: Attempt) -> Initialisation:
    """Write what the task's network takes of an origin's weights to ``initial.safetensors`` of the attempt.

    Raises WeightsError where nothing fits, and for weights that are not finite.
    """
    with torch.device("meta"):  # names, shapes and types are all that is looked at
        own = task.build_model().state_dict()
    with open_weights(origin) as path:
        try:
            transfer = _match(origin, read_weights_file(path), own, task, meaning)
        except WeightsError as error:
            differences = "".join(f"; {each}" for each in _differences(origin, meaning))
            remedy = "name weights of this architecture, set train.model as theirs is, or leave init out"
            raise WeightsError(f"train.init: {error}{differences}; {remedy}") from None
        with storage.local_copy_of(attempt.uri(FILE)) as target:
            save_file(transfer.taken, target, metadata={"format": "pt"})
    done = Initialisation(
        origin=origin,
        num_taken=len(transfer.taken),
        share=transfer.share,
        reinitialised=tuple(Reinitialised(name=name, reason=reason) for name, reason in transfer.reinitialised.items()),
        unused=transfer.unused,
        remarks=tuple(_remarks(origin, meaning, transfer.share)),
    )
    _log(done)
    return done


def _match(origin: Origin, found: Weights, own: Weights, task: TrainingTask, meaning: Meaning) -> Transfer:
    if origin.member is not None:
        prefix = f"members.{origin.member}."
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    refused = None
    if not keeps_classes(origin, meaning) and origin.meaning is not None and task.of_classes:
        theirs, ours = (name_some(each.classes, 10) for each in (origin.meaning, meaning))
        refused = re.compile(task.of_classes), f"its rows represent {theirs} there but {ours} here"
    return match_weights(origin.source, found, own, refused)


def _remarks(origin: Origin, ours: Meaning, share: float) -> Iterator[str]:
    """Say what differs, and what is not known."""
    theirs = origin.meaning or NO_MEANING
    if share < MOSTLY:
        yield f"only {share:.1%} of the network's weights are taken"
    if origin.member is not None:
        yield f"the file holds several networks: number {origin.member} is taken"
    if ours.classes and not theirs.classes:
        yield "the classes that its rows represent are unknown: assumed to be the same where their number is"
    if unsaid := [field for field in ours.bound_to if field not in theirs.bound_to]:
        yield f"the {', '.join(unsaid)} that it was made for is unknown: assumed to be the same"
    yield from _differences(origin, ours)
    if origin.unknown_base:
        yield (
            f"the samples that the weights of {origin.unknown_base} were trained on are unknown: if held-out samples "
            "are among them, scores are too good"
        )


def _differences(origin: Origin, ours: Meaning) -> Iterator[str]:
    """Say what the weights were trained for or with, and is another here."""
    theirs = origin.meaning.made_for if origin.meaning else {}
    for field, value in ours.made_for.items():
        if field in theirs and theirs[field] != value:
            yield f"{field} was {_shown(theirs[field])}, and is {_shown(value)}"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _log(done: Initialisation) -> None:
    logger.info(
        "train.init: %d of %d tensors (%.1f %% of the weights) are those of %s",
        done.num_taken,
        done.num_taken + len(done.reinitialised),
        100 * done.share,
        done.origin.source,
    )
    for each in done.reinitialised[:NUM_LISTED]:
        logger.warning("train.init: %s is re-initialised: %s", each.name, each.reason)
    if (more := len(done.reinitialised) - NUM_LISTED) > 0:
        logger.warning("train.init: and %d more tensors, which the report lists", more)
    if done.unused:
        logger.warning("train.init: %d tensors are not part of the network: %s", len(done.unused), done.unused[0])
    for remark in done.remarks:
        logger.warning("train.init: %s", remark)
