"""Manifests and charts' values, held to published schemas where packages carry them, and to rules of our own."""

from __future__ import annotations

import copy
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flows.cluster.job import DRIVER_MEMORY, PIPELINE_MEMORY
from tests.support.infra import (
    COMPOSE_FILES,
    INFRA,
    PIPELINE_VARIABLES,
    RAY_TOKEN,
    SECRET,
    compose,
    document,
    documents,
    pod_templates,
    shipped_values,
    values_of,
)

KUBERNETES = "1.34"
PODS = [
    pytest.param(template, id=f"{each['kind']}-{role}")
    for each in documents()
    if each["apiVersion"] == "ray.io/v1"
    for role, template in pod_templates(each["spec"]).items()
]

# The fields of ray.io/v1 in KubeRay 1.6 and 1.7, as far as we use them.
CLUSTER_FIELDS = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
JOB_FIELDS = {
    "entrypoint",
    "entrypointNumCpus",
    "submissionMode",
    "backoffLimit",
    "activeDeadlineSeconds",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "submitterPodTemplate",
    "rayClusterSpec",
}


@pytest.mark.parametrize("each", [d for d in documents() if d["apiVersion"] != "ray.io/v1"], ids=lambda d: d["kind"])
def test_kinds_of_kubernetes_keep_their_schema(each: dict[str, Any]) -> None:
    kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("template", PODS)
def test_pods_of_ray_keep_the_schema_of_a_pod(template: dict[str, Any]) -> None:
    validate_as_pod(template)


def validate_as_pod(template: dict[str, Any]) -> None:
    """No package carries KubeRay's own schemas, but most of what its kinds say is templates of pods."""
    pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_schema_of_a_pod_is_one_that_refuses() -> None:
    template = copy.deepcopy(document("RayCluster")["spec"]["headGroupSpec"]["template"])
    template["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        validate_as_pod(template)


@pytest.mark.parametrize("template", PODS)
def test_pods_run_as_nobody_special_and_say_what_they_need(template: dict[str, Any]) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert resources["requests"].get("nvidia.com/gpu") == resources["limits"].get("nvidia.com/gpu")
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounts == {volume["name"] for volume in spec.get("volumes", [])}


def test_nothing_is_privileged() -> None:
    everything = [*documents(), shipped_values(), *(yaml.safe_load(path.read_text()) for path in COMPOSE_FILES)]
    assert not any(values_of("privileged", everything))
    assert not any(values_of("hostNetwork", everything))
    assert not any(values_of("network_mode", everything))


def test_the_ray_cluster_scales_asks_for_the_token_and_has_gpus() -> None:
    spec = document("RayCluster")["spec"]
    assert set(spec) <= CLUSTER_FIELDS
    assert spec["rayVersion"] == version("ray"), "the image's Ray is that of constraints.txt"
    assert spec["authOptions"] == {"mode": "token", "secretName": "unetflow"}
    assert spec["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    for name, group in groups.items():
        assert set(group) <= GROUP_FIELDS
        assert 0 <= group["minReplicas"] < group["maxReplicas"], name
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())
    pod = groups["gpu"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["containers"][0]["image"].endswith("-cuda")
    tolerated = {toleration["key"] for toleration in pod["tolerations"]}
    wanted = {
        term["preference"]["matchExpressions"][0]["key"]
        for term in pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    }
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated
    head = spec["headGroupSpec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = head["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {rule["key"] for rule in term["matchExpressions"]} == wanted, "the head avoids what the workers seek"


def test_drivers_do_not_land_on_the_head() -> None:
    """Ray would place them there first: the head has neither the data nor the memory."""
    clusters = document("RayCluster")["spec"], document("RayJob")["spec"]["rayClusterSpec"]
    offered = [int(spec["headGroupSpec"]["rayStartParams"]["memory"]) for spec in clusters]
    (flag,) = (word for word in compose()["services"]["ray-head"]["command"] if word.startswith("--memory="))
    assert {*offered, int(flag.removeprefix("--memory="))} == {128 << 20}
    assert max(offered) < PIPELINE_MEMORY < DRIVER_MEMORY


def test_a_pod_that_ends_is_drained() -> None:
    """SIGTERM to `ray start --block` drains the node; `ray stop` before it would end the training at once."""
    assert not any(values_of("lifecycle", documents()))


def test_flows_see_the_raw_data() -> None:
    worker = shipped_values()["prefect-worker"]["worker"]
    assert [mount["mountPath"] for mount in worker["extraVolumeMounts"]] == ["/data"]
    assert [volume["name"] for volume in worker["extraVolumes"]] == ["data"]


@pytest.mark.parametrize("template", [each for each in PODS if "submitter" not in str(each.id)])
def test_ray_pods_are_probed(template: dict[str, Any]) -> None:
    (container,) = template["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert "52365/api/local_raylet_healthz" in container[probe]["exec"]["command"][-1]


def test_the_ray_job_runs_a_pipeline_on_the_same_cluster() -> None:
    spec = document("RayJob")["spec"]
    assert set(spec) <= JOB_FIELDS
    assert spec["rayClusterSpec"] == document("RayCluster")["spec"], "rayjob.yaml repeats raycluster.yaml line for line"
    verb, config = spec["entrypoint"].split()[1:]
    assert (spec["entrypoint"].split()[0], verb) == ("unetflow", "run")
    assert spec["entrypointNumCpus"] >= 1, "the head has no CPUs to give"
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never", "KubeRay counts the tries"
    mounts = pod_templates(spec)["cpu"]["spec"]["containers"][0]["volumeMounts"]
    assert Path(config).parent in {Path(mount["mountPath"]) for mount in mounts}


def test_pipelines_find_the_same_variables_everywhere() -> None:
    for name in ("ray-head", "ray-worker", "ray-worker-gpu"):
        assert set(compose()["services"][name]["environment"]) == PIPELINE_VARIABLES | RAY_TOKEN, name
    worker = set(compose()["services"]["prefect-worker"]["environment"])
    assert worker >= PIPELINE_VARIABLES | RAY_TOKEN | {"RAY_ADDRESS"}
    for role, template in pod_templates(document("RayCluster")["spec"]).items():
        (container,) = template["spec"]["containers"]
        assert {variable["name"] for variable in container["env"]} == PIPELINE_VARIABLES, (
            role
        )  # and the token's, injected


def test_secrets_of_pods_come_from_the_secret_that_the_readme_makes() -> None:
    keys = made_secrets()
    references = [*values_of("secretKeyRef", documents()), *values_of("secretKeyRef", shipped_values())]
    assert references
    for reference in references:
        assert reference["key"] in keys[reference["name"]], reference
    assert "auth_token" in keys[document("RayCluster")["spec"]["authOptions"]["secretName"]]
    for variable in values_of("env", documents()):
        assert not [each for each in variable if SECRET.search(each["name"]) and "value" in each]
    charts = shipped_values()
    for section in (charts["prefect-server"]["server"]["basicAuth"], *values_of("basicAuth", charts["prefect-worker"])):
        assert "auth-string" in keys[section["existingSecret"]]
    assert keys[charts["prefect-server"]["secret"]["name"]] == {"connection-string"}
    database = charts["mlflow"]["backendStore"]["existingDatabaseSecret"]
    assert {database["usernameKey"], database["passwordKey"]} == keys[database["name"]]
    needed = {"MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"}
    assert needed == keys["mlflow-server"]
    assert needed < set(compose()["services"]["mlflow"]["environment"])
    claims = {each["claimName"] for each in values_of("persistentVolumeClaim", documents())}
    assert claims == {document("PersistentVolumeClaim")["metadata"]["name"]}


def made_secrets() -> dict[str, set[str]]:
    """The Secrets that the README's commands make, and their keys."""
    commands = (INFRA / "README.md").read_text().replace("\\\n", "").splitlines()
    made = [line.partition("create secret generic ")[2] for line in commands if "create secret generic " in line]
    return {line.split()[0]: set(re.findall(r"--from-literal=([\w-]+)=", line)) for line in made}


def test_no_chart_is_given_a_password() -> None:
    for name in ("password", "adminPassword", "authString", "awsSecretAccessKey", "flaskServerSecretKey"):
        assert not list(values_of(name, shipped_values())), name
