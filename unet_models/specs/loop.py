"""Configuration shared by every training: the loop, the optimizer, validation and checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data_pipelines.specs import Duration, Spec, absolute_place

FROM_CHAMPION = "champion"
FROM_REGISTRY = ("models:/", "runs:/")
"""Beginnings of the URIs of models in the registry."""


def _absolute_init(place: str) -> str:
    return place if place == FROM_CHAMPION or place.startswith(FROM_REGISTRY) else absolute_place(place)


InitialWeights = Annotated[str, AfterValidator(_absolute_init)]
"""Weights that a training starts from; paths become absolute when they are read."""


Beta = Annotated[float, Field(ge=0, lt=1)]
NUM_PARTS = 10
"""Parts of a training whose steps were counted: the warm-up takes one at most, and each ends with a checkpoint."""
CHECKPOINT_SECONDS = 60.0
"""Least time that such a part is meant to take."""


class OptimizerSpec(Spec):
    """Optimizer, learning rate and its schedule, which is a pure function of the step."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    """Optimizer: ``adamw`` (Loshchilov 2019), ``sgd`` with Nesterov momentum, or ``muon`` (Jordan 2024), which
    orthogonalises the steps of weights with 8 channels or more on both sides; its learning rates are those of
    ``adamw``, by which it updates all other weights."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate, reached at the end of the warm-up."""
    weight_decay: float = Field(default=3e-5, ge=0)
    """Weight decay per step, times the learning rate: decoupled, but for ``sgd`` an L2 penalty."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Nesterov momentum; read by ``sgd`` and ``muon``. None: 0.99 for ``sgd``, 0.95 for ``muon``."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay rates of the first and second moments; read by ``adamw`` and ``muon``."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Learning-rate schedule after the warm-up: ``poly`` is (1 - step/num_steps)^0.9 (nnU-Net), ``cosine`` falls to 0
    along half a cosine, ``constant`` keeps the peak."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps of linear warm-up before the schedule."""
    clip_norm: float | None = Field(default=12.0, gt=0)
    """Maximum L2 norm of the gradient over all parameters; larger gradients are scaled down to it. None: no
    clipping."""


class LoopSpec(Spec):
    """Settings of the training loop, whatever is trained."""

    global_batch_size: int = Field(default=2, ge=1)
    """Samples per optimizer step, over all workers together."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Maximum number of samples in one forward pass of a worker; a larger share is split and its gradients are
    accumulated, which changes nothing but rounding, where no normalisation is over the batch. None: no splitting."""
    num_steps: int = Field(default=1000, ge=1)
    """Optimizer steps of the whole training."""
    within: Duration | None = None
    """Wall time of the training, such as ``30m``, in seconds or as ``1h30m``; where it is set, ``num_steps`` is not
    used. The pace is measured before the training begins, for a minute or so at most, and sets the number of steps, so
    that the learning-rate schedule ends on time; the record holds the number, and ``num_steps`` of that value trains
    the same weights, with the same warm-up: one of more than a tenth of them is shortened, and said to be. A checkpoint
    comes after every tenth, or every minute, at least. None: ``num_steps`` steps, however long they take."""
    seed: int = Field(default=0, ge=0)
    """Random seed. Batch order and all random numbers are functions of (seed, step, position in the batch) alone."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """Optimizer and learning-rate schedule."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of the exponential moving average of the weights, which warms up with the steps; where it is
    set, the average is validated, evaluated and registered. None: no average."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Numeric precision of the forward pass. ``bf16`` runs convolutions and matrix products under autocast; weights,
    losses and sums stay in float32. ``auto``: ``bf16`` where every worker's hardware has instructions for it (GPUs
    since Ampere, CPUs with AMX or AVX-512 BF16), else ``fp32``, as those without emulate it many times slower. The
    console, the record and the MLflow run say which it was."""
    compile: bool = False
    """Compile the network with ``torch.compile``; worth its start-up time on a GPU."""
    channels_last: bool = True
    """Store tensors in channels-last memory format. Compiled for a GPU, a 3-D network was faster without it
    (docs/experiments.md)."""
    validate_every_steps: int = Field(default=500, ge=1)
    """Optimizer steps between validations; the last step is validated, too."""
    validate_cases: int = Field(default=16, ge=0)
    """Maximum number of validation cases, evenly spaced over the validation split, that each validation measures.
    0: no validation during training."""
    checkpoint_every_steps: int = Field(default=500, ge=1)
    """Optimizer steps between checkpoints: the most that a crash can lose. The last step is saved, too."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of checkpoints to keep: those with the best validation score (without validation, the newest), and
    always the newest one."""
    select: Literal["last", "best"] = "last"
    """Checkpoint that is evaluated and registered. ``best`` chooses by the validation score, so its figure on the
    validation split is optimistic."""
    log_every_steps: int = Field(default=20, ge=1)
    """Optimizer steps between log lines; logged metrics are means over the steps since the previous line."""

    def work(self, first: int, last: int) -> float:
        """Return the work of steps from ``first`` up to ``last``, exclusive; 1 is that of the very last step."""
        return float(last - first)

    def counted(self, num_steps: int) -> Self:
        """Return the settings with the number of steps that fits into ``within``.

        What was chosen before it was known is cut to fit. Checkpoints come after every tenth, or every minute: a crash
        before the first one has the pace measured again, and the time begins anew. With ``select: best`` they come with
        validations.
        """
        parts = min(NUM_PARTS, max(1, int((self.within or 0) // CHECKPOINT_SECONDS)))
        every = max(1, num_steps // parts)
        if self.select == "best":
            every = max(1, every // self.validate_every_steps) * self.validate_every_steps
        counted = self.with_num_steps(num_steps)
        return counted.model_copy(update={"checkpoint_every_steps": min(self.checkpoint_every_steps, every)})

    def with_num_steps(self, num_steps: int) -> Self:
        """Return the settings with another number of steps, of which the warm-up takes a tenth at most."""
        warmup = min(self.optimizer.warmup_steps, num_steps // NUM_PARTS)
        optimizer = self.optimizer.model_copy(update={"warmup_steps": warmup})
        return self.model_copy(update={"num_steps": num_steps, "optimizer": optimizer})

    @property
    def selection_remark(self) -> str:
        """Caution about scores of the selected checkpoint; empty where there is none."""
        if self.select == "last":
            return ""
        return (
            "The checkpoint was selected by its validation score, on the held-out data that the scores are of: they "
            "are optimistic (select: best)."
        )

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        if self.select == "best" and not self.validate_cases:
            raise ValueError("select: best needs validation; set validate_cases above 0")
        if self.select == "best" and self.checkpoint_every_steps % self.validate_every_steps:
            raise ValueError(
                f"select: best needs a validation at every checkpoint; make checkpoint_every_steps "
                f"({self.checkpoint_every_steps}) a multiple of validate_every_steps ({self.validate_every_steps})"
            )
        return self


class ModelTrainSpec(LoopSpec):
    """Settings of a training whose result is registered."""

    init: InitialWeights = ""
    """Initial weights: ``champion`` starts from the registered champion where there is one (for a data set that grows
    from night to night); a path or URI starts from weights of a safetensors file, a checkpoint, a finished training or
    a model's folder; ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``runs:/ID/NAME`` from a model of the
    registry. Weights that fit by name and shape are taken, others are re-initialised and listed. The empty default
    starts from random weights."""
