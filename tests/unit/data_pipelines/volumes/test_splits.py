"""Splits: read from a file with every mistake named, or drawn by subject and stable when cases are added."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import ConfigError, DataError, Problem
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.volumes.splits import assign_splits, check_classes_are_trained, classes_without_case, draw_held_out
from tests.support.volumes import numbered


def dataset(*ids: str, subjects: dict[str, str] | None = None, **fields: Any) -> Dataset:
    cases = tuple(Case(i, (f"{i}.nii.gz",), f"{i}_label.nii.gz", (subjects or {}).get(i, i)) for i in ids)
    return Dataset("set", cases, numbered("background", "organ"), ("MR",), **fields)


def splits_file(folder: Path, content: Any) -> DataSpec:
    (folder / "splits.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return DataSpec(root=str(folder), splits="splits.json")


FOLDS = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]


def test_file_beside_root_gives_the_fold_asked_for(tmp_path: Path) -> None:
    spec = splits_file(tmp_path, FOLDS)
    assert assign_splits(dataset("a", "b", "c"), spec).sides == {"a": "train", "b": "train", "c": "val"}
    second = spec.model_copy(update={"fold": 1, "splits": str(tmp_path / "splits.json"), "root": "elsewhere"})
    assert assign_splits(dataset("a", "b", "c"), second).sides == {"a": "val", "b": "train", "c": "train"}


def test_file_found_beside_the_data_is_used(tmp_path: Path) -> None:
    splits_file(tmp_path, FOLDS)
    found = dataset("a", "b", "c", splits_path=str(tmp_path / "splits.json"))
    assert assign_splits(found, DataSpec(root="x")).sides["c"] == "val"


def test_ids_of_a_file_written_on_a_mac_are_those_of_the_cases(tmp_path: Path) -> None:
    composed, decomposed = "r\u00f6ntgen", "ro\u0308ntgen"
    spec = splits_file(tmp_path, [{"train": [decomposed], "val": ["b"]}])
    assert assign_splits(dataset(composed, "b"), spec).sides == {composed: "train", "b": "val"}


def test_every_wrong_id_is_listed(tmp_path: Path) -> None:
    spec = splits_file(tmp_path, [{"train": ["a", "b", "b", "ghost"], "val": ["b", "c"]}])
    with pytest.raises(DataError) as caught:
        assign_splits(dataset("a", "b", "c", "forgotten"), spec)
    rules = {(problem.rule, problem.case_id) for problem in caught.value.problems}
    assert rules == {
        ("split-overlap", "b"),
        ("split-twice", "b"),
        ("split-unknown", "ghost"),
        ("split-left-out", "forgotten"),
    }


def test_a_subject_on_both_sides_of_a_file_is_refused(tmp_path: Path) -> None:
    """nnU-Net draws its file by case."""
    one = {"sub-01_ses-1": "01", "sub-01_ses-2": "01"}
    found = dataset("sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03", subjects=one)
    spec = splits_file(tmp_path, [{"train": ["sub-01_ses-1", "sub-02"], "val": ["sub-01_ses-2", "sub-03"]}])
    for on_error in ("stop", "quarantine"):
        with pytest.raises(DataError, match=r"split-subject") as caught:
            assign_splits(found, spec.model_copy(update={"on_error": on_error}))
        (problem,) = caught.value.problems
        assert problem.message == "subject 01 is in train (sub-01_ses-1) and in val (sub-01_ses-2)"
    assert assign_splits(found, spec, quarantined=["sub-01_ses-2"]).sides["sub-01_ses-1"] == "train"


def test_quarantine_goes_on_without_left_out_and_unknown_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = splits_file(tmp_path, [{"train": ["a", "ghost"], "val": ["c"]}]).model_copy(
        update={"on_error": "quarantine"}
    )
    with caplog.at_level(logging.WARNING):
        splits = assign_splits(dataset("a", "c", "forgotten"), spec)
    assert splits.sides == {"a": "train", "c": "val"}
    assert [(problem.rule, problem.case_id) for problem in splits.problems] == [
        ("split-unknown", "ghost"),
        ("split-left-out", "forgotten"),
    ]
    assert "forgotten" in caplog.text
    assert "ghost" in caplog.text
    overlap = splits_file(tmp_path, [{"train": ["a", "c"], "val": ["c"]}]).model_copy(update={"on_error": "quarantine"})
    with pytest.raises(DataError, match="split-overlap"):
        assign_splits(dataset("a", "c"), overlap)


def test_cases_left_out_before_may_be_named(tmp_path: Path) -> None:
    spec = splits_file(tmp_path, [{"train": ["a", "bad", "worse"], "val": ["c"]}])
    broken = dataset("a", "c", problems=(Problem("label-missing", "bad", "m", "r", "bad"),))
    assert assign_splits(broken, spec, quarantined=["worse"]).sides == {"a": "train", "c": "val"}
    still_listed = dataset("a", "bad", "c", "worse")
    assert assign_splits(still_listed, spec, quarantined=["bad", "worse"]).sides == {"a": "train", "c": "val"}
    with pytest.raises(ConfigError, match="no usable case is on the val side"):
        assign_splits(still_listed, spec, quarantined=["c"])
    assert "bad" not in assign_splits(still_listed, DataSpec(root="x"), quarantined=["bad"]).sides


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ({"train": []}, "must be a list of"),
        ([], "must be a list of"),
        ([{"train": ["a"]}], "fold 0 has no list of case ids 'val'"),
        ([{"train": "a", "val": ["b"]}], "fold 0 has no list of case ids 'train'"),
    ],
)
def test_malformed_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        assign_splits(dataset("a", "b"), splits_file(tmp_path, content))
    (problem,) = caught.value.problems
    assert problem.path == str(tmp_path / "splits.json")
    assert problem.remedy


def test_a_file_with_an_empty_side(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable case is on the val side"):
        assign_splits(dataset("a", "b"), splits_file(tmp_path, [{"train": ["a", "b"], "val": []}]))


def test_fold_out_of_range_and_missing_file(tmp_path: Path) -> None:
    spec = splits_file(tmp_path, FOLDS)
    with pytest.raises(ConfigError, match=r"data\.fold: 2 is out of range; .*folds 0\.\.1"):
        assign_splits(dataset("a", "b", "c"), spec.model_copy(update={"fold": 2}))
    with pytest.raises(ConfigError, match=r"there is no file .*absent\.json"):
        assign_splits(dataset("a"), spec.model_copy(update={"splits": "absent.json"}))
    with pytest.raises(ConfigError, match=r"data\.fold: 5 is out of range; data\.num_folds is 5"):
        assign_splits(dataset("a", "b"), DataSpec(root="x", fold=5))


def test_subject_stays_on_one_side_in_every_fold() -> None:
    ids = [f"case_{i}" for i in range(60)]
    subjects = {case_id: f"subject_{index // 3}" for index, case_id in enumerate(ids)}
    data = dataset(*ids, subjects=subjects)
    held_out: list[str] = []
    for fold in range(5):
        sides = assign_splits(data, DataSpec(root="x", fold=fold)).sides
        assert sides.keys() == set(ids)
        held_out += [case_id for case_id, side in sides.items() if side == "val"]
        by_subject: dict[str, set[str]] = {}
        for case_id, side in sides.items():
            by_subject.setdefault(subjects[case_id], set()).add(side)
        assert all(len(seen) == 1 for seen in by_subject.values())
    assert sorted(held_out) == sorted(ids)  # each case validates exactly once


names = st.sets(st.text("abcdefgh0123456789", min_size=1, max_size=6), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(subjects=names, seed=st.integers(0, 5), num_folds=st.integers(2, 6))
def test_no_fold_is_empty_and_each_subject_is_held_out(subjects: set[str], seed: int, num_folds: int) -> None:
    folds = [draw_held_out(subjects, fold, num_folds, seed) for fold in range(num_folds)]
    assert all(folds)
    assert set().union(*folds) == subjects


def test_no_growth_holds_out_a_subject_that_was_trained_on() -> None:
    """200 data sets that start at 2 to 12 cases and grow to 60; equal cuts of shuffled cases leak in 46 % of them."""
    leaks = 0
    for history in range(200):
        generator = random.Random(history)
        everyone = [f"h{history}-{generator.random()}" for _ in range(60)]
        size, trained = generator.randint(2, 12), set[str]()
        while size <= len(everyone):
            held_out = draw_held_out(everyone[:size], history % 5, 5, seed=history)
            leaks += bool(held_out & trained)
            trained |= set(everyone[:size]) - held_out
            size += generator.randint(1, 4)
    assert leaks == 0


def test_folds_depend_on_the_seed_and_are_of_similar_size() -> None:
    subjects = [f"subject_{index}" for index in range(1000)]
    folds = [draw_held_out(subjects, fold, 5, 1) for fold in range(5)]
    assert all(150 <= len(held_out) <= 250 for held_out in folds)  # 200 +- 4 standard deviations of 12.6
    assert sum(map(len, folds)) == 1000
    assert folds[0] == draw_held_out(subjects[::-1], 0, 5, 1)
    assert 10 <= len(folds[0] & draw_held_out(subjects, 0, 5, 2)) <= 70  # 40 by chance


def test_few_subjects_still_give_two_sides() -> None:
    sides = assign_splits(dataset("a", "b", "c", "d"), DataSpec(root="x")).sides
    assert sorted(sides.values()) == ["train", "train", "train", "val"]
    with pytest.raises(ConfigError, match=r"no usable case is on the train side.*choose another data\.fold"):
        assign_splits(dataset("a", "b", subjects={"b": "a"}), DataSpec(root="x"))


def test_classes_that_a_side_lacks() -> None:
    voxels = {"a": [9, 5, 0], "b": [9, 0, 3], "c": [9, 1, 0]}
    classes = {"organ": (1,), "lesion": (2,)}
    assert classes_without_case({"a": "train", "b": "val", "c": "train"}, voxels, classes) == {
        "train": ["lesion"],
        "val": ["organ"],
    }
    assert classes_without_case({"a": "train", "b": "train", "c": "val"}, voxels, classes)["train"] == []


def test_a_class_that_no_training_case_shows() -> None:
    check_classes_are_trained([], dataset("a", "b"))
    with pytest.raises(DataError, match=r"(?s)no training case of this fold shows class lesion.*another data\.fold"):
        check_classes_are_trained(["lesion"], dataset("a", "b"))
