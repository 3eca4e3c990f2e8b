"""Which inputs become which outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipelines.errors import UserError
from flows.registry.models import ModelVersion
from flows.running.predict import Predictor, claim_folder, plan_items


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def planned(source: Path | str, tmp_path: Path) -> dict[str, str]:
    """output name -> input paths by name."""
    items = plan_items(str(source), tmp_path / "out", takes_prompts=False)
    return {Path(item.output).name: "|".join(Path(path).name for path in item.row["path"].split("|")) for item in items}


def test_folder_of_volumes_pictures_channels_and_series(tmp_path: Path) -> None:
    names = (
        "a_0000.nii.gz",
        "a_0001.nii.gz",
        "b.nii.gz",
        "c.png",
        "._b.nii.gz",
        "notes.txt",
        "scan/1.dcm",
        "scan/2.dcm",
    )
    touch(tmp_path / "in", *names)
    assert planned(tmp_path / "in", tmp_path) == {
        "a.nii.gz": "a_0000.nii.gz|a_0001.nii.gz",
        "b.nii.gz": "b.nii.gz",
        "c.png": "c.png",
        "scan.nii.gz": "scan",
    }


def test_glob_and_single_file(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.nii.gz", "b.nii.gz")
    assert list(planned(f"{tmp_path}/in/a*", tmp_path)) == ["a.nii.gz"]
    assert list(planned(tmp_path / "in" / "b.nii.gz", tmp_path)) == ["b.nii.gz"]


def test_nothing_and_two_of_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to predict"):
        planned(tmp_path / "none", tmp_path)
    touch(tmp_path / "in", "x/a.nii.gz", "y/a.nii.gz")
    with pytest.raises(UserError, match="have the same name"):
        planned(f"{tmp_path}/in/*/*.nii.gz", tmp_path)


def test_prompts_of_three_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red circle\n\na blue square\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a red circle", "seed": 7}\n{"prompt": "a blue square"}\n')
    (tmp_path / "a.csv").write_text("prompt,seed,width\na red circle,7,\na blue square,,24\n")
    rows = {
        suffix: [
            (item.row["prompt"], int(item.row["seed"]), Path(item.output).name)
            for item in plan_items(str(tmp_path / f"a.{suffix}"), tmp_path, takes_prompts=True)
        ]
        for suffix in ("txt", "jsonl", "csv")
    }
    assert rows["txt"] == [("a red circle", 0, "0.png"), ("a blue square", 1, "1.png")]
    wide = plan_items(str(tmp_path / "a.csv"), tmp_path, takes_prompts=True)[1]
    assert wide.row == {"prompt": "a blue square", "seed": 1, "width": 24}
    assert rows["jsonl"] == rows["csv"] == [("a red circle", 7, "0.png"), ("a blue square", 1, "1.png")]


def test_a_row_without_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n{"text": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl: row 2: prompt: Field required"):
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
    with pytest.raises(UserError, match=message):
        plan_items(str(tmp_path / "a.jsonl"), tmp_path, takes_prompts=True)


class Model:
    """Stands for the loaded model: writes what it was asked, fails for one input half-way."""

    def predict(self, columns: dict[str, list[str]]) -> None:
        Path(columns["output"][0]).write_text("labels")
        if "broken" in columns["path"][0]:
            raise RuntimeError("no such voxel")


def test_a_failure_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    predictor = Predictor()
    predictor.model = Model()
    told = [
        predictor({"model": "", "row": json.dumps({"path": f"{name}.nii.gz"}), "output": str(tmp_path / name)})
        for name in ("whole", "broken")
    ]
    assert [result["error"] for result in told] == ["", "broken.nii.gz: no such voxel"]
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path) -> None:
    told = Predictor()({"model": str(tmp_path / "none"), "row": "{}", "output": str(tmp_path / "a")})
    assert told["is_fatal"]


def test_an_input_that_is_another_now_is_due_again(tmp_path: Path) -> None:
    prompts, folder = tmp_path / "a.csv", tmp_path / "out"

    def claim(text: str, number: str = "1") -> None:
        prompts.write_text(text)
        version = ModelVersion("m", number, aliases=(), metrics={}, gate="", tags={})
        claim_folder(folder, version, plan_items(str(prompts), folder, takes_prompts=True))

    claim("prompt,width\na circle,32\na square,32\n")
    touch(folder, "0.png", "1.png")
    claim("prompt,width\na circle,32\na square,64\n")
    assert [path.name for path in sorted(folder.iterdir())] == ["0.png", "predictions.json"]
    claim("prompt,width\na circle,32\n")
    assert (folder / "0.png").exists()
    with pytest.raises(UserError, match="holds predictions of models:/m/1, this is models:/m/2"):
        claim("prompt\na circle\n", "2")
