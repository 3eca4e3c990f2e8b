"""One training step against MONAI's DynUNet of the same shape: nnU-Net's plan for Hippocampus."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from data_pipelines.batches import VolumeBatch
from flows.training.worker import KEEP_FREED_MEMORY
from tests.benchmarks.timing import alternate, table
from unet_models.networks.build import build_network
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import AugmentSpec, TrainSpec
from unet_models.training.fit import train_step, wrap_model
from unet_models.training.objectives import Segmentation
from unet_models.training.state import build_state

PATCH = (40, 56, 40)
Make = Callable[[Tensor, Tensor], Callable[[], int]]
"""Builds what takes a training step on images and masks."""


def run(batch_size: int = 2) -> None:
    """Print steps per second of both, without augmentation, loss and optimizer included.

    Each has a process of its own: ours is set up as a worker of a training is, theirs as Python starts it, and once
    more as ours.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with (
        _process(_ours, batch_size, KEEP_FREED_MEMORY) as ours,
        _process(build_dynunet_step, batch_size, {}) as theirs,
        _process(build_dynunet_step, batch_size, KEEP_FREED_MEMORY) as alike,
    ):
        contenders = {"unetflow UNet": ours, "MONAI DynUNet": theirs, "MONAI DynUNet, freed memory kept": alike}
        for step in contenders.values():
            step()
        rates = alternate(contenders, rounds=9)
    title = f"training steps, 5.60 M parameters, batch {batch_size} of {PATCH}, bf16, {device}"
    print(table(title, "steps/s", rates, "unetflow UNet", ">= 1.25 (step time <= 0.8x)"), flush=True)


@contextmanager
def _process(make: Make, batch_size: int, variables: dict[str, str]) -> Iterator[Callable[[], int]]:
    """Start a process that trains, and yield what lets it take a step."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, make, batch_size), daemon=True)
    before = dict(os.environ)
    os.environ |= variables
    process.start()
    os.environ.clear()
    os.environ |= before

    def step() -> int:
        here.send(None)
        return int(here.recv())

    yield step
    process.terminate()
    process.join()


def _serve(connection: Connection, make: Make, batch_size: int) -> None:
    """Take a step whenever asked."""
    torch.set_num_threads(2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(batch_size, 1, *PATCH, device=device)
    step = make(images, torch.randint(0, 3, (batch_size, *PATCH), device=device))
    while True:
        connection.recv()
        connection.send(step())


def _ours(images: Tensor, masks: Tensor) -> Callable[[], int]:
    spec = TrainSpec(
        patch_size=PATCH,
        global_batch_size=len(images),
        num_steps=10**6,
        model=UNetSpec(preset="nnunet"),
        augment=AugmentSpec.nothing(),
        # On a CPU samples go one by one: a batch of one is normalised without copies (see InstanceNorm).
        micro_batch_size=None if images.is_cuda else 1,
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.01),
    )
    return build_step(spec, images, masks)


def build_step(spec: TrainSpec, images: Tensor, masks: Tensor) -> Callable[[], int]:
    """Build what takes a step of ours, as a worker of a training takes it; each ends with the loss on the CPU."""
    state = build_state(build_network(spec.model, 1, 3), spec, images.device)
    model, objective = wrap_model(state.model, spec), Segmentation(spec)
    positions = tuple(range(len(images)))
    batch = VolumeBatch(images, masks.to(torch.uint8), positions, tuple(map(str, positions)), 0)

    def step() -> int:
        train_step(model, state, objective, batch, spec).item()
        return 1

    return step


def build_dynunet_step(images: Tensor, masks: Tensor) -> Callable[[], int]:
    """As MONAI's dynunet_pipeline trains it: deep supervision on 3 outputs, DiceCE, SGD with Nesterov, clipping."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet

    network = DynUNet(
        3,
        1,
        3,
        [3] * 4,
        [1, 2, 2, 2],
        [2] * 3,
        filters=[32, 64, 128, 256],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=2,
    ).to(images.device)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    targets = masks.unsqueeze(1)

    def step() -> int:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            outputs = torch.unbind(network(images), dim=1)
        loss = sum((0.5**i * loss_function(o.float(), targets) for i, o in enumerate(outputs)), torch.zeros(()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        return 1

    return step
