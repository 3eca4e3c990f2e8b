"""What sharding volumes and sharding captioned images share: only samples that stand in no shard yet are made.

A sample is known by the digest of its source bytes and of everything that shapes it. Samples that a former run
sharded are found by that digest and left where they are; the rest go into new shards. So new samples cost only their
own sharding, and a run that broke off goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from data_pipelines import storage
from data_pipelines.errors import Problem
from data_pipelines.progress import track
from data_pipelines.shards.index import Row, is_adopted, read_table

logger = logging.getLogger(__name__)

T = TypeVar("T")
Body = Callable[[str], tuple[list[Row], list[Problem]]]
"""Writes one shard from the text of a task: its index rows, and what is wrong with the samples that are missing."""


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to be written."""

    text: str
    """Everything the body needs, as text: what travels between processes is data, not pickles."""
    num_samples: int


@dataclass(frozen=True, slots=True)
class Actors:
    """Processes that keep what is dear to load, such as networks, from one shard to the next."""

    make_body: Callable[[], Body]
    """Called once in each process."""
    size: int
    num_cpus: float = 1
    num_gpus: float = 0


@dataclass(frozen=True, slots=True)
class Sharded:
    """What sharding found and made."""

    rows: list[Row]
    """Index rows of all good samples, in the order of the data set."""
    problems: list[Problem]
    num_new: int
    """Good samples that were preprocessed now; the others stood in shards already."""


def shard_missing(
    digests: Mapping[str, str],
    shards_uri: str,
    plan: Callable[[list[str]], list[Task]],
    body: Body | Actors,
    unit: str,
    is_usable: Callable[[Row], bool] = lambda row: True,
    verb: str = "shard",
) -> Sharded:
    """Shard the samples that no shard below ``shards_uri`` holds. Needs an initialised Ray.

    ``digests`` is sample id -> digest, in the order of the data set; ``plan`` makes tasks of the ids that are missing;
    ``body`` writes one shard; ``verb`` and ``unit`` are what progress shows; rows of former runs that are not usable do
    not count.
    """
    known = {row["digest"]: row for row in iter_known_rows(shards_uri) if is_usable(row)}
    missing = [sample_id for sample_id, digest in digests.items() if digest not in known]
    problems: list[Problem] = []
    num_new = 0
    for rows, found in _run(plan(missing), body, verb, unit):
        known |= {row["digest"]: row for row in rows}
        problems += found
        num_new += len(rows)
    return Sharded([known[digest] for digest in digests.values() if digest in known], problems, num_new)


def _run(tasks: Sequence[Task], body: Body | Actors, verb: str, unit: str) -> Iterator[tuple[list[Row], list[Problem]]]:
    """Each shard is one item of a streaming Ray Data job; only index rows and problems come back."""
    if not tasks:
        return
    import ray.data

    items = [asdict(task) for task in tasks]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    if isinstance(body, Actors):
        dataset = dataset.map(
            _OnActor,
            fn_args=(body.make_body,),
            compute=ray.data.ActorPoolStrategy(size=min(body.size, len(items))),
            num_cpus=body.num_cpus,
            num_gpus=body.num_gpus,
        )
    else:
        dataset = dataset.map(_run_one, fn_args=(body,))
    finished = ((row["num_samples"], row) for row in dataset.iter_rows())
    for row in track(finished, verb, unit, sum(task.num_samples for task in tasks)):
        yield json.loads(row["rows"]), [Problem(**problem) for problem in json.loads(row["problems"])]


def _run_one(task: dict[str, Any], body: Body) -> dict[str, Any]:
    rows, problems = body(task["text"])
    listed = json.dumps([asdict(problem) for problem in problems])
    return {"num_samples": task["num_samples"], "rows": json.dumps(rows), "problems": listed}


class _OnActor:
    """Makes the body with the first task. (Constructor arguments would tie the actor to the driver.)"""

    body: Body | None = None

    def __call__(self, task: dict[str, Any], make_body: Callable[[], Body]) -> dict[str, Any]:
        if self.body is None:
            self.body = make_body()
        return _run_one(task, self.body)


def iter_known_rows(shards_uri: str) -> Iterator[Row]:
    """Rows of every finished shard whose tar file is whole, without the parts that only their neighbours have."""
    for name in sorted(storage.list_names(shards_uri)):
        if not name.endswith(".parquet"):
            continue
        uri = storage.join(shards_uri, name)
        table = read_table(uri).to_pylist()
        rows = [{column: value for column, value in row.items() if value is not None} for row in table]
        written = [row for row in rows if not is_adopted(row["shard"])]
        if (storage.size(uri.removesuffix(".parquet") + ".tar") or 0) >= max(map(_end, written), default=0):
            yield from rows
        else:
            logger.warning("%s: its tar file is missing or cut short; its samples are sharded again", uri)


def _end(row: Row) -> int:
    """Where in its shard the sample's last part ends."""
    parts = [name.removeprefix("offset:") for name in row if name.startswith("offset:")]
    return max((row[f"offset:{part}"] + row[f"size:{part}"] for part in parts), default=0)


def group_by_size(
    items: Iterable[T], megabytes: Callable[[T], float], max_megabytes: float, max_items: int
) -> Iterator[list[T]]:
    """Consecutive items in groups of at most ``max_items`` and ``max_megabytes``; a larger item is a group alone."""
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
    """The tar key of a sample: WebDataset splits names at the first dot, so dots and the like are written as %XX."""
    return re.sub(r"[^\w-]", lambda match: f"%{ord(match[0]):02X}", sample_id)
