"""Every kind of bad input, fed through the command line: the message names the file, the rule and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_pipelines.errors import WeightsError
from flows.cluster.actors import map_on_actors
from flows.config.specs import ComputeSpec
from tests.support.commands import Outcome, run_here, run_installed
from tests.support.datasets import FAULTS, LABELS, cut, image_path, label_of, write_case, write_dataset

GOOD = ("good_0", "good_1", "good_2", "good_3", "good_4")


def shard_record(outcome: Outcome) -> dict[str, Any]:
    """The shard stage's record."""
    (stage,) = outcome.record["stages"]
    assert stage["name"] == "shard"
    return json.loads((Path(stage["uri"]) / "record.json").read_text()) | {"cached": stage["cached"]}


def configure(folder: Path, root: Path, **fields: Any) -> str:
    """A configuration file for a data set, with its outputs beside it."""
    config = folder / "config.yaml"
    data = {"root": str(root), **fields.pop("data", {})}
    config.write_text(yaml.safe_dump({"storage": str(folder / "storage"), "data": data, **fields}))
    return str(config)


# --- one folder with a case for every fault --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five good cases, and one for each of ``FAULTS`` named after it."""
    folder = tmp_path_factory.mktemp("faulty")
    root = write_dataset(folder / "data", *GOOD)
    for name, spoil in FAULTS.items():
        spoil(root, name)
    return configure(folder, root, data={"max_voxels": 10_000})


@pytest.fixture(scope="module")
def stopped(config: str) -> Outcome:
    return run_here("shard", config, "--json")


EXPECTED = {  # case: the file, the rule, words of the message, words of the remedy
    "no_label": ("imagesTr/no_label_0000.nii.gz", "label-missing", "image without a label", "add the missing file"),
    "no_image": ("labelsTr/no_image.nii.gz", "image-missing", "label without an image", "add the missing file"),
    "twice": ("imagesTr/twice_0000.nii", "duplicate-id", "twice_0000.nii, twice_0000.nii.gz", "keep one of them"),
    "other_shape": (
        "labelsTr/other_shape.nii.gz",
        "geometry-mismatch",
        "shape [12, 12, 11] differs from [12, 12, 12] of other_shape_0000.nii.gz",
        "resample the label onto the image's grid",
    ),
    "other_spacing": (
        "labelsTr/other_spacing.nii.gz",
        "geometry-mismatch",
        "spacing [1.0, 1.0, 3.0] mm differs from [1.0, 1.0, 2.0] mm of other_spacing_0000.nii.gz",
        "resample the label onto the image's grid",
    ),
    "other_orientation": (
        "labelsTr/other_orientation.nii.gz",
        "geometry-mismatch",
        "orientation LAS differs from RAS of other_orientation_0000.nii.gz",
        "correct the header that is wrong",
    ),
    "undeclared_class": (
        "labelsTr/undeclared_class.nii.gz",
        "label-values",
        "outside the declared classes: 7 (3 voxels); declared are 0 background, 1 front, 2 back",
        "give each value a class in data.classes",
    ),
    "black_and_white": ("labelsTr/black_and_white.nii.gz", "label-values", "255 (512 voxels)", "data.classes"),
    "fractions": ("labelsTr/fractions.nii.gz", "label-not-integer", "2 voxels are not whole", "nearest neighbour"),
    "nan": ("imagesTr/nan_0000.nii.gz", "non-finite", "3 voxels are NaN and 0 infinite", "replace these voxels"),
    "infinite": (
        "imagesTr/infinite_0000.nii.gz",
        "non-finite",
        "0 voxels are NaN and 2 infinite",
        "leave the case out",
    ),
    "constant": ("imagesTr/constant_0000.nii.gz", "constant-image", "the same value, 7", "leave the case out"),
    "zero_spacing": (
        "imagesTr/zero_spacing_0000.nii.gz",
        "bad-spacing",
        "must be positive millimetres, got [0.0, 1.0, 2.0]",
        "correct the voxel size in the header",
    ),
    "negative_spacing": (
        "imagesTr/negative_spacing_0000.nii.gz",
        "bad-spacing",
        "must be positive millimetres, got [-1.0, 1.0, 2.0]",
        "correct the voxel size in the header",
    ),
    "truncated": ("imagesTr/truncated_0000.nii.gz", "truncated-gzip", "ends before its end", "copy the file again"),
    "too_large": (
        "imagesTr/too_large_0000.nii.gz",
        "too-large",
        "declares 2000x2000x2000 = 8000000000 voxels, more than the limit of 10000",
        "raise data.max_voxels",
    ),
    "four_axes": (
        "imagesTr/four_axes_0000.nii.gz",
        "wrong-ndim",
        "4-D [12, 12, 12, 2] where 3-D is expected",
        "store one 3-D volume per file",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_message_of_each_fault(stopped: Outcome, config: str, fault: str) -> None:
    file, rule, message, remedy = EXPECTED[fault]
    path = str(Path(config).parent / "data" / file)
    (found,) = [problem for problem in stopped.problems if problem["path"] == path]
    assert found["rule"] == rule
    assert message in found["message"]
    assert remedy in found["remedy"]


def test_all_faults_are_listed_at_once_and_nothing_else(stopped: Outcome) -> None:
    listed = [Path(problem["path"]).name for problem in stopped.problems]
    assert sorted(listed) == sorted(Path(file).name for file, *_ in EXPECTED.values())


def test_quarantine_goes_on_and_lists_what_it_left_out(stopped: Outcome, config: str) -> None:
    outcome = run_here("shard", config, "--set", "data.on_error=quarantine", "--json")
    record = shard_record(outcome)
    listed = read_output(record, "problems.json")
    assert sorted(problem["case_id"] for problem in listed) == sorted(FAULTS)
    assert {problem["case_id"]: problem["rule"] for problem in listed} == {
        fault: rule for fault, (_, rule, *_) in EXPECTED.items()
    }
    assert all(problem["path"] and problem["message"] and problem["remedy"] for problem in listed)
    index = pq.read_table(output_path(record, "index.parquet"))
    assert sorted(index["case_id"].to_pylist()) == list(GOOD)
    figures = record["figures"]
    assert figures["num_train"] + figures["num_val"] == len(GOOD)
    assert figures["num_quarantined"] == json.loads(outcome.out)["num_quarantined"] == len(FAULTS)
    assert figures["num_new"] == 0  # the good ones were sharded by the run that stopped


def test_quarantine_lists_what_the_splits_file_leaves_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", *GOOD)
    (root / "splits_final.json").write_text(json.dumps([{"train": list(GOOD[:3]), "val": [GOOD[3]]}]))
    record = shard_record(run_here("shard", configure(tmp_path, root, data={"on_error": "quarantine"}), "--json"))
    (problem,) = read_output(record, "problems.json")
    assert (problem["case_id"], problem["rule"]) == (GOOD[4], "split-left-out")
    assert record["figures"]["num_quarantined"] == 1


def output_path(record: dict[str, Any], name: str) -> Path:
    (output,) = [o for o in record["outputs"].values() if o["uri"].endswith(name)]
    return Path(record["uri"]) / output["uri"]


def read_output(record: dict[str, Any], name: str) -> Any:
    return json.loads(output_path(record, name).read_text())


def test_mended_file_is_all_that_the_same_command_shards(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", *GOOD)
    config = configure(tmp_path, root)
    cut(image_path(root, "good_3"))
    assert run_here("shard", config, "--json").problem["path"] == str(image_path(root, "good_3"))
    write_case(root, "good_3")
    mended = shard_record(run_here("shard", config, "--json"))
    assert (mended["cached"], mended["figures"]["num_new"]) == (False, 1)
    assert read_output(mended, "problems.json") == []
    assert shard_record(run_here("shard", config, "--json"))["cached"]


# --- what only the whole data set can break --------------------------------------------------------------------------


def test_class_that_no_case_has(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", *GOOD[:4], labels={**LABELS, "middle": 3})
    problem = run_here("shard", configure(tmp_path, root)).problem
    assert (problem["path"], problem["rule"]) == (str(root / "labelsTr"), "absent-class")
    assert "no case has a voxel of class middle; the classes are 0 background, 1 front" in problem["message"]
    assert "take the class out of the declaration" in problem["remedy"]


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
def test_too_few_cases(tmp_path: Path, on_error: str) -> None:
    root = write_dataset(tmp_path / "data", "good_0")
    problem = run_here("shard", configure(tmp_path, root, data={"on_error": on_error})).problem
    assert (problem["path"], problem["rule"]) == (str(root / "labelsTr"), "too-few-cases")
    assert "at least 2 usable cases are needed" in problem["message"]
    assert "add cases" in problem["remedy"]


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
def test_empty_folder(tmp_path: Path, on_error: str) -> None:
    root = write_dataset(tmp_path / "data")
    problem, *others = run_here("shard", configure(tmp_path, root, data={"on_error": on_error})).problems
    assert (problem["path"], problem["rule"]) == (str(root / "imagesTr"), "empty-folder")
    assert [other["rule"] for other in others] == (["too-few-cases"] if on_error == "quarantine" else [])
    assert "no usable image" in problem["message"]
    assert "check data.root" in problem["remedy"]


def test_classes_without_a_background(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", *GOOD, labels={"front": 1, "back": 3})
    problem = run_here("shard", configure(tmp_path, root)).problem
    assert (problem["path"], problem["rule"]) == (str(root / "dataset.json"), "bad-classes")
    assert "a background (value 0, or of that name) and another class are needed" in problem["message"]
    assert "give each class its value" in problem["remedy"]


def test_black_and_white_masks_of_a_picture_folder(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 255, (12, 12), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"data/images/{index}.png")
        Image.fromarray((label_of()[..., 5] > 0).astype(np.uint8) * 255).save(tmp_path / f"data/masks/{index}.png")
    config = configure(tmp_path, tmp_path / "data", data={"ndim": 2}, train={"patch_size": [8, 8]})
    problems = [p for p in run_here("shard", config).problems if p["rule"] != "too-few-cases"]
    assert [p["path"] for p in problems] == [str(tmp_path / f"data/masks/{index}.png") for index in range(3)]
    assert {p["rule"] for p in problems} == {"label-values"}
    assert all("255 (64 voxels); declared are 0 background, 1 foreground" in p["message"] for p in problems)
    assert all("set data.classes={background: 0, foreground: 255}" in p["remedy"] for p in problems)


# --- configuration and command line ----------------------------------------------------------------------------------


def test_unknown_layout(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    message = run_here("shard", configure(tmp_path, root)).message
    assert f"{root}: the folder has none of the known layouts. It holds: nothing" in message
    assert all(f"  {layout} " in message for layout in ("decathlon", "nnunet", "folders", "dicom"))
    assert "-> correct data.root, or name the layout in data.layout" in message


def test_missing_data_folder(tmp_path: Path) -> None:
    message = run_here("shard", configure(tmp_path, tmp_path / "absent")).message
    assert f"data.root: there is no folder {tmp_path / 'absent'}; correct the path" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.rot=x", "data.rot: unknown field; `unetflow config --reference` lists all fields"),
        ("data.ndim=flat", "data.ndim: Input should be 2 or 3 (got 'flat')"),
        (
            "data.layout=bids",
            "data.layout: unknown layout 'bids'; choose one of auto, decathlon, nnunet, folders, dicom, phantoms",
        ),
        ("data.ndim", "--set data.ndim: write it as a.b=value"),
        ("=3", "--set =3: write it as a.b=value"),
        ("data.root.x=1", "--set data.root.x=1: root is a value, not a group of fields"),
        ("data.ndim=[", "--set data.ndim=[: the value is not valid YAML"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in run_here("shard", configure(tmp_path, tmp_path), "--set", override).message


def test_all_wrong_fields_are_listed_with_the_file(tmp_path: Path) -> None:
    config = configure(tmp_path, tmp_path, data={"rot": 1, "fold": -1}, trian={})
    message = run_here("shard", config).message
    assert f"{config}: 3 invalid field(s):" in message
    assert all(f"\n  {field}: " in message for field in ("data.rot", "data.fold", "trian"))
    assert "greater than or equal to 0 (got -1)" in message


@pytest.mark.parametrize(
    ("content", "expected"), [("data: [", "is not valid YAML"), ("- data", "must hold fields such as `data:`")]
)
def test_unusable_configuration_file(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert f"{tmp_path / 'config.yaml'}: {expected}" in run_here("shard", str(tmp_path / "config.yaml")).message


# --- the console script ----------------------------------------------------------------------------------------------


def test_console_script_names_a_missing_configuration_file(tmp_path: Path) -> None:
    path = str(tmp_path / "absent.yaml")
    message = run_installed("shard", path).message
    assert message == (
        f"unetflow: {path}: cannot be read (No such file or directory); name an existing configuration file\n"
    )


def test_console_script_on_bad_voxels(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", *GOOD)
    FAULTS["nan"](root, "nan")
    config = configure(tmp_path, root)
    problem = run_installed("shard", config, "--json").problem
    assert (problem["path"], problem["rule"]) == (str(image_path(root, "nan")), "non-finite")
    record = shard_record(run_here("shard", config, "--set", "data.on_error=quarantine", "--json"))
    assert record["figures"]["num_quarantined"] == 1


@pytest.mark.parametrize("arguments", [["--nonsense", "config.yaml"], [], ["a.yaml", "b.yaml"]])
def test_bad_command_line(arguments: list[str]) -> None:
    assert "Usage: unetflow shard" in run_here("shard", *arguments).message


class Refusing:
    """An actor that refuses one of its items."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["number"] == 2:
            raise WeightsError("the generated images are not finite")
        return item | {"doubled": 2 * item["number"]}


def test_an_actor_keeps_the_type_and_words_of_its_error() -> None:
    """Ray wraps what an actor raises and tries it again: three times, then exit code 1 and a traceback."""
    one = ComputeSpec(num_workers=1)
    good = list(map_on_actors(Refusing, [{"number": 0}, {"number": 1}], one))
    assert sorted(row["doubled"] for row in good) == [0, 2]
    assert all(row.keys() == {"number", "doubled"} for row in good)
    with pytest.raises(WeightsError, match=r"^the generated images are not finite$"):
        list(map_on_actors(Refusing, [{"number": number} for number in range(4)], one))
