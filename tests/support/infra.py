"""What operators deploy, as read from infra/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.project import CHECKOUT

INFRA = CHECKOUT / "infra"
COMPOSE_FILES = sorted(INFRA.glob("compose*.yaml"))
MANIFESTS = sorted((INFRA / "kuberay").glob("*.yaml"))
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH_STRING|ACCESS_KEY")
PIPELINE_VARIABLES = {
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "UNETFLOW_STORAGE",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
}
RAY_TOKEN = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def compose() -> dict[str, Any]:
    """Read the compose file."""
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def documents() -> list[dict[str, Any]]:
    """Read every manifest."""
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def document(kind: str) -> dict[str, Any]:
    """Return the one manifest of a kind."""
    (found,) = (each for each in documents() if each["kind"] == kind)
    return found


def shipped_values() -> dict[str, Any]:
    """Read the values of the charts."""
    return yaml.safe_load((INFRA / "values.yaml").read_text())


def pod_templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the pods that a RayCluster's or RayJob's spec describes, by role."""
    cluster = spec.get("rayClusterSpec", spec)
    pods = {"head": cluster["headGroupSpec"]["template"]}
    pods |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return pods | ({"submitter": spec["submitterPodTemplate"]} if "submitterPodTemplate" in spec else {})


def values_of(name: str, node: Any) -> Iterator[Any]:
    """Yield whatever stands under the key ``name``, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from values_of(name, value)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(name, value)
