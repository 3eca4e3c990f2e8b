"""Which trials run, which one is chosen, and what a killed search leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from flows.tuning.run import _numbers_to_run, best_of, read_trials
from flows.tuning.spec import SearchSpec
from flows.tuning.trial import Outcome, Trial, over_limit, worst_score


def trial(number: int, score: float, step: int = 10, refused: str = "") -> Trial:
    outcome = Outcome(score=score, step=step, num_steps=10, num_parameters=1000, latency_ms=5.0, refused=refused)
    return Trial(number=number, values={"width": 8 * number} if number else {}, outcome=outcome)


def test_the_best_whole_trial_is_chosen() -> None:
    trials = [trial(0, 0.5), trial(1, 0.9, step=3), trial(2, 0.7), trial(3, 0.99, refused="too large")]
    assert best_of(trials, "val/dice").number == 2
    assert best_of([trial(0, 0.5), trial(1, 0.4)], "val/loss").number == 1, "a loss is better where it is lower"


def test_of_equal_trials_the_configuration_stays() -> None:
    assert best_of([trial(0, 0.5), trial(1, 0.5)], "val/dice").number == 0


def test_without_the_configuration_there_is_nothing_to_compare() -> None:
    with pytest.raises(ConfigError, match=r"raise search\.within, or lower search\.trial"):
        best_of([trial(0, 0.5, step=3), trial(1, 0.9)], "val/dice")


def test_no_score_is_worse_than_that_of_a_refused_trial() -> None:
    assert worst_score("val/dice") == 0
    assert worst_score("val/loss") == 1e9


def test_trials_of_a_killed_search_do_not_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "00001.json").write_text(trial(1, 0.5).model_dump_json())
    (tmp_path / "00002.json").write_text("{")
    assert [each.number for each in read_trials(str(tmp_path))] == [1]
    assert "00002.json is damaged; that trial runs again" in caplog.text
    search = SearchSpec.model_validate({"within": "8s", "trial": "1s"})
    assert _numbers_to_run({1}, search, 2)[:3] == [0, 2, 3]
    assert len(_numbers_to_run(set(), search, 2)) == 1 + 2 * 8 * 9
    assert _numbers_to_run({1}, search.model_copy(update={"num_trials": 4}), 2) == [0, 2, 3]


def test_limits_are_named() -> None:
    outcome = trial(1, 0.5).outcome
    assert over_limit(outcome, SearchSpec()) == ""
    assert over_limit(outcome, SearchSpec(max_parameters=1000, max_latency_ms=5.0)) == ""
    assert over_limit(outcome, SearchSpec(max_parameters=999)) == "1,000 parameters, more than search.max_parameters"
    assert over_limit(outcome, SearchSpec(max_latency_ms=4.9)) == "5 ms a window, more than search.max_latency_ms"


def test_a_trial_is_not_longer_than_the_search() -> None:
    assert SearchSpec.model_validate({"within": "16m"}).trial_seconds == 120
    with pytest.raises(ValueError, match="trial: 60 s are longer than within, 30 s"):
        SearchSpec(within=30, trial=60)
