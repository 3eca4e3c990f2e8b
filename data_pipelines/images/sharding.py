"""Images to checked samples of the wanted size in shards, over a Ray cluster; only new ones cost anything.

Filters look at the caption and at the size of the original, which the index keeps: another ``min_side`` leaves shards
as they are. An image that the filters of a run skip costs a row of the shard's Parquet file and no bytes of the tar, so
it is neither decoded nor read again by the next run.

An image of a WebDataset tar that needs no change is not copied either: it is decoded once, for its checks and the
digest of its pixels, and its row points into the tar where it lies.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines import storage
from data_pipelines.digests import digest_of, try_file_digests
from data_pipelines.errors import Problem, ProblemList
from data_pipelines.files.reading import named_errors
from data_pipelines.images.buckets import bucket_name, bucket_size, cut_size
from data_pipelines.images.captions import captions_of, captions_reason, loses_captions
from data_pipelines.images.changes import CHANGES, CUT_CAPTIONS, ENLARGED, SEVERAL_CAPTIONS, SEVERAL_LINES
from data_pipelines.images.examples import Example, Examples
from data_pipelines.images.parts import PartReader
from data_pipelines.images.pictures import (
    LeftOut,
    Picture,
    max_encoded_bytes,
    read_picture,
    size_reason,
)
from data_pipelines.images.specs import ImageSpec
from data_pipelines.shards.damage import map_shard, place_in
from data_pipelines.shards.incremental import Task, group_by_size, sample_key, shard_missing
from data_pipelines.shards.index import CAPTION, Row, is_adopted
from data_pipelines.shards.writer import Sample, shard_name, write_shard
from data_pipelines.specs import Spec

FORMAT = 4
"""Version of the samples; raise it when they change for the same source and spec, and shards are made anew."""
MAX_EXAMPLES_PER_SHARD = 1000
"""A few seconds of work: what an interrupted run loses, and the unit that is handed to one core of many."""
UNKNOWN_MEGABYTES = 0.8
"""Size that an image is taken to have before it is read: 512 pixels squared."""
DUPLICATE, OTHER_CLASS = "duplicate", "duplicate of an image of another class"
"""Reason of examples that are skipped for having the pixels of an earlier one."""


@dataclass(frozen=True, slots=True)
class ShardedExamples:
    """Outcome of sharding images."""

    rows: list[Row]
    """Index rows of all examples to train and validate on, in the order of the examples."""
    problems: list[Problem]
    """Problems of the bad examples."""
    num_new: int
    """Number of examples read by this run; the others were cache hits."""
    left_out: dict[str, int]
    """Number of skipped examples by the field of the spec that skips them (``min_side``, ...), ``DUPLICATE`` or
    ``OTHER_CLASS``."""
    changes: dict[str, int] = field(default_factory=dict)
    """Name of a change, see ``changes``, to the number of images that it was made in."""


class Work(Spec):
    """One shard to be written: everything a task needs, small enough to send."""

    uri: str
    """URI of the shard."""
    examples: tuple[Example, ...]
    digests: tuple[str, ...]
    """Digest of each example's sample."""
    spec: ImageSpec


def example_digests(examples: Examples, spec: ImageSpec) -> tuple[dict[str, str], list[Problem]]:
    """Compute example_id -> digest of its id, its source bytes, its caption and everything that shapes the sample.

    The source of an image in a Parquet or tar file is the digest of that file and the row or member: a changed file
    makes all of its examples new. Also returns the problems of examples without a digest, whose file cannot be read.
    """
    shaping = digest_of(_shaping(spec))
    files, errors = try_file_digests(Path(example.image) for example in examples.examples)
    digests, problems = {}, ProblemList()
    for e in examples.examples:
        source = files.get(Path(e.image))
        if source is not None:
            digests[e.example_id] = digest_of([shaping, e.example_id, source, e.part, e.caption, e.more_captions])
            continue
        with problems.collecting(e.example_id), named_errors(Path(e.where)):
            raise errors[Path(e.image)]
    return digests, problems


def examples_folder(spec: ImageSpec) -> str:
    """Return the folder, below storage, of all shards whose samples are shaped alike."""
    return f"shards/{digest_of(_shaping(spec))[:12]}"


def _shaping(spec: ImageSpec) -> dict[str, object]:
    """Return everything but source and caption that decides a sample's bytes."""
    shaping: dict[str, object] = {"captioned": FORMAT, "background": spec.background}
    sizes: dict[str, dict[str, object]] = {
        "none": {"crop": spec.crop},
        "square": {"resolution": spec.resolution},
        "buckets": {"resolution": spec.resolution, "buckets": spec.bucket_multiple},
    }
    return shaping | sizes[spec.crop]


def shard_examples(examples: Examples, spec: ImageSpec, shards_uri: str, digests: Mapping[str, str]) -> ShardedExamples:
    """Check and shard every example with a digest that is not in a shard yet. Needs an initialised Ray."""
    readable = [e for e in examples.examples if e.example_id in digests]
    reasons = {e.example_id: captions_reason((e.caption, *e.more_captions), spec) for e in readable}
    wanted = {e.example_id: e for e in readable if reasons[e.example_id] is None}

    def plan(missing: list[str]) -> list[Task]:
        return _plan([wanted[example_id] for example_id in missing], spec, shards_uri, digests)

    def is_usable(row: Row) -> bool:
        if is_adopted(row["shard"]):  # the tar may lie elsewhere now
            example = wanted.get(row["case_id"])
            return example is not None and row["shard"] == str(storage.local_path(example.image))
        # One that was skipped unread is wanted now where the filters have changed.
        return "image_ext" in row or size_reason(row["width"], row["height"], spec) is not None

    chosen = {example_id: digests[example_id] for example_id in wanted}
    sharded = shard_missing(chosen, shards_uri, plan, _shard_text, "images", is_usable)
    left_out = Counter(reason for reason in reasons.values() if reason is not None)
    classes = {example_id: example.class_name for example_id, example in wanted.items() if example.class_name}
    named = (row | {"class_name": classes.get(row["case_id"])} for row in sharded.rows)
    rows = _kept(named, spec, left_out)
    problems = [*examples.problems, *sharded.problems]
    return ShardedExamples(rows, problems, sharded.num_new, dict(left_out), _count_changes(rows))


def _kept(rows: Iterable[Row], spec: ImageSpec, left_out: Counter[str]) -> list[Row]:
    """Return the rows that no filter skips, with their ``bucket`` and ``captions``; ``left_out`` counts the others.

    Of rows with equal pixels the first is kept, with the captions and the ids (``copies``) of all; of those of another
    class it takes no captions, and they are counted as such. Frames of clips are all kept: a scene that stands still is
    part of its clip. A row some of whose captions are skipped has that among its ``changes``.
    """
    kept: list[Row] = []
    is_deduplicated = spec.deduplicate and not spec.clips
    first_of: dict[tuple[str, str], Row] = {}
    for row in rows:
        size = row["width"], row["height"]
        if reason := size_reason(*size, spec):
            left_out[reason] += 1
            continue
        bucket, captions = bucket_name(cut_size(*size, spec)), captions_of(row, spec)
        changes = [*row.get("changes", ()), *([CUT_CAPTIONS] if loses_captions(row, spec) else [])]
        found = row | {"bucket": bucket, "caption": captions[0], "captions": captions, "changes": changes}
        first = first_of.setdefault((bucket, row["pixel_sha256"]), found) if is_deduplicated else found
        if first is found:
            kept.append(found)
        else:
            first["copies"] = [*first.get("copies", ()), row["case_id"]]
            if row["class_name"] != first["class_name"]:
                left_out[OTHER_CLASS] += 1
                continue
            left_out[DUPLICATE] += 1
            first["captions"] = list(dict.fromkeys([*first["captions"], *captions]))
            if CUT_CAPTIONS in changes and CUT_CAPTIONS not in first["changes"]:
                first["changes"].append(CUT_CAPTIONS)
    return kept


def _count_changes(rows: Iterable[Row]) -> dict[str, int]:
    """Count the images of each change, in the order of ``CHANGES``."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["changes"])
        wanted = bucket_size(row["bucket"])
        counts[ENLARGED] += row["width"] < wanted[0] or row["height"] < wanted[1]
        counts[SEVERAL_CAPTIONS] += len(row["captions"]) > 1
        counts[SEVERAL_LINES] += any("\n" in caption for caption in row["captions"])
    return {name: counts[name] for name in CHANGES if counts[name]}


# --- one shard -------------------------------------------------------------------------------------------------------


def _plan(examples: list[Example], spec: ImageSpec, shards_uri: str, digests: Mapping[str, str]) -> list[Task]:
    """Group examples into shards of at most ``spec.shard_megabytes``, each taken to be as large as its raw pixels."""
    tasks = []
    megabytes = UNKNOWN_MEGABYTES if spec.crop == "none" else 3 * spec.resolution**2 / 1e6
    # Runs with different filters may write at once: the content of a shard, and so its name, depends on them.
    filters = f"{spec.min_side} {spec.max_aspect_ratio}"
    for group in group_by_size(examples, lambda _: megabytes, spec.shard_megabytes, MAX_EXAMPLES_PER_SHARD):
        chosen = tuple(digests[example.example_id] for example in group)
        uri = storage.join(shards_uri, shard_name([filters, *chosen]))
        work = Work(uri=uri, examples=tuple(group), digests=chosen, spec=spec)
        tasks.append(Task(text=work.model_dump_json(), num_samples=len(group)))
    return tasks


def _shard_text(text: str) -> tuple[list[Row], list[Problem]]:
    return shard_one(Work.model_validate_json(text))


def shard_one(work: Work) -> tuple[list[Row], list[Problem]]:
    """Read some images and write the good ones as one shard; the body of a cluster task."""
    problems = ProblemList()
    reader = PartReader(max_encoded_bytes(work.spec), work.spec.max_pixels)

    def samples() -> Iterator[Sample]:
        for example, digest in zip(work.examples, work.digests, strict=True):
            with problems.collecting(example.example_id):
                data = reader.read(example)
                yield _build_sample(example, digest, data, work.spec, reader.changes(example))

    rows = write_shard(work.uri, samples())
    return rows, problems


def _build_sample(example: Example, digest: str, data: bytes, spec: ImageSpec, changes: tuple[str, ...] = ()) -> Sample:
    """Build index row and parts of one image; without parts where a filter skips it, or it stays in the user's tar.

    ``changes`` names what was changed before ``data``.

    Raises DataError where the image cannot be used.
    """
    found = read_picture(data, example.where, spec)
    row = {
        "key": sample_key(example.example_id),
        "case_id": example.example_id,
        "digest": digest,
        "caption": example.caption,
        "more_captions": list(example.more_captions),
        "width": found.width,
        "height": found.height,
    }
    if isinstance(found, LeftOut):
        return row, {}
    changed = list(dict.fromkeys((*changes, *found.changes)))
    row |= {"pixel_sha256": found.pixel_sha256, "image_ext": found.extension, "changes": changed}
    if example.place is not None and found.encoded is data:
        return row | _place_in_tar(example.image, example.place, found), {}
    text = "\n".join((example.caption, *example.more_captions))
    return row, {found.extension: found.encoded} | ({CAPTION: text.encode()} if text else {})


def _place_in_tar(tar: str, place: tuple[int, int], picture: Picture) -> Row:
    """Return the columns of a picture that stays in the user's tar."""
    with open(tar, "rb") as stream:
        found = place_in(map_shard(stream), *place)
    return {
        "shard": str(storage.local_path(tar)),
        "content_sha256": hashlib.sha256(picture.encoded).hexdigest(),
        **found.to_columns(picture.extension),
    }
