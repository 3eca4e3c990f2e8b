"""The servers of ``make stack``, for real: submitted to, scheduled on, consumed from.

The tests of this file follow one another: each continues with what the one before left on the servers.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.stack.client import NUM_CASES, Client
from tests.support.datasets import write_case
from tests.support.project import CHECKOUT
from tests.support.serving import ask_served, wait_for

OF_A_CLIENT = r"postgres: \w+ \w+ 127\.0\.0\.1\(\d+\)"
"""Beginning of the title of a process of PostgreSQL that serves a client: user, database, address and port."""
VARIABLES = ("RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING")


def test_secrets_are_the_users_alone(client: Client) -> None:
    for name in ("stack.env", "secrets.env", "mlflow-auth.ini"):
        assert (client.folder / "s" / name).stat().st_mode & 0o077 == 0, name


def test_every_server_listens_on_loopback_alone(client: Client) -> None:
    import psutil

    stack = psutil.Process(client.stack_pid)
    listening = set()
    for process in (stack, *stack.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            opened = process.net_connections("tcp")
            listening |= {(process.name(), one.laddr.ip) for one in opened if one.status == psutil.CONN_LISTEN}
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening


@pytest.mark.parametrize("variable", VARIABLES)
def test_without_a_secret_it_is_refused(client: Client, variable: str) -> None:
    _, said = client.run("submit", str(client.config), code=2, without=(variable,))
    assert variable in said
    assert "missing" in said


def test_an_open_address_is_refused_without_a_token(client: Client) -> None:
    arguments = ("submit", str(client.config), "--address", "http://192.0.2.1:8265")
    _, said = client.run(*arguments, code=2, without=("RAY_AUTH_TOKEN",))
    assert "RAY_AUTH_TOKEN" in said


def test_the_doctor_finds_all_well_then_each_thing_that_is_not(client: Client) -> None:
    out, _ = client.run("doctor", "--json")
    assert {finding["state"] for finding in json.loads(out)} == {"ok"}, out
    for variable, subject in zip(VARIABLES, ("ray", "mlflow", "prefect"), strict=True):
        out, _ = client.run("doctor", "--json", code=1, without=(variable,))
        (found,) = [finding for finding in json.loads(out) if finding["state"] == "bad"]
        assert (found["subject"], variable in found["text"]) == (subject, True)
    out, _ = client.run("doctor", str(client.config), "--set", "compute.threads_per_worker=64", "--json", code=1)
    (found,) = [finding for finding in json.loads(out) if finding["state"] == "bad"]
    assert found["subject"] == "ray resources"
    token = client.folder / "home" / ".ray" / "auth_token"
    token.parent.mkdir(exist_ok=True)
    token.write_text("secret")
    token.chmod(0o644)
    out, _ = client.run("doctor", code=1)
    token.unlink()
    assert f"chmod 600 {token}" in out


def test_submitted_detached_submitted_again_and_followed_to_a_registered_model(client: Client) -> None:
    out, _ = client.run("submit", str(client.config), "--json")
    job_id, new = json.loads(out).values()
    assert new
    follower = client.start("status", job_id, "--follow")
    assert follower.stderr is not None
    said = follower.stderr.readline()  # of the job's output: it follows
    follower.send_signal(signal.SIGINT)
    said += follower.stderr.read()
    follower.communicate()  # closes its pipes
    assert follower.returncode == 130, said
    assert f"unetflow status {job_id} --follow" in said
    killed = client.start("submit", str(client.config), "--follow")  # the same job: it runs
    assert killed.stderr is not None
    assert "not sent, jobs use the credentials of their nodes" in killed.stderr.readline()
    assert killed.stderr.readline() == f"{job_id}: exists already\n"
    killed.kill()
    killed.communicate()
    out, said = client.run("status", job_id, "--follow", "--json")
    result = json.loads(out)
    assert result["model_uri"] == "models:/boxes@champion"
    assert [stage["name"] for stage in result["stages"]] == ["shard", "train", "evaluate", "register"]
    out, _ = client.run("status", "--json")
    states = {row["what"]: row["state"] for row in json.loads(out)}
    assert states == dict.fromkeys(["pipeline boxes", "shard", "train", "evaluate", "register"], "succeeded")


def test_no_file_of_ray_holds_credentials_of_the_jobs(client: Client) -> None:
    (folder,) = (client.folder / "s").glob("ray")
    logs = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "runtime_env_agent.log" for path in logs)
    for name in ("MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING"):
        secret = client.variables[name].rpartition(":")[2].encode()
        assert [path for path in logs if secret in path.read_bytes()] == [], name


def test_versions_tell_where_they_come_from(client: Client) -> None:
    out, _ = client.run("models", "boxes", "--json")
    (version,) = json.loads(out)
    assert version["aliases"] == ["champion"]
    lineage = {"code", "config_digest", "shard_digest", "evaluate_digest", "train_key"}
    assert all(version["tags"][f"unetflow.{name}"] for name in lineage)
    assert version["tags"]["mlflow.run_id"]


def test_predict_a_folder_and_resume_with_what_is_missing(client: Client) -> None:
    output = client.folder / "predictions"
    arguments = ("predict", "models:/boxes@champion", str(client.raw / "imagesTr"), str(output), "--json")
    out, _ = client.run(*arguments)
    assert json.loads(out)["num_predicted"] == NUM_CASES
    (output / "case0.nii.gz").unlink()
    out, _ = client.run(*arguments)
    result = json.loads(out)
    assert (result["num_predicted"], result["num_found_done"]) == (1, NUM_CASES - 1)
    image = nib.load(client.raw / "imagesTr" / "case0_0000.nii.gz")
    labels = nib.load(output / "case0.nii.gz")
    assert labels.shape == image.shape
    assert (labels.affine == image.affine).all()


def test_mlflow_serves_it_over_http(client: Client) -> None:
    path = client.raw / "imagesTr" / "case1_0000.nii.gz"
    require_served_as_predicted(client, "models:/boxes@champion", path, client.folder / "predictions" / "case1.nii.gz")


HIPPOCAMPUS = os.environ.get("UNETFLOW_TEST_HIPPOCAMPUS", "")
"""The folder Task04_Hippocampus, which is not part of this project."""


@pytest.mark.skipif(not HIPPOCAMPUS, reason="set UNETFLOW_TEST_HIPPOCAMPUS to the folder Task04_Hippocampus")
def test_real_volumes_from_submission_to_http(client: Client) -> None:
    """The shipped config, shortened."""
    values = (
        f"data.root={HIPPOCAMPUS}",
        f"storage={client.folder}/h",
        "train.num_steps=500",
        "registry.min_metrics={}",
    )
    shortened = [word for value in values for word in ("--set", value)]
    config = str(CHECKOUT / "flows" / "configs" / "hippocampus.yaml")
    out, _ = client.run("submit", config, *shortened, "--follow", "--json")
    result = json.loads(out)
    assert result["model_uri"] == "models:/hippocampus@champion"
    assert result["metrics"]["dice"] > 0.5
    output = client.folder / "hippocampus"
    volumes = sorted(Path(HIPPOCAMPUS, "imagesTr").glob("hippocampus_*0.nii.gz"))
    out, _ = client.run(
        "predict", result["model_uri"], f"{HIPPOCAMPUS}/imagesTr/hippocampus_*0.nii.gz", str(output), "--json"
    )
    assert json.loads(out)["num_predicted"] == len(volumes)
    require_served_as_predicted(client, result["model_uri"], volumes[0], output / volumes[0].name)


def test_cancel_leaves_nothing_running(client: Client) -> None:
    arguments = ("--set", "train.num_steps=100000", "--set", "registry.name=endless")
    out, _ = client.run("submit", str(client.config), *arguments, "--json")
    job_id = json.loads(out)["job_id"]
    wait_for(lambda: is_training(client, job_id), lambda: client.run("status", job_id)[0], 120)
    out, _ = client.run("cancel", job_id, "--json")
    assert len(json.loads(out)["stopped"]) == 2
    wait_for(lambda: workers() == [], lambda: f"still there: {workers()}", 60)
    rows = json.loads(client.run("status", job_id, "--json")[0])
    assert {row["state"] for row in rows} <= {
        "stopped",
        "failed",
        "succeeded",
    }  # failed: it ended before Ray had noted the stop


def is_training(client: Client, job_id: str) -> bool:
    rows = json.loads(client.run("status", job_id, "--json")[0])
    return any(row["what"] == "train" and row["state"] == "running" for row in rows) and workers() != []


def test_postgresql_restarts_under_a_training(client: Client) -> None:
    """A process of it gets SIGKILL: PostgreSQL ends all connections of MLflow and Prefect, and recovers.

    Must fail where PostgreSQL does not come back (its first process killed).
    """
    import psutil

    arguments = ("--set", "train.num_steps=600", "--set", "registry.name=recovered")
    out, _ = client.run("submit", str(client.config), *arguments, "--json")
    job_id = json.loads(out)["job_id"]
    wait_for(lambda: is_training(client, job_id), lambda: client.run("status", job_id)[0], 120)
    log = client.folder / "s" / "logs" / "postgres.log"
    before = log.read_text().count("ready to accept connections")
    children = psutil.Process(client.stack_pid).children(recursive=True)
    next(each for each in children if re.match(OF_A_CLIENT, " ".join(each.cmdline()))).kill()
    wait_for(lambda: log.read_text().count("ready to accept connections") > before, log.read_text, 60)
    out, _ = client.run("submit", str(client.config), *arguments, "--follow", "--json")
    assert json.loads(out)["model_uri"] == "models:/recovered@champion"
    (version,) = json.loads(client.run("models", "recovered", "--json")[0])
    assert version["aliases"] == ["champion"]


def test_scheduled_runs_compute_what_is_new(client: Client) -> None:
    """On the worker process: the first two are all cache hits, the third shards the one volume that was added."""
    client.deploy(interval=45)
    runs = wait_for_runs(client, 2)
    assert counts(client) == {"shard": 1, "train": 1}, "nothing was computed a second time"
    write_case(client.raw, "case_new")
    wait_for_runs(client, len(finished_runs(client)) + 1, beside=runs)
    wait_for(lambda: counts(client)["train"] == 2, lambda: str(counts(client)), 240)
    newest = max(
        (client.folder / "s" / "storage" / "shard").glob("*/record.json"), key=lambda path: path.stat().st_mtime
    )
    assert json.loads(newest.read_text())["figures"]["num_new"] == 1
    records = (client.folder / "s" / "storage" / "train").glob("*/record.json")
    bases = [json.loads(path.read_text())["figures"].get("init") for path in records]
    assert sorted(base is not None for base in bases) == [False, True], "the second began with the champion's weights"


def test_the_automation_for_dead_runs_is_made_once(client: Client) -> None:
    """The stack made it."""
    subprocess.run([sys.executable, "-m", "flows.running.schedule"], env=client.environment(), cwd=CHECKOUT, check=True)
    (automation,) = client.prefect("/automations/filter", {})
    assert [(action["type"], action["state"]) for action in automation["actions"]] == [
        ("change-flow-run-state", "CRASHED")
    ]


def test_rollback_is_one_command(client: Client) -> None:
    wait_for(lambda: len(json.loads(client.run("models", "boxes", "--json")[0])) == 2, lambda: "no second version", 120)
    client.run("champion", "boxes", "2")
    out, _ = client.run("champion", "boxes", "--json")
    assert json.loads(out)["version"] == "1"


def finished_runs(client: Client) -> list[dict[str, Any]]:
    """Flow runs that ended; none may have failed."""
    runs: list[dict[str, Any]] = client.prefect("/flow_runs/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    assert not [run for run in runs if run["state_type"] in ("FAILED", "CRASHED")], runs
    return [run for run in runs if run["state_type"] == "COMPLETED"]


def wait_for_runs(client: Client, count: int, beside: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    wait_for(lambda: len(finished_runs(client)) >= count, lambda: f"{count} runs did not come: {beside}", 240)
    return finished_runs(client)


def counts(client: Client) -> dict[str, int]:
    """How many shard and train stages were ever computed for the model ``boxes``."""
    root = client.folder / "s" / "storage"
    return {name: len(list((root / name).glob("*/record.json"))) for name in ("shard", "train")}


def workers() -> list[int]:
    """Training workers on this machine that belong to a stack of this test session."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::RayTrainWorker"):
            found.append(process.pid)
    return found


def require_served_as_predicted(client: Client, model: str, path: Path, predicted: Path) -> None:
    """``mlflow models serve`` answers curl with the label map that ``unetflow predict`` wrote."""
    (labels,) = ask_served(model, {"path": [str(path)]}, client.environment(), client.folder)
    np.testing.assert_array_equal(np.asarray(labels), nib.load(predicted).get_fdata())
