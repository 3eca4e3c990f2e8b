"""Report of a latent-diffusion run: metrics explained, captions escaped, small N cautioned, empty parts left out."""

from __future__ import annotations

import base64
import re

import pytest

from data_pipelines.errors import Problem
from flows.report import Section, render
from flows.pipelines.diffusion.evaluation.page import PICTURES, Picture, PictureRow, diffusion_report
from flows.metrics import READINGS, read_metric
from tests.unit.test_report import ATTACK, NAN, Page, png
from tests.unit.test_report import report as segmentation

EMPTY: dict[str, object] = {
    "metrics": {},
    "protocol": {},
    "pictures": {},
    "curves": {},
    "problems": [],
    "left_out": {},
    "buckets": {},
    "config": {},
    "lineage": {},
}
FULL: dict[str, object] = {
    "metrics": {
        "frechet_distance[clip]": 12.345,
        "kid[clip]": 0.00123,
        "precision": 0.71,
        "alignment": 0.27,
        "caption_accuracy": 0.931,
        "caption_accuracy/held_out": 0.648,
        "psnr": 31.5,
        "sparkle": 42.0,
    },
    "protocol": {"N": "10,000", "extractor": "CLIP ViT-B/32", "feature dimension": "512", "sampler": "DDIM"},
    "pictures": {
        "grid": [PictureRow("a red circle", [Picture(png(32, 32), "seed 1", "colour and shape right")])],
        "sizes": [PictureRow("a red star", [Picture(png(32, 32), "32x32"), Picture(png(16, 64), "16x64")])],
        "sweep": [PictureRow("a blue square", [Picture(png(32, 32), "guidance 3")])],
        "trace": [PictureRow("a green triangle", [Picture(png(32, 32), "step 1"), Picture(png(32, 32), "step 50")])],
        "neighbours": [PictureRow("a black circle", [Picture(png(32, 32), "nearest", "distance 0.25")])],
    },
    "curves": {
        "autoencoder": {"train/loss": [(1, 1.0), (2, 0.5)]},
        "denoiser": {"train/loss": [(1, 0.9), (2, 0.2)]},
        "text": {},
    },
    "problems": [Problem("image-size", "images/7.jpg", "Images must be …", "Leave it out.", "7")],
    "left_out": {"too_small": 12, "duplicate": 1234},
    "buckets": {"32x32": 1000, "16x64": 17},
    "config": {"train": {"num_steps": 6000}},
    "lineage": {"train": "591785b7"},
}


def report(title: str = "Shapes", **changes: object) -> str:
    return diffusion_report(title, **(FULL | changes))  # type: ignore[arg-type]


def only(**parts: object) -> Page:
    return Page(diffusion_report("Shapes", **(EMPTY | parts)))  # type: ignore[arg-type]


def result(metrics: dict[str, float], protocol: dict[str, str]) -> str:
    return only(metrics=metrics, protocol=protocol).sections["section-result"]


def test_it_leads_from_the_numbers_over_the_pictures_to_their_origin():
    assert list(Page(report()).sections) == [
        "section-result",
        "section-metrics",
        "section-samples-by-prompt",
        "section-sizes",
        "section-guidance",
        "section-from-noise-to-image",
        "section-nearest-training-images",
        "section-training",
        "section-buckets",
        "section-images-left-out",
        "section-input-set-aside",
        "section-configuration",
        "section-lineage",
    ]


def test_it_stands_alone():
    html = report()
    page = Page(html)
    assert "http" not in re.sub(r'http-equiv|xmlns="http://www.w3.org/2000/svg"', "", html)
    assert len(page.values("src")) == 7
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))


@pytest.mark.parametrize(
    ("part", "section"),
    [
        ("protocol", "section-metrics"),
        ("curves", "section-training"),
        ("left_out", "section-images-left-out"),
        ("buckets", "section-buckets"),
        ("config", "section-configuration"),
        ("lineage", "section-lineage"),
    ],
)
def test_each_part_alone_has_its_one_section(part, section):
    assert list(only(**{part: FULL[part]}).sections) == [section]
    assert (
        section not in only(**{name: value for name, value in FULL.items() if name not in (part, "metrics")}).sections
    )


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        ("grid", "section-samples-by-prompt"),
        ("sizes", "section-sizes"),
        ("sweep", "section-guidance"),
        ("trace", "section-from-noise-to-image"),
        ("neighbours", "section-nearest-training-images"),
    ],
)
def test_each_kind_of_pictures_has_its_one_section(kind, section):
    assert list(only(pictures={kind: FULL["pictures"][kind]}).sections) == [section]  # type: ignore[index]


def test_a_report_of_nothing_is_still_a_page():
    assert only().sections == {}
    assert only(pictures={"grid": [PictureRow("prompt", [])]}, curves={"denoiser": {}}).sections == {}
    assert only(buckets={"32x32": 1000}).sections == {}, "one bucket is no news"
    assert list(only(problems=FULL["problems"]).sections) == ["section-result", "section-input-set-aside"]


# metrics


def test_every_metric_is_shown_with_its_direction_and_meaning():
    html = report()
    shown = Page(html).sections["section-metrics"]
    for name, value in (("Fréchet distance (clip)", "12.3"), ("KID (clip)", "0.00123"), ("sparkle", "42")):
        assert re.search(rf"{re.escape(name)}\S*\s*{re.escape(value)}", shown)
    for name in FULL["metrics"]:  # type: ignore[attr-defined]
        assert name in html
        meaning = read_metric(name).meaning
        assert meaning in shown
        assert bool(meaning) == (name != "sparkle")
    assert re.search(r"lower is better.*?higher is better", shown, re.DOTALL)
    assert "CLIP ViT-B/32" in shown


def test_metric_names_are_read_with_extractor_and_part():
    assert read_metric("frechet_distance[clip]/held_out").title == "Fréchet distance (clip, held out)"
    assert read_metric("caption_accuracy/held_out").title == "Caption accuracy (held out)"
    assert read_metric("caption_accuracy/two_items").title == "Caption accuracy (two items)"
    assert read_metric("kid").better == "lower is better"
    for name in ("sparkle[clip]", "kid[", "", "/", "psnr_of_nothing"):
        assert (read_metric(name).title, read_metric(name).meaning) == (name, "")
    assert {reading.better for reading in READINGS.values()} == {"higher is better", "lower is better"}


@pytest.mark.parametrize(
    ("metrics", "titles"),
    [
        (FULL["metrics"], "Caption accuracy|Caption accuracy (held out)|Fréchet distance (clip)"),
        ({"alignment": 0.3, "kid": 0.1, "frechet_distance": 9.0}, "Fréchet distance|Alignment"),
        ({"alignment": 0.3, "frechet_distance[a]": 9.0, "frechet_distance[b]": 8.0}, "Fréchet distance (a)|Alignment"),
        ({"sparkle": 1.0, "glow": 2.0}, "sparkle|glow"),
    ],
)
def test_the_headline_has_the_most_telling_metrics_explained(metrics, titles):
    html = diffusion_report("Shapes", **(EMPTY | {"metrics": metrics}))  # type: ignore[arg-type]
    assert re.findall(r"<dt>(.*?)</dt>", html) == titles.split("|")
    shown = Page(html).sections["section-result"]
    for reading in map(read_metric, metrics):
        assert (reading.sentence in shown) == (reading.title in titles.split("|") or not reading.meaning)


def test_set_aside_input_is_in_the_headline_and_absent_values_are_named():
    page = only(metrics={"kid": NAN}, problems=FULL["problems"])
    assert re.search(r"Set aside\s*1", page.sections["section-result"])
    assert "absent" in page.sections["section-metrics"]


@pytest.mark.parametrize(
    ("num", "extractor", "dimension", "shown"),
    [
        ("5,119", "clip", "512", True),
        ("5,120", "clip", "512", False),
        ("5120 generated, 9000 real", "clip", "512", False),
        ("20,479", "inception-2015-12-05", "", True),
        ("20 480", "inception-2015-12-05", "", False),
        ("1_000", "another", "", True),
        ("50k", "another", "", False),
        ("all of them", "another", "", False),
    ],
)
def test_a_frechet_distance_of_few_images_comes_with_a_caution(num, extractor, dimension, shown):
    protocol = {"N": num, "extractor": extractor} | ({"feature dimension": dimension} if dimension else {})
    for name in ("frechet_distance", f"frechet_distance[{extractor}]"):
        assert ("Caution: N = " in result({name: 12.0}, protocol)) == shown
    assert "Caution" not in result({"kid": 12.0}, protocol)


def test_the_caution_names_distance_dimension_and_remedy():
    protocol = {"num_images": "10,000", "feature dimension[clip]": "512"}
    shown = result({"frechet_distance[clip]": 1.0, "frechet_distance[inception]": 2.0}, protocol)
    assert "N = 10,000" in shown
    assert "Fréchet distance (inception) has 2,048 features and would need 20,480" in shown
    assert "Fréchet distance (clip) has" not in shown
    assert "512 features (assumed)" in result({"frechet_distance": 1.0}, {"N": "9"})


def test_the_subtitle_says_how_many_images():
    assert "Latent diffusion, evaluated on 10,000 images" in report()
    assert '<p class="subtitle">Latent diffusion</p>' in report(protocol={})


# pictures


def test_captions_and_every_other_text_are_escaped():
    rows = [PictureRow(ATTACK, [Picture(png(), ATTACK, ATTACK), Picture(png(), "")])]
    texts = {ATTACK: ATTACK}
    html = report(
        title=ATTACK,
        metrics={ATTACK: 1.0, f"kid[{ATTACK}]": 2.0, f"caption_accuracy/{ATTACK}": 0.5},
        protocol=texts,
        pictures=dict.fromkeys(PICTURES, rows),
        curves={ATTACK: {ATTACK: [(1, 1.0)]}},
        problems=[Problem(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK)],
        left_out={ATTACK: 1},
        buckets={ATTACK: 1, "32x32": 1},
        config=texts,
        lineage=texts,
    )
    page = Page(html)
    assert html.count("<script>") == 1
    assert len(page.scripts) == 1
    assert "alert(" not in page.scripts[0]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.values("alt")[:2] == [ATTACK, f"{ATTACK}, picture 2 of 2"]
    assert html.count("alert(") > 30


def test_pictures_are_unchanged_described_and_shown_with_what_was_found():
    page = Page(report())
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


@pytest.mark.parametrize(
    ("sizes", "width", "enlarged"),
    [
        ([32], 96, [True]),
        ([28], 112, [True]),
        ([64], 128, [True]),
        ([96], 96, [False]),
        ([256], 256, [False]),
        ([1024], 256, [False]),
        ([32, 256], 256, [False, False]),
    ],
)
def test_small_pictures_are_enlarged_pixel_by_pixel(sizes, width, enlarged):
    row = PictureRow("", [Picture(png(size, size), "") for size in sizes])
    page = Page(html := render("t", "", [Section("s", "", [row])]))
    assert row.width == width
    assert f"--width: {width}px" in html
    assert ("width: 12.5%" in html) == (len(sizes) > 1), "one scale for all"
    assert [attributes.get("class") == "enlarged" for tag, attributes in page.tags if tag == "img"] == enlarged
    assert re.search(r"\.enlarged \{ image-rendering: pixelated; \}", html)


def test_pictures_must_be_png():
    with pytest.raises(ValueError, match="bytes of a PNG"):
        Picture(b"GIF89a", "")


# the rest


def test_curves_stand_under_their_stages():
    html = report()
    headings = re.findall(r"<h3>(.*?)</h3>", html)
    assert headings[-2:] == ["autoencoder", "denoiser"]
    assert "training images by heart" in Page(html).sections["section-training"]


def test_images_left_out_are_counted_most_first():
    shown = Page(report()).sections["section-images-left-out"]
    assert re.search(r"duplicate.*1,234.*too_small.*12", shown, re.DOTALL)


@pytest.mark.parametrize("name", ["input-set-aside", "configuration", "lineage"])
def test_both_reports_have_the_same_common_sections(name):
    shared = {
        "problems": FULL["problems"],
        "config": FULL["config"],
        "lineage": FULL["lineage"],
    }
    ours, theirs = Page(report(**shared)), Page(segmentation(**shared))
    assert ours.sections[f"section-{name}"] == theirs.sections[f"section-{name}"] != ""


def test_the_report_is_the_same_every_time():
    assert report() == report()
