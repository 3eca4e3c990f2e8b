"""nnU-Net raw folders.

ROOT/dataset.json                 "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}
ROOT/imagesTr/NAME_0000.nii.gz    one file per channel: NAME_0000, NAME_0001, ... (a colour PNG: NAME_0000 alone)
ROOT/labelsTr/NAME.nii.gz

Instead of the two folders dataset.json may list the files of each case:
"dataset": {"NAME": {"images": ["mri/NAME_t1.nii.gz", ...], "label": "masks/NAME.nii.gz"}}
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.errors import ProblemList, broken_rule
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.formats.base import IMAGE_SUFFIXES
from data_pipelines.volumes.sources.declarations import (
    Declared,
    check_file_ending,
    check_listed_file,
    dataset_metadata,
    declared_channels,
    declared_labels,
    listed_file,
    read_dataset_json,
)
from data_pipelines.volumes.sources.names import (
    case_id_of,
    check_id,
    check_not_empty,
    check_unique,
    find_splits,
    list_volumes,
    normal,
    pair_ids,
    read_subjects,
    skipped_files,
    subject_of,
    unique_ids,
    without,
)
from data_pipelines.volumes.sources.regions import labels_of
from data_pipelines.volumes.specs import DataSpec

CHANNEL_SUFFIX = re.compile(r"(?P<case_id>.*)_(?P<channel>\d{4})")


@dataclass(frozen=True, slots=True)
class _ChannelFile:
    """One file of an image, ``NAME_0000``."""

    case_id: str
    channel: int
    path: Path


_Files = dict[str, tuple[list[Path], Path]]
"""Case id to its channel files in order, and its label."""


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """Find the cases that ``dataset.json`` lists, else those of ``imagesTr`` and ``labelsTr``.

    Names that break a rule are in ``problems``.
    """
    declared = read_dataset_json(root)
    channels = declared_channels(declared, spec, root)
    found, problems = _listed_cases(root, declared, channels) if is_listed(declared) else _cases_on_disk(root, channels)
    with problems.collecting():
        check_file_ending(declared, root)
    subjects = read_subjects(root)
    return Dataset(
        name=str(declared.get("name") or root.resolve().name),
        cases=tuple(
            Case(case_id, tuple(map(str, images)), str(label), subject_of(case_id, subjects))
            for case_id, (images, label) in sorted(found.items())
        ),
        labels=labels_of(spec, lambda: declared_labels(declared, root)),
        channels=channels,
        problems=tuple(problems),
        splits_path=find_splits(root),
        metadata=dataset_metadata(declared),
        notices=skipped_files(root / "imagesTr", root / "labelsTr"),
    )


def is_listed(declared: Declared) -> bool:
    """Tell whether ``dataset.json`` lists the files of each case."""
    return isinstance(declared.get("dataset"), dict) and bool(declared["dataset"])


def listed_images(root: Path) -> dict[str, list[Path]]:
    """Return the image files of each case that ``ROOT/dataset.json`` lists; empty where it lists none.

    Raises DataError for entries that are malformed or lead out of the data set.
    """
    if not (root / "dataset.json").is_file() or not is_listed(declared := read_dataset_json(root)):
        return {}
    return {normal(name): _listed_files(root, normal(name), entry)[0] for name, entry in declared["dataset"].items()}


def _cases_on_disk(root: Path, channels: tuple[str, ...]) -> tuple[_Files, ProblemList]:
    """Pair the images of ``imagesTr`` and the labels of ``labelsTr`` by name."""
    images, problems = _complete_images(root / "imagesTr", channels)
    labels, label_problems = unique_ids(list_volumes(root / "labelsTr"))
    problems += label_problems
    first_files = {case_id: files[0] for case_id, files in images.items()}
    ids, unpaired = pair_ids(first_files, labels, root / "imagesTr", root / "labelsTr")
    problems += without(unpaired, [problem.case_id for problem in problems])
    with problems.collecting():
        check_not_empty(root / "imagesTr", images)
    return {case_id: (images[case_id], labels[case_id]) for case_id in ids}, problems


def _listed_cases(root: Path, declared: Declared, channels: tuple[str, ...]) -> tuple[_Files, ProblemList]:
    """Take the cases from the list; entries that are malformed or name missing files are problems."""
    found: _Files = {}
    problems = ProblemList()
    taken: dict[str, str] = {}
    for name, entry in declared["dataset"].items():
        case_id = normal(name)
        with problems.collecting(case_id):
            if (other := taken.setdefault(case_id.casefold(), name)) != name:
                message = f"two entries of the list have one case id: {other}, {name}"
                raise broken_rule("duplicate-id", root / "dataset.json", message, "keep one of them")
            check_id(case_id, root / "dataset.json")
            found[case_id] = _listed_case(root, case_id, entry, channels)
    return found, problems


def _listed_case(root: Path, case_id: str, entry: object, channels: tuple[str, ...]) -> tuple[list[Path], Path]:
    """Return images and label of one entry. Raises DataError where it is malformed or its files do not exist."""
    images, label = _listed_files(root, case_id, entry)
    if len(images) not in (1, len(channels)):  # one file may bring all channels: colour, or a fourth axis
        message = f"the case lists {len(images)} images, {len(channels)} channels are declared: {', '.join(channels)}"
        raise broken_rule("missing-channel", root / "dataset.json", message, "list one file per channel")
    for image in images:
        check_listed_file("image", image)
    check_listed_file("label", label)
    return images, label


def _listed_files(root: Path, case_id: str, entry: object) -> tuple[list[Path], Path]:
    """Parse one entry of the list. Raises DataError where it is malformed or leads out of the data set."""
    names = entry.get("images") if isinstance(entry, dict) else None
    label = entry.get("label") if isinstance(entry, dict) else None
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in [*names, label])):
        message = f'an entry of "dataset" must be {{"images": [...], "label": ...}}, got {entry!r:.200}'
        raise broken_rule("bad-entry", root / "dataset.json", message, "correct the entry")
    return [listed_file(root, case_id, name) for name in names], listed_file(root, case_id, str(label))


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
    stem = case_id_of(path)
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
