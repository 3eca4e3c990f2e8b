"""The wall time of trainings in a report."""

from __future__ import annotations

from collections.abc import Mapping

from flows.report.blocks import Section
from flows.report.sections import time_section
from flows.training.goodput import PARTS, TimeSplit


def times_section(trainings: Mapping[str, TimeSplit]) -> Section:
    """Write the section of a report; titles of the trainings to their times."""
    stages = {
        title: {PARTS[name]: seconds for name, seconds in split.parts.items()} for title, split in trainings.items()
    }
    return time_section(stages, useful=PARTS["productive"])
