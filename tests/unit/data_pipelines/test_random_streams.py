"""Random numbers by address: the literal numbers of numpy's constructors, apart for every stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipelines.random_streams import (
    ImagePurpose,
    Stream,
    image_seed,
    numpy_generator,
    seed_torch,
    torch_generator,
)


def test_ids_do_not_change_between_versions() -> None:
    """A checkpoint of yesterday continues with the numbers of yesterday."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "SAMPLE_ORDER": 0,
        "PATCH": 1,
        "AUGMENTATION": 2,
        "NOISE": 3,
        "DROPOUT": 4,
        "BUCKET_ORDER": 5,
        "FOREGROUND": 6,
        "CAPTION": 7,
        "DEGRADATION": 8,
        "HELD_OUT_DEGRADATION": 9,
        "CONDITION": 10,
        "MODALITY": 11,
        "CALIBRATION": 12,
    }
    assert [int(purpose) for purpose in ImagePurpose] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("address", [(), (3,), (3, 7)])
@pytest.mark.parametrize("stream", list(Stream))
def test_numpy_generators_are_philox_of_their_address(stream: Stream, address: tuple[int, ...]) -> None:
    sequence = np.random.SeedSequence((5, int(stream), *address))
    expected = np.random.Generator(np.random.Philox(sequence)).integers(0, 1 << 62, 4)
    np.testing.assert_array_equal(numpy_generator(5, stream, *address).integers(0, 1 << 62, 4), expected)


def test_numbers_do_not_change_between_versions() -> None:
    assert numpy_generator(0, Stream.PATCH, 5, 1).integers(0, 1 << 30, 3).tolist() == [798383441, 102822142, 592096818]
    assert image_seed(0, ImagePurpose.GRID, 2) == 3884055042


def test_torch_generators_are_seeded_by_their_address() -> None:
    state = np.random.SeedSequence((5, int(Stream.NOISE), 3, 1)).generate_state(1, np.uint64)
    expected = torch.randn(4, generator=torch.Generator().manual_seed(int(state[0] >> 1)))
    device = torch.device("cpu")
    assert torch.equal(torch.randn(4, generator=torch_generator(device, 5, Stream.NOISE, 3, 1)), expected)
    with torch.random.fork_rng(devices=[]):
        seed_torch(5, Stream.NOISE, 3, 1)
        assert torch.equal(torch.randn(4), expected)


def test_numbers_depend_on_their_whole_address_and_nothing_else() -> None:
    def numbers(seed: int, *address: int) -> tuple[int, ...]:
        return tuple(numpy_generator(seed, Stream.PATCH, *address).integers(0, 1 << 30, 3).tolist())

    assert numbers(0, 5, 1) == numbers(0, 5, 1)
    assert len({numbers(0, 5, 1), numbers(1, 5, 1), numbers(0, 6, 1), numbers(0, 5, 2), numbers(0, 1, 5)}) == 5
    streams = {tuple(numpy_generator(0, stream, 5, 1).integers(0, 1 << 30, 3).tolist()) for stream in Stream}
    assert len(streams) == len(Stream)


def test_image_seeds_are_32_bits_and_differ_by_purpose() -> None:
    seeds = {image_seed(7, purpose, i) for purpose in ImagePurpose for i in range(100)}
    assert len(seeds) == 600
    assert all(0 <= seed < 1 << 32 for seed in seeds)
