"""Survey of a folder: what its headers say about all cases."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from flows.pipelines.segmentation.planning.survey import _is_flat


def write(root: Path, **depths: int) -> Path:
    """Write cases of so many slices."""
    for name, depth in depths.items():
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.zeros((4, 4, depth), np.uint8), np.eye(4)), root / folder / f"{name}.nii.gz")
    return root


@pytest.mark.parametrize(
    ("depths", "flat"),
    [
        ({"a": 1, "b": 5, "c": 5}, False),  # a single slice among volumes
        ({"a": 5, "b": 1, "c": 1}, True),
        ({"a": 1, "b": 5}, False),
    ],
)
def test_most_cases_decide_between_images_and_volumes(tmp_path: Path, depths: dict[str, int], flat: bool) -> None:
    assert _is_flat(write(tmp_path, **depths)) is flat


def test_damaged_cases_have_no_say(tmp_path: Path) -> None:
    root = write(tmp_path, a=1, b=5, c=1, d=1)
    for name in "cd":
        (root / "images" / f"{name}.nii.gz").write_bytes(b"damaged")
    assert not _is_flat(root)
