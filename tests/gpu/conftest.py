"""Tests that need a GPU: ``make test-gpu``. Where torch sees none they fail, so that nothing is taken for tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU; its float32 is exact in these tests, where a training's workers allow TF32."""
    if not torch.cuda.is_available():
        pytest.fail(f"torch {torch.__version__} sees no GPU: these tests need one")
    torch.set_num_threads(2)  # of the reference on the CPU; several processes may test at once
    return torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _exact_float32() -> Iterator[None]:
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value
