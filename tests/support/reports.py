"""Reports of both pipelines with something in every section."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from data_pipelines.errors import Problem
from flows.pipelines.diffusion.evaluation.page import DiffusionPage, diffusion_page
from flows.pipelines.segmentation.evaluation.cases import CaseView
from flows.pipelines.segmentation.evaluation.page import SegmentationPage, segmentation_page
from flows.pipelines.segmentation.evaluation.scoring import ClassScore
from flows.report.blocks import Picture, PictureRow
from flows.report.overlays import overlay_planes
from flows.training.goodput import TimeSplit
from tests.support.pages import png
from tests.support.volumes import corner_volume
from unet_models.metrics.summary import MetricSummary


def class_score(case_id: str, class_name: str, dice: float) -> ClassScore:
    """Build the scores of one class in one case."""
    metrics = {
        "dice": dice,
        "iou": dice / 2,
        "hd95_mm": 1.25,
        "surface_dice": 0.95,
        "volume_error_ml": 0.5,
        "volume_error_percent": -3.0,
    }
    return ClassScore(case_id=case_id, row=0, class_name=class_name, metrics=metrics)


def segmentation_report(**changes: Any) -> str:
    """Write the report of three cases and two classes, one of which no case has."""
    image, truth = corner_volume()
    planes = overlay_planes(image, truth, truth, (1, 1, 1), longest_side=40)
    page = SegmentationPage(
        title="Hippocampus",
        summaries=[
            MetricSummary("dice", "front", 0.8975, 0.89, 0.905, 2),
            MetricSummary("dice", "back", math.nan, math.nan, math.nan, 0),
            MetricSummary("dice", "mean", 0.8891, 0.8812, 0.8973, 3),
            MetricSummary("hd95_mm", "front", 1.25, 1.0, 1.5, 2),
        ],
        scores=[
            class_score("good", "front", 0.95),
            class_score("good", "back", math.nan),
            class_score("none", "front", math.nan),
            class_score("none", "back", math.nan),
            class_score("bad", "front", 0.125),
            class_score("bad", "back", math.nan),
        ],
        curves={"": {"train/loss": [(1, 1.0), (2, 0.5)], "val/dice": [(2, 0.7)]}},
        remark="",
        views=[CaseView("bad", "worst", 0.125, planes), CaseView("good", "best", 0.95, planes)],
        problems=[Problem("label-values", "labels/x.nii.gz", "Labels must be 0 or 1, got 255.", "Divide by 255.", "x")],
        config={"train": {"num_steps": 6000}},
        lineage={"train": "591785b7", "model": "models:/hippocampus@champion"},
        classes={"background": 0, "front": 1, "back": 2},
    )
    return segmentation_page(replace(page, **changes))


EMPTY_DIFFUSION = DiffusionPage(
    title="Shapes",
    num_images=0,
    metrics={},
    dimensions={},
    protocol={},
    pictures={},
    curves={},
    problems=[],
    left_out={},
    changes={},
    buckets={},
    config={},
    lineage={},
)
FULL_DIFFUSION = DiffusionPage(
    title="Shapes",
    num_images=10_000,
    metrics={
        "frechet_distance[clip,n=10000]": 12.345,
        "kid[clip,n=10000]": 0.00123,
        "precision[clip,n=10000]": 0.71,
        "alignment[clip,n=10000]": 0.27,
        "caption_accuracy": 0.931,
        "caption_accuracy/held_out": 0.648,
        "psnr": 31.5,
    },
    dimensions={"clip": 512},
    protocol={"N": "10,000 generated images", "features of clip": "512", "sampler": "DDIM"},
    pictures={
        "grid": [PictureRow("a red circle", [Picture(png(32, 32), "seed 1", "colour and shape right")])],
        "sizes": [PictureRow("a red star", [Picture(png(32, 32), "32x32"), Picture(png(16, 64), "16x64")])],
        "sweep": [PictureRow("a blue square", [Picture(png(32, 32), "guidance 3")])],
        "trace": [PictureRow("a green triangle", [Picture(png(32, 32), "step 1"), Picture(png(32, 32), "step 50")])],
        "neighbours": [PictureRow("a black circle", [Picture(png(32, 32), "nearest", "distance 0.25")])],
    },
    curves={
        "autoencoder": {"train/loss": [(1, 1.0), (2, 0.5)]},
        "denoiser": {"train/loss": [(1, 0.9), (2, 0.2)]},
        "text": {},
    },
    problems=[Problem("image-size", "images/7.jpg", "Images must be …", "Leave it out.", "7")],
    left_out={"too_small": 12, "duplicate": 1234},
    changes={"enlarged": 7},
    buckets={"32x32": 1000, "16x64": 17},
    config={"train": {"num_steps": 6000}},
    lineage={"train": "591785b7"},
    times={"denoiser": TimeSplit(wall=200, productive=150, start=30, data=20)},
)


def diffusion_report(**changes: Any) -> str:
    """Write a report that has every section."""
    return diffusion_page(replace(FULL_DIFFUSION, **changes))


def diffusion_report_of(**parts: Any) -> str:
    """Write a report that has these parts alone."""
    return diffusion_page(replace(EMPTY_DIFFUSION, **parts))
