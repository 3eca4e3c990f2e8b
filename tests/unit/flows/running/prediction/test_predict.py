"""Predictions: failures leave no file, a changed input is predicted again, a folder belongs to one version."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from data_pipelines.atomic import PREFIX
from data_pipelines.errors import ConfigError, InputError
from flows.config.specs import ComputeSpec
from flows.registry.models import ModelVersion
from flows.running.prediction.inputs import plan_items
from flows.running.prediction.items import Item
from flows.running.prediction.manifest import check_distinct, claim_folder
from flows.running.prediction.predict import Options, Predictor, predict


class Model:
    """Stands for the loaded model: writes what it was asked, fails for one input half-way."""

    params: dict[str, float] | None = None

    def predict(self, columns: dict[str, list[str]], params: dict[str, float] | None) -> None:
        self.params = params
        output = Path(columns["output"][0])
        output.with_name(f"map of {output.name}").write_text("map")
        output.write_text("labels")
        if "broken" in columns["path"][0]:
            raise RuntimeError("no such voxel")


def test_a_failure_is_returned_and_leaves_no_file(tmp_path: Path) -> None:
    predictor = Predictor()
    predictor.model = Model()
    results = [
        predictor(
            {"row": json.dumps({"path": f"{name}.nii.gz"}), "output": str(tmp_path / name), "model": "", "server": ""}
            | {"params": "{}"}
        )
        for name in ("whole", "broken")
    ]
    assert [result["error"] for result in results] == ["", "broken.nii.gz: no such voxel"]
    assert not any(result["is_fatal"] for result in results)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["map of whole", "whole"]


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    item = {"model": str(tmp_path / "none"), "server": f"sqlite:///{tmp_path}/m.db", "row": "{}", "output": "a"}
    with mock.patch.dict(os.environ):  # MLflow makes the server a variable
        result = Predictor()(item)
    assert result["is_fatal"]
    assert result["error"]


def version_of(number: str) -> ModelVersion:
    return ModelVersion("m", number, aliases=(), metrics={}, gate="", tags={})


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two volumes, one of them in two files, and a series; an empty cache."""
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "in"
    (folder / "series").mkdir(parents=True)
    (folder / "a.nii").write_bytes(b"a")
    (folder / "b.mhd").write_text("ElementDataFile = b.raw\n")
    (folder / "b.raw").write_bytes(b"b")
    (folder / "series" / "1").write_bytes(bytes(128) + b"DICM")
    return folder


@pytest.mark.parametrize(
    ("changed", "output"), [("a.nii", "a"), ("b.raw", "b"), ("series/1", "series"), ("series/2", "series")]
)
def test_an_input_of_new_content_is_due_again(tmp_path: Path, scans: Path, changed: str, output: str) -> None:
    def claim() -> set[str]:
        items = plan_items(str(scans), tmp_path / "out", takes_prompts=False).items
        claim_folder(tmp_path / "out", version_of("1"), items)
        return {Path(item.output).name for item in items if not Path(item.output).exists()}

    everything = {"a.nii.gz", "b.nii.gz", "series.nii.gz"}
    assert claim() == everything
    for name in everything:
        (tmp_path / "out" / name).touch()
    assert claim() == set()
    (scans / changed).write_bytes(bytes(128) + b"DICM and more")
    assert claim() == {f"{output}.nii.gz"}
    assert claim() == {f"{output}.nii.gz"}  # until it is predicted


def test_maps_belong_to_their_label_map(tmp_path: Path, scans: Path) -> None:
    folder = tmp_path / "out"
    items = plan_items(str(scans), folder, takes_prompts=False).items
    folder.mkdir()
    (folder / "a.uncertainty.nii.gz").touch()
    with pytest.raises(ConfigError, match=r"a\.uncertainty\.nii\.gz exists and is not one of these predictions"):
        claim_folder(folder, version_of("1"), items)
    (folder / "a.uncertainty.nii.gz").unlink()
    claim_folder(folder, version_of("1"), items)
    for name in ("a.nii.gz", "a.probabilities.nii.gz", "b.probabilities.nii.gz"):
        (folder / name).touch()
    (scans / "a.nii").write_bytes(b"other")
    claim_folder(folder, version_of("1"), items)
    assert [path.name for path in sorted(folder.iterdir())] == [
        "b.probabilities.nii.gz",
        "predictions.json",
    ]


def test_a_map_that_would_be_another_images_label_map_is_refused(tmp_path: Path) -> None:
    items = [Item({}, str(tmp_path / name)) for name in ("a.nii.gz", "a.Uncertainty.nii.gz")]
    check_distinct(items, Options(probabilities=True).maps)
    with pytest.raises(InputError, match=r"a\.uncertainty\.nii\.gz would be a map of a\.nii\.gz and of a\.Uncert"):
        check_distinct(items, Options(uncertainty=True).maps)


def test_maps_of_two_formats_of_one_name_are_refused(tmp_path: Path) -> None:
    items = [Item({}, str(tmp_path / name)) for name in ("a.nii.gz", "a.nrrd")]
    check_distinct(items, ())
    with pytest.raises(InputError, match=r"a\.probabilities\.nii\.gz would be a map of a\.nrrd and of a\.nii\.gz"):
        check_distinct(items, Options(probabilities=True).maps)


def test_a_version_of_a_registry_that_was_begun_anew_is_another_model(tmp_path: Path, scans: Path) -> None:
    folder = tmp_path / "out"
    items = plan_items(str(scans), folder, takes_prompts=False).items
    claim_folder(folder, version_of("1"), items)
    other = replace(version_of("1"), tags={"unetflow.train_key": "other"})
    with pytest.raises(ConfigError, match="holds predictions of another models:/"):
        claim_folder(folder, other, items)


def test_another_file_of_the_same_name_does_not_replace_a_prediction(tmp_path: Path, scans: Path) -> None:
    folder, other = tmp_path / "out", tmp_path / "other"

    def claim(source: Path) -> None:
        claim_folder(folder, version_of("1"), plan_items(str(source), folder, takes_prompts=False).items)

    claim(scans)
    (folder / "a.nii.gz").write_text("the first patient")
    other.mkdir()
    (other / "a.nii").write_bytes(b"another patient")
    with pytest.raises(
        ConfigError, match=r"a\.nii\.gz is the prediction of .*/in/a\.nii; .*/other/a\.nii has the same"
    ):
        claim(other)
    assert (folder / "a.nii.gz").read_text() == "the first patient"
    (folder / "a.nii.gz").unlink()
    claim(other)
    claim(other)


def test_what_an_interrupted_prediction_left_is_removed(tmp_path: Path, scans: Path) -> None:
    folder = tmp_path / "out"
    left = folder / f"{PREFIX}nobody:1:1_0-a.nii.gz"
    left.mkdir(parents=True)
    with mock.patch("data_pipelines.atomic.is_gone", return_value=True):
        claim_folder(folder, version_of("1"), plan_items(str(scans), folder, takes_prompts=False).items)
    assert not left.exists()


def test_inputs_that_moved_are_not_due_again(tmp_path: Path, scans: Path) -> None:
    folder = tmp_path / "out"
    claim_folder(folder, version_of("1"), plan_items(str(scans), folder, takes_prompts=False).items)
    (folder / "a.nii.gz").touch()
    moved = scans.rename(tmp_path / "moved")
    claim_folder(folder, version_of("1"), plan_items(str(moved), folder, takes_prompts=False).items)
    assert (folder / "a.nii.gz").exists()


def test_an_image_beside_a_prompt_is_a_file_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder, sketch, prompts = tmp_path / "out", tmp_path / "sketch.png", tmp_path / "a.jsonl"
    sketch.write_bytes(b"one")
    prompts.write_text('{"prompt": "x", "image": "sketch.png"}\n')
    (item,) = plan_items(str(prompts), folder, takes_prompts=True).items
    assert item.row["image"] == str(sketch)
    claim_folder(folder, version_of("1"), [item])
    Path(item.output).touch()
    claim_folder(folder, version_of("1"), [item])
    assert Path(item.output).exists()
    sketch.write_bytes(b"two")
    claim_folder(folder, version_of("1"), [item])
    assert not Path(item.output).exists()


def test_options_that_are_set_are_parameters() -> None:
    assert Options().params == {}
    assert Options(memory_gb=2, uncertainty=True).params == {"memory_gb": 2, "uncertainty": True}


def test_files_that_are_no_predictions_are_neither_taken_for_them_nor_removed(tmp_path: Path, scans: Path) -> None:
    items = plan_items(str(scans), tmp_path / "out", takes_prompts=False).items
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.nii\.gz exists and is not one of these predictions"):
        claim_folder(tmp_path / "out", version_of("1"), items)
    assert (tmp_path / "out" / "a.nii.gz").read_text() == "mine"
    (scans / "a.nii").rename(scans / "a.nii.gz")
    with pytest.raises(ConfigError, match="is not one of these predictions"):  # the folder of the input itself
        claim_folder(scans, version_of("1"), plan_items(str(scans), scans, takes_prompts=False).items)
    assert (scans / "a.nii.gz").read_bytes() == b"a"


def test_an_input_that_has_changed_is_due_again(tmp_path: Path) -> None:
    prompts, folder = tmp_path / "a.csv", tmp_path / "out"

    def claim(text: str, number: str = "1") -> None:
        prompts.write_text(text)
        claim_folder(folder, version_of(number), plan_items(str(prompts), folder, takes_prompts=True).items)

    claim("prompt,width\na circle,32\na square,32\n")
    for name in ("0.png", "1.png"):
        (folder / name).touch()
    claim("prompt,width\na circle,32\na square,64\n")
    assert [path.name for path in sorted(folder.iterdir())] == ["0.png", "predictions.json"]
    claim("prompt,width\na circle,32\n")
    assert (folder / "0.png").exists()
    with pytest.raises(ConfigError, match="holds predictions of models:/m/1, this is models:/m/2"):
        claim("prompt\na circle\n", "2")
    (folder / "predictions.json").write_text('{"model": "m"}')
    with pytest.raises(ConfigError, match="is not a manifest of this version; name another output folder"):
        claim("prompt\na circle\n")


@pytest.mark.parametrize(("source", "output"), [("s3://bucket/in", "out"), ("in", "s3://bucket/out")])
def test_places_that_are_no_paths_are_refused_before_anything_is_looked_up(source: str, output: str) -> None:
    with pytest.raises(ConfigError, match=r"s3://bucket/.*: input and output are paths here"):
        predict("models:/m@champion", source, output, ComputeSpec(), "/nowhere")
