"""Training the noise predictor."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from data_pipelines import storage
from data_pipelines.loader import LatentSamples
from flows.training.task import SplitShards, Training, TrainingTask, sum_over_ranks
from unet_models.denoiser import Denoiser
from unet_models.diffusion_specs import DiffusionSpec
from unet_models.fit import autocast
from unet_models.objectives import NoisePrediction

BATCH = 32
"""Held-out latents looked at together."""


class DiffusionTask(TrainingTask):
    """The U-Net that predicts the noise in latents."""

    score: ClassVar[str] = "val/loss"
    higher_is_better: ClassVar[bool] = False
    kind: Literal["diffusion"] = "diffusion"
    spec: DiffusionSpec
    scaling_factor: float
    empty_prompt_uri: str
    """File of the empty prompt's text states."""

    @property
    def loop(self) -> DiffusionSpec:
        """The settings of the loop."""
        return self.spec

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        shards = SplitShards.open(self)
        latents = LatentSamples(shards.reader)
        empty_prompt = np.load(io.BytesIO(storage.read_bytes(self.empty_prompt_uri)), allow_pickle=False)
        objective = NoisePrediction(self.spec, self.scaling_factor, torch.from_numpy(empty_prompt))
        rows = shards.val_share(self.spec.validate_cases, rank)
        return Training(
            model=Denoiser(self.spec.model),
            objective=objective,
            batches=shards.batches(latents, self.spec, rank),
            validate=_HeldOutLoss(self.spec, objective, latents, rows, device),
        )


@dataclass(frozen=True, slots=True)
class _HeldOutLoss:
    """The loss of held-out latents, with the same noise and timesteps each time."""

    spec: DiffusionSpec
    objective: NoisePrediction
    latents: LatentSamples
    rows: Sequence[int] | np.ndarray
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not self.spec.validate_cases:
            return {}
        sums = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(self.rows), BATCH):
            rows = [int(row) for row in self.rows[start : start + BATCH]]
            batch = self.latents(rows, rows, self.spec.num_steps).to(self.device)  # a step that training never has
            with autocast(self.spec.precision, self.device):
                losses = self.objective(model, batch)
            sums += torch.tensor([float(losses.double().sum()), len(rows)], dtype=torch.float64)
        total, count = sum_over_ranks(sums, self.device)
        return {"val/loss": float(total / count)}
