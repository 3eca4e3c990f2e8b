"""Byte-pair tokenizer learned from captions, with the vocabulary layout of CLIP's."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def train_tokenizer(captions: Iterable[str], vocab_size: int, num_tokens: int) -> Any:
    """Learn the byte-pair merges of a ``transformers.CLIPTokenizer`` from ``captions``.

    The vocabulary is laid out as CLIP's: start and end token, every byte, every byte that ends a word, the merges. So
    any text can be encoded, and the same captions give the same tokenizer (the trainer of ``tokenizers`` does neither).
    Captions are truncated or padded to ``num_tokens``.
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
    """Learn byte-pair merges: merge the most frequent pair of neighbours, repeatedly (Sennrich 2016, algorithm 1).

    ``words`` maps each word to its count. Ties go to the pair that sorts first. Returns fewer than ``num_merges`` when
    no pair occurs twice.
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
    """Load the ``transformers.CLIPTokenizer`` of a folder from its files, without network access."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def tokenize(tokenizer: Any, captions: Sequence[str]) -> Int[Tensor, "batch tokens"]:
    """Encode captions as token ids, each truncated or padded to the tokenizer's length."""
    return tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")["input_ids"]


def count_tokens(tokenizer: Any, captions: Sequence[str]) -> list[int]:
    """Count the tokens of each caption as it would be without truncation, start and end tokens included."""
    encoded = tokenizer(list(captions), truncation=False, verbose=False)["input_ids"]
    return [len(ids) for ids in encoded]
