"""Small nnU-Net folders for tests, and the ways in which one case of them can be broken.

ROOT/dataset.json, ROOT/imagesTr/NAME_0000.nii.gz, ROOT/labelsTr/NAME.nii.gz: 12x12x12 voxels of 1x1x2 mm, one channel,
the classes background, front (1) and back (2). Written with nibabel, not with the code under test.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (12, 12, 12)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
LABELS = {"background": 0, "front": 1, "back": 2}

# Byte offsets in a NIfTI-1 header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
_DIM = 40  # short[8]: number of axes, then their sizes
_PIXDIM = 76  # float[8]: handedness, then the spacings


def write_dataset(root: Path, *case_ids: str, labels: Any = LABELS) -> Path:
    """An nnU-Net folder with these good cases."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "labels": labels}))
    for case_id in case_ids:
        write_case(root, case_id)
    return root


def write_case(
    root: Path,
    case_id: str,
    image: np.ndarray | None = None,
    label: np.ndarray | None = None,
    label_affine: np.ndarray = AFFINE,
) -> None:
    """One case, good but for what is given."""
    write(image_path(root, case_id), image_of(case_id) if image is None else image)
    write(label_path(root, case_id), label_of() if label is None else label, label_affine)


def image_of(case_id: str) -> np.ndarray:
    """Noise that differs from case to case."""
    return np.random.default_rng(list(case_id.encode())).normal(100, 10, SHAPE).astype(np.float32)


def label_of() -> np.ndarray:
    """Two boxes, one per class."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:10, 2:6, 2:10], label[2:10, 6:10, 2:10] = 1, 2
    return label


def image_path(root: Path, case_id: str) -> Path:
    """Where the image of a case lies."""
    return root / "imagesTr" / f"{case_id}_0000.nii.gz"


def label_path(root: Path, case_id: str) -> Path:
    """Where the label of a case lies."""
    return root / "labelsTr" / f"{case_id}.nii.gz"


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Write one NIfTI file."""
    nib.save(nib.Nifti1Image(array, affine), path)


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# --- one fault each --------------------------------------------------------------------------------------------------


def _patch_header(path: Path, offset: int, layout: str, *values: float) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(gzip.compress(content, mtime=0))


def _drop_label(root: Path, case_id: str) -> None:
    write_case(root, case_id)
    label_path(root, case_id).unlink()


def _drop_image(root: Path, case_id: str) -> None:
    write_case(root, case_id)
    image_path(root, case_id).unlink()


def _store_image_twice(root: Path, case_id: str) -> None:
    write_case(root, case_id)
    write(root / "imagesTr" / f"{case_id}_0000.nii", image_of(case_id))


def _shift_label_shape(root: Path, case_id: str) -> None:
    write_case(root, case_id, label=label_of()[:, :, :11])


def _change_label_spacing(root: Path, case_id: str) -> None:
    write_case(root, case_id, label_affine=np.diag([1.0, 1.0, 3.0, 1.0]))


def _mirror_label(root: Path, case_id: str) -> None:
    write_case(root, case_id, label_affine=np.diag([-1.0, 1.0, 2.0, 1.0]))


def _undeclared_class(root: Path, case_id: str) -> None:
    label = label_of()
    label[0, 0, :3] = 7
    write_case(root, case_id, label=label)


def _black_and_white(root: Path, case_id: str) -> None:
    write_case(root, case_id, label=(label_of() > 0).astype(np.uint8) * 255)


def _fractions(root: Path, case_id: str) -> None:
    label = label_of().astype(np.float32)
    label[0, 0, :2] = 0.5
    write_case(root, case_id, label=label)


def _image_with(value: float, num_voxels: int) -> Callable[[Path, str], None]:
    def spoil(root: Path, case_id: str) -> None:
        image = image_of(case_id)
        image[5, 5, :num_voxels] = value
        write_case(root, case_id, image=image)

    return spoil


def _constant(root: Path, case_id: str) -> None:
    write_case(root, case_id, image=np.full(SHAPE, 7, np.int16))


def _image_spacing(value: float) -> Callable[[Path, str], None]:
    def spoil(root: Path, case_id: str) -> None:
        write_case(root, case_id)
        _patch_header(image_path(root, case_id), _PIXDIM + 4, "<f", value)

    return spoil


def _truncate(root: Path, case_id: str) -> None:
    write_case(root, case_id)
    cut(image_path(root, case_id))


def _promise_too_much(root: Path, case_id: str) -> None:
    write_case(root, case_id)
    _patch_header(image_path(root, case_id), _DIM, "<4h", 3, 2000, 2000, 2000)


def _fourth_axis(root: Path, case_id: str) -> None:
    image = image_of(case_id)
    write_case(root, case_id, image=np.stack([image, image + 1], axis=-1))


FAULTS: dict[str, Callable[[Path, str], None]] = {
    "no_label": _drop_label,
    "no_image": _drop_image,
    "twice": _store_image_twice,
    "other_shape": _shift_label_shape,
    "other_spacing": _change_label_spacing,
    "other_orientation": _mirror_label,
    "undeclared_class": _undeclared_class,
    "black_and_white": _black_and_white,
    "fractions": _fractions,
    "nan": _image_with(np.nan, 3),
    "infinite": _image_with(np.inf, 2),
    "constant": _constant,
    "zero_spacing": _image_spacing(0.0),
    "negative_spacing": _image_spacing(-1.0),
    "truncated": _truncate,
    "too_large": _promise_too_much,
    "four_axes": _fourth_axis,
}
"""Name of a fault, and what writes a case with it; one problem each."""
