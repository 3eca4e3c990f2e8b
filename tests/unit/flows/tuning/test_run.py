"""Which trials run, which one is chosen, and what a killed search leaves."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from flows.metrics import worst_score
from flows.tuning.run import (
    Searched,
    _most_trials,
    best_of,
    choose_finalists,
    final_training_seconds,
    read_trials,
)
from flows.tuning.spec import SearchSpec
from flows.tuning.trial import Outcome, Trial, _TuneHooks, over_limit
from unet_models.specs.loop import LoopSpec


def trial(number: int, score: float, step: int = 10, refused: str = "") -> Trial:
    outcome = Outcome(score=score, step=step, num_steps=10, num_parameters=1000, latency_ms=5.0, refused=refused)
    return Trial(number=number, values={"width": 8 * number} if number else {}, outcome=outcome)


def test_the_best_whole_trial_is_chosen() -> None:
    trials = [trial(0, 0.5), trial(1, 0.9, step=3), trial(2, 0.7), trial(3, 0.99, refused="too large")]
    assert best_of(trials, "val/dice").number == 2
    assert best_of([trial(0, 0.5), trial(1, 0.4)], "val/loss").number == 1, "a loss is better where it is lower"


def test_of_equal_trials_the_configuration_stays() -> None:
    assert best_of([trial(0, 0.5), trial(1, 0.5)], "val/dice").number == 0


def test_the_longest_trials_that_the_configuration_ended_are_compared() -> None:
    short, long = [trial(0, 0.2), trial(1, 0.5)], [trial(0, 0.8), trial(1, 0.6)]
    assert best_of(Searched(short, long).compared, "val/dice").number == 0
    assert best_of(Searched(short, []).compared, "val/dice").number == 1
    assert Searched(short, [trial(0, 0.8, step=3), trial(1, 0.6)]).compared == short


def test_the_configuration_and_the_best_whole_trials_train_longer() -> None:
    trials = [trial(0, 0.1), trial(1, 0.9, step=3), trial(2, 0.5), trial(3, 0.7), trial(4, 0.99, refused="too large")]
    assert [each.number for each in choose_finalists(trials, "val/dice", num_workers=1)] == [0, 3]
    assert [each.number for each in choose_finalists(trials, "val/dice", num_workers=4)] == [0, 3, 2]
    assert [each.number for each in choose_finalists(trials, "val/loss", num_workers=2)] == [0, 2]


def test_they_train_as_long_as_the_pipeline_would_where_that_fits() -> None:
    configured = trial(0, 0.5)
    trials = [
        configured.model_copy(update={"outcome": configured.outcome.model_copy(update={"seconds_per_step": 0.5})})
    ]
    search = SearchSpec.model_validate({"within": "1000s"})

    def seconds(num_finalists: int = 2, **spec: object) -> float:
        return final_training_seconds(LoopSpec.model_validate(spec), trials, search, 2, num_finalists)

    assert seconds(num_steps=100) == 50
    assert seconds(num_steps=100_000) == 360, "0.9 of 400 s"
    assert seconds(num_steps=100_000, num_finalists=3) == 180, "one after the other"
    assert seconds(within="100s") == 200, "two workers train as many steps in half the time"


def test_the_pace_of_a_trial_is_that_of_all_its_steps() -> None:
    """Not that of the few by which its steps were planned: a validation in between counts in none."""
    found: list[Outcome] = []
    outcome = Outcome(score=0.0, num_steps=8, seconds_per_step=0.9)
    hooks = _TuneHooks(lambda model: {"val/dice": 0.5}, "val/dice", outcome, 0.0, 9, found.append)
    state = cast("Any", SimpleNamespace(step=8, model=torch.nn.Identity(), average=None))
    hooks.times = [0.0, 0.2, 0.4, 0.6, 5.0, 5.2, 5.4, 5.6]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.tuning.trial.evaluation_weights", lambda state: nullcontext(state.model))
        hooks.validate(state)
    assert found[0].seconds_per_step == pytest.approx(0.2)
    assert found[0].rung == 9


def test_no_score_is_worse_than_that_of_a_refused_trial() -> None:
    assert worst_score("val/dice") == 0
    assert worst_score("val/loss") == 1e9


def test_trials_of_a_killed_search_do_not_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "00001.json").write_text(trial(1, 0.5).model_dump_json())
    (tmp_path / "00002.json").write_text("{")
    assert [each.number for each in read_trials(str(tmp_path))] == [1]
    assert "00002.json is damaged; that trial runs again" in caplog.text


def test_there_are_as_many_trials_as_the_time_has_room_for() -> None:
    search = SearchSpec.model_validate({"within": "8s", "trial": "1s"})
    assert _most_trials(search, 2) == 1 + 2 * 8 * 9
    assert _most_trials(search.model_copy(update={"num_trials": 4}), 2) == 4


def test_limits_are_named() -> None:
    outcome = trial(1, 0.5).outcome
    assert over_limit(outcome, SearchSpec()) == ""
    assert over_limit(outcome, SearchSpec(max_parameters=1000, max_latency_ms=5.0)) == ""
    assert over_limit(outcome, SearchSpec(max_parameters=999)) == "1,000 parameters, more than search.max_parameters"
    assert over_limit(outcome, SearchSpec(max_latency_ms=4.9)) == "5 ms a window, more than search.max_latency_ms"


def test_a_trial_is_not_longer_than_the_search() -> None:
    assert SearchSpec.model_validate({"within": "20m"}).trial_seconds == pytest.approx(90)
    with pytest.raises(ValueError, match="trial: 60 s are longer than 60% of within, 30 s"):
        SearchSpec(within=50, trial=60)
