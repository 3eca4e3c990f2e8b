"""Prefect deployments, and the commands and files that infra/ names."""

from __future__ import annotations

import re
from typing import Any

import yaml

from flows.pipelines.catalog import PIPELINES
from tests.support.infra import INFRA
from tests.support.project import CHECKOUT


def prefect_deployments() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "prefect.yaml").read_text())


def test_prefect_deploys_the_pipelines_with_configs_that_are_right() -> None:
    """``prefect deploy`` ignores what it does not know, so the keys are compared, and the parameters validated."""
    from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel

    described = prefect_deployments()
    assert set(described) <= set(PrefectYamlModel.model_fields) | {"prefect-version", "definitions"}
    PrefectYamlModel.model_validate(described)
    for deployment in described["deployments"]:
        assert set(deployment) <= set(DeploymentConfig.model_fields), deployment["name"]
        assert deployment["work_pool"]["name"] == "unetflow"
        assert all(schedule["timezone"] for schedule in deployment["schedules"])
        config = deployment["parameters"]["config"]
        PIPELINES[config["pipeline"]].config.model_validate(config)
        shipped = yaml.safe_load((CHECKOUT / "flows" / "configs" / f"{config['registry']['name']}.yaml").read_text())
        for group, fields in shipped.items():
            if group != "pipeline":
                assert fields | {"root": None} == {name: config[group][name] for name in fields} | {"root": None}, group


def test_deployments_name_flows_that_there_are() -> None:
    from prefect import Flow

    from flows.running import prefect_flow

    entrypoints = {each["entrypoint"] for each in prefect_deployments()["deployments"]}
    assert entrypoints == {f"flows.running.prefect_flow.{name}_flow" for name in PIPELINES}
    for name, pipeline in PIPELINES.items():
        flow = getattr(prefect_flow, f"{name}_flow")
        assert isinstance(flow, Flow)
        assert flow.name == name
        assert flow.fn.__annotations__["config"] is pipeline.config, "what Prefect's form shows and validates"


def test_commands_in_comments_and_readmes_name_modules_that_there_are() -> None:
    from importlib.util import find_spec

    texts = [path.read_text() for path in INFRA.rglob("*") if path.suffix in (".yaml", ".md", ".sh", ".py")]
    modules = {name for text in texts for name in re.findall(r"python -m ((?:flows|unet_models)[\w.]*)", text)}
    assert [name for name in modules if find_spec(name) is None] == []
    files = {
        name for text in texts for name in re.findall(r"\b(?:flows|unet_models|data_pipelines)/[\w/-]+\.\w+", text)
    }
    assert [name for name in files if not (CHECKOUT / name).exists()] == []
