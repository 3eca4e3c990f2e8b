"""Train and validation split of images: as the data set gives it, or drawn.

Given splits are the names of folders, or of Parquet and tar files: ``train/``, ``validation/`` and ``test/``, or
``train-00000-of-00002.parquet``, Hugging Face's convention. Within a name, the word of a split counts where another
name differs in that word alone, as ``DIV2K_train_HR`` and ``DIV2K_valid_HR`` do: a ``train-station`` is no split.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError
from data_pipelines.images.clips import find_clips
from data_pipelines.images.examples import Example
from data_pipelines.images.specs import ImageSpec

logger = logging.getLogger(__name__)

Side = Literal["train", "val", "test"]
NAMES: Mapping[str, Side] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders, also with a number (``train2017``), and first words of the names of Parquet and tar files, that say
which split they hold."""
_WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(NAMES)})(?![a-z])")
"""One of these words within a name."""
TEST = "test"
"""Reason of examples that are skipped because they are a test set beside a validation set."""


def given_splits(examples: Iterable[Example]) -> dict[str, Side]:
    """Map example id to train, val or test where the data set gives splits; empty where it does not.

    It does where some of its images are for training and others are not. Images outside any such folder are trained on.
    Without a validation set, the test set is held out (``val``). Warns where there is nothing to train on beside them.
    """
    ids = [example.example_id for example in examples]
    paired = _paired_sides(ids)
    found = {name: side_of(name) or paired.get(name) for name in ids}
    if "train" not in found.values():  # then a number may be that of an experiment: test1, test2
        found = {name: side if _is_plain(name) else None for name, side in found.items()}
    counts = Counter(found.values())
    num_held_out = counts["val"] + counts["test"]
    if not counts["train"] + counts[None] or not num_held_out:
        if num_held_out:
            logger.warning(
                "all %d images are in folders or files named as validation or test sets, and none is left to train on: "
                "they are pooled, and a new split is made of them",
                num_held_out,
            )
        return {}
    held_out: Side = "test" if counts["val"] else "val"
    return {name: held_out if side == "test" else side or "train" for name, side in found.items()}


def side_of(example_id: str) -> Side | None:
    """Return the split that the folders and files of an id name, the outermost first; None where none does."""
    *parts, _ = example_id.lower().split("/")
    for part in parts:
        first, rest = re.match(r"([a-z]*)(.*)", part).groups()  # type: ignore[union-attr]  # matches any text
        if first in NAMES and (not rest or re.match(r"[-_.]?\d", rest)):
            return NAMES[first]
    return None


def _is_plain(example_id: str) -> bool:
    """Tell whether a folder has exactly the name of a split, or a Parquet or tar file begins with one."""
    return any(part in NAMES or re.match(r"[a-z]+-\d{5}", part) for part in example_id.lower().split("/")[:-1])


def _paired_sides(ids: Sequence[str]) -> dict[str, Side]:
    """Map id to the split that a name in its path holds a word of; only where names are alike but for that word, and
    both training and held-out images have such."""
    sides: dict[str, set[Side]] = defaultdict(set)
    for name in ids:
        for rest, side in _split_words(name):
            sides[rest].add(side)
    paired = {rest for rest, found in sides.items() if "train" in found and len(found) > 1}
    outermost_last = ((name, *word) for name in ids for word in reversed([*_split_words(name)]))
    return {name: side for name, rest, side in outermost_last if rest in paired}


def _split_words(example_id: str) -> Iterator[tuple[str, Side]]:
    """Iterate over the folders and files of an id that hold the word of a split: the rest of the name without its
    numbers, and the split."""
    for part in example_id.lower().split("/")[:-1]:
        if found := _WORD.search(part):
            yield re.sub(r"\d+", "0", f"{part[: found.start()]}/{part[found.end() :]}"), NAMES[found[0]]


def split_examples(
    rows: Iterable[Mapping[str, Any]], spec: ImageSpec, given: Mapping[str, Side] | None = None
) -> dict[str, Literal["train", "val"]]:
    """Assign example_id -> side: as ``given``, else by a hash of (split_seed, id) and nothing else, so that an image
    that was trained on is never held out when others are added.

    Images of a given test set are in neither. Drawn, images of equal pixels stay together, and are held out only where
    each of them would be: a copy that is added cannot hold out what was trained on. A side that stays empty gets one
    image: that of the smallest hash is held out, or that of the largest trained on. Raises ConfigError where a side has
    none.
    """
    rows = list(rows)
    clips = find_clips(rows, spec.clips)
    if given:
        sides = _given_sides([row["case_id"] for row in rows], given)
        _check_clips(sides, clips)
        return sides
    shares = _shares(rows, spec, clips)
    distinct = sorted(set(shares.values()))
    if len(distinct) < 2:
        what = "clips that share no frames" if spec.clips else "images"
        raise ConfigError(
            f"splits: {len(distinct)} usable {what}, and at least 2 are required, one to train on and one to hold out; "
            "add images, or loosen the filters of data (min_side, max_aspect_ratio, min_caption_chars, ...)"
        )
    limit = min(max(spec.val_fraction, distinct[1]), distinct[-1])  # one share at least on either side
    return {example_id: "val" if share < limit else "train" for example_id, share in shares.items()}


def count_trained_on(rows: Iterable[Mapping[str, Any]], sides: Mapping[str, Side]) -> int:
    """Count the held-out images whose pixels are trained on as well: a given split may hold such, where equal images
    are kept (``deduplicate: false``)."""
    rows = list(rows)
    trained = {_pixels(row) for row in rows if sides.get(row["case_id"]) == "train"}
    return sum(sides.get(row["case_id"]) == "val" and _pixels(row) in trained for row in rows)


def _shares(rows: Sequence[Mapping[str, Any]], spec: ImageSpec, clips: Mapping[str, str]) -> dict[str, float]:
    """Map id to a number in 0..1, the largest of those drawn for all clips that images of equal pixels link."""
    parents: dict[str, str] = {}

    def root(clip: str) -> str:
        while (parent := parents.setdefault(clip, clip)) != clip:
            parents[clip] = clip = parents[parent]
        return clip

    of_pixels: dict[str, str] = {}
    for row in rows:
        for name in (row["case_id"], *row.get("copies", ())):
            first = root(of_pixels.setdefault(_pixels(row), clips[name]))
            parents[root(clips[name])] = first
    shares: dict[str, float] = {}
    for clip in list(parents):
        linked = root(clip)
        shares[linked] = max(_draw(spec.split_seed, clip), shares.get(linked, 0.0))
    return {row["case_id"]: shares[root(clips[row["case_id"]])] for row in rows}


def _check_clips(sides: Mapping[str, str], clips: Mapping[str, str]) -> None:
    """Raise ConfigError where frames of one clip are on both sides of a given split."""
    found: dict[str, str] = {}
    for name, side in sides.items():
        if found.setdefault(clips[name], side) != side:
            raise ConfigError(
                f"splits: frames of clip {clips[name]!r} are on both sides of the split that the data set gives; move "
                "them to one, or generate the split: data.given_splits=false"
            )


def _pixels(row: Mapping[str, Any]) -> str:
    return str(row.get("pixel_sha256") or row["case_id"])


def _draw(seed: int, name: str) -> float:
    return int(digest_of([seed, name])[:13], 16) / 16**13


def _given_sides(ids: Iterable[str], given: Mapping[str, Side]) -> dict[str, Literal["train", "val"]]:
    sides: dict[str, Literal["train", "val"]] = {}
    for name in ids:
        side = given[name]
        if side != "test":
            sides[name] = side
    if empty := {"train", "val"} - set(sides.values()):
        raise ConfigError(
            "splits: of the splits that the data set gives, no usable image is on the side "
            f"{' and '.join(sorted(empty))}; correct these images, loosen the filters of data, or generate the split: "
            "data.given_splits=false"
        )
    return sides
