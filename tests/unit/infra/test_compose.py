"""Compose files, held to the published schema and to rules of our own. Nothing here starts a container."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from tests.support.infra import COMPOSE_FILES, INFRA, SECRET, compose


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


def test_mlflow_has_the_options_of_the_stack() -> None:
    patience = "--timeout-worker-healthcheck 60"
    assert f'"--uvicorn-opts", "{patience}"' in (INFRA / "stack" / "servers.py").read_text()
    assert f"--uvicorn-opts={patience}" in compose()["services"]["mlflow"]["command"]
    charts = yaml.safe_load_all((INFRA / "values.yaml").read_text())
    (charts,) = [chart["mlflow"] for chart in charts]
    assert charts["extraArgs"]["uvicornOpts"] == patience
    assert charts["log"] == {"enabled": False}, "else the chart adds to the options, in quotes of its own"


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated:UserWarning")  # MLflow imports it
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
    assert config.auth_cache_ttl_seconds == 60, "as in `make stack`"
    parser = configparser.ConfigParser()
    parser.read(path)
    assert not [name for name in parser["mlflow"] if "password" in name]
