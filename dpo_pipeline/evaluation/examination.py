"""What must be true of a report before anybody is promoted on it: complete, held-out set intact, nothing leaked.

Every check is measured again from the tables, not read off the report's own account of itself.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation.conditions import Condition
from dpo_pipeline.evaluation.leaks import nothing_leaked, training_of
from dpo_pipeline.evaluation.report import read_report
from dpo_pipeline.evaluation.settings import ChampionSettings
from dpo_pipeline.evaluation.standing import Standing, forgotten_behind, pairs_behind
from dpo_pipeline.preferences.golden import held_out_rows

CONDITIONS = ("report_is_complete", "held_out_is_intact", "nothing_leaked", "nothing_forgotten")


def report_is_complete(report: Path) -> Condition:
    """Whether challenger and opponents have a finite log-prob for every held-out pair, and a reply to every prompt.

    Args:
        report: An evaluation_report artifact folder.
    """
    values = read_report(report / "report.json")
    models = [values["challenger"], *values["decisions"]]
    pairs, prompts = values["held_out"]["pairs"], values["held_out"]["prompts_replied_to"]
    scores = pq.read_table(report / "scores.parquet", columns=["model", "chosen_log_prob", "rejected_log_prob"])
    finite = dict.fromkeys(models, 0)
    for row in scores.to_pylist():
        values_of = (row["chosen_log_prob"], row["rejected_log_prob"])
        is_finite = all(value is not None and math.isfinite(value) for value in values_of)
        finite[row["model"]] = finite.get(row["model"], 0) + is_finite
    replies = pq.read_table(report / "replies.parquet", columns=["model", "decoding"]).to_pylist()
    given = {
        name: sum(row["model"] == name and row["decoding"] == values["judged_decoding"] for row in replies)
        for name in models
    }
    lacking = [f"{name} scored {finite[name]} of {pairs} pairs" for name in models if finite[name] < pairs]
    lacking += [f"{name} replied to {given[name]} of {prompts} prompts" for name in models if given[name] < prompts]
    if not pairs:
        lacking.insert(0, "the held-out set is empty")
    return Condition(
        "report_is_complete",
        not lacking,
        "; ".join(lacking) or f"{pairs} pairs scored and {prompts} prompts answered by {', '.join(models)}",
        "a number for every pair and a reply to every prompt, from every model that is compared",
        "Look at the training curves of the model that is lacking; a log-prob that is no number means that its weights "
        "are broken. Lower the learning rate and train again. An empty held-out set: raise preferences.held_out_share "
        "or take in more data.",
        {"held_out_pairs": pairs, **{f"finite {name}": count for name, count in finite.items()}},
    )


def held_out_is_intact(report: Path, pairs: Path) -> Condition:
    """Whether what was scored as held out is the held-out side of the preference table, all of it and nothing else.

    Args:
        report: An evaluation_report artifact folder.
        pairs: The preference_pairs artifact folder it was made from.
    """
    values = read_report(report / "report.json")["held_out"]
    held_out = set(held_out_rows(pairs, ["pair_id"])["pair_id"].to_pylist())
    scored = set(pq.read_table(report / "scores.parquet", columns=["pair_id"])["pair_id"].to_pylist())
    strangers, missing = scored - held_out, held_out - scored
    same = values["pairs_sha256"] == digest_of_json(sorted(scored)) and len(missing) == values["pairs_left_out"]
    faults = [f"{len(strangers)} scored pairs are not held out, such as {min(strangers)}"] if strangers else []
    if not same:
        faults.append(
            f"{len(scored)} pairs stand in scores.parquet and {len(missing)} are missing; report.json speaks of "
            f"{values['pairs']} and of {values['pairs_left_out']} left out"
        )
    return Condition(
        "held_out_is_intact",
        not faults,
        "; ".join(faults) or f"all {len(scored)} scored pairs are held out, {len(missing)} could not be scored",
        "the held-out side of preference_pairs",
        "Materialize evaluation_report again. If it happens twice, report it as a defect: the figures mean nothing.",
        {"scored": len(scored), "strangers": len(strangers), "left_out": len(missing)},
    )


def nothing_forgotten(learned: Mapping[str, str]) -> Condition:
    """A warning where challenger or champion learned from what was taken back since.

    Args:
        learned: By model, how it is known; see `standing.forgotten_behind`.
    """
    found = "; ".join(f"the {model} {how}" for model, how in learned.items())
    return Condition(
        "nothing_forgotten",
        not learned,
        found or "neither challenger nor champion learned from records that are forgotten",
        "models that hold nothing of what a tombstone took back",
        "Its weights keep what it learned. Whether it stays in use is for people: `dpo-pipeline champion rollback`, or "
        "`dpo-pipeline champion withdraw`, then train again.",
        {"models": len(learned)},
        forbids=False,
    )


def examine(
    home: Home, standing: Standing, *, settings: ChampionSettings, jaccard: float, reporter: Reporter | None = None
) -> list[Condition]:
    """Every condition on the report of a standing.

    Args:
        home: Where the tables behind report and checkpoints lie.
        standing: Report, challenger and champion.
        settings: How many near copies are allowed.
        jaccard: Similarity of word 2-grams from which two prompts are near copies.
        reporter: Told now and then how far a long search is.
    """
    return [
        examine_one(name, home, standing, settings=settings, jaccard=jaccard, reporter=reporter) for name in CONDITIONS
    ]


def examine_one(
    name: str,
    home: Home,
    standing: Standing,
    *,
    settings: ChampionSettings,
    jaccard: float,
    reporter: Reporter | None = None,
) -> Condition:
    """One condition, by its name in `CONDITIONS`; see `examine`."""
    if name == "nothing_forgotten":
        return nothing_forgotten(forgotten_behind(home, standing.models))
    report, pairs = standing.report.path, pairs_behind(home, standing.report)
    if name == "report_is_complete":
        return report_is_complete(report)
    if pairs is None:
        found = "the preference_pairs behind the report are gone"
        return Condition(name, None, found, "the table the report was made from", "Restore it from a backup", {})
    if name == "held_out_is_intact":
        return held_out_is_intact(report, pairs)
    training, allowed = training_of(home, standing), settings.near_copy_share
    return nothing_leaked(pairs, training, jaccard=jaccard, allowed=allowed, reporter=reporter)
