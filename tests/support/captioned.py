"""Small folders of captioned images for tests, in every layout, and what was found in them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.images.examples import Examples
from data_pipelines.images.sources import find_examples
from data_pipelines.images.specs import CaptionedSpec


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
    """Find the examples of a folder."""
    return find_examples(CaptionedSpec(root=str(root), layout=layout), root / "unused")  # type: ignore[arg-type]


def captions(found: Examples) -> dict[str, str]:
    """Example id -> caption."""
    return {example.example_id: example.caption for example in found.examples}


def listed(found: Examples) -> dict[str, str]:
    """Example id -> rule of each problem; every one names an existing file, what is wrong and a remedy."""
    for problem in found.problems:
        assert problem.message
        assert problem.remedy
    assert len({problem.case_id for problem in found.problems}) == len(found.problems)
    return {problem.case_id: problem.rule for problem in found.problems}
