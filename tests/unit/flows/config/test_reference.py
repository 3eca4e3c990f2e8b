"""The reference explains every field, and a template is the default configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from flows.config.pipeline import PipelineConfig
from flows.config.reference import metrics_markdown, reference_markdown, template_yaml
from flows.metrics import METRICS
from flows.pipelines.catalog import PIPELINES

MODELS = [(name, pipeline.config) for name, pipeline in PIPELINES.items()]


def fields(
    model: type[BaseModel], path: str = "", *, num_alternatives: int = 9, optional: bool = True
) -> Iterator[tuple[str, str]]:
    """Yield path and description of every field, groups of fields among them, of alternative groups the first ones.

    ``optional=False`` leaves out the fields of groups that are null by default.
    """
    for name, info in model.model_fields.items():
        yield f"{path}{name}", (info.description or "").strip()
        kinds = [info.annotation, *(get_args(each)[0] for each in get_args(info.annotation) if get_args(each))]
        kinds += get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else []
        groups = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for group in groups[:num_alternatives] if optional or info.default is not None else ():
            yield from fields(group, f"{path}{name}.", num_alternatives=num_alternatives, optional=optional)


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_every_field_of_every_config_model_has_a_description(name: str, model: type[PipelineConfig]) -> None:
    described = dict(fields(model))
    assert len(described) > 50
    assert [path for path, description in described.items() if not description] == []


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_template_is_the_default_configuration(name: str, model: type[PipelineConfig]) -> None:
    text = template_yaml(model)
    loaded = yaml.safe_load(text)
    assert model.model_validate(loaded) == model()
    assert loaded["pipeline"] == name
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_template_shows_and_explains_every_field(name: str, model: type[PipelineConfig]) -> None:
    lines = template_yaml(model).splitlines()
    shown = [number for number, line in enumerate(lines) if not line.strip().startswith("#")]
    assert len(shown) == len(list(fields(model, num_alternatives=1, optional=False)))
    for number in shown:
        assert lines[number - 1].strip().startswith("# "), lines[number]


def test_the_reference_has_a_row_for_every_field() -> None:
    text = reference_markdown(MODELS).split("\n## Metrics\n")[0]
    for section, (name, model) in zip(text.split("\n## Pipeline ")[1:], MODELS, strict=True):
        assert section.startswith(f"`{name}`")
        rows = set()
        for group in section.split("\n### ")[1:]:
            path = "" if group.startswith("Top level") else group.split("`")[1] + "."
            rows |= {
                path.removesuffix("."),
                *(path + leaf for leaf in re.findall(r"^\| `(\w+)` \|", group, re.MULTILINE)),
            }
        assert rows - {""} == dict(fields(model)).keys()


def test_alternative_groups_are_told_apart_by_the_field_that_chooses() -> None:
    text = reference_markdown(MODELS)
    for backbone in ("unet", "uvit", "dit"):
        assert f"### `train.model` with `backbone: {backbone}`" in text
    assert "### `task` with `name: super_resolution`" in text


def test_defaults_are_those_of_the_pipeline() -> None:
    """Restoration has no normalisation, where a U-Net by itself has one."""
    assert load_default("restoration")["train"]["model"]["norm"] == "none"
    assert load_default("segmentation")["train"]["model"]["norm"] == "instance"
    assert reference_markdown(MODELS).count("| `instance` or `batch` or `group` or `none` | `none` |") == 1


def load_default(pipeline: str) -> dict[str, Any]:
    """Load a pipeline's template."""
    loaded: dict[str, Any] = yaml.safe_load(template_yaml(PIPELINES[pipeline].config))
    return loaded


def test_types_bounds_and_defaults_are_written_as_people_say_them() -> None:
    text = reference_markdown(MODELS)
    for row in (
        "| `num_workers` | integer or [integer, integer] | `2` |",
        "| `use_gpu` | true or false | `false` |",
        "| `retry_delay_seconds` | number (≥ 0) | `10.0` |",
        "| `timeout_seconds` | number or null (> 0) | `null` |",
        "| `min_metrics` | map from text to number | `{}` |",
        "| `export` | list of `onnx` or `torch_export` | `[onnx, torch_export]` |",
        "| `compare_metric` | text | `''` |",
    ):
        assert row in text


def test_the_table_of_metrics_lists_what_can_be_compared() -> None:
    lines = metrics_markdown()
    listed = {line.split("`")[1] for line in lines if line.startswith("| `")}
    assert listed == {name for name, metric in METRICS.items() if metric.meaning}
    assert "| `volume_error_percent` | Volume error (%) | nearer 0 is better |" in "\n".join(lines)
