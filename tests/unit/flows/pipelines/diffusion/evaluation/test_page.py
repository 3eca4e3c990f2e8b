"""Report of a latent-diffusion run: metrics explained, captions escaped, small N cautioned, empty parts left out."""

from __future__ import annotations

import base64
import math
import re
from typing import Any

import pytest

from data_pipelines.errors import Problem
from flows.metrics import parse_metric_name
from flows.pipelines.diffusion.evaluation.page import PICTURES
from flows.report.blocks import Picture, PictureRow
from tests.support.pages import ATTACK, Page, assert_runs_no_foreign_script, png
from tests.support.reports import FULL_DIFFUSION, diffusion_report, diffusion_report_of

PARTS = {
    "protocol": "section-metrics",
    "curves": "section-training",
    "times": "section-time",
    "left_out": "section-images-left-out",
    "changes": "section-images-changed",
    "buckets": "section-buckets",
    "config": "section-configuration",
    "lineage": "section-lineage",
}
KINDS = {
    "grid": "section-samples-by-prompt",
    "sizes": "section-sizes",
    "sweep": "section-guidance",
    "trace": "section-from-noise-to-image",
    "neighbours": "section-nearest-training-images",
}


def only(**parts: Any) -> Page:
    return Page(diffusion_report_of(**parts))


def result(metrics: dict[str, float], dimensions: dict[str, int]) -> str:
    return only(metrics=metrics, dimensions=dimensions).sections["section-result"]


def test_it_leads_from_the_numbers_over_the_pictures_to_their_origin() -> None:
    assert list(Page(diffusion_report()).sections) == [
        "section-result",
        "section-metrics",
        *KINDS.values(),
        "section-training",
        "section-time",
        "section-buckets",
        "section-images-left-out",
        "section-images-changed",
        "section-input-set-aside",
        "section-configuration",
        "section-lineage",
    ]


def test_it_stands_alone() -> None:
    html = diffusion_report()
    page = Page(html)
    assert "http" not in re.sub(r'http-equiv|xmlns="http://www.w3.org/2000/svg"', "", html)
    assert len(page.values("src")) == 7
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_has_its_one_section(part: str) -> None:
    assert list(only(**{part: getattr(FULL_DIFFUSION, part)}).sections) == [PARTS[part]]
    without = Page(diffusion_report(**{part: {}, "metrics": {}})).sections
    assert PARTS[part] not in without


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_pictures_has_its_one_section(kind: str) -> None:
    assert list(only(pictures={kind: FULL_DIFFUSION.pictures[kind]}).sections) == [KINDS[kind]]


def test_a_report_of_nothing_is_still_a_page() -> None:
    assert only().sections == {}
    assert only(pictures={"grid": [PictureRow("prompt", [])]}, curves={"denoiser": {}}).sections == {}
    assert only(buckets={"32x32": 1000}).sections == {}, "one bucket is no news"
    assert list(only(problems=FULL_DIFFUSION.problems).sections) == ["section-result", "section-input-set-aside"]


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_every_metric_is_shown_with_its_direction_and_meaning() -> None:
    html = diffusion_report()
    shown = Page(html).sections["section-metrics"]
    for name, value in (
        ("Fréchet distance (clip,n=10000)", "12.3"),
        ("KID (clip,n=10000)", "0.00123"),
        ("PSNR (dB)", "31.5"),
    ):
        assert re.search(rf"{re.escape(name)}.*?{re.escape(value)}", shown, re.DOTALL)
    for name in FULL_DIFFUSION.metrics:
        assert name in html
        assert parse_metric_name(name).metric.meaning
        assert parse_metric_name(name).metric.meaning in shown
    assert re.search(r"lower is better.*?higher is better", shown, re.DOTALL)
    assert "DDIM" in shown


@pytest.mark.parametrize(
    ("metrics", "titles"),
    [
        (
            FULL_DIFFUSION.metrics,
            ["Caption accuracy", "Caption accuracy (held out)", "Fréchet distance (clip,n=10000)"],
        ),
        ({"alignment": 0.3, "kid": 0.1, "frechet_distance": 9.0}, ["Fréchet distance", "Alignment"]),
        (
            {"alignment": 0.3, "frechet_distance[a]": 9.0, "frechet_distance[b]": 8.0},
            ["Fréchet distance (a)", "Alignment"],
        ),
        ({"precision": 1.0, "recall": 2.0}, ["Precision", "Recall"]),
    ],
)
def test_the_headline_has_the_most_telling_metrics_explained(metrics: dict[str, float], titles: list[str]) -> None:
    html = diffusion_report_of(metrics=metrics)
    assert re.findall(r"<dt>(.*?)</dt>", html) == titles
    shown = Page(html).sections["section-result"]
    for parsed in map(parse_metric_name, metrics):
        sentence = f"{parsed.title}, {parsed.metric.direction}: {parsed.metric.meaning}"
        assert (sentence in shown) == (parsed.title in titles)


def test_distances_stand_side_by_side_at_equal_n_alone_with_kid_beside_them() -> None:
    metrics = {
        "frechet_distance[clip,n=500]": 0.25,
        "frechet_distance[clip,n=500]/prior": 0.75,
        "frechet_distance[clip,n=157]/generated": 0.375,
        "frechet_distance[clip,n=157]/reconstruction": 0.125,
        "kid[clip,n=500]": 0.011,
        "kid[clip,n=500]/prior": 0.022,
        "kid[clip,n=157]/generated": 0.033,
        "kid[clip,n=157]/reconstruction": 0.044,
        "fid[n=500]": 21.0,
    }
    html = diffusion_report_of(metrics=metrics)
    others, *tables = re.findall(r"<table.*?</table>", html, re.DOTALL)
    values = [re.findall(r">(\d[\d.]*)<", table) for table in tables]
    assert values == [["0.250", "0.0110", "0.750", "0.0220"], ["0.375", "0.0330", "0.125", "0.0440"]]
    assert re.findall(r">(\d[\d.]*)<", others) == ["0.250", "0.0110", "21"]
    assert "lower is better; KID 0.0110" in html


def test_a_metric_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError, match="sparkle is not in the table of metrics"):
        diffusion_report(metrics={"sparkle": 42.0})


def test_set_aside_input_is_in_the_headline_and_absent_values_are_named() -> None:
    page = only(metrics={"kid": math.nan}, problems=FULL_DIFFUSION.problems)
    assert re.search(r"Set aside\s*1", page.sections["section-result"])
    assert "absent" in page.sections["section-metrics"]


@pytest.mark.parametrize(
    ("name", "dimensions", "shown"),
    [
        ("frechet_distance[clip,n=5119]", {"clip": 512}, True),
        ("frechet_distance[clip,n=5120]", {"clip": 512}, False),
        ("frechet_distance[clip,n=319]/reconstruction", {"clip": 32}, True),
        ("frechet_distance[clip,n=320]/reconstruction", {"clip": 32}, False),
        ("fid[n=20479]", {"inception": 2048}, True),
        ("fid[n=20480]", {"inception": 2048}, False),
        ("kid[clip,n=12]", {"clip": 512}, False),
    ],
)
def test_a_frechet_distance_of_few_images_comes_with_a_caution(
    name: str, dimensions: dict[str, int], shown: bool
) -> None:
    assert ("Caution: few images" in result({name: 12.0}, dimensions)) == shown


def test_the_caution_names_each_distance_its_dimension_and_the_remedy() -> None:
    shown = result(
        {"fid[n=100]": 1.0, "frechet_distance[clip,n=100]/reconstruction": 2.0, "frechet_distance[clip,n=9999]": 3.0},
        {"clip": 32, "inception": 2048},
    )
    assert "FID (n=100) has 2,048 features and 100 images, and would need 20,480" in shown
    assert "Fréchet distance (clip,n=100, reconstruction) has 32 features and 100 images, and would need 320" in shown
    assert "n=9999) has" not in shown
    assert "rather by KID" in shown
    assert "assumed" not in shown


def test_the_subtitle_says_how_many_images() -> None:
    assert "Latent diffusion, evaluated on 10,000 images" in diffusion_report()
    assert '<p class="subtitle">Latent diffusion</p>' in diffusion_report(num_images=0)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_captions_and_every_other_text_are_escaped() -> None:
    rows = [PictureRow(ATTACK, [Picture(png(), ATTACK, ATTACK), Picture(png(), "")])]
    texts = {ATTACK: ATTACK}
    html = diffusion_report(
        title=ATTACK,
        metrics={f"kid[{ATTACK}]": 2.0, f"caption_accuracy/{ATTACK}": 0.5, f"psnr/{ATTACK}": 1.0},
        protocol=texts,
        pictures=dict.fromkeys(PICTURES, rows),
        curves={ATTACK: {f"val/loss/{ATTACK}": [(1, 1.0)]}},
        problems=[Problem(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK)],
        left_out={ATTACK: 1},
        buckets={ATTACK: 1, "32x32": 1},
        config=texts,
        lineage=texts,
    )
    assert_runs_no_foreign_script(html)
    assert Page(html).values("alt")[:2] == [ATTACK, f"{ATTACK}, picture 2 of 2"]
    assert html.count("alert(") > 30


def test_pictures_are_unchanged_described_and_shown_with_what_was_found() -> None:
    page = Page(diffusion_report())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [base64.b64decode((image["src"] or "").split(",")[1]) for image in images] == [
        png(16, 64) if image["alt"] == "a red star, 16x64" else png(32, 32) for image in images
    ]
    assert [image["alt"] for image in images] == [
        "a red circle, seed 1, colour and shape right",
        "a red star, 32x32",
        "a red star, 16x64",
        "a blue square, guidance 3",
        "a green triangle, step 1",
        "a green triangle, step 50",
        "a black circle, nearest, distance 0.25",
    ]
    for text in ("a red circle", "seed 1", "colour and shape right"):
        assert text in page.sections["section-samples-by-prompt"]


# --- the rest --------------------------------------------------------------------------------------------------------


def test_curves_stand_under_their_stages() -> None:
    html = diffusion_report()
    headings = re.findall(r"<h3>(.*?)</h3>", html)
    assert headings[-2:] == ["autoencoder", "denoiser"]
    assert "training images by heart" in Page(html).sections["section-training"]


def test_images_left_out_are_counted_most_first() -> None:
    shown = Page(diffusion_report()).sections["section-images-left-out"]
    assert re.search(r"duplicate.*1,234.*too_small.*12", shown, re.DOTALL)


def test_the_report_is_the_same_every_time() -> None:
    assert diffusion_report() == diffusion_report()
