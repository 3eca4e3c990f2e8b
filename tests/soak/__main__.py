"""``python -m tests.soak [--faults N] [--minutes M] [--seed S]``: random faults; nothing lost, nothing made twice."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psutil

from flows.training.stop import in_thread
from tests.soak.faults import LONG_STOP, freeze
from tests.soak.pipeline import CONFIG, SoakedPipeline, draw_fault, soaked_pipeline
from tests.support.faults import struck_project
from tests.support.machine import Machine

FAULTS_PER_PIPELINE = 20, 36
"""Fewest and most faults of a pipeline; its undisturbed end and its audit cost as much as a dozen."""
MAX_DELAY_SECONDS = 8.0
"""Longest time from a start of the command to its first fault, unless that waits for training."""
SHARE_IN_TRAINING = 0.7
"""Share of the starts that are not struck before training."""


def main() -> None:
    """Strike pipeline after pipeline until the number of faults or the time is reached, then sum up."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Strike pipelines with random faults.")
    parser.add_argument("--faults", type=int, default=200, help="number of faults")
    parser.add_argument("--minutes", type=float, default=40.0, help="time after which no further pipeline is started")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kinds and times of the faults")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.faults} faults, {arguments.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="ufm-") as folder, Machine(Path(folder)) as machine:
        _soak(machine, Random(arguments.seed), arguments.faults, time.monotonic() + arguments.minutes * 60)


def _soak(machine: Machine, random: Random, num_faults: int, deadline: float) -> None:
    reference = _undisturbed()
    struck: Counter[str] = Counter()
    pipelines = left = 0
    frozen: Future[None] | None = None
    if time.monotonic() + 4 * LONG_STOP < deadline:  # costs time alone: beside the others
        frozen = in_thread(partial(_freeze_for_long, machine, random.randrange(1 << 30), reference), "frozen")
    while sum(struck.values()) < num_faults and time.monotonic() < deadline:
        with soaked_pipeline(machine, random) as pipeline:
            where = "S3 and MLflow server" if pipeline.uses_servers else "local"
            print(f"pipeline {pipelines}: unetflow {pipeline.command}, {where}", flush=True)
            number = min(random.randint(*FAULTS_PER_PIPELINE), num_faults - sum(struck.values()))
            struck += _strike(pipeline, random, number, deadline)
            pipeline.finish()
            names = pipeline.audit(reference)
            pipelines, left = pipelines + 1, left + len(names)
            print(f"pipeline {pipelines - 1}: registered once, weights bitwise equal; left {names}", flush=True)
    if frozen is not None:
        frozen.result()
    print(f"{sum(struck.values())} faults on {pipelines} pipelines: {dict(struck.most_common())}")
    print(f"0 lost, 0 registered twice, {left} processes left")
    assert left == 0


def _undisturbed() -> dict[str, Any]:
    with struck_project(CONFIG) as project:
        run = project.start("register")
        assert run.finish() == 0, run.said
        return project.weights()


def _strike(pipeline: SoakedPipeline, random: Random, number: int, deadline: float) -> Counter[str]:
    """Strike a pipeline; it is started again whenever no run of it is left, until it has come to its end."""
    struck: Counter[str] = Counter()
    began = time.monotonic()
    while sum(struck.values()) < number and time.monotonic() < deadline:
        if not pipeline.running():
            if pipeline.runs and pipeline.runs[-1].process.returncode == 0:
                break
            pipeline.start()
            if random.random() < SHARE_IN_TRAINING:
                pipeline.wait_for_training()
            else:
                time.sleep(random.uniform(0.0, MAX_DELAY_SECONDS))
        fault = draw_fault(random)
        outcome = pipeline.strike(fault, random)
        if outcome is None:
            time.sleep(0.2)
            continue
        struck[fault.name] += 1
        print(f"  {time.monotonic() - began:5.0f} s  {fault.name}: {outcome}", flush=True)
    return struck


def _freeze_for_long(machine: Machine, seed: int, reference: dict[str, Any]) -> None:
    """Stop a run for minutes while another of the same command waits, and let it go on."""
    with soaked_pipeline(machine, Random(seed), may_use_servers=False) as pipeline:
        pipeline.start()
        (run,) = pipeline.runs
        run.wait_until(lambda: "train: running" in run.said)
        run.remember()
        pipeline.start()
        freeze([psutil.Process(run.process.pid), *run.family], LONG_STOP)
        pipeline.finish()
        left = pipeline.audit(reference)
        print(f"stopped for {LONG_STOP:g} s beside a second run: registered once, left {left}", flush=True)
        assert left == []


if __name__ == "__main__":
    main()
