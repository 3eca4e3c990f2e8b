"""Records, the outputs that they name, the shards that they count on, and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from data_pipelines import storage
from data_pipelines.errors import WeightsError
from data_pipelines.shards.index import shard_uri
from flows.cleanup.garbage import examine_folder
from flows.cleanup.storage import iter_stages
from flows.stages.lock import try_lock
from flows.stages.record import RECORD, Output, open_seal
from flows.training.checkpoints import iter_checkpoints, read_checkpoint
from flows.verification.fault import RUN_AGAIN, Check, Fault

_PASSED_OVER = "none needed: a training skips it; unetflow gc removes it once it is old and no record names it"


def find_stage_checks(root: str) -> Iterator[Check]:
    """Yield the records of a storage, their outputs and all checkpoints."""
    for uri in iter_stages(root):
        record = storage.join(uri, RECORD)
        if (size := storage.size(record)) is not None:
            yield Check("record", record, size, partial(_find_record_faults, uri))
            yield from _find_outputs(uri)
        elif _is_running(uri):
            continue  # a checkpoint may be half written
        yield from _find_checkpoints(uri)


def _is_running(stage_uri: str) -> bool:
    with try_lock(stage_uri) as is_free:
        return not is_free


def _read(stage_uri: str) -> tuple[dict[str, Output], Mapping[str, Any]]:
    """Read the outputs and the figures of any stage's record. Raises ValueError where it cannot be read."""
    values = open_seal(storage.read_bytes(storage.join(stage_uri, RECORD)))
    try:
        if values["key"] != stage_uri.rsplit("/", 1)[1]:
            raise ValueError(f"it belongs to the stage {values['key']}")
        outputs = {name: Output.model_validate(output) for name, output in values["outputs"].items()}
        return outputs, dict(values["figures"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not a record: {error!r}") from None


def _find_record_faults(stage_uri: str) -> list[Fault]:
    uri = storage.join(stage_uri, RECORD)
    try:
        _, figures = _read(stage_uri)
    except ValueError as error:
        return [Fault("record", uri, f"cannot be read: {str(error).splitlines()[0]}", RUN_AGAIN)]
    folder = storage.join(stage_uri.rsplit("/", 2)[0], str(figures.get("shards", "")))
    sizes = {shard_uri(folder, name): size for name, size in dict(figures.get("shard_sizes", {})).items()}
    found = {shard: storage.size(shard) for shard in sizes}
    return [
        Fault("record", uri, f"its shard {shard} {_size_fault(found[shard], size)}", RUN_AGAIN)
        for shard, size in sizes.items()
        if found[shard] != size
    ]


def _find_outputs(stage_uri: str) -> Iterator[Check]:
    try:
        outputs, _ = _read(stage_uri)
    except ValueError:
        return  # the record's own fault
    for output in outputs.values():
        uri = output.resolve(stage_uri)
        yield Check("output", uri, storage.size(uri) or 0, partial(_find_output_faults, uri, output))


def _find_output_faults(uri: str, output: Output) -> list[Fault]:
    size = storage.size(uri)
    if size != output.size:
        return [Fault("output", uri, _size_fault(size, output.size), RUN_AGAIN)]
    if storage.digest(uri) != output.sha256:
        return [Fault("output", uri, "is damaged: SHA-256 mismatch", RUN_AGAIN)]
    return []


def _size_fault(found: int | None, expected: int) -> str:
    return "is missing" if found is None else f"has {found} of {expected} bytes"


def _find_checkpoints(stage_uri: str) -> Iterator[Check]:
    for step, attempt, name in sorted(iter_checkpoints(stage_uri)):
        uri = storage.join(stage_uri, attempt, name)
        yield Check("checkpoint", uri, examine_folder(uri).size, partial(_find_checkpoint_faults, uri, step))


def _find_checkpoint_faults(uri: str, step: int) -> list[Fault]:
    try:
        read_checkpoint(uri, step)
    except WeightsError as error:
        return [Fault("checkpoint", uri, str(error), _PASSED_OVER)]
    return []
