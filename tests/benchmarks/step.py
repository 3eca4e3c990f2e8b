"""What a training step costs on a CPU: the optimizer, the allocator's settings, a second worker."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from data_pipelines.batches import VolumeBatch
from flows.training.worker import KEEP_FREED_MEMORY
from unet_models.networks.build import build_network
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec
from unet_models.training.fit import train_step, wrap_model
from unet_models.training.objectives import Segmentation
from unet_models.training.state import build_state

PATCH = (40, 56, 40)
MARGIN = 8
ROUNDS, NUM_SLOW, NUM_TIMED = 3, 4, 30
CASES: dict[str, tuple[str, dict[str, str], int]] = {
    "AdamW, freed memory returned to the kernel": ("adamw", {}, 1),
    "AdamW, freed memory kept": ("adamw", KEEP_FREED_MEMORY, 1),
    "Muon, freed memory kept": ("muon", KEEP_FREED_MEMORY, 1),
    "Muon, freed memory kept, two workers": ("muon", KEEP_FREED_MEMORY, 2),
}


def run(folder: Path) -> None:
    """Print the milliseconds of a step, augmentation included: one patch for each worker, which has one thread."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(ROUNDS):
        for place, (name, case) in enumerate(CASES.items()):
            times[name].append(_measure(folder / f"{number}-{place}", *case))
    print(f"\ntraining step, 16 channels, a patch of {PATCH} for each worker, bf16, one thread each")
    for name, found in times.items():
        print(f"  {name:<48}{statistics.median(found):>8.1f} ms", flush=True)


def _measure(meeting: Path, optimizer: str, variables: dict[str, str], num_workers: int) -> float:
    """Start the workers, which meet at a file; return the median of the first one's steps."""
    here, there = multiprocessing.Pipe()
    before = dict(os.environ)
    os.environ |= {**variables, "OMP_NUM_THREADS": "1"}
    start = multiprocessing.get_context("spawn").Process
    workers = [start(target=_work, args=(there, meeting, optimizer, rank, num_workers)) for rank in range(num_workers)]
    for worker in workers:
        worker.start()
    os.environ.clear()
    os.environ |= before
    found = float(here.recv())
    for worker in workers:
        worker.join()
    return found


def _work(connection: Connection, meeting: Path, optimizer: str, rank: int, num_workers: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=num_workers)
    spec = TrainSpec(
        patch_size=PATCH,
        global_batch_size=num_workers,
        num_steps=10**6,
        ema_decay=0.999,
        model=UNetSpec(channels=(16, 32, 64, 128), deep_supervision=1),
        optimizer=OptimizerSpec(name=optimizer),
    )
    state = build_state(build_network(spec.model, 1, 3), spec, torch.device("cpu"))
    model, objective = wrap_model(state.model, spec), Segmentation(spec)
    read = tuple(size + 2 * MARGIN for size in PATCH)
    images, masks = torch.randn(1, 1, *read), torch.randint(0, 3, (1, *read)).to(torch.uint8)
    times = []
    for step in range(NUM_SLOW + NUM_TIMED):
        started = time.perf_counter()
        train_step(model, state, objective, VolumeBatch(images, masks, (rank,), ("",), step), spec)
        times.append(1000 * (time.perf_counter() - started))
    if rank == 0:
        connection.send(statistics.median(times[NUM_SLOW:]))
    dist.destroy_process_group()
