"""The cases of volumes and label maps: data that training reads, and files to predict."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from data_pipelines.shards.index import FOREGROUND, MASK, build_index
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.leaks import copy_problems, patient_notices
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.volumes.splits import assign_splits
from tests.cases.data import expect_clean, expect_notice, expect_stop, same, see, shard
from tests.cases.models import Model
from tests.cases.verdict import Case


def stored(path: Path) -> np.ndarray:
    """Read a NIfTI or picture independently of the project."""
    if path.suffix in (".png", ".jpg", ".tif"):
        return np.asarray(Image.open(path))
    return np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]


# --- names and resume of predictions ---------------------------------------------------------------------------------


def names_ending_in_four_digits(folder: Path) -> str:
    root = folder / "data"
    model = Model(folder, root)
    predicted = model.predict(root / "images", folder / "out")
    assert predicted.outcome.code == 0, predicted.outcome.err
    assert predicted.names == [f"pancreas_{number:04d}.nii.gz" for number in range(41, 45)], predicted.names
    return ", ".join(predicted.names)


def predict_nan(folder: Path) -> str:
    predicted = Model(folder, folder / "train").predict(folder / "test", folder / "out")
    rules = {name.split(".")[0]: next(r for r in RULES if r in text) for name, text in predicted.failures.items()}
    expected = dict.fromkeys(("nanpad", "onenan", "oneinf"), "non-finite") | {"constant": "constant-image"}
    assert rules == expected, rules
    assert predicted.names == ["good.nii.gz"], predicted.names
    assert predicted.outcome.code == 2
    return f"exit 2; {rules}"


RULES = ("non-finite", "constant-image", "geometry-mismatch", "channel-count", "wrong-ndim", "unreadable")


def channels_on_other_grids(folder: Path) -> str:
    predicted = Model(folder, folder / "train").predict(folder / "test", folder / "out")
    rules = {name.split(".")[0]: next(r for r in RULES if r in text) for name, text in predicted.failures.items()}
    mismatch = dict.fromkeys(("flipped", "shifted", "othershape"), "geometry-mismatch")
    alone = dict.fromkeys(("onlyone_0000", "swap_0000", "swap_0002"), "channel-count")
    assert rules == mismatch | alone, rules
    assert predicted.names == ["good.nii.gz"], predicted.names
    assert all("_0001" in predicted.failures[f"{name}.nii.gz"] for name in mismatch)
    return f"exit {predicted.outcome.code}; {rules}"


def slices_without_extension(folder: Path) -> str:
    root = folder / "data"
    predicted = Model(folder, root).predict(root, folder / "out")
    assert predicted.outcome.code == 0, predicted.outcome.err
    assert predicted.names == [f"case{k}.nii.gz" for k in range(4)], predicted.names
    return ", ".join(predicted.names)


def replaced_input(folder: Path) -> str:
    model = Model(folder, folder / "train")
    first = model.predict(folder / "test", folder / "out")
    again = model.predict(folder / "test", folder / "out")
    shutil.copy(folder / "second.nii.gz", folder / "test" / "scan.nii.gz")
    second = model.predict(folder / "test", folder / "out")
    counts = [(p.record["num_predicted"], p.record["num_found_done"]) for p in (first, again, second)]
    assert counts == [(1, 0), (0, 1), (1, 0)], counts
    assert second.labels("scan.nii.gz").shape == (20, 18, 14), second.labels("scan.nii.gz").shape
    return f"predicted, found done, predicted again {second.labels('scan.nii.gz').shape}"


def odd_places_to_predict(folder: Path) -> str:
    model = Model(folder, _training_set(folder))
    predicted = model.predict(folder / "test", folder / "out")
    assert predicted.outcome.code == 0, predicted.outcome.err
    for path in sorted((folder / "test").iterdir()):
        ours, theirs = nib.load(predicted.folder / path.name), nib.load(path)
        assert ours.shape == theirs.shape
        same(ours.affine, theirs.affine, 1e-4)  # type: ignore[attr-defined]
    return f"{', '.join(predicted.names)} where their images lie"


def _training_set(folder: Path) -> Path:
    """Write a small training set of our own."""
    from data_pipelines.volumes.phantoms import write_phantoms

    return write_phantoms(folder / "phantoms", 4, 0)


# --- pictures --------------------------------------------------------------------------------------------------------


def exif_orientation(folder: Path) -> str:
    for name in ("sq_180", "tall_90"):
        expect_stop(see(folder / name, ndim=2), "exif-orientation", "EXIF")
    return "stops naming EXIF"


def jpeg_masks(folder: Path) -> str:
    classes = {f"class{v}" if v else "background": v for v in range(8)}
    expect_stop(see(folder / "eight", ndim=2, classes=classes), "lossy-label", "JPEG")
    expect_stop(see(folder / "binary", ndim=2), "lossy-label", "JPEG")
    return "stops: lossy-label"


def stacks(folder: Path) -> str:
    seen = see(folder / "stack")
    expect_clean(seen, 4)
    import tifffile

    for name, case in seen.cases.items():
        same(case.image[0], tifffile.imread(folder / "stack/images" / f"{name}.tif").transpose(2, 1, 0))
        same(case.label, tifffile.imread(folder / "stack/masks" / f"{name}.tif").transpose(2, 1, 0))
    kinds, colours = see(folder / "kinds", ndim=2), see(folder / "rgba", ndim=2)
    expect_clean(kinds, len(list((folder / "kinds/images").iterdir())))
    expect_clean(colours, 4)
    for name, case in kinds.cases.items():
        same(case.image[0], np.load(folder / f"{name}.npy"))
    return f"{seen.summary}; kinds {kinds.summary}; rgba {colours.summary}"


def wide_image(folder: Path) -> str:
    rows, _ = shard(folder / "data", folder, ndim=2)
    reader = ShardReader(build_index(rows, {row["case_id"]: "train" for row in rows}), str(folder))
    for index in range(len(rows)):
        mask, places = reader.array(index, MASK), reader.array(index, FOREGROUND)
        assert len(places), "no foreground position"
        places = places[places[:, 0] > 0]  # the others are annotated voxels of any class
        values = mask[tuple(places[:, 1:].astype(np.int64).T)]
        assert (values == places[:, 0]).all(), f"positions lie on {np.unique(values)}"
    return "every foreground position lies on its class"


def masks_of_several_kinds(folder: Path) -> str:
    parts = []
    for name in ("bw255", "ignore255", "rgb", "onebit", "greyrgb"):
        seen = see(folder / name, ndim=2)
        if name == "onebit":
            expect_clean(seen, 4)
        elif seen.problems:
            assert set(seen.rules) <= {"label-values", "label-channels"}, seen.summary
        parts.append(f"{name}: {seen.summary}")
    return "; ".join(parts)


# --- DICOM -----------------------------------------------------------------------------------------------------------


def rounded_positions(folder: Path) -> str:
    for name in ("exact", "r2", "r1"):
        seen = see(folder / name)
        expect_clean(seen, 2)
        for case in seen.cases.values():
            assert abs(case.geometry.spacing[2] - 0.625) < 0.005, case.geometry.spacing
    return "all accepted, 0.625 mm"


def gantry_tilt(folder: Path) -> str:
    expect_stop(see(folder / "data"), "geometry-mismatch", "tilt")
    seen = see(folder / "true_label")
    expect_clean(seen, 2)
    for case in seen.cases.values():
        same(case.geometry.affine_array(), np.load(folder / "true_affine.npy"), 1e-4)
    return "sheared affine, exact; a label that ignores the tilt stops naming it"


def monochrome1(folder: Path) -> str:
    seen = see(folder / "data")
    expect_clean(seen, 4)
    for case in seen.cases.values():
        inside = case.image[0][case.label == 1].mean()
        assert inside > case.image[0][case.label == 0].mean() + 30, "contrast is reversed"
    expect_notice(seen, "inverted-contrast")
    return seen.summary


def empty_rescale(folder: Path) -> str:
    seen = see(folder / "empty")
    expect_clean(seen, 2)
    assert all(90 < np.median(case.image) < 110 for case in seen.cases.values())
    expect_clean(see(folder / "per_slice"), 2)
    return seen.summary


def compressed(folder: Path) -> str:
    images = {}
    for name in ("rle", "jpegls", "j2k"):
        seen = see(folder / name)
        expect_clean(seen, 2)
        images[name] = seen.cases["case0"].image
    same(images["rle"], images["jpegls"])
    return "all decoded, RLE and JPEG-LS alike"


def label_with_rows_reversed(folder: Path) -> str:
    seen = see(folder / "data")
    expect_clean(seen, 2)
    for case in seen.cases.values():
        assert case.image[0][case.label == 1].mean() > case.image[0][case.label == 0].mean() + 30
    expect_notice(seen, "label-reoriented")
    return seen.summary


# --- NIfTI, NRRD and MetaImage ---------------------------------------------------------------------------------------


def units(folder: Path) -> str:
    for name in ("micron", "meter", "mixed"):
        seen = see(folder / name)
        expect_clean(seen, 4)
        for case in seen.cases.values():
            same(np.array(case.geometry.spacing), np.array([0.05, 0.05, 0.1]), 1e-6)
    return "0.05 x 0.05 x 0.1 mm everywhere"


def trailing_axis(folder: Path) -> str:
    for name in ("image4d", "label4d"):
        expect_clean(see(folder / name), 4)
    return "read as three axes"


def vanishing_class(folder: Path) -> str:
    rows, notices = shard(folder / "data", folder, preprocess={"spacing": (3.0, 3.0, 3.0)})
    lost = sorted(one.case_id for one in notices if one.rule == "vanished-class" and "lesion" in one.message)
    assert lost == [row["case_id"] for row in rows], lost
    return f"vanished-class, lesion: {', '.join(lost)}"


def other_file_endings(folder: Path) -> str:
    spacings = {}
    for name in ("nrrd", "mha", "listed"):
        seen = see(folder / name)
        expect_clean(seen, 4)
        spacings[name] = seen.cases["c0"].geometry.spacing
    assert set(spacings.values()) == {(1.0, 1.0, 2.0)}, spacings
    return f"read: {', '.join(spacings)}"


def labels_with_scale(folder: Path) -> str:
    for name in ("scaled", "float"):
        seen = see(folder / name)
        expect_clean(seen, 4)
        assert all(set(np.unique(case.label)) == {0, 1, 2} for case in seen.cases.values())
    expect_notice(seen, "label-rounded")
    return seen.summary


def odd_but_good(folder: Path) -> str:
    seen = see(folder / "data")
    expect_clean(seen, len(list((folder / "data/labelsTr").iterdir())))
    assert all(case.image[0].max() > 250 for case in seen.cases.values() if case.case_id != "single")
    return seen.summary


def sform_and_qform(folder: Path) -> str:
    seen = see(folder / "data")
    if seen.problems:
        expect_stop(seen, "geometry-mismatch", "mm apart")
    return seen.summary


def unicode_forms(folder: Path) -> str:
    seen = see(folder / "data")
    expect_clean(seen, 3)
    return ", ".join(seen.cases)


# --- declarations and splits -----------------------------------------------------------------------------------------


def scans_of_one_patient(folder: Path) -> str:
    root, pattern = folder / "data", "patient[0-9]+|copy_of_1"
    rows, _ = shard(root, folder)
    dataset = see(root).dataset
    assert dataset is not None
    copies = copy_problems(rows, {case.case_id: case for case in dataset.cases})
    assert {problem.rule for problem in copies} == {"same-image"}, copies
    warned = set()
    for fold in range(5):
        sides = assign_splits(dataset, DataSpec(root=str(root), fold=fold), quarantined={copies[0].case_id}).sides
        apart = {name[:10] for name in sides if name.endswith("frame01") and sides[name] != sides.get(f"{name[:-2]}12")}
        named = " ".join(one.message for one in patient_notices(sides, dataset))
        assert all(patient in named for patient in apart), f"fold {fold}: {apart} apart, the notices say: {named}"
        warned |= apart
    by_pattern = find_cases(DataSpec(root=str(root), subject_pattern=pattern))
    sides = assign_splits(by_pattern, DataSpec(root=str(root)), quarantined=set()).sides
    assert all(sides[f"patient{k:03d}_frame01"] == sides[f"patient{k:03d}_frame12"] for k in range(1, 9))
    return f"copy found by content; {len(warned)} patients warned about; on one side with data.subject_pattern"


def declarations(folder: Path) -> str:
    expected = {
        "v1": None,
        "regions": None,
        "ignore": None,
        "absolute": "path-outside",
        "missing": "uneven-slices",
        "doubled": "uneven-slices",
        "multiframe": "not-a-slice",
    }
    for name, rule in expected.items():
        seen = see(folder / name)
        if rule is None:
            expect_clean(seen, 4)
        else:
            assert rule in seen.rules, f"{name}: {seen.summary}"
    return ", ".join(f"{name}: {rule or 'read'}" for name, rule in expected.items())


def _case(name: str, expected: str, check: Callable[[Path], str]) -> Case:
    return Case(name, expected, check)


CASES = (
    _case("01", "one label map per case, the number kept", names_ending_in_four_digits),
    _case("02", "stop, naming EXIF", exif_orientation),
    _case("03", "stop: lossy label", jpeg_masks),
    _case("04", "stop: non-finite; the good one predicted", predict_nan),
    _case("05", "accept", rounded_positions),
    _case("06", "a sheared affine that is right, or stop naming the tilt", gantry_tilt),
    _case("07", "inverted as SimpleITK does", monochrome1),
    _case("08", "slope 1, intercept 0", empty_rescale),
    _case("09", "millimetres everywhere", units),
    _case("10", "squeezed", trailing_axis),
    _case("11", "warn by class and case", vanishing_class),
    _case("13", "read", other_file_endings),
    _case("14", "exact; floats near a whole number accepted and said", labels_with_scale),
    _case("15", "read as volumes", stacks),
    _case("16", "works; output named by case", slices_without_extension),
    _case("17", "decoded", compressed),
    _case("18", "stop with the geometry rule, naming the file", channels_on_other_grids),
    _case("20", "predicted again", replaced_input),
    _case("21", "read, exact", odd_but_good),
    _case("23", "paired", unicode_forms),
    _case("24", "right patches", wide_image),
    _case("26", "clear error or mapped", masks_of_several_kinds),
    _case("27", "reoriented", label_with_rows_reversed),
    _case("29", "label maps where the images lie", odd_places_to_predict),
    _case("30", "one side of the split, or a warning naming them; copies found by content", scans_of_one_patient),
    _case("32", "exact", sform_and_qform),
    _case("33", "right or clear", declarations),
)
