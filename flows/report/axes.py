"""Ticks and numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise


def number_text(value: float | None, decimals: int | None = None) -> str:
    """A number for reading: NaN and None are "absent", infinity is "∞".

    Args:
        value: The number.
        decimals: Digits after the point; none: three significant digits, whole numbers in full.
    """
    if value is None or math.isnan(value):
        return "absent"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if decimals is not None:
        return _without_negative_zero(f"{value:,.{decimals}f}")
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3 or magnitude >= 9:
        return _short_exponent(value, 2)
    return f"{value:,.{max(0, 2 - magnitude)}f}"


def nice_ticks(low: float, high: float, target: int = 5, whole: bool = False) -> list[float]:
    """Equidistant ticks from at or below ``low`` to at or above ``high``, their step 1, 2 or 5 times a power of ten.

    Args:
        low, high: Finite ends of what is shown; where they are (nearly) equal, room is made around them.
        target: How many steps there should be, about.
        whole: Only whole numbers (training steps, counts).
    """
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):  # no room for ticks between floats that close
        room = abs(low) * 0.1 or 0.5
        low, high = low - room, high + room
    raw = (high - low) / target
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min(factor for factor in (1, 2, 5, 10) if factor * power >= 0.8 * raw)
    if whole:
        step = max(1.0, step)
    # An end that is a multiple of the step but for rounding must not cost a further tick.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 12 - math.floor(math.log10(step))
    return [round(index * step, digits) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis that enclose ``low`` to ``high`` (both positive).

    Decades alone where there are many; 1, 2 and 5 times each decade where there are few.
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 3:
        stride = math.ceil((last - first) / 6)
        return [10.0**exponent for exponent in range(first, last + stride, stride)]
    ticks = [factor * 10.0**exponent for exponent in range(first, last + 1) for factor in (1, 2, 5)]
    below = max(tick for tick in ticks if tick <= low * (1 + 1e-9))
    above = min((tick for tick in ticks if tick >= high * (1 - 1e-9)), default=ticks[-1])
    if below == above:
        above = ticks[ticks.index(below) + 1]
    return [tick for tick in ticks if below <= tick <= above]


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Tick labels with as many digits as tell the ticks apart, and no more."""
    largest = max(abs(tick) for tick in ticks)
    smallest_gap = min((b - a for a, b in pairwise(ticks)), default=largest or 1.0)
    if largest and (largest < 1e-3 or largest >= 1e7):
        return [_short_exponent(tick, 12) for tick in ticks]
    if ticks[0] > 0 and ticks[-1] / ticks[0] > 100:  # a logarithmic axis: each tick in its own precision
        return [_short_exponent(t, 12) if t < 1e-3 else f"{t:,.{_decimals(t)}f}" for t in ticks]
    return [_without_negative_zero(f"{tick:,.{_decimals(smallest_gap)}f}") for tick in ticks]


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _short_exponent(value: float, digits: int) -> str:
    """``2.5e-4`` rather than ``2.50e-04``."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def _without_negative_zero(text: str) -> str:
    return text.removeprefix("-") if set(text) <= set("-0.,") else text
