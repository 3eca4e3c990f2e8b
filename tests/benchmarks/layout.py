"""One training step by memory format, normalisation and compilation; MONAI's DynUNet beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import product
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.training import PATCH, build_dynunet_step, build_step
from unet_models.networks.layers import InstanceNorm
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import AugmentSpec, TrainSpec

ON_GPU = torch.cuda.is_available()
BATCH = 9 if ON_GPU else 2
NUM_WARM, ROUNDS, STEPS = 3, 5, 6 if ON_GPU else 1
Step = Callable[[], object]


def _moments(self: InstanceNorm, x: Tensor) -> Tensor:
    """Normalise by ``var_mean``, which keeps the memory format at any batch."""
    wide, shape = x.float(), (1, -1, *[1] * (x.ndim - 2))
    variance, mean = torch.var_mean(wide, tuple(range(2, x.ndim)), correction=0, keepdim=True)
    scale = torch.rsqrt(variance + self.eps) * self.weight.view(shape)
    return ((wide - mean) * scale + self.bias.view(shape)).to(x.dtype)


def _by_sample(self: InstanceNorm, x: Tensor) -> Tensor:
    """Normalise sample by sample through ``batch_norm``, which keeps the memory format of each."""
    given = {"running_mean": None, "running_var": None, "weight": self.weight, "bias": self.bias}
    return torch.cat([F.batch_norm(sample, **given, training=True, eps=self.eps) for sample in x.split(1)])


NORMS = {"instance_norm": InstanceNorm.forward, "var_mean": _moments, "by sample": _by_sample}


def run() -> None:
    """Print milliseconds and, on a GPU, gigabytes of each; compiled ones on a GPU alone."""
    device = torch.device("cuda" if ON_GPU else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    images = torch.randn(BATCH, 1, *PATCH, device=device)
    masks = torch.randint(0, 3, (BATCH, *PATCH), device=device)
    precision = "bf16" if ON_GPU else "fp32"
    print(f"\ntraining step, 5.60 M parameters, {BATCH} patches of {PATCH}, {precision}, {device}")
    for is_compiled, name, is_last in product((False, True) if ON_GPU else (False,), NORMS, (True, False)):
        title = f"{'compiled' if is_compiled else 'eager'}, {'channels last' if is_last else 'contiguous'}, {name}"
        spec = _spec(precision, channels_last=is_last, compiled=is_compiled)
        with mock.patch.object(InstanceNorm, "forward", NORMS[name]):
            _report(title, build_step(spec, images, masks))
    _report("eager, channels last, instance_norm, Muon", build_step(_spec(precision, name="muon"), images, masks))
    if ON_GPU:  # which trains in bf16
        _report("MONAI DynUNet", build_dynunet_step(images, masks))


def _spec(precision: str, name: str = "sgd", *, channels_last: bool = True, compiled: bool = False) -> TrainSpec:
    optimizer = OptimizerSpec.model_validate({"name": name, "learning_rate": 0.01})
    settings = {"precision": precision, "channels_last": channels_last, "compile": compiled, "optimizer": optimizer}
    settings |= {"model": UNetSpec(preset="nnunet"), "augment": AugmentSpec.nothing(), "num_steps": 10**6}
    return TrainSpec.model_validate({"patch_size": PATCH, "global_batch_size": BATCH, **settings})


def _report(title: str, step: Step) -> None:
    for _ in range(NUM_WARM):
        step()
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    times = [_time(step) for _ in range(ROUNDS)]
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:>8.2f} GB" if ON_GPU else ""
    print(f"  {title:<48}{statistics.median(times):>8.1f} ms{memory}", flush=True)
    torch.compiler.reset()


def _time(step: Step) -> float:
    """Return the milliseconds of a step; each ends with the loss on the CPU."""
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return 1000 * (time.perf_counter() - started) / STEPS
