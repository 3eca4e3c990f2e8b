"""Which precision is computed in, by what the hardware has."""

import logging
from collections.abc import Iterator

import pytest
import torch

from unet_models import precision
from unet_models.precision import Precision, autocast, computes_bf16, resolve_precision

CPU = torch.device("cpu")


@pytest.fixture
def capabilities(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    found: dict[str, bool] = {"avx2": True, "avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    _forget()
    yield found
    _forget()


def _forget() -> None:
    for function in (precision.computes_bf16, precision._warn_of_emulation):
        function.cache_clear()


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16"])
def test_cpu_with_instructions_for_bf16(capabilities: dict[str, bool], instructions: str) -> None:
    capabilities[instructions] = True
    assert computes_bf16(CPU)


def test_cpu_that_emulates_bf16(capabilities: dict[str, bool]) -> None:
    assert not computes_bf16(CPU)


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "expected"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
        ("bf16", False, "bf16"),
        ("fp32", True, "fp32"),
    ],
)
def test_auto_follows_the_hardware_and_others_stay(wanted: Precision, has_bf16: bool, expected: str) -> None:
    assert resolve_precision(wanted, has_bf16=has_bf16) == expected


@pytest.mark.parametrize("has_bf16", [True, False])
def test_autocast_resolves_auto(capabilities: dict[str, bool], has_bf16: bool) -> None:
    capabilities["avx512_bf16"] = has_bf16
    with autocast("auto", CPU):
        result = torch.ones(2, 2) @ torch.ones(2, 2)
    assert result.dtype == (torch.bfloat16 if has_bf16 else torch.float32)


def test_emulated_bf16_is_said_once(capabilities: dict[str, bool], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            autocast("auto", CPU)
        assert not caplog.records
        for _ in range(3):
            autocast("bf16", CPU)
    assert [record.getMessage() for record in caplog.records] == [
        "bf16 has no instructions on this hardware, which emulates it: fp32 is many times faster"
    ]
