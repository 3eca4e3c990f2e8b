"""All trials of a search on Ray Tune, side by side; those that fall behind end early (ASHA, Li 2020)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from data_pipelines.progress import Progress
from data_pipelines.temporary import temporary_folder
from flows.cluster.connection import connect_workers, import_tune
from flows.config.specs import ComputeSpec
from flows.metrics import parse_metric_name
from flows.training.task import TrainingTask
from flows.tuning.space import Space, Values, draw
from flows.tuning.spec import SearchSpec
from flows.tuning.trial import NUM_RUNGS, Trial, TrialJob, worst_score

logger = logging.getLogger(__name__)

TRIALS = "trials"
"""Folder of the ended trials in the stage's folder: a search that goes on after a kill does not repeat them."""
REDUCTION = 3
"""Of the trials at a rung, the best of so many goes on."""
END_VARIABLE, END_SECONDS = "TUNE_FUNCTION_THREAD_TIMEOUT_S", 60
"""Time that a trial which is ended early has to close its loader, before its process takes the next; Ray gives two."""


def run_trials(
    task: TrainingTask, space: Space, search: SearchSpec, compute: ComputeSpec, stage_uri: str
) -> list[Trial]:
    """Run trials until the time is over; return all that ended, those of a killed attempt among them."""
    connect_workers(compute)
    job = TrialJob(
        task_type=type(task),
        task=task.model_dump_json(),
        space=space,
        search=search.model_dump_json(),
        threads=compute.threads_per_worker,
        loader_processes=compute.loader_processes,
    )
    uri = storage.join(stage_uri, TRIALS)
    done = list(read_trials(uri))
    num_workers = compute.max_workers
    left = search.within - sum(trial.outcome.seconds for trial in done) / num_workers
    if done:
        logger.warning("search: resumed after %d trials; %.0f s are left", len(done), max(0.0, left))
    numbers = _numbers_to_run({trial.number for trial in done}, search, num_workers)
    if left > 0 and numbers:
        choices = {number: draw(space.choices(task.spec), search.over, search.seed, number) for number in numbers}
        _tune(job, task.score, choices, search, compute, left, uri)
    return sorted(read_trials(uri), key=lambda trial: trial.number)


def best_of(trials: list[Trial], score: str) -> Trial:
    """Return the whole trial of the best score; of equal ones the first, so that nothing changes without a gain.

    Raises ConfigError where not even the configuration itself was trained to its end.
    """
    if not any(trial.is_whole and not trial.values for trial in trials):
        raise ConfigError(
            "search: the time was over before the configuration itself was trained, with which others are compared: "
            "raise search.within, or lower search.trial"
        )
    metric = parse_metric_name(score).metric
    return max((trial for trial in trials if trial.is_whole), key=lambda trial: metric.score(trial.outcome.score))


def read_trials(uri: str) -> Iterator[Trial]:
    """Iterate over the ended trials in a folder; one that a kill left unreadable runs again."""
    for name in storage.list_names(uri):
        try:
            yield Trial.model_validate_json(storage.read_bytes(storage.join(uri, name)))
        except ValidationError:
            logger.warning("%s: %s is damaged; that trial runs again", uri, name)


def _numbers_to_run(done: set[int], search: SearchSpec, num_workers: int) -> list[int]:
    """Return more trials than the time has room for, were each ended at its first rung."""
    most = 1 + int(num_workers * search.within / (search.trial_seconds / NUM_RUNGS))
    return [number for number in range(min(most, search.num_trials or most)) if number not in done]


def _tune(
    job: TrialJob,
    score: str,
    choices: Mapping[int, Values],
    search: SearchSpec,
    compute: ComputeSpec,
    seconds: float,
    uri: str,
) -> None:
    tune = import_tune()
    from ray.tune.schedulers import ASHAScheduler

    from flows.tuning.listener import TrialListener

    def trainable(config: dict[str, Any]) -> None:
        from flows.tuning.trial import run_trial

        os.environ[END_VARIABLE] = str(END_SECONDS)
        run_trial(choices[config["number"]], job, lambda outcome: tune.report(outcome.model_dump()))

    metric = parse_metric_name(score).metric
    scheduler = ASHAScheduler(
        time_attr="seconds",
        max_t=search.trial_seconds * 2,  # trials end by their own schedule
        grace_period=search.trial_seconds / NUM_RUNGS,
        reduction_factor=REDUCTION,
    )
    with temporary_folder("search") as folder, Progress("search", int(seconds), "s") as progress:
        listener = TrialListener(choices, uri, progress, int(seconds), worst_score(score))
        tuner = tune.Tuner(
            tune.with_resources(trainable, compute.worker_resources),
            param_space={"number": tune.grid_search(list(choices))},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max" if metric.better == "higher" else "min",
                scheduler=scheduler,
                max_concurrent_trials=compute.max_workers,
                reuse_actors=True,  # a new one imports for seconds
                time_budget_s=seconds,
            ),
            run_config=tune.RunConfig(storage_path=str(folder), name="trials", verbose=0, callbacks=[listener]),
        )
        tuner.fit()
