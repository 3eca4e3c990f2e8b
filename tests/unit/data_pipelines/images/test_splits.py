"""Splits that folders and files give are honoured; others are drawn."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.images.examples import Example
from data_pipelines.images.specs import CaptionedSpec, ImageSpec
from data_pipelines.images.splits import count_trained_on, given_splits, side_of, split_examples

SPEC = CaptionedSpec(val_fraction=0.5)


def examples(*ids: str) -> list[Example]:
    return [Example(name, f"{name}.png", None, "c") for name in ids]


def rows(*ids: str) -> list[dict[str, str]]:
    return [{"case_id": name} for name in ids]


@pytest.mark.parametrize(
    ("example_id", "side"),
    [
        ("train/a", "train"),
        ("Train/cats/a", "train"),
        ("val/a", "val"),
        ("validation/a", "val"),
        ("dev/a", "val"),
        ("test/a", "test"),
        ("data/train-00000-of-00002/000001", "train"),
        ("data/validation-00000-of-00001/000000", "val"),
        ("test_0/000000", "test"),
        ("train0001/key", "train"),
        ("images/train/test/a", "train"),
        ("train", None),
        ("test", None),
        ("trains/a", None),
        ("train-station/a", None),
        ("latest/a", None),
        ("contest-00000/a", None),
    ],
)
def test_sides_by_name(example_id: str, side: str | None) -> None:
    assert side_of(example_id) == side


def test_a_test_set_alone_is_held_out_and_beside_a_validation_set_not_used() -> None:
    assert given_splits(examples("train/a", "test/a")) == {"train/a": "train", "test/a": "val"}
    three = given_splits(examples("train/a", "val/b", "test/c", "more/d"))
    assert three == {"train/a": "train", "val/b": "val", "test/c": "test", "more/d": "train"}
    assert split_examples(rows(*three), SPEC, three) == {"train/a": "train", "val/b": "val", "more/d": "train"}


@pytest.mark.parametrize(
    ("ids", "warns"),
    [
        (("train/a", "plane/b"), False),
        (("train-station/a", "plane/b"), False),
        (("train-station/a", "test-bench/b"), False),
        (("test/a", "val/b"), True),
        (("test1/a", "test2/b"), False),
        (("a", "test1/b"), False),
        (("a", "b"), False),
        ((), False),
    ],
)
def test_names_that_give_no_split_are_no_split(
    ids: tuple[str, ...], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert given_splits(examples(*ids)) == {}
    assert ["all 2 images are in folders or files named as validation or test sets" in caplog.text] == [warns]


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_held_out_folder_beside_loose_images_is_not_trained_on(held_out: str) -> None:
    loose = {"a": "train", "photos/b": "train"}
    assert given_splits(examples(*loose, f"{held_out}/c")) == loose | {f"{held_out}/c": "val"}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("DIV2K_train_HR/0001", "DIV2K_valid_HR/0801"),
        ("cc3m-train-0000/000000000", "cc3m-validation-0003/000000001"),
        ("data/train_images/a", "data/test_images/b"),
        ("leaf.training/a", "leaf.dev/b"),
    ],
)
def test_names_that_differ_in_the_word_of_a_split_give_it(train: str, val: str) -> None:
    assert given_splits(examples(train, val, "a/b")) == {train: "train", val: "val", "a/b": "train"}


def test_a_given_side_without_usable_images_is_an_error() -> None:
    given = given_splits(examples("train/a", "test/a"))
    with pytest.raises(ConfigError, match=r"no usable image is on the side val.*data\.given_splits=false"):
        split_examples(rows("train/a"), SPEC, given)


def test_without_given_splits_they_are_drawn_by_id() -> None:
    ids = [f"{i}" for i in range(40)]
    drawn = split_examples(rows(*ids), SPEC)
    assert set(drawn.values()) == {"train", "val"}
    grown = split_examples(rows(*ids, "new"), SPEC)
    assert {name: grown[name] for name in ids} == drawn


def test_copies_are_on_one_side_and_never_hold_out_what_was_trained_on() -> None:
    """Whatever the copies are called, and in whatever order they come."""
    ids = [f"{i}" for i in range(40)]
    drawn = split_examples(rows(*ids), SPEC)
    for trained in (name for name, side in drawn.items() if side == "train"):
        for copy in ("a", "b", "c"):
            deduplicated = [{"case_id": copy, "copies": [trained], "pixel_sha256": "p"}, *rows(*ids)]
            assert split_examples(deduplicated, SPEC)[copy] == "train"
            both = [{"case_id": name, "pixel_sha256": "p"} for name in (copy, trained)]
            sides = split_examples([*both, *rows(*(set(ids) - {trained}))], SPEC)
            assert sides[copy] == sides[trained] == "train"


def test_a_held_out_image_of_the_pixels_of_a_trained_one_is_counted() -> None:
    pixels = {"train/a": "1", "train/b": "2", "val/c": "2", "val/d": "3", "test/e": "1"}
    found = [{"case_id": name, "pixel_sha256": sha} for name, sha in pixels.items()]
    sides = split_examples(found, SPEC, given_splits(examples(*pixels)))
    assert count_trained_on(found, sides) == 1


def test_frames_of_one_clip_stay_on_one_side() -> None:
    names = [f"clip{clip:02d}/frame{frame}" for clip in range(40) for frame in range(5)]
    spec = ImageSpec(clip_pattern="clip[0-9]+", val_fraction=0.2)
    sides = split_examples(rows(*names), spec)
    by_clip = {name[:6]: {sides[other] for other in names if other[:6] == name[:6]} for name in names}
    assert all(len(found) == 1 for found in by_clip.values())
    assert 3 <= sum(found == {"val"} for found in by_clip.values()) <= 13
    grown = split_examples(rows(*names, "clip99/frame0"), spec)
    assert {name: grown[name] for name in names} == sides, "new clips move no old one"
    by_group = split_examples(rows(*names), ImageSpec(clip_pattern="clip([0-9])", val_fraction=0.2))
    assert len({by_group[name] for name in names if name.startswith("clip0")}) == 1


def test_a_copy_in_another_clip_moves_the_whole_clip() -> None:
    frames = [
        {"case_id": f"clip{clip:02d}/{frame}", "copies": [f"clip{clip + 50}/0"] if frame == 0 else []}
        for clip in range(40)
        for frame in range(2)
    ]
    sides = split_examples(frames, ImageSpec(clip_pattern="clip[0-9]+", val_fraction=0.5))
    assert all(sides[f"clip{clip:02d}/0"] == sides[f"clip{clip:02d}/1"] for clip in range(40))


def test_clips_that_share_frames_stay_on_one_side() -> None:
    """The first two share one frame, the second and the third another one: all three belong together."""
    spec = ImageSpec(clip_pattern="clip[0-9]+", val_fraction=0.5)
    links = {("clip00", 1): "x", ("clip01", 0): "x", ("clip01", 1): "y", ("clip02", 0): "y"}
    for seed in range(20):
        frames = [
            {
                "case_id": f"clip{clip:02d}/{frame}",
                "pixel_sha256": links.get((f"clip{clip:02d}", frame), f"{clip}/{frame}"),
            }
            for clip in range(12)
            for frame in range(2)
        ]
        sides = split_examples(frames, spec.model_copy(update={"split_seed": seed}))
        assert len({sides[f"clip{clip:02d}/{frame}"] for clip in range(3) for frame in range(2)}) == 1
        assert count_trained_on(frames, sides) == 0
        assert set(sides.values()) == {"train", "val"}


def test_clips_that_cannot_be_split_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'clip\[0-9\]\+' is not found in 1 of 2 image ids: other"):
        split_examples(rows("clip1/a", "other"), ImageSpec(clip_pattern="clip[0-9]+"))
    with pytest.raises(ConfigError, match="1 usable clips that share no frames, and at least 2 are required"):
        split_examples(rows("clip1/a", "clip1/b"), ImageSpec(clip_pattern="clip[0-9]+"))
    ids = ("train/clip1_a", "val/clip1_b", "val/clip2_a")
    with pytest.raises(ConfigError, match="frames of clip 'clip1' are on both sides"):
        split_examples(rows(*ids), ImageSpec(clip_pattern="clip[0-9]+"), given_splits(examples(*ids)))
    with pytest.raises(ValueError, match="is no regular expression"):
        ImageSpec(clip_pattern="(")
