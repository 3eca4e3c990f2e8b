"""Images to predict: which files are channels of one image, which folders are series, and what is skipped."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from data_pipelines.errors import InputError
from data_pipelines.volumes.formats.base import WRITTEN_SUFFIXES
from flows.running.prediction.volumes import Naming, find_images, plan_volumes

ONE, TWO, NNUNET = Naming(3), Naming(3, files_per_image=2), Naming(3, has_channel_numbers=True)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def slices(folder: Path, *names: str) -> Path:
    """Write files that are marked as DICOM, as scanners do: any name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(bytes(128) + b"DICM")
    return folder


def planned(source: Path | str, naming: Naming = ONE, suffix: str = "") -> dict[str, str]:
    """Plan volumes; return the name of each output with the names of its inputs."""
    items, _ = plan_volumes(str(source), Path("/out"), naming, suffix)
    return {Path(item.output).name: "|".join(Path(path).name for path in item.row["path"].split("|")) for item in items}


@pytest.mark.parametrize("naming", [ONE, NNUNET, Naming()])
def test_four_digits_are_part_of_the_name_of_a_one_file_model(tmp_path: Path, naming: Naming) -> None:
    touch(tmp_path, "pancreas_0041.nii.gz", "pancreas_0042.nii.gz", "pancreas_0000.nii.gz", "pancreas_0001.nii.gz")
    names = [f"pancreas_{number}" for number in ("0000", "0001", "0041", "0042")]
    assert sorted(planned(tmp_path, naming)) == [f"{name}.nii.gz" for name in names]


def test_the_number_of_the_only_channel_is_dropped_where_training_had_it_and_all_have_it(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz")
    assert list(planned(tmp_path, NNUNET)) == ["a.nii.gz", "b.nii.gz"]
    assert list(planned(tmp_path, ONE)) == ["a_0000.nii.gz", "b_0000.nii.gz"]
    touch(tmp_path, "c.nii.gz")
    assert list(planned(tmp_path, NNUNET)) == ["a_0000.nii.gz", "b_0000.nii.gz", "c.nii.gz"]


def test_channels_are_files_numbered_exactly_from_zero(tmp_path: Path) -> None:
    touch(tmp_path, "good_0000.nii.gz", "good_0001.nii", "few_0000.nii.gz", "gap_0000.nii.gz", "gap_0002.nii.gz")
    touch(tmp_path, "many_0000.nii", "many_0001.nii", "many_0002.nii", "late_0041.nii", "late_0042.nii", "plain.nii")
    assert planned(tmp_path, TWO) == {
        "good.nii.gz": "good_0000.nii.gz|good_0001.nii",
        "few_0000.nii.gz": "few_0000.nii.gz",
        "gap_0000.nii.gz": "gap_0000.nii.gz",
        "gap_0002.nii.gz": "gap_0002.nii.gz",
        "many_0000.nii.gz": "many_0000.nii",
        "many_0001.nii.gz": "many_0001.nii",
        "many_0002.nii.gz": "many_0002.nii",
        "late_0041.nii.gz": "late_0041.nii",
        "late_0042.nii.gz": "late_0042.nii",
        "plain.nii.gz": "plain.nii",
    }


def test_photographs_of_a_colour_model_are_never_its_channels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"IMG_{number:04d}.JPG" for number in range(3)))
    assert sorted(planned(tmp_path, Naming(2))) == ["IMG_0000.png", "IMG_0001.png", "IMG_0002.png"]


def test_channels_of_two_folders_are_not_mixed(tmp_path: Path) -> None:
    touch(tmp_path, "x/a_0000.nii", "y/a_0001.nii")
    assert sorted(planned(f"{tmp_path}/*/*.nii", TWO)) == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_images_of_one_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/a_000{channel}.nii" for folder in "xy" for channel in (0, 1)))
    with pytest.raises(InputError, match=r"/x/a_0000\.nii and .*/y/a_0000\.nii have the same name"):
        planned(f"{tmp_path}/*/*.nii", TWO)


def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "not fetched")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone")
    assert planned(tmp_path) == {"a.nii.gz": "a.nii"}
    assert find_images(str(tmp_path), ONE).skipped == {str(tmp_path / "notes.txt"): "links to nothing"}


def test_formats_and_the_suffix_of_their_label_maps(tmp_path: Path) -> None:
    touch(tmp_path, "a.NII.GZ", "b.nhdr", "c.mha", "d.png", "e.tiff", "f.jpg")
    slices(tmp_path / "g", "1")
    volumes = {"a.nii.gz", "b.nrrd", "c.mha", "d.nii.gz", "e.tif", "f.nii.gz", "g.nii.gz"}
    flat = {"a.nii.gz", "b.nrrd", "c.mha", "d.png", "e.tif", "f.png", "g.nii.gz"}
    assert set(planned(tmp_path, Naming(3, label_suffixes=WRITTEN_SUFFIXES))) == volumes
    assert set(planned(tmp_path, Naming(2, label_suffixes=WRITTEN_SUFFIXES))) == flat
    assert set(planned(tmp_path, Naming(3))) == {f"{name}.nii.gz" for name in "abcdefg"}, "an earlier model"
    earlier = {"a.nii.gz", "b.nii.gz", "c.nii.gz", "d.png", "e.png", "f.png", "g.nii.gz"}
    assert set(planned(tmp_path, Naming(2))) == earlier


def test_a_format_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.nii.gz", "b.tif")
    all_formats = Naming(3, label_suffixes=WRITTEN_SUFFIXES)
    assert set(planned(tmp_path, all_formats, ".mha")) == {"a.mha", "b.mha"}
    assert caplog.text == ""
    assert set(planned(tmp_path, all_formats, ".tif")) == {"a.tif", "b.tif"}
    assert "--format tif keeps the voxel size of 1 inputs" in caplog.text
    with pytest.raises(InputError, match=r"--format nrrd: this model writes nii\.gz, png; name one of them"):
        planned(tmp_path, Naming(3), ".nrrd")
    with pytest.raises(InputError, match=r"--format dcm: /.*/a\.nii\.gz is no series of DICOM slices"):
        planned(tmp_path, Naming(3, label_suffixes=(".dcm",)), ".dcm")
    series = slices(tmp_path / "g", "1")
    assert set(planned(series, Naming(3, label_suffixes=(".dcm",)), ".dcm")) == {"g.dcm"}
    with pytest.raises(InputError, match="--format png: PNG holds no volumes"):
        planned(tmp_path, all_formats, ".png")


def test_series_by_content_named_as_their_case(tmp_path: Path) -> None:
    slices(tmp_path / "bare", "1", "2")
    slices(tmp_path / "ima", "1.IMA")
    slices(tmp_path / "case" / "image", "x")
    touch(tmp_path, "case/label.nii.gz", "classes.json", "letters/a.txt")
    assert planned(tmp_path) == {"bare.nii.gz": "bare", "ima.nii.gz": "ima", "case.nii.gz": "image"}
    assert planned(tmp_path / "case") == planned(tmp_path / "case" / "image") == {"case.nii.gz": "image"}
    assert planned(tmp_path / "bare") == {"bare.nii.gz": "bare"}
    assert planned(f"{tmp_path}/ba*") == {"bare.nii.gz": "bare"}
    skipped = find_images(str(tmp_path), ONE).skipped
    assert {Path(path).name: reason for path, reason in skipped.items()} == {
        "classes.json": ".json is no supported format",
        "letters": "the folder holds no DICOM slices",
    }


def test_the_folder_of_a_data_set_is_its_images(tmp_path: Path) -> None:
    touch(tmp_path / "f", "images/a.png", "masks/a.png", "classes.json")
    assert planned(tmp_path / "f", Naming(2)) == {"a.png": "a.png"}
    touch(tmp_path / "n", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "dataset.json")
    (tmp_path / "n/dataset.json").write_text("{}")
    assert planned(tmp_path / "n", NNUNET) == {"a.nii.gz": "a_0000.nii.gz"}
    touch(tmp_path / "n", "imagesTs/b_0000.nii.gz")
    with pytest.raises(InputError, match=r"several folders of images \(imagesTs, imagesTr\)"):
        planned(tmp_path / "n", NNUNET)
    touch(tmp_path / "l", "t1.nii", "t2.nii")
    listing = {"a": {"images": ["t1.nii", "t2.nii"], "label": "seg.nii"}}
    (tmp_path / "l/dataset.json").write_text(json.dumps({"dataset": listing}))
    assert planned(tmp_path / "l", TWO) == {"a.nii.gz": "t1.nii|t2.nii"}


def test_what_is_skipped_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.bmp", "notes", "._a.nii", ".DS_Store", "c.mhd", "c.raw")
    (tmp_path / "c.mhd").write_text("ElementDataFile = c.raw\n")
    found = find_images(str(tmp_path), ONE)
    assert [name for name, _ in found.images] == ["a", "c"]
    assert {Path(path).name: reason for path, reason in found.skipped.items()} == {
        "b.bmp": ".bmp is no supported format",
        "notes": "a name without an ending is no supported format",
    }


def test_nothing_to_predict_says_what_lies_there(tmp_path: Path) -> None:
    touch(tmp_path, "a.bmp", "b.bmp")
    with pytest.raises(InputError, match=r"nothing to predict \(2 entries: \.bmp is no supported format\)"):
        planned(tmp_path)
    with pytest.raises(InputError, match="nothing to predict; name"):
        planned(tmp_path / "none")


@pytest.mark.parametrize("names", [("a.nii", "a.nii.gz"), ("a.nii", "A.nii"), ("ü.nii", "decomposed")])
def test_two_images_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(tmp_path, *(unicodedata.normalize("NFD", "ü.nii") if name == "decomposed" else name for name in names))
    with pytest.raises(InputError, match="have the same name"):
        planned(tmp_path)
