"""Files of several frames: each becomes an image, the file a clip; single images stay what they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.images.changes import DEEP
from data_pipelines.images.frames import split_frames
from data_pipelines.images.parts import PartReader
from data_pipelines.images.pictures import Picture, read_picture
from data_pipelines.images.sharding import Work, shard_one
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import ImageSpec
from data_pipelines.images.splits import split_examples

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def write_clip(path: Path, mode: str = "RGB", **options: object) -> Path:
    """Three frames of one colour each."""
    first, *others = [Image.new("RGB", (12, 8), colour).convert(mode) for colour in COLOURS]
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_every_frame_is_read_with_its_time(tmp_path: Path, name: str) -> None:
    options = {"duration": [40, 50, 60]} | ({"lossless": True} if name == "a.webp" else {})
    path = write_clip(tmp_path / name, **({} if name == "a.tiff" else options))
    frames = split_frames(path.read_bytes(), name, 100)
    assert [frame.milliseconds for frame in frames] == ([0, 0, 0] if name == "a.tiff" else [40, 50, 60])
    for frame, colour in zip(frames, COLOURS, strict=True):
        picture = read_picture(frame.encoded, name, ImageSpec())
        assert isinstance(picture, Picture)
        assert picture.pixels.shape == (8, 12, 3)
        assert (picture.pixels == colour).all()
        assert "first-frame" not in picture.changes


def test_colour_modes_without_a_png_and_a_single_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.tiff", "CMYK")
    pictures = [read_picture(f.encoded, "a", ImageSpec()) for f in split_frames(path.read_bytes(), "a", 100)]
    assert [picture.changes for picture in pictures if isinstance(picture, Picture)] == [("cmyk",)] * 3
    Image.new("RGB", (12, 8)).save(tmp_path / "b.jpg")
    data = (tmp_path / "b.jpg").read_bytes()
    assert [frame.encoded for frame in split_frames(data, "b", 100)] == [data], "not encoded again"


def test_what_pages_lose_is_known(tmp_path: Path) -> None:
    """Frames are PNG of 8 bits, or of 16 bits with black at 0: the file alone shows what they were."""
    deep = np.array([[[0, 300, 65535], [257, 514, 30000]]], np.uint16)
    grey = np.array([[0, 257 * 9, 65535]], np.uint16)
    pages: list[tuple[np.ndarray, str]] = [(deep, "rgb"), (grey, "miniswhite"), (deep.astype(np.uint8), "rgb")]
    with tifffile.TiffWriter(tmp_path / "a.tiff") as file:
        for pixels, photometric in pages:
            file.write(pixels, photometric=photometric)
    frames = split_frames((tmp_path / "a.tiff").read_bytes(), "a", 100)
    assert [frame.changes for frame in frames] == [(DEEP,), (DEEP,), ()]
    picture = read_picture(frames[1].encoded, "a", ImageSpec())
    assert isinstance(picture, Picture)
    assert picture.pixels[0, :, 0].tolist() == [255, 246, 0]

    examples = find_examples(ImageSpec(root=str(tmp_path), frames="all"), tmp_path / "unused").examples
    work = Work(uri=str(tmp_path / "s.tar"), examples=examples, digests=("1", "2", "3"), spec=ImageSpec(frames="all"))
    rows, problems = shard_one(work)
    assert ([row["changes"] for row in rows], problems) == ([[DEEP], [DEEP], []], [])


def test_a_file_of_frames_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.gif")
    write_clip(tmp_path / "b.gif")
    found = find_examples(ImageSpec(root=str(tmp_path), frames="all"), tmp_path / "unused").examples
    reader, reads = PartReader(1 << 20), []
    original = PartReader._read_file

    def recorded(self: PartReader, path: str, place: tuple[int, int] | None) -> bytes:
        reads.append(Path(path).name)
        return original(self, path, place)

    monkeypatch.setattr(PartReader, "_read_file", recorded)
    for example in found:
        reader.read(example)
    assert reads == ["a.gif", "b.gif"]


def test_a_file_with_a_page_that_cannot_be_used_is_read_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [Image.new("RGB", (40, 40)) for _ in range(2)]
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tiff", save_all=True, append_images=pages)
    found = find_examples(ImageSpec(root=str(tmp_path), frames="all"), tmp_path / "unused").examples
    reader, reads, original = PartReader(1 << 20, max_pixels=100), [], PartReader._read_file
    monkeypatch.setattr(PartReader, "_read_file", lambda *given: reads.append(given[1]) or original(*given))
    for example in found:
        with pytest.raises(DataError, match="more than the limit of 100"):
            reader.read(example)
    assert (len(found), len(reads)) == (3, 1)


def test_a_page_above_the_limit_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "TIFF", save_all=True, append_images=[Image.new("RGB", (40, 40))])
    with pytest.raises(DataError, match=r"frame 1.*40x40 = 1600 pixels, more than the limit of 100"):
        split_frames(buffer.getvalue(), "a.tiff", 100)


def test_frames_of_a_file_are_images_of_one_clip(tmp_path: Path) -> None:
    for name in ("b.gif", "c.gif"):
        write_clip(tmp_path / name)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "a.png")
    spec = ImageSpec(root=str(tmp_path), frames="all")
    found = find_examples(spec, tmp_path / "unused").examples
    ids = [example.example_id for example in found]
    assert ids == ["a", *(f"{name}.frame-{number:05d}" for name in "bc" for number in range(3))]
    assert found[3].where == f"{tmp_path / 'b.gif'}: frame 2"
    reader = PartReader(1 << 20)
    read = [np.asarray(Image.open(io.BytesIO(reader.read(example))).convert("RGB"))[0, 0] for example in found]
    assert np.array_equal(read, [(0, 0, 0), *COLOURS, *COLOURS])
    rows = [{"case_id": name} for name in ids]
    sides = split_examples(rows, spec.model_copy(update={"val_fraction": 0.5}))
    assert all(len({sides[f"{name}.frame-{number:05d}"] for number in range(3)}) == 1 for name in "bc")
    first = find_examples(spec.model_copy(update={"frames": "first"}), tmp_path / "unused").examples
    assert [example.example_id for example in first] == ["a", "b", "c"]


def test_what_cannot_be_read_counts_as_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a broken")
    (found,) = find_examples(ImageSpec(root=str(tmp_path), frames="all"), tmp_path / "unused").examples
    assert (found.example_id, found.frame) == ("a", None)
