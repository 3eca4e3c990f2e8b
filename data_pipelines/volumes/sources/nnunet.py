"""nnU-Net raw folders.

ROOT/dataset.json                 "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}
ROOT/imagesTr/NAME_0000.nii.gz    one file per channel: NAME_0000, NAME_0001, ... (a colour PNG: NAME_0000 alone)
ROOT/labelsTr/NAME.nii.gz
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.errors import Problem
from data_pipelines.volumes.sources.decathlon import dataset_metadata, declared_channels, declared_classes, read_dataset_json
from data_pipelines.volumes.sources.folders import duplicate_problem, empty_problem, find_splits, id_problems, list_volumes, pair_ids, read_subjects, subject_of, unique_ids
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES
from data_pipelines.volumes.files import strip_suffix

CHANNEL_SUFFIX = re.compile(r"(?P<case_id>.*)_(?P<channel>\d{4})")


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """The cases of ``imagesTr`` and ``labelsTr``; everything wrong by name is in ``problems``."""
    declared = read_dataset_json(root)
    channels = declared_channels(declared, spec, root)
    images, image_problems = _group_channels(root / "imagesTr", channels)
    labels, label_problems = unique_ids(list_volumes(root / "labelsTr"))
    named = {problem.case_id for problem in (*image_problems, *label_problems)}
    ids, problems = pair_ids(images, labels, root / "imagesTr", root / "labelsTr", named)
    subjects = read_subjects(root)
    return Dataset(
        name=str(declared.get("name") or root.resolve().name),
        cases=tuple(Case(i, images[i], str(labels[i]), subject_of(i, subjects)) for i in ids),
        classes=declared_classes(declared, spec, root),
        channels=channels,
        problems=(*image_problems, *label_problems, *problems, *empty_problem(root / "imagesTr", images)),
        splits_path=find_splits(root),
        metadata=dataset_metadata(declared),
    )


def _group_channels(folder: Path, channels: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Case id -> its channel files in order, for complete cases; a Problem for each of the others."""
    groups: dict[str, list[tuple[str, int, Path]]] = defaultdict(list)
    problems = []
    for path in list_volumes(folder):
        match = CHANNEL_SUFFIX.fullmatch(strip_suffix(path.name))
        if match is None:
            message = "the name of an image must end in its channel number, NAME_0000"
            problems.append(Problem("no-channel-number", str(path), message, "rename it", strip_suffix(path.name)))
            continue
        groups[match["case_id"].casefold()].append((match["case_id"], int(match["channel"]), path))
    complete = {}
    for group in groups.values():
        case_id = group[0][0]
        broken = id_problems(case_id, str(group[0][2])) + _channel_problems(case_id, group, channels)
        problems += broken
        if not broken:
            complete[case_id] = tuple(str(path) for _, _, path in sorted(group, key=lambda item: item[1]))
    return complete, problems


def _channel_problems(case_id: str, group: list[tuple[str, int, Path]], channels: tuple[str, ...]) -> list[Problem]:
    """Channels that are missing, undeclared or there twice."""
    by_channel: dict[int, list[str]] = defaultdict(list)
    for _, channel, path in group:
        by_channel[channel].append(str(path))
    folder = group[0][2].parent
    problems = [duplicate_problem(case_id, paths) for paths in by_channel.values() if len(paths) > 1]
    if len({name for name, _, _ in group}) > 1 and not problems:  # a_0000 and A_0001: two spellings of one case
        problems.append(duplicate_problem(case_id, [str(path) for _, _, path in group]))
    # A colour image brings all its channels in NAME_0000; how many, its header tells when the case is checked.
    colour = set(by_channel) == {0} and group[0][2].name.lower().endswith(IMAGE_SUFFIXES)
    for index, name in enumerate(channels):
        if index not in by_channel and not colour:
            message = f"channel {index} ({name}) of the case is missing"
            remedy = "add the file, or leave the case out"
            problems.append(
                Problem("missing-channel", str(folder / f"{case_id}_{index:04d}"), message, remedy, case_id)
            )
    for index in sorted(by_channel.keys() - set(range(len(channels)))):
        message = f"channel {index} is not declared; dataset.json has {len(channels)}: {', '.join(channels)}"
        remedy = "declare it in channel_names, or move the file away"
        problems.append(Problem("undeclared-channel", by_channel[index][0], message, remedy, case_id))
    return problems
