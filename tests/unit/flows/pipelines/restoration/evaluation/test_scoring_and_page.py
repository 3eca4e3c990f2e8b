"""Scores of an image beside its baseline, the choice of images, and what the report says."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipelines.loading.loader import ImageSamples
from data_pipelines.shards.index import read_table, write_table
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.evaluate import group_images, score_table, scores_of, summarise_images
from flows.pipelines.restoration.evaluation import page
from flows.pipelines.restoration.evaluation.page import RestorationPage, baseline_of, restoration_page
from flows.pipelines.restoration.evaluation.report import choose_images, draw_strip
from flows.pipelines.restoration.evaluation.scoring import ImageRow, Restored, file_stem, score_change, score_image
from flows.stages.attempt import Attempt
from unet_models.restoration.build import build_task
from unet_models.restoration.held_out import degrade_held_out
from unet_models.specs.restoration import InpaintingSpec


def row(case_id: str, psnr: float, baseline: float) -> ImageRow:
    ssim = {"ssim": 0.9, "ssim/baseline": 0.8}
    colours = {"colourfulness_error/baseline": -41.0, "colourfulness_error": -23.0}
    return {"case_id": case_id, "row": 0, "psnr": psnr, "psnr/baseline": baseline, **ssim, **colours}


ROWS = [row("a", 30.0, 25.0), row("b", 34.0, 26.0), row("c", 32.0, 27.0), row("d", 33.0, 28.0)]


def test_scores_of_the_truth_and_of_the_baseline() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image = (image * 255).round() / 255
    task = build_task(InpaintingSpec())
    sample = degrade_held_out(task, image, "a", 0)
    filled = task.baseline(sample.inputs)[0]
    perfect, baseline = (score_image(Restored(one, filled, image[0], sample.region)) for one in (image[0], filled))
    assert (perfect["psnr"], perfect["psnr/hole"], perfect["colourfulness_error"]) == (100, 100, 0)
    assert perfect["psnr/baseline_hole"] < perfect["psnr/baseline"] < 100
    assert baseline["psnr/hole"] == baseline["psnr/baseline_hole"]
    assert baseline["colourfulness_error"] < 0, "a mean colour is paler than noise"
    assert not any("hole" in name for name in score_image(Restored(image[0], image[0], image[0], None)))


def test_colourfulness_of_the_restored_image_and_of_the_baseline_minus_the_true_one() -> None:
    """Red beside green: R - G is 255 and -255, of deviation 255 and mean 0; (R + G) / 2 - B is 127.5 everywhere."""
    truth = torch.zeros(3, 16, 16)
    truth[0, :, :8] = truth[1, :, 8:] = 1
    colourful = 255 + 0.3 * 127.5
    scores = score_image(Restored(0.4 * truth, torch.full_like(truth, 0.5), truth, None))
    assert scores["colourfulness_error"] == pytest.approx(-0.6 * colourful)
    assert scores["colourfulness_error/baseline"] == pytest.approx(-colourful), "grey has no colour"


def test_flicker_that_the_clip_does_not_have() -> None:
    dark, light = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.4)
    first, second = (Restored(dark, light, dark, None), Restored(light, light, light, None))
    assert score_change(first, second) == pytest.approx({"temporal_error": 0, "temporal_error/baseline": 0.4 * 255})
    smaller = Restored(*(each[:, :3] for each in second[:3]), None)
    assert score_change(first, smaller) == {}


def test_frames_of_a_clip_go_together_in_order() -> None:
    held_out = {n: {"case_id": name} for n, name in ((4, "b/2"), (1, "a/1"), (9, "b/1"), (3, "a/0"))}
    assert sorted(group_images(held_out, "^[ab]")) == [[3, 1], [9, 4]]
    assert group_images({key: {} for key in range(10)}, "") == [list(range(8)), [8, 9]]


def test_means_and_their_intervals() -> None:
    summaries = {summary.metric: summary for summary in summarise_images(ROWS)}
    colours = ["colourfulness_error", "colourfulness_error/baseline"]
    assert list(summaries) == ["psnr", "psnr/baseline", "ssim", "ssim/baseline", *colours]
    assert summaries["psnr"].mean == pytest.approx(np.mean([30, 34, 32, 33]))
    assert summaries["psnr"].low < summaries["psnr"].mean < summaries["psnr"].high
    assert summaries["ssim"].low == pytest.approx(0.9)
    assert baseline_of("psnr/hole") == "psnr/baseline_hole"


def test_worst_median_best_and_others_are_chosen_once_each() -> None:
    assert list(choose_images(ROWS, "psnr", 2)) == ["Worst: a", "Median: d", "Best: b"]
    assert list(choose_images(ROWS, "psnr", 4)) == ["Worst: a", "Median: d", "Best: b", "Image: c"]
    assert choose_images([], "psnr", 2) == {}


def page_of_rows() -> RestorationPage:
    return RestorationPage(
        title="model: data",
        task="Denoising",
        metric="psnr",
        summaries=summarise_images(ROWS),
        rows=ROWS,
        curves={},
        remark="",
        pictures=[],
        problems=[],
        left_out={"min_side": 3},
        changes={"enlarged": 2},
        config={"task": {"name": "denoising"}},
        lineage={"train key": "abc"},
    )


def test_dots_link_to_the_images_that_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_ROWS", 2)
    text = restoration_page(page_of_rows())
    links, places = (set(re.findall(rf'{name}="#?(image-[^"]*)"', text)) for name in ("href", "id"))
    assert links == places == {"image-a", "image-c"}, "the two worst"


def test_report_says_by_how_much_the_baseline_is_beaten() -> None:
    text = restoration_page(page_of_rows())
    for words in ("Denoising, evaluated on 4 images", "32.25", "26.50", "5.75", "min_side", "enlarged", 'id="image-a"'):
        assert words in text
    titles = re.findall(r"Colourfulness error[^<]*", text)
    pair = ["Colourfulness error", "Colourfulness error of the baseline"]
    assert titles == 2 * pair, "beside each other: as rows of the scores, as columns of the images"


def test_a_score_that_the_first_image_lacks_is_kept(tmp_path: Path) -> None:
    """The first frame of a clip has no temporal error, and PyArrow takes the columns of the first row."""
    rows = [row("a", 30.0, 25.0), row("b", 34.0, 26.0) | {"temporal_error": 2.0}]
    write_table(str(tmp_path / "images.parquet"), score_table(rows))
    found = read_table(str(tmp_path / "images.parquet")).to_pylist()
    np.testing.assert_array_equal(scores_of(found, "temporal_error"), [[np.nan], [2.0]])


def test_names_of_files_have_an_end() -> None:
    """A key has all folders of an image, and a file's name at most 255 bytes."""
    long, other = ("ordner%2F" * 40 + end for end in "ab")
    assert file_stem("a%2Fb") == "a%2Fb"
    assert len(file_stem(long)) <= 200
    assert len(file_stem("日" * 200).encode()) <= 200
    assert file_stem(long) != file_stem(other)


def test_pictures_of_a_strip_show_the_same_part(tmp_path: Path) -> None:
    """The id is too long for the name of a file, and the image larger than what is shown of it."""
    key = "a%2F" * 70
    image = np.random.default_rng(0).integers(0, 256, (1040, 600, 3), np.uint8)
    (tmp_path / "restored").mkdir()
    Image.fromarray(image).save(tmp_path / "restored" / f"{file_stem(key)}.png")
    attempt = cast("Attempt", SimpleNamespace(uri=lambda *parts: str(tmp_path.joinpath(*parts))))
    pixels = torch.from_numpy(image).movedim(-1, 0)[None]
    images = cast("ImageSamples", SimpleNamespace(pixels=lambda rows: pixels))
    config = RestorationConfig.model_validate({"task": {"name": "super_resolution"}})
    strip = draw_strip(attempt, config, images, "Worst", row(key, 30.0, 25.0), "psnr")
    sizes = {picture.caption: picture.size for picture in strip.pictures}
    assert sizes == {"input": (256, 256), **dict.fromkeys(("baseline", "restored", "truth"), (512, 512))}
