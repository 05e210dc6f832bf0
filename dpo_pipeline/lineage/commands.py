"""The commands `dpo-pipeline lineage ...`; each is one call into the library."""

import getpass
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Aloud


@click.group()
def lineage() -> None:
    """Show and re-prove where an artifact comes from."""


@lineage.command("show")
@click.argument("subject", default="evaluation_report")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write it as one page here.")
@click.option("--svg", "svg_path", type=click.Path(path_type=Path), help="Also write the picture here.")
def lineage_show(subject: str, html_path: Path | None, svg_path: Path | None) -> None:
    """Print the chain behind SUBJECT: an asset, asset/drop, `champion`, or a digest, with or without its kind."""
    from dpo_pipeline.lineage.audit import describe_audit
    from dpo_pipeline.lineage.chain import as_text, chains_of
    from dpo_pipeline.lineage.graph import draw_chain
    from dpo_pipeline.lineage.page import render_chain

    home = Home.default()
    click.echo("\n".join(as_text(node) for node in chains_of(home, subject)))
    if html_path or svg_path:
        shown = describe_audit(home, subject, [])
        if html_path:
            html_path.write_text(render_chain(shown), encoding="utf-8")
        if svg_path:
            svg_path.write_text(draw_chain(shown["chain"]), encoding="utf-8")


@lineage.command("verify")
@click.argument("subject", default="evaluation_report")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the audit as JSON here.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Also write the audit as one page here.")
@click.option("--rebuild", is_flag=True, help="Make tables and trainings again and compare; takes as long as they did.")
def lineage_verify(subject: str, json_path: Path | None, html_path: Path | None, *, rebuild: bool) -> None:
    """Re-prove the chain behind SUBJECT; exit code 1 on FAIL. INCOMPLETE names each check that could not run."""
    from dpo_pipeline.lineage.audit import describe_audit
    from dpo_pipeline.lineage.page import render_page
    from dpo_pipeline.lineage.verify import as_text, verdict, verify

    home = Home.default()
    speak = partial(click.echo, err=True)
    checks = verify(home, subject, again=speak if rebuild else None, reporter=Aloud(speak))
    click.echo(as_text(checks))
    if json_path or html_path:
        audit = describe_audit(home, subject, checks)
        if json_path:
            json_path.write_text(json.dumps(audit, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if html_path:
            html_path.write_text(render_page(audit), encoding="utf-8")
    if verdict(checks) == "FAIL":
        sys.exit(1)


@lineage.command("trace")
@click.option("--annotator", help="Pseudonym, or the platform's own id.")
@click.option("--record", help="FILE:LINE or DROP/FILE:LINE.")
@click.option("--pair", help="Pair id.")
def lineage_trace(annotator: str | None, record: str | None, pair: str | None) -> None:
    """Follow an annotator, a record or a pair to every table and checkpoint that holds it."""
    from dpo_pipeline.lineage import trace

    home = Home.default()
    value, follow = _one_of((annotator, trace.trace_annotator), (record, trace.trace_record), (pair, trace.trace_pair))
    click.echo(trace.as_text(follow(home, value)))


@lineage.command("forget")
@click.option("--annotator", help="Pseudonym, or the platform's own id, which is never written down.")
@click.option("--record", help="DROP/FILE:LINE.")
@click.option("--pair", help="Pair id: the prompt with both responses, whoever judged them.")
@click.option("--reason", default="", help="Why, in words that name nobody.")
@click.option("--person", default=getpass.getuser, show_default="your login name", help="Who says so.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def lineage_forget(
    annotator: str | None, record: str | None, pair: str | None, *, reason: str, person: str, yes: bool
) -> None:
    """Take an annotator, a record or a pair back: says what holds it, asks, then writes a tombstone into the ledger."""
    from dpo_pipeline.lineage import forget

    home = Home.default()
    value, plan_of = _one_of((annotator, forget.plan_annotator), (record, forget.plan_record), (pair, forget.plan_pair))
    plan = plan_of(home, value)
    click.echo(forget.as_text(home, plan))
    if not yes:
        click.confirm("\nWrite the tombstone?", abort=True)
    stone = forget.bury(home, plan, person=person, reason=reason, unspeakable=annotator or "")
    click.echo(f"Ledger line {stone.number}: {stone.what} is forgotten.")
    click.echo("\n".join(forget.mark_forgotten(home)))


@lineage.command("keygen")
def lineage_keygen() -> None:
    """Make the key pair that signs artifacts from now on; hand the public half to reviewers."""
    from dpo_pipeline.lineage.attestations import make_keys, private_key_path

    home = Home.default()
    public = make_keys(home)
    click.echo(f"The public key lies at {public}; keep {private_key_path(home)} secret and back it up.")


@lineage.command("reconcile")
def lineage_reconcile() -> None:
    """Close what killed processes left, tell MLflow what it missed, sign, and say what does not agree."""
    from dpo_pipeline.lineage.witnesses import installed_reconciler

    reconcile = installed_reconciler()
    if reconcile is None:
        click.echo("No package offers a reconciler. Install dpo-pipeline: `pip install -e .`", err=True)
        sys.exit(2)
    said = reconcile(Home.default())
    click.echo("\n".join(said) or "Ledger, Dagster, MLflow and disk agree; nothing to do.")


def _one_of(*ways: tuple[str | None, Callable[[Home, str], Any]]) -> tuple[str, Callable[[Home, str], Any]]:
    """The one option that was given, and what follows it."""
    given = [(value, follow) for value, follow in ways if value]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --annotator, --record and --pair")
    return given[0]
