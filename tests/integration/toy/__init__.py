"""A pipeline of two stages that is no part of ``flows``: fits a straight line through noisy points and registers it.

Run as a user's own package is: ``python -m toy run config.yaml``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np

from data_pipelines import storage
from data_pipelines.specs import Spec
from flows.config.pipeline import PipelineConfig
from flows.metrics import METRICS, Metric
from flows.pipelines.catalog import PIPELINES
from flows.registry.candidate import Candidate, ModelFiles
from flows.registry.champion import compare_figures
from flows.registry.register import RegistrationFigures, register_stage
from flows.stages.attempt import Attempt
from flows.stages.pipeline import Pipeline, Records, Step
from flows.stages.record import EvaluationFigures
from flows.stages.stage import Stage


class FitSpec(Spec):
    """Settings of stage ``fit``."""

    slope: float = 3.0
    """Slope of the line that the points lie on."""
    num_points: int = 100


class ToyConfig(PipelineConfig):
    """Configuration of the pipeline."""

    pipeline: Literal["toy"] = "toy"
    fit: FitSpec = FitSpec()


class FitFigures(EvaluationFigures):
    """Figures of a fitted line."""

    slope: float


def fit_stage(config: ToyConfig, records: Records) -> Stage[FitFigures]:
    """Plan the fit."""
    spec = config.fit

    def compute(attempt: Attempt) -> FitFigures:
        x = np.linspace(-1, 1, spec.num_points)
        y = spec.slope * x + np.random.default_rng(0).normal(0, 0.01, spec.num_points)
        slope = float(x @ y / (x @ x))
        attempt.write("line", "line.json", json.dumps(slope).encode())
        return FitFigures(metrics={"slope_error": abs(slope - spec.slope)}, slope=slope)

    return Stage("fit", spec.model_dump(), (), compute, FitFigures)


def plan_registration(config: ToyConfig, records: Records) -> Stage[RegistrationFigures]:
    """Plan the registration of the fitted line."""
    fitted = records["fit"]

    def write_files(folder: Path) -> ModelFiles:
        from mlflow.models import infer_signature

        (folder / "line.json").write_bytes(storage.read_bytes(fitted.output("line")))
        example = np.zeros((1, 1))
        return ModelFiles(infer_signature(example, example[:, 0]), example)

    candidate = Candidate(
        description="A straight line.",
        code=Path(__file__).with_name("model.py"),
        requirements=("numpy",),
        default_metric="slope_error",
        evaluation_data="all of it",
        evaluation=fitted,
        lineage=(fitted,),
        run_key=fitted.key,
        step=0,
        write_files=write_files,
        build_card=lambda: "Fitted by least squares.",
        compare=lambda champion, metric: compare_figures("all of it", metric, fitted.figures.metrics, champion),
    )
    return register_stage(config, candidate, (fitted,))


TOY = Pipeline(
    "toy",
    ToyConfig,
    (Step("fit", fit_stage, "Fit the line."), Step("register", plan_registration, "Register it in MLflow.")),
    entry_module="toy",
)


def add_to_catalog() -> None:
    """Make the pipeline and its metric known."""
    PIPELINES["toy"] = TOY
    METRICS["slope_error"] = Metric("slope_error", "Slope error", "lower", "Distance from the true slope.")
