"""Values of files to numbers of classes, and back; logits to classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_pipelines.volumes.classes import Labels, Region, pack_colours
from tests.support.volumes import numbered

BRATS = Labels(names=("background", "edema", "core"), values=((0,), (2,), (4, 1)), ignored=(255, -1))
ROADS = Labels(names=("background", "road"), values=((0x000000, 0x00FF00), (0xFF00FF,)), is_colour=True)
NESTED = BRATS.model_copy(
    update={"regions": (Region(name="whole", classes=(1, 2), written=1), Region(name="core", classes=(2,), written=2))}
)


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i4", "int64", "uint64", "float32"])
def test_values_become_numbers(dtype: str) -> None:
    stored = np.array([[0, 1, 2], [4, 255, 3]]).astype(dtype)
    numbers = BRATS.read(stored)
    assert numbers.tolist() == [[0, 2, 1], [2, 3, 4]]  # 255 is ignored, 3 is not declared
    assert numbers.dtype == np.uint8
    assert BRATS.ignored_number == 3


def test_values_far_outside_are_not_declared() -> None:
    assert BRATS.read(np.array([-2, -1, 256, 1 << 40, -(1 << 40)])).tolist() == [4, 3, 4, 4, 4]
    assert BRATS.read(np.array([1e30, -1e30, 4.0])).tolist() == [4, 4, 2]


@settings(deadline=None)
@given(hnp.arrays(np.int16, st.integers(1, 30), elements=st.integers(-3, 300)))
def test_reading_is_looking_up(stored: np.ndarray) -> None:
    known = {0: 0, 2: 1, 4: 2, 1: 2, 255: 3, -1: 3}
    assert BRATS.read(stored).tolist() == [known.get(int(value), 4) for value in stored]


def test_blocks_lose_no_voxel(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = np.random.default_rng(0).choice([0, 1, 2, 4, 255], (5, 7, 3))
    whole = BRATS.read(stored)
    monkeypatch.setattr("data_pipelines.volumes.classes._BLOCK_VOXELS", 4)
    np.testing.assert_array_equal(BRATS.read(stored), whole)


def test_files_that_hold_the_numbers_stay() -> None:
    stored = np.array([[0, 1], [2, 1]], np.int16)
    np.testing.assert_array_equal(numbered("background", "a", "b").read(stored), stored)
    assert numbered("background", "a").read(np.array([0, 1, 2, -1])).tolist() == [0, 1, 3, 3]


def test_predictions_have_the_first_value_of_their_class() -> None:
    written = BRATS.write(np.array([[0, 1, 2]], np.uint8))
    assert written.tolist() == [[0, 2, 4]]
    assert written.dtype == np.uint8
    wide = Labels(names=("background", "a"), values=((0,), (-300,)))
    assert wide.write(np.array([1])).dtype == np.int16


def test_colours() -> None:
    picture = np.array([[[0, 0, 0], [255, 0, 255], [0, 255, 0], [1, 2, 3]]], np.uint8)
    packed = pack_colours(picture)
    assert packed.tolist() == [[0, 0xFF00FF, 0x00FF00, 0x010203]]
    assert ROADS.read(packed).tolist() == [[0, 1, 0, 3]]
    written = ROADS.write(np.array([[0, 1]], np.uint8))
    assert written.tolist() == [[[0, 0, 0], [255, 0, 255]]]
    assert written.dtype == np.uint8
    assert ROADS.write_numbers(np.array([[0, 1]])).tolist() == [[0, 1]]  # NIfTI has no colours
    assert ROADS.read_numbers(np.array([[0, 1]])).tolist() == [[0, 1]]


def test_descriptions() -> None:
    assert BRATS.describe() == "0 background, 2 edema, 4|1 core, 255|-1 ignore"
    assert ROADS.describe() == "#000000|#00ff00 background, #ff00ff road"
    assert NESTED.describe().endswith("; regions whole (edema, core), core (core)")


def test_outputs_and_targets() -> None:
    assert (BRATS.num_outputs, BRATS.targets, BRATS.outputs) == (
        3,
        {"edema": (1,), "core": (2,)},
        {"edema": 1, "core": 2},
    )
    assert (NESTED.num_outputs, NESTED.targets) == (2, {"whole": (1, 2), "core": (2,)})
    assert NESTED.outputs == {"whole": 0, "core": 1}


@given(hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-2, 2, width=16)))
def test_the_most_probable_class_wins(logits: np.ndarray) -> None:
    np.testing.assert_array_equal(BRATS.decide(logits), logits.argmax(0))


def test_later_regions_are_written_over_earlier_ones() -> None:
    logits = np.array([[-1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]])  # the last: core without whole
    assert NESTED.decide(logits).tolist() == [0, 1, 2, 2]
    assert NESTED.decide(np.zeros((2, 1))).tolist() == [0]  # a probability of one half is not above it
