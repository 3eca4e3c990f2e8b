"""Both pipelines with shards, checkpoints, records and artifacts on an S3-compatible store: a server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.stages.lock import hold_lock
from tests.support.configs import TINY_PHANTOMS, TINY_SHAPES
from tests.support.project import Project
from tests.support.serving import free_port

BUCKET = "unetflow-test"


class StoredProject(Project):
    """A project whose storage and model artifacts lie in the bucket."""

    url = ""

    @property
    def variables(self) -> dict[str, str]:
        return super().variables | {
            "UNETFLOW_STORAGE": f"s3://{BUCKET}/{self.home.name}",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": f"s3://{BUCKET}/mlflow",
        }


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A client of a server that speaks S3, with an empty bucket."""
    import boto3
    from botocore.exceptions import EndpointConnectionError

    port = free_port()
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=url, **keys)
    try:
        for _ in range(60):
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except EndpointConnectionError:
                time.sleep(0.5)
        yield client
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("config", [TINY_PHANTOMS, TINY_SHAPES], ids=["segmentation", "diffusion"])
def test_a_pipeline_lives_on_the_object_store(store: Any, config: str, tmp_path: Path) -> None:
    project = StoredProject(tmp_path, config)
    project.url = store.meta.endpoint_url
    result = project.run_installed("run", str(project.config), "--json").record
    assert result["model_uri"]
    assert all(stage["uri"].startswith(f"s3://{BUCKET}/") for stage in result["stages"])
    again = project.run_installed("run", str(project.config), "--json").record
    assert all(stage["cached"] for stage in again["stages"])
    assert not list(tmp_path.rglob("record.json")), "records on this machine"
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="mlflow/")
    names = {item["Key"].rsplit("/", 1)[-1] for page in pages for item in page.get("Contents", ())}
    assert {"MLmodel", "report.html"} <= names, "MLflow's artifacts"


def test_one_holder_of_a_lock_at_a_time(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store has no locks: files that are renewed stand for them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.meta.endpoint_url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
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
