from __future__ import annotations

from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.search.page import search_page
from flows.pipelines.segmentation.search.stage import _figures, apply_search, overrides
from flows.tuning.trial import Outcome, Trial
from tests.support.pages import Page, assert_runs_no_foreign_script

CONFIG = SegmentationConfig.model_validate(
    {"train": {"patch_size": [16, 16, 16], "num_steps": 100, "model": {"channels": [4, 8], "block": "plain"}}}
)


def trial(number: int, score: float, step_seconds: float, refused: str = "", **values: object) -> Trial:
    steps = 0 if refused else 10
    outcome = Outcome(score=score, step=steps, num_steps=10, seconds_per_step=step_seconds, refused=refused)
    return Trial.model_validate({"number": number, "values": values, "outcome": outcome})


TRIALS = [
    trial(0, 0.6, 0.2),
    trial(1, 0.8, 0.5, width=8, depth=3, skip="add"),
    trial(2, 0.0, 0.0, refused="9 parameters, more than <search>", width=16),
]


def test_what_was_found_trains_as_long_as_the_configuration_would() -> None:
    """100 steps of 0.2 s are 40 of 0.5 s."""
    figures = _figures(TRIALS, TRIALS[1], CONFIG)
    assert (figures.num_trials, figures.num_whole, figures.num_refused) == (3, 2, 1)
    found = apply_search(CONFIG, figures).train
    assert (found.num_steps, found.model.channels, found.model.skip) == (40, (8, 16, 32), "add")
    assert apply_search(CONFIG, _figures(TRIALS, TRIALS[0], CONFIG)) == CONFIG


def test_the_settings_train_it_without_a_search() -> None:
    after = apply_search(CONFIG, _figures(TRIALS, TRIALS[1], CONFIG))
    settings = overrides(CONFIG, after)
    assert settings == [
        "train.num_steps=40",
        "train.model.channels=[8,16,32]",
        "train.model.strides=[[2,2,2],[2,2,2]]",
        "train.model.skip=add",
    ]


def test_the_report_names_every_trial() -> None:
    page = search_page(CONFIG, TRIALS, TRIALS[1].values, ["train.num_steps=40"])
    assert_runs_no_foreign_script(page)
    text = " ".join(Page(page).sections.values())
    assert "width 8, depth 3, skip add" in text
    assert "9 parameters, more than <search>" in text
    assert "--set train.num_steps=40" in text
