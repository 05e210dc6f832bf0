"""The command `dpo-pipeline`: what people type; each command is one call into the library."""

import json
import sys
from pathlib import Path

import click

from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.evaluation.champion_commands import champion
from dpo_pipeline.lineage.commands import lineage
from dpo_pipeline.profiles.export_commands import lineage_export
from dpo_pipeline.profiles.report_commands import report
from dpo_pipeline.profiles.sweep_commands import sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dpo-pipeline")
def commands() -> None:
    """Preference annotations in, an aligned language model out, and a lineage a reviewer can re-prove."""


@commands.command()
@click.option("--seed", default=17, show_default=True, help="Seed; the same seed gives the same files.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the full size (5,000 demonstrations).")
def sample(seed: int, scale: float) -> None:
    """Write the bundled customer-service scenario into the inbox as two drops."""
    from dpo_pipeline.samples.scenario import generate_scenario

    home = Home.default()
    if any(home.inbox.glob("*")):
        click.echo(f"{home.inbox} already holds drops; left as it is.")
        return
    generate_scenario(home.inbox, seed=seed, scale=scale)
    click.echo(f"Two drops of the bundled scenario lie in {home.inbox}.")


@commands.command()
@click.option("--profile", default="demo", show_default=True, help="Bundled profile or YAML file.")
@click.option("--pairs", type=click.IntRange(min=1), help="Pairs to plan for, instead of this home's.")
@click.option("--demonstrations", type=click.IntRange(min=1), help="Demonstrations to plan for, likewise.")
def plan(profile: str, pairs: int | None, demonstrations: int | None) -> None:
    """Say what a profile's trainings need and about how long they take; loads no weights, names all faults at once."""
    from dpo_pipeline.profiles import load_profile
    from dpo_pipeline.profiles.planning import plan_profile

    found = plan_profile(
        load_profile(profile), Home.default(), name=profile, pairs=pairs, demonstrations=demonstrations
    )
    click.echo(found.text)
    if found.faults:
        sys.exit(1)


@commands.command()
def profiles() -> None:
    """List the bundled profiles."""
    from dpo_pipeline.profiles import load_profile, profile_names

    for name in profile_names():
        click.echo(f"{name:26} {load_profile(name).description}")


@commands.command()
def summary() -> None:
    """Say what became of the records and of the model, and where report and lineage lie."""
    from dpo_pipeline.lineage.summary import summarize

    click.echo(summarize(Home.default()))


@commands.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def digest(path: Path) -> None:
    """Print the SHA-256 by which a profile pins a file (a tokenizer, a benchmark) or a model's folder."""
    from dpo_pipeline.core.digests import sha256_of_file
    from dpo_pipeline.preferences.pinned import sha256_of_folder

    click.echo(sha256_of_folder(path) if path.is_dir() else sha256_of_file(path))


@commands.group()
def drop() -> None:
    """Look at deliveries of annotation files before and after they are taken in."""


@drop.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the listing as JSON.")
def drop_list(*, as_json: bool) -> None:
    """List the drops taken in, with their books and versions, and what waits in the inbox."""
    from dpo_pipeline.annotations.arrivals import open_inbox
    from dpo_pipeline.annotations.listing import as_text, list_drops

    home = Home.default()
    listing = list_drops(home, open_inbox(home.inbox_url))
    click.echo(json.dumps(listing, indent=2) if as_json else as_text(listing))


@drop.command("add")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="Name of the drop, such as 2026-11-vendor; its partition in the UI.")
def drop_add(path: Path, name: str) -> None:
    """Copy a file or folder of export files into the inbox as one complete drop."""
    from dpo_pipeline.annotations.inbox import add_drop

    click.echo(f"{add_drop(path, Home.default(), name=name)} is complete; the sensor `new_drops` takes it in.")


@drop.command("check")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--propose", is_flag=True, help="Print only a drop.yaml for the files that cannot be read without one.")
@click.option("--profile", default="demo", show_default=True, help="Bundled profile or YAML file.")
def drop_check(folder: Path, *, as_json: bool, propose: bool, profile: str) -> None:
    """Read a folder as a drop without keeping anything: what would be kept, what rejected and why."""
    from dpo_pipeline.annotations.checking import check_drop
    from dpo_pipeline.annotations.findings import drop_yaml_of, findings_as_text, is_usable, proposals_of
    from dpo_pipeline.profiles import load_profile

    findings = check_drop(folder, load_profile(profile).annotations)
    if propose:
        click.echo(drop_yaml_of(proposals_of(findings)), nl=False)
        return
    click.echo(json.dumps(findings, indent=2, ensure_ascii=False) if as_json else findings_as_text(findings))
    if not is_usable(findings):
        sys.exit(1)


commands.add_command(champion)
lineage.add_command(lineage_export)
commands.add_command(lineage)
commands.add_command(sweep)
commands.add_command(report)


def main() -> None:
    """Run the command line; an error of ours ends in its sentence, not in a traceback."""
    try:
        commands(standalone_mode=True)
    except PipelineError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
