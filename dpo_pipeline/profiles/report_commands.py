"""`dpo-pipeline report ...`: checkpoints beside one another; each command is one call into the library."""

from pathlib import Path

import click

from dpo_pipeline.core.home import Home


@click.group()
def report() -> None:
    """Look at checkpoints beside one another; nothing of it enters the ledger."""


@report.command("compare")
@click.argument("baseline")
@click.argument("challenger")
@click.option("--profile", default="demo", show_default=True, help="Bundled profile or YAML file.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder for page and tables.")
def report_compare(baseline: str, challenger: str, profile: str, out: Path | None) -> None:
    """Score, let reply and judge two checkpoints on the newest held-out set: an asset, kind/digest, or champion."""
    from dpo_pipeline.core.metrics import Aloud
    from dpo_pipeline.evaluation.compare import report_text
    from dpo_pipeline.profiles import load_profile
    from dpo_pipeline.profiles.comparing import compare_checkpoints

    found = compare_checkpoints(
        Home.default(), baseline, challenger, profile=load_profile(profile), reporter=Aloud(_aside), out=out
    )
    click.echo(f"{report_text(found.report)}\n\n{found.folder / 'report.html'}")


def _aside(sentence: str) -> None:
    click.echo(sentence, err=True)
