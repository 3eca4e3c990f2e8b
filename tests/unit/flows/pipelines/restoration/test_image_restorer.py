"""Files and arrays to restored images: shapes, checks, holes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from data_pipelines.errors import DataError, InputError, WeightsError
from data_pipelines.images.changes import CHANGES, DEEP
from data_pipelines.images.frames import split_frames
from flows.pipelines.restoration.clips import mean_change
from flows.pipelines.restoration.image_restorer import UNTIMED, Clip, ImageRestorer, write_png
from flows.registry.bundle import WEIGHTS, write_bundle
from unet_models.restoration.build import build_task
from unet_models.restoration.restorer import Restorer, TrainableRestorer
from unet_models.specs.networks import UNetSpec
from unet_models.specs.restoration import (
    DenoisingSpec,
    ImageBundle,
    InpaintingSpec,
    SuperResolutionSpec,
    TaskSpec,
    TileSpec,
)

MODEL = UNetSpec(channels=(4, 8), norm="none", num_blocks=1, num_decoder_blocks=1)


def restorer_in(folder: Path, task: TaskSpec, scale: float = 1.0, *, is_adversarial: bool = False) -> ImageRestorer:
    """A model folder as registration writes it, of weights that training would leave."""
    torch.manual_seed(0)
    trainable = TrainableRestorer(Restorer.build(MODEL, build_task(task)), is_adversarial=is_adversarial)
    tensors = {name: (tensor + 0.05) * scale for name, tensor in trainable.state_dict().items()}
    bundle = ImageBundle(
        task=task, model=MODEL, predict=TileSpec(tile=16), background=(255, 255, 255), max_pixels=1 << 20
    )
    write_bundle(folder, bundle)
    save_file(tensors, folder / WEIGHTS)
    return ImageRestorer.from_folder(folder, device="cpu")


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_any_size_in_files_and_arrays(tmp_path: Path) -> None:
    restorer = restorer_in(tmp_path, SuperResolutionSpec(), is_adversarial=True)
    image = pixels(21, 34, 3)
    restored = restorer.restore(image)
    assert (restored.shape, restored.dtype) == ((42, 68, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(restorer.restore_file(str(tmp_path / "a.png")), restored)
    assert restorer.restore_to_file(str(tmp_path / "a.png"), str(tmp_path / "new/b.png")).endswith("b.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new/b.png")), restored)
    grey = restorer.restore(image[..., 0])
    assert np.array_equal(grey, restorer.restore(np.repeat(image[..., :1], 3, axis=2)))
    with pytest.raises(InputError, match=r"must end in \.png"):
        restorer.restore_to_file(str(tmp_path / "a.png"), str(tmp_path / "b.jpg"))


def test_what_training_refuses_is_refused(tmp_path: Path) -> None:
    restorer = restorer_in(tmp_path, DenoisingSpec())
    with pytest.raises(InputError, match=r"expected \(height, width, 3\), .* got shape \(4, 5, 2\)"):
        restorer.restore(pixels(4, 5, 2))
    with pytest.raises(InputError, match=r"all are of 0\.\.1; multiply by 255"):
        restorer.restore(pixels(16, 16, 3) / 255)
    sixteen_bits = np.linspace(0, 65535, 768).reshape(16, 16, 3)
    for wrong in (sixteen_bits, sixteen_bits.astype(np.uint16), pixels(16, 16, 3) - 128.0):
        with pytest.raises(InputError, match=r"must be of 0\.\.255, got -?\d+ to \d+; of 16 bits divide by 257"):
            restorer.restore(wrong)
    with pytest.raises(InputError, match="must be finite"):
        restorer.restore(np.full((16, 16), np.nan))
    with pytest.raises(InputError, match="task denoising fills no holes"):
        restorer.restore(pixels(16, 16, 3), np.ones((16, 16)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match="header is damaged"):
        restorer.restore_file(str(tmp_path / "a.png"))
    frames = [Image.fromarray(pixels(16, 16, 3)), Image.fromarray(pixels(16, 18, 3))]
    frames[0].save(tmp_path / "pages.tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"pages\.tiff: its 2 pages differ in size"):
        restorer.restore_file(str(tmp_path / "pages.tiff"))
    with pytest.raises(DataError, match="file-missing"):
        restorer.restore_file(str(tmp_path / "nowhere.png"))
    Image.fromarray(pixels(1100, 1000, 3)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="more than the limit of 1048576"):
        restorer.restore_file(str(tmp_path / "large.png"))
    with pytest.raises(WeightsError, match="not finite"):
        restorer_in(tmp_path, DenoisingSpec(), scale=float("nan")).restore(pixels(16, 16, 3))


def test_every_frame_of_a_file_is_restored_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    restorer = restorer_in(tmp_path, DenoisingSpec())
    frames = [pixels(16, 20, 3), 255 - pixels(16, 20, 3), pixels(16, 20, 3) // 2]
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(tmp_path / "film.png", save_all=True, append_images=others, duration=[40, 50, 60])
    expected = np.stack([restorer.restore(frame) for frame in frames])
    assert np.array_equal(restorer.restore_file(str(tmp_path / "film.png")), expected)
    assert f"film.png: 3 frames; mean change from frame to frame {mean_change(expected):.2f} of 255" in caplog.text
    with Image.open(restorer.restore_to_file(str(tmp_path / "film.png"), str(tmp_path / "new.png"))) as written:
        for number, frame in enumerate(expected):
            written.seek(number)
            assert np.array_equal(np.asarray(written.convert("RGB")), frame)
            assert written.info["duration"] == (40, 50, 60)[number]


@pytest.mark.parametrize("order", ["aabbba", "aaa", "ab"])
def test_equal_neighbours_in_a_clip_are_frames_of_their_own(order: str, tmp_path: Path) -> None:
    images = {"a": pixels(16, 20, 3), "b": 255 - pixels(16, 20, 3)}
    clip = Clip([images[name] for name in order], [40.0, 50.0, 0.0, 60.0, 70.0, 80.0][: len(order)])
    path = write_png(clip, str(tmp_path / "film.png"))
    frames = split_frames(Path(path).read_bytes(), path, 1 << 20)
    assert [frame.milliseconds for frame in frames] == [shown or UNTIMED for shown in clip.milliseconds]
    for frame, expected in zip(frames, clip.frames, strict=True):
        with Image.open(io.BytesIO(frame.encoded)) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), expected)
            assert image.convert("RGBA").getextrema()[3] == (255, 255)


def test_a_mask_of_several_frames_is_refused(tmp_path: Path) -> None:
    restorer = restorer_in(tmp_path, InpaintingSpec())
    Image.fromarray(pixels(16, 20, 3)).save(tmp_path / "a.png")
    first, other = Image.new("L", (20, 16)), Image.new("L", (20, 16), 255)
    first.save(tmp_path / "mask.gif", save_all=True, append_images=[other])
    with pytest.raises(InputError, match=r"mask\.gif: holds several frames or pages, and one is asked for"):
        restorer.restore_file(str(tmp_path / "a.png"), str(tmp_path / "mask.gif"))


def test_what_is_changed_in_a_file_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    restorer = restorer_in(tmp_path, DenoisingSpec())
    Image.fromarray(pixels(16, 16, 4)).save(tmp_path / "glass.png")
    restorer.restore_file(str(tmp_path / "glass.png"))
    assert "glass.png: with transparent pixels, laid over data.background" in caplog.text
    caplog.clear()
    restorer_in(tmp_path, InpaintingSpec()).restore_file(str(tmp_path / "glass.png"))
    assert not caplog.text, "transparent pixels are the holes"


def test_what_pages_lose_is_logged_once_for_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of grey, the copies that are decoded have 16 bits, too; of colours they have 8."""
    deep = pixels(16, 20, 3).astype(np.uint16) * 257
    for name, page in (("rgb.tiff", deep), ("grey.tiff", deep[..., 0])):
        tifffile.imwrite(tmp_path / name, np.stack([page, page[::-1]]), photometric="rgb" if page.ndim == 3 else None)
        restorer_in(tmp_path, DenoisingSpec()).restore_file(str(tmp_path / name))
        assert caplog.text.count(f"{name}: {CHANGES[DEEP]}") == 2


def test_holes_are_transparent_pixels_or_a_mask(tmp_path: Path) -> None:
    restorer = restorer_in(tmp_path, InpaintingSpec())
    image, holes = pixels(20, 24, 3), np.zeros((20, 24), np.uint8)
    holes[5:9, 3:12] = 255
    expected = restorer.restore(image, holes)
    assert np.array_equal(expected[holes == 0], image[holes == 0]), "known pixels are kept exactly"
    assert not np.array_equal(expected[holes > 0], image[holes > 0])
    Image.fromarray(np.dstack([image, 255 - holes])).save(tmp_path / "cut.png")
    assert np.array_equal(restorer.restore_file(str(tmp_path / "cut.png")), expected)
    Image.fromarray(image).save(tmp_path / "whole.png")
    Image.fromarray(holes).save(tmp_path / "mask.png")
    assert np.array_equal(restorer.restore_file(str(tmp_path / "whole.png"), str(tmp_path / "mask.png")), expected)
    Image.fromarray(np.dstack([np.full_like(image, 255), holes])).save(tmp_path / "layer.png")
    assert np.array_equal(restorer.restore_file(str(tmp_path / "whole.png"), str(tmp_path / "layer.png")), expected)
    Image.fromarray(holes // 255).save(tmp_path / "ones.png")
    with pytest.raises(InputError, match=r"ones\.png: marks nothing to fill: its largest value is 1"):
        restorer.restore_file(str(tmp_path / "whole.png"), str(tmp_path / "ones.png"))
    with pytest.raises(InputError, match="has no transparent pixels to fill"):
        restorer.restore_file(str(tmp_path / "whole.png"))
    for nothing in (None, np.zeros((20, 24))):
        with pytest.raises(InputError, match="mask: marks nothing to fill; give an array"):
            restorer.restore(image, nothing)
    with pytest.raises(InputError, match=r"mask: has shape \(3, 3\), the image \(20, 24\)"):
        restorer.restore(image, np.ones((3, 3)))
    with pytest.raises(InputError, match="mask: task denoising fills no holes; leave it out"):
        restorer_in(tmp_path, DenoisingSpec()).restore_file(str(tmp_path / "whole.png"), str(tmp_path / "mask.png"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_half_transparent_keeps_its_own_colour(tmp_path: Path, mode: str) -> None:
    """The rim of a soft brush is no mixture with the background."""
    restorer = restorer_in(tmp_path, InpaintingSpec())
    grey = np.zeros((20, 24), np.uint8)
    opacity = np.full_like(grey, 255)
    opacity[8:12, 8:12], opacity[7, 8:12] = 0, 170
    image = Image.fromarray(np.dstack([grey, opacity]), "LA")
    if mode == "P":  # one colour of the palette may be transparent, and no other
        image = Image.fromarray(np.where(opacity == 0, 1, 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.info["transparency"] = 1
    image = image.convert("RGBA") if mode == "RGBA" else image
    image.save(tmp_path / "cut.png")
    restored = restorer.restore_file(str(tmp_path / "cut.png"))
    assert (restored[opacity >= 170] == 0).all()
    assert (restored[opacity == 0] > 0).any()
