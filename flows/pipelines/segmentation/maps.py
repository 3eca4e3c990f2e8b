"""Maps that a prediction leaves beside its label map: probabilities, uncertainty, disagreement of the members.

They are spooled to a file while the planes of the prediction pass by, and put together volume by volume: never are all
of them in memory.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from data_pipelines.volumes.files import is_turned, turned
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES, NIFTI_SUFFIXES, Geometry
from data_pipelines.volumes.formats.maps import write_map
from data_pipelines.volumes.preprocess import Preprocessing, crop_stored
from flows.pipelines.segmentation.bundle import Bundle

if TYPE_CHECKING:
    from torch import Tensor

    from data_pipelines.volumes.restore import Place

MapName = Literal["probabilities", "uncertainty", "disagreement"]
MAPS: tuple[MapName, ...] = ("probabilities", "uncertainty", "disagreement")
STEPS = 1 << 15
"""Steps of the values between 0 and 1: exact as float32, two bytes in the spool, and small when compressed."""


def map_path(output: str | Path, name: MapName) -> Path:
    """Return the file of a map beside a label map: ``case.nii.gz`` has ``case.NAME.nii.gz``, a picture ``.npy``.

    Label maps of other formats that hold a place have maps in NIfTI.
    """
    path = Path(output)
    suffix = next((each for each in NIFTI_SUFFIXES if path.name.lower().endswith(each)), path.suffix)
    stem = path.name[: len(path.name) - len(suffix)]
    if suffix.lower() not in NIFTI_SUFFIXES:
        suffix = ".npy" if suffix.lower() in IMAGE_SUFFIXES else ".nii.gz"
    return path.with_name(f"{stem}.{name}{suffix}")


def find_maps(num_networks: int, *, probabilities: bool = False, uncertainty: bool = False) -> tuple[MapName, ...]:
    """Return the maps that a model of so many networks leaves where these are asked for; disagreement takes several."""
    names: list[MapName] = ["probabilities"] if probabilities else []
    if uncertainty:
        names += ["uncertainty", "disagreement"] if num_networks > 1 else ["uncertainty"]
    return tuple(names)


class Maps:
    """Maps of one prediction."""

    def __init__(self, bundle: Bundle, names: Sequence[MapName], spool: IO[bytes]) -> None:
        self.bundle, self.names, self.spool = bundle, names, spool
        self.blocks: list[tuple[Place, tuple[int, ...], int]] = []
        """Place, shape (channels, *plane) and first byte of what was spooled."""

    def __call__(self, place: Place, outputs: Tensor) -> None:
        """Spool the maps of a plane of outputs (K, *plane): logits, and behind them any disagreement."""
        import torch

        from unet_models.sampling.probabilities import calibrated_probabilities, normalised_entropy

        labels = self.bundle.labels
        is_exclusive = not labels.regions
        logits = outputs[: labels.num_outputs]
        probabilities = calibrated_probabilities(logits, self.bundle.temperatures, is_exclusive=is_exclusive)
        found = {
            "probabilities": lambda: probabilities,
            "uncertainty": lambda: normalised_entropy(probabilities, is_exclusive=is_exclusive)[None],
            "disagreement": lambda: outputs[labels.num_outputs :],
        }
        values = torch.cat([found[name]() for name in self.names]).mul_(STEPS).round_().clamp_(0, STEPS)
        block = values.cpu().numpy().astype(np.uint16)
        self.blocks.append((place, block.shape, self.spool.tell()))
        self.spool.write(block.data)

    def planes(self) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield what was spooled, (channels, *plane) float32 in 0..1, in the order in which it came."""
        for place, shape, start in self.blocks:
            self.spool.seek(start)
            steps = np.frombuffer(self.spool.read(2 * int(np.prod(shape))), np.uint16).reshape(shape)
            yield place, steps / np.float32(STEPS)

    def channels(self, name: MapName) -> range:
        """Return the channels of a map in the spool."""
        first = 0
        for each in self.names:
            count = self.bundle.labels.num_outputs if each == "probabilities" else 1
            if each == name:
                return range(first, first + count)
            first += count
        raise KeyError(name)

    def volumes(self, name: MapName, done: Preprocessing) -> Iterator[np.ndarray]:
        """Yield a map, class by class (*stored) float32. What was cropped away is background, and certain."""
        channels = self.channels(name)
        for channel in channels:
            is_background = name == "probabilities" and channel == channels[0] and not self.bundle.labels.regions
            volume = np.full(done.stored_shape, float(is_background), np.float32, order="F")
            cropped = crop_stored(volume[None], done)[0]
            for place, (_, *plane), start in self.blocks:
                size = 2 * int(np.prod(plane))
                self.spool.seek(start + channel * size)
                steps = np.frombuffer(self.spool.read(size), np.uint16).reshape(plane)
                cropped[place] = steps / np.float32(STEPS)
            yield volume

    def arrays(self, done: Preprocessing, stored_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the maps by name: probabilities (*stored_shape, K), others (*stored_shape), as the label map has."""
        found = {name: [each.reshape(stored_shape) for each in self.volumes(name, done)] for name in self.names}
        return {str(name): np.stack(each, -1) if name == "probabilities" else each[0] for name, each in found.items()}

    def write(self, output: Path, done: Preprocessing, geometry: Geometry, stored_shape: tuple[int, ...]) -> list[Path]:
        """Write the maps beside the label map ``output``, whose shape is ``stored_shape``; return their paths."""
        is_other = is_turned(output.name, geometry)  # in the order of the label map
        if is_other:
            geometry, stored_shape = turned(output.name, geometry), (*stored_shape[1::-1], *stored_shape[2:])
        paths = [map_path(output, name) for name in self.names]
        for name, path in zip(self.names, paths, strict=True):
            shape = geometry.shape if path.suffix == ".npy" else stored_shape
            if name == "probabilities":
                missing = 0 if path.suffix == ".npy" else 3 - len(shape)  # classes are the fourth axis of NIfTI
                shape = (*shape, *(1,) * missing, len(self.channels(name)))
            volumes = self.volumes(name, done)
            write_map(path, (each.swapaxes(0, 1) for each in volumes) if is_other else volumes, shape, geometry)
        return paths


@contextmanager
def spooled_maps(bundle: Bundle, names: Sequence[MapName], folder: Path | None) -> Iterator[Maps]:
    """Yield maps that are spooled to a file in ``folder``, which nobody sees; None: to memory."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) if folder is not None else io.BytesIO() as spool:
        yield Maps(bundle, names, spool)
