"""The training task of the noise predictor."""

from __future__ import annotations

import io
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from data_pipelines import storage
from data_pipelines.loading.loader import LatentSamples
from data_pipelines.shards.index import read_table
from flows.training.held_out import HeldOutLoss, SplitShards, validation_batch
from flows.training.task import Training, TrainingTask
from unet_models.networks.build import build_denoiser
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.training.objectives import NoisePrediction


class DiffusionTask(TrainingTask):
    """The denoiser, conditioned as its spec says."""

    score: ClassVar[str] = "val/loss"
    of_classes: ClassVar[str] = r"class_embedding\."
    spec: DiffusionSpec
    scaling_factor: float
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of their labels."""
    empty_prompt_uri: str
    """File of the empty prompt's text states, which dropped captions are replaced by."""

    def build_model(self) -> nn.Module:
        """Build the denoiser."""
        return build_denoiser(self.spec.model)

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        shards = SplitShards.open(self, bucket="latent_shape")
        latents = LatentSamples(shards.reader, self.spec.seed, self._labels())
        empty_prompt = np.load(io.BytesIO(storage.read_bytes(self.empty_prompt_uri)), allow_pickle=False)
        objective = NoisePrediction(self.spec, self.scaling_factor, torch.from_numpy(empty_prompt))
        batches = shards.in_batches(shards.val_share(self.spec.validate_cases, rank), validation_batch(self.spec))
        return Training(
            model=self.build_model(),
            objective=objective,
            batches=shards.batches(latents, self.spec, rank),
            validate=HeldOutLoss(self.spec, objective, latents, batches, device),
        )

    def _labels(self) -> np.ndarray | None:
        """Return the number of the class of every row of the index; None without classes."""
        if not self.classes:
            return None
        numbers = {name: number for number, name in enumerate(self.classes)}
        names = read_table(self.index_uri, ["class_name"])["class_name"].to_pylist()
        return np.array([numbers[name] for name in names], np.int64)
