"""WebDataset tars: 00000.tar with key.jpg, key.txt and key.json, as img2dataset writes them; not compressed.

Images of a tar that have the wanted size already are not written again: the index points into the tar (``sharding``).
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data_pipelines.errors import DataError, ProblemList, broken_rule, printable
from data_pipelines.files.reading import named_errors
from data_pipelines.images.examples import (
    CAPTION_EXTENSIONS,
    MAX_CAPTION_BYTES,
    Example,
    Examples,
    assemble,
    file_captions,
    unreadable_archive,
    where_of,
)
from data_pipelines.images.kinds import IMAGE_SUFFIXES, foreign_format, not_supported

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
COMPRESSED_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh")
"""First bytes of gzip, zstd, xz and bzip2."""
_WRITE_AGAIN = "write the archive again"
_JOINED = (
    "if archives were joined with cat, unpack the file with `tar --ignore-zeros -xf` and write one archive, or keep "
    "them apart; otherwise copy the file again from its source"
)
_CHUNK = 1 << 20

Members = dict[str, list[tarfile.TarInfo]]
"""Members of one sample: extension to those of that name."""


def find_tars(root: Path, names: list[str]) -> Examples:
    """Find the samples of all tars below ``root``; ids are FILE/KEY. Headers and captions are read, images are not."""
    examples: list[Example] = []
    problems = ProblemList()
    for name in names:
        if name.endswith(COMPRESSED_TARS):
            with problems.collecting():
                raise _compressed(root / name, name)
        if not name.endswith(".tar"):
            continue
        path, file_id = root / name, name.removesuffix(".tar")
        samples: dict[str, Members] = defaultdict(lambda: defaultdict(list))
        with problems.collecting(file_id):
            for member in _iter_members(path, file_id):
                with problems.collecting():
                    _check_member(path, file_id, member)
                    key, extension = _split_name(member.name)
                    samples[key][extension].append(member)
        if not samples:  # such as of one that may not be read
            continue
        with path.open("rb") as stream:
            for key, members in samples.items():
                with problems.collecting(f"{file_id}/{key}"):
                    examples.append(_build_example(path, f"{file_id}/{key}", members, stream))
    return assemble(root.resolve().name, examples, problems, "webdataset")


def _iter_members(path: Path, file_id: str) -> Iterator[tarfile.TarInfo]:
    """Iterate over the files of a tar, hidden ones skipped. Raises DataError where the tar is damaged or truncated."""
    num_members = 0
    with named_errors(path), path.open("rb") as stream:
        length = os.fstat(stream.fileno()).st_size
        if stream.read(6).startswith(COMPRESSED_MAGIC):
            raise _compressed(path, file_id)
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else every header is kept
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{printable(member.name)} goes beyond the end of the file")
                if not member.isdir() and not posixpath.basename(member.name).startswith("."):
                    num_members += 1
                    yield member
            _check_end(path, file_id, archive.offset)
    except (tarfile.TarError, OSError) as error:
        raise unreadable_archive(path, file_id, f"after {num_members} members: {error}") from None


def _check_end(path: Path, file_id: str, offset: int) -> None:
    """Raise ReadError or DataError where an archive continues: tarfile takes a damaged header for the end, and stops at
    the end mark of the first of several archives."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {offset} is damaged")
        place = offset + tarfile.BLOCKSIZE
        while chunk := stream.read(_CHUNK):
            if rest := chunk.lstrip(b"\0"):
                place += len(chunk) - len(rest)
                message = f"the archive ends at byte {offset}, and the file continues with data at byte {place}"
                raise broken_rule("data-after-end", path, message, _JOINED, file_id)
            place += len(chunk)


def _compressed(path: Path, file_id: str) -> DataError:
    message = "the archive is compressed, and images are read from plain tars by their place"
    remedy = "decompress it (gunzip, unzstd, unxz) and name it .tar"
    return broken_rule("compressed-archive", path, message, remedy, file_id)


def _check_member(path: Path, file_id: str, member: tarfile.TarInfo) -> None:
    """Raise DataError where a member cannot be part of a sample."""
    where = where_of(str(path), printable(member.name))
    member_id = f"{file_id}/{printable(member.name)}"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        remedy = "write the archive again with relative names"
        raise broken_rule("unsafe-path", where, "the name of a member leads out of the archive", remedy, member_id)
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        message = f"expected a plain file, got tar type {member.type!r}"
        raise broken_rule("not-a-file", where, message, "write the archive again with plain files", member_id)


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension, at the first dot as WebDataset does."""
    folder, base = posixpath.split(posixpath.normpath(name))
    key, _, extension = base.partition(".")
    return posixpath.join(folder, key), extension.lower()


def _build_example(path: Path, example_id: str, members: Members, stream: BinaryIO) -> Example:
    """Build the example of one key. Raises DataError where image or caption (``.txt``, else ``.json``) is unusable."""
    images = [m for extension in members if f".{extension}" in IMAGE_SUFFIXES for m in members[extension]]
    where = where_of(str(path), printable(posixpath.basename(example_id)))
    shown_id = printable(example_id)
    if not images:
        raise _no_image(where, members, shown_id)
    extension = next((name for name in CAPTION_EXTENSIONS if name in members), None)
    if extension is None:
        message = f"image without a caption: none of .{', .'.join(CAPTION_EXTENSIONS)} under this key, only: "
        message = printable(message + ", ".join(members))
        raise broken_rule("caption-missing", where, message, _WRITE_AGAIN, shown_id)
    _check_no_other_sample(where, members, shown_id)
    if len(images) > 1 or len(members[extension]) > 1:
        found = ", ".join(printable(member.name) for member in (*images, *members[extension]))
        message = f"several parts for one key: {found:.200}"
        raise broken_rule("duplicate-id", where, message, "keep one each", shown_id)
    caption_member = members[extension][0]
    where = where_of(str(path), printable(caption_member.name))
    with named_errors(Path(where)):
        stream.seek(caption_member.offset_data)
        data = stream.read(min(caption_member.size, MAX_CAPTION_BYTES + 1))
    first, *more = file_captions(extension, data, where, shown_id)
    image = images[0]
    place = image.offset_data, image.size
    return Example(example_id, str(path), image.name, first, place, tuple(more))


def _no_image(where: str, members: Members, shown_id: str) -> DataError:
    """Build the error of a key without an image that says why: an unsupported format, dots in names, or none at all."""
    foreign = next((m.name for extension in members for m in members[extension] if foreign_format(m.name)), None)
    if foreign is not None:
        return not_supported(where, printable(foreign), shown_id)
    dotted = next((m.name for e in members if f".{e}".endswith(IMAGE_SUFFIXES) for m in members[e]), None)
    if dotted is not None:
        return _dots(where, dotted, shown_id)
    message = printable(f"no image under this key, only: {', '.join(members)}")
    return broken_rule("image-missing", where, message, _WRITE_AGAIN, shown_id)


def _check_no_other_sample(where: str, members: Members, shown_id: str) -> None:
    """Raise DataError where names with dots hide a second image with its own caption under this key."""
    for extension, found in members.items():
        stem, dot, suffix = extension.rpartition(".")
        if dot and f".{suffix}" in IMAGE_SUFFIXES and any(f"{stem}.{e}" in members for e in CAPTION_EXTENSIONS):
            raise _dots(where, found[0].name, shown_id)


def _dots(where: str, name: str, shown_id: str) -> DataError:
    base = printable(posixpath.basename(name))
    key, _, extension = base.partition(".")
    message = f"{base} has dots in its name: WebDataset ends the key at the first, so it is `{extension}` of `{key}`"
    remedy = "write the archive again with names that have one dot, before the extension"
    return broken_rule("dots-in-key", where, message, remedy, shown_id)
