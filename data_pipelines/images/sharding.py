"""Captioned images to checked samples of the wanted size in shards, over a Ray cluster; only new ones cost anything.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipelines import storage
from data_pipelines.digests import digest_of, file_digests
from data_pipelines.errors import ConfigError, Problem, ProblemList
from data_pipelines.images.buckets import bucket_name, cut_size
from data_pipelines.images.examples import Example, Examples
from data_pipelines.images.parts import PartReader
from data_pipelines.images.pictures import (
    LeftOut,
    Picture,
    caption_reason,
    max_encoded_bytes,
    read_picture,
    size_reason,
)
from data_pipelines.images.specs import CaptionedSpec
from data_pipelines.shards.incremental import Task, group_by_size, sample_key, shard_missing
from data_pipelines.shards.index import CAPTION, Row, is_adopted
from data_pipelines.shards.writer import Sample, shard_name, write_shard
from data_pipelines.specs import Spec

FORMAT = 1
"""Version of the samples; raise it when they change for the same source and spec, and shards are made anew."""
MAX_EXAMPLES_PER_SHARD = 1000
"""A few seconds of work: what an interrupted run loses, and the unit that is handed to one core of many."""
DUPLICATE = "duplicate"
"""Reason of examples that are skipped for having the pixels of an earlier one."""


@dataclass(frozen=True, slots=True)
class ShardedExamples:
    """Outcome of sharding captioned images."""

    rows: list[Row]
    """Index rows of all examples to train and validate on, in the order of the examples."""
    problems: list[Problem]
    """Problems of the bad examples."""
    num_new: int
    """Number of examples read by this run; the others were cache hits."""
    left_out: dict[str, int]
    """Number of skipped examples by the field of the spec that skips them (``min_side``, ...), or ``duplicate``."""


class Work(Spec):
    """One shard to be written: everything a task needs, small enough to send."""

    uri: str
    """URI of the shard."""
    examples: tuple[Example, ...]
    digests: tuple[str, ...]
    """Digest of each example's sample."""
    spec: CaptionedSpec


def example_digests(examples: Examples, spec: CaptionedSpec) -> dict[str, str]:
    """Compute example_id -> digest of its id, its source bytes, its caption and everything that shapes the sample.

    The source of an image in a Parquet or tar file is the digest of that file and the row or member: a changed file
    makes all of its examples new.
    """
    shaping = digest_of(_shaping(spec))
    files = file_digests(Path(example.image) for example in examples.examples)
    return {
        e.example_id: digest_of([shaping, e.example_id, files[Path(e.image)], e.part, e.caption])
        for e in examples.examples
    }


def examples_folder(spec: CaptionedSpec) -> str:
    """Return the folder, below storage, of all shards whose samples are shaped alike."""
    return f"shards/{digest_of(_shaping(spec))[:12]}"


def _shaping(spec: CaptionedSpec) -> dict[str, object]:
    """Return everything but source and caption that decides a sample's bytes."""
    shaping: dict[str, object] = {"captioned": FORMAT, "resolution": spec.resolution, "background": spec.background}
    return shaping | ({"buckets": spec.bucket_multiple} if spec.crop == "buckets" else {})


def shard_examples(
    examples: Examples, spec: CaptionedSpec, shards_uri: str, digests: Mapping[str, str]
) -> ShardedExamples:
    """Check and shard every example that is not in a shard yet. Needs an initialised Ray."""
    reasons = {example.example_id: caption_reason(example.caption, spec) for example in examples.examples}
    wanted = {e.example_id: e for e in examples.examples if reasons[e.example_id] is None}

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
    rows = list(_kept(sharded.rows, spec, left_out))
    return ShardedExamples(rows, [*examples.problems, *sharded.problems], sharded.num_new, dict(left_out))


def _kept(rows: Iterable[Row], spec: CaptionedSpec, left_out: Counter[str]) -> Iterator[Row]:
    """Iterate over the rows that no filter skips, with their ``bucket``; ``left_out`` counts the others.

    Of rows with equal pixels the first is kept.
    """
    seen: set[tuple[str, bytes]] = set()
    for row in rows:
        size = row["width"], row["height"]
        reason, bucket = size_reason(*size, spec), bucket_name(cut_size(*size, spec))
        if reason is None and spec.deduplicate:
            pixels = bucket, bytes.fromhex(row["pixel_sha256"])
            reason = DUPLICATE if pixels in seen else None
            seen.add(pixels)
        if reason is None:
            yield row | {"bucket": bucket}
        else:
            left_out[reason] += 1


# --- one shard -------------------------------------------------------------------------------------------------------


def _plan(examples: list[Example], spec: CaptionedSpec, shards_uri: str, digests: Mapping[str, str]) -> list[Task]:
    """Group examples into shards of at most ``spec.shard_megabytes``, each taken to be as large as its raw pixels."""
    tasks = []
    megabytes = 3 * spec.resolution**2 / 1e6
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
    reader = PartReader(max_encoded_bytes(work.spec))

    def samples() -> Iterator[Sample]:
        for example, digest in zip(work.examples, work.digests, strict=True):
            with problems.collecting(example.example_id):
                yield _build_sample(example, digest, reader.read(example), work.spec)

    rows = write_shard(work.uri, samples())
    return rows, problems


def _build_sample(example: Example, digest: str, data: bytes, spec: CaptionedSpec) -> Sample:
    """Build index row and parts of one image; without parts where a filter skips it, or it stays in the user's tar.

    Raises DataError where the image cannot be used.
    """
    found = read_picture(data, example.where, spec)
    row = {
        "key": sample_key(example.example_id),
        "case_id": example.example_id,
        "digest": digest,
        "caption": example.caption,
        "width": found.width,
        "height": found.height,
    }
    if isinstance(found, LeftOut):
        return row, {}
    row |= {"pixel_sha256": found.pixel_sha256, "image_ext": found.extension}
    if example.place is not None and found.encoded is data:
        return row | _place_in_tar(example.image, example.place, found), {}
    return row, {found.extension: found.encoded, CAPTION: example.caption.encode()}


def _place_in_tar(tar: str, place: tuple[int, int], picture: Picture) -> Row:
    """Return the columns of a picture that stays in the user's tar."""
    offset, size = place
    return {
        "shard": str(storage.local_path(tar)),
        f"offset:{picture.extension}": offset,
        f"size:{picture.extension}": size,
        "content_sha256": hashlib.sha256(picture.encoded).hexdigest(),
    }


# --- held-out share --------------------------------------------------------------------------------------------------


def split_examples(rows: Iterable[Mapping[str, Any]], spec: CaptionedSpec) -> dict[str, Literal["train", "val"]]:
    """Assign example_id -> side by a hash of (split_seed, id) and nothing else, so new images move no old one.

    Only where that leaves a side empty is the image of the smallest hash held out, or that of the largest trained on.
    Raises ConfigError where there are fewer than two images.
    """
    shares = {row["case_id"]: int(digest_of([spec.split_seed, row["case_id"]])[:13], 16) / 16**13 for row in rows}
    if len(shares) < 2:
        raise ConfigError(
            f"splits: {len(shares)} usable images, and at least 2 are required, one to train on and one to hold out; "
            "add images, or loosen the filters of data (min_side, max_aspect_ratio, min_caption_chars, ...)"
        )
    ordered = sorted(shares, key=lambda example_id: (shares[example_id], example_id))
    held_out = {example_id for example_id in ordered if shares[example_id] < spec.val_fraction}
    held_out = (held_out | {ordered[0]}) - {ordered[-1]}
    return {example_id: "val" if example_id in held_out else "train" for example_id in shares}
