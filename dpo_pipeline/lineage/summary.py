"""What a run came to, in a screenful: records, losses, held-out figures, three replies, where things lie."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.books import Books, total
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import read_metrics
from dpo_pipeline.core.promotions import Mode, promotions

SHOWN_REPLIES = 3
WIDTH = 100


def summarize(home: Home) -> str:
    """The newest run of a home in plain text.

    Raises:
        ArtifactError: If the chain has not been made through to the evaluation report.
    """
    report = home.latest("evaluation_report")
    parts = [
        _records(home),
        _training(home.latest("sft_checkpoint"), home.latest("dpo_checkpoint")),
        _figures(report.facts),
        _champion(home),
        _replies(report),
        _places(home, report),
    ]
    return "\n\n".join(parts)


def _records(home: Home) -> str:
    read = [home.latest("judgments", drop).books for drop in home.partitions("judgments")]
    pairs = home.latest("preference_pairs")
    counts = pairs.counts
    made = f"{counts['pairs']:,} pairs: {counts['pairs_train']:,} train, {counts['pairs_held_out']:,} held out"
    lines = ["RECORDS", *_books("export records", total(book for book in read if book is not None))]
    return "\n".join([*lines, *(_books("judgments", pairs.books) if pairs.books else []), f"  {made}"])


def _books(label: str, books: Books) -> list[str]:
    kept = ", ".join(f"{count:,} {name}" for name, count in sorted(books.kept.items()))
    merged = f", {books.merged:,} merged into another" if books.merged else ""
    lines = [f"  {books.records_in:,} {label} = {kept}{merged}, {books.rejected_count:,} left out"]
    lines += [f"      {count:>6,}  {reason.replace('_', ' ')}" for reason, count in books.rejected.most_common()]
    return lines


def _training(sft: Artifact, dpo: Artifact) -> str:
    lines = ["TRAINING"]
    for name, artifact in (("SFT", sft), ("DPO", dpo)):
        first, final = read_metrics(artifact.path / "metrics.jsonl")[0]["loss"], artifact.facts["final_loss"]
        lines.append(f"  {name} loss {first:.3f} -> {final:.3f} in {artifact.counts['steps']:,} steps")
    if (begun := str(sft.facts.get("started_from", "base"))) != "base":
        kind, digest = begun.split()
        lines.append(f"  SFT went on from the {kind} {short(digest)}, not from the base model")
    if count := sft.counts["against_permission"]:
        lines.append(f"  NOT FOR USE: SFT learned {count:,} replies whose source forbids it (override_sft_permission)")
    return "\n".join(lines)


def _figures(facts: Mapping[str, Any]) -> str:
    lines = ["HELD OUT   value (95 % interval)"]
    for label, name, is_share in (
        ("replies within the rubric, SFT", "sft/passed", True),
        ("replies within the rubric, DPO", "dpo/passed", True),
        ("preferred reply ranked first, SFT", "sft/ranking_accuracy", True),
        ("preferred reply ranked first, DPO", "dpo/ranking_accuracy", True),
        ("preferred reply gained more by DPO", "implicit_accuracy", True),
        ("divergence from SFT, nats per reply", "kl_per_reply", False),
        ("preferred reply became less likely", "share_chosen_fell", True),
    ):
        if name in facts:
            lines.append(f"  {label:38} {_figure(facts, name, is_share=is_share)}")
    return "\n".join([*lines, f"  {facts['outcome']}: {facts['reason']}"])


def _champion(home: Home) -> str:
    """Who is champion and why, and what the gate said of the newest checkpoint if that is another one."""
    line = home.latest_line("champion")
    decision = {} if line is None else home.store.get("champion", line["artifact"]).facts
    history = promotions(home)
    if not history:
        return f"CHAMPION\n  none: {decision.get('reason', 'the gate has not been asked yet')}"
    last = history[-1]
    if last.champion is None:
        withdrawn = f"{short(last.before or '')} was withdrawn on {last.time[:10]} by {last.person}: {last.reason}"
        return f"CHAMPION\n  none: {withdrawn}"
    how = (
        "rolled back to" if last.is_rollback else f"promoted {'by hand' if last.mode is Mode.MANUAL else 'by the rule'}"
    )
    why = last.reason or last.verdict.get("reason", "")
    lines = ["CHAMPION", f"  {short(last.champion)}, {how} on {last.time[:10]}: {why}"]
    if decision and decision["challenger"] != last.champion:
        ruling = decision["ruling"].replace("_", " ")
        lines.append(f"  the newest checkpoint {short(decision['challenger'])} is not: {ruling}. {decision['reason']}")
    return "\n".join(lines)


def _figure(facts: Mapping[str, Any], name: str, *, is_share: bool) -> str:
    values = (facts[name], facts[f"{name}/low"], facts[f"{name}/high"])
    if is_share:
        return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in values))
    return "{:.2f} ({:.2f} to {:.2f})".format(*values)


def _replies(report: Artifact) -> str:
    rows = pq.read_table(report.path / "replies.parquet").to_pylist()
    greedy = [row for row in rows if row["decoding"] == "greedy"]
    by_prompt: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in greedy:
        by_prompt.setdefault(row["prompt_id"], {})[row["model"]] = row
    changed = [models for models in by_prompt.values() if {"sft", "dpo"} <= set(models)]
    changed = [models for models in changed if models["sft"]["reply"] != models["dpo"]["reply"]]
    lines = ["REPLIES"]
    for models in changed[:SHOWN_REPLIES]:
        lines += [
            _wrapped("prompt", models["sft"]["prompt"][-1]["content"]),
            _wrapped("before", models["sft"]["reply"]),
        ]
        lines += [_wrapped("after", models["dpo"]["reply"]), ""]
    return "\n".join(lines).rstrip()


def _wrapped(label: str, text: str) -> str:
    """One labelled paragraph; control characters of a reply never reach the terminal."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.fill(plain, WIDTH, initial_indent=f"  {label:7} ", subsequent_indent=" " * 10)


def _places(home: Home, report: Artifact) -> str:
    return "\n".join(
        [
            "WHERE",
            f"  report    {_shown(report.path / 'report.html')}",
            f"  ledger    {_shown(home.ledger.path)}  ({sum(1 for _ in home.ledger.lines()):,} lines)",
            "  lineage   dpo-pipeline lineage show   dpo-pipeline lineage verify",
            "  UIs       make ui",
        ]
    )


def _shown(path: Path) -> str:
    """A path as short as it can be said from the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
