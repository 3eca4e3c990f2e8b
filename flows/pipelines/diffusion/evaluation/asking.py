"""Requests for the images of an evaluation: prompt, class, size, and the image that they are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_pipelines.images import shapes
from data_pipelines.images.buckets import Size, bucket_size
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.random_streams import ImagePurpose, image_seed
from flows.pipelines.diffusion.config import DiffusionConfig
from unet_models.specs.diffusion import ImageRequest

MAX_REAL = 5000
"""Real images that generated ones are compared with, evenly spaced over the training images."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The columns of the index that a plan depends on."""

    captions: Sequence[str]
    splits: Sequence[str]
    buckets: Sequence[str]
    classes: Sequence[str | None] | None = None
    """Name of the class of every image; None where the data have none."""

    def rows(self, side: str) -> list[int]:
        """Return the rows of the real images of one side that are looked at."""
        return evenly_spaced([row for row, split in enumerate(self.splits) if split == side], MAX_REAL)


@dataclass(frozen=True, slots=True)
class Asked:
    """Request without its seed."""

    prompt: str
    size: Size | None = None
    """None: the size of the training."""
    class_name: str = ""
    row: int | None = None
    """Index row of the image that is drawn from; None: none is."""


def build_request(
    config: DiffusionConfig,
    asked: Asked,
    purpose: ImagePurpose,
    *address: int,
    scale: float | None = None,
    size: Size | None = None,
) -> ImageRequest:
    """Build a request; ``scale`` and ``size`` default to those of the evaluation and the training."""
    width, height = size or (None, None)
    return ImageRequest(
        prompt=asked.prompt,
        class_name=asked.class_name,
        seed=image_seed(config.evaluate.seed, purpose, *address),
        guidance_scale=config.evaluate.guidance_scale if scale is None else scale,
        width=width,
        height=height,
    )


def given_rows(asked: Iterable[Asked]) -> tuple[int, ...]:
    """Return the index rows of the images that are drawn from; none where the model takes no image."""
    return tuple(each.row for each in asked if each.row is not None)


def ask(config: DiffusionConfig, samples: Samples) -> list[Asked]:
    """Say what each image of the main set is asked for: what is known of the held-out images in turn.

    For generated shapes and text alone, new scenes.
    """
    count, train = config.evaluate.num_images, config.train
    if captions_can_be_checked(config) and is_text_alone(config):
        return [Asked(prompt) for prompt in shapes.prompts(count, config.evaluate.seed, held_out=False)]
    held_out = [row for row, side in enumerate(samples.splits) if side == "val"]
    has_classes = train.model.num_class_embeds is not None and samples.classes is not None
    return [
        Asked(
            prompt="" if train.model.context_dim is None else samples.captions[row],
            size=bucket_size(samples.buckets[row]) if config.data.crop == "buckets" else None,
            class_name=(samples.classes[row] or "") if has_classes and samples.classes is not None else "",
            row=None if train.image_condition.kind == "none" else row,
        )
        for row in (held_out[i % len(held_out)] for i in range(count))
    ]


def is_text_alone(config: DiffusionConfig) -> bool:
    """Tell whether text is the only condition."""
    train = config.train
    has_others = train.model.num_class_embeds is not None or train.image_condition.kind != "none"
    return train.model.context_dim is not None and not has_others


def can_be_guided(config: DiffusionConfig) -> bool:
    """Tell whether guidance changes an image: it is by text and class."""
    return config.train.model.context_dim is not None or config.train.model.num_class_embeds is not None


def captions_can_be_checked(config: DiffusionConfig) -> bool:
    """Tell whether images can be compared with their captions pixel by pixel."""
    return config.data.layout == "shapes" and config.train.model.context_dim is not None
