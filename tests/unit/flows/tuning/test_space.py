from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.tuning.space import describe, draw

CHOICES = {"width": (8, 16), "block": ("plain", "residual"), "skip": ("concat",)}


def test_the_first_trial_is_the_configuration() -> None:
    assert draw(CHOICES, (), seed=0, number=0) == {}
    assert describe({}) == "as configured"


def test_a_trial_is_drawn_by_seed_and_number_alone() -> None:
    drawn = [draw(CHOICES, (), seed=3, number=number) for number in range(1, 200)]
    assert drawn == [draw(CHOICES, (), seed=3, number=number) for number in range(1, 200)]
    pairs = {(each.get("width"), each.get("block")) for each in drawn}
    assert pairs >= {(width, block) for width in CHOICES["width"] for block in CHOICES["block"]}
    assert drawn != [draw(CHOICES, (), seed=4, number=number) for number in range(1, 200)]


def test_a_trial_changes_one_setting_at_least_and_each_in_half_of_the_trials() -> None:
    drawn = [draw(CHOICES, (), seed=0, number=number) for number in range(1, 1000)]
    assert min(map(len, drawn)) == 1
    for name in CHOICES:
        assert sum(name in each for each in drawn) / len(drawn) == pytest.approx(0.5 + 1 / 8 / 3, abs=0.05)


def test_what_is_not_searched_over_stays() -> None:
    assert draw(CHOICES, ("skip",), seed=0, number=1) == {"skip": "concat"}
    with pytest.raises(ConfigError, match=r"search\.over: unknown setting depth; choose from width, block, skip"):
        draw(CHOICES, ("skip", "depth"), seed=0, number=1)


def test_a_setting_without_choices_is_left_alone() -> None:
    """No axis of a patch of 45 can be halved: it has no depth to choose."""
    choices = CHOICES | {"depth": ()}
    assert not any("depth" in draw(choices, (), seed=0, number=number) for number in range(1, 50))
    with pytest.raises(ConfigError, match=r"search\.over: there is nothing to choose for depth; leave it out"):
        draw(choices, ("depth",), seed=0, number=1)
