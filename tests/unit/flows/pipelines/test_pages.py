"""What the reports of both pipelines have in common."""

from __future__ import annotations

import pytest

from tests.support.pages import Page
from tests.support.reports import FULL_DIFFUSION, diffusion_report, segmentation_report


@pytest.mark.parametrize("name", ["input-set-aside", "configuration", "lineage"])
def test_both_reports_have_the_same_common_sections(name: str) -> None:
    shared = {
        "problems": FULL_DIFFUSION.problems,
        "config": FULL_DIFFUSION.config,
        "lineage": FULL_DIFFUSION.lineage,
    }
    ours, theirs = Page(diffusion_report(**shared)), Page(segmentation_report(**shared))
    assert ours.sections[f"section-{name}"] == theirs.sections[f"section-{name}"] != ""
