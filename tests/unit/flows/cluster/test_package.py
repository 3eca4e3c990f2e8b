"""What travels with a job: code and configuration, never data; and which variables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from flows import installation
from flows.cluster.package import (
    CONFIG,
    CREDENTIALS,
    FORWARDED,
    folder_digest,
    forwarded_variables,
    packed,
    runtime_environment,
)
from flows.installation import CODE_VARIABLE, LOCK
from flows.pipelines.catalog import load_config
from flows.pipelines.segmentation.config import SegmentationConfig
from tests.support.infra import SECRET
from tests.support.project import CHECKOUT


def test_packed_is_code_and_config_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "huge.nii.gz").write_bytes(b"x" * 1000)
    monkeypatch.chdir(tmp_path)
    config = SegmentationConfig.model_validate({"data": {"root": "raw"}, "storage": "runs"})
    with packed(config) as folder:
        first = folder_digest(folder)
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".py", ".yaml", ".j2", ".txt"}
        for name in ("flows/cli/__main__.py", "flows/report/report.html.j2", "flows/configs/emoji.yaml"):
            assert (folder / name).read_bytes() == (CHECKOUT / name).read_bytes()
        assert (folder / LOCK).read_bytes() == (CHECKOUT / LOCK).read_bytes()
        there = load_config(folder / CONFIG)
    assert there.data.root == str(tmp_path / "raw")
    assert there.storage == str(tmp_path / "runs")
    with packed(config) as folder:
        assert folder_digest(folder) == first
    with packed(config.model_copy(update={"storage": "/elsewhere"})) as folder:
        assert folder_digest(folder) != first


def test_a_prediction_needs_no_configuration() -> None:
    with packed(None) as folder:
        assert not (folder / CONFIG).exists()
        assert (folder / "flows" / "cli" / "__main__.py").is_file()


def test_a_pipelines_own_module_travels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pipelines.py").write_text("PIPELINE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with packed(None, "my_pipelines") as folder:
        assert (folder / "my_pipelines.py").read_text() == "PIPELINE = 1\n"
    assert "my_pipelines" not in sys.modules, "it is found, not imported"
    with (
        pytest.raises(ConfigError, match="entry_module nowhere_to_be_found cannot be imported"),
        packed(None, "nowhere_to_be_found"),
    ):
        pass


def test_without_a_checkout_there_is_no_lock_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LOCK", "no-such-file.txt")
    with packed(None) as folder:
        assert not (folder / LOCK).exists()


def test_only_named_variables_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://x")
    monkeypatch.setenv("SOMETHING_SECRET", "y")
    assert forwarded_variables()["MLFLOW_TRACKING_URI"] == "http://x"
    assert "SOMETHING_SECRET" not in forwarded_variables()


def test_a_database_below_the_working_folder_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(
        ConfigError, match=r"MLFLOW_TRACKING_URI=sqlite:///mlflow\.db is a file below the working folder"
    ):
        forwarded_variables()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////shared/mlflow.db")
    assert "MLFLOW_TRACKING_URI" in forwarded_variables()


def test_no_credentials_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the name says: Ray would log them, and show them on its dashboard."""
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "hush")
    environment = runtime_environment(tmp_path, {}, install=True)
    assert "hush" not in str(environment)
    assert not [name for name in FORWARDED if SECRET.search(name)]


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL", "UNETFLOW_STORAGE"])
def test_an_address_with_a_password_does_not_travel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://user:hush@host:5000/x")
    with pytest.raises(ConfigError, match=f"{name} holds a password") as raised:
        forwarded_variables()
    assert "hush" not in str(raised.value)
    monkeypatch.setenv(name, "http://user@host:5000/x")
    assert forwarded_variables()[name] == "http://user@host:5000/x"


def test_the_environment_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CODE_VARIABLE, "abc123")
    environment = runtime_environment(tmp_path, {"A": "b"}, install=False)
    assert environment["working_dir"] == str(tmp_path)
    assert environment["env_vars"] | {"A": "b", CODE_VARIABLE: "abc123"} == environment["env_vars"]
    assert "pip" not in environment
    (requirements,) = runtime_environment(tmp_path, {}, install=True)["pip"]["packages"]
    assert requirements.endswith(f"/{LOCK}")
