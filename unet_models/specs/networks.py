"""Configuration of the networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from data_pipelines.errors import ConfigError
from data_pipelines.specs import Spec
from unet_models.specs.presets import PRESETS

SAMPLE_RATE = 16_000
"""Samples per second of every sound, as shards hold it."""
SHORTEST_SECONDS = 0.025
"""Length of a frame of the spectrogram."""

Count = Annotated[int, Field(ge=1)]
Strides = tuple[tuple[int, ...], ...]
"""Downsampling factors of each axis between neighbouring stages, finest first."""
Skip = Literal["concat", "add", "gated", "gated_coarse", "none"]


def _names(folder: str) -> tuple[str, ...]:
    """Return the names of the files in a folder of the networks: a new file is a new choice."""
    files = (Path(__file__).parents[1] / "networks" / folder).glob("[!_]*.py")
    return tuple(sorted(path.stem for path in files))


BLOCKS, DECODERS = _names("blocks"), _names("decoders")

if TYPE_CHECKING:
    Block = str
    Decoder = str
    Preset = str
else:
    Block = Literal[BLOCKS]
    Decoder = Literal[DECODERS]
    Preset = Literal[tuple(PRESETS)]


class FusionSpec(Spec):
    """Further inputs of a segmentation network: a text, a sound, or both, which the coarsest features attend to."""

    text_bytes: int = Field(default=64, ge=0)
    """Bytes of UTF-8 that are read of each text; 0: no text."""
    sound_seconds: float = Field(default=1.0, ge=0)
    """Seconds that are read of each sound; 0: no sound."""
    width: int = Field(default=64, ge=8, multiple_of=8)
    """Width of the tokens of text and sound."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads; they divide ``width`` and the channels of the coarsest stage."""
    num_blocks: int = Field(default=1, ge=1)
    """Transformer blocks of the text encoder, and of the fusion."""
    num_mels: int = Field(default=40, ge=4)
    """Mel bands of the spectrogram."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Probability with which each modality, the image among them, is hidden from a training sample, so that each may
    be missing later; one is always left."""

    @model_validator(mode="after")
    def _check_modalities(self) -> Self:
        if not self.text_bytes and not self.sound_seconds:
            raise ValueError("fusion: set text_bytes or sound_seconds above 0, or leave fusion out")
        if 0 < self.sound_seconds < SHORTEST_SECONDS:
            raise ValueError(f"fusion: sound_seconds must be 0, or at least {SHORTEST_SECONDS}: one frame")
        if self.width % self.num_heads:
            raise ValueError(f"fusion: width ({self.width}) must be divisible by num_heads ({self.num_heads})")
        return self

    @property
    def num_samples(self) -> int:
        """Samples that are read of each sound."""
        return round(self.sound_seconds * SAMPLE_RATE)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all inputs: ``image``, then those of ``text`` and ``sound`` that are read."""
        read = {"text": self.text_bytes, "sound": self.num_samples}
        return ("image", *(name for name, length in read.items() if length))


class UNetSpec(Spec):
    """Architecture of a segmentation U-Net, ``unet_models.networks.unet.UNet``."""

    preset: Preset | None = None
    """Published network whose settings are the defaults of the other fields; docs/networks.md lists them. None: the
    defaults below, the U-Net that nnU-Net plans."""
    channels: tuple[Count, ...] = (32, 64, 128, 256)
    """Feature channels of each stage, full resolution first."""
    strides: tuple[Count | tuple[Count, ...], ...] | None = None
    """Downsampling factors between stages, one entry fewer than ``channels``; an entry is one factor for all axes, or
    one per axis. None: 2 on every axis."""
    num_blocks: Count | tuple[Count, ...] = 2
    """Blocks in each encoder stage: one number, or one per stage."""
    num_decoder_blocks: Count | tuple[Count, ...] = 2
    """Blocks in each decoder stage: one number, or one per stage, full resolution first. Decoder ``fcn`` has none, and
    reads neither this nor ``upsample``."""
    block: Block = "plain"
    """Block of the encoder's stages, a file of ``unet_models/networks/blocks``; docs/networks.md describes them."""
    decoder_block: Block | None = None
    """Block of the decoder's stages. None: that of the encoder."""
    kernel_size: Count | tuple[Count | tuple[Count, ...], ...] = 3
    """Size of the convolutions, odd: one number, or one entry per stage, which encoder and decoder share. An entry is
    one number for all axes, or one per axis: nnU-Net plans 1 along thick slices of the finer stages. MedNeXt has 3 or
    5."""
    padding: Literal["same", "valid"] = "same"
    """Padding of the convolutions: ``same`` pads with zeros, so that logits have the image's size. ``valid`` pads
    nothing, as in Ronneberger 2015: a patch is predicted from the voxels around it, too, mirrored beyond the image.
    It takes blocks ``plain`` or ``separable``, ``downsample: max_pool``, decoder ``unet`` and no deep supervision."""
    expansion: Count | tuple[Count, ...] = 4
    """Widening inside blocks ``inverted_residual`` (MobileNetV2 has 6) and ``mednext`` (2 to 8): one number, or one per
    stage, which encoder and decoder share."""
    groups: int = Field(default=4, ge=1)
    """Groups of the convolutions inside blocks ``shuffle``; fewer where they do not divide the channels."""
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    """Normalisation after each convolution. The statistics of ``batch`` are those of one forward pass of one worker:
    they depend on the number of workers, and on ``micro_batch_size``."""
    activation: Literal["leaky_relu", "relu", "gelu", "silu"] = "leaky_relu"
    """Activation function after each normalisation."""
    downsample: Literal["strided", "max_pool"] = "strided"
    """Downsampling between encoder stages: a strided first convolution (nnU-Net), or max pooling (Ronneberger 2015)."""
    upsample: Literal["transposed", "linear"] = "transposed"
    """Upsampling between decoder stages: a transposed convolution, or a 1x1 convolution followed by linear
    interpolation."""
    upsample_bias: bool = True
    """Add a bias to the transposed convolutions."""
    decoder: Decoder = "unet"
    """Decoder, a file of ``unet_models/networks/decoders``: ``unet``, ``nested`` (U-Net++) or ``fcn``."""
    skip: Skip | tuple[Skip, ...] = "concat"
    """Skip connections, one kind for all or one per decoder stage, full resolution first: encoder features are
    concatenated with the decoder's, added to them, weighted by an attention gate and then concatenated (at the skip's
    resolution, or as published at the coarser stage's: Oktay 2018), or not used. Decoder ``nested`` concatenates;
    ``fcn`` adds scores, or uses none."""
    deep_supervision: int = Field(default=0, ge=0)
    """Number of coarser decoder stages whose predictions also enter the training loss; 0: full resolution alone."""
    fusion: FusionSpec | None = None
    """Text and sound as further inputs (multimodal U-Net). None: images alone."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping a channel during training: after each activation of blocks ``plain``, ``residual`` and
    ``separable``, after the first one of ``residual_encoder``, at the end of others. 0: no dropout. The dropped
    channels depend on the number of workers."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, given: Any) -> Any:
        return (
            {**PRESETS[given["preset"]], **given}
            if isinstance(given, dict) and given.get("preset") in PRESETS
            else given
        )

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.channels) < 2:
            raise ValueError(f"channels: a U-Net needs at least 2 stages, got {list(self.channels)}")
        if self.strides is not None and len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"strides: need {len(self.channels) - 1} entries for {len(self.channels)} stages, "
                f"got {len(self.strides)}"
            )
        self._check_numbers()
        if self.fusion is not None and self.channels[-1] % self.fusion.num_heads:
            raise ValueError(
                f"fusion: num_heads ({self.fusion.num_heads}) must divide the last of channels ({self.channels[-1]})"
            )
        self._check_decoder()
        if self.padding == "valid":
            self._check_valid()
        if self.deep_supervision >= len(self.channels) - 1:
            raise ValueError(
                f"deep_supervision: at most {len(self.channels) - 2} coarser stages exist, got {self.deep_supervision}"
            )
        return self

    def strides_per_axis(self, ndim: int) -> Strides:
        """Return the strides for ``ndim`` axes. Raises ConfigError where an entry has another number of axes."""
        strides = self.strides or (2,) * (len(self.channels) - 1)
        return tuple(per_axis("strides", stride, ndim) for stride in strides)

    def check_axes(self, ndim: int) -> None:
        """Raise ConfigError where an entry of a field has another number of axes than ``ndim``."""
        self.strides_per_axis(ndim)
        for size in _each(self.kernel_size, len(self.channels)):
            per_axis("kernel_size", size, ndim)

    @property
    def encoder_blocks(self) -> tuple[int, ...]:
        """Blocks of each encoder stage, full resolution first."""
        return _each(self.num_blocks, len(self.channels))

    @property
    def decoder_blocks(self) -> tuple[int, ...]:
        """Blocks of each decoder stage, full resolution first."""
        return _each(self.num_decoder_blocks, len(self.channels) - 1)

    def at_stage(self, stage: int) -> UNetSpec:
        """Return the spec that blocks of a stage are built from; 0 is full resolution.

        Its ``expansion`` and ``kernel_size`` (a number, or one per axis) are those of the stage.
        """
        own = {name: _each(getattr(self, name), len(self.channels))[stage] for name in ("expansion", "kernel_size")}
        return self.model_copy(update=own)

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Skip connection of each decoder stage, full resolution first."""
        kinds: tuple[Skip, ...] = _each(self.skip, len(self.channels) - 1)
        return kinds

    def _check_numbers(self) -> None:
        stages = dict.fromkeys(("num_blocks", "expansion", "kernel_size"), len(self.channels))
        stages |= dict.fromkeys(("num_decoder_blocks", "skip"), len(self.channels) - 1)
        for name, number in stages.items():
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != number:
                raise ValueError(f"{name}: need one value, or {number} for {number} stages, got {len(value)}")
        if not all(size % 2 for entry in _each(self.kernel_size, 1) for size in _each(entry, 1)):
            raise ValueError(f"kernel_size: must be odd, so that the output keeps its size, got {self.kernel_size}")

    def _check_decoder(self) -> None:
        allowed = {"nested": {"concat"}, "fcn": {"add", "none"}}.get(self.decoder)
        if allowed is not None and not set(self.skips) <= allowed:
            raise ValueError(
                f"skip: decoder {self.decoder} takes {' or '.join(sorted(allowed))}, got {self.skip}; set "
                "skip, or another decoder"
            )
        if self.decoder == "fcn" and self.decoder_block is not None:
            raise ValueError("decoder_block: decoder fcn has no blocks; leave it out")
        if self.decoder == "fcn" and self.deep_supervision:
            raise ValueError("deep_supervision: decoder fcn has one output; set deep_supervision to 0")

    def _check_valid(self) -> None:
        wanted: dict[str, set[Any]] = {
            "block": {"plain", "separable"},
            "decoder_block": {None, "plain", "separable"},
            "downsample": {"max_pool"},
            "decoder": {"unet"},
            "deep_supervision": {0},
        }
        if not isinstance(self.kernel_size, int):
            raise ValueError(f"padding: valid convolutions need one kernel_size, got {self.kernel_size}")
        for name, allowed in wanted.items():
            if (value := getattr(self, name)) not in allowed:
                one_of = " or ".join(sorted(map(str, allowed - {None})))
                raise ValueError(f"padding: valid convolutions need {name}: {one_of}, got {value}; set it, or padding")


def per_axis(name: str, entry: Any, ndim: int) -> tuple[int, ...]:
    """Return an entry of a field for each of ``ndim`` axes. Raises ConfigError where it has another number of them."""
    sizes: tuple[int, ...] = _each(entry, ndim)
    if len(sizes) != ndim:
        raise ConfigError(f"{name}: each entry needs {ndim} numbers, one per spatial axis, got {list(sizes)}")
    return sizes


def _each(value: Any, number: int) -> Any:
    """Return one value for each of ``number`` stages."""
    return value if isinstance(value, tuple) else (value,) * number
