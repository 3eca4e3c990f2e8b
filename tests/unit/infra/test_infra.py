"""What operators deploy, held to published schemas where packages carry them and to rules of our own elsewhere. Nothing
here starts a container."""

from __future__ import annotations

import configparser
import copy
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from flows.pipelines.catalog import PIPELINES
from tests.support.project import CHECKOUT

INFRA = CHECKOUT / "infra"
COMPOSE_FILES = sorted(INFRA.glob("compose*.yaml"))
MANIFESTS = sorted((INFRA / "kuberay").glob("*.yaml"))
KUBERNETES = "1.34"
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
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def document(kind: str) -> dict[str, Any]:
    (found,) = (each for each in documents() if each["kind"] == kind)
    return found


def pod_templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods that a RayCluster's or RayJob's spec describes, by role."""
    cluster = spec.get("rayClusterSpec", spec)
    pods = {"head": cluster["headGroupSpec"]["template"]}
    pods |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return pods | ({"submitter": spec["submitterPodTemplate"]} if "submitterPodTemplate" in spec else {})


PODS = [
    pytest.param(template, id=f"{each['kind']}-{role}")
    for each in documents()
    if each["apiVersion"] == "ray.io/v1"
    for role, template in pod_templates(each["spec"]).items()
]


def values_of(name: str, node: Any) -> Iterator[Any]:
    """Whatever stands under the key ``name``, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from values_of(name, value)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(name, value)


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from strings(value)


def shipped_values() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "values.yaml").read_text())


# Compose


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_keeps_the_published_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), get_builtin_schema("vendor.compose-spec"))


def test_the_compose_schema_is_one_that_refuses() -> None:
    wrong = compose()
    wrong["services"]["mlflow"]["healtcheck"] = {}
    with pytest.raises(jsonschema.ValidationError, match="healtcheck"):
        jsonschema.validate(wrong, get_builtin_schema("vendor.compose-spec"))


def test_ports_are_published_on_loopback_alone() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 4
    for port in ports:
        assert isinstance(port, str), f"{port}: write it in the short form, with the address first"
        assert port.startswith("127.0.0.1:"), port


def test_every_secret_is_required_and_has_no_default() -> None:
    text = (INFRA / "compose.yaml").read_text()
    references = re.findall(r"\$\{([A-Z_0-9]+)([^}]*)\}", text)
    secrets = {name for name, _ in references if SECRET.search(name)}
    assert secrets == example_variables(), "env.example and compose.yaml must name the same secrets"
    for name, rest in references:
        assert rest.startswith(":?" if name in secrets else ":-"), f"${{{name}{rest}}}"


def test_no_secret_is_written_out_in_compose() -> None:
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name}: {value}"


def test_services_wait_for_healthy_ones_and_come_back() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        assert "privileged" not in service, name
        assert "no-new-privileges:true" in service["security_opt"], name
        one_shot = service["restart"] == "on-failure"
        assert one_shot or "test" in service["healthcheck"], name
        for other, how in service.get("depends_on", {}).items():
            wanted = (
                "service_completed_successfully" if services[other]["restart"] == "on-failure" else "service_healthy"
            )
            assert how["condition"] == wanted, f"{name} -> {other}"


def test_files_that_compose_mounts_or_builds_exist() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (INFRA / source).is_file(), source
        if build := service.get("build"):
            assert (INFRA / build["context"] / build["dockerfile"]).is_file()
    assert (INFRA / "postgres-init.sh").stat().st_mode & 0o111, "Postgres sources what it cannot execute"


def test_the_overlay_adds_to_services_that_there_are() -> None:
    overlay = yaml.safe_load((INFRA / "compose.tls.yaml").read_text())
    ray = {name for name in compose()["services"] if name.startswith("ray-")}
    assert set(overlay["services"]) == ray, "TLS is on for all of Ray's processes or for none"


def test_make_env_fills_every_secret_and_overwrites_nothing(tmp_path: Path) -> None:
    target = tmp_path / ".env"
    subprocess.run([INFRA / "make-env.sh", target], check=True)
    lines = dict(line.split("=", 1) for line in target.read_text().splitlines() if line and not line.startswith("#"))
    assert set(lines) == example_variables()
    assert all(re.fullmatch(r"(admin:)?[0-9a-f]{48}", value) for value in lines.values()), lines
    assert len(set(lines.values())) == len(lines), "each its own"
    assert target.stat().st_mode & 0o777 == 0o600
    again = subprocess.run([INFRA / "make-env.sh", target], capture_output=True, text=True)
    assert again.returncode == 1
    assert "there is one already" in again.stderr


def example_variables() -> set[str]:
    return set(re.findall(r"^([A-Z_0-9]+)=", (INFRA / "env.example").read_text(), re.MULTILINE))


def test_the_auth_file_of_mlflow_is_complete_and_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.server.auth.config import read_auth_config

    service = compose()["services"]["mlflow"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}
    path = INFRA / mounted[service["environment"]["MLFLOW_AUTH_CONFIG_PATH"]]
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(path))
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "of the environment")
    config = read_auth_config()
    assert config.database_uri == "postgresql+psycopg:///mlflow_auth"
    assert config.admin_password == "of the environment"
    parser = configparser.ConfigParser()
    parser.read(path)
    assert not [name for name in parser["mlflow"] if "password" in name]


# Kubernetes


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


# Images


def images() -> list[str]:
    charts = [f"{i['repository']}:{i.get('tag', i.get('prefectTag'))}" for i in values_of("image", shipped_values())]
    built = [image.replace("${DEVICE:-cpu}", "cpu") for image in values_of("image", compose()["services"])]
    return [*built, *values_of("image", documents()), *charts]


def test_every_image_is_pinned_by_tag() -> None:
    assert len(images()) > 15
    for image in images():
        name, _, tag = image.rpartition(":")
        assert name, image
        assert re.search(r"\d+\.\d+", tag), image
        assert "latest" not in tag, image


def test_our_image_carries_our_version() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    tags = {image.removeprefix("unetflow:") for image in images() if image.startswith("unetflow:")}
    assert tags == {f"{project['version']}-cpu", f"{project['version']}-cuda"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, comments and line breaks removed."""
    lines = [line for line in (INFRA / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_dockerfile_is_small_pinned_and_not_root() -> None:
    found = instructions()
    arguments = dict(rest.split("=", 1) for word, rest in found if word == "ARG")
    (base,) = (rest for word, rest in found if word == "FROM")
    assert base == "python:${PYTHON_VERSION}-slim-bookworm"
    assert re.fullmatch(r"3\.11\.\d+", arguments["PYTHON_VERSION"]), "Ray wants nodes and clients alike to the patch"
    assert arguments["DEVICE"] == "cpu"
    assert not [name for name in arguments if SECRET.search(name)]
    users = [rest for word, rest in found if word == "USER"]
    assert users == ["1000:1000"], "by number: Kubernetes cannot tell whether a name is root"
    assert not [rest for word, rest in found if word == "ADD" or "sudo" in rest]
    for command in (rest for word, rest in found if word == "RUN"):
        for install in re.findall(r"pip install[^;&]*", command):
            assert "--constraint constraints.txt" in install or "--no-deps" in install, install
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert "rm -rf /var/lib/apt/lists/*" in command


def test_what_the_image_copies_exists_and_passes_the_ignore_file() -> None:
    allowed = {
        line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert "*" in (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {source for word, rest in instructions() if word == "COPY" for source in sources(rest)}
    assert copied == allowed
    assert all((CHECKOUT / source).exists() for source in copied)


def sources(arguments: str) -> list[str]:
    return [word for word in arguments.split() if not word.startswith("--")][:-1]


def test_the_image_installs_what_the_project_says() -> None:
    (command,) = (rest for word, rest in instructions() if word == "RUN" and "requirements.txt" in rest)
    script = re.search(r'python -c "(.*?)" > requirements.txt', command)[1]
    result = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert result.stdout.split("\n")[:-1] == project["dependencies"] + project["optional-dependencies"]["servers"]


# TLS


def test_a_node_gets_a_certificate_that_its_ca_vouches_for(tmp_path: Path) -> None:
    make_ca(tmp_path)
    probe = (
        "import json, os, ssl; "
        "context = ssl.create_default_context(cafile=os.environ['RAY_TLS_CA_CERT']); "
        "context.load_cert_chain(os.environ['RAY_TLS_SERVER_CERT'], os.environ['RAY_TLS_SERVER_KEY']); "
        "decoded = ssl._ssl._test_decode_cert(os.environ['RAY_TLS_SERVER_CERT']); "
        "print(json.dumps([os.environ['RAY_USE_TLS'], decoded['subjectAltName']]))"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "RAY_TLS_CA_FOLDER": str(tmp_path),
        "RAY_TLS_NAMES": "ray-head other",
        "RAY_TLS_ADDRESSES": "10.1.2.3",
        "TMPDIR": str(tmp_path),
    }
    command = [INFRA / "ray-tls.sh", sys.executable, "-c", probe]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    use_tls, names = json.loads(result.stdout)
    assert use_tls == "1"
    assert {"ray-head", "other", "localhost", "127.0.0.1", "10.1.2.3"} <= {name for _, name in names}
    (certificate,) = tmp_path.glob("*/tls.crt")
    subprocess.run(["openssl", "verify", "-CAfile", tmp_path / "ca.crt", certificate], check=True, capture_output=True)
    assert (certificate.parent / "tls.key").stat().st_mode & 0o777 == 0o600


def make_ca(folder: Path) -> None:
    """With the README's own command."""
    readme = (INFRA / "README.md").read_text()
    command = re.search(r"^openssl req -x509.*?(?<!\\)$", readme, re.MULTILINE | re.DOTALL)[0]
    command = command.replace("infra/certificates", str(folder))
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)


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
    assert modules >= {"flows.running.schedule"}
    assert [name for name in modules if find_spec(name) is None] == []
    files = {
        name for text in texts for name in re.findall(r"\b(?:flows|unet_models|data_pipelines)/[\w/-]+\.\w+", text)
    }
    assert [name for name in files if not (CHECKOUT / name).exists()] == []
