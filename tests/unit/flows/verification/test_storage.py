"""``unetflow verify``: every byte that is flipped, cut off or gone is named, with what repairs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_pipelines.shards.index import Row, build_index, read_table, write_table
from data_pipelines.shards.writer import write_shard
from flows.cli import base, run_command
from flows.stages.attempt import Attempt
from flows.stages.shards import IndexFigures, add_index
from flows.stages.stage import Stage, run_stage
from flows.training.history import checkpoint_name
from flows.verification.storage import verify_storage
from tests.support.training import SPEC, fresh
from unet_models.training.checkpoint import MODEL, save_checkpoint


@dataclass(frozen=True)
class Stored:
    """A storage with a sharded data set of two samples, its latents, and a checkpoint; and a tar of the user."""

    root: Path
    rows: list[Row]

    @property
    def tar(self) -> Path:
        return self.root / "shards" / "a" / self.rows[0]["shard"]

    @property
    def adopted(self) -> Path:
        return Path(self.rows[2]["shard"])

    @property
    def record(self) -> Path:
        (path,) = self.root.glob("shard/*/record.json")
        return path

    @property
    def index(self) -> Path:
        (path,) = self.root.glob("shard/*/*/index.parquet")
        return path

    @property
    def checkpoint(self) -> Path:
        (path,) = self.root.glob("train/*/*/step-*")
        return path


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    root = tmp_path / "storage"
    parts = {"mask.npy": b"m" * 900, "jpg": b"j" * 100}
    given = write_shard(str(tmp_path / "given.tar"), [({"key": "c", "case_id": "c", "digest": "c"}, parts)])
    adopted = given[0] | {"shard": str(tmp_path / "given.tar")}
    own = [({"key": name, "case_id": name, "digest": name}, parts) for name in "ab"]
    rows = write_shard(str(root / "shards" / "a" / "0.tar"), [*own, (adopted, {})])
    write_shard(str(root / "latents" / "b" / "1.tar"), [({"key": "a", "digest": "l"}, {"moments.npy": b"l" * 700})])

    def compute(attempt: Attempt) -> IndexFigures:
        index = build_index(rows, dict.fromkeys("abc", "train"))
        return IndexFigures(**add_index(attempt, index, str(root), "shards/a"), num_new=3)

    done = run_stage(Stage("shard", {}, (), compute, IndexFigures), str(root))
    state = fresh(SPEC)
    state.step = 3
    folder = root / "train" / done.record.key / "attempt" / checkpoint_name(3)
    save_checkpoint(folder, state, spec={}, curves=[], metrics={})
    return Stored(root, rows)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_sound_storage_is_counted(stored: Stored) -> None:
    (stored.root / "shards" / "a" / "unfinished.tar").write_bytes(b"half")
    checked, faults = verify_storage(str(stored.root))
    assert faults == []
    assert {each.kind: each.number for each in checked} == {"record": 1, "output": 1, "checkpoint": 1, "shard": 2}
    sizes = {each.kind: each.size for each in checked}
    assert sizes["shard"] == sum(path.stat().st_size for path in stored.root.glob("*/*/[01].tar"))
    assert sizes["checkpoint"] == sum(path.stat().st_size for path in stored.checkpoint.iterdir())


DAMAGES: dict[str, tuple[Callable[[Stored], object], str, str]] = {
    "mask": (lambda s: flip(s.tar, s.rows[1]["offset:mask.npy"] + 899), "shard", "b.mask.npy, 900 bytes from byte "),
    "jpg": (lambda s: flip(s.tar, s.rows[0]["offset:jpg"]), "shard", "a.jpg, 100 bytes from byte 512: its CRC-32 is"),
    "tar header": (lambda s: flip(s.tar, 7), "shard", "a.jpg, "),
    "latents": (lambda s: flip(s.root / "latents/b/1.tar", 600), "shard", "a.moments.npy, "),
    "cut": (lambda s: s.tar.write_bytes(s.tar.read_bytes()[:1024]), "shard", "the shard ends at byte 1024; "),
    "rows": (lambda s: flip(s.tar.with_suffix(".parquet"), -1), "shard", "not a whole Parquet file"),
    "given": (lambda s: flip(s.adopted, s.rows[2]["offset:jpg"]), "shard", "c.jpg, 100 bytes from byte 512"),
    "gone": (lambda s: s.adopted.unlink(), "shard", "there is no such file"),
    "index": (lambda s: flip(s.index, 60), "output", "SHA-256 mismatch"),
    "short": (lambda s: s.index.write_bytes(b"PAR1"), "output", "has 4 of "),
    "no output": (lambda s: s.index.unlink(), "output", "is missing"),
    "record": (lambda s: s.record.write_text(s.record.read_text()[:-9]), "record", "cannot be read: "),
    "figure": (lambda s: replace(s.record, '"num_train": 3', '"num_train": 2'), "record", "SHA-256 mismatch"),
    "no record": (lambda s: s.record.write_text("[]"), "record", "cannot be read: it is not a JSON object"),
    "weights": (lambda s: flip(s.checkpoint / MODEL, 2000), "checkpoint", "model.safetensors is damaged"),
    "other step": (lambda s: s.checkpoint.rename(s.checkpoint.with_name("step-00000009")), "checkpoint", "of step 3"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(stored: Stored, name: str) -> None:
    damage, kind, message = DAMAGES[name]
    damage(stored)
    checked, faults = verify_storage(str(stored.root))
    (fault,) = [fault for fault in faults if fault.kind == kind]
    assert message in fault.message
    assert fault.remedy
    assert Path(fault.uri).exists() or name in ("gone", "no output")
    counts = {each.kind: each.num_faults for each in checked if each.num_faults}
    assert counts == {kind: 1} | ({"record": 1} if name in ("cut", "gone") else {})  # which holds the shard's size


def test_deleted_shard_is_the_fault_of_the_records_that_name_it(stored: Stored) -> None:
    stored.tar.unlink()
    assert {fault.kind for fault in verify_storage(str(stored.root))[1]} == {"record", "shard"}
    stored.tar.with_suffix(".parquet").unlink()
    _, (fault,) = verify_storage(str(stored.root))
    assert (fault.kind, fault.message) == ("record", f"its shard {stored.tar} is missing")


def test_shards_of_earlier_versions_are_said_to_be_unchecked(stored: Stored, caplog: pytest.LogCaptureFixture) -> None:
    for path in (stored.root / "shards").rglob("*.parquet"):
        table = read_table(str(path))
        write_table(str(path), table.select([name for name in table.column_names if not name.startswith("crc32:")]))
    checked, faults = verify_storage(str(stored.root))
    assert faults == []
    assert {each.kind: each.number for each in checked}["shard"] == 1
    assert "shards/a: shards of an earlier version, without digests, cannot be checked" in caplog.text


def test_command(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base, "_result_fd", 1)
    monkeypatch.setenv("UNETFLOW_STORAGE", str(stored.root))
    assert run_command(["verify"]) == 0
    assert "no faults" in capfd.readouterr().out
    flip(stored.tar, stored.rows[0]["offset:jpg"])
    assert run_command(["verify"]) == 2
    out = capfd.readouterr().out
    assert f"shard {stored.tar}\n  a.jpg, 100 bytes from byte 512" in out
    assert "-> unetflow run CONFIG.yaml --verify" in out
    assert run_command(["verify", "--json"]) == 2
    printed = json.loads(capfd.readouterr().out)
    assert [fault["uri"] for fault in printed["faults"]] == [str(stored.tar)]
    shutil.rmtree(stored.root)
    assert run_command(["verify"]) == 2
    assert "nothing was checked" in capfd.readouterr().err
