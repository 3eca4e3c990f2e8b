"""Timing two or more things in turns, so that a noisy machine disturbs them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(contenders: Mapping[str, Callable[[], int]], rounds: int = 5) -> dict[str, float]:
    """name -> units per second, the median over rounds; each call does some work and returns how many units."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            started = time.perf_counter()
            units = work()
            rates[name].append(units / (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in rates.items()}


def table(title: str, unit: str, rates: Mapping[str, float], ours: str, goal: str) -> str:
    """Side by side, and ours against the best of the others."""
    best = max((rate, name) for name, rate in rates.items() if name != ours)
    lines = [f"\n{title}", *(f"  {name:<42}{rate:>12,.1f} {unit}" for name, rate in rates.items())]
    lines.append(f"  ours / best peer ({best[1]}): {rates[ours] / best[0]:.2f}   goal {goal}")
    return "\n".join(lines)
