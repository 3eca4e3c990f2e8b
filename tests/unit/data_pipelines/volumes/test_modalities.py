from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from data_pipelines.errors import DataError
from data_pipelines.volumes.modalities import (
    SAMPLE_RATE,
    Modalities,
    Sizes,
    read_sound,
    read_text,
    sound_samples,
    text_bytes,
)
from data_pipelines.volumes.sources.folders import find_cases
from data_pipelines.volumes.specs import DataSpec


def tone(rate: int, hertz: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"), [(np.int16, 32768, 0), (np.int32, 2**31, 0), (np.uint8, 128, 128), (np.float32, 1, 0)]
)
def test_every_kind_of_wav_is_scaled_alike(tmp_path: Path, dtype: type, scale: float, offset: float) -> None:
    path = tmp_path / "a.wav"
    wavfile.write(path, SAMPLE_RATE, (tone(SAMPLE_RATE) * scale * 0.999 + offset).astype(dtype))
    sound, notices = read_sound(path)
    assert (sound.dtype, notices) == (np.float32, ())
    np.testing.assert_allclose(sound, tone(SAMPLE_RATE) * 0.999, atol=0.02 if dtype == np.uint8 else 1e-3)


def test_other_rates_and_channels_are_converted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    wavfile.write(path, 44_100, np.stack([tone(44_100), np.zeros(22_050)], axis=1).astype(np.float32))
    sound, (notice,) = read_sound(path)
    np.testing.assert_allclose(sound[100:-100], tone(SAMPLE_RATE)[100:-100] / 2, atol=2e-3)
    assert notice.rule == "converted-sound"
    assert "44100 to 16000 samples per second, 2 channels to their mean" in notice.message


@pytest.mark.parametrize(
    ("content", "rule"), [(b"RIFF", "sound-format"), (b"no sound at all", "sound-format"), (b"", "sound-format")]
)
def test_what_is_no_wav_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_sound(tmp_path / "a.wav")
    assert caught.value.problems[0].rule == rule


def test_an_empty_sound_and_one_with_nan_are_refused(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "empty.wav", SAMPLE_RATE, np.zeros(0, np.int16))
    wavfile.write(tmp_path / "nan.wav", SAMPLE_RATE, np.full(10, np.nan, np.float32))
    for name, rule in (("empty", "sound-length"), ("nan", "sound-format")):
        with pytest.raises(DataError) as caught:
            read_sound(tmp_path / f"{name}.wav")
        assert caught.value.problems[0].rule == rule


@pytest.mark.parametrize(
    ("content", "rule"), [(b" \n", "text-encoding"), (b"\xff\xfe", "text-encoding"), (b"a" * 10_001, "text-length")]
)
def test_unusable_texts_are_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_text(tmp_path / "a.txt")
    assert caught.value.problems[0].rule == rule


def wav(rate: int, block: int = 2, chunks: bytes = b"") -> bytes:
    """Build a WAV of two samples of 16 bits that states this rate and these bytes at a time."""
    stated = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * block, block, 16)
    body = b"WAVE" + chunks + stated + struct.pack("<4sI2h", b"data", 4, 100, -100)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def test_a_sound_that_is_far_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wavfile, "read", lambda path: pytest.fail("read whole"))
    (tmp_path / "a.wav").write_bytes(wav(8_000, chunks=b"abcd\3\0\0\0xyz\0"))
    with (tmp_path / "a.wav").open("r+b") as file:
        file.truncate(32_000_000)  # 2,000 s at 16,000 bytes per second
    with pytest.raises(DataError, match="2000 s, allowed are up to 600 s"):
        read_sound(tmp_path / "a.wav")


def test_a_sound_without_a_rate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ok.wav").write_bytes(wav(SAMPLE_RATE))
    assert read_sound(tmp_path / "ok.wav")[0].tolist() == [100 / 32768, -100 / 32768]
    (tmp_path / "a.wav").write_bytes(wav(0))
    with pytest.raises(DataError, match=r"sound-format[^+]*states 0 samples per second"):
        read_sound(tmp_path / "a.wav")


@pytest.mark.parametrize("read", [read_text, read_sound])
def test_what_the_system_refuses_names_the_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "folder").mkdir()
    for name, rule in (("folder", "unreadable"), ("absent", "file-missing")):
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        (problem,) = caught.value.problems
        assert (problem.rule, problem.path, bool(problem.remedy)) == (rule, str(tmp_path / name), True)


def test_lengths_are_those_of_the_network_and_absence_is_marked() -> None:
    assert text_bytes("\u00fcb", 4).tolist() == [0xC3, 0xBC, ord("b"), 0]
    assert text_bytes("abc", 2).tolist() == [97, 98]
    assert text_bytes(None, 2).tolist() == [0, 0]
    assert sound_samples(np.array([0.5, 0.25], np.float32), 3).tolist() == [0.5, 0.25, 0]
    assert np.isnan(sound_samples(None, 3)).all()


def test_a_part_of_the_modalities() -> None:
    everything = Modalities("a", np.zeros(2, np.float32))
    assert everything.only(["image"]) == Modalities()
    assert everything.only(["text"]) == Modalities("a", None, has_image=False)
    assert np.isnan(everything.only(["text"]).arrays(Sizes(1, 2))[1]).all()


def test_files_beside_the_images_belong_to_cases(tmp_path: Path) -> None:
    for name in ("images", "masks", "texts", "sounds"):
        (tmp_path / name).mkdir()
    for case in ("a", "b"):
        (tmp_path / "images" / f"{case}.png").touch()
        (tmp_path / "masks" / f"{case}.png").touch()
    (tmp_path / "texts" / "a.TXT").write_text("the disc")
    (tmp_path / "texts" / "c.txt").write_text("nobody's")
    (tmp_path / "texts" / "b.txt").mkdir()
    found = find_cases(tmp_path, DataSpec(ndim=2, channels=("grey",)))
    assert [(Path(case.text).name, case.sound) for case in found.cases] == [("a.TXT", ""), ("", "")]
    assert [(one.rule, one.message.split()[0]) for one in found.notices] == [
        ("skipped-file", "is"),
        ("missing-modality", "b"),
        ("skipped-file", "there"),
    ]
