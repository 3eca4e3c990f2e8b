"""Sharding captioned images: what was done is found again, what others read, what is left out, what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from data_pipelines import digests
from data_pipelines.digests import VERIFY_VARIABLE
from data_pipelines.errors import ConfigError
from data_pipelines.images import sharding
from data_pipelines.images.examples import Example
from data_pipelines.images.sharding import (
    ShardedExamples,
    Work,
    example_digests,
    examples_folder,
    shard_examples,
)
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec, ImageSpec
from data_pipelines.images.splits import split_examples
from data_pipelines.shards.index import build_index
from data_pipelines.shards.reader import ShardReader
from flows.cluster.connection import connect_ray

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),  # Ray's settings warn of their own defaults
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset leaves closing to the collector
]

EMOJI = Path(__file__).parents[5] / "shared/data/noto_emoji_128"


def picture(seed: int, height: int = 12, width: int = 12, kind: str = "PNG") -> bytes:
    """An encoded picture that differs from those of other seeds."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_folder(root: Path, images: Mapping[str, bytes], captions: Mapping[str, str] | None = None) -> Path:
    """An image folder; captions are the names where none are given."""
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, data in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        lines.append(json.dumps({"file_name": name, "caption": (captions or {}).get(name, name)}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


def write_tar(path: Path, images: Mapping[str, bytes]) -> Path:
    """A tar as img2dataset writes it; captions are the names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in images.items():
            for member, content in ((name, data), (name[:-3] + "txt", name.encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def shard(root: Path, storage: Path, **fields: Any) -> ShardedExamples:
    """Find and shard at 8 pixels, as the stage does."""
    connect_ray()
    spec = CaptionedSpec(root=str(root), **{"resolution": 8, **fields})
    examples = find_examples(spec, storage / "generated")
    digests, _ = example_digests(examples, spec)
    return shard_examples(examples, spec, str(storage / examples_folder(spec)), digests)


def shards_of(storage: Path) -> Path:
    (folder,) = (storage / "shards").iterdir()
    return folder


def ids(sharded: ShardedExamples) -> list[str]:
    return [row["case_id"] for row in sharded.rows]


def rules(sharded: ShardedExamples) -> dict[str, str]:
    return {problem.case_id: problem.rule for problem in sharded.problems}


# --- what is written -------------------------------------------------------------------------------------------------


def test_shards_are_what_webdataset_tarfile_and_the_reader_read(tmp_path: Path) -> None:
    kept = picture(1, 8, 8, "JPEG")
    images = {"s/a.b.png": picture(0, 12, 20), "kept.jpg": kept, "é.webp": picture(2, 8, 8, "WEBP")}
    sharded = shard(write_folder(tmp_path / "raw", images, {"kept.jpg": "ein Käfer"}), tmp_path)
    assert sharded.problems == []
    assert (sharded.num_new, sharded.left_out) == (3, {})
    rows = {row["case_id"]: row for row in sharded.rows}
    assert list(rows) == ["s/a.b", "kept", "é"]
    assert [row["key"] for row in sharded.rows] == ["s%2Fa%2Eb", "kept", "é"]
    assert [(row["width"], row["height"]) for row in sharded.rows] == [(20, 12), (8, 8), (8, 8)]
    assert [row["image_ext"] for row in sharded.rows] == ["png", "jpg", "webp"]

    (tar,) = shards_of(tmp_path).glob("*.tar")
    found = {sample["__key__"]: sample for sample in webdataset.WebDataset(str(tar), shardshuffle=False).decode("rgb8")}
    assert found["kept"]["txt"] == "ein Käfer"
    for row in sharded.rows:
        pixels = np.asarray(Image.fromarray(found[row["key"]][row["image_ext"]]))
        assert pixels.shape == (8, 8, 3)
        if row["image_ext"] != "jpg":
            assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["pixel_sha256"]
    with tarfile.open(tar) as archive:
        assert archive.extractfile("kept.jpg").read() == kept  # type: ignore[union-attr]

    index = build_index(sharded.rows, split_examples(sharded.rows, CaptionedSpec()))
    shards = ShardReader(index, str(tar.parent))
    assert bytes(shards.read(1, "jpg")) == kept
    assert bytes(shards.read(1, "txt")).decode() == "ein Käfer"
    assert [shards.has(row, "jpg") for row in range(3)] == [False, True, False]


def test_every_source_gives_the_same_samples(tmp_path: Path) -> None:
    encoded = [picture(seed) for seed in range(7)]
    write_folder(tmp_path / "folder", {f"{i}.png": data for i, data in enumerate(encoded)})
    (tmp_path / "parquet").mkdir()
    values = [{"bytes": data, "path": None} for data in encoded]
    table = pa.table({"image": values, "caption": [f"{i}.png" for i in range(7)]})
    pq.write_table(table, tmp_path / "parquet/0.parquet", row_group_size=3)
    write_tar(tmp_path / "tars/0.tar", {f"{i}.png": data for i, data in enumerate(encoded)})
    expected = None
    for layout in ("folder", "parquet", "tars"):
        sharded = shard(tmp_path / layout, tmp_path / f"storage_{layout}")
        content = [(row["caption"], row["pixel_sha256"]) for row in sharded.rows]
        expected = expected or content
        assert content == expected
        assert len(content) == 7
        assert shard(tmp_path / layout, tmp_path / f"storage_{layout}").num_new == 0


def test_images_of_a_tar_that_need_no_change_stay_there(tmp_path: Path) -> None:
    images = {"a.jpg": picture(1, 8, 8, "JPEG"), "b.jpg": picture(2, 9, 8, "JPEG"), "c.png": picture(3, 8, 8)}
    tar = write_tar(tmp_path / "raw/00000.tar", images)
    sharded = shard(tmp_path / "raw", tmp_path)
    (own,) = shards_of(tmp_path).glob("*.tar")
    assert [row["shard"] for row in sharded.rows] == [str(tar), own.name, str(tar)]
    with tarfile.open(own) as archive:
        assert archive.getnames() == ["00000%2Fb.png", "00000%2Fb.txt"]
    reader = ShardReader(build_index(sharded.rows, dict.fromkeys(ids(sharded), "train")), str(own.parent))
    assert [bytes(reader.read(i, f)) for i, f in ((0, "jpg"), (2, "png"))] == [images["a.jpg"], images["c.png"]]
    assert reader.read(1, "png")[:4] == b"\x89PNG"
    hashes = [hashlib.sha256(images[name]).hexdigest() for name in ("a.jpg", "c.png")]
    assert [sharded.rows[i]["content_sha256"] for i in (0, 2)] == hashes
    assert shard(tmp_path / "raw", tmp_path).num_new == 0

    tar.parent.rename(tmp_path / "moved")
    moved = shard(tmp_path / "moved", tmp_path)
    assert (moved.num_new, len({row["shard"] for row in moved.rows})) == (2, 2)
    assert str(tmp_path / "moved/00000.tar") in {row["shard"] for row in moved.rows}
    assert moved.rows[1] == sharded.rows[1]


def test_images_without_captions_keep_their_size(tmp_path: Path) -> None:
    """As they are, whatever ``resolution`` says: it is no part of their shards' folder."""
    root = tmp_path / "raw"
    root.mkdir()
    (root / "a.png").write_bytes(picture(0, 12, 20))
    (root / "b.png").write_bytes(picture(1, 9, 7))
    connect_ray()
    spec = ImageSpec(root=str(root), caption_lines="random")
    examples, folder = find_examples(spec, tmp_path), tmp_path / examples_folder(spec)
    sharded = shard_examples(examples, spec, str(folder), example_digests(examples, spec)[0])
    assert [(row["bucket"], row["caption"]) for row in sharded.rows] == [("20x12", ""), ("7x9", "")]
    reader = ShardReader(build_index(sharded.rows, {"a": "train", "b": "val"}), str(folder))
    assert bytes(reader.read(0, "png")) == (root / "a.png").read_bytes()
    assert not reader.has(0, "txt")
    assert examples_folder(spec) == examples_folder(spec.model_copy(update={"resolution": 8}))


def test_work_survives_the_journey() -> None:
    examples = (Example("a", "a.png", None, "é"), Example("b", "t.tar", "b.png", "b", (512, 7)))
    work = Work(uri="x.tar", examples=examples, digests=("1", "2"), spec=ImageSpec(max_aspect_ratio=2))
    assert Work.model_validate_json(work.model_dump_json()) == work


# --- what is done again ----------------------------------------------------------------------------------------------


def test_only_new_and_changed_examples_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "MAX_EXAMPLES_PER_SHARD", 2)
    images = {f"{i}.png": picture(i) for i in range(5)}
    root = write_folder(tmp_path / "raw", images)
    first = shard(root, tmp_path)
    before = {path.name: path.read_bytes() for path in shards_of(tmp_path).iterdir()}
    assert (first.num_new, len(before)) == (5, 6)
    again = shard(root, tmp_path)
    assert (again.num_new, again.rows) == (0, first.rows)

    write_folder(root, images | {"0.png": picture(50), "a.png": picture(51)}, {"3.png": "another caption"})
    grown = shard(root, tmp_path)
    assert grown.num_new == 3  # other pixels, another caption, and one that was not there
    assert ids(grown) == ["0", "1", "2", "3", "4", "a"]
    assert grown.rows[3]["caption"] == "another caption"
    after = {path.name: path.read_bytes() for path in shards_of(tmp_path).iterdir()}
    assert before.items() <= after.items()


def test_a_shard_that_was_not_finished_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "MAX_EXAMPLES_PER_SHARD", 2)
    root = write_folder(tmp_path / "raw", {f"{i}.png": picture(i) for i in range(4)})
    first = shard(root, tmp_path)
    lost, cut = sorted({row["shard"] for row in first.rows})
    content = (shards_of(tmp_path) / cut).read_bytes()
    (shards_of(tmp_path) / lost).unlink()
    assert shard(root, tmp_path).num_new == 2
    (shards_of(tmp_path) / cut).with_suffix(".parquet").unlink()
    again = shard(root, tmp_path)
    assert (again.num_new, again.rows) == (2, first.rows)
    assert (shards_of(tmp_path) / cut).read_bytes() == content


def test_what_shapes_a_sample_is_in_its_digest_and_its_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a.png": picture(0), "b.png": picture(0)})
    spec = CaptionedSpec(root=str(root))
    digests, _ = example_digests(find_examples(spec, tmp_path), spec)
    assert len(set(digests.values())) == 2  # the same bytes under another id
    for fields, other in [
        ({"resolution": 32}, True),
        ({"background": (0, 0, 0)}, True),
        ({"min_side": 5, "val_fraction": 0.5, "deduplicate": False, "max_pixels": 9}, False),
    ]:
        changed = spec.model_copy(update=fields)
        assert (examples_folder(changed) != examples_folder(spec)) == other
        assert (example_digests(find_examples(spec, tmp_path), changed)[0] != digests) == other


# --- what is left out ------------------------------------------------------------------------------------------------


def test_filters_count_and_are_free_to_change(tmp_path: Path) -> None:
    images = {
        "small.png": picture(0, 9, 30),
        "wide.png": picture(1, 10, 41),
        "good.png": picture(2, 20, 20),
        "twin.png": picture(2, 20, 20),
        "mute.png": picture(3, 20, 20),
    }
    root = write_folder(tmp_path / "raw", images, {"mute.png": "m"})
    filters: dict[str, Any] = {"min_side": 10, "max_aspect_ratio": 4, "min_caption_chars": 2}
    expected = {"min_side": 1, "max_aspect_ratio": 1, "min_caption_chars": 1, "duplicate": 1}
    first = shard(root, tmp_path, **filters)
    assert (ids(first), first.left_out) == (["good"], expected)
    assert first.problems == []
    again = shard(root, tmp_path, **filters)
    assert (again.num_new, again.left_out, again.rows) == (0, expected, first.rows)  # left out is not read again

    wider = shard(root, tmp_path, max_aspect_ratio=4)
    assert (ids(wider), wider.left_out) == (["small", "good", "mute"], {"max_aspect_ratio": 1, "duplicate": 1})
    assert wider.num_new == 2
    everything = shard(root, tmp_path, deduplicate=False)
    assert (ids(everything), everything.left_out, everything.num_new) == ([Path(n).stem for n in images], {}, 1)
    narrow = shard(root, tmp_path, **filters)
    assert (narrow.num_new, narrow.left_out, narrow.rows) == (0, expected, first.rows)


def test_buckets_are_other_shards_and_keep_what_a_square_cuts_away(tmp_path: Path) -> None:
    buckets: dict[str, Any] = {"crop": "buckets", "bucket_multiple": 2}  # at 8 pixels: 8x8, 10x6, 16x4, and upright
    images = {"a.png": picture(0, 6, 10), "b.png": picture(1, 32, 8), "c.png": picture(2, 9, 8)}
    root = write_folder(tmp_path / "raw", images)
    square = shard(root, tmp_path)
    sharded = shard(root, tmp_path, **buckets)
    assert (square.num_new, sharded.num_new) == (3, 3)
    assert len(list((tmp_path / "shards").iterdir())) == 2
    folder = tmp_path / examples_folder(CaptionedSpec(resolution=8, **buckets))
    reader = ShardReader(build_index(sharded.rows, dict.fromkeys("abc", "train")), str(folder))
    sizes = [Image.open(io.BytesIO(reader.read(i, "png"))).size for i in range(3)]
    assert sizes == [(10, 6), (4, 16), (8, 8)]
    assert bytes(reader.read(0, "png")) == images["a.png"]


def test_of_equal_pixels_the_first_stays(tmp_path: Path) -> None:
    images = {"b.png": picture(0), "a.bmp": picture(0, kind="BMP"), "c.png": picture(1)}
    sharded = shard(write_folder(tmp_path / "raw", images), tmp_path)
    assert (ids(sharded), sharded.left_out) == (["b", "c"], {"duplicate": 1})


def test_of_equal_pixels_in_two_classes_the_first_keeps_its_captions(tmp_path: Path) -> None:
    images = {"cat/a.png": picture(0), "cat/b.png": picture(0), "dog/a.png": picture(0), "dog/b.png": picture(1)}
    sharded = shard(write_folder(tmp_path / "raw", images), tmp_path, class_from="folder")
    assert [(row["class_name"], row["captions"]) for row in sharded.rows] == [
        ("cat", ["cat/a.png", "cat/b.png"]),
        ("dog", ["dog/b.png"]),
    ]
    assert sharded.left_out == {"duplicate": 1, "duplicate of an image of another class": 1}


def test_frames_of_a_clip_are_kept_where_nothing_moves(tmp_path: Path) -> None:
    images = {"clip1_a.png": picture(0), "clip1_b.png": picture(0), "clip2_a.png": picture(1)}
    sharded = shard(write_folder(tmp_path / "raw", images), tmp_path, clip_pattern="clip[0-9]")
    assert (ids(sharded), sharded.left_out) == (["clip1_a", "clip1_b", "clip2_a"], {})


def test_changes_are_counted_and_captions_of_equal_pixels_kept(tmp_path: Path) -> None:
    small, frames = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (4, 9), (1, 2, 3)).save(small, "PNG")
    first, second = (Image.new("RGB", (8, 8), (0, 0, level)) for level in (9, 90))
    first.save(frames, "GIF", save_all=True, append_images=[second])
    images = {"a.png": picture(0), "b.png": picture(0), "c.png": small.getvalue(), "d.gif": frames.getvalue()}
    root = write_folder(tmp_path / "raw", images, {"a.png": "one\ntwo", "b.png": "three", "c.png": "c", "d.gif": "d"})
    whole, lines = (shard(root, tmp_path, caption_lines=mode) for mode in ("whole", "random"))
    assert lines.num_new == 0, "how captions are drawn leaves shards as they are"
    assert [row["captions"] for row in whole.rows] == [["one\ntwo", "three"], ["c"], ["d"]]
    assert [row["captions"] for row in lines.rows] == [["one", "two", "three"], ["c"], ["d"]]
    assert [row["caption"] for row in lines.rows] == ["one", "c", "d"]
    assert whole.left_out == {"duplicate": 1}
    changes = {"first-frame": 1, "enlarged": 1, "several-captions": 1}
    assert (whole.changes, lines.changes) == (changes | {"several-lines": 1}, changes)


def test_captions_that_a_filter_skips_are_counted_where_others_are_kept(tmp_path: Path) -> None:
    images = {"a.png": picture(0), "b.png": picture(1), "c.png": picture(2), "d.png": picture(2), "e.png": picture(3)}
    captions = {"a.png": "a red fox\nfox", "b.png": "a red fox", "c.png": "hare", "d.png": "hare\nrun", "e.png": "e"}
    root = write_folder(tmp_path / "raw", images, captions)
    sharded = shard(root, tmp_path, caption_lines="random", min_caption_chars=4)
    assert [row["captions"] for row in sharded.rows] == [["a red fox"], ["a red fox"], ["hare"]]
    assert sharded.left_out == {"min_caption_chars": 1, "duplicate": 1}
    assert sharded.changes["captions-left-out"] == 2, "of the copy d, too"


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_examples_whose_file_cannot_be_read_have_a_problem_and_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path / "raw", {f"{name}.png": picture(i) for i, name in enumerate(("a", "b", "gone"))})
    spec = CaptionedSpec(root=str(root), resolution=8)
    examples, original = find_examples(spec, tmp_path), digests.storage.digest

    def digest(uri: str) -> str:
        if uri.endswith("b.png"):
            raise PermissionError(13, "Permission denied")
        return original(uri)

    monkeypatch.setattr(digests.storage, "digest", digest)
    (root / "gone.png").unlink()
    found, problems = example_digests(examples, spec)
    assert set(found) == {"a"}
    named = {problem.case_id: (problem.rule, Path(problem.path).name) for problem in problems}
    assert named == {"b": ("no-permission", "b.png"), "gone": ("file-missing", "gone.png")}
    connect_ray()
    sharded = shard_examples(examples, spec, str(tmp_path / examples_folder(spec)), found)
    assert (ids(sharded), sharded.left_out) == (["a"], {})


def test_bad_images_are_named_and_the_others_sharded(tmp_path: Path) -> None:
    images = {"a.png": picture(0), "cut.png": picture(1, 64, 64)[:999], "text.png": b"<html>", "b.png": picture(2)}
    root = write_folder(tmp_path / "raw", images)
    (root / "bare.png").write_bytes(picture(3))
    for num_new in (2, 0):
        sharded = shard(root, tmp_path)
        assert (ids(sharded), sharded.num_new) == (["a", "b"], num_new)
        assert rules(sharded) == {"bare": "caption-missing", "cut": "truncated-file", "text": "unknown-format"}
        assert all(Path(problem.path).is_file() for problem in sharded.problems)
    (root / "cut.png").write_bytes(picture(1))
    assert ids(shard(root, tmp_path)) == ["a", "cut", "b"]


def test_damaged_shard_is_made_again_and_no_index_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "raw", {f"{i}.png": picture(i) for i in range(6)})
    options = {"shard_megabytes": 6e-4}  # three images of 8x8
    first = shard(root, tmp_path, **options)
    names = [row["shard"] for row in first.rows]
    assert len(set(names)) == 2
    contents = {path: path.read_bytes() for path in shards_of(tmp_path).iterdir()}
    for row in (first.rows[1], first.rows[5]):
        flip(shards_of(tmp_path) / row["shard"], row["offset:png"] + 50)
    assert shard(root, tmp_path, **options).num_new == 0
    monkeypatch.setenv(VERIFY_VARIABLE, "1")
    again = shard(root, tmp_path, **options)
    assert (again.num_new, again.rows, again.problems) == (6, first.rows, [])
    assert {path: path.read_bytes() for path in shards_of(tmp_path).iterdir()} == contents


def test_damaged_image_in_a_tar_is_a_problem_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = write_tar(tmp_path / "raw/0.tar", {f"{i}.png": picture(i, 8, 8) for i in range(3)})
    stamp = tar.stat()
    first = shard(tar.parent, tmp_path)
    flip(tar, first.rows[1]["offset:png"] + 50)
    os.utime(tar, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    monkeypatch.setenv(VERIFY_VARIABLE, "1")
    again = shard(tar.parent, tmp_path)
    assert (ids(again), again.num_new) == (["0/0", "0/2"], 0)
    assert rules(again) == {"0/1": "damaged-shard"}


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# --- held-out share --------------------------------------------------------------------------------------------------


def test_new_images_move_no_old_one() -> None:
    rows = [{"case_id": f"i{i}"} for i in range(2000)]
    spec = CaptionedSpec(val_fraction=0.1)
    few, many = split_examples(rows[::2], spec), split_examples(rows, spec)
    assert few.items() <= many.items()
    assert 150 < list(many.values()).count("val") < 250
    assert split_examples(rows, spec.model_copy(update={"split_seed": 1})) != many


def test_both_sides_have_an_image() -> None:
    rows = [{"case_id": f"i{i}"} for i in range(5)]
    for fraction, count in ((1e-9, 1), (1 - 1e-9, 4)):
        sides = split_examples(rows, CaptionedSpec(val_fraction=fraction))
        assert list(sides) == [row["case_id"] for row in rows]
        assert list(sides.values()).count("val") == count
    with pytest.raises(ConfigError, match="1 usable images, and at least 2 are required"):
        split_examples(rows[:1], CaptionedSpec())


# --- real ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not EMOJI.is_dir(), reason=f"{EMOJI} is not here")
def test_emoji(tmp_path: Path) -> None:
    first = shard(EMOJI, tmp_path, resolution=64)
    assert (first.num_new, first.problems) == (3519, [])
    assert len(first.rows) + first.left_out["duplicate"] == 3519
    assert first.left_out == {"duplicate": 10}
    again = shard(EMOJI, tmp_path, resolution=64)
    assert (again.num_new, again.rows, again.left_out) == (0, first.rows, first.left_out)

    tars = sorted(str(path) for path in shards_of(tmp_path).glob("*.tar"))
    found = {sample["__key__"]: sample for sample in webdataset.WebDataset(tars, shardshuffle=False)}
    assert len(found) == 3519
    for row in first.rows[::50]:
        sample = found[row["key"]]
        with Image.open(io.BytesIO(sample["png"])) as image:
            assert (image.size, image.mode) == ((64, 64), "RGB")
            assert hashlib.sha256(np.asarray(image).tobytes()).hexdigest() == row["pixel_sha256"]
        assert sample["txt"].decode() == row["caption"]
