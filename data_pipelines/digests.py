"""SHA-256 of source files, remembered by size and modification time so that unchanged data is not read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_pipelines import storage
from data_pipelines.volumes.cases import Case

Stamp = tuple[int, int]


def case_digests(cases: Iterable[Case]) -> dict[str, str]:
    """case_id -> digest over the bytes of its files, in order."""
    cases = list(cases)
    files = {case.case_id: [f for path in (*case.images, case.label) for f in _files(Path(path))] for case in cases}
    digests = file_digests(path for paths in files.values() for path in paths)
    return {case_id: digest_of([digests[path] for path in paths]) for case_id, paths in files.items()}


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """path -> SHA-256 of its bytes. Files whose size and modification time are known are not read."""
    paths = list(dict.fromkeys(paths))
    stamps = {path: _stamp(path) for path in paths}
    memory = storage.cache_folder() / "digests" / f"{digest_of(sorted({str(p.parent) for p in paths}))[:20]}.json"
    known = _read_memory(memory)
    digests = {p: known[str(p)][1] for p in paths if str(p) in known and known[str(p)][0] == list(stamps[p])}
    missing = [path for path in paths if path not in digests]
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests |= zip(missing, pool.map(_sha256, missing), strict=True)
    if missing:
        remembered = {str(path): [stamps[path], digest] for path, digest in digests.items()}
        storage.write_bytes(str(memory), json.dumps(remembered).encode())
    return digests


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``: sorted keys, no spaces, so equal values give equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_memory(memory: Path) -> dict[str, list[Any]]:
    """Path -> stamp and digest; empty where nothing is remembered or a crash left the file broken."""
    try:
        return json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}


def _files(path: Path) -> list[Path]:
    """A file, or the files of a folder (a DICOM series)."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _stamp(path: Path) -> Stamp:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
