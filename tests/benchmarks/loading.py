"""Reading training samples from the same shards: small JPEGs and volume patches."""

from __future__ import annotations

import io
import itertools
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_pipelines.loading.loader import ImageSamples, StepBatches, VolumePatches, step_loader
from data_pipelines.loading.order import SampleOrder
from data_pipelines.shards.index import FOREGROUND, IMAGE, MASK, index_table, write_table
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.writer import npy_bytes, write_shard
from tests.benchmarks.timing import alternate, table

NUM_WORKERS = 2
NUM_IMAGES, IMAGE_BATCH = 20_000, 256
NUM_VOLUMES, PATCH_BATCH, PATCH = 96, 8, (40, 56, 40)
VOLUME = (96, 96, 96)
"""Larger than a patch, as CT and body MR are; Hippocampus volumes are read whole by everybody."""


def run(folder: Path) -> None:
    """Print both comparisons."""
    jpegs = write_jpegs(folder / "jpegs")
    rates = alternate({name: build() for name, build in _image_contenders(jpegs).items()})
    print(table(f"JPEGs of 32x32, {NUM_WORKERS} loader workers", "images/s", rates, "unetflow", ">= 2"), flush=True)
    volumes = write_volumes(folder / "volumes")
    rates = alternate({name: build() for name, build in _patch_contenders(volumes).items()}, rounds=3)
    title = f"patches of {PATCH} from volumes of {VOLUME}, {NUM_WORKERS} loader workers"
    print(table(title, "patches/s", rates, "unetflow", ">= 2"), flush=True)
    print(check_cost(jpegs, volumes), flush=True)


def check_cost(jpegs: Path, volumes: Path) -> str:
    """Compare the CPU time of the first reads of all samples, which check them, with that of later reads."""
    lines = ["CPU s to read all samples once, one process: first (checks each part), later"]
    for name, folder, build in (
        ("JPEGs", jpegs, ImageSamples),
        ("patches", volumes, lambda reader: VolumePatches(reader, PATCH, 0, PATCH_BATCH, 1 / 3)),
    ):
        passes = []
        for _ in range(3):
            reader = _open(folder)
            batches = StepBatches(_order(reader), build(reader), PATCH_BATCH)
            passes.append([_cpu_seconds(batches, number, reader.num_samples) for number in range(2)])
        first, later = np.min(passes, axis=0)
        megabytes = sum(path.stat().st_size for path in folder.glob("*.tar")) / 1e6
        lines.append(f"  {name} of {reader.num_samples} samples, {megabytes:.0f} MB: {first:.3f}, {later:.3f}")
    return "\n".join(lines)


def _cpu_seconds(batches: StepBatches, number: int, num_samples: int) -> float:
    started = time.process_time()
    steps = num_samples // PATCH_BATCH
    for step in range(number * steps, (number + 1) * steps):
        batches[step]
    return time.process_time() - started


def _open(folder: Path) -> ShardReader:
    return ShardReader.from_uri(str(folder / "index" / "index.parquet"), str(folder))


def write_jpegs(folder: Path) -> Path:
    """Shards of random-texture JPEGs and their index."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for shard in range(10):
        samples = []
        for i in range(NUM_IMAGES // 10):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            samples.append(({"key": f"{shard:02d}{i:05d}"}, {"jpg": buffer.getvalue()}))
        rows += write_shard(str(folder / f"{shard:02d}.tar"), samples)
    return _keep_index(folder, rows)


def write_volumes(folder: Path) -> Path:
    """Shards of volumes with masks, as sharding writes them."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *VOLUME)).astype(np.float32)
    mask = (image[0] > 1).astype(np.uint8)
    voxels = np.argwhere(mask)[::50]
    foreground = np.concatenate([np.ones((len(voxels), 1)), voxels], axis=1).astype(np.int16)
    parts = {IMAGE: npy_bytes(image), MASK: npy_bytes(mask), FOREGROUND: npy_bytes(foreground)}
    rows: list[dict[str, Any]] = []
    for shard in range(8):
        samples = [({"key": f"{shard}-{i:03d}"}, parts) for i in range(NUM_VOLUMES // 8)]
        rows += write_shard(str(folder / f"{shard}.tar"), samples)
    return _keep_index(folder, rows)


def _keep_index(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_table(str(folder / "index" / "index.parquet"), index_table(rows))
    return folder


def _order(reader: ShardReader) -> SampleOrder:
    return SampleOrder([np.flatnonzero(reader.shard_of == shard) for shard in np.unique(reader.shard_of)], seed=0)


def _image_contenders(folder: Path) -> dict[str, Callable[[], Callable[[], int]]]:
    shards = sorted(str(path) for path in folder.glob("*.tar"))

    def ours() -> Callable[[], int]:
        reader = _open(folder)
        batches = StepBatches(_order(reader), ImageSamples(reader), IMAGE_BATCH)
        return _stream(lambda: step_loader(batches, range(10**6), NUM_WORKERS), NUM_IMAGES, lambda b: len(b.keys))

    def by_webdataset() -> Callable[[], int]:
        import webdataset

        def epochs() -> Any:
            data = (
                webdataset.WebDataset(shards, shardshuffle=False, resampled=True)
                .shuffle(1000)
                .decode("rgb8")
                .to_tuple("jpg")  # a bare array would be collated row by row
            )
            return webdataset.WebLoader(data.batched(IMAGE_BATCH), batch_size=None, num_workers=NUM_WORKERS)

        return _stream(epochs, NUM_IMAGES, lambda batch: len(batch[0]))

    def by_ray() -> Callable[[], int]:
        import ray.data

        from flows.cluster.connection import connect_ray

        connect_ray()

        def epoch() -> int:  # its default decoder turns jpg into arrays
            data = ray.data.read_webdataset(shards)
            return sum(len(batch["jpg"]) for batch in data.iter_batches(batch_size=IMAGE_BATCH))

        return epoch

    def bare() -> Callable[[], int]:
        def epoch() -> int:
            count = 0
            for shard in shards:
                with tarfile.open(shard) as tar:
                    for member in tar:
                        stream = tar.extractfile(member)
                        assert stream is not None
                        np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB"))
                        count += 1
            return count

        return epoch

    return {
        "unetflow": ours,
        "webdataset WebLoader": by_webdataset,
        "Ray Data": by_ray,
        "tarfile + Pillow, one thread": bare,
    }


def _patch_contenders(folder: Path) -> dict[str, Callable[[], Callable[[], int]]]:
    shards = sorted(str(path) for path in folder.glob("*.tar"))

    def ours() -> Callable[[], int]:
        reader = _open(folder)
        patches = VolumePatches(reader, PATCH, 0, PATCH_BATCH, 1 / 3)
        batches = StepBatches(_order(reader), patches, PATCH_BATCH)
        return _stream(lambda: step_loader(batches, range(10**6), NUM_WORKERS), NUM_VOLUMES, len)

    def patch(sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        corner = [np.random.randint(n - p + 1) for n, p in zip(VOLUME, PATCH, strict=True)]
        inside = tuple(slice(c, c + p) for c, p in zip(corner, PATCH, strict=True))
        return sample[IMAGE][:, *inside].copy(), sample[MASK][inside].copy()

    def by_webdataset() -> Callable[[], int]:
        import webdataset

        def epochs() -> Any:
            data = (
                webdataset.WebDataset(shards, shardshuffle=False, resampled=True)
                .decode()
                .map(patch)
                .batched(PATCH_BATCH)
            )
            return webdataset.WebLoader(data, batch_size=None, num_workers=NUM_WORKERS)

        return _stream(epochs, NUM_VOLUMES, lambda batch: len(batch[0]))

    def by_ray() -> Callable[[], int]:
        import ray.data

        from flows.cluster.connection import connect_ray

        connect_ray()

        def cut_out(row: dict[str, Any]) -> dict[str, Any]:
            image, mask = patch(row)
            return {"image": image, "mask": mask}

        def epoch() -> int:
            data = ray.data.read_webdataset(shards).map(cut_out)
            return sum(len(batch["image"]) for batch in data.iter_batches(batch_size=PATCH_BATCH))

        return epoch

    def bare() -> Callable[[], int]:
        def epoch() -> int:
            count = 0
            for shard in shards:
                with tarfile.open(shard) as tar:
                    sample: dict[str, Any] = {}
                    for member in tar:
                        stream = tar.extractfile(member)
                        assert stream is not None
                        sample[member.name.split(".", 1)[1]] = np.load(io.BytesIO(stream.read()), allow_pickle=False)
                        if len(sample) == 3:
                            patch(sample)
                            sample, count = {}, count + 1
            return count

        return epoch

    return {
        "unetflow": ours,
        "webdataset WebLoader": by_webdataset,
        "Ray Data": by_ray,
        "tarfile + numpy, one thread": bare,
    }


def _stream(build: Callable[[], Any], units: int, size: Callable[[Any], int]) -> Callable[[], int]:
    """Take about ``units`` from an endless loader each time, its workers started and warm beforehand."""
    torch.set_num_threads(1)
    stream: Iterator[Any] = iter(build())
    for _ in itertools.islice(stream, 8):
        pass

    def take() -> int:
        count = 0
        while count < units:
            count += size(next(stream))
        return count

    return take
