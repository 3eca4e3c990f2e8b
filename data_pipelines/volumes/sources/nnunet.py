"""nnU-Net raw folders.

ROOT/dataset.json                 "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}
ROOT/imagesTr/NAME_0000.nii.gz    one file per channel: NAME_0000, NAME_0001, ... (a colour PNG: NAME_0000 alone)
ROOT/labelsTr/NAME.nii.gz
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.errors import ProblemList, broken_rule
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.files import strip_suffix
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES
from data_pipelines.volumes.sources.declarations import (
    dataset_metadata,
    declared_channels,
    declared_classes,
    read_dataset_json,
)
from data_pipelines.volumes.sources.names import (
    check_id,
    check_not_empty,
    check_unique,
    find_splits,
    list_volumes,
    pair_ids,
    read_subjects,
    subject_of,
    unique_ids,
    without,
)
from data_pipelines.volumes.specs import DataSpec

CHANNEL_SUFFIX = re.compile(r"(?P<case_id>.*)_(?P<channel>\d{4})")


@dataclass(frozen=True, slots=True)
class _ChannelFile:
    """One file of an image, ``NAME_0000``."""

    case_id: str
    channel: int
    path: Path


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """Find the cases of ``imagesTr`` and ``labelsTr``; names that break a rule are in ``problems``."""
    declared = read_dataset_json(root)
    channels = declared_channels(declared, spec, root)
    images, problems = _complete_images(root / "imagesTr", channels)
    labels, label_problems = unique_ids(list_volumes(root / "labelsTr"))
    problems += label_problems
    first_files = {case_id: files[0] for case_id, files in images.items()}
    ids, unpaired = pair_ids(first_files, labels, root / "imagesTr", root / "labelsTr")
    problems += without(unpaired, [problem.case_id for problem in problems])
    with problems.collecting():
        check_not_empty(root / "imagesTr", images)
    subjects = read_subjects(root)
    return Dataset(
        name=str(declared.get("name") or root.resolve().name),
        cases=tuple(Case(i, tuple(map(str, images[i])), str(labels[i]), subject_of(i, subjects)) for i in ids),
        classes=declared_classes(declared, spec, root),
        channels=channels,
        problems=tuple(problems),
        splits_path=find_splits(root),
        metadata=dataset_metadata(declared),
    )


def _complete_images(folder: Path, channels: tuple[str, ...]) -> tuple[dict[str, list[Path]], ProblemList]:
    """Map the id of each complete case to its channel files in order; the other cases are problems."""
    groups: dict[str, list[_ChannelFile]] = defaultdict(list)
    problems = ProblemList()
    for path in list_volumes(folder):
        with problems.collecting():
            file = _channel_file(path)
            groups[file.case_id.casefold()].append(file)
    complete = {}
    for group in groups.values():
        broken = _channel_problems(group, channels)
        problems += broken
        if not broken:
            complete[group[0].case_id] = [file.path for file in sorted(group, key=lambda file: file.channel)]
    return complete, problems


def _channel_file(path: Path) -> _ChannelFile:
    """Parse the name of an image file. Raises DataError where it has no channel number."""
    stem = strip_suffix(path.name)
    match = CHANNEL_SUFFIX.fullmatch(stem)
    if match is None:
        message = "the name of an image must end in its channel number, NAME_0000"
        raise broken_rule("no-channel-number", path, message, "rename it", stem)
    return _ChannelFile(match["case_id"], int(match["channel"]), path)


def _channel_problems(group: list[_ChannelFile], channels: tuple[str, ...]) -> ProblemList:
    """Collect the problems of the files of one case: bad id, and channels that are missing, undeclared or ambiguous."""
    case_id, folder = group[0].case_id, group[0].path.parent
    problems = ProblemList()
    with problems.collecting(case_id):
        check_id(case_id, group[0].path)
    by_channel: dict[int, list[Path]] = defaultdict(list)
    for file in group:
        by_channel[file.channel].append(file.path)
    problems += _ambiguous_channels(group, by_channel)
    # A colour image brings all its channels in NAME_0000; how many, its header tells when the case is checked.
    is_colour = set(by_channel) == {0} and group[0].path.name.lower().endswith(IMAGE_SUFFIXES)
    for index, name in enumerate(channels):
        if index not in by_channel and not is_colour:
            with problems.collecting(case_id):
                message = f"channel {index} ({name}) of the case is missing"
                path = folder / f"{case_id}_{index:04d}"
                raise broken_rule("missing-channel", path, message, "add the file, or leave the case out")
    for index in sorted(by_channel.keys() - set(range(len(channels)))):
        with problems.collecting(case_id):
            message = f"channel {index} is not declared; dataset.json has {len(channels)}: {', '.join(channels)}"
            remedy = "declare it in channel_names, or move the file away"
            raise broken_rule("undeclared-channel", by_channel[index][0], message, remedy)
    return problems


def _ambiguous_channels(group: list[_ChannelFile], by_channel: dict[int, list[Path]]) -> ProblemList:
    """Collect the channels that several files claim, else two spellings of the case: a_0000 and A_0001."""
    case_id = group[0].case_id
    problems = ProblemList()
    for paths in by_channel.values():
        with problems.collecting(case_id):
            check_unique(paths)
    if len({file.case_id for file in group}) > 1 and not problems:
        with problems.collecting(case_id):
            check_unique([file.path for file in group])
    return problems
