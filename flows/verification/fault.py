"""Pieces of work of a verification, and the faults that they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["record", "output", "checkpoint", "shard"]

RUN_AGAIN = "unetflow run CONFIG.yaml --verify"
"""Command that makes again what is damaged, and continues from there."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing in storage that is not as it was written."""

    kind: Kind
    uri: str
    message: str
    """Fault and its location."""
    remedy: str
    """Command that repairs it, or what to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to be checked."""

    kind: Kind
    uri: str
    size: int
    """Bytes."""
    find: Callable[[], list[Fault]]
    """Reads all of it and returns what is wrong."""


@dataclass(frozen=True, slots=True)
class Checked:
    """All checked things of one kind."""

    kind: Kind
    number: int
    size: int
    """Bytes."""
    num_faults: int
