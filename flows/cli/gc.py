"""The command that removes what nobody needs any more."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.base import OTHER_PANEL, Json, app, print_json, print_result

if TYPE_CHECKING:
    from flows.cleanup.rubbish import Rubbish


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
    from flows.cleanup.collect import find_rubbish, remove_all
    from flows.config.locations import storage_root
    from flows.doctor.servers import require_mlflow

    require_mlflow()
    rubbish = find_rubbish(storage_root(storage), keep_days)
    if not as_json:
        print_result(rubbish_text(rubbish))
    removed: list[Rubbish] = []
    num_failed = 0
    if rubbish and not dry_run and (yes or _agrees()):
        num_failed = remove_all(rubbish, removed.append)
    if as_json:
        print_json({"found": rubbish, "removed": [each.uri for each in removed]})
    elif removed or num_failed:
        print_result(f"removed {len(removed)} of {len(rubbish)}, {size_text(removed)}")
    if num_failed:
        raise typer.Exit(1)


def rubbish_text(rubbish: Sequence[Rubbish]) -> str:
    """Write each folder with its size, and the sum of each kind."""
    if not rubbish:
        return "nothing to remove"
    lines = [f"{_text(each.size):>10}  {each.kind:<16}  {each.uri}" for each in rubbish]
    kinds: dict[str, list[Rubbish]] = defaultdict(list)
    for each in rubbish:
        kinds[each.kind].append(each)
    sums = [f"{len(group)} {kind}{'s' if len(group) > 1 else ''} ({size_text(group)})" for kind, group in kinds.items()]
    return "\n".join([*lines, "", f"{size_text(rubbish)} in all: {', '.join(sums)}"])


def size_text(rubbish: Sequence[Rubbish]) -> str:
    """Write the size of all of them together."""
    return _text(sum(each.size for each in rubbish))


def _agrees() -> bool:
    """Ask on a terminal; elsewhere say how to remove: what is removed cannot be had back."""
    if sys.stdin.isatty():
        return typer.confirm("remove them?", err=True)
    sys.stderr.write("nothing was removed; the same command with --yes removes them\n")
    return False


def _text(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
