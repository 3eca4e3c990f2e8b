"""A storage as a whole: what there is to check, and checking it with progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from data_pipelines.errors import ConfigError
from data_pipelines.progress import track
from flows.verification.fault import Check, Checked, Fault, Kind
from flows.verification.shards import find_shards
from flows.verification.stages import find_stage_checks


def verify_storage(root: str) -> tuple[list[Checked], list[Fault]]:
    """Read everything in the storage ``root`` against its digests; return what was checked, and each fault.

    Raises ConfigError where there is nothing to check.
    """
    checks = [*find_stage_checks(root), *find_shards(root)]
    if not checks:
        raise ConfigError(f"{root} holds no record, checkpoint or shard: nothing was checked; --storage names another")
    total = sum(_megabytes(check) for check in checks)
    faults = [fault for found in track(_run(checks), "verify", "MB", total) for fault in found]
    return [_summarise(kind, checks, faults) for kind in get_args(Kind)], faults


def _run(checks: list[Check]) -> Iterator[tuple[int, list[Fault]]]:
    """Yield the megabytes of each check, which its progress counts, and its faults."""
    for check in checks:
        yield _megabytes(check), check.find()


def _megabytes(check: Check) -> int:
    return -(-check.size // 1_000_000)


def _summarise(kind: Kind, checks: list[Check], faults: list[Fault]) -> Checked:
    sizes = [check.size for check in checks if check.kind == kind]
    return Checked(kind, len(sizes), sum(sizes), sum(fault.kind == kind for fault in faults))
