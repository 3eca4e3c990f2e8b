"""Generated scenes: images in which a text and a sound together say which shape is meant.

Each image shows a dark and a bright disc, and a dark and a bright square, on noise. The text names a shape, the pitch
of the tone a brightness: low for dark, high for bright. The label is that one shape. Without the text, or without the
tone, one of two shapes has to be guessed; without the image, where it lies.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.atomic import atomic_folder
from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.modalities import SAMPLE_RATE

SCENE_VERSION = 1
"""Version of the generator; raise it whenever the same seed gives other scenes."""
SHAPES = ("disc", "square")
PITCHES_HZ = {"dark": (220.0, 440.0), "bright": (1760.0, 3520.0)}
"""Range of the tone of each brightness."""
LEVELS = {"dark": 60.0, "bright": 200.0}
BACKGROUND, NOISE = 128.0, 8.0
SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Scene:
    """One generated case."""

    image: np.ndarray
    """(size, size) uint8."""
    label: np.ndarray
    """(size, size) uint8, 1 on the shape that is meant."""
    text: str
    sound: np.ndarray
    """(T,) int16 at ``SAMPLE_RATE``."""


def write_scenes(folder: str | os.PathLike[str], num_cases: int, seed: int = 0, size: int = 32) -> Path:
    """Write scenes as a plain folder: images, masks, texts and sounds; all at once, or nothing."""
    from scipy.io import wavfile

    folder = Path(folder)
    with atomic_folder(folder) as temporary:
        for name in ("images", "masks", "texts", "sounds"):
            (temporary / name).mkdir(parents=True)
        for index in range(num_cases):
            scene, name = build_scene(seed, index, size), f"scene_{index:04d}"
            write_picture(temporary / "images" / f"{name}.png", scene.image)
            write_picture(temporary / "masks" / f"{name}.png", scene.label)
            (temporary / "texts" / f"{name}.txt").write_text(scene.text)
            wavfile.write(temporary / "sounds" / f"{name}.wav", SAMPLE_RATE, scene.sound)
    return folder


def build_scene(seed: int, index: int, size: int = 32) -> Scene:
    """Generate case ``index`` of the set ``seed``; it depends on these numbers only."""
    rng = np.random.default_rng([seed, index])
    image = rng.normal(BACKGROUND, NOISE, (size, size))
    quarters = rng.permutation(4)
    places = [(shape, brightness) for shape in SHAPES for brightness in LEVELS]
    meant = places[rng.integers(len(places))]
    label = np.zeros((size, size), np.uint8)
    for quarter, (shape, brightness) in zip(quarters, places, strict=True):
        mask = _draw(shape, int(quarter), size, rng)
        image[mask] = LEVELS[brightness] + rng.normal(0, NOISE, int(mask.sum()))
        label[mask & ((shape, brightness) == meant)] = 1
    sound = _tone(PITCHES_HZ[meant[1]], rng)
    return Scene(image.clip(0, 255).round().astype(np.uint8), label, f"the {meant[0]}", sound)


def _draw(shape: str, quarter: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a shape somewhere in a quarter of the image: (size, size) of booleans."""
    half = size // 2
    radius = rng.uniform(0.24, 0.34) * half
    centre = rng.uniform(radius, half - 1 - radius, 2) + np.array(divmod(quarter, 2)) * half
    rows, columns = np.abs(np.indices((size, size)) - centre[:, None, None])
    if shape == "disc":
        return np.asarray(np.hypot(rows, columns) <= radius)
    return np.asarray(np.maximum(rows, columns) <= radius * np.sqrt(np.pi) / 2)  # of the same area


def _tone(pitches: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Generate a tone of a random pitch and phase over noise, (T,) int16."""
    times = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = np.exp(rng.uniform(*np.log(pitches)))
    tone = np.sin(2 * np.pi * (pitch * times + rng.uniform()))
    noisy = 0.5 * tone + rng.normal(0, 0.05, len(times))
    return np.asarray((noisy.clip(-1, 1) * 32767).astype(np.int16))
