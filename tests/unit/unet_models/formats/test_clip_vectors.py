"""A saved CLIP reads images and captions as the network that was saved."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from tests.support.encoders import CLIP
from unet_models.formats.clip_folder import Clip, save_clip
from unet_models.networks.clip import build_clip
from unet_models.networks.tokenizer import train_tokenizer


def test_saved_clip_reads_images_as_it_was_trained_to(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a cat", "a dog"], 560, CLIP.num_tokens)
    torch.manual_seed(0)
    save_clip(tmp_path, build_clip(CLIP, tokenizer, 16), tokenizer, 16)
    clip = Clip(tmp_path)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    towers = CLIPModel.from_pretrained(tmp_path)
    with torch.no_grad():
        pooled = towers.vision_model(pixel_values=images.float() / 127.5 - 1).pooler_output
        expected = F.normalize(towers.visual_projection(pooled), dim=-1)
    torch.testing.assert_close(clip.image_vectors(images), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(clip.text_vectors(["a cat"]).norm(), torch.tensor(1.0))
    assert clip.text_states(["a cat", ""]).shape == (2, CLIP.num_tokens, CLIP.width)
    larger = F.interpolate(images.float(), scale_factor=2).round().to(torch.uint8)
    assert F.cosine_similarity(clip.image_vectors(larger), expected).min() > 0.95
