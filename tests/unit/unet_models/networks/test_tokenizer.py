"""The byte-pair tokenizer: merges by hand, any text encoded, the same vocabulary again."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.encoders import CAPTIONS
from unet_models.networks.tokenizer import learn_merges, load_tokenizer, tokenize, train_tokenizer


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
    first, second = (train_tokenizer(CAPTIONS, 560, 12) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    first.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert torch.equal(tokenize(loaded, CAPTIONS), tokenize(first, CAPTIONS))
