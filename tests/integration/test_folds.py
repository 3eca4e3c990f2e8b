"""Two folds of tiny phantoms to one model, which averages both networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_pipelines import storage
from data_pipelines.shards.index import IMAGE
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.preprocess import prepare_labels
from data_pipelines.volumes.sources.find import find_cases
from flows.pipelines.catalog import load_config
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.scoring import read_stored_geometry
from flows.pipelines.segmentation.folds import split_runs
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.registry.bundle import read_bundle
from flows.registry.champion import fetch_bundle
from tests.support.configs import TINY_PHANTOMS
from tests.support.project import Project
from unet_models.networks.build import build_network

SMALL = ("train.num_steps=2", "train.validate_cases=0", "registry.export=[onnx]", "compute.num_workers=1")
QUICK = ("evaluate.tta=false", "evaluate.exit_thresholds=[]")
SETTINGS = ("data.fold=all", "data.num_folds=2", *SMALL, *QUICK)
TWO_FOLDS = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("home"), TINY_PHANTOMS)


@pytest.fixture(scope="module")
def first(project: Project) -> dict[str, Any]:
    """The second fold is done already, as a run of its own."""
    project.run("train", str(project.config), *TWO_FOLDS, "--set", "data.fold=1")
    return project.run("register", str(project.config), *TWO_FOLDS)


def test_each_fold_is_a_run_and_one_model_is_registered(first: dict[str, Any]) -> None:
    stages = {stage["name"]: stage["cached"] for stage in first["stages"]}
    runs = [f"{step}.{place}" for place in range(2) for step in ("shard", "train", "evaluate")]
    assert list(stages) == [*runs, "ensemble", "register"]
    assert [name for name, cached in stages.items() if cached] == ["shard.1", "train.1"]
    assert (first["model_version"], first["alias"]) == (1, "champion")


def test_every_case_is_scored_by_the_network_that_has_not_seen_it(project: Project, first: dict[str, Any]) -> None:
    folder = next((project.storage / "ensemble").iterdir())
    table = pq.read_table(next(folder.glob("*/cases.parquet"))).to_pylist()
    assert len({row["case_id"] for row in table}) == 8
    own = json.loads((folder / "record.json").read_text())["figures"]
    assert own["folds"] == [0, 1]
    kept = any(own["postprocessing"].values())
    data = find_cases(load_config(project.config).data, storage.generated_folder())  # type: ignore[attr-defined]
    references = {case.case_id: case.label for case in data.cases}
    for row in table:
        name = f"{row['case_id']}.nii.gz"
        path = next(folder.glob(f"*/predictions/{name}") if kept else project.storage.glob(f"evaluate/*/*/*/{name}"))
        predicted, true = (np.asarray(nibabel.load(each).dataobj) == 1 for each in (path, references[row["case_id"]]))
        if row["class_name"] == "liver":
            dice = 2 * (predicted & true).sum() / (predicted.sum() + true.sum())
            assert row["dice"] == pytest.approx(dice)
    dice = [row["dice"] for row in table if row["class_name"] == "liver"]
    assert first["metrics"]["dice/liver"] == pytest.approx(np.nanmean(dice))
    report = Path(first["report"]).read_text()
    assert "Folds" in report
    assert "fold 1" in report
    assert "Postprocessing" in report
    assert "Calibration" in report


def test_the_registered_model_averages_probabilities(project: Project, first: dict[str, Any], tmp_path: Path) -> None:
    mlflow.set_tracking_uri(first["tracking_uri"])
    folder = fetch_bundle(first["model_uri"], tmp_path)
    bundle = read_bundle(folder, Bundle)
    assert bundle.num_members == 2
    (record,) = (project.storage / "ensemble").glob("*/record.json")
    chosen = json.loads(record.read_text())["figures"]["postprocessing"]
    assert json.loads(bundle.model_dump_json())["postprocessing"] == chosen
    assert bundle.trained_range is not None
    assert len(bundle.temperatures) == bundle.labels.num_outputs
    assert first["metrics"]["calibration_error/liver"] < first["metrics"]["uncalibrated_error/liver"]
    weights = load_file(folder / "model.safetensors")
    image = torch.rand(1, len(bundle.channels), 32, 32, 32)
    members = []
    for place in range(2):
        network = build_network(bundle.model, len(bundle.channels), bundle.labels.num_outputs, ndim=3).eval()
        own = {name.partition(".")[2]: value for name, value in _of_member(weights, place)}
        network.load_state_dict(own)
        members.append(network(image).softmax(dim=1))
    import onnxruntime

    session = onnxruntime.InferenceSession(next(folder.rglob("*.onnx")))
    (logits,) = session.run(None, {"images": image.numpy()})
    mean = torch.stack(members).mean(dim=0).detach()
    torch.testing.assert_close(torch.from_numpy(logits).softmax(dim=1), mean, rtol=1e-4, atol=1e-4)


def test_folders_are_predicted_with_maps(project: Project, first: dict[str, Any], tmp_path: Path) -> None:
    data = find_cases(load_config(project.config).data, storage.generated_folder())  # type: ignore[attr-defined]
    predict = ("predict", first["model_uri"], str(data.cases[0].images[0]), str(tmp_path / "out"))
    assert project.run(*predict)["num_predicted"] == 1
    assert project.run(*predict, "--probabilities", "--uncertainty")["num_predicted"] == 1
    assert project.run(*predict, "--uncertainty")["num_found_done"] == 1
    found = {path.name.split(".")[1]: path for path in (tmp_path / "out").glob("*.*.nii.gz")}  # without the label map
    assert set(found) == {"probabilities", "uncertainty", "disagreement"}
    probabilities = np.asarray(nibabel.load(found["probabilities"]).dataobj)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-3)


def _of_member(weights: dict[str, torch.Tensor], place: int) -> list[tuple[str, torch.Tensor]]:
    prefix = f"members.{place}."
    return [("." + name.removeprefix(prefix), value) for name, value in weights.items() if name.startswith(prefix)]


def test_again_nothing_is_computed(project: Project, first: dict[str, Any]) -> None:
    again = project.run("register", str(project.config), *TWO_FOLDS)
    assert all(stage["cached"] for stage in again["stages"])


def test_another_ensemble_is_compared_on_all_cases(project: Project, first: dict[str, Any], tmp_path: Path) -> None:
    """Of the same networks, which predict otherwise: nothing is trained again. Mirroring is chosen over all cases."""
    auto = ("--set", "evaluate.overlap=0.25", "--set", "evaluate.tta=auto", "--set", "registry.export=[]")
    other = project.run("register", str(project.config), *TWO_FOLDS, *auto)
    assert [stage["name"] for stage in other["stages"] if not stage["cached"]] == [
        "evaluate.0",
        "evaluate.1",
        "ensemble",
        "register",
    ]
    assert "on the same 8 cases" in other["reason"]
    dice = []
    for name in ("mirrored", "plain"):
        tables = [
            pq.read_table(stage / output["uri"]).to_pylist()
            for stage in (project.storage / "evaluate").iterdir()
            for outputs in [json.loads((stage / "record.json").read_text())["outputs"]]
            if {"cases_plain", "cases_mirrored"} <= outputs.keys()
            for output in [outputs[f"cases_{name}"]]
        ]
        assert sum(len({row["case_id"] for row in table}) for table in tables) == 8
        rows = [row for table in tables for row in table]
        classes = {row["class_name"] for row in rows}
        values = [[row["dice"] for row in rows if row["class_name"] == each] for each in classes]
        dice.append(np.nanmean([np.nanmean(each) for each in values if np.isfinite(each).any()]))
    mlflow.set_tracking_uri(first["tracking_uri"])
    bundle = read_bundle(fetch_bundle(other["model_uri"], tmp_path), Bundle)
    assert bundle.predict.tta is bool(dice[0] >= dice[1] + 0.001)
    assert "Test-time mirroring" in Path(other["report"]).read_text()


MODEL = "{kernel_size: [[1, 3, 3], [1, 3, 3], [1, 3, 3]], strides: [[1, 2, 2], [1, 2, 2]]}"
SLICES = f"candidates={{slices: {{train: {{patch_size: [1, 32, 32], patch_growth: 2, model: {MODEL}}}}}}}"
TWO_CANDIDATES = (*TWO_FOLDS, "--set", "data.fold=1", "--set", SLICES)


def figures_of(project: Project, report: str) -> dict[str, Any]:
    """Figures of the ensemble whose report it is."""
    figures: dict[str, Any] = json.loads((Path(report).parents[1] / "record.json").read_text())["figures"]
    return figures


def test_of_two_configurations_the_better_one_is_registered(project: Project, first: dict[str, Any]) -> None:
    """One is the second fold as it was; the other has a network of slices."""
    found = project.run("register", str(project.config), *TWO_CANDIDATES, "--set", "pair_candidates=false")
    stages = {stage["name"]: stage["cached"] for stage in found["stages"]}
    assert [name for name, cached in stages.items() if cached] == ["shard.0", "train.0", "evaluate.0", "shard.1"]
    figures = figures_of(project, found["report"])
    dice = figures["candidate_dice"]
    assert dice["base"] != dice["slices"]
    assert figures["candidate"] == max(dice, key=lambda name: dice[name])
    report = Path(found["report"]).read_text()
    assert "1 x 32 x 32" in report
    assert "Folds" not in report


def test_a_pair_that_is_better_is_registered_as_one_model(
    project: Project, first: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever untrained networks gain: what is registered predicts as the pair did when it was scored."""
    monkeypatch.setattr("flows.pipelines.segmentation.pairs.MIN_DICE_GAIN", -1.0)
    found = project.run("register", str(project.config), *TWO_CANDIDATES)
    assert {"pair", "ensemble"} <= {stage["name"] for stage in found["stages"] if not stage["cached"]}
    figures = figures_of(project, found["report"])
    assert figures["candidate"] == "base+slices"
    assert set(figures["candidate_dice"]) == {"base", "slices", "base+slices"}
    report = Path(found["report"]).read_text()
    assert "32 x 32 x 32; 1 x 32 x 32" in report
    assert "fold 1, base train key" in report
    assert "fold 1, slices train key" in report
    mlflow.set_tracking_uri(found["tracking_uri"])
    folder = fetch_bundle(found["model_uri"], tmp_path)
    bundle = read_bundle(folder, Bundle)
    assert bundle.partner is not None
    assert (bundle.patch_size, bundle.partner.patch_size) == ((32, 32, 32), (1, 32, 32))
    assert {path.stem for path in folder.rglob("*.onnx")} == {"unet", "partner"}
    assert len(bundle.temperatures) == bundle.labels.num_outputs
    data = find_cases(load_config(project.config).data, storage.generated_folder())  # type: ignore[attr-defined]
    images = {case.case_id: case.images for case in data.cases}
    kept = any(figures["postprocessing"].values())
    path = next((Path(found["report"]).parent if kept else project.storage / "pair").rglob("predictions/*.nii.gz"))
    segmenter = Segmenter.from_folder(folder, device="cpu")
    labels = segmenter.label_files([str(image) for image in images[path.name.removesuffix(".nii.gz")]])
    assert np.array_equal(labels, np.asarray(nibabel.load(path).dataobj))
    assert all(stage["cached"] for stage in project.run("register", str(project.config), *TWO_CANDIDATES)["stages"])


CASCADE = (*TWO_FOLDS, "--set", "candidates={cascade: {previous: base}}", "--set", "pair_candidates=false")


def test_a_cascade_is_trained_on_what_networks_make_of_cases_that_they_have_not_seen(
    project: Project, first: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both folds of the first network are done; the second one is registered whatever it gains."""
    is_second = property(lambda each: float(each.config.previous is not None))
    monkeypatch.setattr("flows.pipelines.segmentation.candidates.TrainedCandidate.rank", is_second)
    found = project.run("register", str(project.config), *CASCADE)
    stages = {stage["name"]: stage["cached"] for stage in found["stages"]}
    new = [f"{step}.{place}" for place in (2, 3) for step in ("cascade", "train", "evaluate")]
    assert [name for name, cached in stages.items() if not cached] == [*new, "ensemble", "register"]
    uris = {stage["name"]: Path(stage["uri"]) for stage in found["stages"]}
    index = uris["cascade.2"]
    records = [json.loads((uris[name] / "record.json").read_text()) for name in ("cascade.2", "cascade.3")]
    figures, again = (VolumeShardFigures.model_validate(record["figures"]) for record in records)
    assert (figures.num_previous, figures.num_new, again.num_new) == (3, 8, 0), "the folds share their samples"
    reader = ShardReader.from_uri(str(next(index.glob("*/index.parquet"))), str(project.storage / figures.shards))
    assert reader.num_samples == 8
    for row in range(8):
        image, name = reader.array(row, IMAGE), f"{reader.key(row)}.nii.gz"
        predictions = [
            np.asarray(nibabel.load(path).dataobj)
            for stage in found["stages"]
            if stage["name"] in ("evaluate.0", "evaluate.1")
            for path in Path(stage["uri"]).rglob(f"predictions/{name}")
        ]
        assert len(predictions) == 1
        np.testing.assert_array_equal(image[-1], prepare_labels(predictions[0], read_stored_geometry(reader, row)))
    mlflow.set_tracking_uri(found["tracking_uri"])
    folder = fetch_bundle(found["model_uri"], tmp_path)
    bundle = read_bundle(folder, Bundle)
    assert bundle.previous is not None
    assert (bundle.num_members, bundle.previous.num_members, bundle.num_networks) == (2, 2, 2)
    assert {path.stem for path in folder.rglob("*.onnx")} == {"unet", "previous"}
    report = Path(found["report"]).read_text()
    assert "fold 1, base train key" in report
    assert "fold 1, cascade train key" in report
    data = find_cases(load_config(project.config).data, storage.generated_folder())  # type: ignore[attr-defined]
    predict = ("predict", found["model_uri"], str(data.cases[0].images[0]), str(tmp_path / "out"))
    assert project.run(*predict)["num_predicted"] == 1
    job = tmp_path / "job.yaml"
    config = load_config(project.config, [word for word in CASCADE if word != "--set"])
    assert isinstance(config, SegmentationConfig)
    job.write_text(yaml.safe_dump(split_runs(config)["cascade, fold 1"].model_dump(mode="json")))
    alone = project.run("evaluate", str(job))
    assert [stage["name"] for stage in alone["stages"] if stage["cached"]] == ["shard", "cascade", "train", "evaluate"]
