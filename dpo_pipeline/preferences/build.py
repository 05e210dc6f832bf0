"""Preference pairs from the judgments of all drops: load, clean, split, merge, add up, deduplicate, write, book.

Reads from top to bottom. Nothing is lost: every judgment ends in a kept pair, in the count of repeated verdicts, or in
the books under the reason its pair was left out.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences import consensus as consensus_methods
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.cleaning import RULES
from dpo_pipeline.preferences.consensus import Consensus, Verdict
from dpo_pipeline.preferences.contamination import write_contamination
from dpo_pipeline.preferences.deduplicate import NearPairs, near_duplicate_pairs, prompt_neighbours
from dpo_pipeline.preferences.fates import Fates
from dpo_pipeline.preferences.likeness import PAIRS_LIKENESS_FILE, PROMPTS_LIKENESS_FILE, Likenesses
from dpo_pipeline.preferences.near_duplicates import elect
from dpo_pipeline.preferences.noise import label_noise, noise_sentence
from dpo_pipeline.preferences.rankings import responses_of
from dpo_pipeline.preferences.reasons import Reason
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, SPLIT_NAMES, Splits, split_prompts
from dpo_pipeline.preferences.texts import DropTables
from dpo_pipeline.preferences.verdicts import HIGH, LOW, Choice, Status, Verdicts, load_verdicts
from dpo_pipeline.preferences.write import write_excluded, write_pairs, write_splits

__all__ = ["DropTables", "build_pairs"]

SAME_PROMPT = 0.8
"""Similarity of two prompts from which a judgment of the same two responses under one speaks for the other as well."""


def build_pairs(
    drops: Sequence[DropTables],
    out: Path,
    *,
    settings: PreferenceSettings,
    reporter: Reporter,
    known: Sequence[Path] = (),
) -> Outcome:
    """Write `pairs.parquet`, `excluded_pairs.parquet` and `splits.parquet` from the judgments of all drops.

    The measured likenesses of pairs and prompts are written beside them: a later build need not read their texts again.

    Laws: the order of files and rows inside drops does not change the tables; a prompt's split, once given, is never
    changed by a later drop.

    Args:
        drops: Names and artifact folders, in order of arrival.
        out: An empty folder.
        settings: How verdicts are added up, which rules apply, how similar is too similar.
        reporter: Told what each step found.
        known: Intact artifacts of earlier builds; they save time and change no byte.

    Returns:
        Counts of judgments and pairs by what became of them, and books of the judgments: in = counted in kept pairs
        + merged (repeated or delivered twice) + rejected by the reason of their pair.

    Raises:
        InputError: If there is no drop, or tables do not belong together.
    """
    if not drops:
        raise InputError("there is no drop to build from", expected="at least one", do="Put a drop into the inbox")
    catalogue = Catalogue.read(drops)
    verdicts = load_verdicts(drops, catalogue.pair_numbers)
    reporter.say(f"{len(verdicts):,} judgments on {len(catalogue.pair_ids):,} distinct pairs")
    fates = Fates(len(catalogue.pair_ids))

    found = catalogue.found()
    for name, hits in found.items():
        if getattr(settings.rules, name) == "drop":
            fates.exclude(hits, name)

    of_pairs = Likenesses(catalogue.pair_ids, [folder / PAIRS_LIKENESS_FILE for folder in known])
    of_prompts = Likenesses(catalogue.prompt_ids, [folder / PROMPTS_LIKENESS_FILE for folder in known])
    neighbours = prompt_neighbours(catalogue, likenesses=of_prompts, settings=settings, reporter=reporter)
    splits = split_prompts(
        catalogue.prompt_ids,
        catalogue.prompt_place.drop,
        neighbours,
        share=settings.held_out_share,
        salt=settings.split_salt,
    )
    fates.exclude(splits.side[catalogue.prompt] == QUARANTINED, Reason.SPLIT_CONFLICT)

    order = np.argsort(_preference(catalogue, verdicts))
    near = near_duplicate_pairs(
        catalogue, order[fates.is_alive[order]], likenesses=of_pairs, settings=settings, reporter=reporter
    )
    of_pairs.write(out / PAIRS_LIKENESS_FILE)
    of_prompts.write(out / PROMPTS_LIKENESS_FILE)
    _merge_same_responses(catalogue, verdicts, fates, near)
    agreed = add_up(catalogue, verdicts, settings=settings)
    _exclude_undecided(verdicts, fates, agreed, settings)
    _exclude_near_duplicates(catalogue, verdicts, fates, near)

    write_splits(out, catalogue, splits)
    write_excluded(out, catalogue, verdicts, fates)
    write_pairs(out, catalogue, verdicts, fates, agreed, splits, settings=settings, reporter=reporter)
    contamination = write_contamination(out, drops, settings)
    noise = _noise(verdicts, fates, agreed)
    reporter.say(noise_sentence(noise))
    books = _books(verdicts, fates)
    books.assert_balanced(of="preference_pairs")
    return Outcome(
        counts=_counts(catalogue, verdicts, fates, found, splits),
        facts=_facts(splits, settings) | {"label_noise": noise} | contamination,
        books=books,
        remarks={
            "likenesses_measured": of_pairs.measured + of_prompts.measured,
            "likenesses_reused": of_pairs.reused + of_prompts.reused,
        },
    )


def _merge_same_responses(catalogue: Catalogue, verdicts: Verdicts, fates: Fates, near: NearPairs) -> None:
    """Give a pair the judgments of its near duplicates with the very same responses: they judged the same thing."""
    low, high = catalogue.pair_column("low_id"), catalogue.pair_column("high_id")
    left, right = near.edges.T
    is_same = ((low[left] == low[right]) & (high[left] == high[right])).all(axis=1) & (near.prompt >= SAME_PROMPT)
    winner = elect(near.edges[is_same], _preference(catalogue, verdicts))
    losers = winner >= 0
    fates.winner[losers] = winner[losers]
    fates.is_moved |= fates.exclude(losers, Reason.NEAR_DUPLICATE)
    verdicts.move(np.where(losers, winner, np.arange(len(winner))))


def _preference(catalogue: Catalogue, verdicts: Verdicts) -> np.ndarray:
    """Per pair its rank as a keeper: most judgments, then first to arrive."""
    judged = np.bincount(verdicts.pair[verdicts.is_counted], minlength=len(catalogue.pair_ids))
    rank = np.empty(len(judged), np.int64)
    # Within a drop pairs have no order of arrival but that of their identities, which is their order here.
    rank[np.lexsort((catalogue.pair_place.drop, -judged))] = np.arange(len(judged))
    return rank


def add_up(catalogue: Catalogue, verdicts: Verdicts, *, settings: PreferenceSettings) -> Consensus:
    """The consensus on every pair by the method of the settings; ties and "both bad" prefer no side."""
    counted = verdicts.is_counted
    some = Verdict(
        verdicts.pair[counted],
        verdicts.annotator[counted],
        verdicts.side[counted],
        verdicts.strength[counted],
        verdicts.votes[counted],
    )
    annotator_count = len(verdicts.annotators)
    if settings.consensus == "bradley_terry":
        return consensus_methods.bradley_terry(some, responses_of(catalogue), annotator_count)
    method = {
        "majority": consensus_methods.majority,
        "strength": consensus_methods.strength,
        "dawid_skene": consensus_methods.dawid_skene,
    }[settings.consensus]
    return method(some, len(catalogue.pair_ids), annotator_count)


def _exclude_undecided(verdicts: Verdicts, fates: Fates, agreed: Consensus, settings: PreferenceSettings) -> None:
    count = len(agreed.p_low)
    counted = verdicts.is_counted
    pair, votes = verdicts.pair[counted], verdicts.votes[counted]
    judgments = np.bincount(pair, minlength=count)
    fates.exclude(judgments == 0, Reason.NO_VERDICT)
    fates.exclude(judgments < settings.min_judgments, Reason.FEW_JUDGMENTS, value=judgments.astype(float))
    bad = np.bincount(pair, weights=votes * (verdicts.choice[counted] == Choice.BOTH_BAD), minlength=count)
    total = np.bincount(pair, weights=votes, minlength=count)
    fates.exclude(2 * bad > total, Reason.BOTH_BAD, value=bad)
    sided = np.bincount(pair, weights=votes * (verdicts.side[counted] != 0), minlength=count)
    p_chosen = np.maximum(agreed.p_low, 1 - agreed.p_low)
    is_tie = (sided == 0) | (agreed.p_tie > p_chosen - agreed.p_tie / 2)
    fates.exclude(is_tie, Reason.TIE, value=agreed.p_tie)
    toward_low = np.bincount(pair, weights=votes * verdicts.side[counted], minlength=count)
    is_split = toward_low * np.where(agreed.p_low >= 0.5, 1, -1) <= 0
    least = np.where(is_split, settings.min_p_chosen_when_split, settings.min_p_chosen)
    fates.exclude(p_chosen < least, Reason.CONTRADICTION, value=p_chosen)


def _exclude_near_duplicates(catalogue: Catalogue, verdicts: Verdicts, fates: Fates, near: NearPairs) -> None:
    near = near.only(np.all(fates.is_alive[near.edges], axis=1))
    winner = elect(near.edges, _preference(catalogue, verdicts))
    likeness = np.full(len(winner), np.nan)
    for loser, kept in (near.edges.T, near.edges.T[::-1]):
        is_match = winner[loser] == kept
        likeness[loser[is_match]] = near.similarity[is_match]
    losers = fates.exclude(winner >= 0, Reason.NEAR_DUPLICATE, value=likeness)
    fates.winner[losers] = winner[losers]


def _noise(verdicts: Verdicts, fates: Fates, agreed: Consensus) -> dict[str, Any]:
    """The estimated share of flipped labels, from the verdicts on all pairs and the probabilities of the kept ones."""
    pair, side = verdicts.pair[verdicts.is_counted], verdicts.side[verdicts.is_counted]
    low, high = (np.bincount(pair[side == sign], minlength=len(fates.reason)) for sign in (LOW, HIGH))
    p_low = agreed.p_low[fates.is_alive]
    return label_noise(low, high, np.maximum(p_low, 1 - p_low))


def _books(verdicts: Verdicts, fates: Fates) -> Books:
    """What became of every judgment, each exactly once."""
    books = Books(records_in=len(verdicts))
    is_merged = np.isin(verdicts.status, (Status.REPEAT, Status.REDELIVERED))
    books.merged = int(is_merged.sum())
    in_kept = fates.is_alive[verdicts.pair] & ~is_merged
    books.kept["judgments"] = int((in_kept & verdicts.is_counted).sum())
    for status, reason in ((Status.SKIPPED, Reason.SKIPPED), (Status.NOT_RATEABLE, Reason.NOT_RATEABLE)):
        if hits := int((in_kept & (verdicts.status == status)).sum()):
            books.rejected[reason.value] += hits
    of_pair = np.bincount(fates.reason[verdicts.pair[~in_kept & ~is_merged]], minlength=len(fates.names))
    books.rejected.update({name: int(hits) for name, hits in zip(fates.names, of_pair, strict=True) if hits})
    return books


def _counts(
    catalogue: Catalogue, verdicts: Verdicts, fates: Fates, found: dict[str, np.ndarray], splits: Splits
) -> dict[str, int]:
    alive = np.flatnonzero(fates.is_alive)
    sides = Counter(SPLIT_NAMES[side] for side in splits.side[catalogue.prompt[alive]])
    shown = [np.bincount(verdicts.pair[verdicts.b_is_low == side], minlength=len(fates.reason)) > 0 for side in (0, 1)]
    return {
        "judgments": len(verdicts),
        "judgments_repeated": int((verdicts.status == Status.REPEAT).sum()),
        "judgments_delivered_twice": int((verdicts.status == Status.REDELIVERED).sum()),
        "pairs_distinct": len(catalogue.pair_ids),
        "pairs_shown_in_both_orders": int((shown[0] & shown[1]).sum()),
        "pairs_merged_into_another": int(fates.is_moved.sum()),
        "pairs": len(alive),
        "pairs_train": sides["train"],
        "pairs_held_out": sides["held_out"],
        "prompts": len(catalogue.prompt_ids),
        "prompt_clusters": len(np.unique(splits.cluster)),
        **{f"excluded_{name}": count for name, count in sorted(fates.counts().items())},
        **{f"found_by_{name}": int(hits.sum()) for name, hits in found.items()},
    }


def _facts(splits: Splits, settings: PreferenceSettings) -> dict[str, Any]:
    sizes, count = np.bincount(splits.cluster), max(len(splits.side), 1)
    return {
        "held_out_share_of_prompts": round(float((splits.side == HELD_OUT).sum() / count), 4),
        "largest_cluster_share_of_prompts": round(float(sizes.max(initial=0) / count), 4),
        "rules": {rule.name: f"v{rule.version} {getattr(settings.rules, rule.name)}" for rule in RULES},
    }
