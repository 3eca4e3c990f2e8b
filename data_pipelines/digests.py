"""SHA-256 digests of files and of JSON values; those of files are remembered, so unchanged data is not read again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import TypeAdapter

from data_pipelines import storage
from data_pipelines.storage import Stamp

MAX_THREADS = 8
OF_THE_FILE = (errno.EIO, errno.ELOOP)
"""Errors of a bad sector, and of links that lead to themselves."""
VERIFY_VARIABLE = "UNETFLOW_VERIFY"
"""Environment variable: read everything in storage again instead of trusting an unchanged size and time."""

_Memory = dict[str, tuple[Stamp, str]]
"""Path or URI to the stamp that the file had when it was read, and its digest."""
_MEMORY = TypeAdapter(_Memory)


def file_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Compute the SHA-256 of local files; files of known size and modification time are not read.

    Raises OSError where a file is missing, or cannot be read.
    """
    digests, errors = try_file_digests(paths)
    for error in errors.values():
        raise error
    return digests


def try_file_digests(paths: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, OSError]]:
    """Compute digests as ``file_digests`` does, and return the error of each file that is missing or cannot be read."""
    paths = list(dict.fromkeys(paths))
    errors: dict[str, OSError] = {}
    digests = _compute_digests(list(map(str, paths)), errors)
    for path in map(str, paths):
        if path not in digests and path not in errors:
            errors[path] = FileNotFoundError(f"no such file: {path}")
    readable = {path: digests[str(path)] for path in paths if str(path) in digests}
    return readable, {path: errors[str(path)] for path in paths if str(path) in errors}


def uri_digests(uris: Iterable[str], *, trust_stamps: bool = True) -> dict[str, str]:
    """Compute the SHA-256 of the file behind each URI; a missing file is absent from the result.

    Files of known size and modification time are not read. With ``trust_stamps=False`` every byte is read, and the
    memory is refreshed: this sees changes that keep both, such as damage to a disk.
    """
    errors: dict[str, OSError] = {}
    digests = _compute_digests(list(dict.fromkeys(uris)), errors, trust_stamps=trust_stamps)
    for error in errors.values():
        raise error
    return digests


def _compute_digests(uris: list[str], errors: dict[str, OSError], *, trust_stamps: bool = True) -> dict[str, str]:
    """Compute the digests of the files that can be read; ``errors`` gets those of the others."""
    stamps = read_stamps(uris, errors)
    memory = _memory_path(uris)
    remembered = _read_memory(memory)
    unknown = [uri for uri, stamp in stamps.items() if not (trust_stamps and _is_known(uri, stamp, remembered))]
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        results = dict(zip(unknown, pool.map(_try_digest, unknown), strict=True))
    computed = {uri: result for uri, result in results.items() if isinstance(result, str)}
    if computed:
        remembered |= {uri: (stamps[uri], digest) for uri, digest in computed.items()}
        storage.write_bytes(str(memory), _MEMORY.dump_json(remembered))
    for uri, result in results.items():
        if isinstance(result, OSError):
            errors[uri] = _of_the_file(result)
    return {uri: remembered[uri][1] for uri in stamps if uri not in errors}


def _try_digest(uri: str) -> str | OSError:
    try:
        return storage.digest(uri)
    except OSError as error:
        return error


def _of_the_file(error: OSError) -> OSError:
    """Return an error that is the file's own. Raises any other, such as a network's or a lack of file handles, after
    which the same command may succeed."""
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError) or error.errno in OF_THE_FILE:
        return error
    raise error


def trusts_stamps() -> bool:
    """Tell whether stored files of unchanged size and modification time are taken to be unchanged."""
    return not os.environ.get(VERIFY_VARIABLE)


def digest_of(value: object) -> str:
    """Compute the SHA-256 of the canonical JSON of ``value``: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_known(uri: str, stamp: Stamp, remembered: _Memory) -> bool:
    """Tell whether the file is unchanged; one without a modification time cannot be known to be."""
    return stamp[1] > 0 and uri in remembered and remembered[uri][0] == stamp


def read_stamps(uris: Sequence[str], errors: dict[str, OSError] | None = None) -> dict[str, Stamp]:
    """Read the stamps of the files that exist, in order; those of remote files in parallel.

    ``errors`` gets the error of each local file whose size and time cannot be read; without it, the first is raised.
    """
    remote = [uri for uri in uris if not storage.is_local(uri)]
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        found = dict(zip(remote, pool.map(storage.stamp, remote), strict=True))
    for uri in uris:
        if uri not in found:
            try:
                found[uri] = storage.stamp(uri)
            except OSError as error:  # such as a folder that may not be looked into
                if errors is None:
                    raise
                errors[uri] = _of_the_file(error)
    return {uri: stamp for uri in uris if (stamp := found.get(uri)) is not None}


def _memory_path(uris: Iterable[str]) -> Path:
    """Return the memory file of a set of folders."""
    folders = sorted({uri.rpartition("/")[0] or "." for uri in uris})
    return storage.cache_folder() / "digests" / f"{digest_of(folders)[:20]}.json"


def _read_memory(memory: Path) -> _Memory:
    """Read the memory; empty where nothing is remembered or a crash left the file broken."""
    try:
        return _MEMORY.validate_json(memory.read_bytes())
    except (OSError, ValueError):
        return {}
