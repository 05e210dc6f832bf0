"""What must be true of a report before anybody is promoted on it: complete, held-out set intact, nothing leaked.

Every check is measured again from the tables, not read off the report's own account of itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.home import Home
from dpo_pipeline.evaluation.near_copies import near_copies
from dpo_pipeline.evaluation.report import read_report
from dpo_pipeline.evaluation.settings import ChampionSettings
from dpo_pipeline.evaluation.standing import Standing, forgotten_behind, pairs_behind, trained_on
from dpo_pipeline.preferences.golden import golden_leaks, golden_rows, held_out_rows

CONDITIONS = ("report_is_complete", "held_out_is_intact", "nothing_leaked", "nothing_forgotten")


@dataclass(frozen=True, slots=True)
class Condition:
    """What was found, what it should be, what to do if it is not; `held` is None where nobody could tell.

    One that does not `forbid` is a warning: it stands in the decision and stops nobody.
    """

    name: str
    held: bool | None
    found: str
    expected: str
    advice: str
    numbers: Mapping[str, float]
    forbids: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "held": self.held,
            "found": self.found,
            "expected": self.expected,
            "advice": self.advice,
            "numbers": dict(self.numbers),
            "forbids": self.forbids,
        }


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


def nothing_leaked(
    report: Path, pairs: Path, trained_on: Mapping[str, Path | None], *, jaccard: float, allowed: float
) -> Condition:
    """Whether a held-out prompt, its cluster or a near copy of it was trained on, by challenger or champion.

    Args:
        report: An evaluation_report artifact folder.
        pairs: The preference_pairs artifact folder it was made from.
        trained_on: By model, the preference_pairs artifact folder it was trained on; None if that is gone.
        jaccard: Similarity of word 2-grams from which two prompts are near copies.
        allowed: Share of the held-out prompts that may have a near copy among the trained ones.
    """
    prompts, clusters, golden_ones = _held_out(pairs)
    numbers: dict[str, float] = {"held_out_prompts": len(prompts)}
    faults, unknown, ways_out = [], [], []
    for model, folder in trained_on.items():
        if folder is None:
            unknown.append(model)
            continue
        seen = (prompts & set(_ids(folder, "prompt_id"))) | (clusters & set(_ids(folder, "cluster_id")))
        numbers[f"trained by {model}"] = len(seen)
        if seen:
            of_golden = f", {len(seen & golden_ones)} of them of the golden set" if seen & golden_ones else ""
            faults.append(f"{model} was trained on {len(seen)} held-out prompts or clusters{of_golden}")
        like_golden = [] if folder == pairs else golden_leaks(pairs, similarity=jaccard, trained_in=folder)
        if like_golden:
            numbers[f"like golden by {model}"] = len(like_golden)
            faults.append(f"{model} was trained on {len(like_golden)} near copies of golden prompts")
        if seen or like_golden:
            ways_out.append(_way_out(model, is_of_today=folder == pairs))
    if learned := read_report(report / "report.json")["held_out"]["contamination"]["in_demonstrations"]:
        faults.append(f"{learned} held-out prompts stand among the demonstrations of SFT")
    numbers["in demonstrations"] = learned
    found = near_copies(pairs, jaccard=jaccard)
    copies, golden = found.held_out, found.like_golden
    numbers["near copies"] = len(copies)
    if golden:
        faults.append(f"{len(golden)} trained prompts are near copies of golden ones, such as {golden[0]}")
    if len(copies) > allowed * len(prompts):
        faults.append(f"{len(copies)} of {len(prompts)} held-out prompts have a near copy on the training side")
    return Condition(
        "nothing_leaked",
        False if faults else None if unknown else True,
        "; ".join(faults)
        or (f"the pairs that {' and '.join(unknown)} learned from are gone" if unknown else "")
        or f"none of {len(prompts)} held-out prompts was trained on; {len(copies)} have a near copy there",
        f"no held-out prompt in training, near copies (from {jaccard:g}) of at most {100 * allowed:g} % of them",
        " ".join(dict.fromkeys((*ways_out, _ADVICE))),
        numbers,
    )


_ADVICE = (
    "Never change preferences.split_salt or held_out_share between two models that are to be compared; with another "
    "split, start a home of its own. Near copies: look the prompts up in pairs.parquet by their ids."
)


def _way_out(model: str, *, is_of_today: bool) -> str:
    """What to do where a model has learned what is held out today, as after a golden set was pinned."""
    if "begun from" in model:
        return (
            "Train from the base model (operation.start_from: base): an earlier champion's weights hold those prompts."
        )
    if is_of_today:
        return "The table holds the same prompts on both sides: materialize preference_pairs again, then train."
    if model == "challenger":
        return (
            "The challenger learned from an earlier table, as where a golden set was pinned since: materialize "
            "sft_checkpoint and dpo_checkpoint again, on the tables built with it, then evaluation_report and champion."
        )
    return (
        "Today's champion learned from an earlier table. Once a challenger is trained on today's, take the champion's "
        "place away (`dpo-pipeline champion withdraw --reason ...`): the next model is then compared with SFT."
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


def examine(home: Home, standing: Standing, *, settings: ChampionSettings, jaccard: float) -> list[Condition]:
    """Every condition on the report of a standing.

    Args:
        home: Where the tables behind report and checkpoints lie.
        standing: Report, challenger and champion.
        settings: How many near copies are allowed.
        jaccard: Similarity of word 2-grams from which two prompts are near copies.
    """
    return [examine_one(name, home, standing, settings=settings, jaccard=jaccard) for name in CONDITIONS]


def examine_one(name: str, home: Home, standing: Standing, *, settings: ChampionSettings, jaccard: float) -> Condition:
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
    learned = trained_on(home, standing)
    return nothing_leaked(report, pairs, learned, jaccard=jaccard, allowed=settings.near_copy_share)


def broken(conditions: Sequence[Condition]) -> list[Condition]:
    """Those that did not hold and forbid a promotion."""
    return [each for each in conditions if each.held is False and each.forbids]


def warned_of(conditions: Sequence[Condition]) -> list[Condition]:
    """Those that did not hold and only warn."""
    return [each for each in conditions if each.held is False and not each.forbids]


def undecided(conditions: Sequence[Condition]) -> list[Condition]:
    """Those nobody could tell."""
    return [each for each in conditions if each.held is None]


def _held_out(pairs: Path) -> tuple[set[str], set[str], set[str]]:
    """Ids of the held-out prompts, of their clusters, and both of those that are a golden set's."""
    names = ["prompt_id", "cluster_id"]
    prompts, clusters = (set(held_out_rows(pairs, names)[name].to_pylist()) for name in names)
    golden = golden_rows(pairs, names)
    return prompts, clusters, {one for name in names for one in golden[name].to_pylist()}


def _ids(pairs: Path, column: str) -> list[str]:
    return pq.read_table(pairs / "pairs.parquet", columns=[column], filters=[("split", "=", "train")])[
        column
    ].to_pylist()
