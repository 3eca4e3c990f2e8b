"""Notices: what was assumed, converted or skipped in input that is used all the same; counted and shown."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data_pipelines.errors import printable
from data_pipelines.specs import Spec

logger = logging.getLogger(__name__)

_NUM_EXAMPLES = 3


class Notice(Spec):
    """One assumption or conversion. Unlike a ``Problem`` it leaves nothing out."""

    rule: str
    """Short stable name, such as ``unit-unstated``."""
    path: str
    """File or folder that it is about."""
    message: str
    """Finding, and what was made of it, in one sentence."""
    case_id: str = ""
    """Case that it belongs to; empty where it is the data set's."""


def notice(rule: str, path: str | Path, message: str) -> Notice:
    """Build the notice about one file."""
    return Notice(rule=rule, path=printable(str(path)), message=printable(message))


def of_case(notices: Iterable[Notice], case_id: str) -> tuple[Notice, ...]:
    """Give the notices their case."""
    return tuple(one.model_copy(update={"case_id": case_id}) for one in notices)


def count_notices(notices: Iterable[Notice]) -> dict[str, int]:
    """Count the notices by rule, sorted by name."""
    return dict(sorted(Counter(one.rule for one in notices).items()))


def log_notices(notices: Iterable[Notice]) -> None:
    """Log one warning per rule: how often, and the first examples."""
    by_rule: dict[str, list[Notice]] = {}
    for one in notices:
        by_rule.setdefault(one.rule, []).append(one)
    for rule, group in sorted(by_rule.items()):
        examples = "; ".join(f"{one.path}: {one.message}" for one in group[:_NUM_EXAMPLES])
        more = f"; and {len(group) - _NUM_EXAMPLES} more" if len(group) > _NUM_EXAMPLES else ""
        logger.warning("%s (%d): %s%s", rule, len(group), examples, more)
