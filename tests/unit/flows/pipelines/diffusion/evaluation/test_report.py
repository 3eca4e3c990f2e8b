"""The report counts what was changed in images and captions."""

from __future__ import annotations

from dataclasses import replace

from flows.pipelines.diffusion.encode import LatentFigures
from flows.pipelines.diffusion.evaluation.report import _changes
from flows.pipelines.diffusion.model import Trained
from flows.training.figures import TrainingFigures
from tests.support.diffusion import SHARDS
from tests.support.pages import Page
from tests.support.records import finished
from tests.support.reports import diffusion_report_of

LATENTS = LatentFigures(
    num_train=20,
    num_val=5,
    num_new=25,
    shards="latents/a",
    shard_sizes={},
    scaling_factor=0.5,
    latent_shape=(4, 8, 8),
    caption_tokens=77,
    num_cut_captions=3,
)


def test_changes_of_images_and_cut_captions_are_told_in_words() -> None:
    shards = SHARDS.model_copy(update={"changes": {"first-frame": 2, "colour-profile": 9}})
    training = finished("train", TrainingFigures(step=7, run_id=None, num_workers=1))
    records = [finished("shard", shards), training, training, finished("encode", LATENTS), training]
    found = _changes(Trained(*records))
    assert list(found.values()) == [2, 9, 3]
    section = Page(diffusion_report_of(changes=found)).sections["section-images-changed"]
    for text in (
        "of several frames or pages: the first is used, with the caption of the whole",
        "converted to sRGB by the colour profile in the file",
        "with captions of more than 77 tokens: the rest is not read",
    ):
        assert text in section
    whole = finished("encode", LATENTS.model_copy(update={"num_cut_captions": 0}))
    assert len(_changes(replace(Trained(*records), latents=whole))) == 2
