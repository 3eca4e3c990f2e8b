from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.search.page import search_page
from flows.pipelines.segmentation.search.stage import _figures, _fitting, apply_search, overrides
from flows.tuning.run import Searched
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
SEARCHED = Searched(TRIALS, [trial(0, 0.9, 0.2), trial(1, 0.85, 0.5, width=8, depth=3, skip="add")])
SCORE = "val/dice"


def test_what_was_found_trains_as_long_as_the_configuration_would() -> None:
    """100 steps of 0.2 s are 40 of 0.5 s."""
    figures = _figures(Searched(TRIALS, []), SCORE, CONFIG)
    assert (figures.num_trials, figures.num_whole, figures.num_refused, figures.num_finals) == (3, 2, 1, 0)
    found = apply_search(CONFIG, figures).train
    assert (found.num_steps, found.model.channels, found.model.skip) == (40, (8, 16, 32), "add")


def test_long_trials_decide() -> None:
    """The second one was ahead after a short training, the configuration is after a long one."""
    figures = _figures(SEARCHED, SCORE, CONFIG)
    assert (figures.score, figures.configured_score, figures.num_finals) == (0.9, 0.9, 2)
    assert apply_search(CONFIG, figures) == CONFIG


def test_the_settings_train_it_without_a_search() -> None:
    after = apply_search(CONFIG, _figures(Searched(TRIALS, []), SCORE, CONFIG))
    settings = overrides(CONFIG, after)
    assert settings == [
        "train.num_steps=40",
        "train.model.channels=[8,16,32]",
        "train.model.strides=[[2,2,2],[2,2,2]]",
        "train.model.skip=add",
    ]


def test_the_report_names_every_trial() -> None:
    page = search_page(CONFIG, SEARCHED, TRIALS[1].values, ["train.num_steps=40"])
    assert_runs_no_foreign_script(page)
    sections = Page(page).sections
    assert "0.85" in sections["section-the-best-trained-longer"]
    text = " ".join(sections.values())
    assert "width 8, depth 3, skip add" in text
    assert "9 parameters, more than <search>" in text
    assert "--set train.num_steps=40" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"validate_cases": 0}}, "search: its trials are compared by validation"),
        ({"evaluate": {"exit_confidence": 0.9}}, r"leave depth out of search\.over"),
        ({"evaluate": {"exit_thresholds": [0.9]}, "search": {"over": ["depth"]}}, r"leave depth out of search\.over"),
    ],
)
def test_searches_that_would_fail_at_their_end_are_refused(values: dict[str, Any], message: str) -> None:
    base: dict[str, Any] = {"search": {"over": ["width"]}, "train": {"model": {"deep_supervision": 1}}}
    SegmentationConfig.model_validate(base | {"evaluate": {"exit_confidence": 0.9}})
    train = base["train"] | values.get("train", {})
    with pytest.raises(ValidationError, match=message):
        SegmentationConfig.model_validate({"search": {}} | values | {"train": train})


def test_the_warm_up_fits_the_steps_of_what_was_found() -> None:
    optimizer = CONFIG.train.optimizer.model_copy(update={"warmup_steps": 20})
    config = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"optimizer": optimizer})})
    after = apply_search(config, _figures(Searched(TRIALS, []), SCORE, config))
    assert (after.train.num_steps, after.train.optimizer.warmup_steps) == (40, 4)
    assert "train.optimizer.warmup_steps=4" in overrides(config, after)


@pytest.mark.parametrize(
    ("train", "compute", "most"),
    [
        ({}, {}, None),
        ({}, {"use_gpu": True, "num_workers": 4}, 3),
        ({"micro_batch_size": 2}, {"use_gpu": True, "num_workers": 4}, 2),
        ({"loss": {"batch_dice": True}}, {"use_gpu": True, "num_workers": 4}, None),
    ],
)
def test_a_trial_takes_no_more_on_its_gpu_than_a_worker(
    train: dict[str, Any], compute: dict[str, Any], most: int | None
) -> None:
    config = SegmentationConfig.model_validate({"train": {"global_batch_size": 10, **train}, "compute": compute})
    assert _fitting(config.train, config.compute).micro_batch_size == most
