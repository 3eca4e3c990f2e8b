"""Generated volumes: a data set that needs no download, hard enough that a broken model cannot score on it.

Every case is a body (background) that holds three classes: a large ``liver``, a pair of ``kidney`` and one or two small
``lesion`` inside the liver. No class can be told by intensity alone: a smooth multiplicative bias field and a gain per
case move every intensity; lesions are as bright as the body around the liver; liver, kidney cortex and the unlabelled
``gut`` share theirs; the kidneys' core is as dark as a lesion. Position, shape and surroundings tell them apart.

Two-dimensional cases are the axial slice of each volume that holds most classes, and of these most foreground.

Pose, size, shape, spacing (about 1 x 1 x 2 mm) and the stored orientation of the axes differ from case to case.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.atomic import atomic_folder
from data_pipelines.errors import broken_rule
from data_pipelines.volumes.formats.nifti import write_nifti

PHANTOM_VERSION = 2
"""Version of the generator; raise it whenever the same seed gives other volumes."""
PHANTOM_CLASSES = {"background": 0, "liver": 1, "kidney": 2, "lesion": 3}
"""Class name to label value."""

_SIGNAL = {"air": 4.0, "body": 100.0, "liver": 128.0, "cortex": 130.0, "core": 102.0, "lesion": 100.0, "spine": 165.0}
"""Mean signal of each tissue before bias field, gain and noise; equal numbers are meant to be equal."""
_NOISE = 7.0
"""Standard deviation of either component of the complex noise, in units of the signal."""
_ORIENTATIONS = ("RAS", "RAS", "LPS", "LAS", "PIR")  # most scanners write one of these


@dataclass(frozen=True, slots=True)
class Phantom:
    """One generated case."""

    image: np.ndarray
    """(i, j, k) int16."""
    label: np.ndarray
    """(i, j, k) uint8, values of ``PHANTOM_CLASSES``."""
    affine: np.ndarray
    """(4, 4) voxel indices to mm, RAS+."""


def write_phantoms(folder: str | os.PathLike[str], num_cases: int, seed: int, ndim: int = 3) -> Path:
    """Write ``num_cases`` phantoms as an nnU-Net raw folder: the whole set appears at once, or nothing.

    With ``ndim`` 2 each case is one slice.

    A folder that holds the same set already is left as it is. Raises DataError where it holds anything else.
    """
    folder = Path(folder)
    marker = {"version": PHANTOM_VERSION, "num_cases": num_cases, "seed": seed} | ({"ndim": 2} if ndim == 2 else {})
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        with atomic_folder(folder) as temporary:
            _write_set(temporary, num_cases, seed, marker)
    _check_set(folder, marker)
    return folder


def _check_set(folder: Path, marker: dict[str, int]) -> None:
    """Raise DataError unless ``folder`` is this very set, complete."""
    try:
        found = json.loads((folder / "dataset.json").read_text())["phantoms"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != marker:
        message = f"holds something else than the generated set {marker}"
        raise broken_rule("other-content", folder, message, "name another folder")
    ids = [_case_id(index) for index in range(marker["num_cases"])]
    missing = [path for i in ids for path in _case_paths(folder, i) if not path.is_file()]
    if missing:
        remedy = f"delete the folder {folder} and run again"
        raise broken_rule("incomplete-set", missing[0], "missing from the generated set", remedy)


def _write_set(folder: Path, num_cases: int, seed: int, marker: dict[str, int]) -> None:
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    build = build_slice if marker.get("ndim") == 2 else build_phantom
    for index in range(num_cases):
        phantom = build(seed, index)
        image_path, label_path = _case_paths(folder, _case_id(index))
        write_nifti(image_path, phantom.image, phantom.affine)
        write_nifti(label_path, phantom.label, phantom.affine)
    declared = {
        "name": "Phantoms",
        "description": "Generated volumes: liver, kidneys and lesions under a bias field",
        "licence": "generated, free to use",
        "channel_names": {"0": "MR"},
        "labels": PHANTOM_CLASSES,
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
        "phantoms": marker,
    }
    (folder / "dataset.json").write_text(json.dumps(declared, indent=1))


def _case_id(index: int) -> str:
    return f"phantom_{index:03d}"


def _case_paths(folder: Path, case_id: str) -> tuple[Path, Path]:
    return folder / "imagesTr" / f"{case_id}_0000.nii.gz", folder / "labelsTr" / f"{case_id}.nii.gz"


def build_phantom(seed: int, index: int) -> Phantom:
    """Generate case ``index`` of the set ``seed``; it depends on these two numbers only."""
    rng = np.random.default_rng([seed, index])
    image, label, affine = _acquired_volume(rng)
    return _stored(image, label, affine, str(rng.choice(_ORIENTATIONS)))


def build_slice(seed: int, index: int) -> Phantom:
    """Generate the slice (i, j, 1) of case ``index`` of the set ``seed`` that holds most classes, in RAS+ axes."""
    image, label, affine = _acquired_volume(np.random.default_rng([seed, index]))
    counts = [(len(np.unique(label[..., k])), int((label[..., k] > 0).sum()), -k) for k in range(label.shape[2])]
    chosen = slice(-max(counts)[2], 1 - max(counts)[2])
    moved = affine.copy()
    moved[:3, 3] += chosen.start * affine[:3, 2]
    return Phantom(image[..., chosen], label[..., chosen], moved)


def _acquired_volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw image and label (i, j, k) in RAS+ axes, and their affine."""
    shape = tuple(int(n) for n in rng.integers((37, 45, 30), (44, 52, 35)))
    spacing = np.array([*[rng.uniform(0.9, 1.1)] * 2, rng.uniform(1.7, 2.3)])
    centred = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    points = np.stack(np.meshgrid(*centred, indexing="ij"))  # (3, i, j, k) in mm
    label, signal = _draw_anatomy(_body_coordinates(points, rng), rng)
    image = _acquire(signal, points, rng)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = rng.uniform(-60, 60, 3) - spacing * np.array(shape) / 2
    return image, label, affine


def _body_coordinates(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map scanner mm (3, i, j, k) to mm in a body of standard size: shift, rotation, scale, smooth deformation."""
    angles = np.radians(rng.uniform(-12, 12, 3))
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        rotation = rotation @ turn
    scale = rng.uniform(0.88, 1.1) * rng.uniform(0.95, 1.05, 3)
    moved = np.tensordot(rotation, points - rng.uniform(-2, 2, (3, 1, 1, 1)), axes=1) / scale[:, None, None, None]
    return moved + _smooth_field(moved, rng, amplitude=1.2, wavelength=(25, 50), count=3)


def _smooth_field(
    points: np.ndarray, rng: np.random.Generator, amplitude: float, wavelength: tuple[float, float], count: int
) -> np.ndarray:
    """Draw a sum of random plane waves per component: (3, i, j, k), of the given amplitude and wavelengths in mm."""
    field = np.zeros_like(points)
    for component in range(3):
        for _ in range(count):
            direction = rng.normal(size=3)
            wave = direction / np.linalg.norm(direction) * 2 * np.pi / rng.uniform(*wavelength)
            phase = np.tensordot(wave, points, axes=1) + rng.uniform(0, 2 * np.pi)
            field[component] += amplitude / np.sqrt(count) * np.sin(phase)
    return field


def _ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Compute the squared distance from the centre in units of the radii, (i, j, k): below 1 is inside."""
    offset = (points - centre[:, None, None, None]) / radii[:, None, None, None]
    return np.einsum("aijk,aijk->ijk", offset, offset)


def _draw_anatomy(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw label and noiseless signal, both (i, j, k); later organs paint over earlier ones."""
    label = np.zeros(points.shape[1:], dtype=np.uint8)
    signal = np.full(label.shape, _SIGNAL["air"])
    body = _ellipsoid(points, np.zeros(3), np.array([16.5, 19.5, 27.0])) < 1
    signal[body] = _SIGNAL["body"]
    signal[body & (np.hypot(points[0], points[1] + 14) < 2.8)] = _SIGNAL["spine"]
    for _ in range(rng.integers(3, 6)):  # gut: as bright as liver and kidney, and no class
        centre = np.array([rng.uniform(-9, 9), rng.uniform(1, 12), rng.uniform(-19, -9)])
        signal[body & (_ellipsoid(points, centre, rng.uniform(1.8, 4.0, 3)) < 1)] = _SIGNAL["liver"]
    for side in (-1, 1):
        centre = np.array([side * 8.5, -6.5, -7.0]) + rng.uniform(-1.5, 1.5, 3)
        distance = _ellipsoid(points, centre, np.array([4.4, 5.2, 8.5]) * rng.uniform(0.85, 1.15, 3))
        label[body & (distance < 1)] = PHANTOM_CLASSES["kidney"]
        signal[body & (distance < 1)] = _SIGNAL["cortex"]
        signal[body & (distance < 0.2)] = _SIGNAL["core"]
    centre, radii = np.array([3.5, 2.0, 9.0]) + rng.uniform(-2, 2, 3), np.array([9.5, 11.0, 10.5])
    radii = radii * rng.uniform(0.85, 1.12, 3)
    liver = body & (_ellipsoid(points, centre, radii) < 1) & (label == 0)
    label[liver], signal[liver] = PHANTOM_CLASSES["liver"], _SIGNAL["liver"]
    for _ in range(rng.integers(1, 3)):
        direction = rng.normal(size=3)
        spot = centre + direction / np.linalg.norm(direction) * radii * rng.uniform(0.1, 0.55)
        lesion = liver & (_ellipsoid(points, spot, rng.uniform(3.0, 4.6) * rng.uniform(0.9, 1.1, 3)) < 1)
        label[lesion], signal[lesion] = PHANTOM_CLASSES["lesion"], _SIGNAL["lesion"]
    return label, signal


def _acquire(signal: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulate a scanner: partial volume, tissue texture, bias field, gain and noise; int16."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(signal, (0.5, 0.5, 0.35))
    texture = gaussian_filter(rng.normal(size=signal.shape), (1.5, 1.5, 0.8))
    textured = blurred * (1 + 0.05 * texture / texture.std())
    bias = _smooth_field(points, rng, amplitude=0.16, wavelength=(70, 140), count=2).sum(axis=0)
    received = textured * np.exp(bias) * rng.uniform(0.7, 1.4)
    noise = rng.normal(scale=_NOISE, size=(2, *signal.shape))
    magnitude = np.hypot(received + noise[0], noise[1])  # Rician, as magnitude images are
    return np.rint(magnitude * 4).astype(np.int16)


def _stored(image: np.ndarray, label: np.ndarray, affine: np.ndarray, orientation: str) -> Phantom:
    """Store the volume with its axes in another order and direction."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    moved = affine @ inv_ornt_aff(change, image.shape)
    stored = [np.ascontiguousarray(apply_orientation(array, change)) for array in (image, label)]
    return Phantom(stored[0], stored[1], moved)
