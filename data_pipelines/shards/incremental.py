"""Incremental sharding, shared by volumes, images and latents: only samples that no shard holds yet are made.

A sample is identified by the digest of its source bytes and of everything that shapes it. Samples that an earlier run
sharded are found by that digest and left where they are; the rest go into new shards. So new samples cost only their
own sharding, and an interrupted run is resumed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ConfigDict

from data_pipelines import storage
from data_pipelines.errors import NOT_RETRYABLE, Problem
from data_pipelines.progress import track
from data_pipelines.remote_errors import pack_error, unpack_error
from data_pipelines.shards.index import Row, is_adopted, read_table
from data_pipelines.specs import Spec

logger = logging.getLogger(__name__)

T = TypeVar("T")
Body = Callable[[str], tuple[list[Row], list[Problem]]]
"""Function that writes one shard from the text of a task; returns its index rows and the problems of bad samples."""


class Task(Spec):
    """One shard to be written."""

    text: str
    """Everything the body needs, as JSON: what travels between processes is data, not pickles."""
    num_samples: int
    """Number of samples that the task covers, for progress."""


class _Finished(Spec):
    """Outcome of one task."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    num_samples: int
    rows: list[Row]
    problems: list[Problem]
    error: str = ""
    """Error that ends the run, packed; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Actors:
    """Pool of processes that keep what is expensive to load, such as networks, between shards."""

    make_body: Callable[[], Body]
    """Builds the body, once in each process."""
    size: int
    """Maximum number of processes."""
    num_cpus: float = 1
    """CPUs of each process."""
    num_gpus: float = 0
    """GPUs of each process."""


@dataclass(frozen=True, slots=True)
class Sharded:
    """Outcome of sharding a data set."""

    rows: list[Row]
    """Index rows of all good samples, in the order of the data set."""
    problems: list[Problem]
    """Problems of the bad samples."""
    num_new: int
    """Number of good samples made by this run; the others were cache hits."""


def any_row(row: Row) -> bool:
    """Accept every row of an earlier run."""
    return True


def shard_missing(
    digests: Mapping[str, str],
    shards_uri: str,
    plan: Callable[[list[str]], list[Task]],
    body: Body | Actors,
    unit: str,
    is_usable: Callable[[Row], bool] = any_row,
    verb: str = "shard",
) -> Sharded:
    """Shard the samples that no shard below ``shards_uri`` holds. Needs an initialised Ray.

    ``digests`` maps sample id to digest, in the order of the data set; ``plan`` groups the ids that are missing into
    tasks; ``body`` writes one shard; rows of earlier runs that are not ``is_usable`` are ignored; ``verb`` and ``unit``
    appear in the progress display.
    """
    known = {row["digest"]: row for row in iter_known_rows(shards_uri) if is_usable(row)}
    missing = [sample_id for sample_id, digest in digests.items() if digest not in known]
    problems: list[Problem] = []
    num_new = 0
    for finished in _run(plan(missing), body, verb, unit):
        known |= {row["digest"]: row for row in finished.rows}
        problems += finished.problems
        num_new += len(finished.rows)
    return Sharded([known[digest] for digest in digests.values() if digest in known], problems, num_new)


def _run(tasks: Sequence[Task], body: Body | Actors, verb: str, unit: str) -> Iterator[_Finished]:
    """Run each task as one item of a streaming Ray Data job; only index rows and problems come back."""
    if not tasks:
        return
    import ray.data

    dataset = ray.data.from_items([task.model_dump_json() for task in tasks], override_num_blocks=len(tasks))
    if isinstance(body, Actors):
        dataset = dataset.map(
            _OnActor,
            fn_args=(body.make_body,),
            compute=ray.data.ActorPoolStrategy(size=min(body.size, len(tasks))),
            num_cpus=body.num_cpus,
            num_gpus=body.num_gpus,
        )
    else:
        dataset = dataset.map(_run_one, fn_args=(body,))
    outcomes = (_read_outcome(row["item"]) for row in dataset.iter_rows())
    counted = ((finished.num_samples, finished) for finished in outcomes)
    yield from track(counted, verb, unit, sum(task.num_samples for task in tasks))


def _read_outcome(text: str) -> _Finished:
    """Read the outcome of a task. Raises the error that ended it."""
    finished = _Finished.model_validate_json(text)
    if finished.error:
        raise unpack_error(finished.error)
    return finished


def _run_one(row: dict[str, str], body: Body) -> dict[str, str]:
    """Run one task; ``item`` is Ray Data's name for the column of bare items."""
    task = Task.model_validate_json(row["item"])
    try:
        rows, problems = body(task.text)
    except NOT_RETRYABLE as error:  # Ray would wrap it, and retry what cannot succeed
        return {"item": _Finished(num_samples=0, rows=[], problems=[], error=pack_error(error)).model_dump_json()}
    return {"item": _Finished(num_samples=task.num_samples, rows=rows, problems=problems).model_dump_json()}


class _OnActor:
    """Builds the body with the first task. (Constructor arguments would tie the actor to the driver.)"""

    body: Body | None = None

    def __call__(self, row: dict[str, str], make_body: Callable[[], Body]) -> dict[str, str]:
        if self.body is None:
            self.body = make_body()
        return _run_one(row, self.body)


def iter_known_rows(shards_uri: str) -> Iterator[Row]:
    """Iterate over the rows of every finished shard whose tar file is whole, without null columns."""
    for name in storage.list_names(shards_uri):
        if not name.endswith(".parquet"):
            continue
        uri = storage.join(shards_uri, name)
        table = read_table(uri).to_pylist()
        rows = [{column: value for column, value in row.items() if value is not None} for row in table]
        written = [row for row in rows if not is_adopted(row["shard"])]
        if (storage.size(uri.removesuffix(".parquet") + ".tar") or 0) >= max(map(_end, written), default=0):
            yield from rows
        else:
            logger.warning("%s: its tar file is missing or truncated; its samples are sharded again", uri)


def _end(row: Row) -> int:
    """Return the byte of the shard at which the sample's last part ends."""
    parts = [name.removeprefix("offset:") for name in row if name.startswith("offset:")]
    return max((row[f"offset:{part}"] + row[f"size:{part}"] for part in parts), default=0)


def group_by_size(
    items: Iterable[T], megabytes: Callable[[T], float], max_megabytes: float, max_items: int
) -> Iterator[list[T]]:
    """Group consecutive items, at most ``max_items`` and ``max_megabytes`` each; a larger item is a group alone."""
    group: list[T] = []
    total = 0.0
    for item in items:
        expected = megabytes(item)
        if group and (total + expected > max_megabytes or len(group) == max_items):
            yield group
            group, total = [], 0.0
        group.append(item)
        total += expected
    if group:
        yield group


def sample_key(sample_id: str) -> str:
    """Build the tar key of a sample: WebDataset splits names at the first dot, so dots and the like become %XX."""
    return re.sub(r"[^\w-]", lambda match: f"%{ord(match[0]):02X}", sample_id)
