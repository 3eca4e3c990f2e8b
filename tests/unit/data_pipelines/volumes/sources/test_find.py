"""Finding cases: each layout, told apart by its files, and every rule that file names can break."""

from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage

from data_pipelines.errors import ConfigError, DataError
from data_pipelines.volumes.cases import Dataset
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.sources.find import find_cases, recognise_layout
from data_pipelines.volumes.specs import DataSpec
from tests.support.datasets import write_dataset
from tests.support.dicom import write_dicom

LABELS = {"0": "background", "1": "front", "2": "back"}


def touch(root: Path, *names: str) -> None:
    """Empty files: finding cases never opens a volume."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def declare(root: Path, **fields: Any) -> None:
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(fields))


def decathlon(root: Path, *ids: str, **fields: Any) -> Path:
    for case_id in ids:
        touch(root, f"imagesTr/{case_id}.nii.gz", f"labelsTr/{case_id}.nii.gz")
    training = [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in ids]
    declare(root, **{"name": "Set", "modality": {"0": "MRI"}, "labels": LABELS, "training": training, **fields})
    return root


def nnunet(root: Path, *ids: str, channels: int = 2, **fields: Any) -> Path:
    for case_id in ids:
        touch(root, f"labelsTr/{case_id}.nii.gz", *(f"imagesTr/{case_id}_{c:04d}.nii.gz" for c in range(channels)))
    names = {str(c): f"channel{c}" for c in range(channels)}
    declare(root, **{"channel_names": names, "labels": {"background": 0, "organ": 1}, **fields})
    return root


def folders(root: Path, *ids: str, label_folder: str = "masks") -> Path:
    for case_id in ids:
        touch(root, f"images/{case_id}.png", f"{label_folder}/{case_id}.png")
    return root


def find(root: Path, **fields: Any) -> Dataset:
    return find_cases(DataSpec(root=str(root), **fields))


def rules(dataset: Dataset) -> set[tuple[str, str]]:
    return {(problem.rule, problem.case_id) for problem in dataset.problems}


def test_links_to_nothing_are_cases_whose_files_are_missing(tmp_path: Path) -> None:
    root = folders(tmp_path / "d", "a", "b")
    for name in ("images/c.png", "masks/c.png"):
        (root / name).symlink_to(tmp_path / "not fetched")
    (root / "images" / "notes.odt").symlink_to(tmp_path / "gone")
    dataset = find(root, ndim=2)
    assert [case.case_id for case in dataset.cases] == ["a", "b", "c"]
    assert [Path(one.path).name for one in dataset.notices] == ["notes.odt"]
    with pytest.raises(DataError, match=r"images/c\.png: no such file or folder"):
        read_volume(dataset.cases[2].images[0], 10**6)


# --- Decathlon -------------------------------------------------------------------------------------------------------


def test_decathlon(tmp_path: Path) -> None:
    root = decathlon(tmp_path / "d", "b", "a", licence="CC-BY-SA 4.0", release="1.0")
    touch(root, "imagesTr/._a.nii.gz", "labelsTr/._a.nii.gz", "imagesTr/.DS_Store", "splits_final.json")
    dataset = find(root)
    assert [case.case_id for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].images == (str(root / "imagesTr/a.nii.gz"),)
    assert dataset.cases[0].label == str(root / "labelsTr/a.nii.gz")
    assert dataset.cases[0].subject == "a"
    assert (dataset.name, dataset.channels) == ("Set", ("MRI",))
    assert dataset.labels.numbers == {"background": 0, "front": 1, "back": 2}
    assert dataset.metadata == {"licence": "CC-BY-SA 4.0", "release": "1.0"}
    assert dataset.splits_path == str(root / "splits_final.json")
    assert dataset.problems == ()


def test_decathlon_names_everything_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = ["a", "no_label", "no_image", "ok", "OK"]
    root = decathlon(tmp_path / "d", *listed)
    (root / "labelsTr/no_label.nii.gz").unlink()
    (root / "imagesTr/no_image.nii.gz").unlink()
    touch(root, "imagesTr/extra_image.nii.gz", "labelsTr/extra_label.nii.gz")
    touch(root, "imagesTr/unlisted.nii.gz", "labelsTr/unlisted.nii.gz")
    declared = json.loads((root / "dataset.json").read_text())
    declared["training"] += [{"image": "../x.nii.gz", "label": "labelsTr/x.nii.gz"}, "a string"]
    declare(root, **declared)
    with caplog.at_level(logging.WARNING):
        dataset = find(root)
    assert rules(dataset) == {
        ("label-missing", "no_label"),
        ("image-missing", "no_image"),
        ("duplicate-id", "ok"),
        ("label-missing", "extra_image"),
        ("image-missing", "extra_label"),
        ("path-outside", "x"),
        ("bad-entry", ""),
    }
    assert [case.case_id for case in dataset.cases] == ["a"]
    assert "unlisted" in caplog.text
    by_rule = {problem.case_id: problem.path for problem in dataset.problems}
    assert by_rule["no_label"] == str(root / "labelsTr/no_label.nii.gz")
    assert by_rule["extra_image"] == str(root / "imagesTr/extra_image.nii.gz")


def test_decathlon_without_a_list_pairs_by_name(tmp_path: Path) -> None:
    root = decathlon(tmp_path / "d", "a", "b", training=[])
    touch(root, "imagesTr/c.nii.gz")
    dataset = find(root)
    assert [case.case_id for case in dataset.cases] == ["a", "b"]
    assert [problem.rule for problem in dataset.problems] == ["label-missing"]


def test_empty_decathlon_folder(tmp_path: Path) -> None:
    root = decathlon(tmp_path / "d")
    (root / "imagesTr").mkdir()
    assert rules(find(root)) == {("empty-folder", "")}


# --- nnU-Net ---------------------------------------------------------------------------------------------------------


def test_nnunet(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", "case_2", "case_1")
    touch(root, "imagesTr/._case_1_0000.nii.gz")
    dataset = find(root)
    assert [case.case_id for case in dataset.cases] == ["case_1", "case_2"]
    assert [Path(p).name for p in dataset.cases[0].images] == ["case_1_0000.nii.gz", "case_1_0001.nii.gz"]
    assert dataset.channels == ("channel0", "channel1")
    assert dataset.labels.numbers == {"background": 0, "organ": 1}
    assert dataset.problems == ()


def test_nnunet_names_everything_at_once(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", "a", "gap", "more", "lonely", "odd")
    (root / "imagesTr/gap_0001.nii.gz").unlink()
    (root / "labelsTr/lonely.nii.gz").unlink()
    touch(root, "imagesTr/more_0002.nii.gz", "imagesTr/plain.nii.gz", "labelsTr/alone.nii.gz")
    touch(root, "imagesTr/odd_0000.nii", "labelsTr/A.nii")
    dataset = find(root)
    assert rules(dataset) == {
        ("missing-channel", "gap"),
        ("undeclared-channel", "more"),
        ("no-channel-number", "plain"),
        ("label-missing", "lonely"),
        ("image-missing", "alone"),
        ("duplicate-id", "odd"),
        ("duplicate-id", "A"),
    }
    assert dataset.cases == ()
    assert "channel 1 (channel1)" in next(p.message for p in dataset.problems if p.rule == "missing-channel")


def test_nnunet_two_spellings_of_one_case(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", "ok")
    touch(root, "imagesTr/a_0000.nii.gz", "imagesTr/A_0001.nii.gz", "labelsTr/a.nii.gz")
    assert {problem.rule for problem in find(root).problems} == {"duplicate-id"}


def test_nnunet_colour_image_brings_all_channels(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", channels=3)
    touch(root, "imagesTr/a_0000.png", "labelsTr/a.png")
    dataset = find(root)
    assert dataset.problems == ()
    assert len(dataset.cases[0].images) == 1


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "b": 2, "a": 1}, {"background": 0, "a": 1, "b": 2}),
        ({"2": "b", "0": "background", "1": "a"}, {"background": 0, "a": 1, "b": 2}),
        ({"background": "0", "a": "1"}, {"background": 0, "a": 1}),
    ],
)
def test_both_ways_of_declaring_labels(tmp_path: Path, labels: Any, classes: dict[str, int]) -> None:
    found = find(nnunet(tmp_path / "n", "a", labels=labels)).labels.numbers
    assert found == classes
    assert list(found) == list(classes)  # background first


@pytest.mark.parametrize(
    ("labels", "order", "targets"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, None, {"whole": (1, 2), "core": (2,)}),
        ({"background": 0, "whole": [1, 2]}, [2], {"whole": (1, 2)}),
        ({"background": 0, "tumour": [1, 2], "organ": 3}, None, {"tumour": (1,), "organ": (2,)}),
    ],
)
def test_lists_are_regions_where_they_overlap_or_are_ordered(
    tmp_path: Path, labels: Any, order: Any, targets: dict[str, tuple[int, ...]]
) -> None:
    root = nnunet(tmp_path / "n", "a", labels=labels, **({"regions_class_order": order} if order else {}))
    assert find(root).labels.targets == targets


def test_regions_of_the_configuration_replace_those_of_the_data(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", "a", labels={"background": 0, "whole": [1, 2], "core": 2})
    found = find(root, classes={"background": 0, "edema": 1, "core": 2}, regions={"all": ("edema", "core")}).labels
    assert found.targets == {"all": (1, 2)}
    assert found.numbers == {"background": 0, "edema": 1, "core": 2}


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ({"background": 0, "core": 2, "whole": [1, 2]}, "bad-regions"),
        ({"a": 1, "b": 2}, "bad-classes"),
        ({"background": 0}, "bad-classes"),
        ({"background": 0, "a": 1.5}, "bad-classes"),
        ({"0": "background", "1": "a", "2": "a"}, "bad-classes"),
        (None, "bad-classes"),
        ([], "bad-classes"),
    ],
)
def test_unusable_labels_are_refused(tmp_path: Path, labels: Any, rule: str) -> None:
    with pytest.raises(DataError) as caught:
        find(nnunet(tmp_path / "n", "a", labels=labels))
    assert [problem.rule for problem in caught.value.problems] == [rule]


@pytest.mark.parametrize("names", [None, {}, ["CT"], {"1": "CT"}, {"a": "CT"}])
def test_unusable_channel_names_are_refused(tmp_path: Path, names: Any) -> None:
    with pytest.raises(DataError, match="bad-channels"):
        find(nnunet(tmp_path / "n", "a", channel_names=names))


def test_spec_overrides_declarations(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", "a", labels=None, channel_names={"0": "x", "1": "y"})
    dataset = find(root, classes={"background": 0, "mine": 1}, channels=("p", "q"))
    assert dataset.labels.numbers == {"background": 0, "mine": 1}
    assert dataset.channels == ("p", "q")
    with pytest.raises(DataError, match=r"data\.classes: .*a background"):
        find(root, classes={"theirs": 1, "mine": 2})


def test_broken_dataset_json(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "n", "a")
    (root / "dataset.json").write_text("{oops")
    with pytest.raises(DataError, match="not valid JSON"):
        find(root)
    (root / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="must hold a JSON object"):
        find(root)
    (root / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"dataset\.json: missing"):
        find(root, layout="nnunet")


# --- plain folders and DICOM -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_folder", ["masks", "labels"])
def test_folders(tmp_path: Path, label_folder: str) -> None:
    root = folders(tmp_path / "f", "b", "a", label_folder=label_folder)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(root / "images/a.png")
    dataset = find(root, ndim=2)
    assert [case.case_id for case in dataset.cases] == ["a", "b"]
    assert dataset.labels.numbers == {"background": 0, "foreground": 1}
    assert dataset.channels == ("red", "green", "blue")
    assert dataset.problems == ()


def test_folders_with_classes_subjects_and_other_suffixes(tmp_path: Path) -> None:
    root = tmp_path / "f"
    touch(root, "images/a.jpg", "images/b.nii.gz", "masks/a.png", "masks/b.nii")
    (root / "classes.json").write_text('{"background": 0, "road": 1}')
    (root / "subjects.json").write_text('{"a": "town", "b": "town"}')
    dataset = find(root)
    assert dataset.labels.numbers == {"background": 0, "road": 1}
    assert [case.subject for case in dataset.cases] == ["town", "town"]
    (root / "subjects.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="must map case ids to subjects"):
        find(root)


def test_folders_name_everything_at_once(tmp_path: Path) -> None:
    root = folders(tmp_path / "f", "ok", "-x")
    touch(root, "images/twin.png", "images/twin.jpg", "masks/twin.png")
    touch(root, "images/Case.png", "images/case.png", "masks/case.png", "images/only.png", "masks/mask.png")
    dataset = find(root)
    assert rules(dataset) == {
        ("bad-case-id", "-x"),
        ("duplicate-id", "twin"),
        ("duplicate-id", "Case"),
        ("label-missing", "only"),
        ("image-missing", "mask"),
    }
    assert [case.case_id for case in dataset.cases] == ["ok"]


def test_empty_image_folder(tmp_path: Path) -> None:
    touch(tmp_path, "images/._a.png", "masks/notes.txt")
    assert rules(find(tmp_path)) == {("empty-folder", "")}


def test_dicom(tmp_path: Path) -> None:
    root = tmp_path / "d"
    touch(
        root, "p1/image/1.dcm", "p1/label.nii.gz", "p2/image/1.dcm", "p3/label.nii", ".hidden/image/x", "classes.json"
    )
    touch(root, "p4/image/1", "p4/label.nii", "p4/label.nii.gz")
    (root / "classes.json").write_text('{"background": 0, "liver": 1}')
    dataset = find(root)
    assert [(case.case_id, case.images, case.label) for case in dataset.cases] == [
        ("p1", (str(root / "p1/image"),), str(root / "p1/label.nii.gz"))
    ]
    assert rules(dataset) == {("label-missing", "p2"), ("image-missing", "p3"), ("duplicate-id", "p4")}
    (root / "classes.json").unlink()
    with pytest.raises(DataError, match="name the classes"):
        find(root)


@pytest.mark.parametrize(
    ("patients", "shared"),
    [
        ({"a": "7", "b": "7", "c": "8", "d": "9"}, True),
        ({"a": "7", "b": "7", "c": "", "d": "7"}, False),  # one for everybody who has any
        ({"a": "", "b": "", "c": "", "d": ""}, False),
    ],
)
def test_series_of_one_patient_are_one_subject(tmp_path: Path, patients: dict[str, str], shared: bool) -> None:
    touch(tmp_path, *(f"{name}/label.nii" for name in patients))
    (tmp_path / "classes.json").write_text('{"background": 0, "liver": 1}')
    for name, patient in patients.items():
        (tmp_path / name / "image").mkdir()
        write_dicom(tmp_path / name / "image" / "1", CTImageStorage, PatientID=patient)
    subjects = {case.case_id: case.subject for case in find(tmp_path).cases}
    assert (subjects["a"] == subjects["b"] != subjects["c"]) is shared
    assert all(subjects[name] == name for name in patients if not shared)
    (tmp_path / "subjects.json").write_text('{"b": "somebody else"}')
    stated = {case.case_id: case.subject for case in find(tmp_path).cases}
    assert stated == subjects | {"b": "somebody else"}


def test_a_patient_id_of_most_cases_is_a_placeholder(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/label.nii" for name in "abc"))
    (tmp_path / "classes.json").write_text('{"background": 0, "liver": 1}')
    for name, patient in {"a": "ANONYMOUS", "b": "ANONYMOUS", "c": "8"}.items():
        (tmp_path / name / "image").mkdir()
        write_dicom(tmp_path / name / "image" / "1", CTImageStorage, PatientID=patient)
    dataset = find(tmp_path)
    assert [case.subject for case in dataset.cases][:2] == ["a", "b"]
    (one,) = dataset.notices
    assert (one.rule, "2 of 3 cases have one PatientID" in one.message) == ("patient-id-shared", True)


# --- Unicode forms, listings and files that nothing reads ------------------------------------------------------------


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Fall_Jürgen") for form in ("NFC", "NFD"))


def ids_of(dataset: Dataset) -> list[str]:
    assert dataset.problems == ()
    return [case.case_id for case in dataset.cases]


def test_both_unicode_forms_of_a_name_are_one_case(tmp_path: Path) -> None:
    touch(tmp_path / "f", f"images/{COMPOSED}.png", f"masks/{DECOMPOSED}.png")
    assert ids_of(find(tmp_path / "f")) == [COMPOSED]
    root = nnunet(tmp_path / "n", DECOMPOSED, channels=1)
    (root / f"labelsTr/{DECOMPOSED}.nii.gz").rename(root / f"labelsTr/{COMPOSED}.nii.gz")
    assert ids_of(find(root)) == [COMPOSED]
    root = decathlon(tmp_path / "d", COMPOSED)
    for folder in ("imagesTr", "labelsTr"):
        (root / f"{folder}/{COMPOSED}.nii.gz").rename(root / f"{folder}/{DECOMPOSED}.nii.gz")
    assert ids_of(find(root)) == [COMPOSED]  # the list has the composed form, the disk the other
    assert all(Path(path).is_file() for path in (*find(root).cases[0].images, find(root).cases[0].label))
    touch(tmp_path / "s", f"{DECOMPOSED}/image/1", f"{DECOMPOSED}/label.nii")
    (tmp_path / "s/subjects.json").write_text(json.dumps({COMPOSED: "anna"}))
    assert find(tmp_path / "s", classes={"background": 0, "a": 1}).cases[0].subject == "anna"
    touch(tmp_path / "f", f"images/{DECOMPOSED}.png")
    assert {problem.rule for problem in find(tmp_path / "f").problems} >= {"duplicate-id"}


def test_nnunet_listing(tmp_path: Path) -> None:
    root = tmp_path / "n"
    touch(root, "t1/1.nii.gz", "t2/1.nii.gz", "t1/2.nii.gz", "t2/2.nii.gz", "seg/1.nrrd", "seg/2.nrrd")
    files = {str(k): {"images": [f"t1/{k}.nii.gz", f"./t2/{k}.nii.gz"], "label": f"seg/{k}.nrrd"} for k in (2, 1)}
    declare(root, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "a": 1}, dataset=files)
    assert recognise_layout(root) == "nnunet"
    assert ids_of(find(root)) == ["1", "2"]
    assert find(root).cases[0].images == (str(root / "t1/1.nii.gz"), str(root / "t2/1.nii.gz"))
    assert find(root).cases[0].label == str(root / "seg/1.nrrd")


def test_nnunet_listing_names_everything_at_once(tmp_path: Path) -> None:
    root = tmp_path / "n"
    touch(root, "a.nii", "b.nii", "seg.nii")
    good = {"images": ["a.nii", "b.nii"], "label": "seg.nii"}
    files: dict[str, Any] = {
        "good": good,
        "GOOD": good,
        "few": {"images": ["a.nii"] * 3, "label": "seg.nii"},
        "gone": {"images": ["a.nii", "gone.nii"], "label": "seg.nii"},
        "no_label": {"images": ["a.nii", "b.nii"], "label": "gone.nii"},
        "outside": {"images": ["a.nii", "../b.nii"], "label": "seg.nii"},
        "malformed": ["a.nii"],
        "-x": good,
    }
    declare(root, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "a": 1}, dataset=files)
    dataset = find(root)
    assert rules(dataset) == {
        ("duplicate-id", "GOOD"),
        ("missing-channel", "few"),
        ("image-missing", "gone"),
        ("label-missing", "no_label"),
        ("path-outside", "outside"),
        ("bad-entry", "malformed"),
        ("bad-case-id", "-x"),
    }
    assert [case.case_id for case in dataset.cases] == ["good"]


@pytest.mark.parametrize("ending", [".npy", ".b2nd", "", 3])
def test_a_file_ending_that_is_not_read_is_named(tmp_path: Path, ending: Any) -> None:
    root = nnunet(tmp_path / "n", "a", file_ending=ending)
    (problem,) = find(root).problems
    assert problem.rule == "unknown-format"
    assert repr(ending) in problem.message


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".png", ".tif"])
def test_file_endings_that_are_read(tmp_path: Path, ending: str) -> None:
    root = tmp_path / "n"
    touch(root, f"imagesTr/a_0000{ending}", f"labelsTr/a{ending}")
    declare(root, channel_names={"0": "CT"}, labels={"background": 0, "a": 1}, file_ending=ending)
    assert ids_of(find(root)) == ["a"]


def test_files_that_nothing_reads_are_named(tmp_path: Path) -> None:
    root = folders(tmp_path / "f", "a")
    touch(root, "images/b.bmp", "masks/b.png", "images/.DS_Store", "masks/notes", "images/c.mhd", "images/c.raw")
    (root / "images/c.mhd").write_text("ElementDataFile = c.raw\n")
    dataset = find(root)
    by_case = {problem.case_id: problem for problem in dataset.problems}
    assert "b.bmp lies there, and .bmp is no supported format" in by_case["b"].message
    assert [(one.rule, Path(one.path).name) for one in dataset.notices] == [
        ("skipped-file", "b.bmp"),
        ("skipped-file", "notes"),
    ]


def test_a_folder_of_unknown_files_says_what_lies_there(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.mnc", "images/b.mnc", "images/c.npy", "masks/a.mnc")
    (problem,) = find(tmp_path).problems
    assert problem.rule == "empty-folder"
    assert "it holds .mnc (2 files), .npy (1 files)" in problem.message


# --- recognising the layout ------------------------------------------------------------------------------------------


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    assert recognise_layout(decathlon(tmp_path / "1", "a")) == "decathlon"
    assert recognise_layout(decathlon(tmp_path / "2", "case_0001", "case_0002")) == "decathlon"  # not channels
    assert recognise_layout(nnunet(tmp_path / "3", "a")) == "nnunet"
    old = nnunet(tmp_path / "4", "a", "b", channel_names=None)
    declare(old, modality={"0": "MR", "1": "CT"}, labels=LABELS)
    assert recognise_layout(old) == "nnunet"
    assert recognise_layout(folders(tmp_path / "5", "a")) == "folders"
    touch(tmp_path / "6", "p1/image/1.dcm")
    assert recognise_layout(tmp_path / "6") == "dicom"


def test_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "scan.nii.gz")
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    message = str(caught.value)
    assert "It holds: scan.nii.gz" in message
    assert all(layout in message for layout in ("decathlon", "nnunet", "folders", "dicom"))


def test_missing_or_unnamed_root(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        find(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"data\.root: name the folder"):
        find_cases(DataSpec())
    with pytest.raises(ConfigError, match="needs images/ and masks/"):
        find(tmp_path, layout="folders")


def test_phantoms_are_written_once_and_found_again(tmp_path: Path) -> None:
    spec = DataSpec(layout="phantoms", num_phantoms=4, phantom_seed=3)
    first = find_cases(spec, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert len(times) == 8
    assert first == find_cases(spec, tmp_path)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert [case.case_id for case in first.cases] == [f"phantom_{index:03d}" for index in range(4)]
    other = find_cases(spec.model_copy(update={"phantom_seed": 4}), tmp_path)
    assert other.cases[0].label != first.cases[0].label


def test_ids_in_subjects_json_that_are_no_case_are_said(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, "a", "b")
    (root / "subjects.json").write_text(json.dumps({"a": "anna", "b.nii.gz": "anna"}))
    found = find_cases(DataSpec(root=str(root)))
    (said,) = [each for each in found.notices if each.rule == "subject-unknown"]
    assert "names 1 ids that are no case: b.nii.gz" in said.message
    (root / "subjects.json").write_text(json.dumps({"a.nii.gz": "anna", "b.nii.gz": "anna"}))
    with pytest.raises(DataError, match=r"none of its 2 ids is a case: a\.nii\.gz, b\.nii\.gz"):
        find_cases(DataSpec(root=str(root)))


def test_folders_beside_images_are_said(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, "a", "b")
    (root / "imagesTr" / "siteB").mkdir()
    (said,) = [each for each in find_cases(DataSpec(root=str(root))).notices if each.rule == "skipped-file"]
    assert (said.path, said.message) == (str(root / "imagesTr" / "siteB"), "is a folder: what is in it is not read")
