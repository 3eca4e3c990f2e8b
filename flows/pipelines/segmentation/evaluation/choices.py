"""Sections of a segmentation report on what was chosen: configuration, mirroring, postprocessing; and by fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.metrics import METRICS
from flows.pipelines.segmentation.mirroring import MIN_DICE_GAIN, Variant, choose_variant
from flows.pipelines.segmentation.postprocess import Choice
from flows.report.blocks import Cell, CellLike, Section, Table
from flows.report.values import interval_text, value_cell, value_text
from unet_models.metrics.summary import MetricSummary

DICE = METRICS["dice"]
STEP_TITLES = {
    "largest_component": "Keep the largest component",
    "smallest_component": "Remove components of less than half the smallest true one",
    "fill_holes": "Fill holes",
}


@dataclass(frozen=True, slots=True)
class MemberScore:
    """A network of an ensemble, on the cases of its fold."""

    name: str
    num_cases: int
    dice: float


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """A configuration that was compared with others on the same cases."""

    name: str
    is_chosen: bool
    patch_sizes: Sequence[Sequence[int]]
    """Patch sizes of its networks: of a pair both, of a cascade also the previous one."""
    spacings: Sequence[Sequence[float | None] | None]
    """mm per axis; None: each case's own."""
    num_steps: int
    """Training steps of all folds."""
    dice: MetricSummary


def candidates_section(candidates: Sequence[CandidateScore]) -> Section:
    """Compare the configurations of which the best was chosen."""
    rows: list[list[CellLike]] = [
        [
            each.name,
            Cell(value_text(DICE, each.dice.mean), interval_text(DICE, each.dice.low, each.dice.high), each.dice.mean),
            "; ".join(" x ".join(str(size) for size in patch) for patch in each.patch_sizes),
            "; ".join(map(_spacing_text, each.spacings)),
            each.num_steps,
            "registered" if each.is_chosen else "",
        ]
        for each in candidates
    ]
    intro = (
        "Each configuration was trained on the same folds; under the mean Dice over all held-out cases, before "
        "postprocessing, stands its 95 % interval. A pair (A+B) is the mean of two; it is chosen where it gains "
        f"{MIN_DICE_GAIN:g}. The best was chosen on these very cases: of new ones expect a little less."
    )
    columns = ["Configuration", DICE.titled, "Patch", "Voxels, mm", "Steps", ""]
    return Section("Configurations", intro, [Table(columns, rows)])


def _spacing_text(spacing: Sequence[float | None] | None) -> str:
    if spacing is None:
        return "as stored"
    return " x ".join("as stored" if size is None else f"{size:.4g}" for size in spacing)


def members_section(members: Sequence[MemberScore]) -> Section:
    """Give the Dice of each network of an ensemble."""
    rows: list[list[CellLike]] = [[each.name, each.num_cases, value_cell(DICE, each.dice)] for each in members]
    intro = (
        "One network was trained without each fold, and scored on it: every case above was segmented by the network "
        "that had not seen it, the first one where several had not. The registered model averages the probabilities "
        "of all; it has no held-out cases."
    )
    return Section("Folds", intro, [Table(["Network", "Held-out cases", DICE.titled], rows)])


def mirroring_section(variants: Sequence[Variant]) -> Section:
    """Compare predictions with and without test-time mirroring."""
    chosen = choose_variant(variants)
    rows: list[list[CellLike]] = [
        ["with" if each.tta else "without", value_cell(DICE, each.dice), each.seconds, "kept" if each is chosen else ""]
        for each in variants
    ]
    intro = (
        "Every held-out case was predicted with the mean over its mirrored copies, and without. Mirroring takes a "
        f"multiple of the time: it is kept where it raises the mean Dice by {MIN_DICE_GAIN:g} or more. The scores "
        "above are of what was kept, and so is the registered model; times are medians, of this machine."
    )
    return Section("Test-time mirroring", intro, [Table(["Mirroring", DICE.titled, "Seconds per case", ""], rows)])


def postprocessing_section(choice: Choice) -> Section:
    """List the steps that were tried, and what each changes."""
    rows: list[list[CellLike]] = [
        [
            STEP_TITLES[each.trial.step],
            each.trial.class_name,
            value_cell(DICE, each.after),
            f"{each.after - each.before:+.4f}",
            "kept" if each.trial.steps.is_part_of(choice.kept) else "",
        ]
        for each in choice.tried
    ]
    gained = "Nothing helps: label maps are registered as the networks predict them."
    if choice.kept:
        gained = (
            f"What helps was kept, and raises the mean Dice from {value_text(DICE, choice.before)} to "
            f"{value_text(DICE, choice.after)}; the scores above are with it, and so is the registered model. It was "
            "chosen on these very cases: of new ones expect a little less."
        )
    intro = f"Each step alone, for each class, on all held-out cases. {gained}"
    return Section("Postprocessing", intro, [Table(["Step", "Class", DICE.titled, "Change", ""], rows)])
