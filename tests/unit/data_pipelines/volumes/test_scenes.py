from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipelines.volumes.checks import check_case
from data_pipelines.volumes.modalities import SAMPLE_RATE
from data_pipelines.volumes.scenes import LEVELS, PITCHES_HZ, build_scene
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec


def pitch(sound: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(sound))
    return float(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)[spectrum.argmax()])


def test_text_and_tone_tell_which_shape_is_meant() -> None:
    """Of every shape and brightness there is one in each image; all four are meant about equally often."""
    meant = set()
    for index in range(40):
        scene = build_scene(0, index)
        level = scene.image[scene.label == 1].mean()
        brightness = "bright" if level > 128 else "dark"
        assert abs(level - LEVELS[brightness]) < 6
        low, high = PITCHES_HZ[brightness]
        assert low - 10 < pitch(scene.sound) < high + 10
        area = scene.label.sum()
        rows, columns = np.nonzero(scene.label)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert (area == box) == (scene.text == "the square")
        darkness = [(scene.image < 90).sum(), (scene.image > 170).sum()]
        assert min(darkness) > 1.4 * area * 0.4
        meant.add((scene.text, brightness))
    assert len(meant) == 4


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    first, again, other = build_scene(1, 2), build_scene(1, 2), build_scene(1, 3)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.sound, again.sound)
    assert not np.array_equal(first.image, other.image)


def test_scenes_are_found_and_pass_the_checks(tmp_path: Path) -> None:
    spec = DataSpec(layout="scenes", ndim=2, num_phantoms=4)
    dataset = find_cases(spec, tmp_path)
    assert dataset == find_cases(spec, tmp_path)
    checked = check_case(dataset.cases[0], dataset, spec)
    assert checked.text in ("the disc", "the square")
    assert checked.sound is not None
    assert len(checked.sound) == SAMPLE_RATE // 4
    assert (len(dataset.notices), len(dataset.problems), checked.notices) == (0, 0, ())
