"""Training on real Ray Train workers: how many there are does not matter, nor when one of them dies."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from data_pipelines.errors import DataError
from data_pipelines.shards.index import read_rows
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.shard import shard_stage
from flows.pipelines.segmentation.train import train_stage
from flows.registry.tracking import connect
from flows.stages.record import Record
from flows.stages.stage import Done, run_stage
from flows.training.curves import read_curves
from flows.training.failures import WorkersLostError

TRAIN = {
    "patch_size": [32, 32, 32],
    "global_batch_size": 3,
    "num_steps": 6,
    "precision": "fp32",
    "ema_decay": 0.9,
    "validate_every_steps": 6,
    "validate_cases": 2,
    "checkpoint_every_steps": 1,
    "keep_checkpoints": 10,
    "log_every_steps": 1,
    "model": {"channels": [4, 8, 16], "deep_supervision": 1},
}


def configure(storage: Path, num_workers: int, **train: Any) -> SegmentationConfig:
    return SegmentationConfig.model_validate(
        {
            "storage": str(storage),
            "data": {"layout": "phantoms", "num_phantoms": 8, "split_seed": 1},
            "train": TRAIN | train,
            "compute": {"num_workers": num_workers},
        }
    )


def train(config: SegmentationConfig) -> tuple[Done, Record]:
    shards = run_stage(shard_stage(config.data, config.storage_uri), config.storage_uri).record
    return run_stage(train_stage(config, shards), config.storage_uri), shards


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    storage = tmp_path_factory.mktemp("two-workers")
    return train(configure(storage, 2))[0].record, storage


def losses(record: Record) -> list[float]:
    return [row["train/loss"] for row in read_curves(record) if "train/loss" in row]


def test_training_within_a_time_is_that_of_as_many_steps(tmp_path: Path) -> None:
    """The pace is measured with a network of its own: the weights are those of a run that was told the number."""
    few = {"validate_every_steps": 1000, "checkpoint_every_steps": 1000}
    timed, _ = train(configure(tmp_path, 1, within="1s", num_steps=100_000, **few))
    counted, _ = train(configure(tmp_path, 1, num_steps=timed.record.figures.step, **few))
    assert 1 <= timed.record.figures.step < 100_000
    assert timed.record.outputs["weights"].sha256 == counted.record.outputs["weights"].sha256


def test_a_local_ray_is_no_cluster(reference: tuple[Record, Path]) -> None:
    """It starts neither autoscaler nor dashboard nor a process that forwards lines, which cost seconds."""
    started = " ".join(" ".join(_cmdline(process)) for process in psutil.Process().children(recursive=True))
    assert "raylet" in started
    assert not [name for name in ("monitor.py", "dashboard.py") if f"/{name}" in started or f"_{name}" in started]


def test_one_worker_and_two_workers_agree(reference: tuple[Record, Path], tmp_path: Path) -> None:
    """The same global batch, shared 3 or 1 + 2: the loss curves differ by float rounding alone."""
    alone, _ = train(configure(tmp_path, 1))
    assert alone.record.figures.num_workers == 1
    assert len(losses(alone.record)) == 6
    np.testing.assert_allclose(losses(alone.record), losses(reference[0]), rtol=2e-4)
    assert losses(alone.record)[0] == pytest.approx(losses(reference[0])[0], rel=1e-6)


def test_the_wall_time_is_split_in_record_and_run(reference: tuple[Record, Path]) -> None:
    record, storage = reference
    times = record.figures.times
    assert sum(times.parts.values()) == pytest.approx(times.wall, rel=0.01)
    assert times.wall <= record.seconds
    assert min(times.parts.values()) >= 0
    assert (times.repeated, times.retry) == (0, 0)
    assert all(times.parts[name] > 0 for name in ("productive", "validation", "checkpoint", "start", "server"))
    logged = connect(str(storage)).get_metric_history(record.figures.run_id, "time_seconds/productive")
    assert pytest.approx(times.productive) in [metric.value for metric in logged]  # one of each training of this key


def test_stopped_and_started_again_gives_the_same_bits(
    reference: tuple[Record, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Storage as a run leaves it that died after step 3, its fourth checkpoint half copied."""
    record, storage = reference
    shutil.copytree(storage, tmp_path / "storage")
    stage = tmp_path / "storage" / "train" / record.key
    (stage / "record.json").unlink()
    for folder in stage.glob("*/step-*"):
        if int(folder.name.removeprefix("step-")) > 4:
            shutil.rmtree(folder)
    (broken,) = stage.glob("*/step-00000004")
    (broken / "training.safetensors").write_bytes((broken / "training.safetensors").read_bytes()[:100])
    done, _ = train(configure(tmp_path / "storage", 2))
    assert not done.cached
    assert_same_weights(done.record, record)
    assert losses(done.record) == losses(record)
    (resume,) = done.record.figures.resumes
    assert (resume.step, resume.repeated_steps) == (3, 3)
    (unusable,) = resume.unusable
    assert unusable.name == str(broken.relative_to(stage))
    assert unusable.reason.startswith("training.safetensors is truncated: 100 of ")
    assert resume.describe() in caplog.text
    tags = connect(str(tmp_path / "storage")).get_run(done.record.figures.run_id).data.tags
    assert tags["unetflow.last_resume"] == resume.describe()
    assert record.figures.resumes == ()


def test_flipped_byte_of_a_shard_ends_the_training_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error of one rank keeps its type and words, and the workers are not started again for it."""
    config = configure(tmp_path, 2)
    assert config.compute.max_failures
    shards = run_stage(shard_stage(config.data, config.storage_uri), config.storage_uri).record
    row = next(row for row in read_rows(shards.output("index")) if row["split"] == "train")
    path = tmp_path / shards.figures.shards / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["offset:mask.npy"] + row["size:mask.npy"] // 2] ^= 64
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        train(config)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path) == ("damaged-shard", str(path))
    assert problem.message.startswith(f"{row['key']}.mask.npy, {row['size:mask.npy']} bytes from byte ")
    assert not any("restarting from the last checkpoint" in message for message in caplog.messages)


def test_a_finished_training_without_its_record_is_not_trained_again(
    reference: tuple[Record, Path], tmp_path: Path
) -> None:
    """Storage as a run leaves it that died between its last checkpoint and its record."""
    record, storage = reference
    shutil.copytree(storage, tmp_path / "storage")
    stage = tmp_path / "storage" / "train" / record.key
    (stage / "record.json").unlink()
    done, _ = train(configure(tmp_path / "storage", 2))
    assert not done.cached
    assert_same_weights(done.record, record)
    assert losses(done.record) == losses(record)
    assert len(list(stage.glob("*/step-00000006"))) == 1


@contextmanager
def signalled(root: Path, number: signal.Signals, actor: str = "RayTrainWorker") -> Iterator[list[int]]:
    """Send a signal to one rank, or another actor, as soon as the checkpoint of step 2 is there; yields the process ids
    that got it."""
    found: list[int] = []
    earlier = psutil.Process().children(recursive=True)  # which may still be ending

    def signal_one() -> None:
        processes: list[psutil.Process] = []
        for _ in range(60_000):  # at most five minutes
            if not processes:  # found beforehand, so that the signal comes at once
                children = set(psutil.Process().children(recursive=True)).difference(earlier)
                processes = [process for process in children if actor in " ".join(_cmdline(process))]
            elif any((root / "train").glob("*/*/step-00000002/checkpoint.json")):
                processes[0].send_signal(number)
                found.append(processes[0].pid)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=signal_one)
    thread.start()
    yield found
    thread.join()
    assert found, f"the training was over before a {actor} could be signalled"


def test_a_killed_worker_costs_no_more_than_a_checkpoint_interval(
    reference: tuple[Record, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL to one rank in mid-training: Ray starts the group again and the weights end the same, bit for bit."""
    with signalled(tmp_path, signal.SIGKILL):
        # Extra checkpoints' metrics and pace do not enter the key; slow validation keeps the run alive long enough.
        done, _ = train(configure(tmp_path, 2, validate_every_steps=1))
    (resume,) = done.record.figures.resumes
    assert resume.step >= 1
    assert resume.repeated_steps <= 2, "one checkpoint interval, and the checkpoint that was being uploaded"
    times = done.record.figures.times
    assert times.retry > 0
    assert sum(times.parts.values()) == pytest.approx(times.wall, rel=0.01)
    assert re.search(r"training worker \d was killed, or crashed; restarting from the last checkpoint", caplog.text)
    assert_same_weights(done.record, reference[0])


def test_sigterm_to_a_worker_costs_no_step(
    reference: tuple[Record, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The group takes a checkpoint between those of the configuration, and another group goes on from there."""
    with signalled(tmp_path, signal.SIGTERM):
        done, _ = train(configure(tmp_path, 2, validate_every_steps=1, checkpoint_every_steps=2))
    (resume,) = done.record.figures.resumes
    assert f"train: checkpoint at step {resume.step}: a training worker received SIGTERM" in caplog.text
    assert resume.repeated_steps == 0
    assert resume.step > 2
    assert_same_weights(done.record, reference[0])


def test_a_killed_controller_leaves_nothing_reserved(reference: tuple[Record, Path], tmp_path: Path) -> None:
    """SIGKILL to what leads the workers ends the stage; the next try, in the same process, goes on with both CPUs."""
    config = configure(tmp_path, 2, validate_every_steps=1)
    with signalled(tmp_path, signal.SIGKILL, "TrainController"), pytest.raises(WorkersLostError) as caught:
        train(config)
    assert "the controller of the training was killed, or crashed" in str(caught.value)
    done, _ = train(config)
    assert done.record.figures.resumes[0].step >= 1
    assert_same_weights(done.record, reference[0])


def assert_same_weights(ours: Record, theirs: Record) -> None:
    mine, other = load_file(ours.output("weights")), load_file(theirs.output("weights"))
    assert mine.keys() == other.keys()
    for name, weights in mine.items():
        np.testing.assert_array_equal(weights, other[name], err_msg=name)
    assert json.loads(Path(ours.output("checkpoint")).read_text())["step"] == 6


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
