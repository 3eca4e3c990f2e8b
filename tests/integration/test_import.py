"""Results of nnU-Net become a registered model, which predicts without this checkout."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_pipelines.volumes.classes import Labels
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.task import SegmentationTask
from flows.pipelines.segmentation.train import describe_bundle
from flows.registry.models import find_version
from flows.stages.attempt import Attempt
from flows.training.initial import Meaning
from flows.training.initialise import FILE, initialise
from flows.training.origins import find_origin
from tests.support.commands import run_here
from tests.support.nnunet import architecture, dataset, plans, write_results
from tests.support.project import Project
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec

PLANS = plans((8, 8, 8), (1.0, 1.0, 1.0), architecture(3, channels=(4, 8)))
CONSUMER = """
import mlflow, nibabel, numpy
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[3])
labels = model.predict({"path": [sys.argv[4]]})[0]
limited = model.predict({"path": [sys.argv[4]]}, params={"memory_gb": 0.1})[0]
print(json.dumps({"shape": labels.shape, "values": numpy.unique(labels).tolist(),
                  "same": bool((labels == limited).all())}))
"""


def their_weights(seed: int) -> dict[str, Tensor]:
    """Weights of a plain network under nnU-Net's names."""
    torch.manual_seed(seed)
    ours = build_network(UNetSpec(channels=(4, 8)), 1, 3).state_dict()
    found = {}
    for name, tensor in ours.items():
        theirs = name.replace("decoder.heads.", "decoder.seg_layers.")
        if name.startswith("encoder.stages."):
            stage, rest = name.removeprefix("encoder.stages.").split(".", 1)
            theirs = f"encoder.stages.{stage}.0.{rest}"
        if name.startswith("decoder.upsamples."):
            theirs = name.replace("decoder.upsamples.", "decoder.transpconvs.").replace(".conv.", ".")
        found[theirs] = tensor
    return found


def test_results_of_nnunet_are_registered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = write_results(tmp_path / "results", PLANS, dataset(), [their_weights(0), their_weights(1)], (0, 1, 2))
    project = Project(tmp_path, "")
    imported = project.run("import", "nnunet", str(results), "--name", "theirs")
    assert imported == {"model_uri": "models:/theirs/1", "configuration": "3d_fullres", "folds": ["0", "1"]}
    assert project.run("import", "nnunet", str(results), "--name", "theirs") == imported
    one = project.run("import", "nnunet", str(results), "--name", "theirs", "--fold", "1")
    assert (one["model_uri"], one["folds"]) == ("models:/theirs/2", ["1"])

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.storage / 'mlflow.db'}")
    run_id = find_version(imported["model_uri"], str(project.storage)).tags["mlflow.run_id"]
    for uri in (imported["model_uri"], f"runs:/{run_id}/theirs"):
        check_start(project, uri, tmp_path / "start")

    image = np.random.default_rng(0).normal(size=(11, 9, 10)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, np.diag([1.0, 1.2, 0.9, 1.0])), tmp_path / "image.nii.gz")
    server = f"sqlite:///{project.storage / 'mlflow.db'}"
    answer = project.consume(CONSUMER, server, imported["model_uri"], str(tmp_path / "image.nii.gz"))
    assert answer["shape"] == [11, 9, 10]
    assert len(answer["values"]) > 1
    assert answer["same"]
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "image.nii.gz")), str(tmp_path / "other.nrrd"))
    told = project.run("predict", imported["model_uri"], f"{tmp_path}/*.n*", str(tmp_path / "out"), "--memory", "0.1")
    assert (told["num_predicted"], told["failures"]) == (2, {})
    assert nibabel.load(tmp_path / "out" / "image.nii.gz").shape == (11, 9, 10)
    nifti, nrrd = (SimpleITK.ReadImage(str(tmp_path / "out" / name)) for name in ("image.nii.gz", "other.nrrd"))
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayFromImage, (nifti, nrrd)))
    np.testing.assert_allclose(nifti.GetSpacing(), nrrd.GetSpacing(), rtol=1e-6)
    listed = run_here("models", "theirs", "--json", environment={"UNETFLOW_STORAGE": str(project.storage)}).out
    assert [version["aliases"] for version in json.loads(listed)] == [[], []], "nothing was compared"


def test_other_folders_are_refused(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", PLANS, dataset(), [their_weights(0)])
    told = run_here("import", "nnunet", str(results), "--fold", "3").message
    assert "there is no fold 3; there are 0" in told
    (results / "fold_0" / "checkpoint_final.pth").unlink()
    told = run_here("import", "nnunet", str(results)).message
    assert "there is no fold_*/checkpoint_final.pth" in told
    told = run_here("import", "monai", str(results)).message
    assert "monai is not read" in told


def check_start(project: Project, uri: str, folder: Path) -> None:
    """Start a training of two of the three classes from an imported model."""
    labels = Labels(names=("background", "liver"), values=((0,), (1,)))
    meaning = Meaning(classes=labels.output_names, made_for={"channels": ["image"]})
    config = SegmentationConfig.model_validate({"storage": str(project.storage)})
    origin = find_origin(config, uri, [], meaning, describe_bundle)
    assert origin is not None
    assert (origin.source, origin.member) == (uri, 0)
    spec = TrainSpec(patch_size=(8, 8, 8), model=UNetSpec(channels=(4, 8)))
    task = SegmentationTask(spec=spec, index_uri="", shards_uri="", num_channels=1, labels=labels)
    done = initialise(origin, task, meaning, Attempt(str(folder), "key", "attempt"))
    assert all(each.name.startswith("decoder.heads.") for each in done.reinitialised)
    taken = load_file(folder / "attempt" / FILE)
    first = {
        name: tensor for name, tensor in their_weights(0).items() if name == "encoder.stages.0.0.convs.0.conv.weight"
    }
    assert torch.equal(taken["encoder.stages.0.convs.0.conv.weight"], first.popitem()[1])
    assert any("the samples that the weights of" in remark for remark in done.remarks)
