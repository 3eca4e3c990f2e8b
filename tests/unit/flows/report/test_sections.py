"""Sections that every report has."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from data_pipelines.errors import Problem
from flows.report.html import render
from flows.report.sections import (
    configuration_section,
    lineage_section,
    quarantine_items,
    quarantine_section,
    training_section,
)
from tests.support.pages import Page

PROBLEMS = [
    Problem("label-values", "labels/x.nii.gz", "Labels must be 0 or 1, got 255.", "Divide by 255.", "x"),
    Problem("truncated", "labels/x.nii.gz", "It ends early.", "Copy it again.", "x"),
]


def test_configuration_is_yaml_that_loads_back() -> None:
    section = configuration_section({"train": {"num_steps": 6000}, "spacing": (1.0, 2.0), "root": Path("data")})
    shown = re.search(r"<pre[^>]*>\n(.*?)</pre>", render("t", "", [section]), re.DOTALL)
    assert shown is not None
    assert yaml.safe_load(shown[1]) == {"train": {"num_steps": 6000}, "spacing": [1.0, 2.0], "root": "data"}


def test_quarantined_input_is_counted_by_file_and_listed_with_its_remedy() -> None:
    (item,) = quarantine_items(PROBLEMS)
    assert (item.key, item.value) == ("Set aside", "1")
    assert quarantine_items([]) == []
    shown = Page(render("t", "", [quarantine_section(PROBLEMS)])).sections["section-input-set-aside"]
    assert all(text in shown for text in ("label-values", "Divide by 255.", "truncated", "Copy it again."))
    assert "Every input file passed every check." in quarantine_section([]).intro


def test_problems_of_one_list_are_counted_by_case_and_of_a_file_once() -> None:
    left_out = [Problem("split-left-out", "splits_final.json", "m", "r", case_id) for case_id in "abcde"]
    of_files = [Problem("bad-json", path, "m", "r") for path in ("x.json", "x.json")]
    (item,) = quarantine_items([*left_out, *of_files])
    assert (item.value, item.note) == ("6", "cases or files, listed below")


def test_trainings_without_curves_are_left_out() -> None:
    curves = {"train/loss": [(1, 1.0), (2, 0.5)]}
    section = training_section({"clip": curves, "text": {}}, "images", "One more remark.")
    assert [block.title for block in section.blocks] == ["clip"]  # type: ignore[union-attr]
    assert "training images by heart" in section.intro
    assert section.intro.endswith("One more remark.")
    assert training_section({"": {}}).intro == "No curves were recorded."


def test_lineage_without_entries_says_so() -> None:
    html = render("t", "", [lineage_section({"train key": "591785b7"})])
    assert "591785b7" in Page(html).sections["section-lineage"]
    assert "Not recorded." in Page(render("t", "", [lineage_section({})])).sections["section-lineage"]
