"""Report of a segmentation: from the one number down to the single case, and to what it was made from."""

from __future__ import annotations

import re

import pytest

from data_pipelines.errors import Problem
from data_pipelines.notices import Notice
from flows.metrics import METRICS
from flows.pipelines.segmentation.evaluation.cases import CaseView
from flows.training.goodput import TimeSplit
from tests.support.pages import ATTACK, Page, assert_runs_no_foreign_script
from tests.support.reports import class_score, segmentation_report
from unet_models.metrics.summary import METRIC_NAMES, MetricSummary
from unet_models.specs.loop import LoopSpec


def test_it_leads_from_the_number_to_its_origin() -> None:
    page = Page(segmentation_report())
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


def test_the_time_of_the_training_is_shown_with_its_parts() -> None:
    times = TimeSplit(wall=200, productive=150, start=30, retry=20)
    shown = Page(segmentation_report(times={"": times})).sections["section-time"]
    assert all(text in shown for text in ("Goodput 75 % of 200 s", "Training steps", "150.0 s", "15.0 %", "restarts"))
    assert "validation" not in shown.split("Goodput is")[1], "a part that took no time"


def test_every_metric_is_explained_with_its_direction() -> None:
    summaries = [MetricSummary(name, part, 0.5, 0.4, 0.6, 2) for name in METRIC_NAMES for part in ("front", "mean")]
    shown = Page(segmentation_report(summaries=summaries)).sections["section-scores-per-class"]
    for name in METRIC_NAMES:
        assert METRICS[name].titled in shown
        assert METRICS[name].meaning in shown
    assert "nearer 0 is better" in shown, "of a signed error"


def test_cases_are_listed_worst_first_and_reached_by_links() -> None:
    page = Page(segmentation_report())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name.startswith("case-")] == ["case-bad", "case-good", "case-none"]
    links = {href for href in page.values("href") if href.startswith("#")}
    assert {"#case-bad", "#case-good", "#picture-bad", "#picture-good"} <= links
    assert links <= {"#" + name for name in ids}
    pictures = page.sections["section-cases-in-pictures"]
    assert pictures.index("Worst case") < pictures.index("Best case")


@pytest.mark.parametrize(
    ("classes", "first"),
    [({"background": 0, "front": 1, "back": 2}, "front"), ({"background": 0, "back": 1, "front": 2}, "back")],
)
def test_classes_have_the_colours_of_their_labels(classes: dict[str, int], first: str) -> None:
    html = segmentation_report(classes=classes)
    assert re.findall(r"fill:#e69f00;[^/]*/><text[^>]*>(\w+)<", html) == [first]


def test_assumptions_about_the_input_are_listed_and_counted() -> None:
    notices = [Notice(rule="unit-unstated", path=f"{name}.nii", message="taken as mm", case_id=name) for name in "ab"]
    shown = Page(segmentation_report(notices=notices)).sections["section-input-taken-with-an-assumption"]
    assert all(text in shown for text in ("unit-unstated 2", "a.nii", "b.nii", "taken as mm"))


def test_a_report_of_nothing_is_still_a_page() -> None:
    nothing = {"summaries": [], "scores": [], "curves": {}, "views": [], "problems": [], "config": {}, "lineage": {}}
    page = Page(segmentation_report(**nothing))
    assert "absent" in page.sections["section-result"]
    assert "Every input file passed every check." in page.sections["section-input-set-aside"]
    assert "No curves were recorded." in page.sections["section-training"]


def test_hostile_names_and_the_same_case_twice() -> None:
    html = segmentation_report(
        title=ATTACK,
        summaries=[MetricSummary("dice", ATTACK, 0.5, 0.4, 0.6, 1)],
        scores=[class_score(case_id, ATTACK, 0.5) for case_id in (ATTACK, "b b", "b/b")],
        curves={"": {f"val/dice/{ATTACK}": [(1, 1.0)]}},
        views=[CaseView(ATTACK, "worst", 0.5, []), CaseView(ATTACK, "best", 0.5, [])],
        problems=[Problem(ATTACK, ATTACK, ATTACK, ATTACK, ATTACK)],
        config={ATTACK: ATTACK},
        lineage={ATTACK: ATTACK},
        classes={ATTACK: 1},
    )
    assert_runs_no_foreign_script(html)
    ids = Page(html).values("id")
    assert len(ids) == len(set(ids))
    assert {"case-b-b", "case-b-b-2"} <= set(ids)


def test_the_report_is_the_same_every_time() -> None:
    assert segmentation_report() == segmentation_report()


def test_a_caution_stands_beside_the_scores() -> None:
    remark = LoopSpec(select="best").selection_remark
    assert "optimistic" in Page(segmentation_report(remark=remark)).sections["section-scores-per-class"]
    assert LoopSpec().selection_remark == ""
