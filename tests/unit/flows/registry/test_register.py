"""Registration: its key, and exports that cannot be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import RUN_ID_VARIABLE
from flows.config.specs import RegistrySpec
from flows.registry import tracking
from flows.registry.candidate import Candidate, ModelFiles
from flows.registry.champion import Champion, Compared
from flows.registry.models import GATE_TAG, REGISTER_TAG, find_champion
from flows.registry.register import RegistrationFigures, _register, _tags, register_stage, write_exports
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures
from tests.support.records import finished
from unet_models.formats.trace import trace_unet
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec

EVALUATION = finished("evaluate", EvaluationFigures(metrics={"dice": 0.9}))


def write_no_files(folder: Path) -> ModelFiles:
    raise AssertionError("planning writes nothing")


def compare_nothing(champion: Champion) -> Compared:
    raise AssertionError("planning compares nothing")


CANDIDATE = Candidate(
    description="d",
    code=Path("pyfunc_model.py"),
    requirements=(),
    default_metric="dice",
    evaluation_data="e",
    evaluation=EVALUATION,
    lineage=(EVALUATION,),
    run_key="k",
    step=1,
    write_files=write_no_files,
    build_card=str,
    compare=compare_nothing,
)


def test_another_gate_or_another_registry_is_another_registration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**registry: object) -> str:
        config = PipelineConfig.model_validate({"pipeline": "p", "storage": str(tmp_path), "registry": registry})
        stage = register_stage(config, CANDIDATE, (EVALUATION,))
        assert stage.figures is RegistrationFigures
        return stage.key

    keys = [key(), key(name="other"), key(min_metrics={"dice": 0.5}), key(compare_metric="iou"), key(export=["onnx"])]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    assert len({*keys, key()}) == 6


def test_a_rollback_outlives_a_repeated_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version was decided on: it is neither compared nor promoted again."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = PipelineConfig.model_validate({"pipeline": "p", "storage": str(tmp_path), "registry": {"name": "m"}})
    client = tracking.connect(str(tmp_path))
    client.create_registered_model("m")
    client.create_model_version("m", str(tmp_path))
    client.create_model_version("m", str(tmp_path), tags={REGISTER_TAG: "key", GATE_TAG: "champion: better: by 0.1"})
    client.set_registered_model_alias("m", "champion", "1")
    figures = _register(config, CANDIDATE, Attempt(str(tmp_path / "register"), "key", "attempt"))
    champion = find_champion(client, "m")
    assert champion is not None
    assert int(champion.version) == 1
    assert (figures.model_version, figures.model_uri, figures.alias) == (2, "models:/m/2", "")
    assert figures.reason == "champion at registration, which is version 1 now: better: by 0.1"


def test_a_version_says_what_it_cost_and_which_run_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that were cache hits are part of the cost."""
    cost = {"cpu_seconds": 120.4, "gpu_seconds": 30.2}
    first, second = (EVALUATION.model_copy(update=cost | {"key": key}) for key in "ab")
    lineage = (first, second, second, EVALUATION)  # networks that share a stage list it each
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-7")
    tags = _tags(PipelineConfig(pipeline="p"), replace(CANDIDATE, lineage=lineage))
    assert tags["unetflow.cpu_seconds"] == "241"
    assert tags["unetflow.gpu_seconds"] == "60"
    assert tags["unetflow.run_id"] == "run-7"


def test_a_network_that_cannot_be_exported_is_named_with_the_remedy(tmp_path: Path) -> None:
    network = build_network(UNetSpec(channels=(4, 8)), 1, 2, ndim=2).to(torch.bfloat16)
    with pytest.raises(
        ConfigError, match=r"(?s)unet cannot .* float32 on the CPU, got .*bfloat16.*registry\.export=\[\]"
    ):
        write_exports(tmp_path, {"unet": lambda: trace_unet(network, 1, 2)}, RegistrySpec())
