"""One try at a stage: its own folder, and the outputs that it has written so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_pipelines import storage
from flows.stages.record import Output
from flows.stages.status import StatusKeeper


@dataclass(slots=True)
class Attempt:
    """A folder that no other attempt writes to, and the declared outputs."""

    stage_uri: str
    key: str
    name: str
    outputs: dict[str, Output] = field(default_factory=dict)
    status: StatusKeeper = field(default_factory=StatusKeeper)

    def uri(self, *parts: str) -> str:
        """Return a URI in the attempt's folder."""
        return storage.join(self.stage_uri, self.name, *parts)

    def write(self, name: str, file: str, data: bytes) -> None:
        """Write a file in the attempt's folder and declare it as the output ``name``."""
        storage.write_bytes(self.uri(file), data)
        self.add(name, self.uri(file))

    def output(self, name: str) -> str:
        """Return the URI of a declared output."""
        return self.outputs[name].resolve(self.stage_uri)

    def add(self, name: str, uri: str) -> None:
        """Declare a written file as the output ``name``. Raises FileNotFoundError where it was not written."""
        size = storage.size(uri)
        if size is None:
            raise FileNotFoundError(f"output {name!r} was not written: {uri}")
        relative = uri.removeprefix(self.stage_uri.rstrip("/") + "/")
        self.outputs[name] = Output(uri=relative, size=size, sha256=storage.digest(uri))
