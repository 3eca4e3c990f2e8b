"""What a user may say about latent diffusion: its networks, their training, and sampling. Light to import: no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from unet_models.specs import LoopSpec, ModelTrainSpec, Spec


class DenoiserSpec(Spec):
    """The noise predictor of latent diffusion. See ``unet_models.denoiser.Denoiser``."""

    in_channels: int = Field(default=4, ge=1)
    """Channels of the noisy latents, concatenated conditions included (9 for inpainting)."""
    out_channels: int = Field(default=4, ge=1)
    """Channels of the prediction."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Feature channels of each level, full resolution first."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Which levels have a transformer block after each residual block; the middle always has one."""
    num_res_blocks: int = Field(default=2, ge=1)
    """Residual blocks in each encoder level; each decoder level has one more."""
    num_heads: int = Field(default=8, ge=1)
    """Attention heads, on every level."""
    num_transformer_blocks: int = Field(default=1, ge=1)
    """Transformer blocks in each attention block."""
    context_dim: int | None = Field(default=768, ge=1)
    """Width of the text states that cross-attention reads; none: self-attention alone."""
    num_groups: int = Field(default=32, ge=1)
    """Groups of each group normalisation."""
    time_conditioning: Literal["additive", "film"] = "additive"
    """How the timestep enters a residual block: added, or as scale and shift (FiLM, Perez 2018)."""
    num_class_embeds: int | None = Field(default=None, ge=1)
    """Number of class labels that may be given beside the timestep; none: no class conditioning."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout inside residual blocks. What is dropped depends on how samples are spread over workers."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.attention_levels) != len(self.channels):
            raise ValueError(
                f"attention_levels: need one entry for each of the {len(self.channels)} levels, "
                f"got {len(self.attention_levels)}"
            )
        for width in self.channels:
            if width % self.num_groups or width % self.num_heads:
                raise ValueError(
                    f"channels: each must be divisible by num_groups ({self.num_groups}) and num_heads "
                    f"({self.num_heads}), got {width}"
                )
        return self


class NoiseSpec(Spec):
    """The diffusion process: how much noise each timestep carries, and what the network predicts."""

    schedule: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    """How beta grows: linearly (Ho 2020), its square root linearly (Rombach 2022), or cosine alphas (Nichol 2021)."""
    num_timesteps: int = Field(default=1000, ge=2)
    """Timesteps of training."""
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    """First beta (linear, scaled_linear)."""
    beta_end: float = Field(default=0.012, gt=0, lt=1)
    """Last beta (linear, scaled_linear)."""
    zero_terminal_snr: bool = False
    """Rescale betas so that the last timestep is pure noise (Lin 2023, algorithm 1)."""
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    """The noise, the clean latents, or the velocity (Salimans 2022)."""

    @model_validator(mode="after")
    def _terminal_step_can_be_predicted(self) -> Self:
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "zero_terminal_snr: at the last timestep there is nothing but noise, so predicting it (epsilon) says "
                "nothing of the image; set prediction_type to v_prediction or sample"
            )
        return self


class DiffusionSpec(ModelTrainSpec):
    """One training of a latent-diffusion U-Net."""

    model: DenoiserSpec = DenoiserSpec()
    """The network."""
    noise: NoiseSpec = NoiseSpec()
    """The diffusion process."""
    min_snr_gamma: float | None = Field(default=None, gt=0)
    """Bound of the signal-to-noise ratio in the loss weights (Hang 2023); none: every timestep weighs the same."""
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of samples that see the empty prompt instead of their caption, which guidance needs."""


class AutoencoderSpec(LoopSpec):
    """One training of the image autoencoder: reconstruction and a KL term that keeps latents near a normal."""

    channels: tuple[int, ...] = (32, 64, 64)
    """Feature channels of each level; each level but the last halves the sides."""
    num_res_blocks: int = Field(default=1, ge=1)
    """Residual blocks in each level."""
    latent_channels: int = Field(default=4, ge=1)
    """Channels of the latents."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Weight of the KL term, summed over the latent, beside the reconstruction error, summed over the image."""
    adversarial_weight: float = Field(default=0.0, ge=0)
    """Weight of fooling a discriminator of patches, which is trained along and makes edges sharper; 0: none."""
    adversarial_start: int = Field(default=0, ge=0)
    """Step from which the discriminator counts: until then there is little that looks like an image."""


class AlignmentSpec(LoopSpec):
    """One training of a small CLIP: a text tower and an image tower whose vectors agree (Radford 2021)."""

    vocab_size: int = Field(default=2048, ge=514)
    """Most tokens of the byte-pair vocabulary learnt from the captions."""
    num_tokens: int = Field(default=32, ge=4)
    """Length that every caption is cut or padded to, start and end marks included."""
    width: int = Field(default=128, ge=8)
    """Width of both towers, and of the text states that the U-Net reads."""
    num_layers: int = Field(default=3, ge=1)
    """Transformer layers of each tower."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads of each layer."""
    vector_size: int = Field(default=64, ge=2)
    """Dimension of the space in which text and images meet."""
    patch_pixels: int = Field(default=8, ge=1)
    """Side of the image tower's patches."""

    @model_validator(mode="after")
    def _pairs_meet(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"width ({self.width}) must be a multiple of num_heads ({self.num_heads})")
        if self.micro_batch_size is not None:
            raise ValueError(
                "micro_batch_size: every pair is compared with all others of the batch, which must not be split; "
                f"leave it out or lower global_batch_size, got {self.micro_batch_size}"
            )
        return self


class ImageRequest(Spec):
    """One image to be drawn."""

    prompt: str
    """What it shows."""
    seed: int
    """The same seed gives the same image."""
    guidance_scale: float
    """As ``SampleSpec.guidance_scale``."""
    negative_prompt: str = ""
    """What to stay away from."""
    width: int | None = Field(default=None, ge=1)
    """In pixels, a multiple of what the autoencoder shrinks sides by; none: as trained."""
    height: int | None = Field(default=None, ge=1)
    """As ``width``."""


class SampleSpec(Spec):
    """How images are drawn from a trained model."""

    sampler: Literal["ddpm", "ddim", "dpm_solver"] = "dpm_solver"
    """Ancestral (Ho 2020), deterministic (Song 2021), or DPM-Solver++ of second order (Lu 2022)."""
    num_inference_steps: int = Field(default=20, ge=1)
    """Network evaluations per image."""
    guidance_scale: float = Field(default=4.0, ge=1)
    """How far to go beyond the prediction with the prompt, away from the one without (Ho 2022); 1: no guidance."""
    batch_size: int = Field(default=32, ge=1)
    """Images drawn at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32 gives the same image on every machine up to rounding; bf16 is faster on a GPU."""


class Bundle(Spec):
    """What the networks of a text-to-image model must be accompanied by to be usable."""

    format: int = 1
    noise: NoiseSpec
    """The diffusion process."""
    sample: SampleSpec
    """What holds where a request says nothing else."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of an image's latents."""
    scaling_factor: float
    """What latents are multiplied by before the diffusion process."""
