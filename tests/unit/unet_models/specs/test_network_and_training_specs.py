"""Configurations that cannot work are refused with the field and the remedy, and every field is documented."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from data_pipelines.specs import Spec
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.diffusion import Bundle, DiffusionSpec, ImageRequest, NoiseSpec, SampleSpec
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec
from unet_models.specs.loop import LoopSpec, OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import AugmentSpec, LossSpec, PredictSpec, TrainSpec
from unet_models.training.optimisation import learning_rate

SPECS: list[type[Spec]] = [
    *(UNetSpec, DenoisingUNetSpec, OptimizerSpec, LoopSpec, LossSpec, AugmentSpec, TrainSpec, PredictSpec),
    *(NoiseSpec, DiffusionSpec, ImageRequest, SampleSpec, Bundle, AutoencoderSpec, AlignmentSpec),
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_field_is_described(spec: type[Spec]) -> None:
    assert [name for name, field in spec.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": (32,)}, r"at least 2 stages, got \[32\]"),
        ({"channels": (4, 8, 16), "strides": (2,)}, "need 2 entries for 3 stages, got 1"),
        ({"channels": (4, 8, 16), "deep_supervision": 2}, "at most 1 coarser stages exist, got 2"),
        ({"kernel_size": 4}, "kernel_size: must be odd"),
        ({"channels": (4, 8), "kernel_size": (3, (1, 2, 3))}, "kernel_size: must be odd"),
        ({"channels": (4, 8), "kernel_size": (3, 3, 3)}, "kernel_size: need one value, or 2 for 2 stages, got 3"),
        ({"preset": "unet_2015", "kernel_size": (3,) * 5}, "valid convolutions need one kernel_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_convs": 0}, "num_convs"),
        ({"block": "dense"}, "block"),
        ({"channels": (0, 8)}, r"channels\.0"),
        ({"strides": (0, 2, 2)}, r"strides\.0"),
        ({"decoder": "fcn", "skip": "add", "decoder_block": "plain"}, "decoder fcn has no blocks; leave it out"),
        ({"chanels": (4, 8)}, "chanels"),
    ],
)
def test_networks_that_cannot_be_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_levels": (True,)}, "attention_levels: need one entry for each of the 4 levels, got 1"),
        ({"num_groups": 30}, r"channels: each must be divisible by num_groups \(30\).*got 320"),
    ],
)
def test_denoisers_that_cannot_be_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DenoisingUNetSpec(**fields)


@pytest.mark.parametrize("model", [{"strides": [[2, 2]] * 3}, {"kernel_size": [3, 3, 3, [1, 3]]}])
def test_entries_have_as_many_axes_as_the_data(model: dict[str, Any]) -> None:
    TrainSpec.model_validate({"patch_size": (16, 16), "model": model})
    with pytest.raises(ValidationError, match="each entry needs 3 numbers, one per spatial axis, got"):
        TrainSpec.model_validate({"patch_size": (16, 16, 16), "model": model})


@pytest.mark.parametrize(("channels", "groups"), [((64, 80), "32"), ((48, 64), "24"), ((1, 2), "0")])
def test_channels_of_an_autoencoder_are_multiples_of_its_groups(channels: tuple[int, ...], groups: str) -> None:
    assert AutoencoderSpec(channels=(48, 96)).num_groups == 24
    with pytest.raises(ValidationError, match=rf"at most 32 \({groups}\)"):
        AutoencoderSpec(channels=channels)


@pytest.mark.parametrize("terms", [{}, {"dice": 0.0}, {"dice": 1.0, "focal": -1.0}])
def test_a_loss_has_a_term_and_none_counts_backwards(terms: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="weights must be 0 or more, and one above 0"):
        LossSpec.model_validate({"terms": terms})


@pytest.mark.parametrize("values", [{"seed": -1}, {"optimizer": {"betas": (0.9, 1.0)}}])
def test_numbers_that_torch_would_refuse_in_the_worker(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoopSpec.model_validate(values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"select": "best", "validate_cases": 0}, "set validate_cases above 0"),
        ({"select": "best", "checkpoint_every_steps": 3, "validate_every_steps": 2}, r"\(3\) a multiple of .* \(2\)"),
    ],
)
def test_the_best_checkpoint_needs_validation(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LoopSpec(**fields)


def test_batch_dice_cannot_be_split_into_micro_batches() -> None:
    with pytest.raises(ValidationError, match=r"loss\.batch_dice .* micro_batch_size .* got micro_batch_size 1"):
        TrainSpec(loss=LossSpec(batch_dice=True), micro_batch_size=1)


def test_contrastive_batches_cannot_be_split_into_micro_batches() -> None:
    with pytest.raises(ValidationError, match="micro_batch_size"):
        AlignmentSpec(micro_batch_size=4)


def test_predicting_noise_at_pure_noise_is_refused() -> None:
    with pytest.raises(ValidationError, match="prediction_type"):
        NoiseSpec(zero_terminal_snr=True)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_loss_weights_of_zero_where_sampling_starts_are_refused(prediction_type: str) -> None:
    noise = NoiseSpec.model_validate({"zero_terminal_snr": True, "prediction_type": prediction_type})
    with pytest.raises(ValidationError, match=r"min_snr_gamma to null \(got 5\), or noise.zero_terminal_snr to false"):
        DiffusionSpec(noise=noise, min_snr_gamma=5.0)
    assert DiffusionSpec(noise=noise).noise == noise
    assert DiffusionSpec(noise=NoiseSpec(prediction_type="v_prediction"), min_snr_gamma=5.0).min_snr_gamma == 5


@pytest.mark.parametrize(
    "noise",
    [
        NoiseSpec(schedule="cosine"),
        NoiseSpec(num_timesteps=4000),
        NoiseSpec(schedule="linear", beta_end=0.04),
    ],
)
def test_predicting_noise_where_nothing_else_is_left_is_refused(noise: NoiseSpec) -> None:
    with pytest.raises(ValidationError, match="prediction_type to v_prediction or sample"):
        DiffusionSpec(noise=noise)
    assert DiffusionSpec(noise=noise.model_copy(update={"prediction_type": "v_prediction"})).noise.last_alpha < 1e-6


def test_the_published_schedules_may_predict_noise() -> None:
    for noise in (NoiseSpec(), NoiseSpec(schedule="linear", beta_start=1e-4, beta_end=0.02)):
        assert DiffusionSpec(noise=noise, min_snr_gamma=5.0).noise == noise


# --- Patches that grow -----------------------------------------------------------------------------------------------


def grown(patch: tuple[int, ...], growth: int, **model: Any) -> TrainSpec:
    return TrainSpec(patch_size=patch, patch_growth=growth, num_steps=10, model=UNetSpec(**model))


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        (grown((40, 56, 40), 4, channels=(4, 8, 16, 32)), [(16, 16, 16), (24, 32, 24), (32, 48, 32), (40, 56, 40)]),
        (grown((40, 56, 40), 1, channels=(4, 8, 16, 32)), [(40, 56, 40)]),
        (grown((1, 30), 2, channels=(4, 8), strides=((1, 2),)), [(1, 16), (1, 30)]),
        (grown((8, 8), 3, channels=(4, 8, 16)), [(8, 8)] * 3),
    ],
    ids=["four sizes", "one size", "slices", "too small to shrink"],
)
def test_patches_grow_to_the_whole_size(spec: TrainSpec, sizes: list[tuple[int, ...]]) -> None:
    assert list(spec.patch_sizes) == sizes


@pytest.mark.parametrize("growth", [1, 2, 3, 4, 7])
def test_every_step_has_a_patch_and_the_work_of_its_voxels(growth: int) -> None:
    spec = grown((32, 32), growth, channels=(4, 8))
    sizes = [spec.patch_at(step) for step in range(spec.num_steps)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == (32, 32)
    counts = [sizes.count(each) for each in spec.patch_sizes]
    assert max(counts) - min(counts) <= 1
    for first, last in [(0, 10), (3, 8), (9, 10), (4, 4)]:
        assert spec.work(first, last) == pytest.approx(sum(math.prod(size) / 32**2 for size in sizes[first:last]))


def test_patches_of_valid_convolutions_do_not_grow() -> None:
    with pytest.raises(ValidationError, match="patch_growth: valid convolutions fit few sizes"):
        TrainSpec(patch_size=(388, 388), patch_growth=2, model=UNetSpec(preset="unet_2015"))


@pytest.mark.parametrize(
    ("within", "num_steps", "warmup", "every"),
    [(600, 2000, 100, 200), (600, 10_000, 100, 500), (600, 300, 30, 30), (600, 5, 0, 1), (150, 300, 30, 150)],
)
def test_settings_are_cut_to_the_steps_that_fit(within: float, num_steps: int, warmup: int, every: int) -> None:
    """A warm-up of a tenth, a checkpoint after every tenth or every minute."""
    spec = LoopSpec(within=within, optimizer=OptimizerSpec(warmup_steps=100), checkpoint_every_steps=500)
    counted = spec.counted(num_steps)
    found = counted.num_steps, counted.optimizer.warmup_steps, counted.checkpoint_every_steps
    assert found == (num_steps, warmup, every)
    rates = [learning_rate(counted.optimizer, step, num_steps) for step in range(num_steps)]
    assert max(rates) == pytest.approx(spec.optimizer.learning_rate), "the peak is reached"
    assert rates[-1] < max(rates), "and left again"
    assert counted.counted(num_steps) == counted, "a resumed training has the same"


@pytest.mark.parametrize(("validate", "expected"), [(100, 200), (70, 140), (500, 500), (3000, 3000)])
def test_the_best_checkpoint_is_chosen_among_those_that_were_validated(validate: int, expected: int) -> None:
    every = max(validate, 600 // validate * validate)
    spec = LoopSpec(within=600, select="best", validate_every_steps=validate, checkpoint_every_steps=every)
    assert spec.counted(2000).checkpoint_every_steps == expected
