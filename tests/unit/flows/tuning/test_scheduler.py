"""Which trials of a search end early."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flows.tuning.scheduler import KeepConfigured, build_scheduler


def trial(number: int) -> Any:
    return SimpleNamespace(trial_id=str(number), config={"number": number}, status="RUNNING")


def started(*numbers: int) -> tuple[KeepConfigured, list[Any]]:
    scheduler, trials = build_scheduler(9), [trial(number) for number in numbers]
    scheduler.set_search_properties("score", "max")
    for each in trials:
        scheduler.on_trial_add(None, each)
    return scheduler, trials


def report(scheduler: KeepConfigured, each: Any, **scores: float) -> list[str]:
    """Report scores by rung, and end the trial."""
    results = [{"rung": int(name[1:]), "score": score} for name, score in scores.items()]
    decisions = [scheduler.on_trial_result(None, each, result) for result in results]
    scheduler.on_trial_complete(None, each, results[-1])
    return decisions


def test_a_trial_is_compared_with_what_others_had_after_the_same_share_of_their_steps() -> None:
    """The configuration has ended with 0.6, and had 0.1 after a ninth: 0.2 is no reason to end a trial there."""
    scheduler, (configured, better, worse) = started(0, 1, 2)
    report(scheduler, configured, r1=0.1, r2=0.3, r3=0.4, r9=0.6)
    assert report(scheduler, better, r1=0.2, r2=0.3, r3=0.5, r9=0.85)[:3] == ["CONTINUE"] * 3
    assert report(scheduler, worse, r1=0.05) == ["STOP"]


def test_the_configuration_never_ends_early() -> None:
    scheduler, (first, second, configured) = started(1, 2, 0)
    for each in (first, second):
        report(scheduler, each, r1=0.5, r3=0.6, r9=0.7)
    assert set(report(scheduler, configured, r1=0.0, r2=0.0, r3=0.0)) == {"CONTINUE"}
