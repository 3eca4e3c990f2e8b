"""Phantoms: repeatable, complete or absent, and not to be solved by intensity alone."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes import phantoms
from data_pipelines.volumes.checks import check_case, check_dataset
from data_pipelines.volumes.phantoms import PHANTOM_CLASSES, Phantom, build_phantom, build_slice, write_phantoms
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec


@pytest.fixture(scope="module")
def sample() -> list[Phantom]:
    return [build_phantom(0, index) for index in range(40)]


def test_same_seed_and_index_give_the_same_case() -> None:
    first, second = build_phantom(7, 3), build_phantom(7, 3)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_array_equal(first.affine, second.affine)
    for other in (build_phantom(7, 4), build_phantom(8, 3)):
        assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


def test_every_case_shows_every_class_and_lesions_are_small(sample: list[Phantom]) -> None:
    counts = np.array([np.bincount(phantom.label.ravel(), minlength=4) for phantom in sample])
    assert counts.shape[1] == len(PHANTOM_CLASSES)
    assert counts[:, 1:].min() >= 20
    share = counts.sum(axis=0) / counts.sum()
    assert share[0] > 0.85
    assert share[1] > share[2] > share[3] > 0.0005


def test_slices_are_those_of_the_volume_where_most_classes_are(sample: list[Phantom]) -> None:
    for index, volume in enumerate(sample[:6]):
        canonical = nib.as_closest_canonical(nib.Nifti1Image(volume.image, volume.affine))
        found, image = build_slice(0, index), np.asarray(canonical.dataobj)
        (k,) = [k for k in range(image.shape[2]) if np.array_equal(image[..., k], found.image[..., 0])]
        labels = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(volume.label, volume.affine)).dataobj)
        assert len(np.unique(found.label)) == max(len(np.unique(labels[..., i])) for i in range(labels.shape[2]))
        np.testing.assert_array_equal(found.label[..., 0], labels[..., k])
        corner = canonical.affine @ [0, 0, k, 1]
        np.testing.assert_allclose(found.affine @ [0, 0, 0, 1], corner)


def test_sizes_spacings_and_orientations_vary(sample: list[Phantom]) -> None:
    canonical = [nib.as_closest_canonical(nib.Nifti1Image(phantom.image, phantom.affine)) for phantom in sample]
    shapes = np.array([image.shape for image in canonical])
    spacings = np.array([image.header.get_zooms() for image in canonical])
    assert ((shapes >= (37, 45, 30)) & (shapes < (44, 52, 35))).all()
    assert ((spacings >= (0.9, 0.9, 1.7)) & (spacings <= (1.1, 1.1, 2.3))).all()
    assert shapes.std(axis=0).min() > 0
    assert spacings.std(axis=0).min() > 0.02
    assert len({nib.aff2axcodes(phantom.affine) for phantom in sample}) >= 3


def test_anatomy_lies_in_the_same_place_whatever_the_stored_orientation(sample: list[Phantom]) -> None:
    """The liver is on one side and above the kidneys in mm, in every case: the affine tells the truth."""
    for phantom in sample:
        centre = {
            name: (phantom.affine @ [*np.argwhere(phantom.label == value).mean(axis=0), 1])[:3]
            for name, value in PHANTOM_CLASSES.items()
        }
        assert centre["liver"][2] - centre["kidney"][2] > 8
        assert centre["liver"][1] - centre["kidney"][1] > 2
        assert abs(centre["lesion"] - centre["liver"]).max() < 12


def best_interval_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """Highest Dice that any pair of thresholds reaches, chosen with the answer at hand."""
    edges = np.quantile(image[mask], [0, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 1])
    scores = [
        2 * (chosen & mask).sum() / (chosen.sum() + mask.sum())
        for low in edges
        for high in edges
        if low < high and (chosen := (image >= low) & (image <= high)).any()
    ]
    return max(scores)


def test_no_threshold_solves_any_class(sample: list[Phantom]) -> None:
    best = {
        name: float(np.mean([best_interval_dice(p.image, p.label == value) for p in sample[:12]]))
        for name, value in PHANTOM_CLASSES.items()
        if value > 0
    }
    assert best["liver"] < 0.6
    assert best["kidney"] < 0.4
    assert best["lesion"] < 0.1


def test_no_fixed_position_solves_any_class(sample: list[Phantom]) -> None:
    """Predicting from the average position alone, cases aligned at their centres."""
    size = (30, 40, 28)
    cropped = []
    for phantom in sample:
        label = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(phantom.label, phantom.affine)).dataobj)
        corner = [(n - m) // 2 for n, m in zip(label.shape, size, strict=True)]
        cropped.append(label[tuple(slice(c, c + m) for c, m in zip(corner, size, strict=True))])
    labels = np.stack(cropped)
    for value, limit in ((1, 0.75), (2, 0.6), (3, 0.4)):
        frequency = (labels == value).mean(axis=0)
        best = max(
            np.mean([2 * (guess & (mask == value)).sum() / (guess.sum() + (mask == value).sum()) for mask in labels])
            for threshold in (0.1, 0.2, 0.3, 0.4, 0.5)
            if (guess := frequency >= threshold).any()
        )
        assert best < limit, (value, best)


def test_the_set_passes_its_own_checks(tmp_path: Path) -> None:
    spec = DataSpec(layout="phantoms", num_phantoms=5)
    dataset = find_cases(spec, tmp_path)
    assert dataset.problems == ()
    assert dataset.labels.numbers == PHANTOM_CLASSES
    counts = {}
    for case in dataset.cases:
        checked = check_case(case, dataset, spec)
        counts[case.case_id] = np.bincount(checked.label.ravel(), minlength=4).tolist()
    check_dataset(dataset, counts)


def test_written_files_repeat_byte_for_byte(tmp_path: Path) -> None:
    first, second = write_phantoms(tmp_path / "a", 2, seed=1), write_phantoms(tmp_path / "b", 2, seed=1)
    names = sorted(path.relative_to(first) for path in first.rglob("*.gz"))
    assert len(names) == 4
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = phantoms.build_phantom

    def fail_at_the_third(seed: int, index: int) -> Phantom:
        if index == 2:
            raise OSError("disk full")
        return real(seed, index)

    monkeypatch.setattr(phantoms, "build_phantom", fail_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        write_phantoms(tmp_path / "set", 4, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="holds something else"):
        write_phantoms(tmp_path / "mine", 4, seed=0)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    (tmp_path / "empty").mkdir()
    assert (write_phantoms(tmp_path / "empty", 2, seed=0) / "dataset.json").is_file()
    with pytest.raises(DataError, match="holds something else"):
        write_phantoms(tmp_path / "empty", 3, seed=0)


def test_a_set_that_lost_a_file_is_named(tmp_path: Path) -> None:
    root = write_phantoms(tmp_path / "set", 2, seed=0)
    (root / "labelsTr" / "phantom_001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"(?s)phantom_001\.nii\.gz: missing .* delete the folder"):
        write_phantoms(root, 2, seed=0)


def test_the_faster_of_two_writers_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the same set while this one is still writing."""
    real = phantoms._write_set
    done: list[Path] = []

    def slow(folder: Path, *rest: object) -> None:
        real(folder, *rest)  # type: ignore[arg-type]
        if not done:
            done.append(folder)
            write_phantoms(tmp_path / "set", 2, seed=0)

    monkeypatch.setattr(phantoms, "_write_set", slow)
    root = write_phantoms(tmp_path / "set", 2, seed=0)
    assert json.loads((root / "dataset.json").read_text())["phantoms"]["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
