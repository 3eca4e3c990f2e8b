"""PNG, JPEG and TIFF as volumes: colours, classes, orientation, and broken files by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import read_geometry, read_num_channels, read_volume
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.formats.images import write_picture
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
    assert (
        bits.geometry
        == read_geometry(tmp_path / "colour.tif", LIMIT)
        == Geometry((3, 4), (1.0, 1.0), has_spacing=False)
    )
    assert [read_num_channels(tmp_path / n, LIMIT) for n in ("grey.png", "colour.tif", "alpha.png")] == [1, 3, 3]


def test_palette_is_colour_for_images_and_class_for_labels(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", LIMIT, label="values").array, indices)
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [np.arange(12, dtype=np.uint8), np.arange(36, dtype=np.uint8)])
@pytest.mark.parametrize(("name", "options"), [("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"}), ("a.png", {})])
def test_every_orientation_in_every_format(
    tmp_path: Path, orientation: int, stored: np.ndarray, name: str, options: dict[str, str]
) -> None:
    stored = stored.reshape((3, 4) if stored.size == 12 else (3, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **options)
    sideways = stored.swapaxes(0, 1)  # TIFF 6.0: where the stored row 0 and column 0 are shown
    upright = {
        1: stored,  # top, left
        2: stored[:, ::-1],  # top, right
        3: stored[::-1, ::-1],  # bottom, right
        4: stored[::-1],  # bottom, left
        5: sideways,  # left, top
        6: sideways[:, ::-1],  # right, top
        7: sideways[::-1, ::-1],  # right, bottom
        8: sideways[::-1],  # left, bottom
    }[orientation]
    volume = read_volume(tmp_path / name, LIMIT)
    np.testing.assert_array_equal(volume.array, upright)
    assert volume.orientation == orientation
    assert volume.geometry == read_geometry(tmp_path / name, LIMIT)


def test_broken_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "pages.png", save_all=True, append_images=[image.rotate(90)])
    assert rule_of(tmp_path / "pages.png") == "several-pages"
    image.save(tmp_path / "a.png")
    assert rule_of(tmp_path / "a.png", max_voxels=64 * 64 - 1) == "too-large"
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    assert rule_of(tmp_path / "cut.png") == "unreadable"
    (tmp_path / "text.jpg").write_text("no image")
    assert rule_of(tmp_path / "text.jpg") == "unreadable"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert rule_of(tmp_path / "a.png") == "too-large"


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {}), ("jpeg_inside.png", {"format": "JPEG"}), ("a.tif", {"compression": "jpeg"})],
)
def test_a_label_compressed_with_loss_is_refused(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / name, **options)
    with pytest.raises(DataError) as caught:
        read_volume(tmp_path / name, LIMIT, label="values")
    assert [problem.rule for problem in caught.value.problems] == ["lossy-label"]
    assert read_volume(tmp_path / name, LIMIT).array.shape == (16, 16)  # as an image it is read


def test_a_label_compressed_without_loss_is_read(tmp_path: Path) -> None:
    labels = np.eye(16, dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", LIMIT, label="values").array, labels)


def deep_colour_png(path: Path) -> None:
    """Write a PNG of one pixel with 16 bits per colour; Pillow cannot."""
    rows = b"\0" + bytes.fromhex("123456789abc")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_deep_colour_is_never_reduced(tmp_path: Path) -> None:
    deep_colour_png(tmp_path / "a.png")
    assert rule_of(tmp_path / "a.png") == "unsupported-mode"
    colours = np.array([[[0x1234, 0x5678, 0x9ABC]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", LIMIT).array, colours)


def test_more_than_256_classes_are_written_with_16_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 255, 256, 300]], np.int16)
    write_picture(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", LIMIT, label="values").array, labels)
