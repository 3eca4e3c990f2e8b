"""All trials of a search on Ray Tune, side by side: short ones, of which those that fall behind end early (ASHA, Li
2020), then longer ones of the best. How a network does after two minutes says little of what it comes to in an hour."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from data_pipelines.progress import Progress
from data_pipelines.temporary import temporary_folder
from flows.cluster.connection import connect_workers, import_tune
from flows.config.specs import ComputeSpec
from flows.metrics import parse_metric_name, worst_score
from flows.training.task import TrainingTask
from flows.tuning.fit import fit_trials
from flows.tuning.space import Space, Values, draw
from flows.tuning.spec import SearchSpec
from flows.tuning.trial import Trial, TrialJob
from unet_models.specs.loop import LoopSpec

logger = logging.getLogger(__name__)

TRIALS, FINALS = "trials", "finals"
"""Folders of the ended trials in the stage's folder: a search that goes on after a kill does not repeat them."""
NUM_RUNGS = 9
"""Reports of a short trial, evenly spaced over its steps."""
FINAL_TRAINING = 0.9
"""Share of the time of the long trials in which they train: they start, and are validated."""
FINAL_CASES = 16
"""Held-out cases that long trials are compared on at least, if there are so many."""
LONGER = 1.25
"""Long trials train at least so many times as long as short ones, or there are none."""
END_VARIABLE, END_SECONDS = "TUNE_FUNCTION_THREAD_TIMEOUT_S", 60
"""Time that a trial which is ended early has to close its loader, before its process takes the next; Ray gives two."""


@dataclass(frozen=True, slots=True)
class Searched:
    """Trials of a search that ended, by number."""

    trials: list[Trial]
    finals: list[Trial]
    """The best of them and the configuration, trained once more and for longer; empty where the pipeline's training
    is no longer than a trial."""

    @property
    def compared(self) -> list[Trial]:
        """Trials of which the best is chosen: the longest in which the configuration was trained to its end."""
        return self.finals if _has_configured(self.finals) else self.trials


def run_search(task: TrainingTask, space: Space, search: SearchSpec, compute: ComputeSpec, stage_uri: str) -> Searched:
    """Run many short trials, then longer ones of the best; a killed attempt's trials are not repeated.

    Raises ConfigError where not even the configuration itself was trained to its end.
    """
    connect_workers(compute)
    job = TrialJob(
        task_type=type(task),
        task=task.model_dump_json(),
        space=space,
        search=search.model_dump_json(),
        seconds=search.trial_seconds,
        num_rungs=NUM_RUNGS,
        validate_cases=task.spec.validate_cases,
        threads=compute.threads_per_worker,
        loader_processes=compute.loader_processes,
        use_gpu=compute.use_gpu,
    )
    most = _most_trials(search, compute.max_workers)
    choices = {number: draw(space.choices(task.spec), search.over, search.seed, number) for number in range(most)}
    short = _Phase("search", job, task.score, compute, storage.join(stage_uri, TRIALS))
    trials = short.run(choices, search.screening_seconds)
    if not _has_configured(trials):
        reference = "the configuration itself, the reference of the comparison,"
        if short.failures:
            raise ConfigError(f"search: {reference} cannot be trained: {short.failures[-1]}")
        raise ConfigError(
            f"search: the time ran out before {reference} was trained: raise search.within, or lower search.trial"
        )
    finalists = choose_finalists(trials, task.score, compute.max_workers)
    seconds = final_training_seconds(task.spec, trials, search, compute.max_workers, len(finalists))
    if len(finalists) == 1 or seconds < LONGER * search.trial_seconds:
        return Searched(short.run(choices, search.within), [])
    long = TrialJob(
        {**job, "seconds": seconds, "num_rungs": 1, "validate_cases": max(task.spec.validate_cases, FINAL_CASES)}
    )
    logger.info("search: the best of %d trials and the configuration train for %.0f s", len(trials), seconds)
    finals = _Phase("finals", long, task.score, compute, storage.join(stage_uri, FINALS))
    found = Searched(trials, finals.run({trial.number: trial.values for trial in finalists}, search.final_seconds))
    if not _has_configured(found.finals):
        logger.warning("search: the configuration was not trained for longer in time; the short trials decide")
    return found


def choose_finalists(trials: Sequence[Trial], score: str, num_workers: int) -> list[Trial]:
    """Return the configuration and the best whole trials, as many as there are workers, at least two."""
    metric = parse_metric_name(score).metric
    others = [trial for trial in trials if trial.is_whole and trial.values]
    others.sort(key=lambda trial: metric.score(trial.outcome.score), reverse=True)
    configured = next(trial for trial in trials if not trial.values)
    return [configured, *others[: max(2, num_workers) - 1]]


def final_training_seconds(
    spec: LoopSpec, trials: Sequence[Trial], search: SearchSpec, num_workers: int, num_finalists: int
) -> float:
    """Return the training time of each finalist, on one worker: as long as the pipeline's takes on all of them, if
    there is so much time."""
    configured = next(trial for trial in trials if not trial.values)
    pipeline = (
        spec.num_steps * configured.outcome.seconds_per_step if spec.within is None else num_workers * spec.within
    )
    return min(pipeline, FINAL_TRAINING * search.final_seconds / math.ceil(num_finalists / num_workers))


def _has_configured(trials: Sequence[Trial]) -> bool:
    return any(trial.is_whole and not trial.values for trial in trials)


def best_of(trials: Sequence[Trial], score: str) -> Trial:
    """Return the whole trial of the best score; of equal ones the first, so that nothing changes without a gain."""
    metric = parse_metric_name(score).metric
    return max((trial for trial in trials if trial.is_whole), key=lambda trial: metric.score(trial.outcome.score))


def read_trials(uri: str) -> Iterator[Trial]:
    """Iterate over the ended trials in a folder; one that a kill left unreadable runs again."""
    for name in storage.list_names(uri):
        try:
            yield Trial.model_validate_json(storage.read_bytes(storage.join(uri, name)))
        except ValidationError:
            logger.warning("%s: %s is damaged; that trial runs again", uri, name)


def _most_trials(search: SearchSpec, num_workers: int) -> int:
    """Return the number of trials that the time has room for, were each ended at its first rung."""
    most = 1 + int(num_workers * search.within / (search.trial_seconds / NUM_RUNGS))
    return min(most, search.num_trials or most)


@dataclass(frozen=True, slots=True)
class _Phase:
    """Trials of one length, whose results are kept in the folder ``uri``."""

    name: str
    job: TrialJob
    score: str
    compute: ComputeSpec
    uri: str
    failures: list[str] = field(default_factory=list)
    """Reasons for which the worker of the configuration itself failed."""

    def run(self, choices: Mapping[int, Values], seconds: float) -> list[Trial]:
        """Run what has not ended yet until ``seconds`` are over, those of a killed attempt included; return all."""
        done = {trial.number: trial for trial in read_trials(self.uri)}
        left = seconds - sum(trial.outcome.seconds for trial in done.values()) / self.compute.max_workers
        missing = {number: values for number, values in choices.items() if number not in done}
        if left > 0 and missing:
            if done:
                logger.info("%s: resumed after %d trials; %.0f s are left", self.name, len(done), left)
            self._tune(missing, left)
        return sorted(read_trials(self.uri), key=lambda trial: trial.number)

    def _tune(self, choices: Mapping[int, Values], seconds: float) -> None:
        tune = import_tune()
        from flows.tuning.listener import TrialListener
        from flows.tuning.scheduler import build_scheduler

        job = self.job

        def trainable(config: dict[str, Any]) -> None:
            from flows.tuning.trial import run_trial

            os.environ[END_VARIABLE] = str(END_SECONDS)
            run_trial(choices[config["number"]], job, lambda outcome: tune.report(outcome.model_dump()))

        metric = parse_metric_name(self.score).metric
        with temporary_folder("search") as folder, Progress(self.name, int(seconds), "s") as progress:
            listener = TrialListener(choices, self.uri, progress, int(seconds), worst_score(self.score))
            tuner = tune.Tuner(
                tune.with_resources(trainable, self.compute.worker_resources),
                param_space={"number": tune.grid_search(list(choices))},
                tune_config=tune.TuneConfig(
                    metric="score",
                    mode="max" if metric.better == "higher" else "min",
                    scheduler=build_scheduler(job["num_rungs"]),
                    max_concurrent_trials=self.compute.max_workers,
                    reuse_actors=True,  # a new one imports for seconds
                    time_budget_s=seconds,
                ),
                run_config=tune.RunConfig(storage_path=str(folder), name="trials", verbose=0, callbacks=[listener]),
            )
            try:
                fit_trials(tuner)
            except BaseException:
                listener.is_closed = True
                raise
            self.failures.extend(listener.failures)
