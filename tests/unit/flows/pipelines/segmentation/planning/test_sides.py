"""Classes of one side, by the ways in which data sets write them."""

from __future__ import annotations

import pytest

from flows.pipelines.segmentation.planning.sides import sided_names


@pytest.mark.parametrize(
    "name",
    [
        "left",
        "kidney left",
        "kidney_left",
        "LEFT KIDNEY",
        "LeftKidney",
        "kidneyLeft",
        "left-kidney",
        "kidney.R",
        "hippocampusR",
        "L hippocampus",
        "lh",
        "rh-thalamus",
        "Lt lung",
        "rib_left_4",
    ],
)
def test_a_side_is_a_word_of_its_own(name: str) -> None:
    assert sided_names(["background", name, "tumour"]) == [name]


@pytest.mark.parametrize(
    "name", ["bright spot", "cleft", "upright", "vertebra L1", "L5", "liver", "R2", "girl", "portal vein", "lumen", ""]
)
def test_other_names_have_none(name: str) -> None:
    assert not sided_names(["background", name, "tumour"])


def test_names_that_differ_in_the_side_alone() -> None:
    assert sided_names(["leftkidney", "Rightkidney", "lungleft"]) == ["leftkidney", "Rightkidney"]
