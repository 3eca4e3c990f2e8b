"""A stage: from a frozen spec and input records to one frozen record, done once and found ever after.

key  = sha256(stage name, format, the spec fields that change the output, digests of the input records)
work = <storage>/<stage>/<key>/<attempt>/...          an attempt's own folder: two attempts cannot mix
done = <storage>/<stage>/<key>/record.json            written last; names every output with size and digest
"""

from __future__ import annotations

import fcntl
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.specs import Spec

logger = logging.getLogger(__name__)

FORMAT = 1
RECORD = "record.json"
OBSERVATIONS = {"curves", "checkpoint"}
"""Outputs that tell of a training, its pace among other things; what comes of it lies in the others."""


class Output(Spec):
    """One file a stage made."""

    uri: str
    """Relative to the stage's folder, or absolute for files that several runs share."""
    size: int
    sha256: str

    def within(self, stage_uri: str) -> str:
        """The URI in full."""
        return self.uri if self.uri.startswith("/") or "://" in self.uri else storage.join(stage_uri, self.uri)


class Record(Spec):
    """What a finished stage leaves behind: locations, digests and figures, never tensors."""

    stage: str
    key: str
    uri: str
    """The stage's folder."""
    outputs: dict[str, Output]
    figures: dict[str, Any]
    """Numbers and names that later stages or people want."""
    seconds: float
    """Wall time of the attempt that finished."""

    def output(self, name: str) -> str:
        """URI of an output."""
        return self.outputs[name].within(self.uri)

    @property
    def root(self) -> str:
        """The storage that the stage's folder lies in."""
        return self.uri.rsplit("/", 2)[0]

    @property
    def digest(self) -> str:
        """What later stages depend on: the content, not when, where or how fast it was made."""
        contents = {name: output.sha256 for name, output in self.outputs.items() if name not in OBSERVATIONS}
        return digest_of([self.stage, self.key, contents])


@dataclass(slots=True)
class Attempt:
    """One try at a stage: its own folder, and what it has made so far."""

    stage_uri: str
    key: str
    name: str
    outputs: dict[str, Output] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def uri(self, *parts: str) -> str:
        """A place in the attempt's folder."""
        return storage.join(self.stage_uri, self.name, *parts)

    def write(self, name: str, file: str, data: bytes) -> None:
        """Write a file of the attempt's folder and declare it as an output."""
        storage.write_bytes(self.uri(file), data)
        self.add(name, self.uri(file))

    def output(self, name: str) -> str:
        """URI of a declared output."""
        return self.outputs[name].within(self.stage_uri)

    def add(self, name: str, uri: str) -> None:
        """Declare a written file as an output."""
        size = storage.size(uri)
        if size is None:
            raise FileNotFoundError(f"output {name!r} was not written: {uri}")
        relative = uri.removeprefix(self.stage_uri.rstrip("/") + "/")
        self.outputs[name] = Output(uri=relative, size=size, sha256=storage.digest(uri))


@dataclass(frozen=True, slots=True)
class Stage:
    """A verb, what it depends on, and how it is done."""

    name: str
    spec: dict[str, Any]
    """JSON of the fields that change the output."""
    inputs: tuple[Record, ...]
    compute: Callable[[Attempt], None]
    """Writes outputs and declares them with ``Attempt.add``."""
    still_holds: Callable[[Record], bool] = lambda record: True
    """Whether a finished record's effects outside storage are still there."""

    @property
    def key(self) -> str:
        """Identity of the result."""
        return digest_of([self.name, FORMAT, self.spec, [record.digest for record in self.inputs]])


@dataclass(frozen=True, slots=True)
class Done:
    """A record, and whether it was found rather than computed."""

    record: Record
    cached: bool


def find_record(stage: Stage, root: str, *, look_outside: bool = True) -> Record | None:
    """The record of a finished stage whose outputs are all there and unchanged; else None.

    ``look_outside=False`` leaves out the question whether its effects on servers still stand.
    """
    uri = storage.join(root, stage.name, stage.key)
    if (record := read_record(uri)) is None:
        return None
    for name, output in record.outputs.items():
        found = record.output(name)
        if storage.size(found) != output.size or storage.digest(found) != output.sha256:
            logger.warning("%s: output %s is missing or changed, the stage runs again", uri, name)
            return None
    return record if not look_outside or stage.still_holds(record) else None


def read_record(uri: str) -> Record | None:
    """The record in a stage's folder, its outputs unchecked; None where there is none that can be read."""
    try:
        record = Record.model_validate_json(storage.read_bytes(storage.join(uri, RECORD)))
    except FileNotFoundError:
        return None
    except (ValidationError, ValueError) as error:
        logger.warning("%s: unreadable record, the stage runs again: %s", uri, error)
        return None
    return record.model_copy(update={"uri": uri})  # storage may have moved as a whole


def run_stage(stage: Stage, root: str) -> Done:
    """The stage's record: found, or computed now. A second process that asks waits for the first."""
    uri = storage.join(root, stage.name, stage.key)
    with _one_at_a_time(uri):
        if found := find_record(stage, root):
            logger.info("%s: found done (%s)", stage.name, stage.key[:12])
            return Done(found, cached=True)
        attempt = Attempt(uri, stage.key, f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}")
        logger.info("%s: running (%s)", stage.name, stage.key[:12])
        started = time.perf_counter()
        stage.compute(attempt)
        record = Record(
            stage=stage.name,
            key=stage.key,
            uri=uri,
            outputs=attempt.outputs,
            figures=attempt.figures,
            seconds=round(time.perf_counter() - started, 3),
        )
        storage.write_bytes(storage.join(uri, RECORD), record.model_dump_json(indent=1).encode())
        return Done(record, cached=False)


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Hold the stage's lock on local storage. On object stores attempts may run side by side, each in its folder."""
    if not storage.is_local(uri):
        yield
        return
    folder = storage.local_path(uri)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s: another process is working on this stage; waiting for it", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
