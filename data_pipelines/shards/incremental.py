"""Incremental sharding, shared by volumes, images and latents: only samples that no shard holds yet are made.

A sample is identified by the digest of its source bytes and of everything that shapes it. Samples that an earlier run
sharded are found by that digest and left where they are; the rest go into new shards. So new samples cost only their
own sharding, and an interrupted run is resumed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ConfigDict

from data_pipelines import storage
from data_pipelines.atomic import remove_leftovers
from data_pipelines.digests import trusts_stamps
from data_pipelines.errors import NOT_RETRYABLE, DataError, Problem
from data_pipelines.progress import track
from data_pipelines.remote_errors import pack_error, unpack_error
from data_pipelines.shards.damage import find_damage
from data_pipelines.shards.index import Row, is_adopted, places_of, read_rows
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
    appear in the progress display. With ``--verify`` the bytes of all known samples are checked, and those of damaged
    shards are made again; the problems of those that are damaged in the user's own tars are returned.
    """
    wanted = set(digests.values())
    known = read_known(shards_uri, lambda row: row["digest"] in wanted and is_usable(row), verify=not trusts_stamps())
    problems = known.problems
    lost = {problem.case_id for problem in problems}
    missing = [i for i, digest in digests.items() if digest not in known.rows and i not in lost]
    tasks = [task for group in _by_former_shard(missing, digests, known.former) for task in plan(group)]
    num_new = 0
    for finished in _run(tasks, body, verb, unit):
        known.rows |= {row["digest"]: row for row in finished.rows}
        problems += finished.problems
        num_new += len(finished.rows)
    if storage.is_local(shards_uri):
        remove_leftovers(storage.local_path(shards_uri))
    rows = [known.rows[digest] for digest in digests.values() if digest in known.rows]
    return Sharded(rows, problems, num_new)


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


@dataclass(slots=True)
class Known:
    """Samples of finished shards, by digest."""

    rows: dict[str, Row] = field(default_factory=dict)
    """Rows of the sound ones."""
    former: dict[str, str] = field(default_factory=dict)
    """Names of the shards of those that are damaged or gone, and are sharded again."""
    problems: list[Problem] = field(default_factory=list)
    """Problems of those that are damaged in the user's tars."""


def read_known(shards_uri: str, is_wanted: Callable[[Row], bool], *, verify: bool) -> Known:
    """Read the wanted samples of every finished shard; with ``verify`` all their bytes are checked."""
    known = Known()
    for name in storage.list_names(shards_uri):
        if not name.endswith(".parquet"):
            continue
        uri = storage.join(shards_uri, name)
        try:
            rows = [row for row in read_rows(uri) if is_wanted(row)]
        except DataError as error:
            logger.warning("%s: %s; its samples are sharded again", uri, error.problems[0].message)
            continue
        adopted, own = ([row for row in rows if is_adopted(row["shard"]) == is_ours] for is_ours in (True, False))
        _add_own(known, own, uri, shards_uri, verify=verify)
        _add_adopted(known, adopted, shards_uri, verify=verify)
    return known


def _add_own(known: Known, rows: list[Row], uri: str, shards_uri: str, *, verify: bool) -> None:
    tar = uri.removesuffix(".parquet") + ".tar"
    reason = ""
    if (storage.size(tar) or 0) < max(map(_end, rows), default=0):
        reason = "it is missing or truncated"
    elif verify and (damage := next(find_damage(rows, shards_uri), None)):
        reason = damage.message
    if reason:
        logger.warning("%s: %s; its samples are sharded again", tar, reason)
        known.former |= {row["digest"]: row["shard"] for row in rows}
    else:
        known.rows |= {row["digest"]: row for row in rows}


def _add_adopted(known: Known, rows: list[Row], shards_uri: str, *, verify: bool) -> None:
    """Add samples of the user's tars. Damaged ones cannot be made again: the source of their digest is lost."""
    damaged = {each.case_id: each for each in find_damage(rows, shards_uri)} if verify else {}
    known.problems += [damage.to_problem(case_id) for case_id, damage in damaged.items()]
    known.rows |= {row["digest"]: row for row in rows if row["case_id"] not in damaged}


def _end(row: Row) -> int:
    """Return the byte of the shard at which the sample's last part ends."""
    return max((place.end for place in places_of(row).values()), default=0)


def _by_former_shard(missing: Sequence[str], digests: Mapping[str, str], former: Mapping[str, str]) -> list[list[str]]:
    """Group sample ids by the shard that they were in: it gets the same name and bytes again, so no index changes."""
    groups: dict[str, list[str]] = {}
    for sample_id in missing:
        groups.setdefault(former.get(digests[sample_id], ""), []).append(sample_id)
    return list(groups.values())


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
    """Build the tar key of a sample: WebDataset splits names at the first dot, so dots and the like become %XX for each
    byte of their UTF-8, and no two ids share a key."""

    def escape(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))

    return re.sub(r"[^\w-]", escape, sample_id)
