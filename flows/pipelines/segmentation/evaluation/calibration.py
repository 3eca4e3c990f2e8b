"""Calibration in the report: temperatures, errors before and after, reliability diagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.volumes.classes import BACKGROUND
from flows.metrics import METRICS
from flows.report.blocks import CellLike, Figure, FigureRow, Section, Table
from flows.report.reliability import Bin, reliability_chart
from flows.report.values import value_cell

if TYPE_CHECKING:
    from flows.pipelines.segmentation.calibration import Calibration
    from unet_models.metrics.calibration import Reliability

BEFORE, AFTER = METRICS["uncalibrated_error"], METRICS["calibration_error"]


def calibration_section(calibration: Calibration) -> Section:
    """Write the section of the report."""
    metrics = calibration.metrics
    rows: list[list[CellLike]] = [
        [
            target,
            calibration.temperatures[place],
            value_cell(BEFORE, metrics[f"{BEFORE.name}/{target}"]),
            value_cell(AFTER, metrics[f"{AFTER.name}/{target}"]),
        ]
        for target, place in calibration.outputs.items()
    ]
    rows.append(["mean", "", value_cell(BEFORE, metrics[BEFORE.name]), value_cell(AFTER, metrics[AFTER.name])])
    if len(calibration.temperatures) > len(calibration.outputs):  # of exclusive classes
        rows.insert(0, [BACKGROUND, calibration.temperatures[0], "", ""])
    charts = [
        Figure(
            svg=reliability_chart(
                {"before": _bins(calibration.before, place), "after": _bins(calibration.after, place)}, title=target
            )
        )
        for target, place in calibration.outputs.items()
    ]
    intro = (
        "A probability is calibrated where it says how often the class is there: on the diagonal. Each class has a "
        "temperature that its log-probability is divided by: above 1 the network was too sure, below 1 too unsure. "
        f"They minimise the negative log-likelihood of {calibration.num_voxels:,} voxels, drawn from every held-out "
        f"case and weighted by how many they stand for: {calibration.likelihoods[0]:.5f} nats before, "
        f"{calibration.likelihoods[1]:.5f} after. They were fitted on the very cases that are scored: on new ones "
        "expect a little larger errors. No label changes: labels are those of the network's own output."
    )
    table = Table(["Class", "Temperature", "Error before", "Error after"], rows)
    return Section("Calibration", intro, [table, FigureRow(charts)])


def _bins(reliability: Reliability, place: int) -> list[Bin]:
    columns = (reliability.predicted[place], reliability.observed[place], reliability.share[place])
    return [Bin(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
