"""Weights that a training starts from: where they come from, what they mean, and what the network takes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_pipelines.specs import Spec


class Meaning(Spec):
    """Meaning of a network's weights beyond its architecture."""

    classes: tuple[str, ...] = ()
    """Names of the classes or regions that tensors of the network have a row for, in their order; empty: none."""
    bound_to: Mapping[str, Any] = {}
    """Requirements of the weights, by field of the configuration: digests of other networks, settings of the noise
    process. Weights with another value are refused."""
    made_for: Mapping[str, Any] = {}
    """Further facts about the training, by field of the configuration. Differences are said."""


def prefixed(field: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Name the settings of a group by their fields of the configuration."""
    return {f"{field}.{name}": value for name, value in values.items()}


NO_MEANING = Meaning()
"""Weights that stand for nothing beyond their architecture."""
Describe = Callable[[Mapping[str, Any]], Meaning]
"""Reads the meaning from the JSON file beside a registered model's weights."""


class Origin(Spec):
    """Weights that a training may start from."""

    source: str
    """Origin as shown to users: ``models:/NAME/VERSION``, ``runs:/ID/NAME`` or a path."""
    uri: str
    """Location to read them from: that of a safetensors file, or of a model in the registry."""
    sha256: str
    """SHA-256 of the safetensors file."""
    member: int | None = None
    """Number of the network, of several that are in one file; None: there is one."""
    meaning: Meaning | None = None
    """None: not known."""
    trained_on: str = ""
    """URI of the table of the samples that shaped them; empty: not known."""
    unknown_base: str = ""
    """Weights of unknown samples that these were trained from in turn, or these themselves; empty: none."""


class Reinitialised(Spec):
    """A weight that begins as a random one all the same."""

    name: str
    reason: str


class Initialisation(Spec):
    """Weights that a network took over, and those that it did not."""

    origin: Origin
    num_taken: int
    """Tensors that were taken."""
    share: float
    """Share of the network's weights that was taken, 0..1."""
    reinitialised: tuple[Reinitialised, ...]
    """Tensors that were not."""
    unused: tuple[str, ...]
    """Tensors that the network does not have."""
    remarks: tuple[str, ...]
    """Differences between what the weights were trained for and this training, and what is not known of them."""
