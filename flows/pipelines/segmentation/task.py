"""The training task of the segmentation U-Net."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from data_pipelines.loading.loader import VolumePatches
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.shards.index import IMAGE, MASK, read_table
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.modalities import Modalities
from data_pipelines.volumes.preprocess import unchanged
from data_pipelines.volumes.restore import restore_labels
from flows.pipelines.segmentation.modalities import sizes_of, with_modalities
from flows.training.held_out import SplitShards
from flows.training.task import Training, TrainingTask
from unet_models.distributed import sum_over_ranks, world_size
from unet_models.metrics import overlap
from unet_models.networks.build import build_network
from unet_models.precision import autocast
from unet_models.sampling.sliding_window import predict_planes
from unet_models.sampling.sweep import Box, plan_sweep
from unet_models.specs.segmentation import PredictSpec, TargetSpec, TrainSpec
from unet_models.training.objectives import Segmentation


class SegmentationTask(TrainingTask):
    """A U-Net on random patches of volumes or 2-D images."""

    score: ClassVar[str] = "val/dice"
    of_classes: ClassVar[str] = r"decoder\.(heads|scores)\."
    spec: TrainSpec
    num_channels: int
    labels: Labels
    weights: tuple[float, ...] = ()
    """Weight of each output in the loss; empty: all weigh alike."""
    num_previous: int = 0
    """Classes of a previous network's label map, the last channel of the images; 0: there is none."""

    @property
    def targets(self) -> TargetSpec:
        """Meaning of the network's outputs."""
        regions = tuple(region.classes for region in self.labels.regions)
        return TargetSpec(
            num_classes=self.labels.num_classes,
            regions=regions,
            has_ignored=bool(self.labels.ignored),
            weights=self.weights,
        )

    def build_model(self) -> nn.Module:
        """Build the U-Net."""
        sizes = self.num_channels, self.labels.num_outputs, len(self.spec.patch_size)
        return build_network(self.spec.model, *sizes, num_previous=self.num_previous)

    def phases(self) -> list[SegmentationTask]:
        """Return the task with the patches of each phase."""
        changes: list[dict[str, Any]] = [{"patch_size": size, "patch_growth": 1} for size in self.spec.patch_sizes]
        return [self.model_copy(update={"spec": self.spec.model_copy(update=each)}) for each in changes]

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        spec = self.spec
        shards = SplitShards.open(self)
        margins = tuple(margin + border for margin, border in zip(spec.margins, spec.border, strict=True))
        patches = VolumePatches(
            reader=shards.reader,
            read_size=tuple(size + 2 * margin for size, margin in zip(spec.patch_size, margins, strict=True)),
            patch_at=spec.patch_at,
            seed=spec.seed,
            global_batch_size=spec.global_batch_size,
            foreground_fraction=spec.foreground_fraction,
            margin=margins,
            is_mirrored=any(spec.border),
            has_ignored=bool(self.labels.ignored),
            sizes=sizes_of(spec.model),
        )
        return Training(
            model=self.build_model(),
            objective=Segmentation(spec, self.targets, self.num_previous),
            batches=shards.batches(patches, spec, rank),
            validate=_MeanDice(self, shards.reader, self._validated(shards, rank), device),
        )

    def _validated(self, shards: SplitShards, rank: int) -> list[int]:
        """Return this rank's validation cases, one of which shows foreground, where any does: without it is no Dice."""
        chosen = evenly_spaced(shards.val_rows.tolist(), self.spec.validate_cases)
        voxels = read_table(self.index_uri, ["class_voxels"])["class_voxels"].to_pylist()
        shows = [any(each[1 : self.labels.num_classes]) for each in voxels]
        others = [row for row in shards.val_rows.tolist() if shows[row]]
        if chosen and others and not any(shows[row] for row in chosen):
            chosen[-1] = others[0]
        return chosen[rank :: world_size()]


@dataclass(frozen=True, slots=True)
class _MeanDice:
    """Mean foreground Dice of a few validation cases, shared out over the ranks, without test-time augmentation.

    An estimate of the evaluation's Dice: windows lie side by side, in 3-D an eighth of them. With overlaps, one volume
    of 256 voxels per axis in windows of 48 took minutes on a CPU. Memory is bounded as that of an evaluation.
    """

    task: SegmentationTask
    reader: ShardReader
    rows: list[int]
    device: torch.device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not self.task.spec.validate_cases:
            return {}
        names = list(self.task.labels.targets)
        sums = torch.zeros(2, len(names), dtype=torch.float64)
        with autocast(self.task.spec.precision, self.device):
            for row in self.rows:
                scores = self._dice(model, row)
                sums += torch.stack([scores.nan_to_num(), scores.isfinite().double()])
        totals, counts = sum_over_ranks(sums, self.device)
        means = dict(zip(names, (totals / counts).tolist(), strict=True))
        present = {name: mean for name, mean in means.items() if math.isfinite(mean)}
        metrics = {f"val/dice/{name}": mean for name, mean in present.items()}
        return metrics | ({"val/dice": float(np.mean(list(present.values())))} if present else {})

    def _dice(self, model: nn.Module, row: int) -> torch.Tensor:
        spec = self.task.spec
        image = torch.from_numpy(self.reader.array(row, IMAGE).copy()).to(self.device)
        model = with_modalities(model, spec.model, Modalities.stored(self.reader, row), self.device)
        labels, truth = self.task.labels, self.reader.array(row, MASK)
        predict, shape = PredictSpec(tta=False, overlap=0), tuple(image.shape[1:])
        sizes = len(image), labels.num_outputs, predict.batch_size
        sweep = plan_sweep(shape, shape, spec.patch_size, *sizes, predict.memory_gb)

        def predict_box(box: Box) -> Iterator[torch.Tensor]:
            return predict_planes(model, image, spec.patch_size, predict, border=spec.border, sweep=sweep, box=box)

        prediction = restore_labels(predict_box, unchanged(shape), labels, sweep.axis, sweep.num_strips)
        dice = overlap.target_dice(prediction, truth, list(labels.targets.values()), labels.num_classes)
        return torch.from_numpy(dice)
