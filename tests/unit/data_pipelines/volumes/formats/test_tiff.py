"""TIFF stacks and deep TIFF: axes, types, stated voxel sizes, and what is no single stack, by name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import read_geometry, read_num_channels, read_volume, source_files
from data_pipelines.volumes.formats.base import Geometry
from tests.support.volumes import LIMIT, rule_of

STACK = np.random.default_rng(0).integers(0, 60000, (5, 4, 7)).astype(np.uint16)  # (page, row, column)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.uint8, {}),
        (np.uint16, {"bigtiff": True}),
        (np.uint16, {"byteorder": ">", "compression": "zlib"}),
        (np.int16, {"imagej": True, "metadata": {"axes": "ZYX"}}),
        (np.float32, {"tile": (16, 16)}),
        (np.float64, {}),
        (np.uint32, {}),
    ],
)
def test_a_stack_is_a_volume(tmp_path: Path, dtype: type[Any], options: dict[str, Any]) -> None:
    stack = (STACK % 251).astype(dtype) if dtype == np.uint8 else (STACK // 2).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **options)
    volume = read_volume(tmp_path / "a.tif", LIMIT)
    np.testing.assert_array_equal(volume.array, stack.transpose(2, 1, 0))  # (column, row, page)
    assert volume.array.dtype == (np.float32 if dtype == np.float64 else dtype)
    assert volume.geometry == read_geometry(tmp_path / "a.tif", LIMIT)
    assert volume.geometry == Geometry((7, 4, 5), (1.0, 1.0, 1.0), has_spacing=False)
    assert [one.rule for one in volume.notices] == ["spacing-unstated"]
    assert read_num_channels(tmp_path / "a.tif", LIMIT) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32, np.int8])
def test_single_images_of_any_type(tmp_path: Path, dtype: type[Any]) -> None:
    image = (STACK[0] % 100).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image)
    volume = read_volume(tmp_path / "a.tif", LIMIT)
    np.testing.assert_array_equal(volume.array, image)  # (row, column), as of other pictures
    assert volume.geometry == Geometry((4, 7), (1.0, 1.0), has_spacing=False)


def test_pages_written_by_pillow(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in (STACK % 251).astype(np.uint8)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", LIMIT).array, (STACK % 251).transpose(2, 1, 0))


def test_channels_are_the_last_axis(tmp_path: Path) -> None:
    hyperstack = np.stack([STACK, STACK // 2], axis=1)  # (page, channel, row, column)
    tifffile.imwrite(tmp_path / "a.tif", hyperstack, imagej=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", LIMIT).array, hyperstack.transpose(3, 2, 0, 1))
    assert read_num_channels(tmp_path / "a.tif", LIMIT) == 2
    colours = np.stack([STACK[0]] * 4, axis=-1)
    tifffile.imwrite(tmp_path / "b.tif", colours, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif", LIMIT).array, colours[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_extra_samples_are_channels_unless_they_are_transparency(tmp_path: Path, dtype: type[Any]) -> None:
    image = np.arange(4 * 7 * 5).reshape(4, 7, 5).astype(dtype)
    for name, kind, extra, kept in [
        ("grey", "minisblack", [0, 0, 0, 0], [0, 1, 2, 3, 4]),
        ("infrared", "rgb", [0], [0, 1, 2, 3]),
        ("both", "rgb", [1, 0], [0, 1, 2, 4]),
        ("alpha", "rgb", [2], [0, 1, 2]),
        ("masked", "minisblack", [2], [0]),
    ]:
        stored = image[..., : len(extra) + (3 if kind == "rgb" else 1)]
        tifffile.imwrite(
            tmp_path / f"{name}.tif", stored, photometric=kind, planarconfig="contig", extrasamples=extra, metadata=None
        )
        expected = image[..., kept] if len(kept) > 1 else image[..., 0]
        np.testing.assert_array_equal(read_volume(tmp_path / f"{name}.tif", LIMIT).array, expected, name)
        assert read_num_channels(tmp_path / f"{name}.tif", LIMIT) == len(kept)


def test_low_values_that_are_white_are_inverted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="miniswhite")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif", LIMIT).array, 65535 - STACK.transpose(2, 1, 0))
    tifffile.imwrite(tmp_path / "b.tif", STACK[0], photometric="miniswhite")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif", LIMIT).array, 65535 - STACK[0])


def test_stated_voxel_sizes(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "imagej.tif",
        STACK,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"spacing": 3.0, "unit": "um", "axes": "ZYX"},
    )
    sizes = {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeZ": 3.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    for name in ("imagej.tif", "a.ome.tif"):
        volume = read_volume(tmp_path / name, LIMIT)
        np.testing.assert_allclose(volume.geometry.spacing, (0.00025, 0.0005, 0.003))
        assert volume.geometry.has_spacing
        assert volume.notices == ()


def test_what_is_no_single_stack(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as writer:
        writer.write(STACK[0], metadata=None)
        writer.write(STACK[0, :2], metadata=None)
    assert rule_of(tmp_path / "sizes.tif") == "several-pages"
    tifffile.imwrite(tmp_path / "time.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    assert rule_of(tmp_path / "time.tif") == "wrong-ndim"
    tifffile.imwrite(tmp_path / "large.tif", STACK)
    assert rule_of(tmp_path / "large.tif", max_voxels=139) == "too-large"
    tifffile.imwrite(tmp_path / "turned.tif", STACK, extratags=[(274, "H", 1, 6, True)])
    assert rule_of(tmp_path / "turned.tif") == "exif-orientation"
    tifffile.imwrite(tmp_path / "complex.tif", STACK.astype(np.complex64), photometric="minisblack")
    assert rule_of(tmp_path / "complex.tif") == "bad-dtype"


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="the peers' imagecodecs decodes it")
def test_a_compression_without_decoder_names_the_package(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in (STACK % 251).astype(np.uint8)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert rule_of(tmp_path / "a.tif") == "missing-decoder"


@pytest.mark.parametrize("name", ["a_0000.tif", "a.tif"])
def test_the_spacing_of_nnunet_lies_beside_the_stack(tmp_path: Path, name: str) -> None:
    tifffile.imwrite(tmp_path / name, STACK, photometric="minisblack")
    assert source_files(tmp_path / name) == [tmp_path / name]
    (tmp_path / "a.json").write_text('{"spacing": [3, 2, 0.5]}')
    volume = read_volume(tmp_path / name, LIMIT)
    assert (volume.geometry.spacing, volume.notices) == ((0.5, 2.0, 3.0), ())
    assert source_files(tmp_path / name) == [tmp_path / name, tmp_path / "a.json"]
    for wrong in ('{"spacing": [1, 1]}', '{"spacing": "abc"}', "{", '{"spacing": [0, 1, 1]}'):
        (tmp_path / "a.json").write_text(wrong)
        with pytest.raises(DataError, match="bad-spacing"):
            read_volume(tmp_path / name, LIMIT)
    (tmp_path / "a.json").write_text('{"patient": 7}')  # about something else
    assert not read_volume(tmp_path / name, LIMIT).geometry.has_spacing
