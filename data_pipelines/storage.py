"""Files behind URIs: a local path, ``file://``, ``s3://`` or ``gs://``, through pyarrow's file systems.

A file appears under its name complete or not at all: local files are written beside it and renamed, object stores
show an object only once it is whole. Bytes are never decompressed on the way, whatever the suffix.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs as pafs

from data_pipelines.atomic import atomic_file, remove_leftovers, temporary_path
from data_pipelines.errors import ConfigError
from data_pipelines.temporary import temporary_folder

CHUNK = 8 << 20
"""Bytes read or copied at a time."""

MAX_ATTEMPTS = 11
"""Attempts at a request to S3 that is refused for a reason that may pass. The pauses double from 25 ms on, so a store
that answers 503 is waited for 51 s. Arrow gives up after 6 s."""

Stamp = tuple[int, int]
"""Size in bytes and modification time in nanoseconds of a file; 0 where the file system knows no time."""


def is_local(uri: str) -> bool:
    """Tell whether the URI names a file of this machine."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Return the absolute path of a local URI."""
    return Path(uri.removeprefix("file://")).absolute()


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI and the path on it."""
    if is_local(uri):
        return pafs.LocalFileSystem(), str(local_path(uri))
    found, path = pafs.FileSystem.from_uri(uri)
    return (_patient(found) if uri.startswith("s3://") else found), path


def _patient(found: pafs.S3FileSystem) -> pafs.FileSystem:
    """Return the same file system with ``MAX_ATTEMPTS``, which no URI can say."""
    build, (options,) = found.__reduce__()
    return build(options | {"retry_strategy": pafs.AwsDefaultS3RetryStrategy(max_attempts=MAX_ATTEMPTS)})


def join(uri: str, *parts: str) -> str:
    """Build a URI below ``uri``."""
    return "/".join([uri.rstrip("/"), *parts])


def size(uri: str) -> int | None:
    """Return the size of a file in bytes, or None where there is no such file."""
    found = stamp(uri)
    return None if found is None else found[0]


def stamp(uri: str) -> Stamp | None:
    """Return the size and modification time of a file, or None where there is no such file."""
    if is_local(uri):
        return _local_stamp(local_path(uri))
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    return (info.size, info.mtime_ns or 0) if info.type == pafs.FileType.File else None


def _local_stamp(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def list_names(uri: str) -> list[str]:
    """List the names directly below a folder, sorted; empty where there is no such folder.

    Names that begin with "." are skipped: they are hidden, or still being written.
    """
    fs, path = resolve(uri)
    names = (info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)))
    return sorted(name for name in names if not name.startswith("."))


def list_stamps(uri: str) -> dict[str, Stamp]:
    """Map the files directly below a folder to size and modification time; hidden ones are skipped."""
    fs, path = resolve(uri)
    files = (info for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)) if info.is_file)
    return {each.base_name: (each.size, each.mtime_ns or 0) for each in files if not each.base_name.startswith(".")}


def read_bytes(uri: str) -> bytes:
    """Read a whole file."""
    fs, path = resolve(uri)
    with fs.open_input_stream(path, compression=None) as stream:
        return stream.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file at once."""
    with local_copy_of(uri) as path:
        path.write_bytes(data)


def delete(uri: str) -> None:
    """Delete a file."""
    fs, path = resolve(uri)
    fs.delete_file(path)


@contextmanager
def local_copy_of(uri: str) -> Iterator[Path]:
    """Yield a temporary local path to write to; it becomes ``uri`` when the block ends without an error.

    The temporary name is hidden and keeps the suffix, which some writers go by.
    """
    if is_local(uri):
        with atomic_file(local_path(uri)) as path:
            yield path
        return
    temporary = temporary_path(cache_folder() / uri.rsplit("/", 1)[-1])
    temporary.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(temporary.parent)
    try:
        yield temporary
        copy(str(temporary), uri)
    finally:
        temporary.unlink(missing_ok=True)


def copy(source: str, target: str) -> None:
    """Copy one file between any two URIs; a local target appears complete or not at all."""
    fs, path = resolve(source)
    target_fs, target_path = resolve(target)
    with fs.open_input_stream(path, compression=None) as reader:
        if is_local(target):
            with local_copy_of(target) as temporary, temporary.open("wb") as writer:
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)
        else:
            with target_fs.open_output_stream(target_path, compression=None) as writer:
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)


def copy_folder(source: str, target: str) -> None:
    """Copy all files below a folder, but hidden ones."""
    fs, path = resolve(source)
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True)):
        relative = info.path[len(path) :].strip("/")
        if info.is_file and not any(part.startswith(".") for part in relative.split("/")):
            copy(join(source, relative), join(target, relative))


@contextmanager
def local_folder(uri: str) -> Iterator[Path]:
    """Yield a folder as a local path: in place, or a copy that is deleted when the block ends."""
    if is_local(uri):
        yield local_path(uri)
        return
    with temporary_folder("folder") as folder:
        copy_folder(uri, str(folder))
        yield folder


@contextmanager
def local_file(uri: str) -> Iterator[Path]:
    """Yield a file as a local path: in place, or a copy that is deleted when the block ends."""
    if is_local(uri):
        yield local_path(uri)
        return
    with temporary_folder("file") as folder:
        path = folder / uri.rsplit("/", 1)[-1]
        copy(uri, str(path))
        yield path


def digest(uri: str) -> str:
    """Compute the SHA-256 of a file's bytes."""
    fs, path = resolve(uri)
    hasher = hashlib.sha256()
    with fs.open_input_stream(path, compression=None) as stream:
        while chunk := stream.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def cache_folder() -> Path:
    """Return the cache folder of this user: ``UNETFLOW_CACHE``, else below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if folder := os.environ.get("UNETFLOW_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache") / "unetflow"


def generated_folder() -> Path:
    """Return the folder of generated data sets in the cache: phantoms and shapes."""
    return cache_folder() / "generated"


def home_folder() -> Path:
    """Return this user's home. Raises ConfigError where HOME is not set and the system knows no other."""
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(
            "this user has no home folder: set HOME, or XDG_STATE_HOME and UNETFLOW_CACHE, to folders that can be "
            "written to"
        ) from None
