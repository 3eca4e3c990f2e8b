"""What a network takes of other weights is written for the workers; everything else is listed, and said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_pipelines import storage
from data_pipelines.errors import WeightsError
from data_pipelines.volumes.classes import Labels
from flows.pipelines.diffusion.task import DiffusionTask
from flows.pipelines.restoration.task import RestorationTask
from flows.pipelines.segmentation.task import SegmentationTask
from flows.stages.attempt import Attempt
from flows.training.initial import Initialisation, Meaning, Origin
from flows.training.initial_report import initial_section
from flows.training.initialise import FILE, initialise
from flows.training.task import TrainingTask
from flows.training.worker_start import load_initial
from tests.support.denoisers import small
from tests.support.pages import Page
from tests.support.reports import diffusion_report, segmentation_report
from tests.support.training import SPEC, fresh
from unet_models.networks.build import build_network
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.restoration import DenoisingSpec, RestorationSpec, SuperResolutionSpec

HEADS = {f"decoder.heads.{n}.{kind}" for n in (0, 1) for kind in ("weight", "bias")}
STEM = "encoder.stages.0.convs.0.conv.weight"
OURS = Meaning(classes=("background", "liver", "tumour"), made_for={"channels": ["CT"]})


def task(*classes: str, num_channels: int = 1) -> SegmentationTask:
    labels = Labels(names=classes, values=tuple((n,) for n in range(len(classes))))
    return SegmentationTask(spec=SPEC, index_uri="", shards_uri="", num_channels=num_channels, labels=labels)


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Weights of the tiny network for three classes, in a file."""
    found = {name: tensor.contiguous() for name, tensor in fresh(SPEC, seed=1).model.state_dict().items()}
    save_file(found, tmp_path / "w.safetensors")
    return found


def start(folder: Path, our_task: TrainingTask, ours: Meaning = OURS, **fields: Any) -> Initialisation:
    path = str(folder / "w.safetensors")
    origin = Origin(source="models:/m/3", uri=path, sha256=storage.digest(path), **fields)
    return initialise(origin, our_task, ours, Attempt(str(folder), "key", "attempt"))


def taken(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "attempt" / FILE)


def test_equal_classes_take_everything(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    done = start(tmp_path, task("background", "liver", "tumour"), meaning=OURS)
    assert (done.share, done.reinitialised, done.unused, done.remarks) == (1.0, (), (), ())
    model = build_network(SPEC.model, 1, 3, ndim=2)
    load_initial(model, str(tmp_path / "attempt" / FILE))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_heads_of_another_number_of_classes_are_listed(
    tmp_path: Path, weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    two = Meaning(classes=("background", "liver"))
    with caplog.at_level(logging.INFO):
        done = start(tmp_path, task("background", "liver"), two, meaning=OURS, unknown_base="models:/m/3")
    assert {each.name for each in done.reinitialised} == HEADS == weights.keys() - taken(tmp_path).keys()
    assert "decoder.heads.0.weight is re-initialised: 3x8x1x1 there, 2x8x1x1 here" in caplog.text
    assert f"{len(weights) - 4} of {len(weights)} tensors" in caplog.text
    assert "the samples that the weights of models:/m/3 were trained on are unknown" in caplog.text
    sections = {"a": Page(segmentation_report(init={"": done})), "b": Page(diffusion_report(init={"denoiser": done}))}
    for page in sections.values():
        shown = page.sections["section-initial-weights"]
        assert "models:/m/3" in shown
        assert all(name in shown for name in HEADS)
        assert "The samples that the weights of" in shown
    assert "section-initial-weights" not in Page(segmentation_report()).sections


def test_heads_of_as_many_other_classes_are_not_taken(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    swapped = Meaning(classes=("background", "tumour", "liver"), made_for={"channels": ["MR"]})
    done = start(tmp_path, task("background", "liver", "tumour"), meaning=swapped)
    reason = "its rows represent background, tumour, liver there but background, liver, tumour here"
    assert {each.name: each.reason for each in done.reinitialised} == dict.fromkeys(HEADS, reason)
    assert done.remarks == ("channels was MR, and is CT",)


def test_unknown_classes_are_taken_to_be_the_same_and_said(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    done = start(tmp_path, task("background", "liver", "tumour"))
    assert done.reinitialised == ()
    assert done.remarks == (
        "the classes that its rows represent are unknown: assumed to be the same where their number is",
    )


def test_another_number_of_channels_draws_the_stem_anew(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    done = start(tmp_path, task("background", "liver", "tumour", num_channels=2), meaning=OURS)
    assert [each.name for each in done.reinitialised] == [STEM]


def test_one_network_of_several(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    several = {f"members.{n}.{name}": tensor + n for n in (0, 1) for name, tensor in weights.items()}
    save_file(several, tmp_path / "w.safetensors")
    done = start(tmp_path, task("background", "liver", "tumour"), meaning=OURS, member=1)
    assert all(torch.equal(tensor, weights[name] + 1) for name, tensor in taken(tmp_path).items())
    assert (done.share, done.remarks) == (1.0, ("the file holds several networks: number 1 is taken",))


def test_broken_and_foreign_weights_are_errors(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights | {STEM: torch.full_like(weights[STEM], torch.inf)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=rf"train\.init: models:/m/3: 1 weights hold NaN or infinity: {STEM}"):
        start(tmp_path, task("background", "liver", "tumour"))
    save_file({"conv1": torch.zeros(1)}, tmp_path / "w.safetensors")
    told = r"none of its 1 weights fits .*; channels was PET, and is CT; name weights .* or leave init out"
    with pytest.raises(WeightsError, match=told):
        start(tmp_path, task("background", "liver", "tumour"), meaning=Meaning(made_for={"channels": ["PET"]}))
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04 no safetensors")
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        start(tmp_path, task("background", "liver", "tumour"))
    assert not list((tmp_path / "attempt").glob("*")), "nothing half"


def save(folder: Path, our_task: TrainingTask) -> None:
    """Write the weights of a task's own network."""
    found = {name: tensor.contiguous() for name, tensor in our_task.build_model().state_dict().items()}
    save_file(found, folder / "w.safetensors")


def test_a_denoiser_of_other_classes_draws_their_embedding_anew(tmp_path: Path) -> None:
    spec = DiffusionSpec(model=small(num_class_embeds=3, in_channels=4, out_channels=4))
    denoiser = DiffusionTask(spec=spec, index_uri="", shards_uri="", scaling_factor=1, empty_prompt_uri="")
    save(tmp_path, denoiser)
    ours, theirs = (Meaning(classes=classes, bound_to={"encode.clip": "c"}) for classes in (("a", "b"), ("b", "a")))
    assert start(tmp_path, denoiser, ours, meaning=ours).reinitialised == ()
    done = start(tmp_path, denoiser, ours, meaning=theirs.model_copy(update={"bound_to": {}}))
    assert [each.name for each in done.reinitialised] == ["class_embedding.weight"]
    assert done.remarks == ("the encode.clip that it was made for is unknown: assumed to be the same",)


def test_a_restorer_may_start_from_another_task(tmp_path: Path) -> None:
    model = UNetSpec(channels=(4, 8), norm="none", deep_supervision=0)
    spec = RestorationSpec(model=model, patch_size=16)
    tasks = [
        RestorationTask(spec=spec, index_uri="", shards_uri="", task=each, tile=None, degradation_seed=0)
        for each in (DenoisingSpec(), SuperResolutionSpec())
    ]
    save(tmp_path, tasks[0])
    meanings = [Meaning(made_for={"task.name": each.task.name}) for each in tasks]
    done = start(tmp_path, tasks[1], meanings[1], meaning=meanings[0])
    heads = {f"restorer.network.decoder.heads.0.{kind}" for kind in ("weight", "bias")}
    assert {each.name for each in done.reinitialised} == heads, "of as many outputs as the task has"
    assert done.remarks == ("task.name was denoising, and is super_resolution",)


def test_a_section_names_each_training(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    done = start(tmp_path, task("background", "liver", "tumour"), meaning=OURS)
    section = initial_section({"fold 0": done, "fold 1": done})
    assert [block.items[0].key for block in section.blocks] == ["fold 0: start", "fold 1: start"]  # type: ignore[union-attr]
