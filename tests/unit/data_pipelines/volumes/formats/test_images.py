"""PNG, JPEG and TIFF as volumes: colours, classes, orientation, and broken files by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.volumes.files import read_geometry, read_num_channels, read_volume
from data_pipelines.volumes.formats.base import Geometry
from tests.support.volumes import LIMIT, rule_of


def test_grey_colour_and_transparent_images(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(colour).save(tmp_path / "colour.tif")
    Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 5000).save(tmp_path / "deep.png")
    Image.fromarray(grey % 2 == 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "grey.png", LIMIT).array, grey)
    np.testing.assert_array_equal(read_volume(tmp_path / "colour.tif", LIMIT).array, colour)
    np.testing.assert_array_equal(read_volume(tmp_path / "alpha.png", LIMIT).array, colour)
    np.testing.assert_array_equal(read_volume(tmp_path / "deep.png", LIMIT).array, grey.astype(np.uint16) * 5000)
    bits = read_volume(tmp_path / "bits.png", LIMIT)
    np.testing.assert_array_equal(bits.array, grey % 2)
    assert bits.array.dtype == np.uint8
    assert bits.geometry == read_geometry(tmp_path / "colour.tif", LIMIT) == Geometry((3, 4), (1.0, 1.0), None)
    assert [read_num_channels(tmp_path / n, LIMIT) for n in ("grey.png", "colour.tif", "alpha.png")] == [1, 3, 3]


def test_palette_is_colour_for_images_and_class_for_labels(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", LIMIT, label=True).array, indices)
    expected = [[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]]]
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", LIMIT).array, expected)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored right-hand side is the top: turn clockwise to see it upright
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    volume = read_volume(tmp_path / "a.png", LIMIT)
    np.testing.assert_array_equal(volume.array, [[4, 1], [5, 2], [6, 3]])
    assert volume.geometry == read_geometry(tmp_path / "a.png", LIMIT)


def test_broken_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "pages.tif", save_all=True, append_images=[image])
    assert rule_of(tmp_path / "pages.tif") == "several-pages"
    image.save(tmp_path / "a.png")
    assert rule_of(tmp_path / "a.png", max_voxels=64 * 64 - 1) == "too-large"
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    assert rule_of(tmp_path / "cut.png") == "unreadable"
    (tmp_path / "text.jpg").write_text("no image")
    assert rule_of(tmp_path / "text.jpg") == "unreadable"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert rule_of(tmp_path / "a.png") == "too-large"
