"""The report counts what was changed in images and captions, and says what its pictures were drawn from."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np

from flows.pipelines.diffusion.evaluation.parts import MapRow, Part, Result
from flows.pipelines.diffusion.evaluation.report import _changes, _maps, _rows, _seed
from flows.pipelines.diffusion.model import Trained
from flows.report.pictures import png_bytes
from flows.training.figures import TrainingFigures
from tests.support.diffusion import LATENTS, SHARDS
from tests.support.pages import Page
from tests.support.records import finished
from tests.support.reports import diffusion_report_of
from unet_models.specs.diffusion import ImageRequest

CUT = LATENTS.model_copy(update={"caption_tokens": 77, "num_cut_captions": 3})


def test_changes_of_images_and_cut_captions_are_told_in_words() -> None:
    shards = SHARDS.model_copy(update={"changes": {"first-frame": 2, "colour-profile": 9}})
    training = finished("train", TrainingFigures(step=7, run_id=None, num_workers=1))
    records = [finished("shard", shards), training, training, finished("encode", CUT), training]
    found = _changes(Trained(*records))
    assert list(found.values()) == [2, 9, 3]
    section = Page(diffusion_report_of(changes=found)).sections["section-images-changed"]
    for text in (
        "of several frames or pages: the first is used, with the caption of the whole",
        "converted to sRGB by the colour profile in the file",
        "with captions of more than 77 tokens: the rest is ignored",
    ):
        assert text in section
    whole = finished("encode", LATENTS.model_copy(update={"num_cut_captions": 0}))
    assert len(_changes(replace(Trained(*records), latents=whole))) == 2


def test_a_row_says_what_was_asked_for_and_begins_with_what_it_was_drawn_from() -> None:
    png = base64.b64encode(png_bytes(np.zeros((2, 2, 3), np.uint8))).decode()
    asked = ({"prompt": "a cat", "class_name": "pets"}, {"class_name": "pets"}, {}, {})
    requests = [ImageRequest(seed=7, guidance_scale=1.0, **names) for names in asked]
    parts = [
        Part(name="grid", kind="draw", requests=(request,), given=given)
        for request, given in zip(requests, ((), (), (3,), ()), strict=True)
    ]
    results = [Result(pngs=[png], given=png if part.given else "") for part in parts]
    rows = _rows(list(zip(parts, results, strict=True)), "grid", _seed)
    assert [row.title for row in rows] == ["a cat, class pets", "class pets", "an image", "no condition"]
    captions = [[picture.caption for picture in row.pictures] for row in rows]
    assert captions == [["seed 7"], ["seed 7"], ["drawn from", "seed 7"], ["seed 7"]]


def test_maps_are_rows_of_tokens() -> None:
    png = base64.b64encode(png_bytes(np.zeros((2, 2, 3), np.uint8))).decode()
    part = Part(name="attention", kind="explain", requests=(ImageRequest(prompt="a b", seed=0, guidance_scale=1.0),))
    maps = tuple(MapRow(name=name, tokens=("a", "b"), pngs=(png, png)) for name in ("mean", "head-1"))
    rows = _maps([(part, Result(maps=maps))])
    assert [row.title for row in rows] == ["a b: mean", "a b: head-1"]
    assert [picture.caption for picture in rows[0].pictures] == ["a", "b"]
