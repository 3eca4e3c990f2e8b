"""One trial of a search: a training of its own, on one worker, that reports its score as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, TypedDict

import torch
from pydantic import ConfigDict, JsonValue, ValidationError
from torch import nn

from data_pipelines.errors import ConfigError, TrainingDiverged
from data_pipelines.specs import Spec
from flows.metrics import worst_score
from flows.training.schedule import plan_steps, read_steps
from flows.training.task import TrainingTask, Validate
from flows.tuning.space import Space, Values, changed_task
from flows.tuning.spec import SearchSpec
from unet_models.training.fit import fit
from unet_models.training.state import TrainState, build_state, evaluation_weights

NUM_TIMED = 5
"""Forward passes whose median is the latency, and least number of steps whose median is the pace."""
NO_CHECKPOINTS = 1 << 30


class Outcome(Spec):
    """Result of a trial; travels as a dictionary of numbers and texts."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    score: float
    """Validation metric; the worst value there is where the trial was refused."""
    seconds: float = 0.0
    """Wall time since the trial began, in seconds."""
    step: int = 0
    rung: int = 0
    """Number of the report, of ``TrialJob.num_rungs``: the share of the steps that were trained."""
    num_steps: int = 0
    """Steps that fit into the trial's time."""
    seconds_per_step: float = 0.0
    """Median over the steps that were trained. The pace that ``num_steps`` was planned with is that of few steps, while
    other trials begin and end: it may be wrong by half."""
    num_parameters: int = 0
    latency_ms: float = 0.0
    """Wall time of the forward pass of one window, in ms."""
    refused: str = ""
    """Reason for which it was not trained, or ended; empty where there is none."""


class Trial(Spec):
    """A trial that has ended."""

    number: int
    """0 is the configuration as it is."""
    values: dict[str, JsonValue]
    outcome: Outcome

    @property
    def is_whole(self) -> bool:
        """Tell whether it trained to its last step."""
        return not self.outcome.refused and 0 < self.outcome.step == self.outcome.num_steps


class TrialJob(TypedDict):
    """Settings that all trials share; models travel as JSON."""

    task_type: type[TrainingTask]
    task: str
    space: Space
    search: str
    seconds: float
    """Training time of one trial."""
    num_rungs: int
    """Reports of a trial, evenly spaced over its steps."""
    validate_cases: int
    """Most held-out cases that each report is of."""
    threads: int
    loader_processes: int
    use_gpu: bool
    """Whether a trial has a GPU of its own; else it trains on the CPU, whatever the machine has."""


def run_trial(values: Values, job: TrialJob, report: Callable[[Outcome], None]) -> None:
    """Train the task with ``values`` for the time of the job; ``report`` gets the score at every rung.

    The configuration itself (no values) has no limits.
    """
    search = SearchSpec.model_validate_json(job["search"])
    task = job["task_type"].model_validate_json(job["task"])
    worst = worst_score(task.score)
    device = torch.device("cuda" if job["use_gpu"] else "cpu")
    torch.set_num_threads(job["threads"])
    began = time.monotonic()
    try:
        changes = {"within": job["seconds"], "validate_cases": job["validate_cases"]}
        task = changed_task(task, job["space"], values, **changes)
        torch.manual_seed(task.spec.seed)
        network = task.open(device, 0).model.to(device)
        outcome = Outcome(
            score=worst,
            num_parameters=sum(parameter.numel() for parameter in network.parameters()),
            latency_ms=1000 * time_forward(network, job["space"].example(task), device),
        )
        if values and (reason := over_limit(outcome, search)):
            report(outcome.model_copy(update={"refused": reason}))
            return
        del network
        _train(task, job, outcome, began, device, report)
    except (ConfigError, TrainingDiverged, ValidationError, ValueError) as error:
        if not values:
            raise
        report(Outcome(score=worst, seconds=time.monotonic() - began, refused=str(error).splitlines()[0]))


def _train(
    task: TrainingTask,
    job: TrialJob,
    outcome: Outcome,
    began: float,
    device: torch.device,
    report: Callable[[Outcome], None],
) -> None:
    rungs = job["num_rungs"]
    schedule = plan_steps(task, None, job["loader_processes"], device, 0, rungs)
    num_steps = schedule.spec.num_steps
    spec = schedule.spec.model_copy(update={"checkpoint_every_steps": NO_CHECKPOINTS})
    task = task.model_copy(update={"spec": spec})
    torch.manual_seed(spec.seed)
    training = task.open(device, 0)
    state = build_state(training.model, spec, device)
    outcome = outcome.model_copy(update={"num_steps": num_steps, "seconds_per_step": schedule.seconds_per_step})
    hooks = _TuneHooks(training.validate, task.score, outcome, began, rungs, report)
    fit(state, training.objective, read_steps(training, range(num_steps), job["loader_processes"], device), spec, hooks)


@dataclass(slots=True)
class _TuneHooks:
    """Hooks that report the score of the weights that would be evaluated."""

    measure: Validate
    score: str
    outcome: Outcome
    began: float
    num_rungs: int
    report: Callable[[Outcome], None]
    times: list[float] = field(default_factory=list)
    """Start time of each step, in seconds."""

    def validate(self, state: TrainState) -> dict[str, float]:
        """Measure and report."""
        self._measure_pace()
        with evaluation_weights(state) as model:
            metrics = self.measure(model)
        seconds = time.monotonic() - self.began
        rung = max(1, self.num_rungs * state.step // self.outcome.num_steps)
        # Where nothing held out shows what is scored, every trial is as good as any other.
        score = metrics.get(self.score, self.outcome.score)
        found = {"score": score, "step": state.step, "rung": rung, "seconds": seconds}
        self.report(self.outcome.model_copy(update=found))
        return metrics

    def _measure_pace(self) -> None:
        steps = [end - begin for begin, end in pairwise(self.times)]
        if len(steps) >= NUM_TIMED:
            self.outcome = self.outcome.model_copy(update={"seconds_per_step": median(steps)})

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Report nothing."""

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Save nothing: the best settings are trained again by the pipeline."""

    def stop_reason(self) -> int:
        """Note the time, and return that nobody asked to stop: Tune ends a trial by itself."""
        self.times.append(time.perf_counter())
        return 0


def over_limit(outcome: Outcome, search: SearchSpec) -> str:
    """Return which limit a network exceeds; empty where none."""
    if search.max_parameters is not None and outcome.num_parameters > search.max_parameters:
        return f"{outcome.num_parameters:,} parameters, more than search.max_parameters"
    if search.max_latency_ms is not None and outcome.latency_ms > search.max_latency_ms:
        return f"{outcome.latency_ms:.3g} ms a window, more than search.max_latency_ms"
    return ""


@torch.no_grad()
def time_forward(network: nn.Module, inputs: tuple[Any, ...], device: torch.device) -> float:
    """Return the median wall time of a forward pass, in seconds."""
    network.eval()
    inputs = tuple(each.to(device) for each in inputs)
    seconds = []
    for _ in range(NUM_TIMED + 1):
        began = time.perf_counter()
        network(*inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])
