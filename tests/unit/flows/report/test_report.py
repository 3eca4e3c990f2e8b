"""Reports: one HTML file that fetches nothing, escapes everything, and shows what it was given."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.errors import Problem
from flows.report import Cell, Details, Figure, FigureRow, KeyValue, KeyValues, Section, Table, Text, render
from flows.report.axes import log_ticks, nice_ticks, number_text, tick_texts
from flows.report.charts import class_legend, condense, line_chart, spread
from flows.report.curves import curve_figures, split_name
from flows.report.html import unique_anchors
from flows.report.overlays import FILL_OPACITY, overlay_planes
from flows.report.palette import CLASS_COLOURS, class_colour, hex_colour
from flows.pipelines.segmentation.evaluation.page import CaseView, segmentation_report
from flows.report.strip import Dot, quartiles, strip_chart, swarm

NAN = math.nan
ATTACK = "<script>alert('x')</script>\"&"
VOID = {"meta", "link", "img", "wbr", "br"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """What a browser sees: balanced tags, attributes, and the text of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.scripts: list[str] = []
        self.policy = ""
        self._section = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"] or ""
            self.sections[self._section] = ""
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        if self._section:
            self.sections[self._section] += data

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def png(width: int = 3, height: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


def chart(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in chart(svg).iter(SVG + "text")]


def pixels(png_bytes: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png_bytes)).convert("RGB")).astype(int)


# axes


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (NAN, None, "absent"),
        (None, 3, "absent"),
        (math.inf, 2, "∞"),
        (-math.inf, None, "-∞"),
        (0.88349, 3, "0.883"),
        (-0.0001, 2, "0.00"),
        (-0.004, None, "-0.00400"),
        (1234567, None, "1,234,567"),
        (0.000117, None, "1.17e-4"),
        (0.8831, None, "0.883"),
        (12.345, None, "12.3"),
        (0, None, "0"),
    ],
)
def test_numbers_are_written_for_reading(value, decimals, text):
    assert number_text(value, decimals) == text


@pytest.mark.parametrize(
    ("low", "high", "ticks", "labels"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.75, 0.97, [0.75, 0.8, 0.85, 0.9, 0.95, 1.0], ["0.75", "0.80", "0.85", "0.90", "0.95", "1.00"]),
        (1, 6000, [0, 1000, 2000, 3000, 4000, 5000, 6000], ["0", "1,000", "2,000", "3,000", "4,000", "5,000", "6,000"]),
        (0, 5e-4, [0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4], ["0", "1e-4", "2e-4", "3e-4", "4e-4", "5e-4"]),
        (-1.2, 0.3, [-1.5, -1.0, -0.5, 0.0, 0.5], ["-1.5", "-1.0", "-0.5", "0.0", "0.5"]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks, labels):
    assert nice_ticks(low, high) == pytest.approx(ticks)
    assert tick_texts(nice_ticks(low, high)) == labels


def test_log_ticks():
    assert log_ticks(0.03, 4) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    assert log_ticks(1e-5, 2) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10])
    assert tick_texts(log_ticks(1e-5, 2)) == ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1", "10"]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(low=1.0, extent=2.3e-16)
@example(low=0.0, extent=5e-324)
@settings(max_examples=60, deadline=None)
def test_ticks_enclose_the_data_and_tell_apart(low, extent):
    ticks = nice_ticks(low, low + extent)
    rounding = 1e-6 * extent + 1e-9 * abs(low)
    assert ticks[0] <= low + rounding
    assert ticks[-1] >= low + extent - rounding
    assert 2 <= len(ticks) <= 9
    assert len(set(tick_texts(ticks))) == len(ticks)


@given(st.floats(1e-8, 1e8), st.floats(1, 1e6))
@settings(max_examples=60, deadline=None)
def test_log_ticks_enclose_the_data(low, ratio):
    ticks = log_ticks(low, low * ratio)
    assert ticks[0] <= low * (1 + 1e-6)
    assert ticks[-1] >= low * ratio * (1 - 1e-6)
    assert len(ticks) >= 2
    assert sorted(set(ticks)) == ticks


# charts


def path_points(element: ElementTree.Element) -> list[list[float]]:
    return [[float(x) for x in point.split()] for point in element.attrib["d"].lstrip("M").rstrip("Z").split("L")]


def curves_of(svg: str) -> list[list[list[float]]]:
    return [path_points(path) for path in chart(svg).iter(SVG + "path") if path.get("fill") == "none"]


def test_a_higher_value_is_drawn_higher_and_later_steps_further_right():
    (line,) = curves_of(line_chart({"loss": [(0, 0.0), (10, 5.0), (20, 10.0)]}, title="t"))
    assert line[0][0] < line[1][0] < line[2][0]
    assert line[0][1] > line[1][1] > line[2][1]
    assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.2)


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis():
    (line,) = curves_of(line_chart({"loss": [(0, 1.0), (1, 0.1), (2, 0.01)]}, title="t", log_y=True))
    assert line[1][1] - line[0][1] == pytest.approx(line[2][1] - line[1][1], abs=0.2)
    assert line[2][1] > line[0][1]


def test_missing_values_leave_a_gap():
    points = [(0, 1.0), (1, 2.0), (2, NAN), (3, 3.0), (4, 4.0), (5, math.inf)]
    assert [len(line) for line in curves_of(line_chart({"a": points}, title="t"))] == [2, 2]
    assert [len(line) for line in curves_of(line_chart({"a": [(0, 1), (1, 2), (2, -1)]}, title="t", log_y=True))] == [2]


def test_a_chart_without_values_says_so():
    assert "No values were recorded." in texts(line_chart({"a": [(0, NAN)]}, title="t"))


def test_series_are_named_in_the_legend_and_at_their_ends():
    svg = line_chart({"training": [(0, 1.0), (1, 0.25)], "validation": [(0, 1.0), (1, 0.5)]}, title="Loss")
    assert {"Loss", "training", "validation", "training 0.250", "validation 0.500", "step"} <= set(texts(svg))
    dashes = {
        path.attrib["style"].split("stroke-dasharray:")[1].split(";")[0] for path in chart(svg).iter(SVG + "path")
    }
    assert len(dashes) == 2


def test_long_series_keep_their_mean_and_their_extremes():
    points = [(step, float(step % 2)) for step in range(1000)]
    condensed = condense(points)
    assert len(condensed) == 100
    assert all((mean, low, high) == (0.5, 0.0, 1.0) for _, mean, low, high in condensed)
    assert [x for x, *_ in condensed[:2]] == [4.5, 14.5]
    assert condense(points[:3]) == [(0, 0.0, 0.0, 0.0), (1, 1.0, 1.0, 1.0), (2, 0.0, 0.0, 0.0)]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_labels_never_overlap_nor_leave_the_chart(positions):
    assert spread([0, 290, 295, 299], 15, 0, 300) == [0, 270, 285, 300]
    moved = spread(sorted(positions), 15, 0, 300)
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(moved))
    assert moved[0] >= 0
    assert moved[-1] <= 300


def test_curves_are_grouped_by_quantity():
    assert split_name("train/loss") == ("loss", "training")
    assert split_name("val/dice/left") == ("dice", "validation left")
    assert split_name("learning_rate") == ("learning_rate", "learning_rate")
    points = [(1, 0.5), (2, 0.4)]
    names = ("train/loss", "val/loss", "val/dice", "learning_rate", "samples_per_second")
    titles = [texts(figure.svg or "")[0] for figure in curve_figures(dict.fromkeys(names, points))]
    assert titles == [
        "Loss (lower is better)",
        "Dice (higher is better), validation",
        "Learning rate",
        "Samples per second",
    ]


def test_strip_chart_links_every_case_and_names_the_lowest():
    dots = [Dot("a", 0.9, "#case-a"), Dot("b", 0.2, "#case-b"), Dot("c", NAN, "#case-c"), Dot("d", 0.8, "#case-d")]
    svg = strip_chart({"left": dots, "right": []}, x_label="Dice")
    circles = list(chart(svg).iter(SVG + "circle"))
    titles = sorted(title.text or "" for title in chart(svg).iter(SVG + "title"))
    assert titles == ["a: 0.900", "b: 0.200", "d: 0.800"]
    assert [circle.attrib["r"] for circle in circles] == ["3.2", "3.2", "4.2"]  # the lowest is larger, and on top
    assert {"left", "right", "median 0.800", "in no case", "b"} <= set(texts(svg))
    assert sorted(a.attrib["href"] for a in chart(svg).iter(SVG + "a")) == ["#case-a", "#case-b", "#case-b", "#case-d"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_quartiles_equal_numpy(values):
    assert quartiles(values) == pytest.approx(tuple(np.percentile(values, (25, 50, 75))))


def test_swarm_keeps_equal_values_apart():
    assert swarm([5.0, 5.1, 5.2, 40.0], diameter=6, height=36) == pytest.approx([0, 6, -6, 0], abs=1e-9)


def test_class_colours_differ_and_reach_beyond_seven_classes():
    colours = [class_colour(label) for label in range(1, 22)]
    assert tuple(colours[:7]) == CLASS_COLOURS
    assert len(set(colours)) == 21
    assert hex_colour(class_colour(1)) == "#e69f00"
    with pytest.raises(ValueError, match="from 1 on"):
        class_colour(0)


# overlays


def corner_volume(shape: tuple[int, int, int] = (6, 10, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Bright at the right, anterior, superior end of each axis; foreground there too."""
    image = np.zeros((1, *shape), np.float32)
    truth = np.zeros(shape, np.uint8)
    image[0, 4:, 7:, 3:] = 1000
    truth[4:, 7:, 3:] = 1
    return image, truth


def test_planes_show_the_patients_right_on_the_left_and_anterior_and_superior_up():
    image, truth = corner_volume()
    planes = overlay_planes(image, truth, np.zeros_like(truth), (1, 1, 1), longest_side=200)
    assert [plane.name for plane in planes] == [
        "axial, slice 4 of 4",
        "coronal, slice 9 of 10",
        "sagittal, slice 6 of 6",
    ]
    for plane in planes:
        red = pixels(plane.png)[..., 0]
        rows, columns = red.shape
        # The centre of the bright corner, clear of its outline.
        assert red[: rows // 4].max() == 255
        assert red[rows // 2 :].max() < 40
        assert red[:, columns // 2 :].max() < 40


def test_pixels_have_the_true_aspect_and_one_scale():
    image, truth = corner_volume((6, 10, 4))
    planes = overlay_planes(image, truth, truth, (1.0, 1.0, 2.5), longest_side=300)
    sizes = [Image.open(io.BytesIO(plane.png)).size for plane in planes]
    assert sizes == [(180, 300), (180, 300), (300, 300)]


def test_slices_have_most_of_the_truth_else_of_the_prediction_else_the_middle():
    image = np.zeros((5, 6, 7))
    truth, prediction = np.zeros((2, 5, 6, 7), np.uint8)
    names = [plane.name for plane in overlay_planes(image, truth, prediction, (1, 1, 1))]
    assert names == ["axial, slice 4 of 7", "coronal, slice 4 of 6", "sagittal, slice 3 of 5"]
    prediction[1, 1, 1] = 1
    names = [plane.name for plane in overlay_planes(image, truth, prediction, (1, 1, 1))]
    assert names == ["axial, slice 2 of 7", "coronal, slice 2 of 6", "sagittal, slice 2 of 5"]
    truth[3, 3, 3:6] = 2
    truth[3, 4, 5] = 2
    names = [plane.name for plane in overlay_planes(image, truth, prediction, (1, 1, 1))]
    assert names == ["axial, slice 6 of 7", "coronal, slice 4 of 6", "sagittal, slice 4 of 5"]


def test_truth_is_an_outline_and_prediction_a_translucent_fill():
    image = np.full((10, 10), 100, np.uint8)
    truth, prediction = np.zeros((2, 10, 10), np.uint8)
    truth[0:4, 0:4] = 1
    prediction[6:10, 6:10] = 2
    (plane,) = overlay_planes(image, truth, prediction, (1, 1), longest_side=200)
    picture = pixels(plane.png)
    below_border = [tuple(picture[row, 40]) for row in (80, 79, 78, 77, 76)]  # from outside inwards
    hairline, plain = (35, 35, 35), (100, 100, 100)
    assert below_border == [plain, class_colour(1), class_colour(1), hairline, plain]
    mixed = (1 - FILL_OPACITY) * 100 + FILL_OPACITY * np.array(class_colour(2))
    assert picture[160, 160] == pytest.approx(mixed, abs=1)
    assert picture[125, 160] == pytest.approx(mixed, abs=1)


def test_two_dimensional_colour_images_keep_their_colours_and_orientation():
    image = np.zeros((3, 4, 8), np.uint8)
    image[0, :2], image[2, 2:] = 250, 90
    empty = np.zeros((4, 8), np.uint8)
    (plane,) = overlay_planes(image, empty, empty, (1, 1), longest_side=80)
    picture = pixels(plane.png)
    assert picture.shape == (40, 80, 3)
    assert tuple(picture[2, 40]) == (250, 0, 0)
    assert tuple(picture[37, 40]) == (0, 0, 90)


@pytest.mark.filterwarnings("error")
def test_first_channel_is_shown_and_constant_or_broken_voxels_do_no_harm():
    empty = np.zeros((4, 4, 4), np.uint8)
    image = np.stack([np.full((4, 4, 4), 7.0), np.random.default_rng(0).normal(size=(4, 4, 4))])
    for constant in (image, np.full((4, 4, 4), NAN)):
        for plane in overlay_planes(constant, empty, empty, (1, 1, 1)):
            assert pixels(plane.png).max() == 0
    image[0, 2:] = 9.0
    image[0, 0] = NAN, math.inf, -math.inf, NAN
    axial = pixels(overlay_planes(image, empty, empty, (1, 1, 1), longest_side=40)[0].png)[..., 0]
    assert axial[20, 5] == 255
    assert axial[20, 25] == 0


def test_overlays_refuse_what_does_not_fit_together():
    labels = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"same spatial shape, got \(4, 4, 5\)"):
        overlay_planes(np.zeros((4, 4, 5)), labels, labels, (1, 1, 1))
    with pytest.raises(ValueError, match="spacing must be 3 positive"):
        overlay_planes(labels, labels, labels, (1, 0, 1))
    with pytest.raises(ValueError, match="2-D or 3-D"):
        overlay_planes(labels, labels[0, 0], labels[0, 0], (1,))


# the page


def every_block(text: str) -> list[Section]:
    svg = line_chart({text: [(0, 1.0)], text + "2": [(0, 2.0)]}, title=text, x_label=text)
    strip = strip_chart({text: [Dot(text, 0.5, "#" + text)]}, x_label=text)
    blocks = [
        Table(
            [text, "n"], [[Cell(text, text, href="#" + text, anchor="a" + text), 1], [text, NAN]], text, [text, text]
        ),
        Figure(png=png(), caption=text, alt=text),
        Figure(svg=svg, caption=text),
        FigureRow([Figure(png=png(), caption=text), Figure(svg=strip)], text, text, "r" + text),
        Figure(svg=class_legend([(text, "#112233")])),
        KeyValues([KeyValue(text, text, text)], style="headline"),
        Text(text),
        Details(text, text),
    ]
    return [Section(text, text, blocks)]


def test_every_text_is_escaped():
    html = render(ATTACK, ATTACK, every_block(ATTACK))
    page = Page(html)
    assert html.count("<script>") == 1
    assert len(page.scripts) == 1
    assert "alert(" not in page.scripts[0]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert html.count("alert(") > 20


def test_svg_from_elsewhere_is_shown_as_text():
    section = Section("s", "", [Figure(svg="<svg onload=alert(1)></svg>")])  # type: ignore[arg-type]
    assert "svg" not in [tag for tag, _ in Page(render("t", "", [section])).tags]


def test_the_page_fetches_nothing_and_tells_the_browser_so():
    html = render("t", "s", every_block("text"))
    page = Page(html)
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    assert not re.search(r"@import|url\(|//[a-z]+\.[a-z]", html.replace("http://www.w3.org/2000/svg", ""))
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_pictures_are_inside_the_page_unchanged():
    picture = png(30, 20)
    section = Section("s", "", [FigureRow([Figure(png=picture)]), Figure(png=picture, alt="what it shows")])
    images = [attributes for tag, attributes in Page(render("t", "", [section])).tags if tag == "img"]
    for image in images:
        assert base64.b64decode((image["src"] or "").split(",")[1]) == picture
        assert (image["width"], image["height"]) == ("30", "20")
    assert images[1]["alt"] == "what it shows"


def test_the_page_is_drawn_for_light_dark_and_print():
    html = render("t", "", [])
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_tables_sort_by_numbers_and_call_nan_absent():
    section = Section("s", "", [Table(["case", "dice"], [["a", 0.5], ["b", NAN], ["c", Cell("1.0", number=1)]])])
    page = Page(render("t", "", [section]))
    assert page.values("data-v") == ["0.5", "", "1"]
    assert "absent" in page.sections["section-s"]


def test_same_input_same_bytes():
    assert render("t", "s", every_block("x")) == render("t", "s", every_block("x"))


def test_sections_are_linked_and_ids_unique():
    page = Page(render("t", "", [Section("Ä b", "", []), Section("Ä/b", "", []), Section("x", "", [])]))
    assert list(page.sections) == ["section-b", "section-b-2", "section-x"]
    assert [href for href in page.values("href") if href != "data:,"] == ["#" + name for name in page.sections]
    with pytest.raises(ValueError, match="'a' twice"):
        unique_anchors(["a", "a"])


def test_blocks_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="must start with"):
        Cell("x", href="javascript:alert(1)")
    with pytest.raises(ValueError, match="must have 2 cells"):
        Table(["a", "b"], [["only one"]])
    with pytest.raises(ValueError, match="2 strings or none"):
        Table(["a", "b"], [], column_notes=["one"])
    with pytest.raises(ValueError, match="either png or svg"):
        Figure()
    with pytest.raises(ValueError, match="bytes of a PNG"):
        Figure(png=b"GIF89a")


# the segmentation report


@dataclass
class Summary:
    metric: str
    class_name: str
    mean: float
    low: float
    high: float
    num_cases: int


def row(case_id: str, class_name: str, dice: float) -> dict[str, object]:
    return {
        "case_id": case_id,
        "class_name": class_name,
        "dice": dice,
        "iou": dice / 2,
        "hd95_mm": 1.25,
        "surface_dice": 0.95,
        "volume_error_ml": 0.5,
        "volume_error_percent": -3.0,
    }


def report(**changes: object) -> str:
    image, truth = corner_volume()
    planes = overlay_planes(image, truth, truth, (1, 1, 1), longest_side=40)
    arguments: dict[str, object] = {
        "title": "Hippocampus",
        "summaries": [
            Summary("dice", "front", 0.8975, 0.89, 0.905, 2),
            Summary("dice", "back", NAN, NAN, NAN, 0),
            Summary("dice", "mean", 0.8891, 0.8812, 0.8973, 3),
            Summary("hd95_mm", "front", 1.25, 1.0, 1.5, 2),
        ],
        "case_rows": [
            row("good", "front", 0.95),
            row("good", "back", NAN),
            row("none", "front", NAN),
            row("none", "back", NAN),
            row("bad", "front", 0.125),
            row("bad", "back", NAN),
        ],
        "curves": {"train/loss": [(1, 1.0), (2, 0.5)], "val/dice": [(2, 0.7)]},
        "views": [CaseView("bad", "worst", 0.125, planes), CaseView("good", "best", 0.95, planes)],
        "problems": [
            Problem("label-values", "labels/x.nii.gz", "Labels must be 0 or 1, got 255.", "Divide by 255.", "x")
        ],
        "config": {"train": {"num_steps": 6000}, "spacing": (1.0, 2.0), "root": Path("data")},
        "lineage": {"train": "591785b7", "model": "models:/hippocampus@champion"},
    }
    return segmentation_report(**(arguments | changes))  # type: ignore[arg-type]


def test_segmentation_report_leads_from_the_number_to_its_origin():
    page = Page(report())
    assert list(page.sections) == [
        "section-result",
        "section-scores-per-class",
        "section-spread-over-the-cases",
        "section-cases-in-pictures",
        "section-training",
        "section-every-case",
        "section-input-set-aside",
        "section-configuration",
        "section-lineage",
    ]
    result = page.sections["section-result"]
    assert all(text in result for text in ("0.889", "0.881 to 0.897", "higher is better", "0.125", "bad"))
    assert re.search(r"Cases\s*3", result)
    scores = page.sections["section-scores-per-class"]
    assert all(text in scores for text in ("0.897", "0.890 to 0.905", "absent", "not computed", "lower is better"))
    assert "Divide by 255." in page.sections["section-input-set-aside"]
    assert "models:/hippocampus@champion" in page.sections["section-lineage"]


def test_cases_are_listed_worst_first_and_reached_by_links():
    html = report()
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name.startswith("case-")] == ["case-bad", "case-good", "case-none"]
    links = {href for href in page.values("href") if href.startswith("#")}
    assert {"#case-bad", "#case-good", "#picture-bad", "#picture-good"} <= links
    assert links <= {"#" + name for name in ids}
    assert page.sections["section-cases-in-pictures"].index("Worst case") < page.sections[
        "section-cases-in-pictures"
    ].index("Best case")


def test_configuration_is_yaml_that_loads_back():
    html = report()
    shown = re.search(r"<pre[^>]*>\n(.*?)</pre>", html, re.DOTALL)
    assert shown is not None
    assert yaml.safe_load(shown.group(1)) == {"train": {"num_steps": 6000}, "spacing": [1.0, 2.0], "root": "data"}


def test_classes_have_the_colours_of_their_labels():
    default, named = report(), report(class_labels={"background": 0, "back": 1, "front": 2})
    first = r"fill:#e69f00;[^/]*/><text[^>]*>(\w+)<"
    assert re.findall(first, default) == ["front"]
    assert re.findall(first, named) == ["back"]


def test_reports_of_nothing_are_still_pages():
    html = report(summaries=[], case_rows=[], curves={}, views=[], problems=[], config={}, lineage={})
    page = Page(html)
    assert "absent" in page.sections["section-result"]
    assert "Every input file passed every check." in page.sections["section-input-set-aside"]
    assert "No curves were recorded." in page.sections["section-training"]


def test_hostile_names_and_the_same_case_twice():
    rows = [row(ATTACK, ATTACK, 0.5), row("b b", ATTACK, 0.5), row("b/b", ATTACK, 0.6)]
    view = CaseView(ATTACK, "worst", 0.5, [])
    html = report(
        title=ATTACK,
        summaries=[Summary(ATTACK, ATTACK, 0.5, 0.4, 0.6, 1)],
        case_rows=rows,
        curves={f"val/{ATTACK}": [(1, 1.0)]},
        views=[view, CaseView(ATTACK, "best", 0.5, [])],
        problems=[Problem(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK)],
        config={ATTACK: ATTACK},
        lineage={ATTACK: ATTACK},
    )
    page = Page(html)
    ids = page.values("id")
    assert len(page.scripts) == 1
    assert len(ids) == len(set(ids))
    assert {"case-b-b", "case-b-b-2"} <= set(ids)


def test_the_report_is_the_same_every_time():
    assert report() == report()
