"""Configuration that every training has: the loop, the optimizer, checkpoints."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipelines.specs import Spec


class OptimizerSpec(Spec):
    """Optimizer, learning rate and its schedule, which is a pure function of the step."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=3e-5, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Nesterov momentum (``sgd``)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moment decay (``adamw``)."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """poly is (1 - step/num_steps)^0.9."""
    warmup_steps: int = Field(default=0, ge=0)
    """Linear warm-up before the schedule."""
    clip_norm: float | None = Field(default=12.0, gt=0)
    """Global gradient-norm clip; none: no clipping."""


class LoopSpec(Spec):
    """What every training has in common: the loop, whatever is trained."""

    global_batch_size: int = Field(default=2, ge=1)
    """Samples per optimizer step over all workers."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Most samples a worker holds at once; a larger share is accumulated. None: its whole share."""
    num_steps: int = Field(default=1000, ge=1)
    """Optimizer steps."""
    seed: int = 0
    """Batch order and all random numbers are functions of (seed, step, slot) alone."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """Optimizer and schedule."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Exponential moving average of the weights, with warm-up; the average is what is evaluated. None: off."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 runs convolutions under autocast; weights, losses and sums stay in float32."""
    compile: bool = False
    """torch.compile the network (worth it on a GPU)."""
    channels_last: bool = True
    """Channels-last memory, faster wherever it was measured here."""
    validate_every_steps: int = Field(default=500, ge=1)
    """Steps between validations."""
    validate_cases: int = Field(default=16, ge=0)
    """Validation cases looked at during training (evenly spaced over the split); 0: none."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Steps between checkpoints: the most that a crash can cost."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept, the best by validation (the last, where there is none), beside the newest."""
    select: Literal["last", "best"] = "last"
    """Which checkpoint is evaluated and registered. ``best`` looks at the validation split, so its figure flatters."""
    log_every_steps: int = Field(default=20, ge=1)
    """Steps between log lines; metrics are means over them."""

    @model_validator(mode="after")
    def _best_is_known(self) -> Self:
        if self.select == "best" and not self.validate_cases:
            raise ValueError("select: best needs validation; set validate_cases above 0")
        if self.select == "best" and self.checkpoint_every_steps % self.validate_every_steps:
            raise ValueError(
                f"select: best needs a validation at every checkpoint; make checkpoint_every_steps "
                f"({self.checkpoint_every_steps}) a multiple of validate_every_steps ({self.validate_every_steps})"
            )
        return self


class ModelTrainSpec(LoopSpec):
    """A training whose outcome is registered."""

    warm_start: Literal["", "champion"] = ""
    """Begin with the weights of the registered champion, where there is one, instead of random ones: for a data set
    that grows from night to night."""
