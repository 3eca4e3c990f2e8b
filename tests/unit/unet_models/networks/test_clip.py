"""The small CLIP and the autoencoder: losses by closed forms, parts that load like any other of their kind."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from data_pipelines.batches import CaptionedBatch, ImageBatch
from unet_models.networks.clip import TrainableClip, build_clip, text_states
from unet_models.training.losses import contrastive_loss
from unet_models.networks.tokenizer import learn_merges, tokenize, train_tokenizer
from unet_models.networks.autoencoder import TrainableAutoencoder
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec
from unet_models.training.objectives import Alignment, Reconstruction, scale_images

CAPTIONS = ["a small red circle", "a large blue square above a small red circle", "a cat", "emoji of a cat"] * 3
CLIP = AlignmentSpec(width=16, num_layers=1, num_heads=2, num_tokens=12, vector_size=8)
AUTOENCODER = AutoencoderSpec(channels=(8, 16), kl_weight=0.5)


def test_frequent_words_become_one_token_and_unknown_ones_still_read_back() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    assert len(tokenizer.tokenize("small red circle")) == 3
    for text in ("a small red circle", "zebra 7!", "naïve 🐈"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).replace(
            " ", ""
        ) == text.replace(" ", "")


def test_merges_by_hand() -> None:
    """low x5, lower x2, newest x6, widest x3: the example of Sennrich 2016, figure 1, ties in alphabetical order."""
    merges = learn_merges({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 4)
    assert merges == [("e", "s"), ("es", "t</w>"), ("l", "o"), ("e", "w")]


def test_merges_stop_where_nothing_repeats() -> None:
    assert learn_merges({"ab": 1, "cd": 1}, 10) == []


def test_tokens_have_one_length_and_long_captions_keep_their_end_mark() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    tokens = tokenize(tokenizer, ["", "a cat", "a cat " * 50])
    assert tokens.shape == (3, 12)
    assert (tokens[:, 0] == tokenizer.bos_token_id).all()
    assert (tokens[:, -1] == tokenizer.eos_token_id).all()


def test_tokenizer_is_the_same_again_and_loads_from_its_folder(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    first, second = (train_tokenizer(CAPTIONS, 560, 12) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    first.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert torch.equal(tokenize(loaded, CAPTIONS), tokenize(first, CAPTIONS))


def test_text_states_are_those_of_the_saved_text_encoder(tmp_path: Path) -> None:
    """The folder that a diffusers pipeline reads gives the states that training saw."""
    from transformers import CLIPTextModel

    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    clip = build_clip(CLIP, tokenizer, 16).eval()
    tokens = tokenize(tokenizer, ["a cat", "a small red circle"])
    states = text_states(clip, tokens)
    assert states.shape == (2, 12, 16)
    text_model = CLIPTextModel(clip.config.text_config)
    weights = {name.removeprefix("text_model."): v for name, v in clip.text_model.state_dict().items()}
    names = set(text_model.state_dict())
    prefix = "text_model." if all(name.startswith("text_model.") for name in names) else ""
    text_model.load_state_dict({prefix + name: value for name, value in weights.items()})
    text_model.eval().save_pretrained(tmp_path)
    loaded = CLIPTextModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(input_ids=tokens).last_hidden_state, states)


def test_vectors_have_length_one_and_padding_says_nothing() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    model = TrainableClip(build_clip(CLIP, tokenizer, 16)).eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    image_vectors, text_vectors, scale = model(images, tokenize(tokenizer, ["a cat", "a cat", "a small red circle"]))
    torch.testing.assert_close(image_vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text_vectors[0], text_vectors[1])
    assert not torch.allclose(text_vectors[0], text_vectors[2])
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-3)  # Radford 2021, section 2.5


def test_contrastive_loss_by_hand() -> None:
    vectors = torch.eye(2)
    losses = contrastive_loss(vectors, vectors, torch.tensor(2.0))
    expected = -torch.log_softmax(torch.tensor([2.0, 0.0]), dim=0)[0].item()
    assert losses.tolist() == pytest.approx([expected] * 2)


def _rank_loss(rank: int, folder: str) -> None:
    timeout = timedelta(seconds=60)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2, timeout=timeout)
    images, texts = _pairs()
    own = slice(2 * rank, 2 * rank + 2)
    share = images[own].clone().requires_grad_()
    loss = contrastive_loss(F.normalize(share, dim=1), F.normalize(texts[own], dim=1), torch.tensor(3.0))
    (loss.sum() / 4 * 2).backward()  # DDP averages over ranks: hence times two
    torch.save((loss.detach(), share.grad / 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, generator=generator), torch.randn(4, 5, generator=generator)


def test_two_ranks_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    mp.spawn(_rank_loss, (str(tmp_path),), nprocs=2)
    images, texts = _pairs()
    images.requires_grad_()
    whole = contrastive_loss(F.normalize(images, dim=1), F.normalize(texts, dim=1), torch.tensor(3.0))
    (whole.sum() / 4).backward()
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(torch.cat([loss for loss, _ in parts]), whole.detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), images.grad)


def test_micro_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch_size"):
        AlignmentSpec(micro_batch_size=4)


def test_training_brings_pairs_together() -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 560, 12)
    model = TrainableClip(build_clip(CLIP, tokenizer, 16))
    images = torch.stack([torch.full((3, 16, 16), 60 * i, dtype=torch.uint8) for i in range(4)])
    batch = CaptionedBatch(images, tokenize(tokenizer, CAPTIONS[:4]), (0, 1, 2, 3), ("a", "b", "c", "d"), 0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(120):
        loss = Alignment()(model, batch)
        losses.append(loss.mean().item())
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    assert losses[-1] < 0.3 < 1 < losses[0]  # log 4 is chance


def image_batch(num: int = 2) -> ImageBatch:
    images = torch.randint(0, 256, (num, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageBatch(images, tuple(range(num)), tuple(map(str, range(num))), 0)


class Constant(torch.nn.Module):
    """Reconstructs black, with a posterior of known divergence."""

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert noise.shape == (len(images), 4, 8, 8)
        self.noise = noise
        return torch.full_like(images, -1), torch.cat([torch.full_like(noise, 2.0), torch.zeros_like(noise)], dim=1)


def test_reconstruction_loss_by_hand() -> None:
    """KL of N(2, 1) from N(0, 1) is 2 per latent value (Kingma 2014, appendix B)."""
    batch = image_batch()
    losses = Reconstruction(AUTOENCODER)(Constant(), batch)
    squared = ((scale_images(batch.images) + 1) ** 2).flatten(1).mean(dim=1)
    torch.testing.assert_close(losses, squared + 0.5 * 2 * (4 * 8 * 8) / (3 * 16 * 16))


def test_each_sample_of_the_autoencoder_has_its_own_noise() -> None:
    model = Constant()
    Reconstruction(AUTOENCODER)(model, image_batch())
    together = model.noise
    Reconstruction(AUTOENCODER)(model, image_batch().split(1)[1])
    assert torch.equal(model.noise[0], together[1])


def test_autoencoder_learns_and_keeps_sizes() -> None:
    torch.manual_seed(0)
    spec = AUTOENCODER.model_copy(update={"kl_weight": 0.0})
    model = TrainableAutoencoder.from_spec(spec, 16)
    reconstructed, moments = model(scale_images(image_batch().images), torch.zeros(2, 4, 8, 8))
    assert reconstructed.shape == (2, 3, 16, 16)
    assert moments.shape == (2, 8, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = Reconstruction(spec)(model, image_batch()).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


class Judged(Constant):
    """As though a discriminator had judged one patch of each image."""

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        fooled, real, fake = torch.tensor([[0.5, -2.0], [3.0, 0.25], [-3.0, 0.5]]).unbind()
        return (*super().forward(images, noise), fooled[:, None], real[:, None], fake[:, None])


def test_adversarial_losses_by_hand() -> None:
    """relu(1 - real) / 2 + relu(1 + fake) / 2 - weight * fooled, from the step on that the spec names."""
    plain = Reconstruction(AUTOENCODER)(Constant(), image_batch())
    spec = AUTOENCODER.model_copy(update={"adversarial_weight": 0.1, "adversarial_start": 3})
    before, after = image_batch(), dataclasses.replace(image_batch(), step=3)
    torch.testing.assert_close(Reconstruction(spec)(Judged(), before), plain)
    told = Reconstruction(spec)(Judged(), after) - Reconstruction(AUTOENCODER)(Constant(), after)
    torch.testing.assert_close(told, torch.tensor([0 + 0 - 0.05, 0.375 + 0.75 + 0.2]))


def test_each_side_learns_from_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    spec = AUTOENCODER.model_copy(update={"adversarial_weight": 0.5})
    model = TrainableAutoencoder.from_spec(spec, 16)
    images, noise = scale_images(image_batch().images), torch.randn(2, 4, 8, 8)
    restored, _, fooled, real, fake = model(images, noise)
    torch.testing.assert_close(fooled, fake)
    assert model.discriminator is not None

    def gradients(loss: torch.Tensor, module: torch.nn.Module) -> list[torch.Tensor | None]:
        return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))

    assert gradients(fooled.sum(), model.discriminator) == [None] * len(list(model.discriminator.parameters()))
    assert all(g is None for g in gradients(real.sum() + fake.sum(), model.autoencoder))
    through = gradients(model.discriminator(restored).sum(), model.autoencoder)
    for ours, expected in zip(gradients(fooled.sum(), model.autoencoder), through, strict=True):
        torch.testing.assert_close(ours, expected)


def test_discriminator_learns_to_tell_and_travels_with_the_checkpoint() -> None:
    torch.manual_seed(0)
    spec = AUTOENCODER.model_copy(update={"adversarial_weight": 0.01})
    model = TrainableAutoencoder.from_spec(spec, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(25):
        optimizer.zero_grad()
        Reconstruction(spec)(model, image_batch()).sum().backward()
        optimizer.step()
    *_, real, fake = model(scale_images(image_batch().images), torch.zeros(2, 4, 8, 8))
    assert real.mean() > 0 > fake.mean()
    assert any(name.startswith("discriminator.") for name in model.state_dict())
    assert not any(
        name.startswith("discriminator.") for name in TrainableAutoencoder.from_spec(AUTOENCODER, 16).state_dict()
    )
