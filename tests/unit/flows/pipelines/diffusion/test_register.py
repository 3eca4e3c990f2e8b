"""Registration of a text-to-image model: the code that it runs, its card, and what it is compared by."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.pipelines.diffusion import register
from flows.pipelines.diffusion.evaluate import GenerationScores
from flows.pipelines.diffusion.model import Trained
from flows.registry.candidate import Candidate
from flows.training.figures import TrainingFigures
from tests.support.diffusion import LATENTS, SHARDS, diffusion_config
from tests.support.records import finished

TRAINED = TrainingFigures(step=700, run_id=None, num_workers=2)


def candidate_of(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object] | None = None, **evaluate: object
) -> Candidate:
    """Return the candidate that the stage would register; ``changes`` are to the configuration."""
    found: list[Candidate] = []
    monkeypatch.setattr(register, "register_stage", lambda config, candidate, inputs: found.append(candidate))
    config = diffusion_config(registry={"name": "shapes"}, evaluate=evaluate, **(changes or {}))
    names = ("train_clip", "train_autoencoder", "train")
    clip, autoencoder, training = (finished(name, TRAINED, weights="w") for name in names)
    trained = Trained(finished("shard", SHARDS, index="i"), clip, autoencoder, finished("encode", LATENTS), training)
    scores = GenerationScores(metrics={"caption_accuracy": 0.75, "kid[clip,n=9]": 0.01}, num_images=9)
    register.register_model(config, trained, finished("evaluate", scores))
    return found[0]


def test_the_code_that_mlflow_runs_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidate_of(monkeypatch)
    assert candidate.code.is_file()
    assert "set_model(" in candidate.code.read_text()


def test_it_is_compared_in_the_space_of_its_extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = candidate_of(monkeypatch)
    assert own.default_metric == "frechet_distance"
    assert [record.stage for record in own.lineage] == [
        *("shard", "train_clip", "train_autoencoder", "encode", "train", "evaluate"),
    ]
    weights = tmp_path / "inception.pth"
    weights.write_bytes(b"weights")
    inception = candidate_of(monkeypatch, inception_weights=str(weights))
    assert inception.default_metric == "fid"
    others = [candidate_of(monkeypatch, num_images=9), candidate_of(monkeypatch, seed=1), inception]
    assert len({each.evaluation_data for each in [own, *others]}) == 4, "each would be another yardstick"
    for train in (
        {"model": {"context_dim": 128, "num_class_embeds": 4}},
        {"model": {"context_dim": 128, "in_channels": 9}, "image_condition": {"kind": "masked"}},
    ):
        other = candidate_of(monkeypatch, {"train": train, "data": {"layout": "shapes", "class_from": "shape"}})
        assert other.evaluation_data != own.evaluation_data, "it is asked for something else"
    weights.write_bytes(b"others")
    assert candidate_of(monkeypatch, inception_weights=str(weights)).evaluation_data != inception.evaluation_data


def test_the_card_says_what_it_is_how_good_and_how_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = candidate_of(monkeypatch).build_card()
    assert "Generates 32x32 images for prompts: a latent-diffusion model (unet, epsilon), trained for 700 steps" in card
    assert "on 20 images of shapes, cut to 32x32. Evaluated on 9 images" in card
    assert "| caption_accuracy | 0.7500 |" in card
    assert 'mlflow.pyfunc.load_model("models:/shapes@champion")' in card


def test_the_card_of_a_network_that_diffusers_lacks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"backbone": "dit", "width": 16, "num_heads": 2, "num_layers": 1}
    card = candidate_of(monkeypatch, {"train": {"model": model, "global_batch_size": 12}}).build_card()
    assert "a latent-diffusion model (dit, epsilon)" in card
    assert "diffusers does not load the artifact `bundle`: it has no network with the layers of backbone dit" in card
