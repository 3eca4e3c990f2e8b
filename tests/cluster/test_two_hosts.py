"""Both pipelines over two hosts; a worker killed, a host cut off. The README beside this file holds its figures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import storage
from tests.cluster.hosts import TwoHosts, two_hosts, why_not
from tests.support.configs import TINY_SHAPES
from tests.support.encoders import write_autoencoder, write_clip
from tests.support.serving import BIN, wait_for

pytestmark = pytest.mark.skipif((reason := why_not()) is not None, reason=str(reason))

CHECKPOINT_EVERY, LOG_EVERY = 20, 5
NUM_STEPS = 120
SEGMENTATION = f"""
data: {{layout: phantoms, num_phantoms: 12}}
train:
  patch_size: [24, 24, 24]
  global_batch_size: 4
  num_steps: {NUM_STEPS}
  checkpoint_every_steps: {CHECKPOINT_EVERY}
  log_every_steps: {LOG_EVERY}
  model: {{channels: [8, 16, 32]}}
evaluate: {{tta: false}}
registry: {{name: two-hosts, export: []}}
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts() as cluster:
        (cluster.folder / "segmentation.yaml").write_text(SEGMENTATION)
        yield cluster


@pytest.fixture(scope="module")
def segmentation(hosts: TwoHosts) -> dict[str, Any]:
    """The undisturbed run that the others are compared with."""
    return hosts.unetflow("register", "segmentation.yaml")  # `run` would start a Prefect server for it


def test_segmentation_uses_both_hosts(hosts: TwoHosts, segmentation: dict[str, Any]) -> None:
    both = {hosts.first.address, hosts.second.address}
    assert hosts.hosts_of("actors", "RayTrainWorker") == both
    assert hosts.hosts_of("actors", "CaseScorer") == both
    assert hosts.hosts_of("tasks", "Map(") == both, "sharding"
    assert segmentation["model_uri"] == "models:/two-hosts@champion"


@pytest.mark.long
def test_throughput_of_one_and_of_two_hosts(hosts: TwoHosts, segmentation: dict[str, Any], report: list[str]) -> None:
    shorter = ("--set", "compute.num_workers=1", "--set", "train.num_steps=60")
    hosts.unetflow("train", "segmentation.yaml", *shorter, storage="one")
    one, two = (median_rate(hosts.folder / name) for name in ("one", "storage"))
    report.append(f"patches of 24x24x24 per second: {one:.1f} with one host, {two:.1f} with two")
    assert weights(hosts.folder / "one").keys() == weights(hosts.folder / "storage").keys()


def test_a_killed_worker_costs_at_most_one_interval(
    hosts: TwoHosts, segmentation: dict[str, Any], report: list[str]
) -> None:
    """Must fail where Ray Train starts no workers again (``max_failures=0``)."""
    training = start_training(hosts, "killed", "compute.num_workers=2")
    wait_while(training, lambda: steps_told(hosts, "killed")[0][-1:] > [50])
    (victim,) = hosts.second.pids_of("ray::RayTrainWorker")
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_while(training, lambda: len(steps_told(hosts, "killed")) == 2 and steps_told(hosts, "killed")[1] != [])
    seconds = time.monotonic() - killed
    before, after = steps_told(hosts, "killed")
    assert training.wait() == 0, log_of(training)
    went_on = after[0] - LOG_EVERY
    repeated = max(0, before[-1] - went_on)  # what is told lags behind by a report or two
    report.append(
        f"worker killed after step {before[-1]}: {seconds:.0f} s until step {after[0]}, {repeated} steps repeated"
    )
    assert went_on % CHECKPOINT_EVERY == 0
    assert repeated <= CHECKPOINT_EVERY
    same, other = weights(hosts.folder / "storage"), weights(hosts.folder / "killed")
    assert all((same[name] == other[name]).all() for name in same), "not the weights of an undisturbed run"


def test_diffusion_uses_both_hosts(hosts: TwoHosts) -> None:
    (hosts.folder / "diffusion.yaml").write_text(TINY_SHAPES)
    given = {
        "encode.clip": write_clip(hosts.folder / "clip", 16),
        "encode.autoencoder": write_autoencoder(hosts.folder / "autoencoder", 16),
        "data.num_shapes": 1100,  # two shards of latents
        "data.shard_megabytes": 0.5,
        "evaluate.batch_size": 64,
        "evaluate.guidance_sweep": [],
        "registry.export": [],
    }
    overrides = [word for field, value in given.items() for word in ("--set", f"{field}={value}")]
    result = hosts.unetflow("register", "diffusion.yaml", *overrides, storage="diffusion")
    both = {hosts.first.address, hosts.second.address}
    assert [stage["name"] for stage in result["stages"]][-1] == "register"
    assert hosts.hosts_of("actors", "_OnActor") == both, "encoding"
    assert hosts.hosts_of("actors", "Drawer") == both


def test_a_drained_host_costs_no_step_and_the_group_grows_when_it_is_back(hosts: TwoHosts, report: list[str]) -> None:
    """Then SIGTERM to the run, which takes a checkpoint on the cluster, too.

    Must fail where workers do not ask whether a node is drained.
    """
    endless = ("train.num_steps=100000", "train.checkpoint_every_steps=100000")
    training = start_training(hosts, "drained", "compute.num_workers=[1,2]", *endless)
    wait_while(training, lambda: steps_told(hosts, "drained")[0][-1:] > [20])
    nodes = [node["node_id"] for node in hosts.state("nodes") if node["node_ip"] == hosts.second.address]
    drained = time.monotonic()
    hosts.drain(nodes[0], 60)
    wait_while(training, lambda: "training continues with 1 worker\n" in log_of(training))
    report.append(f"host drained: {time.monotonic() - drained:.0f} s until training starts with one worker")
    hosts.wait_for_nodes(1)
    back = time.monotonic()
    hosts.start_second()
    wait_while(training, lambda: "training continues with 2 workers\n" in log_of(training))
    report.append(f"host back: {time.monotonic() - back:.0f} s until training starts with two workers")
    training.send_signal(signal.SIGTERM)
    assert training.wait() == 128 + signal.SIGTERM, log_of(training)
    said = log_of(training)
    assert re.search(r"checkpoint at step \d+: Ray is about to take a node away; training continues", said)
    assert re.search(r"checkpoint at step \d+: the cluster has room for more workers; training continues", said)
    assert re.findall(r"resumed at step \d+; .*; (\d+) steps? repeated", said) == ["0", "0"]


@pytest.mark.long
def test_a_host_that_was_cut_off_comes_back_and_the_group_grows_again(hosts: TwoHosts, report: list[str]) -> None:
    """Must fail where Ray Train starts no workers again (``max_failures=0``)."""
    training = start_training(hosts, "back", "compute.num_workers=[1,2]", "train.num_steps=100000")
    wait_while(training, lambda: steps_told(hosts, "back")[0][-1:] > [50])
    hosts.set_link("down")
    wait_while(training, lambda: "training continues with 1 worker\n" in log_of(training))
    hosts.set_link("up")
    hosts.wait_for_nodes(1)
    back = time.monotonic()
    hosts.start_second()
    wait_while(training, lambda: "training continues with 2 workers\n" in log_of(training))
    report.append(f"host cut off and back: {time.monotonic() - back:.0f} s until training starts with two workers")
    training.send_signal(signal.SIGTERM)
    assert training.wait() == 128 + signal.SIGTERM, log_of(training)
    repeated = [int(steps) for steps in re.findall(r"resumed at step \d+; .*; (\d+) steps? repeated", log_of(training))]
    assert repeated[0] <= 20 + 5, "a checkpoint, and the report that was on its way"
    assert repeated[1:] == [0]


def test_a_host_cut_off_is_done_without(hosts: TwoHosts, segmentation: dict[str, Any], report: list[str]) -> None:
    """Must fail where Ray Train starts no workers again (``max_failures=0``)."""
    training = start_training(hosts, "cut", "compute.num_workers=[1,2]")
    wait_while(training, lambda: steps_told(hosts, "cut")[0][-1:] > [50])
    hosts.set_link("down")
    cut = time.monotonic()
    wait_while(training, lambda: len(steps_told(hosts, "cut")) >= 2 and steps_told(hosts, "cut")[-1] != [])
    seconds = time.monotonic() - cut
    before, *_, after = steps_told(hosts, "cut")
    assert training.wait() == 0, log_of(training)
    same, other = weights(hosts.folder / "storage"), weights(hosts.folder / "cut")
    largest = max(float(abs(same[name].astype(float) - other[name]).max()) for name in same)
    report.append(f"host cut off after step {before[-1]}: {seconds:.0f} s until step {after[0]} with one worker")
    report.append(f"largest difference of a weight from those that two workers trained: {largest:.1e}")
    assert largest < 0.1  # rounding in bf16, grown over some seventy steps


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines that are printed in the end, whatever pytest captures."""
    lines: list[str] = []
    yield lines
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(lines))


def start_training(hosts: TwoHosts, name: str, *overrides: str) -> subprocess.Popen[bytes]:
    """Training from scratch, in a storage and with temporary files of its own."""
    temporary = hosts.folder / f"{name}-tmp"
    temporary.mkdir()
    environment = hosts.environment | {"UNETFLOW_STORAGE": str(hosts.folder / name), "TMPDIR": str(temporary)}
    options = [word for override in overrides for word in ("--set", override)]
    command = hosts.first.command(str(BIN / "unetflow"), "train", "segmentation.yaml", *options)
    with (temporary / "log").open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, cwd=hosts.folder, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    LOGS[process.pid] = temporary / "log"
    return process


LOGS: dict[int, Path] = {}


def log_of(process: subprocess.Popen[bytes]) -> str:
    """The end of what it said."""
    return LOGS[process.pid].read_text()[-4000:]


def steps_told(hosts: TwoHosts, name: str) -> list[list[int]]:
    """Steps that training told of, a list for each time that its workers were started."""
    told: list[list[int]] = [[]]
    for path in (hosts.folder / f"{name}-tmp").glob("unetflow-*/train-*/reports.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            row = json.loads(line)
            if "failed_workers" in row:
                told.append([])
            elif not row.get("checkpoint") and "train/loss" in row:
                told[-1].append(int(row["step"]))
    return told


def wait_while(training: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Until it holds, while the training goes on."""
    wait_for(condition, lambda: log_of(training), 240, alive=training)


def train_record(root: Path) -> dict[str, Any]:
    """The record of the training in a storage."""
    (path,) = (root / "train").glob("*/record.json")
    return json.loads(path.read_text())


def weights(root: Path) -> dict[str, Any]:
    """The trained weights, as NumPy arrays."""
    from safetensors.numpy import load_file

    record = train_record(root)
    uri = record["outputs"]["weights"]["uri"]
    return load_file(uri if uri.startswith("/") else storage.join(record["uri"], uri))


def curve_rows(root: Path) -> list[dict[str, float]]:
    """What training told of itself."""
    record = train_record(root)
    return json.loads((Path(record["uri"]) / record["outputs"]["curves"]["uri"]).read_text())


def median_rate(root: Path) -> float:
    """Samples per second in the middle of the training."""
    rates = sorted(row["samples_per_second"] for row in curve_rows(root) if "samples_per_second" in row)
    return rates[len(rates) // 2]
