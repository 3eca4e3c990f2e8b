"""Weights that ``train.init`` names: found in any of their forms, refused where they are of no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from data_pipelines import storage
from data_pipelines.errors import ConfigError, UserError, WeightsError
from data_pipelines.shards.index import index_table, write_table
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.train import describe_bundle as describe_images
from flows.pipelines.diffusion.train import train_stage
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.train import describe_bundle
from flows.registry.models import ModelVersion
from flows.stages.attempt import Attempt
from flows.stages.record import Record, write_record
from flows.training import origins, stage
from flows.training.figures import TrainingFigures
from flows.training.initial import Initialisation, Meaning, Origin
from flows.training.origins import check_bound, find_origin, identity_of, open_weights
from flows.training.provenance import write_trained_on
from tests.support.diffusion import LATENTS, diffusion_config
from tests.support.records import CountFigures, finished
from tests.support.training import SPEC, fresh
from unet_models.training.checkpoint import save_checkpoint

TRAINED = TrainingFigures(step=700, run_id=None, num_workers=2)
BOUND = {"encode.clip": "c", "encode.autoencoder": "a", "train.noise.schedule": "cosine"}
LABELS = {"names": ["background", "liver"], "values": [[0], [1]]}
OURS = Meaning(classes=("background", "liver"), made_for={"channels": ["CT"], "train.model.norm": "instance"})


def origin(**fields: Any) -> Origin:
    return Origin(source="m version 3", uri="", sha256="0" * 64, **fields)


@pytest.mark.parametrize("field", BOUND)
def test_what_differs_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.init: {field} is not what m version 3 was trained with"):
        check_bound(origin(meaning=Meaning(bound_to=BOUND | {field: "other"})), Meaning(bound_to=BOUND))


def test_all_that_differs_is_named_and_equals_pass() -> None:
    ours = Meaning(bound_to=BOUND)
    check_bound(origin(meaning=ours), ours)
    check_bound(origin(), ours)
    with pytest.raises(ConfigError, match=r"encode\.clip and encode\.autoencoder are not"):
        check_bound(origin(meaning=Meaning(bound_to=BOUND | {"encode.clip": "d", "encode.autoencoder": "b"})), ours)


def test_a_noise_predictor_is_bound_to_encoders_and_noise_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def find(config: object, wanted: str, inputs: object, meaning: Meaning, describe: object) -> None:
        asked.append(dict(meaning.bound_to))

    monkeypatch.setattr(stage, "find_origin", find)
    clips, autoencoders = ([finished(n, TRAINED, **{"model.safetensors": w}) for w in "xy"] for n in ("clip", "vae"))
    model = {"context_dim": 128, "channels": (32, 64), "attention_levels": (False, True)}
    train = {"model": model, "global_batch_size": 12, "init": "champion"}
    config = diffusion_config(train=train)
    linear = diffusion_config(train=train | {"noise": {"schedule": "linear"}})
    latents = finished("encode", LATENTS)
    for each, clip, autoencoder in (
        (config, clips[0], autoencoders[0]),
        (config, clips[1], autoencoders[0]),
        (config, clips[0], autoencoders[1]),
        (linear, clips[0], autoencoders[0]),
    ):
        train_stage(each, latents, clip, autoencoder)
    first = asked[0]
    differing = [[name for name in first if other[name] != first[name]] for other in asked[1:]]
    assert differing == [["encode.clip"], ["encode.autoencoder"], ["train.noise.schedule"]]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Record[Any]:
    rows = [{"case_id": case, "split": split} for case, split in (("a", "train"), ("b", "val"))]
    write_table(str(tmp_path / "index"), index_table(rows))
    return finished("shard", CountFigures(), uri=str(tmp_path), index="index")


def find(place: Path | str, index: Record[Any]) -> Origin:
    found = find_origin(SegmentationConfig(), str(place), [index], OURS, describe_bundle)
    assert found is not None
    return found


def write_weights(path: Path, value: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.full((2,), value)}, path)
    return path


def write_training(folder: Path, *cases: str, base: Initialisation | None = None, meaning: Meaning = OURS) -> Path:
    """Write the folder of a finished training on these cases."""
    rows = [{"case_id": case, "split": "train"} for case in cases]
    write_table(str(folder / "index"), index_table(rows))
    attempt = Attempt(str(folder), "key", "attempt")
    write_trained_on(attempt, str(folder / "index"))
    attempt.add("weights", str(write_weights(folder / "w.safetensors")))
    figures = TRAINED.model_copy(update={"meaning": meaning, "init": base})
    record = Record[TrainingFigures](
        stage="train", key="k" * 64, uri=str(folder), outputs=attempt.outputs, figures=figures, seconds=1
    )
    write_record(record)
    return folder


def test_a_file_of_weights_says_nothing_of_its_samples(tmp_path: Path, index: Record[Any]) -> None:
    path = write_weights(tmp_path / "any.safetensors")
    found = find(path, index)
    assert found == Origin(source=str(path), uri=str(path), sha256=storage.digest(str(path)), unknown_base=str(path))
    with open_weights(found) as opened:
        assert opened == path
    write_weights(path, 2.0)
    with pytest.raises(WeightsError, match="has changed since this training was planned"), open_weights(found):
        pass


def test_the_folder_of_a_model_says_its_classes(tmp_path: Path, index: Record[Any]) -> None:
    weights = write_weights(tmp_path / "model" / "model.safetensors")
    bundle = {"labels": LABELS, "channels": ["CT"], "num_members": 3, "model": {"norm": "instance"}}
    (weights.parent / "unetflow.json").write_text(json.dumps(bundle))
    for place in (weights.parent, weights):
        found = find(place, index)
        assert (found.uri, found.member, found.meaning) == (str(weights), 0, OURS)
    (weights.parent / "unetflow.json").write_text(json.dumps({"task": {}}))  # of another pipeline
    assert find(weights, index).meaning is None


def test_the_network_of_a_folder_of_diffusers(tmp_path: Path, index: Record[Any]) -> None:
    weights = write_weights(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert find(tmp_path, index).uri == find(weights.parent, index).uri == str(weights)


SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
"""As published with Stable Diffusion 1.5: without ``prediction_type``, which is diffusers' default."""


def write_pipeline(folder: Path, scheduler: dict[str, Any], vae: dict[str, Any]) -> Path:
    """Write a pipeline folder of diffusers; return its weights."""
    (folder / "model_index.json").write_text("{}")
    for name, content in (("scheduler/scheduler_config.json", scheduler), ("vae/config.json", vae)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return write_weights(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_a_pipeline_of_diffusers_says_noise_process_and_scale(tmp_path: Path, index: Record[Any]) -> None:
    config = diffusion_config()
    noise = {f"train.noise.{name}": value for name, value in config.train.noise.model_dump(mode="json").items()}
    scale = "scaling factor of the latents"

    def found(place: Path, **settings: Any) -> Origin | None:
        ours = Meaning(bound_to=noise | {"encode.clip": "c"} | settings, made_for={scale: "0.2"})
        return find_origin(DiffusionConfig(), str(place), [index], ours, describe_images)

    weights = write_pipeline(tmp_path, SCHEDULER, {"_class_name": "AutoencoderKL"})
    for place in (tmp_path, weights.parent, weights):
        read = found(place)
        assert read is not None
        assert (read.uri, read.meaning) == (str(weights), Meaning(bound_to=noise, made_for={scale: "0.18"}))
        with pytest.raises(
            ConfigError, match=r"train\.noise\.beta_end is not what .*, train\.noise\.beta_end=0\.012 \(for"
        ):
            found(place, **{"train.noise.beta_end": 0.02})
    write_pipeline(tmp_path, SCHEDULER | {"prediction_type": "v_prediction", "trained_betas": [0.1]}, {})
    with pytest.raises(ConfigError, match=r"train\.noise\.schedule and train\.noise\.prediction_type are not"):
        found(tmp_path)
    write_pipeline(tmp_path, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, {})
    with pytest.raises(ConfigError, match=r"train\.noise\.schedule is not .*=FlowMatchEulerDiscreteScheduler \("):
        found(tmp_path)
    write_pipeline(tmp_path, {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True}, {})
    other = {"train.noise.schedule": "cosine", "train.noise.zero_terminal_snr": True}
    read = found(tmp_path, **other)  # whose betas nobody reads
    assert read is not None
    assert read.meaning is not None
    assert read.meaning.made_for == {}, "there is no configuration of the autoencoder"
    assert find(tmp_path, index).meaning is None, "of another pipeline"


def test_a_checkpoint_is_verified(tmp_path: Path, index: Record[Any]) -> None:
    folder = tmp_path / "step-00000002"
    save_checkpoint(folder, fresh(SPEC), spec={}, curves=[], metrics={})
    assert find(folder, index).uri == str(folder / "model.safetensors")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"train\.init: .*step-00000002: model\.safetensors is damaged"):
        find(weights, index)


def test_a_finished_training_says_everything(tmp_path: Path, index: Record[Any]) -> None:
    found = find(write_training(tmp_path / "train", "a"), index)
    assert (found.meaning, found.unknown_base) == (OURS, "")
    assert found.trained_on.endswith("trained-on.parquet")
    assert found == find(tmp_path / "train" / "record.json", index)


def test_held_out_samples_may_not_have_shaped_the_weights(tmp_path: Path, index: Record[Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.init: .* was trained on 1 of 1 held-out samples \(b\)"):
        find(write_training(tmp_path / "train", "b"), index)


def test_unknown_samples_are_inherited(tmp_path: Path, index: Record[Any]) -> None:
    base = Initialisation(
        origin=origin(unknown_base="foreign"), num_taken=1, share=1.0, reinitialised=(), unused=(), remarks=()
    )
    assert find(write_training(tmp_path / "train", "a", base=base), index).unknown_base == "foreign"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("there.pth", r"there\.pth is no \.safetensors, and nothing else is read: a pickle may run code"),
        ("nothing", r"nothing holds no weights; name a \.safetensors file"),
        ("empty", r"empty/record\.json is not the record of a training of this version"),
    ],
)
def test_other_places_are_refused(place: str, said: str, tmp_path: Path, index: Record[Any]) -> None:
    (tmp_path / "there.pth").write_bytes(b"\x80\x04")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "record.json").write_text("{}")
    with pytest.raises(UserError, match=said):
        find(tmp_path / place, index)


def test_of_several_networks_the_one_that_has_not_seen_what_is_held_out(
    tmp_path: Path, index: Record[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an ensemble of folds, whose trainings are in this storage."""
    keys = {f"unetflow.train_{number}_key": str(number) * 64 for number in range(3)}
    for key, case in zip(keys.values(), "bac", strict=True):  # b is held out
        write_training(tmp_path / "train" / key, case)
    tags = dict(keys)
    version = ModelVersion(name="m", version="3", aliases=(), metrics={}, gate="", tags=tags)
    monkeypatch.setattr(origins, "find_version", lambda uri, root: version)
    config = SegmentationConfig(storage=str(tmp_path))
    found = find_origin(config, "models:/m/3", [index], OURS, describe_bundle)
    assert found is not None
    assert (Path(found.uri).parent.name, found.source) == ("1" * 64, "models:/m/3 (training kkkkkkkkkkkk)")
    for number in (1, 2):
        del tags[f"unetflow.train_{number}_key"]
    with pytest.raises(ConfigError, match=r"models:/m/3 was trained on 1 of 1 held-out samples \(b\)"):
        find_origin(config, "models:/m/3", [index], OURS, describe_bundle)


def test_of_networks_that_differ_one_of_the_same_architecture_is_preferred(
    tmp_path: Path, index: Record[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a pair, whose first candidate is another network, and of which fold 0 has seen what is held out."""
    other = OURS.model_copy(update={"made_for": {**OURS.made_for, "train.model.norm": "batch"}})
    networks = [("b", other), ("a", other), ("b", OURS), ("a", OURS)]
    tags = {f"unetflow.train_{number}_key": str(number) * 64 for number in range(len(networks))}
    for key, (case, meaning) in zip(tags.values(), networks, strict=True):
        write_training(tmp_path / "train" / key, case, meaning=meaning)
    version = ModelVersion(name="m", version="3", aliases=(), metrics={}, gate="", tags=tags)
    monkeypatch.setattr(origins, "find_version", lambda uri, root: version)
    found = find_origin(SegmentationConfig(storage=str(tmp_path)), "models:/m/3", [index], OURS, describe_bundle)
    assert found is not None
    assert Path(found.uri).parent.name == "3" * 64


def test_the_key_holds_the_content_and_not_the_name(tmp_path: Path, index: Record[Any]) -> None:
    def key(place: Path | str) -> str:
        config = SegmentationConfig.model_validate({"train": {"init": str(place)}})
        return stage.training_stage("train", config, config.train, (index,), lambda _: pytest.fail("trains")).key

    one, copy, other = (
        write_weights(tmp_path / f"{name}.safetensors", value) for name, value in zip("abc", (1, 1, 2), strict=True)
    )
    assert key(one) == key(copy)
    assert len({key(one), key(other), key("")}) == 3
    same, unlike = Meaning(classes=("Background", "liver ")), Meaning(classes=("liver", "background"))
    keeps = [identity_of(origin(meaning=each), OURS)["keeps_classes"] for each in (same, unlike, None)]
    assert keeps == [True, False, True]
