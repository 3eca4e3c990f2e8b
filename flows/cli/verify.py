"""The command that reads everything in storage against its digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.errors import NOT_RETRYABLE_EXIT_CODE
from flows.cli.base import OTHER_PANEL, Json, app, print_json, print_result

if TYPE_CHECKING:
    from flows.verification.fault import Checked, Fault


@app.command(rich_help_panel=OTHER_PANEL)
def verify(
    storage: Annotated[str, typer.Option(help="Storage to look into; default: UNETFLOW_STORAGE.")] = "",
    as_json: Json = False,
) -> None:
    """Read all shards, records, outputs and checkpoints against their digests; exit code 2 where one is damaged."""
    from flows.config.locations import storage_root
    from flows.verification.storage import verify_storage

    checked, faults = verify_storage(storage_root(storage))
    if as_json:
        print_json({"checked": checked, "faults": faults})
    else:
        print_result(verification_text(checked, faults))
    if faults:
        raise typer.Exit(NOT_RETRYABLE_EXIT_CODE)


def verification_text(checked: Sequence[Checked], faults: Sequence[Fault]) -> str:
    """Write what was checked as a table, then each fault with its location and its remedy."""
    lines = [f"{'':<12}{'checked':>8}{'MB':>12}{'faults':>8}"]
    lines += [f"{each.kind + 's':<12}{each.number:>8}{each.size / 1e6:>12.1f}{each.num_faults:>8}" for each in checked]
    for fault in faults:
        lines += ["", f"{fault.kind} {fault.uri}", f"  {fault.message}", f"  -> {fault.remedy}"]
    return "\n".join(lines if faults else [*lines, "", "no faults"])
