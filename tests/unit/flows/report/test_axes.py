"""Numbers are written for reading, and ticks are round, enclose the data and can be told apart."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.report.axes import log_ticks, nice_ticks, number_text, tick_texts


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (math.nan, None, "absent"),
        (None, 3, "absent"),
        (math.inf, 2, "∞"),
        (-math.inf, None, "-∞"),
        (0.88349, 3, "0.883"),
        (-0.0001, 2, "0.00"),
        (-0.004, None, "-0.00400"),
        (1234567, None, "1,234,567"),
        (0.000117, None, "1.17e-4"),
        (0.8831, None, "0.883"),
        (12.345, None, "12.3"),
        (0, None, "0"),
    ],
)
def test_numbers_are_written_for_reading(value: float | None, decimals: int | None, text: str) -> None:
    assert number_text(value, decimals) == text


@pytest.mark.parametrize(
    ("low", "high", "ticks", "labels"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.75, 0.97, [0.75, 0.8, 0.85, 0.9, 0.95, 1.0], ["0.75", "0.80", "0.85", "0.90", "0.95", "1.00"]),
        (1, 6000, [0, 1000, 2000, 3000, 4000, 5000, 6000], ["0", "1,000", "2,000", "3,000", "4,000", "5,000", "6,000"]),
        (0, 5e-4, [0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4], ["0", "1e-4", "2e-4", "3e-4", "4e-4", "5e-4"]),
        (-1.2, 0.3, [-1.5, -1.0, -0.5, 0.0, 0.5], ["-1.5", "-1.0", "-0.5", "0.0", "0.5"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float], labels: list[str]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)
    assert tick_texts(nice_ticks(low, high)) == labels


def test_log_ticks() -> None:
    assert log_ticks(0.03, 4) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    assert log_ticks(1e-5, 2) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10])
    assert tick_texts(log_ticks(1e-5, 2)) == ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1", "10"]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(low=1.0, extent=2.3e-16)
@example(low=0.0, extent=5e-324)
@settings(max_examples=60)
def test_ticks_enclose_the_data_and_tell_apart(low: float, extent: float) -> None:
    ticks = nice_ticks(low, low + extent)
    rounding = 1e-6 * extent + 1e-9 * abs(low)
    assert ticks[0] <= low + rounding
    assert ticks[-1] >= low + extent - rounding
    assert 2 <= len(ticks) <= 9
    assert len(set(tick_texts(ticks))) == len(ticks)


@given(st.floats(1e-8, 1e8), st.floats(1, 1e6))
@settings(max_examples=60)
def test_log_ticks_enclose_the_data(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert ticks[0] <= low * (1 + 1e-6)
    assert ticks[-1] >= low * ratio * (1 - 1e-6)
    assert len(ticks) >= 2
    assert sorted(set(ticks)) == ticks
