"""Random streams: one address, one sequence; another address, another sequence."""

from __future__ import annotations

import itertools

import torch

from data_pipelines.random_streams import Stream, numpy_generator, torch_generator


def test_streams_of_different_purpose_and_place_are_apart() -> None:
    first, again = (numpy_generator(1, Stream.AUGMENTATION, 3, 4).integers(1 << 60) for _ in range(2))
    assert first == again
    addresses = [(seed, Stream(stream), *rest) for seed, stream, *rest in itertools.permutations([1, 2, 3, 4])]
    assert len({numpy_generator(*address).integers(1 << 60) for address in addresses}) == 24
    cpu = torch.device("cpu")
    same = [torch.rand(3, generator=torch_generator(cpu, 1, Stream.AUGMENTATION, 3)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], torch.rand(3, generator=torch_generator(cpu, 1, Stream.NOISE, 2)))
