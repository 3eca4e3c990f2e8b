"""Text and sound beside an image, as further inputs of a network: UTF-8 text and WAV files."""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.files.reading import named_errors
from data_pipelines.notices import Notice, log_notices, notice
from data_pipelines.shards.index import SOUND, TEXT
from data_pipelines.shards.reader import ShardReader

SAMPLE_RATE = 16_000
"""Samples per second that every sound is converted to."""
MAX_TEXT_BYTES = 10_000
MAX_SECONDS = 600.0
_MAX_OTHER_BYTES = 1 << 24
"""Maximum size of what a WAV file holds beside its samples: names, markers, a picture."""

StrPath = str | Path

_NO_WAV = (ValueError, EOFError, struct.error, LookupError, UnboundLocalError)
"""Errors of scipy for files that it cannot read."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths that a network reads; longer texts and sounds are cut at the end, shorter ones padded."""

    text_bytes: int = 0
    """0: no text."""
    samples: int = 0
    """Of a sound; 0: no sound."""


NOTHING = Sizes()
"""Lengths of networks that read images alone."""


def read_text(path: StrPath) -> str:
    """Read a text, without white space around it.

    Raises DataError where it cannot be read, is empty, too long or no UTF-8.
    """
    with named_errors(Path(path)):
        size = Path(path).stat().st_size
        if size > MAX_TEXT_BYTES:
            raise broken_rule("text-length", path, f"{size} bytes, allowed are {MAX_TEXT_BYTES}", "shorten the text")
        try:
            text = Path(path).read_text("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise broken_rule("text-encoding", path, "is not UTF-8", "save it as UTF-8") from None
    if not text or "\0" in text:
        what = "is empty" if not text else "holds a zero byte"
        raise broken_rule("text-encoding", path, what, "write a text, or remove the file: a case may have none")
    return text


def read_sound(path: StrPath) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Read a WAV file: (T,) float32 in -1..1, one channel at ``SAMPLE_RATE``, and a notice where it was converted.

    Raises DataError where it is none, is empty, too long or not finite, and where it cannot be read.
    """
    with named_errors(Path(path)):
        rate, stored = _read_wav(Path(path))
        if not len(stored) or len(stored) > MAX_SECONDS * rate:
            raise _bad_length(Path(path), len(stored) / rate)
        sound = _scaled(stored)
        if not np.isfinite(sound).all():
            raise broken_rule("sound-format", path, "holds values that are not finite", "write it again")
        mono = sound if sound.ndim == 1 else sound.mean(axis=1)
        common = math.gcd(rate, SAMPLE_RATE)
        converted = mono if rate == SAMPLE_RATE else _resample(mono, SAMPLE_RATE // common, rate // common)
    return converted.astype(np.float32), tuple(_conversions(path, rate, sound))


def _read_wav(path: Path) -> tuple[int, np.ndarray]:
    """Return samples per second and the samples as stored, (T,) or (T, channels).

    Raises DataError where it is no WAV, or far longer than is allowed: of that one only the header is read.
    """
    from scipy.io import wavfile

    try:
        rate, bytes_at_once = _stated_format(path)
        if not rate or not bytes_at_once:
            raise ValueError(f"it states {rate} samples per second of {bytes_at_once} bytes")
        if (size := path.stat().st_size) > MAX_SECONDS * rate * bytes_at_once + _MAX_OTHER_BYTES:
            raise _bad_length(path, size / (rate * bytes_at_once))
        return wavfile.read(path)
    except _NO_WAV as error:
        raise broken_rule("sound-format", path, f"no WAV file of PCM or float ({error})", "convert it to WAV") from None


def _stated_format(path: Path) -> tuple[int, int]:
    """Read from the header samples per second, and the bytes of one sample of all channels.

    Raises struct.error or ValueError where the file has no such header.
    """
    with path.open("rb") as file:
        kind = file.read(12)
        order = ">" if kind[:4] == b"RIFX" else "<"
        if kind[:4] not in (b"RIFF", b"RIFX", b"RF64") or kind[8:] != b"WAVE":
            raise ValueError("it does not begin as one")
        while (chunk := struct.unpack(f"{order}4sI", file.read(8)))[0] != b"fmt ":
            file.seek(chunk[1] + chunk[1] % 2, os.SEEK_CUR)
        _, _, rate, _, bytes_at_once = struct.unpack(f"{order}HHIIH", file.read(14))
    return rate, bytes_at_once


def _bad_length(path: Path, seconds: float) -> DataError:
    return broken_rule("sound-length", path, f"{seconds:g} s, allowed are up to {MAX_SECONDS:g} s", "cut it")


def _scaled(stored: np.ndarray) -> np.ndarray:
    """Scale to -1..1; 8-bit WAV is unsigned."""
    if stored.dtype == np.uint8:
        return (stored.astype(np.float64) - 128) / 128
    if np.issubdtype(stored.dtype, np.integer):
        return stored / -float(np.iinfo(stored.dtype).min)
    return stored.astype(np.float64)


def _resample(sound: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    return np.asarray(resample_poly(sound, up, down))


def _conversions(path: StrPath, rate: int, sound: np.ndarray) -> list[Notice]:
    changes = [f"{rate} to {SAMPLE_RATE} samples per second"] if rate != SAMPLE_RATE else []
    changes += [f"{sound.shape[1]} channels to their mean"] if sound.ndim > 1 and sound.shape[1] > 1 else []
    return [notice("converted-sound", path, ", ".join(changes))] if changes else []


def text_bytes(text: str | None, length: int) -> np.ndarray:
    """Encode a text: (length,) uint8, zeros behind its end; all zeros: there is none."""
    encoded = np.zeros(length, np.uint8)
    stored = np.frombuffer((text or "").encode()[:length], np.uint8)
    encoded[: len(stored)] = stored
    return encoded


def sound_samples(sound: np.ndarray | None, length: int) -> np.ndarray:
    """Cut or pad a sound (T,) to (length,) float32; all NaN: there is none."""
    if sound is None:
        return np.full(length, np.nan, np.float32)
    padded = np.zeros(length, np.float32)
    padded[: min(length, len(sound))] = sound[:length]
    return padded


@dataclass(frozen=True, slots=True)
class Modalities:
    """Text and sound of a case, and whether its image is used at all."""

    text: str | None = None
    sound: np.ndarray | None = None
    """(T,) float32 at ``SAMPLE_RATE``."""
    has_image: bool = True

    @classmethod
    def read(cls, text: str = "", sound: str = "") -> Modalities:
        """Read the files of a case; empty paths stand for none. Raises DataError as training does."""
        samples, notices = read_sound(sound) if sound else (None, ())
        log_notices(notices)
        return cls(read_text(text) if text else None, samples)

    @classmethod
    def stored(cls, reader: ShardReader, row: int) -> Modalities:
        """Read those of a sample."""
        text = bytes(reader.read(row, TEXT)).decode() if reader.has(row, TEXT) else None
        return cls(text, reader.array(row, SOUND) if reader.has(row, SOUND) else None)

    def only(self, names: Collection[str]) -> Modalities:
        """Keep ``image``, ``text`` and ``sound`` as far as they are among ``names``."""
        text, sound = self.text if "text" in names else None, self.sound if "sound" in names else None
        return Modalities(text, sound, self.has_image and "image" in names)

    def arrays(self, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
        """Return text (text_bytes,) uint8 and sound (samples,) float32, marked where there is none."""
        return text_bytes(self.text, sizes.text_bytes), sound_samples(self.sound, sizes.samples)


IMAGE_ALONE = Modalities()


def stored_modalities(reader: ShardReader, row: int, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Return text (text_bytes,) uint8 and sound (samples,) float32 of a sample, marked where it has none."""
    return Modalities.stored(reader, row).arrays(sizes)


def count_cut(reader: ShardReader, rows: Sequence[int], sizes: Sizes) -> dict[str, int]:
    """Count the texts and sounds of samples that are missing, not read or longer than what is read."""
    counts: Counter[str] = Counter()
    for row in rows:
        given = Modalities.stored(reader, row)
        for name, stored, length in (
            ("texts", given.text and given.text.encode(), sizes.text_bytes),
            ("sounds", given.sound, sizes.samples),
        ):
            if stored is not None and not length:
                counts[f"{name} not read (train.model.fusion)"] += 1
            elif length and stored is None:
                counts[f"{name} missing"] += 1
            elif stored is not None and len(stored) > length:
                counts[f"{name} cut to what the network reads"] += 1
    return dict(counts)
