"""Inputs of a prediction: which files and rows become which outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from flows.running.prediction.inputs import plan_items
from flows.running.prediction.pictures import plan_pictures
from flows.running.prediction.volumes import Naming


def test_volumes_are_sorted_by_output_and_what_is_skipped_is_named(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    plan = plan_items(str(tmp_path), tmp_path / "out", takes_prompts=False, naming=Naming(files_per_image=2))
    assert [Path(item.output).name for item in plan.items] == ["a.nii.gz", "b.nii.gz"]
    assert [Path(path).name for path in plan.skipped] == ["notes.txt"]


def test_prompts_of_three_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red circle\n\na blue square\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a red circle", "seed": 7}\n{"prompt": "a blue square"}\n')
    (tmp_path / "a.csv").write_text("prompt,seed,width\na red circle,7,\na blue square,,24\n")
    rows = {
        suffix: [
            (item.row["prompt"], int(item.row["seed"]), Path(item.output).name)
            for item in plan_items(str(tmp_path / f"a.{suffix}"), tmp_path, takes_prompts=True).items
        ]
        for suffix in ("txt", "jsonl", "csv")
    }
    assert rows["txt"] == [("a red circle", 0, "0.png"), ("a blue square", 1, "1.png")]
    wide = plan_items(str(tmp_path / "a.csv"), tmp_path, takes_prompts=True).items[1]
    assert wide.row == {"prompt": "a blue square", "seed": 1, "width": 24}
    assert rows["jsonl"] == rows["csv"] == [("a red circle", 7, "0.png"), ("a blue square", 1, "1.png")]


def test_prompts_as_spreadsheets_write_them(tmp_path: Path) -> None:
    """Byte order mark, a line break and a comma in quotes; U+2028 cuts no line."""
    (tmp_path / "a.csv").write_text('prompt,seed\n"a circle,\nred",7\n', encoding="utf-8-sig")
    (item,) = plan_items(str(tmp_path / "a.csv"), tmp_path, takes_prompts=True).items
    assert item.row == {"prompt": "a circle,\nred", "seed": 7}
    (tmp_path / "a.txt").write_text("a\u2028b\n", encoding="utf-8-sig")
    (item,) = plan_items(str(tmp_path / "a.txt"), tmp_path, takes_prompts=True).items
    assert item.row["prompt"] == "a\u2028b"
    (tmp_path / "b.csv").write_text("prompt,seed\na circle, red,7\n")
    with pytest.raises(InputError, match=r"b\.csv: row 1 has more cells than the header; quote"):
        plan_items(str(tmp_path / "b.csv"), tmp_path, takes_prompts=True)


def test_pictures_beside_or_below_their_predictions(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(InputError, match="predictions would lie among their inputs"):
        plan_items(str(tmp_path / "photos"), tmp_path / "photos", takes_prompts=False, takes_pictures=True)
    with pytest.raises(InputError, match="predictions would lie among their inputs"):
        plan_items(str(tmp_path / "photos" / "*"), tmp_path / "photos", takes_prompts=False, takes_pictures=True)
    above = plan_items(str(tmp_path / "photos"), tmp_path, takes_prompts=False, takes_pictures=True)
    assert [Path(item.output).name for item in above.items] == ["a.png"]
    (tmp_path / "photos" / "out").mkdir()
    (tmp_path / "photos" / "out" / "a.png").touch()
    below = plan_items(str(tmp_path / "photos"), tmp_path / "photos" / "out", takes_prompts=False, takes_pictures=True)
    assert [item.row["path"] for item in below.items] == [str(tmp_path / "photos" / "a.png")]


def test_outputs_of_prompts_sort_as_their_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a circle\n" * 11)
    names = [Path(item.output).name for item in plan_items(str(tmp_path / "a.txt"), tmp_path, takes_prompts=True).items]
    assert names == sorted(names) == [f"{number:02d}.png" for number in range(11)]


def test_a_row_without_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl: row 2: text: Extra inputs.*a row may have prompt, class, image"):
        plan_items(str(tmp_path / "a.jsonl"), tmp_path, takes_prompts=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "x"\n', "row 1: the row"),
        ('{"prompt": "x", "seed": "seven"}\n', "row 1: seed: Input should be a valid integer"),
        ('{"prompt": "x", "steps": 7}\n', "row 1: steps: Extra inputs are not permitted"),
        ('["x"]\n', "row 1: the row"),
    ],
)
def test_a_row_that_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        plan_items(str(tmp_path / "a.jsonl"), tmp_path, takes_prompts=True)


def test_a_file_of_prompts_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable file of prompts"):
        plan_items(str(tmp_path / "none.txt"), tmp_path, takes_prompts=True)


def test_pictures_keep_their_names_and_results_are_no_input(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/a.jpg", "notes.txt", ".hidden.png", "out/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    plan = plan_items(str(tmp_path), tmp_path / "out", takes_prompts=False, takes_pictures=True)
    assert [Path(item.output).name for item in plan.items] == ["b.png", "sub_a.png"]
    assert [item.row for item in plan.items] == [{"path": str(tmp_path / name)} for name in ("b.PNG", "sub/a.jpg")]
    assert [Path(path).name for path in plan.skipped] == ["notes.txt"]
    matched = plan_items(str(tmp_path / "sub/*.jpg"), tmp_path / "o", takes_prompts=False, takes_pictures=True)
    assert [Path(item.output).name for item in matched.items] == ["a.png"]
    (tmp_path / "b.jpg").touch()
    with pytest.raises(InputError, match=r"b\.\w+ and .*b\.\w+ have the same name"):
        plan_items(str(tmp_path), tmp_path / "out", takes_prompts=False, takes_pictures=True)
    with pytest.raises(InputError, match="nothing to predict"):
        plan_items(str(tmp_path / "notes.txt"), tmp_path / "o", takes_prompts=False, takes_pictures=True)


def test_rows_of_conditions_are_columns_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"class": "cat", "image": "a.png"}\n{"prompt": "x", "seed": 7}\n')
    found = plan_items(str(tmp_path / "a.jsonl"), tmp_path, takes_prompts=True)
    assert [item.row for item in found.items] == [
        {"class": "cat", "image": str(Path("a.png").absolute()), "seed": 0},
        {"prompt": "x", "seed": 7},
    ]


def test_images_are_found_as_training_finds_them(tmp_path: Path) -> None:
    """Links to folders are followed, and a name with brackets is a file where there is one of that name."""
    other, photos = tmp_path / "other", tmp_path / "photos"
    for path in (other / "b.png", photos / "IMG[1].png", photos / "IMG1.png", photos / "notes.txt"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (photos / "more").symlink_to(other)
    items, skipped = plan_pictures(str(photos), tmp_path / "out")
    assert [Path(item.output).name for item in items] == ["IMG1.png", "IMG[1].png", "more_b.png"]
    assert [Path(path).name for path in skipped] == ["notes.txt"]
    ((alone,), _) = plan_pictures(str(photos / "IMG[1].png"), tmp_path / "out")
    assert Path(alone.row["path"]).name == "IMG[1].png"
