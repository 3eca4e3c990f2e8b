"""Generated captions and images: what is asked for is drawn, and what is drawn is read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.images.shapes import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    Item,
    Scene,
    check_image,
    check_relation,
    draw,
    find_items,
    parse_caption,
    prompts,
    training_scene,
    write_shapes,
)


def scenes(num: int) -> list[Scene]:
    return [training_scene(np.random.default_rng(i)) for i in range(num)]


def test_captions_read_back_as_the_scene() -> None:
    for scene in scenes(300):
        assert parse_caption(scene.caption) == scene


def test_caption_in_words() -> None:
    scene = Scene((Item("small", "red", "circle"), Item("large", "blue", "square")), "left of")
    assert scene.caption == "a small red circle left of a large blue square"


@pytest.mark.parametrize("text", ["", "a red circle", "a small pink circle", "a small red circle over a big blue cat"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a caption"):
        parse_caption(text)


@pytest.mark.parametrize("resolution", [32, 48, 64])
def test_checker_agrees_with_what_was_drawn(resolution: int) -> None:
    for i, scene in enumerate(scenes(400)):
        pixels = draw(scene, np.random.default_rng(i), resolution)
        assert all(check_image(pixels, scene.caption)), scene.caption
        assert check_relation(pixels, scene.caption), scene.caption


def test_checker_survives_noise() -> None:
    rng = np.random.default_rng(0)
    right = []
    for scene in scenes(200):
        noisy = draw(scene, rng, 32) + rng.normal(0, 12, (32, 32, 3))
        right += check_image(noisy.clip(0, 255).astype(np.uint8), scene.caption)
    assert np.mean(right) > 0.97


def test_checker_sees_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    pixels = draw(parse_caption("a large red circle above a small blue square"), rng, 32)
    assert check_image(pixels, "a large red circle above a small blue square") == [True, True]
    assert check_image(pixels, "a large red square above a small blue square") == [False, True]
    assert check_image(pixels, "a large blue circle above a small red square") == [False, False]
    assert check_image(pixels, "a large red circle") == [False]  # more than was asked for
    assert not check_relation(pixels, "a large red circle below a small blue square")
    blank = np.full((32, 32, 3), 255, np.uint8)
    assert check_image(blank, "a large red circle") == [False]


def test_one_item_does_not_answer_for_two() -> None:
    pixels = draw(parse_caption("a large red circle"), np.random.default_rng(0), 32)
    assert check_image(pixels, "a large red circle above a small red circle") == [True, False]


def test_noise_is_almost_never_right() -> None:
    rng = np.random.default_rng(0)
    right = [
        ok for s in scenes(100) for ok in check_image(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), s.caption)
    ]
    assert np.mean(right) < 0.05


def test_held_out_combinations_never_occur_in_training() -> None:
    seen = {(item.colour, item.shape) for scene in scenes(2000) for item in scene.items}
    assert seen == {(colour, shape) for colour in COLOURS for shape in SHAPES} - HELD_OUT


def test_held_out_prompts_ask_for_nothing_else() -> None:
    items = [item for prompt in prompts(50, 0, held_out=True) for item in parse_caption(prompt).items]
    assert all((item.colour, item.shape) in HELD_OUT for item in items)
    assert {(item.colour, item.shape) for item in items} == HELD_OUT


def test_folder_is_the_same_again_and_grows_at_its_end(tmp_path: Path) -> None:
    write_shapes(tmp_path / "a", 8, 3, 32)
    write_shapes(tmp_path / "b", 5, 3, 32)
    lines = (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()
    assert (tmp_path / "b" / "metadata.jsonl").read_text().splitlines() == lines[:5]
    for line in lines[:5]:
        row = json.loads(line)
        first = np.asarray(Image.open(tmp_path / "a" / row["file_name"]))
        np.testing.assert_array_equal(first, np.asarray(Image.open(tmp_path / "b" / row["file_name"])))
        assert all(check_image(first, row["caption"]))
        assert len(find_items(first)) == len(parse_caption(row["caption"]).items)
