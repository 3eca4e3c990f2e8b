"""Training the small CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from data_pipelines import storage
from data_pipelines.loader import CaptionedSamples, ImageSamples
from data_pipelines.shards import read_table
from flows.training.task import SplitShards, Training, TrainingTask, sum_over_ranks
from unet_models.alignment import TrainableClip, build_clip, load_tokenizer, tokenize
from unet_models.diffusion_specs import AlignmentSpec
from unet_models.fit import autocast, world_size
from unet_models.objectives import Alignment


class AlignmentTask(TrainingTask):
    """Text tower and image tower on pairs of captions and images."""

    score: ClassVar[str] = "val/loss"
    higher_is_better: ClassVar[bool] = False
    kind: Literal["alignment"] = "alignment"
    spec: AlignmentSpec
    resolution: int
    tokenizer_uri: str
    """Folder of the tokenizer."""

    @property
    def loop(self) -> AlignmentSpec:
        """The settings of the loop."""
        return self.spec

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        shards = SplitShards.open(self)
        with storage.local_folder(self.tokenizer_uri) as folder:
            tokenizer = load_tokenizer(folder)
        captions = read_table(self.index_uri)["caption"].to_pylist()
        pairs = CaptionedSamples(ImageSamples(shards.reader), tokenize(tokenizer, captions))
        count = min(self.spec.validate_cases, len(shards.val_rows)) // world_size() * world_size()
        return Training(
            model=TrainableClip(build_clip(self.spec, tokenizer, self.resolution)),
            objective=Alignment(),
            batches=shards.batches(pairs, self.spec, rank),
            validate=_HeldOutLoss(self.spec, pairs, shards.val_share(count, rank), device),
        )


@dataclass(frozen=True, slots=True)
class _HeldOutLoss:
    """The loss of held-out pairs, all of them in one batch."""

    spec: AlignmentSpec
    pairs: CaptionedSamples
    rows: Sequence[int] | np.ndarray
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not len(self.rows):
            return {}
        rows = [int(row) for row in self.rows]
        batch = self.pairs(rows, rows, 0).to(self.device)
        with autocast(self.spec.precision, self.device):
            losses = Alignment()(model, batch).double().cpu()
        total, count = sum_over_ranks(torch.stack([losses.sum(), torch.tensor(len(losses)).double()]), self.device)
        return {"val/loss": float(total / count)}
