"""Batches by step: the same whoever reads them, in whatever process, as whichever rank."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from data_pipelines.batches import VolumeBatch
from data_pipelines.errors import DataError
from data_pipelines.loading.loader import (
    CaptionedSamples,
    Captions,
    ImageCrops,
    ImageSamples,
    LatentSamples,
    StepBatches,
    VolumePatches,
    decode_rgb,
    step_loader,
)
from data_pipelines.loading.order import SampleOrder
from data_pipelines.loading.patches import cut
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.writer import npy_bytes, write_shard

SHAPES = [(9, 8, 7), (12, 6, 9), (5, 5, 5), (8, 14, 8), (10, 10, 10)]
READ_SIZE = (6, 6, 6)
GLOBAL_BATCH = 3


def volume(row: int) -> np.ndarray:
    """(*spatial) numbers that occur nowhere else, never 0."""
    shape = SHAPES[row]
    return (1 + np.arange(np.prod(shape)) + 10_000 * row).reshape(shape).astype(np.float32)


def mask_of(row: int) -> np.ndarray:
    """Two foreground voxels, one of them in the farthest corner."""
    mask = np.zeros(SHAPES[row], np.uint8)
    mask[-1, -1, -1], mask[1, 2, 3] = 1, 2
    return mask


def parts(row: int) -> dict[str, bytes]:
    mask = mask_of(row)
    voxels = np.argwhere(mask)
    foreground = np.concatenate([mask[tuple(voxels.T)][:, None], voxels], axis=1).astype(np.int16)
    return {
        "image.npy": npy_bytes(np.stack([volume(row), -volume(row)])),
        "mask.npy": npy_bytes(mask),
        "foreground.npy": npy_bytes(foreground),
    }


def patch_of(whole: np.ndarray, corner: tuple[int, ...]) -> np.ndarray:
    patch = np.empty(READ_SIZE, whole.dtype)
    cut(whole, corner, patch)
    return patch


@pytest.fixture
def shards(tmp_path: Path) -> ShardReader:
    """Five volumes of different shapes in two shards."""
    samples = [({"key": f"case{row}"}, parts(row)) for row in range(len(SHAPES))]
    rows = write_shard(str(tmp_path / "a.tar"), samples[:2]) + write_shard(str(tmp_path / "b.tar"), samples[2:])
    return ShardReader(pa.Table.from_pylist(rows), str(tmp_path))


def patches(
    shards: ShardReader, fraction: float = 1 / 3, batch: int = GLOBAL_BATCH, margin: int | tuple[int, ...] = 0
) -> VolumePatches:
    return VolumePatches(shards, READ_SIZE, 0, batch, fraction, margin)


@pytest.mark.parametrize(
    ("fraction", "forced"), [(0.0, []), (1 / 3, [2, 5, 8]), (0.5, [1, 3, 5, 7]), (1.0, [*range(9)])]
)
def test_batches_of_one_take_turns_with_the_foreground(
    shards: ShardReader, fraction: float, forced: Sequence[int]
) -> None:
    built = patches(shards, fraction, batch=1)
    assert [step for step in range(9) if built._first_forced(step) == 0] == [*forced]


def batches_of(shards: ShardReader, rank: int = 0, world_size: int = 1) -> StepBatches:
    order = SampleOrder([np.array([0, 1]), np.array([2, 3, 4])], seed=0)
    return StepBatches(order, patches(shards), GLOBAL_BATCH, rank, world_size)


def assert_equal(got: VolumeBatch, want: VolumeBatch) -> None:
    assert torch.equal(got.images, want.images)
    assert torch.equal(got.masks, want.masks)
    assert (got.positions, got.keys, got.step) == (want.positions, want.keys, want.step)


def test_patches_come_from_their_volume_and_mask_alike(shards: ShardReader) -> None:
    batch = patches(shards)([4, 0, 2], [0, 1, 2], step=7)
    assert batch.images.shape == (3, 2, *READ_SIZE)
    assert batch.images.dtype == torch.float32
    assert batch.masks.shape == (3, *READ_SIZE)
    assert batch.masks.dtype == torch.uint8
    assert (batch.keys, batch.positions, batch.step, len(batch)) == (("case4", "case0", "case2"), (0, 1, 2), 7, 3)
    for row, image, mask in zip([4, 0, 2], batch.images.numpy(), batch.masks.numpy(), strict=True):
        inside = np.argwhere(image[0] > 0)
        first = image[0][tuple(inside[0])]
        corner = np.unravel_index(int(first) - 1 - 10_000 * row, SHAPES[row]) - inside[0]  # the number says its place
        np.testing.assert_array_equal(image[0], patch_of(volume(row), corner))
        np.testing.assert_array_equal(image[1], -image[0])
        np.testing.assert_array_equal(mask, patch_of(mask_of(row), corner))


def test_patches_of_a_step_may_be_smaller(shards: ShardReader) -> None:
    """They have the same margin, and lie where a loader of that size puts them."""
    smaller = tuple(size - 2 for size in READ_SIZE)
    growing = replace(
        patches(shards, margin=1), patch_at=lambda step: [size - (2 if step else 4) for size in READ_SIZE]
    )
    assert growing([0], [0], step=1).images.shape[2:] == READ_SIZE
    assert_equal(
        growing([4, 2], [0, 1], step=0), replace(patches(shards, margin=1), read_size=smaller)([4, 2], [0, 1], 0)
    )


def test_every_patch_holds_an_annotated_voxel_where_others_are_ignored(tmp_path: Path) -> None:
    mask = np.full(SHAPES[3], 3, np.uint8)  # of three classes: ignored
    mask[-1, -1, -1] = 0
    annotated = np.array([[0, *(n - 1 for n in SHAPES[3])]], np.int32)
    stored = parts(3) | {"mask.npy": npy_bytes(mask), "foreground.npy": npy_bytes(annotated)}
    rows = write_shard(str(tmp_path / "a.tar"), [({"key": "case"}, stored)])
    assemble = replace(patches(ShardReader(pa.Table.from_pylist(rows), str(tmp_path))), has_ignored=True)
    for step in range(10):
        batch = assemble([0] * GLOBAL_BATCH, range(GLOBAL_BATCH), step)
        seen = (batch.masks == 0) & (batch.images[:, 0] != 0)  # zeros lie beyond the volume
        assert seen.flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("batch", "fraction", "forced"), [(9, 1 / 3, [6, 7, 8]), (2, 1 / 3, [1]), (4, 0.5, [2, 3]), (2, 1, [0, 1])]
)
def test_last_part_of_the_global_batch_is_foreground(
    shards: ShardReader, batch: int, fraction: float, forced: list[int]
) -> None:
    assemble = patches(shards, fraction, batch)
    for step in range(20):
        masks = assemble([3] * len(forced), forced, step).masks
        assert (masks.flatten(1).amax(1) > 0).all()
    rest = [position for position in range(batch) if position not in forced]
    free = [assemble([3] * len(rest), rest, step).masks.amax() for step in range(20) if rest]
    assert not rest or min(free) == 0


@pytest.mark.parametrize("margin", [1, 2, (0, 1, 2)])
def test_foreground_is_in_what_the_margin_leaves(shards: ShardReader, margin: int | tuple[int, ...]) -> None:
    assemble = patches(shards, fraction=1.0, margin=margin)
    margins = (margin,) * 3 if isinstance(margin, int) else margin
    kept = (slice(None), *(slice(m, size - m) for m, size in zip(margins, READ_SIZE, strict=True)))
    found = set()
    for step in range(20):
        centre = assemble([3], [0], step).masks[kept]
        assert centre.amax() > 0
        found |= set(centre.unique().tolist())
    assert found == {0, 1, 2}  # the voxel in the volume's farthest corner too


def test_sample_is_the_same_in_any_company(shards: ShardReader) -> None:
    together = patches(shards)([0, 1, 2], [0, 1, 2], step=4)
    alone = patches(shards)([1], [1], step=4)
    assert torch.equal(alone.images[0], together.images[1])


@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_of_the_ranks_make_the_global_batch(shards: ShardReader, world_size: int) -> None:
    for step in range(6):
        whole = batches_of(shards)[step]
        shares = [batches_of(shards, rank, world_size)[step] for rank in range(world_size)]
        assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
        assert torch.equal(torch.cat([share.masks for share in shares]), whole.masks)
        assert sum((share.keys for share in shares), ()) == whole.keys
        assert sum((share.positions for share in shares), ()) == whole.positions


def test_reading_processes_change_nothing(shards: ShardReader) -> None:
    batches = batches_of(shards)
    batches[0]  # shards are open, orders are laid out: both must stay behind when it is sent
    here = list(step_loader(batches, range(3, 10)))
    there = list(step_loader(batches, range(3, 10), num_processes=2))
    assert [batch.step for batch in here] == list(range(3, 10))
    assert len(there) == len(here)
    for got, want in zip(there, here, strict=True):
        assert_equal(got, want)


def test_every_epoch_of_batches_holds_every_case_once(shards: ShardReader) -> None:
    keys = [key for batch in step_loader(batches_of(shards), range(5)) for key in batch.keys]
    assert sorted(keys) == sorted([f"case{row}" for row in range(5)] * 3)


@pytest.mark.parametrize(("size", "lengths"), [(None, [3]), (3, [3]), (5, [3]), (2, [2, 1]), (1, [1, 1, 1])])
def test_micro_batches_keep_addresses(shards: ShardReader, size: int | None, lengths: list[int]) -> None:
    whole = batches_of(shards)[2]
    pieces = whole.split(size)
    assert [len(piece) for piece in pieces] == lengths
    assert torch.equal(torch.cat([piece.images for piece in pieces]), whole.images)
    assert torch.equal(torch.cat([piece.masks for piece in pieces]), whole.masks)
    assert sum((piece.positions for piece in pieces), ()) == whole.positions
    assert sum((piece.keys for piece in pieces), ()) == whole.keys
    assert {piece.step for piece in pieces} == {2}


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("JPEG", "PNG", "WEBP") for mode in ("RGB", "L")] + [("JPEG", "CMYK")],
)
def test_decoded_pixels_are_pillows(kind: str, mode: str, subsampling: int) -> None:
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    picture = Image.fromarray(noise.squeeze(), mode).resize((65, 43))
    stream = io.BytesIO()
    picture.save(stream, kind, subsampling=subsampling)
    got = decode_rgb(memoryview(stream.getvalue()))
    np.testing.assert_array_equal(got, np.asarray(Image.open(stream).convert("RGB")))


@pytest.fixture
def pictures(tmp_path: Path) -> ShardReader:
    """Four pictures in three formats, each of one colour, with encodings of their number."""
    samples = []
    for i, kind in enumerate(["png", "webp", "png", "jpg"]):
        stream = io.BytesIO()
        Image.new("RGB", (6, 5), (50 * i,) * 3).save(stream, {"jpg": "JPEG"}.get(kind, kind), lossless=True)
        moments, states = np.full((8, 2, 3), i, np.float16), np.full((4, 5), -i, np.float16)
        parts = {kind: stream.getvalue(), "moments.npy": npy_bytes(moments), "states.npy": npy_bytes(states)}
        samples.append(({"key": str(i)}, parts))
    rows = write_shard(str(tmp_path / "a.tar"), samples)
    names = dict.fromkeys(name for row in rows for name in row)  # not every sample has every part
    return ShardReader(pa.table({name: [row.get(name) for row in rows] for name in names}), str(tmp_path))


def test_images_come_alike_from_other_processes(pictures: ShardReader) -> None:
    captions = Captions(torch.arange(4)[:, None] + torch.arange(3), range(5), seed=0)
    samples = CaptionedSamples(ImageSamples(pictures), captions)
    batches = StepBatches(SampleOrder([np.arange(4)], seed=0), samples, 2)
    for batch in [*step_loader(batches, range(2)), *step_loader(batches, range(2), num_processes=1)]:
        assert batch.images.shape == (2, 3, 5, 6)
        for image, tokens, key in zip(batch.images, batch.tokens, batch.keys, strict=True):
            assert set(image.flatten().tolist()) == {50 * int(key)}
            assert tokens.tolist() == [int(key), int(key) + 1, int(key) + 2]


def flip(reader: ShardReader, row: int, part: str) -> None:
    """Flip the lowest bit of the last byte of a part, which every decoder takes."""
    path = Path(reader.shards_uri) / reader.shard_names[int(reader.shard_of[row])]
    offsets, sizes, _ = reader.places[part]
    data = bytearray(path.read_bytes())
    data[int(offsets[row] + sizes[row]) - 1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", ["image.npy", "mask.npy", "foreground.npy"])
def test_flipped_byte_of_a_volume_ends_the_batches_of_every_rank_that_reads_it(shards: ShardReader, part: str) -> None:
    flip(shards, 3, part)
    forced = StepBatches(SampleOrder([np.array([3])], seed=0), patches(shards, 1.0, 2), 2)
    for rank in (0, 1):
        with pytest.raises(DataError, match=rf"case3\.{part}, .*its CRC-32 is"):
            list(step_loader(replace(forced, rank=rank, world_size=2), range(1)))


@pytest.mark.parametrize("part", ["png", "jpg", "moments.npy", "states.npy"])
def test_flipped_byte_of_an_image_or_its_latents_ends_the_batch(pictures: ShardReader, part: str) -> None:
    row = 3 if part == "jpg" else 0
    flip(pictures, row, part)
    samples = LatentSamples(pictures) if part.endswith("npy") else ImageSamples(pictures)
    samples([1], [0], step=0)
    with pytest.raises(DataError, match=rf"damaged-shard.*\n.*{row}\.{part}, .*its CRC-32 is"):
        samples([row], [0], step=0)


def test_error_of_a_loader_process_keeps_its_kind_and_words(shards: ShardReader) -> None:
    flip(shards, 0, "mask.npy")
    batches = batches_of(shards)
    with pytest.raises(DataError) as here:
        list(step_loader(batches, range(5)))
    with pytest.raises(DataError) as there:
        list(step_loader(batches, range(5), num_processes=1))
    assert there.value.problems == here.value.problems
    assert str(there.value) == str(here.value)


def test_latents_come_with_their_states(pictures: ShardReader) -> None:
    batch = LatentSamples(pictures)([2, 0], [5, 6], step=7)
    assert batch.moments.shape == (2, 8, 2, 3)
    assert batch.encoder_hidden_states.shape == (2, 4, 5)
    assert (batch.moments[:, 0, 0, 0].tolist(), batch.encoder_hidden_states[:, 0, 0].tolist()) == ([2, 0], [-2, 0])
    assert (batch.keys, batch.positions, batch.step) == (("2", "0"), (5, 6), 7)


def test_one_of_several_captions_is_drawn_by_seed_step_and_position(tmp_path: Path) -> None:
    states = np.arange(3, dtype=np.float16)[:, None, None] * np.ones((3, 4, 5), np.float16)
    parts = [
        {"moments.npy": npy_bytes(np.zeros((8, 2, 3), np.float16)), "states.npy": npy_bytes(of_image)}
        for of_image in (states, states[1])
    ]
    rows = write_shard(str(tmp_path / "a.tar"), [({"key": str(i)}, each) for i, each in enumerate(parts)])
    reader = ShardReader(pa.table({name: [row[name] for row in rows] for name in rows[0]}), str(tmp_path))
    samples = LatentSamples(reader, seed=3)
    batches = [samples([0, 1], [0, 1], step).encoder_hidden_states[:, 0, 0] for step in range(60)]
    assert {float(batch[1]) for batch in batches} == {1.0}, "of a single caption there is nothing to draw"
    drawn = [int(batch[0]) for batch in batches]
    assert min(map(drawn.count, range(3))) >= 10, "each of three about 20 times"
    assert [int(samples([0], [0], step).encoder_hidden_states[0, 0, 0]) for step in range(60)] == drawn
    tokens = Captions(torch.tensor([[0], [1], [2], [9]]), [0, 3, 4], seed=3)
    assert [tokens([0, 1], [0, 1], step).flatten().tolist() for step in range(60)] == [[number, 9] for number in drawn]


def test_images_of_other_sizes_show_their_middle_square(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 13, 3), np.uint8)
    samples = [({"key": name}, {"png": _png(image)}) for name, image in (("wide", pixels), ("square", pixels[:, :8]))]
    rows = write_shard(str(tmp_path / "a.tar"), samples)
    index = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    squares = ImageSamples(ShardReader(index, str(tmp_path)), side=8).pixels([0, 1]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(squares, [pixels[:, 2:10], pixels[:, :8]])
    assert ImageSamples(ShardReader(index, str(tmp_path)), side=4).pixels([0, 1]).shape == (2, 3, 4, 4)


def test_crops_of_images_of_any_size(tmp_path: Path) -> None:
    """Every square of every image, each in all its copies, drawn by seed, step and position."""
    images = [np.arange(3 * 7 * 9).reshape(7, 9, 3).astype(np.uint8), np.full((6, 6, 3), 250, np.uint8)]
    rows = write_shard(
        str(tmp_path / "a.tar"), [({"key": str(i)}, {"png": _png(each)}) for i, each in enumerate(images)]
    )
    index = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    crops = ImageCrops(ImageSamples(ShardReader(index, str(tmp_path))), side=6, seed=1, copies="dihedral")
    batch = crops([0, 1], [4, 5], step=7)
    assert (batch.images.shape, batch.keys, batch.positions, batch.step) == ((2, 3, 6, 6), ("0", "1"), (4, 5), 7)
    assert set(batch.images[1].flatten().tolist()) == {250}
    assert torch.equal(crops([0], [4], step=7).images, batch.images[:1]), "whatever else is in the batch"
    alike = crops([0] * 8, range(8), step=7).images
    assert len({image.numpy().tobytes() for image in alike}) > 4, "each position has a square of its own"
    seen = {crops([0], [0], step=step).images.numpy().tobytes() for step in range(400)}
    squares = [images[0][top : top + 6, left : left + 6] for top in (0, 1) for left in range(4)]
    copies = [np.rot90(each, turns) for square in squares for each in (square, square[:, ::-1]) for turns in range(4)]
    assert seen == {np.ascontiguousarray(copy.transpose(2, 0, 1)).tobytes() for copy in copies}
    plain = {replace(crops, copies="none")([0], [0], step=step).images.numpy().tobytes() for step in range(60)}
    assert plain == {np.ascontiguousarray(square.transpose(2, 0, 1)).tobytes() for square in squares}


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
