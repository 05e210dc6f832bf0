"""`dpo-pipeline sweep`: says how many points and about how long, then has them made one after the other."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import click

from dpo_pipeline.core.home import Home

SWEEPER = "dpo_pipeline.sweeper"
FLAGS = ("--beta", "--learning-rate", "--loss", "--epochs")


class ManyValues(click.Command):
    """A command whose sweep flags take every value up to the next flag: `--beta 0.05 0.1 0.5`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell each further value with its flag, which is how click understands it."""
        spelled: list[str] = []
        flag, count = "", 0
        for word in args:
            if word.startswith("--"):
                flag, count = (word if word in FLAGS else ""), 0
                spelled.append(word)
            else:
                spelled += [flag, word] if flag and count else [word]
                count += 1
        return super().parse_args(ctx, spelled)


def installed_sweeper() -> Callable[[Home, str, Sequence[str]], list[str]] | None:
    """What makes the points of a sweep; None where no package offers it."""
    return next((entry.load() for entry in entry_points(group=SWEEPER)), None)


@click.command(cls=ManyValues)
@click.option("--profile", default="demo", show_default=True, help="Bundled profile or YAML file.")
@click.option("--beta", multiple=True, help="Values of dpo.beta, several after one flag.")
@click.option("--learning-rate", multiple=True, help="Values of dpo.optimizer.learning_rate.")
@click.option("--loss", multiple=True, help="Values of dpo.loss.")
@click.option("--epochs", multiple=True, help="Values of dpo.epochs.")
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be made, and make nothing.")
def sweep(
    profile: str,
    beta: tuple[str, ...],
    learning_rate: tuple[str, ...],
    loss: tuple[str, ...],
    epochs: tuple[str, ...],
    *,
    only_plan: bool,
) -> None:
    """Train and evaluate every combination of the values, and plot reward accuracy against KL.

    Tables, SFT checkpoint and reference log-probs are those of the home. Points made before are taken over, so a sweep
    that was stopped goes on where it stopped.
    """
    from dpo_pipeline.profiles import load_profile
    from dpo_pipeline.profiles.sweeps import about_how_long, points_of, profile_of_point

    home, settings = Home.default(), load_profile(profile)
    points = points_of({"beta": beta, "learning_rate": learning_rate, "loss": loss, "epochs": epochs})
    for point in points:
        profile_of_point(settings, point)
    click.echo(f"{len(points)} points. {about_how_long(home, settings, points)}")
    if only_plan:
        click.echo("\n".join(points))
        return
    run = installed_sweeper()
    if run is None:
        click.echo("No package offers a sweeper. Install dpo-pipeline: `pip install -e .`", err=True)
        sys.exit(2)
    said = run(home, profile, points)
    click.echo("\n".join(said))
    if any("FAILED" in sentence or sentence.startswith("STOPPED") for sentence in said):
        sys.exit(1)
