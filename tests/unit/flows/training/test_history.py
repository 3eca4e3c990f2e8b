"""Where a training resumed and what that cost, over attempts in different processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.training.figures import TrainingFigures
from flows.training.history import (
    CHECKPOINT_NAME,
    HISTORY,
    HistoryKeeper,
    Resume,
    Start,
    UnusableCheckpoint,
    checkpoint_name,
    read_history,
)

BROKEN = UnusableCheckpoint(name="a/step-00000900", step=900, reason="model.safetensors is truncated: 10 of 99 bytes")


def keeper(stage: Path, attempt: str) -> HistoryKeeper:
    return HistoryKeeper.of(str(stage), str(stage / attempt))


def test_the_name_of_a_checkpoint_says_its_step() -> None:
    assert checkpoint_name(900) == "step-00000900"
    match = CHECKPOINT_NAME.fullmatch(checkpoint_name(900))
    assert match is not None
    assert int(match[1]) == 900


def test_the_first_start_is_no_resume(tmp_path: Path) -> None:
    history = keeper(tmp_path, "a")
    assert history.start(Start(step=0)) is None
    assert history.resumes == ()


def test_a_worker_that_dies_before_the_first_checkpoint_costs_all_steps(tmp_path: Path) -> None:
    history = keeper(tmp_path, "a")
    history.start(Start(step=0))
    history.reach(40)
    assert history.start(Start(step=0)) == Resume(step=0, repeated_steps=40)


def test_a_later_attempt_knows_what_the_earlier_ones_reached_and_repeated(tmp_path: Path) -> None:
    first = keeper(tmp_path, "a")
    first.start(Start(step=0))
    for step in (500, 950, 910):
        first.reach(step)
    assert first.start(Start(step=900)) == Resume(step=900, repeated_steps=50)
    second = keeper(tmp_path, "b")
    resume = second.start(Start(step=800, unusable=(BROKEN,)))
    assert resume == Resume(step=800, repeated_steps=150, unusable=(BROKEN,))
    second.reach(1000)
    third = keeper(tmp_path, "c")
    third.start(Start(step=1000))
    assert [each.repeated_steps for each in third.resumes] == [50, 150, 0]
    assert read_history(str(tmp_path)).reached == 1000


def test_an_unusable_checkpoint_alone_shows_that_steps_are_repeated(tmp_path: Path) -> None:
    """On an object store, and after an earlier version, no history lies beside the checkpoints."""
    assert keeper(tmp_path, "b").start(Start(step=0, unusable=(BROKEN,))) == Resume(
        step=0, repeated_steps=900, unusable=(BROKEN,)
    )


def test_a_resume_is_told_with_names_and_reasons() -> None:
    resume = Resume(step=800, repeated_steps=150, unusable=(BROKEN,))
    assert resume.describe() == (
        "resumed at step 800; 1 checkpoint unusable (a/step-00000900: model.safetensors is truncated: 10 of 99 bytes); "
        "150 steps repeated"
    )
    many = resume.model_copy(update={"unusable": (BROKEN,) * 5, "repeated_steps": 1})
    assert "; 5 checkpoints unusable (" in many.describe()
    assert many.describe().count("a/step-00000900") == 3
    assert many.describe().endswith("; ...); 1 step repeated")
    assert Resume(step=7, repeated_steps=0).describe() == (
        "resumed at step 7; no checkpoint unusable; 0 steps repeated"
    )


def test_tags_sum_up_all_resumes() -> None:
    resumes = (
        Resume(step=800, repeated_steps=150, unusable=(BROKEN,)),
        Resume(step=800, repeated_steps=20, unusable=(BROKEN,)),
    )
    figures = TrainingFigures(step=1000, run_id=None, num_workers=1, resumes=resumes)
    assert figures.run_tags() == {
        "unetflow.resumes": "2",
        "unetflow.repeated_steps": "170",
        "unetflow.unusable_checkpoints": "1",
        "unetflow.last_resume": resumes[1].describe(),
    }
    assert TrainingFigures(step=1000, run_id=None, num_workers=1).run_tags() == {}


def test_a_damaged_history_is_told_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / HISTORY).write_text("{")
    assert keeper(tmp_path, "b").start(Start(step=5)) == Resume(step=5, repeated_steps=0)
    assert "history.json is damaged" in caplog.text


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (Start(step=0, precision="bf16"), "trains in bf16"),
        (
            Start(step=0, precision="fp32", has_bf16=False),
            "trains in fp32, as the hardware has no instructions for bf16",
        ),
        (Start(step=9, precision="bf16", precision_before="bf16"), "trains in bf16"),
        (
            Start(step=9, precision="fp32", precision_before="bf16", has_bf16=False),
            "trains in fp32, as the hardware has no instructions for bf16; bf16 before step 9",
        ),
    ],
)
def test_the_precision_is_told_with_its_reason(start: Start, line: str) -> None:
    assert start.describe_precision() == line


def test_it_is_said_where_validations_take_more_time_than_steps() -> None:
    start = Start(step=0, num_steps=10, seconds_per_step=2.0, validating_seconds=20.0)
    assert start.describe_pace("train").endswith("(train.within; train.num_steps is not used)")
    start = start.model_copy(update={"validating_seconds": 300.0})
    assert start.describe_pace("train").endswith(
        "; more of it, 300 s, goes into validations: lower train.validate_cases or raise train.within"
    )


def test_a_shortened_warm_up_is_said() -> None:
    start = Start(step=0, num_steps=300, seconds_per_step=1.0, warmup_steps=30)
    assert start.describe_pace("train").endswith(
        "; warm-up of 30 of them, which is less than train.optimizer.warmup_steps"
    )


def test_it_is_said_where_no_step_fits() -> None:
    start = Start(step=0, num_steps=1, seconds_per_step=30.0)
    assert start.describe_pace("train_clip") == (
        "no more than one step fits into the time beside measuring and validation, of 30 s: one is trained; raise "
        "train_clip.within"
    )
