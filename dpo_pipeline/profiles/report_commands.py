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
        Home.default(),
        baseline,
        challenger,
        name=profile,
        profile=load_profile(profile),
        reporter=Aloud(_aside),
        out=out,
    )
    click.echo(f"{report_text(found.report)}\n\n{found.folder / 'report.html'}")


@report.command("benchmarks")
@click.argument("checkpoint")
@click.option("--tasks", required=True, help="Names of tasks, with commas between them.")
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Folder with task files of your own.")
@click.option("--limit", type=click.IntRange(min=1), help="Most questions of each task.")
@click.option("--few-shots", type=click.IntRange(min=0), help="Examples before each question.")
@click.option("--chat-template/--no-chat-template", default=True, show_default=True, help="Ask as a user's turn.")
@click.option("--profile", default="demo", show_default=True, help="Bundled profile or YAML file.")
def report_benchmarks(checkpoint: str, tasks: str, profile: str, **options: str | int | bool | None) -> None:
    """Run standard benchmarks (lm-evaluation-harness) on CHECKPOINT: an asset, kind/digest, or champion."""
    from dpo_pipeline.core.metrics import Aloud
    from dpo_pipeline.evaluation.settings import BenchmarkSettings
    from dpo_pipeline.evaluation.wording import interval, number
    from dpo_pipeline.profiles import load_profile
    from dpo_pipeline.profiles.comparing import benchmark_checkpoint

    settings = BenchmarkSettings.parse({"tasks": tasks.split(","), **options}, where="the command line")
    rows = benchmark_checkpoint(
        Home.default(),
        checkpoint,
        settings=settings,
        name=profile,
        profile=load_profile(profile),
        reporter=Aloud(_aside),
    )
    for row in rows:
        figure = row.as_dict()
        click.echo(
            f"{row.task:32} {row.metric:24} {number(figure):>8}  {interval(figure, share=False):>16}  n {row.count}"
        )


def _aside(sentence: str) -> None:
    click.echo(sentence, err=True)
