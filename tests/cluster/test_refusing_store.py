"""An object store that refuses requests for a while."""

from __future__ import annotations

import threading

import pytest

from data_pipelines import storage
from tests.support.object_store import BUCKET, ObjectStore


@pytest.mark.long
def test_a_store_that_refuses_for_longer_than_arrow_waits() -> None:
    """Must fail with Arrow's own patience, which ends after 6 s."""
    with ObjectStore() as store:
        storage.write_bytes(f"s3://{BUCKET}/a", b"b")
        store.is_refusing = True
        threading.Timer(8, lambda: setattr(store, "is_refusing", False)).start()
        assert storage.read_bytes(f"s3://{BUCKET}/a") == b"b"
    assert store.num_refused > 0
