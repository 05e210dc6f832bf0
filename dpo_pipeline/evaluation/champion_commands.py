"""`dpo-pipeline champion`: who it is, who it was and why; going back, and promoting by hand."""

import getpass
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import click

from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, Change, Mode, champion_digest, promotions, roll_back, withdraw

NOBODY = "There is no champion: nothing was promoted yet."
FOLLOWERS, PROMOTERS = "dpo_pipeline.champion", "dpo_pipeline.promoter"


@click.group()
def champion() -> None:
    """Show who is champion, since when and why; go back; promote by hand."""


@champion.command("show")
def show() -> None:
    """Print today's champion, and what the gate said of the newest checkpoint."""
    home = Home.default()
    digest = champion_digest(home)
    history = promotions(home)
    if digest is None:
        click.echo(f"There is no champion.\n{_in_words(history[-1])}" if history else NOBODY)
    else:
        click.echo(f"{CHAMPION_KIND} {digest}\n{_in_words(history[-1])}")
        folder = home.store.path_of(CHAMPION_KIND, digest)
        click.echo(f"{folder / 'model'}" if folder.is_dir() else f"{folder} is gone: restore it from a backup")
    line = home.latest_line("champion")
    if line is not None:
        try:
            decision = home.store.get("champion", line["artifact"])
        except ArtifactError as error:
            click.echo(f"The newest decision cannot be read: {error}")
        else:
            click.echo(f"The newest decision: {decision.facts['ruling'].replace('_', ' ')}. {decision.facts['reason']}")
            click.echo(f"{decision.path / 'decision.md'}")


@champion.command("history")
def history() -> None:
    """Print every promotion, rollback and withdrawal of the ledger, oldest first."""
    changes = promotions(Home.default())
    click.echo("\n".join(map(_in_words, changes)) or "Nothing was promoted yet.")


@champion.command("rollback")
@click.option("--reason", default="", help="Why, in a sentence a reader of the ledger will understand in a year.")
@click.option("--person", default=getpass.getuser, show_default="the account", help="Who decides; kept for ever.")
def rollback(reason: str, person: str) -> None:
    """Make the champion before today's one champion again. Later challengers are compared with it."""
    home = Home.default()
    _say(home, roll_back(home, reason=reason, person=person))
    click.echo("Materialize `release` to hand it out again.")


@champion.command("withdraw")
@click.option("--reason", default="", help="Why, in a sentence a reader of the ledger will understand in a year.")
@click.option("--person", default=getpass.getuser, show_default="the account", help="Who decides; kept for ever.")
def withdraw_champion(reason: str, person: str) -> None:
    """Leave no champion at all, not even an earlier one. The next challenger is compared with SFT."""
    home = Home.default()
    _say(home, withdraw(home, reason=reason, person=person))
    click.echo("What was released stays where it was copied to: take it back there yourself.")


def _say(home: Home, change: Change) -> None:
    """Print a change, and have the views follow it."""
    click.echo(_in_words(change))
    for entry in entry_points(group=FOLLOWERS):
        for sentence in entry.load()(home):
            click.echo(sentence)


@champion.command("promote")
@click.option("--reason", default="", help="Why, in a sentence a reader of the ledger will understand in a year.")
@click.option("--person", default=getpass.getuser, show_default="the account", help="Who decides; kept for ever.")
@click.option("--profile", default="demo", show_default=True, help="Bundled profile or YAML file.")
def promote(reason: str, person: str, profile: str) -> None:
    """Promote the newest checkpoint by hand, whatever the rule says; a broken check still forbids it."""
    promoter: Callable[..., bool] | None = next((entry.load() for entry in entry_points(group=PROMOTERS)), None)
    if promoter is None:
        click.echo("No package offers a promoter. Install dpo-pipeline: `pip install -e .`", err=True)
        sys.exit(2)
    home = Home.default()
    if not promoter(home, profile, reason=reason, person=person):
        sys.exit(1)
    decision = home.latest("champion")
    click.echo(f"{decision.facts['ruling'].replace('_', ' ')}. {decision.facts['reason']}")
    if not decision.facts["promotes"]:
        sys.exit(1)


def _in_words(change: Change) -> str:
    """One line of the history; control characters of a person's words never reach the terminal."""
    if change.champion is None:
        what = f"withdrew {short(change.before or '')}, so that there is no champion,"
    elif change.is_rollback:
        what = f"rolled back to {short(change.champion)}, away from {short(change.before or '')}"
    else:
        instead = f" in place of {short(change.before)}" if change.before else ", the first champion"
        what = f"promoted {short(change.champion)}{instead}"
    who = f" by {change.person or 'a person'}" if change.mode is Mode.MANUAL else " by the rule"
    why = change.reason or str(change.verdict.get("reason", ""))
    line = f"{change.time[:16].replace('T', ' ')}  {what}{who}: {why}"
    return "".join(character if character.isprintable() else " " for character in line)
