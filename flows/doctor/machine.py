"""Checks of this machine: installed versions, storage, CPUs, GPUs, and files with secrets."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path

from data_pipelines import storage
from data_pipelines.cores import count_cpus
from data_pipelines.storage import home_folder
from flows.config.locations import storage_root
from flows.config.pipeline import PipelineConfig
from flows.doctor.finding import Finding, bad, ok, warning
from flows.installation import lock_file

MIN_FREE_BYTES = 5 << 30
"""Free space below which checkpoints and shards soon fail."""
NAME = re.compile(r"[-_.]+")


def check_versions() -> Iterator[Finding]:
    """Compare the installed versions with the lock."""
    lock = lock_file()
    if lock is None:
        yield warning("versions", "no lock beside the code: it is not a checkout", "install from a checkout")
        return
    pinned = {}
    for line in lock.read_text().splitlines():
        name, separator, version = line.partition("==")
        if separator and not line.startswith("#"):
            pinned[NAME.sub("-", name).lower()] = version.split("+")[0]
    installed = {
        NAME.sub("-", found.metadata["Name"]).lower(): found.version.split("+")[0]
        for found in importlib.metadata.distributions()
    }
    wrong = [f"{n} {installed[n]} (lock: {v})" for n, v in sorted(pinned.items()) if installed.get(n, v) != v]
    if wrong:
        text = f"{len(wrong)} of {len(pinned)} differ from the lock: {', '.join(wrong[:8])}"
        yield bad("versions", text, f"pip install --constraint {lock} --editable {lock.parent}")
    else:
        yield ok("versions", f"{len(pinned.keys() & installed.keys())} distributions, all as in the lock")


def check_bytecode() -> Iterator[Finding]:
    """Check that modules need not be compiled in every process: each worker of Ray is one, and imports thousands."""
    found = importlib.util.find_spec("ray")
    compiled = found is not None and found.cached is not None and Path(found.cached).exists()
    if compiled or not sys.dont_write_bytecode:
        yield ok("bytecode", "modules are compiled once")
    else:
        text = "PYTHONDONTWRITEBYTECODE is set and modules are not compiled: every process compiles them again"
        remedy = f"unset PYTHONDONTWRITEBYTECODE  # or: python -m compileall -q -j 0 {sysconfig.get_path('purelib')}"
        yield warning("bytecode", text, remedy)


def check_storage(config: PipelineConfig | None) -> Iterator[Finding]:
    """Check that the storage can be written and read, and has space left."""
    root = config.storage_uri if config else storage_root()
    uri = storage.join(root, f".doctor-{uuid.uuid4().hex[:8]}")
    try:
        storage.write_bytes(uri, b"doctor")
        intact = storage.read_bytes(uri) == b"doctor"
        storage.delete(uri)
    except Exception as error:  # of whatever file system
        yield bad("storage", f"{root} cannot be written: {error}", "export UNETFLOW_STORAGE=... (a place that you own)")
        return
    if not intact:
        yield bad("storage", f"{root} returns different bytes than were written", "use another storage")
        return
    if not storage.is_local(root):
        yield ok("storage", f"{root} can be written")
        return
    free = shutil.disk_usage(storage.local_path(root)).free
    text = f"{root} can be written, {free / (1 << 30):.0f} GiB left"
    yield (
        ok("storage", text)
        if free >= MIN_FREE_BYTES
        else bad("storage", text, f"du -sh {root}/*  # and remove old runs")
    )


def check_cpu(config: PipelineConfig | None) -> Iterator[Finding]:
    """Tell in which precision trainings without a GPU run here."""
    import torch

    from unet_models.precision import computes_bf16

    found = f"{count_cpus()} CPUs"
    if computes_bf16(torch.device("cpu")):
        yield ok("cpu", f"{found} with instructions for bf16")
        return
    precision = getattr(getattr(config, "train", None), "precision", None)  # pipelines need not train
    if precision == "bf16" and config and not config.compute.use_gpu:
        text = (
            f"{found} without instructions for bf16, which train.precision asks for: it is emulated, many times slower"
        )
        yield warning("cpu", text, "--set train.precision=auto")
    else:
        yield ok("cpu", f"{found} without instructions for bf16: what is trained here without a GPU is in float32")


def check_gpu(config: PipelineConfig | None) -> Iterator[Finding]:
    """Check driver, CUDA and NCCL, where there are GPUs or the configuration asks for them."""
    asked = bool(config and config.compute.use_gpu and not os.environ.get("RAY_ADDRESS"))
    driver = shutil.which("nvidia-smi")
    if driver is None:
        if asked:
            yield bad("gpu", "the config asks for GPUs, there is no NVIDIA driver", "--set compute.use_gpu=false")
        else:
            yield ok("gpu", "none on this machine")
        return
    query = [driver, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=30)
    import torch

    if listed.returncode:
        yield bad("gpu", f"nvidia-smi fails: {listed.stdout.strip() or listed.stderr.strip()}", "reinstall the driver")
    elif not torch.cuda.is_available():
        text = f"{listed.stdout.strip()}; torch {torch.__version__} does not see it"
        yield bad("gpu", text, "pip install a CUDA build of torch that the driver supports")
    else:
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "none"
        yield ok("gpu", f"{listed.stdout.strip()}; CUDA {torch.version.cuda}, NCCL {nccl}")


def check_secrets() -> Iterator[Finding]:
    """Look for files with tokens and passwords that others can read."""
    home = home_folder()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    files = [home / ".ray" / "auth_token", home / ".mlflow" / "credentials", home / ".aws" / "credentials"]
    files += [Path(named)] if named else []
    there = [path for path in files if path.is_file()]
    open_ones = [path for path in there if path.stat().st_mode & 0o077]
    for path in open_ones:
        yield bad("secrets", f"{path} can be read by others ({path.stat().st_mode & 0o777:o})", f"chmod 600 {path}")
    if not open_ones:
        yield ok("secrets", f"{len(there)} files with secrets, all readable by you alone")
