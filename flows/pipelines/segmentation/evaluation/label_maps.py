"""Label maps of held-out cases: their files, and the list by which a stage knows that later ones can read them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from pydantic import TypeAdapter

from data_pipelines import storage
from data_pipelines.digests import read_stamps, trusts_stamps, uri_digests
from data_pipelines.errors import DataError, broken_rule
from data_pipelines.shards.incremental import sample_key
from data_pipelines.specs import Spec
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.preprocess import Preprocessing, StoredGeometry
from flows.stages.record import Figures, Record

logger = logging.getLogger(__name__)

MAPS = "maps"
"""Output, with the name of the predictions behind it: size and digest of each label map."""
LIST = "maps.json"
"""File of that output, beside the folder of the label maps."""
FOLDER = "predictions"
NO_LIMIT = 1 << 40
"""Voxels: the label maps are our own."""


class LabelMap(Spec):
    """A file as it was written."""

    name: str
    size: int
    """Bytes."""
    sha256: str


_LIST = TypeAdapter(list[LabelMap])


def write_map(folder: str, case_id: str, numbers: np.ndarray, labels: Labels, stored: StoredGeometry) -> LabelMap:
    """Write the numbers of classes (*stored) of a case, in the values of label files."""
    name = _file_name(case_id)
    with storage.local_copy_of(storage.join(folder, name)) as path:
        write_nifti(path, labels.write_numbers(numbers), stored.geometry.affine_array())
        return LabelMap(name=name, size=path.stat().st_size, sha256=storage.digest(str(path)))


def read_map(folder: str, case_id: str, labels: Labels, done: Preprocessing) -> np.ndarray:
    """Read the numbers of classes (*stored) that a case was predicted to have.

    Raises DataError where the file is missing or damaged.
    """
    uri = storage.join(folder, _file_name(case_id))
    try:
        with storage.local_file(uri) as path:
            written = np.asarray(read_volume(path, NO_LIMIT).array)
    except (FileNotFoundError, DataError):
        message = f"the predicted label map of case {case_id} is missing or damaged"
        remedy = "run the same command again with --verify: the stage that wrote it runs again"
        raise broken_rule("lost-label-map", uri, message, remedy) from None
    return labels.read_numbers(written).reshape(done.stored_shape)


def write_list(maps: list[LabelMap]) -> bytes:
    """Write the list of label maps that lie in ``FOLDER`` beside it."""
    return _LIST.dump_json(sorted(maps, key=lambda each: each.name), indent=1)


def maps_exist(record: Record[Figures]) -> bool:
    """Check that every label map has its size; with ``--verify`` also that its bytes are those that were written."""
    for name in record.outputs:
        if name.startswith(f"{MAPS}_"):
            uri = record.output(name)
            folder = storage.join(uri.rsplit("/", 1)[0], FOLDER)
            listed = {each.name: each for each in _LIST.validate_json(storage.read_bytes(uri))}
            if lost := _find_lost(folder, listed):
                logger.warning("%s is missing or changed: %s runs again", storage.join(folder, lost), record.stage)
                return False
    return True


def _find_lost(folder: str, listed: Mapping[str, LabelMap]) -> str | None:
    """Find a label map that is not as it was written; None where all are."""
    # One by one: object stores list names that are not percent-encoded, as those of files here may be.
    uris = {name: storage.join(folder, name) for name in listed}
    stamps = read_stamps(list(uris.values()))
    if lost := next((name for name, uri in uris.items() if stamps.get(uri, (None,))[0] != listed[name].size), None):
        return lost
    if trusts_stamps():
        return None
    digests = uri_digests(uris.values(), trust_stamps=False)
    return next((name for name, uri in uris.items() if digests.get(uri) != listed[name].sha256), None)


def _file_name(case_id: str) -> str:
    """Name the file of a case, as its sample in the shards."""
    return f"{sample_key(case_id)}.nii.gz"
