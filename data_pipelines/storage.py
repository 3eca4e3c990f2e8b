"""Files behind URIs: a local path, ``file://``, ``s3://`` or ``gs://``, through pyarrow's file systems.

A file appears under its name complete or not at all: local files are written beside it and renamed, object stores
show an object only once it is whole.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs as pafs

CHUNK = 8 << 20


def is_local(uri: str) -> bool:
    """Whether the URI names a file of this machine."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local URI."""
    return Path(uri.removeprefix("file://")).absolute()


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system and the path on it."""
    if is_local(uri):
        return pafs.LocalFileSystem(), str(local_path(uri))
    return pafs.FileSystem.from_uri(uri)


def join(uri: str, *parts: str) -> str:
    """A URI below ``uri``."""
    return "/".join([uri.rstrip("/"), *parts])


def exists(uri: str) -> bool:
    """Whether a file lies there."""
    fs, path = resolve(uri)
    return fs.get_file_info(path).type == pafs.FileType.File


def size(uri: str) -> int | None:
    """Bytes of the file, or None where there is none."""
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    return info.size if info.type == pafs.FileType.File else None


def list_names(uri: str) -> list[str]:
    """Sorted names directly below a folder; empty where there is none."""
    fs, path = resolve(uri)
    return sorted(info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)))


def read_bytes(uri: str) -> bytes:
    """The whole file."""
    fs, path = resolve(uri)
    with fs.open_input_stream(path) as stream:
        return stream.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file at once."""
    with local_copy_of(uri) as path:
        path.write_bytes(data)


def delete(uri: str) -> None:
    """Remove a file."""
    fs, path = resolve(uri)
    fs.delete_file(path)


@contextmanager
def local_copy_of(uri: str) -> Iterator[Path]:
    """A temporary local path to write to; it becomes ``uri`` when the block ends without an error."""
    if is_local(uri):
        target = local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    else:
        target = None
        temporary = cache_folder() / f"upload-{uuid.uuid4().hex}.partial"
        temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if target is not None:
            temporary.replace(target)
        else:
            copy(str(temporary), uri)
    finally:
        temporary.unlink(missing_ok=True)


def copy(source: str, target: str) -> None:
    """Copy one file between any two places; a local target appears complete or not at all."""
    fs, path = resolve(source)
    target_fs, target_path = resolve(target)
    with fs.open_input_stream(path) as reader:
        if is_local(target):
            with local_copy_of(target) as temporary, temporary.open("wb") as writer:
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)
        else:
            with target_fs.open_output_stream(target_path) as writer:
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)


def copy_folder(source: str, target: str) -> None:
    """Copy the files directly below a folder."""
    for name in list_names(source):
        copy(join(source, name), join(target, name))


@contextmanager
def local_folder(uri: str) -> Iterator[Path]:
    """The files of a folder on this machine: where they lie, or copied for the length of the block."""
    if is_local(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="unetflow-folder-") as folder:
        copy_folder(uri, folder)
        yield Path(folder)


@contextmanager
def local_file(uri: str) -> Iterator[Path]:
    """A file on this machine: where it lies, or copied for the length of the block."""
    if is_local(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="unetflow-file-") as folder:
        path = Path(folder) / uri.rsplit("/", 1)[-1]
        copy(uri, str(path))
        yield path


def digest(uri: str) -> str:
    """SHA-256 of a file's bytes."""
    fs, path = resolve(uri)
    hasher = hashlib.sha256()
    with fs.open_input_stream(path) as stream:
        while chunk := stream.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def cache_folder() -> Path:
    """Where this user's caches lie: ``UNETFLOW_CACHE``, else below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if folder := os.environ.get("UNETFLOW_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unetflow"
