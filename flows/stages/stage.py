"""A stage: computed once, a cache hit ever after.

key  = sha256(stage name, format, the fields that change the output, digests of the input records)
work = <storage>/<stage>/<key>/<attempt>/...          an attempt's own folder: two attempts cannot mix
done = <storage>/<stage>/<key>/record.json            written last; names every output with size and digest
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from data_pipelines import storage
from data_pipelines.digests import digest_of, trusts_stamps, uri_digests
from flows.config.run_id import unique_name
from flows.stages.attempt import Attempt
from flows.stages.context import NO_CONTEXT, RunContext
from flows.stages.lock import hold_lock
from flows.stages.record import F, Figures, Record, read_record, write_record
from flows.stages.status import keep_status

logger = logging.getLogger(__name__)

FORMAT = 3
"""Part of every key; raised when records or outputs change for the same specification."""


def always_valid(record: Record[Figures]) -> bool:
    """Accept any record: the stage has no effects outside its outputs."""
    return True


@dataclass(frozen=True, slots=True)
class Stage(Generic[F]):
    """A verb, what its result depends on, and how it is computed."""

    name: str
    identity: dict[str, Any]
    """JSON of the fields that change the output."""
    inputs: tuple[Record[Figures], ...]
    compute: Callable[[Attempt], F]
    """Writes outputs, declares them on the attempt, and returns the figures."""
    figures: type[F]
    is_valid: Callable[[Record[F]], bool] = always_valid
    """Check of effects outside the outputs: shards that runs share, a model version on a server."""
    uses_gpu: bool = False
    """True where the stage runs on the GPUs that the configuration asks for."""

    @property
    def key(self) -> str:
        """Identity of the result."""
        return digest_of([self.name, FORMAT, self.identity, [record.digest for record in self.inputs]])

    def uri(self, root: str) -> str:
        """Return the stage's folder below the storage ``root``."""
        return storage.join(root, self.name, self.key)


@dataclass(frozen=True, slots=True)
class Done(Generic[F]):
    """A record, and whether it was a cache hit."""

    record: Record[F]
    cached: bool


def find_record(stage: Stage[F], root: str, *, check_external: bool = True) -> Record[F] | None:
    """Return the record of a finished stage whose outputs are all present and unchanged; None otherwise.

    ``check_external=False`` skips the checks of effects outside the outputs, such as the model version in MLflow.
    """
    uri = stage.uri(root)
    if (record := read_record(uri, stage.figures)) is None:
        return None
    found = uri_digests([record.output(name) for name in record.outputs], trust_stamps=trusts_stamps())
    for name, output in record.outputs.items():
        if found.get(record.output(name)) != output.sha256:
            logger.warning("%s: output %s is missing or changed, the stage runs again", uri, name)
            return None
    return record if not check_external or stage.is_valid(record) else None


def run_stage(stage: Stage[F], root: str, context: RunContext = NO_CONTEXT) -> Done[F]:
    """Return the stage's record, from the cache or computed now. A second process that asks waits for the first.

    ``context`` goes into the status while it runs, and its resources into the record.
    """
    uri = stage.uri(root)
    with hold_lock(uri) as require_lock:
        if found := find_record(stage, root):
            logger.info("%s: cache hit (%s)", stage.name, stage.key[:12])
            return Done(found, cached=True)
        with keep_status(uri, context.pipeline, context.model) as status:
            record = _compute(stage, Attempt(uri, stage.key, unique_name(), status=status), context)
            require_lock()
            write_record(record)
            return Done(record, cached=False)


def _compute(stage: Stage[F], attempt: Attempt, context: RunContext) -> Record[F]:
    logger.info("%s: running (%s)", stage.name, stage.key[:12])
    started = time.perf_counter()
    figures = stage.compute(attempt)
    seconds = time.perf_counter() - started
    all_seconds = seconds + figures.earlier_seconds()
    return Record[stage.figures](  # type: ignore[name-defined]  # a class at run time
        stage=stage.name,
        key=stage.key,
        uri=attempt.stage_uri,
        outputs=attempt.outputs,
        figures=figures,
        seconds=round(seconds, 3),
        cpu_seconds=round(all_seconds * context.num_cpus, 3),
        gpu_seconds=round(all_seconds * context.num_gpus, 3) if stage.uses_gpu else 0.0,
    )
