"""Settings of a segmentation pipeline for a surveyed data set, each with its reason."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.cores import count_cpus
from data_pipelines.specs import duration_text
from data_pipelines.volumes.spacing import MAX_ANISOTROPY, SAME, find_coarse_axis
from flows.config.specs import REFUSED_IN_NAMES
from flows.pipelines.segmentation.planning.candidates import COARSE_PERCENTILE, Candidate, planning_order
from flows.pipelines.segmentation.planning.effort import MIRRORING_SHARE, VALIDATION_SHARE, Effort
from flows.pipelines.segmentation.planning.options import PlanningOptions, Setting
from flows.pipelines.segmentation.planning.sides import sided_names
from flows.pipelines.segmentation.planning.sizes import Sizes
from flows.pipelines.segmentation.planning.stages import CPU_BATCH, plan_batch, plan_model
from flows.pipelines.segmentation.planning.survey import Survey
from flows.pipelines.segmentation.planning.template import CASCADE
from unet_models.specs.loop import LoopSpec

MAX_CPU_WORKERS = 8
FEW_HELD_OUT = 5
"""Held-out cases below which the plan points to all folds."""
TINY_SHARE = 0.05
"""Share of the voxels of the median class below which a class is tiny."""
RESOLUTIONS = {
    "3d_lowres": "A low resolution: patches see more of the image around them.",
    "3d_fullres": "Full resolution: each patch sees less of the image, in more detail.",
}


def plan_settings(
    survey: Survey,
    candidate: Candidate,
    others: Sequence[Candidate],
    options: PlanningOptions,
    trained: Sequence[Candidate] = (),
) -> list[Setting]:
    """Return the settings that differ from the defaults, or that somebody would ask about.

    ``trained`` are all planned candidates where others than ``candidate`` are trained, too: how they are validated and
    evaluated is decided by the slowest.
    """
    efforts = [Effort(_as_volume(each, trained), survey.num_held_out) for each in trained or [candidate]]
    slowest = max(efforts, key=lambda effort: effort.seconds)
    return [
        *_data(survey, options),
        *_preprocessing(survey, candidate, others, options),
        *_training(survey, candidate, slowest, options),
        *_evaluation(survey, slowest, options),
        *_compute(candidate.sizes, options),
    ]


def plan_candidate(
    survey: Survey, planned: Sequence[Candidate], other: Candidate, options: PlanningOptions
) -> list[Setting]:
    """Return one of the planned candidates as what it changes of the settings of the first one, all being 3-D."""
    chosen, full = planned[0], next(each for each in planned if each.name == "3d_fullres")
    changes: dict[str, Any] = {}
    patches = _as_volume(other, planned)
    if patches is not other:
        axis = planning_order(full.spacing)[0]
        mirrored = [each for each in _mirrored(survey) if each != axis]
        reason = f"Slices across axis {axis}: a 2-D network that sees one at a time."
        changes = {"train.augment.mirror_axes": mirrored, "train.augment.coarse_axis": axis}
        changes["train.loss.batch_dice"] = True  # steadier for small patches, as of 2-D data
    else:
        reason = f"{RESOLUTIONS[other.name]} Voxels of {_mm(other.spacing)}."
    if patches.spacing != chosen.spacing:
        changes["data.preprocess.spacing"] = list(patches.spacing)
    sizes = patches.sizes
    changes = {"train.patch_size": list(sizes.topology.patch_size), "train.model.kernel_size": 3} | changes
    changes |= {setting.path: setting.value for setting in (*plan_batch(sizes, options), *plan_model(sizes, options))}
    reasons = [reason, *[""] * (len(changes) - 1)]
    return [
        Setting(f"candidates.{other.name}.{path}", value, why)
        for (path, value), why in zip(changes.items(), reasons, strict=True)
    ]


def _as_volume(candidate: Candidate, planned: Sequence[Candidate]) -> Candidate:
    """Return slices of volumes as patches of one voxel across them; any other candidate as it is."""
    full = next((each for each in planned if each.name == "3d_fullres"), candidate)
    if len(candidate.spacing) == len(full.spacing):
        return candidate
    return candidate.thickened(planning_order(full.spacing)[0], full)


def plan_cascade(survey: Survey, planned: Sequence[Candidate], options: PlanningOptions) -> list[Setting]:
    """Return the full resolution as a network that is given what the low one says; none where one is not planned."""
    found = {each.name: each for each in planned}
    if not {"3d_fullres", "3d_lowres"} <= found.keys():
        return []
    low = "base" if planned[0].name == "3d_lowres" else "3d_lowres"
    reason = "Cascade: full resolution, which is given the label map of the low one."
    settings = [Setting(f"candidates.{CASCADE}.previous", low, reason)]
    if low == "base":
        changes = plan_candidate(survey, planned, found["3d_fullres"], options)
        settings += [Setting(each.path.replace("3d_fullres", CASCADE), each.value, "") for each in changes]
    return settings


def _data(survey: Survey, options: PlanningOptions) -> Iterator[Setting]:
    dataset = survey.dataset
    name = "".join("-" if each in REFUSED_IN_NAMES else each for each in dataset.name).strip() or "unetflow"
    yield Setting("registry.name", name, "The folder's name.")
    kind = "images" if survey.ndim == 2 else "volumes"
    classes = dataset.labels.describe()
    yield Setting(
        "data.ndim", survey.ndim, f"{len(survey.cases)} {kind} of {', '.join(dataset.channels)}; classes {classes}."
    )
    if survey.spec.classes is not None:
        values = ", ".join(str(value) for value in survey.spec.classes.values())
        reason = f"Nothing declares classes (classes.json): the masks hold {values}. Give the classes their names."
        yield Setting("data.classes", survey.spec.classes, reason)
    if options.folds:
        reason = (
            "As asked: a network per fold. Each case is scored by the one that has not seen it, by which the "
            "postprocessing is chosen and probabilities are calibrated; their average is registered."
        )
        yield Setting("data.fold", "all", reason)
    elif (held_out := survey.num_held_out) < FEW_HELD_OUT:
        reason = (
            f"Held out are {held_out} of {len(survey.cases)} cases, of which a score says little; all trains a network "
            "per fold, scores every case and registers the average."
        )
        yield Setting("data.fold", 0, reason)
    if survey.problems:
        count = len({problem.path for problem in survey.problems})
        reason = f"{count} files break a rule: the cases are left out, and listed in the report."
        yield Setting("data.on_error", "quarantine", reason)


def _preprocessing(
    survey: Survey, candidate: Candidate, others: Sequence[Candidate], options: PlanningOptions
) -> Iterator[Setting]:
    spacing = candidate.spacing
    spacings = np.array([case.statistics.spacing for case in survey.cases])
    if full := next((each for each in others if each.name == "3d_fullres"), None):
        rounded = [float(f"{each:.6g}") for each in spacing]
        yield Setting("data.preprocess.spacing", rounded, _why_low(Effort(full, survey.num_held_out), options))
    elif np.allclose(spacings, spacing, rtol=SAME):
        yield Setting("data.preprocess.spacing", None, f"All cases have voxels of {_mm(spacing)}: none is resampled.")
    else:
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        reason = f"Voxels are {_mm(low)} to {_mm(high)}: resampled to the typical size."
        if find_coarse_axis(spacing) is not None:
            reason += f" Of slices more than {MAX_ANISOTROPY:g} times as thick, the {COARSE_PERCENTILE}th percentile."
        yield Setting("data.preprocess.spacing", list(spacing), reason)
    if survey.is_cropped:
        reason = f"Air around the subject: the median image keeps {100 * survey.kept_share:.0f} % of its voxels."
        yield Setting("data.preprocess.foreground_crop", True, reason)
    yield from _normalisation(survey)


def _why_low(full: Effort, options: PlanningOptions) -> str:
    minutes, of = full.seconds / 60, _mm(full.candidate.spacing)
    within = duration_text(options.within_seconds or 0)
    return (
        f"A low resolution, for {within} without a GPU: at the full one, {of}, an image takes {count_cpus()} CPUs "
        f"{minutes:.1f} minutes, those held out {full.evaluation_seconds(0) / 60:.0f}, mirrored ones several times as "
        "much; and patches would see little of it. More time, or a GPU, allows it."
    )


def _normalisation(survey: Survey) -> Iterator[Setting]:
    channels = zip(survey.dataset.channels, survey.guessed_ct, strict=True)
    kinds = ["intensities" if is_ct(name) or is_guessed else "zscore" for name, is_guessed in channels]
    if "intensities" not in kinds:
        reason = "Intensities of no absolute unit: zero mean and unit variance of each image and channel."
        yield Setting("data.preprocess.normalise", "zscore", reason)
        return
    reason = "CT: intensities mean the same in every scan."
    if any(survey.guessed_ct):
        reason += (
            " Guessed: no channel has a name, and every case has air, of -1000 Hounsfield units. If it is something "
            "else, set zscore and leave out intensities."
        )
    if "zscore" in kinds:
        reason += " The other channels have no absolute unit: zero mean and unit variance of each image."
    yield Setting("data.preprocess.normalise", kinds if len(kinds) > 1 else kinds[0], reason)
    measured = [
        {"low": each.percentile_00_5, "high": each.percentile_99_5, "mean": each.mean, "std": each.std}
        for each in survey.fingerprint.channels
    ]
    rounded = [{name: float(f"{value:.6g}") for name, value in each.items()} for each in measured]
    reason = "Of the foreground voxels: 0.5th and 99.5th percentile, mean, standard deviation; CT in Hounsfield units."
    yield Setting("data.preprocess.intensities", rounded, reason)


def _training(survey: Survey, candidate: Candidate, slowest: Effort, options: PlanningOptions) -> Iterator[Setting]:
    sizes, shape = candidate.sizes, candidate.shape
    patch = sizes.topology.patch_size
    covered = 100 * math.prod(min(1.0, size / whole) for size, whole in zip(patch, shape, strict=True))
    if all(p >= s for p, s in zip(patch, shape, strict=True)):
        limit = "the images"
    elif options.within_seconds is not None and options.patch_memory_gb < options.memory_gb:
        limit = f"{duration_text(options.within_seconds)} without a GPU, for more steps"
    else:
        limit = f"{options.memory_gb:g} GB"
    median = " x ".join(f"{each:g}" for each in shape)
    yield Setting(
        "train.patch_size", list(patch), f"{covered:.0f} % of the median image ({median} voxels); limited by {limit}."
    )
    yield from plan_batch(sizes, options)
    if options.network.preset:
        reason = "As asked: a deep residual encoder, a light decoder (Isensee 2024)."
        yield Setting("train.model.preset", options.network.preset, reason)
    yield from plan_model(sizes, options)
    yield from _weights(survey)
    yield from _augmentation(survey)
    yield Setting("train.optimizer.name", "muon", "Better than AdamW after as many steps: docs/experiments.md.")
    yield Setting("train.ema_decay", 0.999, "The moving average of the weights is validated, evaluated and registered.")
    if options.within_seconds is not None:
        text = duration_text(options.within_seconds)
        yield Setting("train.within", text, "As asked: the pace is measured first, the schedule ends on time.")
        yield from _validation(survey, slowest, options)
    if survey.ndim == 2:
        yield Setting("train.loss.batch_dice", True, "Small patches: Dice over the whole batch is steadier.")


def _validation(survey: Survey, slowest: Effort, options: PlanningOptions) -> Iterator[Setting]:
    """Validate on fewer cases where the usual number takes much of the training time."""
    if options.is_short_of_time:
        seconds = VALIDATION_SHARE * (options.within_seconds or 0)
        cases = max(1, int(seconds * slowest.num_validated))
        if cases < min(LoopSpec().validate_cases, survey.num_held_out):
            reason = f"As many as one validation predicts in {100 * VALIDATION_SHARE:g} % of the time, at least one."
            yield Setting("train.validate_cases", cases, reason)


def _evaluation(survey: Survey, slowest: Effort, options: PlanningOptions) -> Iterator[Setting]:
    """Leave out test-time mirroring where it takes long beside training; with all folds, let them decide."""
    chosen = Setting("evaluate.tta", "auto", "Mirroring stays where it raises the cross-validated Dice.")
    if not options.is_short_of_time:
        if options.folds:
            yield chosen
        return
    axes = len(_mirrored(survey))
    seconds = slowest.evaluation_seconds(axes)
    if seconds > MIRRORING_SHARE * (options.within_seconds or 0):
        reason = (
            f"Mirrored along {axes} axes, {survey.num_held_out} held-out cases would take {seconds / 60:.0f} minutes "
            f"without a GPU; as they are, {slowest.evaluation_seconds(0) / 60:.1f}."
        )
        yield Setting("evaluate.tta", False, reason)
    elif options.folds:
        yield chosen


def _weights(survey: Survey) -> Iterator[Setting]:
    """Weigh classes by their size where one is tiny beside the others."""
    counts = {name: survey.fingerprint.voxels_per_class[name] for name in survey.dataset.labels.names[1:]}
    limit = TINY_SHARE * statistics.median(counts.values())
    if tiny := [name for name, count in counts.items() if 0 < count < limit]:
        reason = f"{', '.join(tiny)}: less than {100 * TINY_SHARE:g} % of the voxels of a typical class."
        yield Setting("train.class_weights", "auto", reason)


def _augmentation(survey: Survey) -> Iterator[Setting]:
    if sided := _sided(survey):
        reason = f"{', '.join(sided)}: classes of one side; mirrored right-left they would be wrong."
        yield Setting("train.augment.mirror_axes", _mirrored(survey), reason)


def _sided(survey: Survey) -> list[str]:
    return sided_names(list(survey.dataset.labels.targets))


def _mirrored(survey: Survey) -> list[int]:
    """Return the axes that may be mirrored."""
    right_left = {case.right_left for case in survey.cases} if _sided(survey) else set()
    return [axis for axis in range(survey.ndim) if axis not in right_left]


def _compute(sizes: Sizes, options: PlanningOptions) -> Iterator[Setting]:
    if options.use_gpu:
        yield Setting("compute.use_gpu", True, "Planned for a GPU; --no-gpu plans for CPUs.")
        yield Setting("compute.num_workers", 1, "One GPU; more workers train the same weights faster.")
        return
    batch = min(CPU_BATCH, sizes.batch_size)
    workers = max(1, min(count_cpus(), MAX_CPU_WORKERS, batch))
    yield Setting("compute.num_workers", workers, f"{count_cpus()} CPUs, and a batch of {batch}.")


def is_ct(channel: str) -> bool:
    """Tell CT by the name of the channel."""
    return channel.strip().lower() == "ct"


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{float(each):.4g}" for each in spacing) + " mm"
