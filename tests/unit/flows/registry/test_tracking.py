"""Names of metrics as MLflow takes them, and where runs are tracked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.metrics import METRICS
from flows.registry.tracking import decode, encode, mlflow_name, tracking_uri


def test_names_of_metrics_are_such_as_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    examples = ("frechet_distance[clip,n=100]/prior", "fid[n=5]", "dice/liver", "caption_accuracy/held_out")
    examples += ("dice[image,text]",)
    for name in (*examples, *METRICS):
        _validate_metric_name(mlflow_name(name))
    assert mlflow_name("kid[clip,n=100]/prior") == "kid/clip-n100/prior"


@settings(max_examples=200)
@given(classes=st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=2, unique=True))
def test_any_class_name_is_logged_and_read_back(classes: list[str]) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    names = [mlflow_name(f"val/dice/{name}") for name in classes]
    assert len(set(names)) == 2
    for name, class_name in zip(names, classes, strict=True):
        _validate_metric_name(name)
        _validate_param(f"data.classes.{encode(class_name)}", "1")
        assert decode(name.removeprefix("val/dice/")) == class_name


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [("liver", "dice/liver"), ("enhancing tumor (ET)", "dice/enhancing tumor :28ET:29"), ("100%", "dice/100:25")],
)
def test_class_names_stay_readable(class_name: str, expected: str) -> None:
    assert mlflow_name(f"dice/{class_name}") == expected


def test_runs_are_tracked_below_a_local_storage_unless_a_server_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(str(tmp_path / "runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert tracking_uri("s3://bucket/runs") == f"sqlite:///{tmp_path}/state/unetflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    assert tracking_uri(str(tmp_path)) == "http://mlflow.example.org"
