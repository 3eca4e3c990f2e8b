"""Loose images with captions beside them, and every rule that names and captions can break."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import DataError
from tests.support.captioned import captions, find, imagefolder, listed, touch


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
    "list": ({"file_name": "list.png", "caption": ["a", 7]}, "caption-not-text", "must be text, got int 7"),
    "none": ({"file_name": "none.png", "caption": []}, "caption-empty", "the list of captions is empty"),
    "wide": ({"file_name": "wide.png", "caption": "p\0i\0c\0"}, "caption-not-utf8", "holds NUL characters"),
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
    lines = {"metadata.csv:2": "unreadable-line", "metadata.csv:3": "unreadable-line"}
    assert listed(found) == lines | {"a": "caption-missing", "b": "caption-missing"}
    assert "has 1 cells, and there are 2 columns" in found.problems[0].message
    (tmp_path / "metadata.csv").write_text("image,caption\na.png,x\n")
    with pytest.raises(DataError, match=r"metadata\.csv: columns file_name and caption .* got \['image', 'caption'\]"):
        find(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png," + "x" * 200_000 + "\nb.png,y\n")
    assert listed(find(tmp_path))["metadata.csv:2"] == "unreadable-line"
    assert captions(find(tmp_path)) == {"b": "y"}
    imagefolder(tmp_path)
    with pytest.raises(DataError, match=r"a metadata\.jsonl beside it"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("text", "bad", "reach"),
    [
        ('0.png,zero\n1.png,"one inch\n2.png,two\n3.png,three 5" wide\n4.png,four\n', ["1", "2", "3"], "to line 5"),
        ('0.png,zero\n4.png,four\n1.png,"one inch\n2.png,two\n3.png,three\n', ["1", "2", "3"], "to line 6"),
        ('0.png,zero\n1.png,"one" inch\n2.png,two\n3.png,three\n4.png,four\n', ["1"], "is not valid CSV"),
        ("0.png,zero\n1.png,one, or two\n2.png,two\n3.png,three\n4.png,four\n", ["1"], "has 3 cells"),
    ],
    ids=["closed later", "never closed", "closed too early", "comma"],
)
def test_a_stray_quote_swallows_no_lines(tmp_path: Path, text: str, bad: list[str], reach: str) -> None:
    touch(tmp_path, *(f"{i}.png" for i in range(5)))
    (tmp_path / "metadata.csv").write_text(f"file_name,caption\n{text}")
    found = find(tmp_path)
    assert captions(found).keys() == {*"01234"} - {*bad}
    lines = [problem for problem in found.problems if problem.rule == "unreadable-line"]
    assert reach in lines[0].message
    assert lines[0].path.endswith(f"metadata.csv:{text[: text.index('1.png')].count(chr(10)) + 2}")
    assert {p.case_id for p in found.problems if p.rule == "caption-missing"} == {*bad}, "nothing is dropped silently"


def test_quotes_that_fit_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "metadata.csv").write_text(
        'file_name,text\na.png,"a ""b"", c"\n\nb.png,three 5" wide\r\nc.png,"x\ny"\n'
    )
    assert captions(find(tmp_path)) == {"a": 'a "b", c', "b": 'three 5" wide', "c": "x\ny"}


def test_names_in_another_form_of_unicode_and_with_colons(tmp_path: Path) -> None:
    decomposed, composed = "cafe\u0301", "caf\xe9"
    entries = [{"file_name": f"{composed}.png", "caption": "cup"}, {"file_name": "1:1.png", "caption": "square"}]
    touch(tmp_path / "a", f"{decomposed}.png", "1:1.png")
    found = find(imagefolder(tmp_path / "a", *entries))
    assert captions(found) == {decomposed: "cup", "1:1": "square"}
    assert Path(found.examples[0].image).is_file()
    touch(tmp_path / "b", f"{composed}.png")
    (tmp_path / "b" / f"{decomposed}.txt").write_text("cup")
    assert captions(find(tmp_path / "b")) == {composed: "cup"}


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "caf\udce9.png")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "caf\udce9.txt").write_text("c")
    found = find(tmp_path)
    assert captions(found) == {"a": "a"}
    assert listed(found) == {r"caf\udce9": "bad-name"}
    str(found.problems[0]).encode()


def test_sidecars(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "s/b.jpg", "s/c.jpg", "README.txt", "dataset_infos.json", "00000_stats.json")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n")
    (tmp_path / "a.json").write_text('{"caption": "not this one"}')
    (tmp_path / "s/b.json").write_text('{"text": "a dog"}')
    (tmp_path / "s/c.json").write_text('{"url": "", "caption": ["a cow", "cow"]}')
    touch(tmp_path, "D.PNG", "e.png")
    (tmp_path / "D.TXT").write_text("upper case")
    (tmp_path / "e.caption").write_text("as kohya's trainers have it")
    touch(tmp_path, "00000.parquet")  # of URLs, as img2dataset writes it
    found = find(tmp_path)
    more = {"D": "upper case", "e": "as kohya's trainers have it"}
    assert captions(found) == {"a": "a cat", "s/b": "a dog", "s/c": "a cow"} | more
    assert [example.more_captions for example in found.examples if example.more_captions] == [("cow",)]
    assert found.problems == ()
    assert found.metadata == {"layout": "sidecar"}


def test_files_about_the_data_set_are_no_captions(tmp_path: Path) -> None:
    """A number is that of an image, but for a version at the end."""
    about = ["LICENSE-2.0", "LICENSE-APACHE-2.0", "licence_v1", "readme_data", "README.md", "Notice", "requirements"]
    about += ["README first", "LICENSE (MIT)", "LICENSE_CC0", "requirements-py311", "readme_v10"]
    captions_of_images = ["license_plate_042", "readme2024", "notice-17", "copying_0001", "licenseplate"]
    touch(tmp_path, *(f"{name}.txt" for name in about), "a.png")
    for name in ("a", *captions_of_images):
        (tmp_path / f"{name}.txt").write_text("a caption")
    found = find(tmp_path)
    assert captions(found) == {"a": "a caption"}
    assert listed(found) == dict.fromkeys(captions_of_images, "image-missing")


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
