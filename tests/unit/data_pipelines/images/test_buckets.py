"""Sizes of buckets, and which one an image goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.images.buckets import bucket_name, bucket_size, bucket_sizes, cut_size
from data_pipelines.images.specs import CaptionedSpec

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
