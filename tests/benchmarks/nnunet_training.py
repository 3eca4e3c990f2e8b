"""Training beside nnU-Net's own: the same fold, cores and minutes; its planner, network, augmentation and schedule.

``python -m tests.benchmarks.nnunet_training DATA CONFIG FOLDER --minutes 30``, with DATA a data set of the Medical
Decathlon that has ``splits_final.json``; nnU-Net must be installed (``make test-peers``). Its epochs are shortened, so
that its learning rate reaches the end of its schedule on time. What it trained stays in FOLDER.
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
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
EPOCHS = 30
NUM_MEASURED = 3
VARIABLES = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}


def compare(data: Path, config: Path, folder: Path, minutes: float, fold: int) -> None:
    """Train both for so many minutes and print their Dice on the held-out cases of a fold."""
    for name, place in VARIABLES.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / place)
    # One process augments beside the network; nnU-Net would compile by default, which on a CPU takes minutes.
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": str(os.cpu_count())}
    prepared = _prepare(data, folder)
    theirs, iterations = _train_theirs(prepared, minutes, fold)
    ours, steps = _train_ours(data, config, folder, minutes, fold)
    print(f"\n{data.name}, fold {fold}, {minutes:g} minutes of training on {os.cpu_count()} cores: mean Dice")
    print(f"  nnU-Net {theirs:.4f}, {iterations} iterations\n  unetflow {ours:.4f}, {steps} steps")


def _prepare(data: Path, folder: Path) -> Path:
    """Lay the data set out as nnU-Net reads it, plan and preprocess as it does, with the folds of the data set."""
    number = int(data.name.removeprefix("Task").split("_")[0])
    name = f"Dataset{number:03}_{data.name.split('_', 1)[1]}"
    prepared = folder / "preprocessed" / name
    _lay_out(data, folder / "raw" / name)
    if not (prepared / "nnUNetPlans.json").exists():
        _run(["nnUNetv2_plan_and_preprocess", "-d", str(number), "-c", "3d_fullres", "-np", "2", "-npfp", "2"])
    shutil.copy(data / "splits_final.json", prepared)
    return prepared


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


def _train_theirs(prepared: Path, minutes: float, fold: int) -> tuple[float, int]:
    """Train and validate as nnU-Net does; return the mean Dice and the number of iterations."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
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
    trainer = _trainer(prepared, fold)
    trainer.num_epochs, trainer.num_val_iterations_per_epoch = EPOCHS, 1
    # The first batches of a validation cost about an iteration.
    trainer.num_iterations_per_epoch = max(1, int(60 * minutes / pace / EPOCHS) - 1)
    started = time.perf_counter()
    trainer.run_training()
    spent = time.perf_counter() - started
    trainer.perform_actual_validation(False)
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    iterations = trainer.num_epochs * trainer.num_iterations_per_epoch
    print(f"nnU-Net: {pace:.2f} s an iteration before, {iterations} iterations in {spent / 60:.1f} minutes")
    return float(summary["foreground_mean"]["Dice"]), iterations


def _trainer(prepared: Path, fold: int) -> Any:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, described = (json.loads((prepared / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    return nnUNetTrainer(plans | {"continue_training": False}, "3d_fullres", fold, described, torch.device("cpu"))


def _train_ours(data: Path, config: Path, folder: Path, minutes: float, fold: int) -> tuple[float, int]:
    settings = {"data.root": data, "data.fold": fold, "train.within": round(60 * minutes)}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [BIN / "unetflow", "evaluate", config, *words, "--json"]
    environment = os.environ | {"UNETFLOW_STORAGE": str(folder / "storage")}
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.strip().splitlines()[-1])
    (stage,) = (Path(each["uri"]) for each in found["stages"] if each["name"] == "train")
    return found["metrics"]["dice"], json.loads((stage / "record.json").read_text())["figures"]["step"]


def _run(command: list[str]) -> None:
    subprocess.run([BIN / command[0], *command[1:]], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nnunet_training", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--fold", type=int, default=0)
    given = parser.parse_args()
    compare(given.data, given.config, given.folder, given.minutes, given.fold)
