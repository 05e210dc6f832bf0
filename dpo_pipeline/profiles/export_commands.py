"""`dpo-pipeline lineage export`: lineage, tables and cards for other tools; the profile says what to call them."""

from pathlib import Path

import click

from dpo_pipeline.core.home import Home


@click.command("export")
@click.argument("subject", default="preference_pairs")
@click.option("--openlineage", type=click.Path(path_type=Path), help="Every attempt of the home as run events, here.")
@click.option("--dataset", type=click.Path(path_type=Path), help="The pairs behind SUBJECT with card and Croissant.")
@click.option("--model-card", type=click.Path(path_type=Path), help="The newest release's model card, here.")
@click.option("--profile", default="demo", show_default=True, help="Says name, licence and languages of the dataset.")
def lineage_export(
    subject: str, openlineage: Path | None, dataset: Path | None, model_card: Path | None, profile: str
) -> None:
    """Write lineage, tables and cards as other tools read them. A release holds dataset and model card already."""
    from dpo_pipeline.lineage.exports import export_dataset, export_events, export_model_card
    from dpo_pipeline.profiles import load_profile

    if not (openlineage or dataset or model_card):
        raise click.UsageError("give --openlineage FILE, --dataset FOLDER, --model-card FILE, or several of them")
    home = Home.default()
    if openlineage:
        click.echo(f"{export_events(home, openlineage):,} OpenLineage events in {openlineage}")
    if dataset:
        count = export_dataset(home, subject, dataset, release=load_profile(profile).release)
        click.echo(f"{count:,} pairs with README.md and croissant.json in {dataset}")
    if model_card:
        click.echo(f"The model card of release {export_model_card(home, model_card)} in {model_card}")
