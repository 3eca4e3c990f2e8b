"""The command that compares variants of one configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from data_pipelines.digests import digest_of
from flows.cli.base import PIPELINE_PANEL, Config, Json, Set, app, parse_within, print_json, print_result
from flows.pipelines.catalog import load_config


@app.command(rich_help_panel=PIPELINE_PANEL)
def ablate(
    name: Annotated[str, typer.Argument(help="What is left out: skips.", metavar="NAME")],
    config: Config,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each variant.")] = 3,
    within: Annotated[str, typer.Option(help="Time of all runs together, such as 1h: sets train.num_steps.")] = "",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate variants of a configuration under one budget, and compare them in a report."""
    from data_pipelines import storage
    from flows.ablation.budget import fit_within
    from flows.ablation.page import ablation_page, ablation_text
    from flows.ablation.run import find_ablation, run_ablation
    from flows.ablation.summary import summarise_runs

    loaded = load_config(config, overrides or ())
    ablation = find_ablation(loaded, name)
    if within:
        loaded = fit_within(loaded, ablation, range(seeds), parse_within(within))
    summaries = summarise_runs(ablation, run_ablation(loaded, ablation, range(seeds)))
    key = digest_of([name, seeds, loaded.model_dump(mode="json")])[:12]
    report = storage.join(loaded.storage_uri, "reports", f"ablation-{name}-{key}.html")
    storage.write_bytes(report, ablation_page(loaded, ablation, summaries).encode())
    if as_json:
        print_json({"report": report, "variants": summaries})
    else:
        print_result(f"{ablation_text(summaries)}\n\nreport  {report}")
