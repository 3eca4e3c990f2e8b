"""Training beside nnU-Net's own: the same fold, cores and minutes; its planner, network, augmentation and schedule.

``python -m tests.benchmarks.nnunet_training DATA FOLDER --minutes 30``, with DATA a data set of the Medical Decathlon
that has ``splits_final.json``; nnU-Net must be installed (``make test-peers``). Its epochs are shortened, so that its
learning rate reaches the end of its schedule on time. What it trained stays in FOLDER. ``--config`` names our
configuration; by default it is planned.

``--steps 150`` trains as many steps of both, in place of minutes, of the network and batch that both plan for a GPU.
``--dataset 997`` makes nnU-Net's integration data set of that number, of regions, from Task04_Hippocampus.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnunetv2

BIN = Path(sys.executable).parent
INTEGRATION = Path("dataset_conversion", "datasets_for_integration_tests")
EPOCHS = 30
NUM_MEASURED = 3
VARIABLES = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Trainings that are compared."""

    data: Path
    folder: Path
    minutes: float
    steps: int | None
    """Steps in place of minutes."""
    fold: int
    dataset: int | None
    """Number of nnU-Net's integration data set, made from ``data``; None: ``data`` itself."""

    @property
    def limit(self) -> str:
        """Length of both trainings, in words."""
        return f"{self.steps} steps" if self.steps else f"{self.minutes:g} minutes of training"


def compare(comparison: Comparison, config: Path | None) -> None:
    """Train both and print their Dice on the held-out cases of a fold."""
    folder, data = comparison.folder, comparison.data
    for name, place in VARIABLES.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / place)
    # One process augments beside the network; nnU-Net would compile by default, which on a CPU takes minutes.
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": str(os.cpu_count())}
    raw = make_dataset(comparison.dataset, data, folder / "raw")
    prepared = _prepare(raw, folder / "preprocessed", data / "splits_final.json")
    theirs, iterations = _train_theirs(prepared, comparison)
    ours, steps = _train_ours(raw, config or _plan(raw, comparison), comparison)
    print(f"\n{raw.name}, fold {comparison.fold}, {comparison.limit} on {os.cpu_count()} cores: mean Dice")
    print(f"  nnU-Net {theirs:.4f}, {iterations} iterations\n  unetflow {ours:.4f}, {steps} steps")


def make_dataset(dataset: int | None, data: Path, raw: Path) -> Path:
    """Lay a data set of the Decathlon out as nnU-Net reads it, or the integration data set that it makes of that."""
    number, name = data.name.removeprefix("Task").split("_", 1)
    source = raw / f"Dataset{int(number):03}_{name}"
    _lay_out(data, source)
    if dataset is None:
        return source
    module = next((Path(nnunetv2.__file__).parent / INTEGRATION).glob(f"Dataset{dataset}_*.py"))
    if not (raw / module.stem).exists():
        subprocess.run([sys.executable, module], check=True)
    return raw / module.stem


def _prepare(raw: Path, preprocessed: Path, splits: Path) -> Path:
    """Plan and preprocess a data set as nnU-Net does, with the folds of ours; return the folder."""
    prepared = preprocessed / raw.name
    if not (prepared / "nnUNetPlans.json").exists():
        number = raw.name.removeprefix("Dataset").split("_")[0]
        _run(["nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", "2", "-npfp", "2"])
    shutil.copy(splits, prepared)
    return prepared


def _plan(raw: Path, comparison: Comparison) -> Path:
    """Plan our configuration: by the time, or for as many steps the sizes that both plan for a GPU."""
    wish = ["--gpu"] if comparison.steps else ["--within", f"{comparison.minutes:g}m"]
    planned = subprocess.run([BIN / "unetflow", "plan", raw, *wish], check=True, stdout=subprocess.PIPE, text=True)
    path = comparison.folder / "plan.yaml"
    path.write_text(planned.stdout)
    return path


def _lay_out(data: Path, raw: Path) -> None:
    """Link the files of a data set of the Decathlon. (nnU-Net's own conversion refuses one without test images.)"""
    described = json.loads((data / "dataset.json").read_text())
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (raw / part).mkdir(parents=True, exist_ok=True)
        for path in (data / part).glob("[!.]*.nii.gz"):
            link = raw / part / f"{path.name.removesuffix('.nii.gz')}{ending}"
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    labels = {name: int(value) for value, name in described["labels"].items()}
    facts = {"channel_names": described["modality"], "labels": labels, "file_ending": ".nii.gz"}
    facts["numTraining"] = len(list((raw / "labelsTr").iterdir()))
    (raw / "dataset.json").write_text(json.dumps(facts))


def _train_theirs(prepared: Path, comparison: Comparison) -> tuple[float, int]:
    """Train and validate as nnU-Net does; return the mean Dice and the number of iterations."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    iterations = comparison.steps or int(60 * comparison.minutes / _pace(prepared, comparison.fold))
    trainer = _trainer(prepared, comparison.fold)
    trainer.num_epochs, trainer.num_val_iterations_per_epoch = EPOCHS, 1
    # The first batches of a validation cost about an iteration.
    of_validation = 0 if comparison.steps else 1
    trainer.num_iterations_per_epoch = max(1, iterations // EPOCHS - of_validation)
    started = time.perf_counter()
    trainer.run_training()
    spent = time.perf_counter() - started
    trainer.perform_actual_validation(False)
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    iterations = trainer.num_epochs * trainer.num_iterations_per_epoch
    print(f"nnU-Net: {iterations} iterations in {spent / 60:.1f} minutes")
    return float(summary["foreground_mean"]["Dice"]), iterations


def _pace(prepared: Path, fold: int) -> float:
    """Return the median time of an iteration, in seconds."""
    trainer = _trainer(prepared, fold)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    times = []
    for _ in range(NUM_MEASURED + 2):
        started = time.perf_counter()
        trainer.train_step(next(trainer.dataloader_train))
        times.append(time.perf_counter() - started)
    trainer.on_train_end()
    pace = statistics.median(times[2:])
    print(f"nnU-Net: {pace:.2f} s an iteration")
    return pace


def _trainer(prepared: Path, fold: int) -> Any:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, described = (json.loads((prepared / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    return nnUNetTrainer(plans | {"continue_training": False}, "3d_fullres", fold, described, torch.device("cpu"))


def _train_ours(raw: Path, config: Path, comparison: Comparison) -> tuple[float, int]:
    splits = comparison.data / "splits_final.json"
    settings: dict[str, Any] = {"data.root": raw, "data.splits": splits, "data.fold": comparison.fold}
    if comparison.steps:
        settings |= {"train.num_steps": comparison.steps, "compute.use_gpu": "false"}
    else:
        settings["train.within"] = round(60 * comparison.minutes)
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [BIN / "unetflow", "evaluate", config, *words, "--json"]
    environment = os.environ | {"UNETFLOW_STORAGE": str(comparison.folder / "storage")}
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.strip().splitlines()[-1])
    (stage,) = (Path(each["uri"]) for each in found["stages"] if each["name"] == "train")
    return found["metrics"]["dice"], json.loads((stage / "record.json").read_text())["figures"]["step"]


def _run(command: list[str]) -> None:
    subprocess.run([BIN / command[0], *command[1:]], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nnunet_training", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--dataset", type=int, choices=range(996, 1000))
    given = parser.parse_args()
    paths = given.data.absolute(), given.folder.absolute()
    compare(Comparison(*paths, given.minutes, given.steps, given.fold, given.dataset), given.config)
