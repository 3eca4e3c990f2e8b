"""Images drawn by every sampler are those of diffusers' pipeline from the same folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipelines.errors import InputError, WeightsError
from flows.pipelines.diffusion.explain import DiffusionExplainer, explain_prompt
from flows.pipelines.diffusion.image_condition import lay_over, read_image
from flows.pipelines.diffusion.requests import read_request
from flows.pipelines.diffusion.text_to_image import INDEX, TextToImage, to_pixels, write_pipeline
from unet_models.formats.clip_folder import save_clip
from unet_models.networks.autoencoder import build_autoencoder
from unet_models.networks.build import build_denoiser
from unet_models.networks.clip import build_clip
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.networks.tokenizer import train_tokenizer
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.diffusion import Bundle, ImageRequest
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec

# diffusers' DPM-Solver hands tensors to numpy as numpy 1 took them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")

DENOISER = DenoisingUNetSpec(
    channels=(8, 16), attention_levels=(False, True), num_res_blocks=1, num_heads=2, context_dim=16, num_groups=4
)
PURE = {"schedule": "cosine", "prediction_type": "v_prediction", "zero_terminal_snr": True}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a CLIP and of an autoencoder that halves sides twice, neither trained."""
    torch.manual_seed(0)
    clip, autoencoder = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("vae")
    spec = AlignmentSpec(vocab_size=514, num_tokens=8, width=16, num_layers=1, num_heads=2, vector_size=4)
    tokenizer = train_tokenizer(["a red circle"], spec.vocab_size, spec.num_tokens)
    save_clip(clip, build_clip(spec, tokenizer, 16), tokenizer, 16)
    build_autoencoder(AutoencoderSpec(channels=(8, 8, 8)), 16).save_pretrained(str(autoencoder))
    return clip, autoencoder


def pipeline_folder(encoders: tuple[Path, Path], folder: Path, noise: dict[str, Any], **sample: Any) -> Path:
    """A text-to-image model whose noise predictor is random, but not silent."""
    bundle = Bundle.model_validate(
        {"noise": noise, "sample": sample, "latent_shape": (4, 4, 4), "scaling_factor": 0.7, "format": 1}
    )
    torch.manual_seed(1)
    denoiser = DenoisingUNet(DENOISER)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    write_pipeline(folder, bundle, denoiser, *encoders)
    return folder


@pytest.mark.parametrize(
    ("sampler", "noise", "steps"),
    [
        ("ddpm", {}, 5),
        ("ddpm", {"num_timesteps": 20}, 20),
        ("ddpm", PURE, 5),
        ("ddim", {}, 5),
        ("ddim", {"schedule": "linear", "beta_end": 0.02, "prediction_type": "sample"}, 7),
        ("ddim", PURE, 5),
        ("dpm_solver", {}, 5),
        ("dpm_solver", {"schedule": "cosine", "prediction_type": "v_prediction"}, 1),
    ],
)
def test_images_are_those_of_the_pipeline(
    sampler: str, noise: dict[str, Any], steps: int, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    folder = pipeline_folder(encoders, tmp_path, noise, sampler=sampler, num_inference_steps=steps)
    asked = [
        ImageRequest(prompt="a red circle", seed=3, guidance_scale=2.0),
        ImageRequest(prompt="a circle", seed=4, guidance_scale=3.0, negative_prompt="red", width=24, height=8),
    ]
    ours = TextToImage(folder, "cpu").draw(asked)
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    for image, request in zip(ours, asked, strict=True):
        expected = theirs(
            request.prompt,
            negative_prompt=request.negative_prompt,
            guidance_scale=request.guidance_scale,
            num_inference_steps=steps,
            width=request.width,
            height=request.height,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="np",
        ).images[0]
        assert image.shape == expected.shape
        assert image.std() > 5
        assert np.abs(image.astype(int) - (expected * 255).round().astype(int)).max() <= 1


def test_an_image_does_not_depend_on_its_company(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}, sampler="ddpm", num_inference_steps=3, batch_size=2))
    asked = [ImageRequest(prompt="a circle", seed=i, guidance_scale=2.0, width=16 + 8 * (i % 2)) for i in range(5)]
    together = model.draw(asked)
    assert [image.shape for image in together] == [(16, 16 + 8 * (i % 2), 3) for i in range(5)]
    for image, request in zip(together, asked, strict=True):
        assert np.abs(image.astype(int) - model.draw([request])[0]).max() <= 1


def test_sides_that_the_autoencoder_does_not_have(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}))
    with pytest.raises(InputError, match="height must be a multiple of 4 pixels, got 18"):
        model.draw([ImageRequest(prompt="", seed=0, guidance_scale=1.0, height=18)])


def test_pixels_that_are_not_finite_are_no_image() -> None:
    with pytest.raises(WeightsError, match="generated images are not finite"):
        to_pixels(torch.full((1, 3, 2, 2), float("nan")))


def test_prompts_that_are_cut_are_told(
    encoders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}, num_inference_steps=1), "cpu")
    with caplog.at_level(logging.WARNING):
        model.draw([ImageRequest(prompt="a", seed=0, guidance_scale=1.0)])
        assert "not read" not in caplog.text
        model.draw([ImageRequest(prompt="a red circle " * 9, seed=0, guidance_scale=1.0)])
    assert "1 prompts have more than 8 tokens, the rest is ignored: 'a red circle a red" in caplog.text


CONDITIONED: dict[str, Any] = {"context_dim": None, "num_class_embeds": 3, "in_channels": 9}


def conditioned(encoders: tuple[Path, Path], folder: Path, kind: str = "masked", **changes: Any) -> TextToImage:
    """A model of small images that is conditioned on a class, and on an image of that kind."""
    bundle = Bundle.model_validate(
        {"noise": {}, "sample": {"num_inference_steps": 2}, "latent_shape": (4, 4, 4), "scaling_factor": 0.7}
        | {"classes": ["cat", "dog"], "image_condition": {"kind": kind, "factor": 2}}
    )
    torch.manual_seed(1)
    denoiser = build_denoiser(DENOISER.model_copy(update=CONDITIONED | changes))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    write_pipeline(folder, bundle, denoiser, *encoders)
    return TextToImage(folder, "cpu")


def test_class_and_image_change_what_is_drawn(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = conditioned(encoders, tmp_path)
    assert not (tmp_path / INDEX).exists(), "no pipeline of diffusers draws with it"
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    image[..., 3] = 255
    image[4:8, :8, 3] = 0
    other = image.copy()
    other[5, 5, :3] ^= 255  # in the hole
    asked = [ImageRequest(class_name=name, seed=0, guidance_scale=2.0) for name in ("cat", "dog", "", "cat", "cat")]
    cat, dog, none, again, without = model.draw(asked, images=[image, image, image, other, None])
    assert (cat != dog).any()
    assert (cat != none).any()
    assert (cat == again).all(), "what is in the hole is not looked at"
    assert (cat != without).any()
    (alone,) = model.draw(asked[:1], images=[image])
    assert np.abs(alone.astype(int) - cat).max() <= 1


def test_what_is_known_of_an_image_is_its_latents_outside_the_hole(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = conditioned(encoders, tmp_path)
    image = np.full((16, 16, 4), 255, np.uint8)
    image[0, 0, 3] = 0
    (known,) = model.conditioner.known([image], (4, 4, 4))  # type: ignore[misc]
    assert known[0].tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert known[1:, 0, 0].tolist() == [0] * 4
    filled = torch.full((1, 3, 16, 16), 1.0)
    filled[0, :, 0, 0] = 127 / 127.5 - 1  # grey
    latents = model.autoencoder.encode(filled).latent_dist.mean[0] * 0.7
    torch.testing.assert_close(known[1:, 1:], latents[:, 1:])


def test_thin_holes_survive_and_nothing_under_them_is_known(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    """Of an image eight times as large, transparent strokes of three pixels over black."""
    model = conditioned(encoders, tmp_path)
    image = np.full((128, 128, 4), 200, np.uint8)
    for row in (3, 45, 77, 120):
        image[row : row + 3] = 0
    pixels, hole = model.conditioner._resized(image, (16, 16))
    assert hole[0, 0, :, 0].nonzero().flatten().tolist() == [0, 5, 9, 15]
    assert hole.eq(hole[..., :1]).all()
    known = pixels.float().mean(1, keepdim=True)[hole == 0]
    assert (known.min(), known.max()) == (200, 200)


def test_the_middle_of_an_image_of_another_aspect_ratio_is_drawn_from(
    encoders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = conditioned(encoders, tmp_path)
    square = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    beside = np.full((16, 5, 4), 255, np.uint8)
    wide = np.concatenate([beside, square, beside], axis=1)
    expected = model.conditioner.known([square], (4, 4, 4))
    assert not caplog.records
    for image, shape in ((wide, "26x16"), (wide.transpose(1, 0, 2), "16x26")):
        caplog.clear()
        known = model.conditioner.known([image], (4, 4, 4))
        wanted = expected if image is wide else model.conditioner.known([square.transpose(1, 0, 2)], (4, 4, 4))
        torch.testing.assert_close(known, wanted)
        assert f"the middle 16x16 pixels of its {shape} are used to draw 16x16" in caplog.text
    caplog.clear()
    model.conditioner.known([wide], (4, 8, 13))
    assert not caplog.records, "of the aspect ratio that is drawn"
    opaque = np.concatenate([beside, np.full_like(square, 255), beside], axis=1)
    opaque[:, :4, 3] = 0
    with pytest.raises(InputError, match="all that is transparent lies outside of them"):
        model.conditioner.known([opaque], (4, 4, 4))


def test_a_small_image_is_enlarged_to_the_size_that_is_drawn(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = conditioned(encoders, tmp_path, kind="low_resolution")
    (known,) = model.conditioner.known([np.zeros((4, 6, 3), np.uint8)], (4, 6, 4))  # type: ignore[misc]
    assert known.shape == (5, 6, 4)
    assert not known[0].any()
    blocks = known[1:].unflatten(1, (3, 2)).unflatten(3, (2, 2))
    assert torch.equal(blocks, blocks[:, :, :1, :, :1].expand_as(blocks))


@pytest.mark.parametrize(
    ("request_", "image", "message"),
    [
        ({"class_name": "cow"}, None, "class: unknown class 'cow'; the model takes one of cat, dog"),
        (
            {},
            np.zeros((4, 4, 3), np.uint8),
            r"image: must be \(height, width, 4\) uint8, got \(4, 4, 3\) uint8; what",
        ),
        ({}, np.zeros((4, 4, 4)), r"image: must be .*, got \(4, 4, 4\) float64"),
        ({}, np.full((4, 4, 4), 255, np.uint8), r"image: has no transparent pixels \(alpha below 128\)"),
    ],
)
def test_conditions_that_the_model_does_not_take(
    request_: dict[str, Any], image: Any, message: str, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    model = conditioned(encoders, tmp_path)
    with pytest.raises(InputError, match=message):
        model.draw([ImageRequest(seed=0, guidance_scale=1.0, **request_)], images=[image])


def test_a_model_of_text_alone_refuses_class_and_image(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}))
    with pytest.raises(InputError, match="class: unknown class 'cat'; the model takes none: it was trained without"):
        model.draw([ImageRequest(class_name="cat", seed=0, guidance_scale=1.0)])
    with pytest.raises(InputError, match="image: the model was trained without one"):
        model.draw([ImageRequest(seed=0, guidance_scale=1.0)], images=[np.zeros((16, 16, 3), np.uint8)])


def test_images_are_read_from_files(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png"))[0, 0].tolist() == [10, 20, 30, 255]
    turned = Image.new("RGB", (3, 2), (10, 20, 30))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "c.jpg", exif=turned.getexif())
    assert read_image(str(tmp_path / "c.jpg")).shape == (3, 2, 4), "upright, as training has it"
    Image.new("RGBA", (3, 2), (10, 20, 30, 40)).save(tmp_path / "d.png")
    assert read_image(str(tmp_path / "d.png"))[0, 0].tolist() == [10, 20, 30, 40]
    (tmp_path / "b.png").write_bytes(b"no image")
    for value, message in (("/no/such", "cannot be read"), (str(tmp_path / "b.png"), "cannot be read"), (3, "got int")):
        with pytest.raises(InputError, match=f"^image: .*{message}"):
            read_image(value)


def test_an_image_to_enlarge_lies_over_the_background_of_training() -> None:
    image = np.zeros((1, 2, 4), np.uint8)
    image[0, 1] = (10, 20, 30, 255)
    assert lay_over(image, (9, 8, 7)).tolist() == [[[9, 8, 7], [10, 20, 30]]]
    assert lay_over(image[..., :3], (9, 8, 7)).tolist() == [[[0, 0, 0], [10, 20, 30]]]


def test_maps_of_a_prompt_are_of_its_tokens_and_change_no_pixel(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = pipeline_folder(encoders, tmp_path / "model", {}, num_inference_steps=3, guidance_scale=2.0)
    explainer = DiffusionExplainer(folder)
    request = ImageRequest(prompt="a red", seed=3, guidance_scale=2.0, width=24, height=16)
    found = explain_prompt(explainer.model, request)
    assert (found.image == explainer.model.draw([request])[0]).all()
    assert "".join(found.tokens) == "ared"
    assert found.maps.shape == (3, 2, len(found.tokens), 4, 6)
    assert found.maps.min() > 0
    assert found.maps.sum(axis=2).max() < 1, "start, end and padding have their share"
    other = explain_prompt(explainer.model, request.model_copy(update={"negative_prompt": "blue"}))
    np.testing.assert_allclose(other.maps[0], found.maps[0], rtol=1e-5)  # those of the prompt, not of the negative one
    written = explainer({"prompt": "a red", "seed": 3}, tmp_path / "out")
    names = [str(path.relative_to(tmp_path / "out")) for path in written]
    assert names[:2] == ["image.png", "01-a/mean.png"]
    assert names.count("01-a/head-2.png") == names.count("01-a/step-003.png") == 1
    assert len(names) == 1 + len(found.tokens) * (1 + 3 + 2)
    assert {read_image(str(path)).shape for path in written} == {(400, 400, 4)}


def test_what_cannot_be_explained(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--class cat: maps of a diffusion model are of the tokens"):
        DiffusionExplainer(tmp_path, "cat")
    with pytest.raises(InputError, match="trained without text"):
        explain_prompt(conditioned(encoders, tmp_path), ImageRequest(seed=0, guidance_scale=1.0))
    model = TextToImage(pipeline_folder(encoders, tmp_path / "b", {}))
    with pytest.raises(InputError, match="the prompt is empty"):
        explain_prompt(model, ImageRequest(seed=0, guidance_scale=1.0))


def test_rows_become_requests(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path / "text", {}, guidance_scale=3.0))
    row = {"prompt": "a", "seed": 2.0, "width": 24}
    assert read_request(row, model) == ImageRequest(prompt="a", seed=2, guidance_scale=3.0, width=24)
    for wrong, message in (
        ({"seed": 1}, "each row needs `prompt`"),
        (row | {"seed": 1.5}, "seed must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            read_request(wrong, model)
    without = conditioned(encoders, tmp_path / "class")
    assert read_request({"class": "cat"}, without).class_name == "cat"
    with pytest.raises(InputError, match="the model takes no `prompt`"):
        read_request({"prompt": "a"}, without)
    with pytest.raises(InputError, match="the model takes no `negative_prompt`"):
        read_request({"class": "cat", "negative_prompt": "a"}, without)
    assert read_request({"class": "cat", "seed": np.int64(2**53 + 1)}, without).seed == 2**53 + 1
