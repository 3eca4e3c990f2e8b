"""The command that removes what nobody needs any more."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.base import OTHER_PANEL, Json, app, print_json, print_result

if TYPE_CHECKING:
    from flows.cleanup.garbage import Garbage


@app.command(rich_help_panel=OTHER_PANEL)
def gc(
    keep_days: Annotated[float, typer.Option(min=0, help="Keep what was written within this many days.")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    storage: Annotated[str, typer.Option(help="Storage to look into; default: UNETFLOW_STORAGE.")] = "",
    as_json: Json = False,
) -> None:
    """Remove attempts and checkpoints that no record names, and what killed processes left on this machine.

    Records, what they name, and stages that registered versions came from always stay.
    """
    from flows.cleanup.collect import find_garbage, remove_all
    from flows.config.locations import storage_root
    from flows.doctor.servers import require_mlflow

    require_mlflow()
    garbage = find_garbage(storage_root(storage), keep_days)
    if not as_json:
        print_result(garbage_text(garbage))
    removed: list[Garbage] = []
    num_failed = 0
    if garbage and not dry_run and (yes or _agrees()):
        num_failed = remove_all(garbage, removed.append)
    if as_json:
        print_json({"found": garbage, "removed": [each.uri for each in removed]})
    elif removed or num_failed:
        print_result(f"removed {len(removed)} of {len(garbage)}, {size_text(removed)}")
    if num_failed:
        raise typer.Exit(1)


def garbage_text(garbage: Sequence[Garbage]) -> str:
    """Write each folder with its size, and the sum of each kind."""
    if not garbage:
        return "nothing to remove"
    lines = [f"{_text(each.size):>10}  {each.kind:<16}  {each.uri}" for each in garbage]
    kinds: dict[str, list[Garbage]] = defaultdict(list)
    for each in garbage:
        kinds[each.kind].append(each)
    sums = [f"{len(group)} {kind}{'s' if len(group) > 1 else ''} ({size_text(group)})" for kind, group in kinds.items()]
    return "\n".join([*lines, "", f"{size_text(garbage)} in all: {', '.join(sums)}"])


def size_text(garbage: Sequence[Garbage]) -> str:
    """Write the size of all of them together."""
    return _text(sum(each.size for each in garbage))


def _agrees() -> bool:
    """Ask on a terminal; elsewhere say how to remove: what is removed cannot be had back."""
    if sys.stdin.isatty():
        return typer.confirm("remove them?", err=True)
    sys.stderr.write("nothing was removed; the same command with --yes removes them\n")
    return False


def _text(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
