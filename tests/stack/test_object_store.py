"""Both pipelines with shards, checkpoints, records and artifacts on an S3-compatible store: a server on loopback."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipelines.errors import DataError
from data_pipelines.shards.index import index_table
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.writer import write_shard
from flows.stages.lock import hold_lock
from flows.verification.storage import verify_storage
from tests.support.configs import TINY_PHANTOMS, TINY_SHAPES
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.project import Project


class StoredProject(Project):
    """A project whose storage and model artifacts lie in the bucket."""

    @property
    def variables(self) -> dict[str, str]:
        return super().variables | {
            "UNETFLOW_STORAGE": f"s3://{BUCKET}/{self.home.name}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": f"s3://{BUCKET}/mlflow",
        }


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """A server that speaks S3, with an empty bucket."""
    with ObjectStore() as server:
        yield server


@pytest.mark.parametrize("config", [TINY_PHANTOMS, TINY_SHAPES], ids=["segmentation", "diffusion"])
def test_a_pipeline_lives_on_the_object_store(store: ObjectStore, config: str, tmp_path: Path) -> None:
    project = StoredProject(tmp_path, config)
    result = project.run_installed("run", str(project.config), "--json").record
    assert result["model_uri"]
    assert all(stage["uri"].startswith(f"s3://{BUCKET}/") for stage in result["stages"])
    again = project.run_installed("run", str(project.config), "--json").record
    assert all(stage["cached"] for stage in again["stages"])
    assert not list(tmp_path.rglob("record.json")), "records on this machine"
    pages = store.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="mlflow/")
    names = {item["Key"].rsplit("/", 1)[-1] for page in pages for item in page.get("Contents", ())}
    assert {"MLmodel", "report.html"} <= names, "MLflow's artifacts"


def test_one_holder_of_a_lock_at_a_time(store: ObjectStore) -> None:
    """An object store has no locks: files that are renewed stand for them."""
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with hold_lock(f"s3://{BUCKET}/locks/train/key") as require:
            inside.append(number)
            most.append(len(inside))
            require()
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_damage_is_named_at_the_first_read_and_by_verify(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    root = f"s3://{BUCKET}/damaged"
    rows = write_shard(f"{root}/shards/a/0.tar", [({"key": "k"}, {"txt": b"text"}), ({"key": "l"}, {"txt": b"more"})])
    data = bytearray(store.client.get_object(Bucket=BUCKET, Key="damaged/shards/a/0.tar")["Body"].read())
    reader = ShardReader(index_table(rows), f"{root}/shards/a")
    assert bytes(reader.read(1, "txt")) == b"more"
    data[rows[1]["offset:txt"]] ^= 1
    store.client.put_object(Bucket=BUCKET, Key="damaged/shards/a/0.tar", Body=bytes(data))
    _, (fault,) = verify_storage(root)
    assert fault.uri == f"{root}/shards/a/0.tar", "storage itself is read, not the copy in the cache"
    assert fault.message.startswith("l.txt, 4 bytes from byte ")
    (tmp_path / "cache" / "shards" / "0.tar").unlink()
    with pytest.raises(DataError, match=r"s3://.*0\.tar: l\.txt, 4 bytes from byte"):
        pickle.loads(pickle.dumps(reader)).read(1, "txt")
    store.client.delete_object(Bucket=BUCKET, Key="damaged/shards/a/0.tar")
    (tmp_path / "cache" / "shards" / "0.tar").unlink()
    with pytest.raises(DataError, match="missing-shard"):
        pickle.loads(pickle.dumps(reader)).read(1, "txt")
    _, (fault,) = verify_storage(root)
    assert fault.message == "there is no such file"
