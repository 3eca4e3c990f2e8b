"""A small CLIP for captions nobody trained one for: tokenizer, text tower, image tower (Radford 2021).

Its text states condition the U-Net, its vectors score image-text alignment, and its image vectors are the space in
which distances between sets of images are measured. All parts are transformers', so they load like any CLIP folder.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unet_models.diffusion_specs import AlignmentSpec

EMBEDDING_DEVIATION = 0.5
"""Of fresh token and position embeddings. From CLIP's 0.02 a short training leaves text states that are mixtures of the
whole caption; from this each still says which word it is of, and the U-Net learns sooner which colour goes with which
shape (after 500 steps of 32 generated images 0.33 of the items were right instead of 0.17, one run each)."""
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def train_tokenizer(captions: Iterable[str], vocab_size: int, num_tokens: int) -> Any:
    """A ``transformers.CLIPTokenizer`` whose byte-pair merges are learnt from ``captions``.

    Laid out as CLIP's: the marks, every byte, every byte that ends a word, the merges. So any text can be written, and
    the same captions give the same tokenizer (the trainer of ``tokenizers`` does neither).
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    backend = CLIPTokenizer().backend_tokenizer
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(w for w, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(caption)))
    alphabet = sorted(ByteLevel.alphabet())
    base = [START, END, *alphabet, *(letter + WORD_END for letter in alphabet)]
    merges: Any = learn_merges(words, vocab_size - len(base))  # pairs, whatever the annotation says
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*base, *("".join(pair) for pair in merges)]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=num_tokens)


def learn_merges(words: Mapping[str, int], num_merges: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich 2016, algorithm 1): the most frequent pair of neighbours, again and again.

    ``words`` maps each word to its count. Ties go to the pair that sorts first. Ends early when no pair occurs twice.
    """
    pieces = {word: [*word[:-1], word[-1] + WORD_END] for word in sorted(words)}
    counts: Counter[tuple[str, str]] = Counter()
    holders: dict[tuple[str, str], set[str]] = {}

    def count(word: str, sign: int) -> None:
        for pair in itertools.pairwise(pieces[word]):
            counts[pair] += sign * words[word]
            holders.setdefault(pair, set()).add(word)

    for word in pieces:
        count(word, 1)
    merges: list[tuple[str, str]] = []
    while len(merges) < num_merges and counts:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        merges.append(best)
        for word in holders.pop(best):
            count(word, -1)
            pieces[word] = _merge(pieces[word], best)
            count(word, 1)
        del counts[best]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def load_tokenizer(folder: Path) -> Any:
    """The ``transformers.CLIPTokenizer`` of a folder, from its files alone."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def tokenize(tokenizer: Any, captions: Sequence[str]) -> Int[Tensor, "batch tokens"]:
    """Captions -> token ids, each cut or padded to the tokenizer's length."""
    return tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


def build_clip(spec: AlignmentSpec, tokenizer: Any, resolution: int) -> Any:
    """A fresh ``transformers.CLIPModel`` for square images of ``resolution`` pixels in -1..1."""
    from transformers import CLIPConfig, CLIPModel

    shared = {
        "hidden_size": spec.width,
        "intermediate_size": 4 * spec.width,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
    }
    text = shared | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": spec.num_tokens,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    image = shared | {"image_size": resolution, "patch_size": spec.patch_pixels}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=spec.vector_size))
    embeddings = clip.text_model.embeddings
    for table in (embeddings.token_embedding, embeddings.position_embedding):
        nn.init.normal_(table.weight, std=EMBEDDING_DEVIATION)
    return clip


class TrainableClip(nn.Module):
    """Both towers in one forward pass, as data-parallel training needs it."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], tokens: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch vector"], Float[Tensor, "batch vector"], Tensor]:
        """Unit vectors of images and of captions, and the scale of their similarities."""
        output = self.clip(input_ids=tokens, pixel_values=images)
        return output.image_embeds, output.text_embeds, self.clip.logit_scale.exp().clamp(max=100)


def contrastive_loss(
    image_vectors: Float[Tensor, "batch vector"], text_vectors: Float[Tensor, "batch vector"], scale: Tensor
) -> Float[Tensor, " batch"]:
    """Symmetric cross-entropy of each pair against every other of the global batch (Radford 2021, figure 3).

    Ranks share their vectors, with gradient, so the loss does not depend on how many there are. They must hold
    shares of equal size.
    """
    all_images, all_texts, first = image_vectors, text_vectors, 0
    if dist.is_initialized() and dist.get_world_size() > 1:
        from torch.distributed.nn.functional import all_gather

        all_images, all_texts = (torch.cat(list(all_gather(v))) for v in (image_vectors, text_vectors))
        first = dist.get_rank() * len(image_vectors)
    own = torch.arange(first, first + len(image_vectors), device=image_vectors.device)
    by_image = F.cross_entropy(scale * image_vectors @ all_texts.T, own, reduction="none")
    by_text = F.cross_entropy(scale * text_vectors @ all_images.T, own, reduction="none")
    return (by_image + by_text) / 2


def text_states(clip: Any, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
    """The last hidden states of the text tower, after its final norm: what the U-Net's cross-attention reads."""
    return clip.text_model(input_ids=tokens).last_hidden_state
