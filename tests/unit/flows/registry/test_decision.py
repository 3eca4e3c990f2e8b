"""Two candidates at once, on a real registry: whoever comes second is compared with who came first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.config.pipeline import PipelineConfig
from flows.registry import tracking
from flows.registry.candidate import Candidate, ModelFiles
from flows.registry.champion import EVALUATION_TAG, compare_figures
from flows.registry.decision import Decision, assign_alias
from flows.registry.models import METRICS_TAG, find_champion
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures
from tests.support.records import finished


def write_no_files(folder: Path) -> ModelFiles:
    raise AssertionError("a decision writes no model")


def candidate(dice: float) -> Candidate:
    evaluation = finished("evaluate", EvaluationFigures(metrics={"dice": dice}))
    return Candidate(
        description="d",
        code=Path("pyfunc_model.py"),
        requirements=(),
        default_metric="dice",
        evaluation_data="data",
        evaluation=evaluation,
        lineage=(evaluation,),
        run_key="k",
        step=1,
        write_files=write_no_files,
        build_card=str,
        compare=lambda champion, metric: compare_figures("data", metric, {"dice": dice}, champion),
    )


@pytest.mark.parametrize("order", [(0.9, 0.8), (0.8, 0.9)])
def test_the_better_of_two_that_saw_no_champion_ends_as_champion(
    order: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = PipelineConfig.model_validate({"pipeline": "p", "storage": str(tmp_path), "registry": {"name": "m"}})
    client = tracking.connect(str(tmp_path))
    client.create_registered_model("m")
    decided = []
    for dice in order:
        tags: dict[str, Any] = {EVALUATION_TAG: "data", METRICS_TAG: json.dumps({"dice": dice})}
        version = str(client.create_model_version("m", str(tmp_path), tags=tags).version)
        attempt = Attempt(str(tmp_path / "register"), "key", f"attempt-{version}")
        unaware = Decision("champion", "there is no champion to compare with", champion=None)
        decided.append(assign_alias(client, config, candidate(dice), attempt, version, unaware))
    champion = find_champion(client, "m")
    assert champion is not None
    assert json.loads(champion.tags[METRICS_TAG]) == {"dice": 0.9}
    assert decided[0].alias == "champion"
    assert decided[1].alias == ("champion" if order[1] == 0.9 else "challenger")
    assert "against the champion's" in decided[1].reason
