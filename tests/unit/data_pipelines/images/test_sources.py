"""Finding captioned images: each layout, told apart by its files, and every rule that names and captions can break."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.errors import ConfigError, DataError
from data_pipelines.images.examples import Examples
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec

EMOJI = Path(__file__).parents[5] / "shared/data/noto_emoji_128"


def touch(root: Path, *names: str) -> Path:
    """Empty files: finding examples never opens an image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def imagefolder(root: Path, *entries: Any, images: tuple[str, ...] = ()) -> Path:
    """``metadata.jsonl`` of these entries, dictionaries or raw lines, beside images."""
    touch(root, *images)
    lines = [entry if isinstance(entry, bytes) else json.dumps(entry).encode() for entry in entries]
    (root / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return root


def write_tar(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """A plain tar of these members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    """One Parquet file of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def find(root: Path, layout: str = "auto") -> Examples:
    return find_examples(CaptionedSpec(root=str(root), layout=layout), root / "unused")  # type: ignore[arg-type]


def captions(found: Examples) -> dict[str, str]:
    return {example.example_id: example.caption for example in found.examples}


def listed(found: Examples) -> dict[str, str]:
    """Example id -> rule of each problem; every one names an existing file, what is wrong and a remedy."""
    for problem in found.problems:
        assert problem.message
        assert problem.remedy
    assert len({problem.case_id for problem in found.problems}) == len(found.problems)
    return {problem.case_id: problem.rule for problem in found.problems}


# --- imagefolder -----------------------------------------------------------------------------------------------------


def test_imagefolder(tmp_path: Path) -> None:
    root = imagefolder(
        tmp_path,
        {"file_name": "a.png", "caption": " a cat \n"},
        {"file_name": "./sub/b.JPG", "text": "ein Hündchen", "other": 1},
        b"",
        images=("a.png", "sub/b.JPG", ".hidden.png", ".cache/c.png"),
    )
    found = find(root)
    assert captions(found) == {"a": "a cat", "sub/b": "ein Hündchen"}
    assert [example.image for example in found.examples] == [str(root / "a.png"), str(root / "sub/b.JPG")]
    assert found.problems == ()
    assert found.metadata == {"layout": "imagefolder"}
    assert found.name == root.name


def test_metadata_in_subfolders_and_csv(tmp_path: Path) -> None:
    imagefolder(tmp_path / "train", {"file_name": "a.png", "caption": "one"}, images=("a.png",))
    touch(tmp_path, "val/x/a.webp")
    with (tmp_path / "val/metadata.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([["file_name", "text"], ["x/a.webp", 'two, "quoted"\nlines']])
    assert captions(find(tmp_path)) == {"train/a": "one", "val/x/a": 'two, "quoted"\nlines'}


FAULTS: dict[str, tuple[Any, str, str]] = {  # entry, rule, words of the message
    "gone": ({"file_name": "gone.png", "caption": "c"}, "image-missing", "names 'gone.png', and there is no such"),
    "notes": ({"file_name": "notes.psd", "caption": "c"}, "image-missing", "known are names in .jpg"),
    "empty": ({"file_name": "empty.png", "caption": " \n"}, "caption-empty", "the caption is empty"),
    "number": ({"file_name": "number.png", "caption": 7}, "caption-not-text", "must be text, got int 7"),
    "list": ({"file_name": "list.png", "caption": ["a"]}, "caption-not-text", "got list ['a']"),
    "null": ({"file_name": "null.png", "caption": None}, "caption-not-text", "got NoneType None"),
    "latin": (b'{"file_name": "latin.png", "caption": "caf\xe9"}', "caption-not-utf8", r"caf\udce9"),
    "half": (b'{"file_name": "half.png", "caption": "\\ud83d"}', "caption-not-utf8", r"\ud83d"),
    "without": ({"file_name": "without.png", "label": 1}, "caption-missing", "none of caption, text, TEXT"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_metadata_faults(tmp_path: Path, name: str) -> None:
    entry, rule, words = FAULTS[name]
    images = () if rule == "image-missing" else (f"{name}.png",)
    root = imagefolder(tmp_path, {"file_name": "ok.png", "caption": "ok"}, entry, images=("ok.png", *images))
    found = find(root)
    assert captions(found) == {"ok": "ok"}
    assert listed(found) == {name: rule}
    assert words in found.problems[0].message
    assert found.problems[0].path == f"{root}/metadata.jsonl:2"


@pytest.mark.parametrize(
    ("line", "rule", "words"),
    [
        (b'{"file_name": "a.png", ', "unreadable-line", "is not valid JSON"),
        (b'["a.png"]', "unreadable-line", "expected an object, got list"),
        (b"[" * 100_000, "unreadable-line", "is not valid JSON"),
        (b'{"caption": "c"}', "no-file-name", "got None"),
        (b'{"file_name": "../x.png", "caption": "c"}', "unsafe-path", "'../x.png'"),
        (b'{"file_name": "a/..\\\\..\\\\x.png", "caption": "c"}', "unsafe-path", "must stay within the folder"),
        (b'{"file_name": "/etc/x.png", "caption": "c"}', "unsafe-path", "'/etc/x.png'"),
        (b'{"file_name": "C:\\\\x.png", "caption": "c"}', "unsafe-path", "must stay within the folder"),
    ],
)
def test_unusable_lines(tmp_path: Path, line: bytes, rule: str, words: str) -> None:
    root = imagefolder(tmp_path, {"file_name": "ok.png", "caption": "ok"}, line, images=("ok.png",))
    found = find(root)
    assert listed(found) == {"metadata.jsonl:2": rule}
    assert words in found.problems[0].message
    assert found.problems[0].path.endswith("metadata.jsonl:2")
    assert captions(found) == {"ok": "ok"}


def test_names_given_twice(tmp_path: Path) -> None:
    root = imagefolder(
        tmp_path,
        *({"file_name": name, "caption": name} for name in ("a.png", "./a.png", "b.png", "b.jpg", "c.png")),
        images=("a.png", "b.png", "b.jpg", "c.png", "d.png"),
    )
    found = find(root)
    assert captions(found) == {"c": "c.png"}
    assert listed(found) == {"a": "duplicate-file-name", "b": "duplicate-id", "d": "caption-missing"}
    by_rule = {problem.rule: problem for problem in found.problems}
    assert "metadata.jsonl:1" in by_rule["duplicate-file-name"].message
    assert "b.png" in by_rule["duplicate-id"].message
    assert "b.jpg" in by_rule["duplicate-id"].message
    assert by_rule["caption-missing"].path == str(root / "d.png")


def test_unusable_csv(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png\nb.png,x,y\n")
    found = find(tmp_path)
    assert listed(found) == {"a": "caption-not-text", "metadata.csv:3": "unreadable-line", "b": "caption-missing"}
    (tmp_path / "metadata.csv").write_text("image,caption\na.png,x\n")
    with pytest.raises(DataError, match=r"metadata\.csv: columns file_name and caption .* got \['image', 'caption'\]"):
        find(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png," + "x" * 200_000 + "\nb.png,y\n")
    assert listed(find(tmp_path))["metadata.csv:2"] == "unreadable-line"
    assert captions(find(tmp_path)) == {"b": "y"}
    imagefolder(tmp_path)
    with pytest.raises(DataError, match=r"a metadata\.jsonl beside it"):
        find(tmp_path)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "caf\udce9.png")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "caf\udce9.txt").write_text("c")
    found = find(tmp_path)
    assert captions(found) == {"a": "a"}
    assert listed(found) == {r"caf\udce9": "bad-name"}
    str(found.problems[0]).encode()


# --- sidecar ---------------------------------------------------------------------------------------------------------


def test_sidecars(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "s/b.jpg", "s/c.jpg", "README.txt", "dataset_infos.json", "00000_stats.json")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n")
    (tmp_path / "a.json").write_text('{"caption": "not this one"}')
    (tmp_path / "s/b.json").write_text('{"text": "a dog"}')
    (tmp_path / "s/c.json").write_text('{"url": "", "caption": "a cow"}')
    touch(tmp_path, "00000.parquet")  # of URLs, as img2dataset writes it
    found = find(tmp_path)
    assert captions(found) == {"a": "a cat", "s/b": "a dog", "s/c": "a cow"}
    assert found.problems == ()
    assert found.metadata == {"layout": "sidecar"}


def test_sidecar_faults(tmp_path: Path) -> None:
    contents = {
        "latin.txt": b"caf\xe9",
        "empty.txt": b"\n",
        "huge.txt": b"x" * (2 << 20),
        "broken.json": b"{",
        "list.json": b"[]",
        "nokey.json": b'{"label": 3}',
        "number.json": b'{"caption": 3}',
        "ok.txt": b"fine",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        touch(tmp_path, Path(name).stem + ".png")
    (tmp_path / "orphan.txt").write_text("nobody")
    touch(tmp_path, "bare.png")
    found = find(tmp_path)
    assert captions(found) == {"ok": "fine"}
    assert listed(found) == {
        "latin": "caption-not-utf8",
        "empty": "caption-empty",
        "huge": "caption-too-large",
        "broken": "unreadable-json",
        "list": "caption-not-text",
        "nokey": "caption-missing",
        "number": "caption-not-text",
        "orphan": "image-missing",
        "bare": "caption-missing",
    }
    assert all(Path(problem.path).is_file() for problem in found.problems)


# --- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caption", ["caption", "text", "TEXT"])
@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image", pa.binary()),
        ("jpg", pa.large_binary()),
        ("bytes", pa.binary()),
    ],
)
def test_parquet(tmp_path: Path, caption: str, image: str, kind: pa.DataType) -> None:
    value = {"bytes": b"x", "path": "p"} if pa.types.is_struct(kind) else b"x"
    columns = {image: pa.array([value, value], kind), caption: ["one", " two "], "label": [1, 2]}
    path = write_parquet(tmp_path / "data/train.parquet", **columns)
    found = find(tmp_path)
    assert captions(found) == {"data/train/000000": "one", "data/train/000001": "two"}
    assert [(example.image, example.part) for example in found.examples] == [(str(path), 0), (str(path), 1)]
    assert found.metadata == {"layout": "parquet"}


def test_parquet_faults(tmp_path: Path) -> None:
    images = pa.array([b"x"] * 4, pa.binary())
    texts = pa.array([b"fine", None, b"caf\xe9", b" "], pa.binary()).cast(pa.string(), safe=False)
    write_parquet(tmp_path / "rows.parquet", image=images, caption=texts)
    write_parquet(tmp_path / "noimage.parquet", url=["u"], caption=["c"])
    write_parquet(tmp_path / "nocaption.parquet", image=images)
    write_parquet(tmp_path / "lists.parquet", image=images, caption=[["a"]] * 4)
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    found = find(tmp_path)
    assert captions(found) == {"rows/000000": "fine"}
    assert listed(found) == {
        "rows/000001": "caption-not-text",
        "rows/000002": "caption-not-utf8",
        "rows/000003": "caption-empty",
        "noimage": "no-image-column",
        "nocaption": "caption-missing",
        "lists": "caption-not-text",
        "cut": "unreadable",
    }
    by_id = {problem.case_id: problem for problem in found.problems}
    assert by_id["rows/000001"].path.endswith("rows.parquet: row 1")
    assert "url: string, caption: string" in by_id["noimage"].message


def test_dictionary_captions(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d.parquet", image=[b"x", b"y"], caption=pa.array(["a", "a"]).dictionary_encode())
    assert captions(find(tmp_path)) == {"d/000000": "a", "d/000001": "a"}


# --- WebDataset ------------------------------------------------------------------------------------------------------


def test_tars(tmp_path: Path) -> None:
    members = {
        "000000.jpg": b"J" * 700,
        "000000.txt": b"a cat\n",
        "000000.json": b'{"caption": "not this one"}',
        "000001.png": b"P",
        "000001.json": b'{"caption": "a dog"}',
        "sub/2.x.JPG": b"ignored, its extension is x.jpg",
        "sub/2.webp": b"W",
        "sub/2.txt": b"a cow",
        "._000003.jpg": b"of macOS",
        "sub/long_" + "n" * 120 + ".jpg": b"L" * 3,
        "sub/long_" + "n" * 120 + ".txt": b"long",
    }
    path = write_tar(tmp_path / "00000.tar", members)
    touch(tmp_path, "00000.parquet", "00000_stats.json")
    found = find(tmp_path)
    assert found.problems == ()
    assert captions(found) == {
        "00000/000000": "a cat",
        "00000/000001": "a dog",
        "00000/sub/2": "a cow",
        "00000/sub/long_" + "n" * 120: "long",
    }
    content = path.read_bytes()
    for example in found.examples:
        assert example.place is not None
        offset, size = example.place
        assert content[offset : offset + size] == members[str(example.part)]


def test_tar_faults(tmp_path: Path) -> None:
    members = [
        ("ok.jpg", b"x"),
        ("ok.txt", b"fine"),
        ("bare.jpg", b"x"),
        ("orphan.txt", b"nobody"),
        ("two.jpg", b"x"),
        ("two.png", b"x"),
        ("two.txt", b"t"),
        ("again.jpg", b"x"),
        ("again.jpg", b"y"),
        ("again.txt", b"t"),
        ("latin.jpg", b"x"),
        ("latin.txt", b"caf\xe9"),
        ("../up.jpg", b"x"),
        ("/abs.txt", b"x"),
    ]
    path = write_tar(tmp_path / "t.tar", members)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = find(tmp_path)
    assert captions(found) == {"t/ok": "fine"}
    assert listed(found) == {
        "t/bare": "caption-missing",
        "t/orphan": "image-missing",
        "t/two": "duplicate-id",
        "t/again": "duplicate-id",
        "t/latin": "caption-not-utf8",
        "t/../up.jpg": "unsafe-path",
        "t//abs.txt": "unsafe-path",
        "t/link.jpg": "not-a-file",
    }


def test_tar_that_is_cut_short_gives_what_comes_before(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.txt": b"fine", "a.jpg": b"x", "b.txt": b"cut", "b.jpg": b"x" * 5000})
    path.write_bytes(path.read_bytes()[:5000])
    (tmp_path / "gz.tar").write_bytes(b"\x1f\x8b not a tar at all" * 100)
    found = find(tmp_path)
    assert captions(found) == {"t/a": "fine"}
    assert listed(found) == {"t": "unreadable", "t/b": "image-missing", "gz": "unreadable"}
    assert "after 3 members: b.jpg goes beyond the end" in next(p.message for p in found.problems if p.case_id == "t")


# --- which layout ----------------------------------------------------------------------------------------------------


def test_unknown_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: there is no folder .*nowhere; correct the path"):
        find(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"data\.root: name the folder"):
        find_examples(CaptionedSpec(), tmp_path)
    with pytest.raises(ConfigError, match=r"It holds: nothing\. Looked for:\n  imagefolder .*metadata\.jsonl"):
        find(tmp_path)
    touch(tmp_path, "a.png", "b.png")
    with pytest.raises(ConfigError, match=r"2 images without any caption\. a\.png, b\.png"):
        find(tmp_path)
    for layout in ("imagefolder", "sidecar", "parquet", "webdataset"):
        with pytest.raises(ConfigError, match=rf"has nothing of layout `{layout}`.*(?s:.*)name another data\.layout"):
            find(tmp_path, layout)


def test_a_layout_without_examples_is_a_problem(tmp_path: Path) -> None:
    imagefolder(tmp_path)
    assert [problem.rule for problem in find(tmp_path).problems] == ["empty-folder"]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    imagefolder(tmp_path, {"file_name": "a.png", "caption": "a"}, images=("a.png",))
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert captions(find(tmp_path)) == {"a": "a"}


# --- generated, and real ---------------------------------------------------------------------------------------------


def test_shapes_are_written_once(tmp_path: Path) -> None:
    spec = CaptionedSpec(layout="shapes", num_shapes=16, resolution=32)
    found = find_examples(spec, tmp_path)
    assert len(found.examples) == 16
    assert found.name == "generated shapes"
    assert found.problems == ()
    (folder,) = tmp_path.iterdir()  # nothing temporary is left
    before = (folder / "metadata.jsonl").stat().st_mtime_ns
    assert find_examples(spec, tmp_path) == found
    assert (folder / "metadata.jsonl").stat().st_mtime_ns == before
    find_examples(spec.model_copy(update={"shapes_seed": 1}), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not EMOJI.is_dir(), reason=f"{EMOJI} is not here")
def test_emoji() -> None:
    found = find(EMOJI)
    assert (len(found.examples), found.problems) == (3519, ())
    assert found.examples[0].example_id == "images/u0023"
    assert found.examples[0].caption == "an emoji of number"
