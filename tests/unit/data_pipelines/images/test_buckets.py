"""Sizes of buckets, which one an image goes to, and which bucket makes the batch of a step."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.images.buckets import bucket_name, bucket_size, bucket_sizes, cut_size
from data_pipelines.images.specs import CaptionedSpec
from data_pipelines.loading.order import BucketOrder, SampleOrder

BUCKETS = CaptionedSpec(resolution=512, crop="buckets", bucket_multiple=64)


def test_buckets_of_stable_diffusion() -> None:
    wide = [(576, 448), (640, 384), (768, 320), (1024, 256)]  # the widest of NovelAI's for each height
    assert set(bucket_sizes(512, 64)) == {(512, 512), *wide, *((h, w) for w, h in wide)}


@given(multiple=st.sampled_from([8, 16, 64]), times=st.integers(1, 16))
def test_buckets_are_about_as_large_as_the_square(multiple: int, times: int) -> None:
    resolution = multiple * times
    sizes = bucket_sizes(resolution, multiple)
    assert sizes[0] == (resolution, resolution)
    assert len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert (height, width) in sizes
        assert width % multiple == height % multiple == 0
        assert max(width, height) <= 4 * min(width, height)
        assert width * height <= resolution**2 < (max(width, height) + multiple) * min(width, height)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (512, 512, (512, 512)),
        (300, 200, (640, 384)),  # 1.5: nearer to 1.667 than to 1.286
        (200, 300, (384, 640)),
        (9000, 100, (1024, 256)),
        (113, 100, (512, 512)),  # half way, in ratios, to 576x448 is 1.134
        (114, 100, (576, 448)),
    ],
)
def test_an_image_goes_to_the_nearest_ratio(width: int, height: int, size: tuple[int, int]) -> None:
    assert cut_size(width, height, BUCKETS) == size


def test_names_of_buckets_are_width_first() -> None:
    assert bucket_name((640, 384)) == "640x384"
    assert bucket_size("640x384") == (640, 384)


def test_without_buckets_there_is_the_square() -> None:
    assert cut_size(9000, 100, CaptionedSpec(resolution=64)) == (64, 64)


# --- batches ---------------------------------------------------------------------------------------------------------

SIZES = (70, 25, 5)


def bucket_order(seed: int = 3, sizes: tuple[int, ...] = SIZES) -> BucketOrder:
    """Rows 0..69 in the first bucket, and so on."""
    groups = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return BucketOrder([SampleOrder([rows], seed) for rows in groups], seed)


def bucket_of(row: int) -> int:
    return int(np.searchsorted(np.cumsum(SIZES), row, side="right"))


def test_a_batch_is_of_one_bucket_and_every_sample_has_its_turn() -> None:
    order, batch = bucket_order(), 8
    batches = [order.rows(step, batch) for step in range(1000)]
    assert all(len({bucket_of(row) for row in rows}) == 1 for rows in batches)
    turns = Counter(row for rows in batches for row in rows)
    assert set(turns) == set(range(100))
    assert min(turns.values()) >= 79  # 8,000 places for 100 samples; shares are kept to within a batch or two
    assert max(turns.values()) <= 84


def test_any_stretch_of_steps_has_its_share_of_every_bucket() -> None:
    order = bucket_order()
    drawn = np.array([bucket_of(order.rows(step, 1)[0]) for step in range(2000)])
    for start in range(0, 1900, 50):
        counts = np.bincount(drawn[start : start + 100], minlength=3)
        assert np.abs(counts - SIZES).max() <= 3


@settings(deadline=None)
@given(step=st.integers(0, 5000), seed=st.integers(0, 2**31))
def test_a_step_is_the_same_for_whoever_asks_whenever(step: int, seed: int) -> None:
    asked_in_turn = bucket_order(seed)
    for earlier in range(0, step, 97):
        asked_in_turn.rows(earlier, 4)
    rows = asked_in_turn.rows(step, 4)
    assert bucket_order(seed).rows(step, 4) == rows
    assert pickle.loads(pickle.dumps(asked_in_turn)).rows(step, 4) == rows


def test_seeds_begin_elsewhere() -> None:
    starts = {tuple(bucket_of(bucket_order(seed).rows(step, 1)[0]) for step in range(20)) for seed in range(10)}
    assert len(starts) > 5


def test_one_bucket_is_the_plain_order() -> None:
    order = bucket_order(sizes=(9,))
    plain = SampleOrder([np.arange(9)], 3)
    assert [order.rows(step, 4) for step in range(20)] == [plain.rows(step, 4) for step in range(20)]
