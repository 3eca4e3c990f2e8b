"""The training task of the small CLIP."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import torch
from torch import nn

from data_pipelines import storage
from data_pipelines.loading.loader import CaptionedSamples, Captions, ImageSamples
from data_pipelines.shards.index import read_table
from flows.training.held_out import HeldOutLoss, SplitShards
from flows.training.task import Training, TrainingTask
from unet_models.distributed import world_size
from unet_models.networks.clip import TrainableClip, build_clip
from unet_models.networks.tokenizer import load_tokenizer, tokenize
from unet_models.specs.encoders import AlignmentSpec
from unet_models.training.objectives import Alignment


class ClipTask(TrainingTask):
    """Text tower and image tower on pairs of captions and images."""

    score: ClassVar[str] = "val/loss"
    spec: AlignmentSpec
    resolution: int
    """Side of the square images, in pixels."""
    tokenizer_uri: str
    """Folder of the tokenizer."""

    def build_model(self) -> nn.Module:
        """Build both towers."""
        return TrainableClip(build_clip(self.spec, self._load_tokenizer(), self.resolution))

    def _load_tokenizer(self) -> Any:
        with storage.local_folder(self.tokenizer_uri) as folder:
            return load_tokenizer(folder)

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        shards = SplitShards.open(self)
        tokenizer = self._load_tokenizer()
        captions = read_table(self.index_uri)["captions"].to_pylist()
        tokens = tokenize(tokenizer, [caption for of_image in captions for caption in of_image])
        first = [0, *itertools.accumulate(map(len, captions))]
        images = ImageSamples(shards.reader, self.resolution)
        pairs = CaptionedSamples(images, Captions(tokens, first, self.spec.seed))
        count = min(self.spec.validate_cases, len(shards.val_rows)) // world_size() * world_size()
        # In one batch: a pair's loss depends on all others of its batch.
        batches = shards.in_batches(shards.val_share(count, rank), size=max(count, 1))
        return Training(
            model=self.build_model(),
            objective=Alignment(),
            batches=shards.batches(pairs, self.spec, rank),
            validate=HeldOutLoss(self.spec, Alignment(), pairs, batches, device),
        )
