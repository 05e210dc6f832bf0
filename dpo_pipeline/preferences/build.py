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
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences.adding_up import consensus_of, counted
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.cleaning import RULES
from dpo_pipeline.preferences.consensus import Consensus
from dpo_pipeline.preferences.contamination import write_contamination
from dpo_pipeline.preferences.deduplicate import NearPairs, near_duplicate_pairs
from dpo_pipeline.preferences.fates import Fates
from dpo_pipeline.preferences.likeness import PAIRS_LIKENESS_FILE, Likenesses
from dpo_pipeline.preferences.noise import noise_sentence
from dpo_pipeline.preferences.personal_data import redacted_by
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.ranks import Ranks
from dpo_pipeline.preferences.reasons import Reason
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sides import decide_sides
from dpo_pipeline.preferences.sketch_tables import Choice
from dpo_pipeline.preferences.spill import Scratch, slices
from dpo_pipeline.preferences.split import HELD_OUT, QUARANTINED, SPLIT_NAMES, TRAIN, Splits
from dpo_pipeline.preferences.tally import Tally
from dpo_pipeline.preferences.texts import DropTables
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Verdicts
from dpo_pipeline.preferences.write import TableWriter

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
    scratch = Scratch(out)
    catalogue = Catalogue(drops, scratch)
    pair_count = len(catalogue.pairs.ids)
    verdicts = VerdictFile.merge(catalogue, reporter)
    reporter.say(f"{len(verdicts):,} judgments on {pair_count:,} distinct pairs")
    fates = Fates(pair_count, scratch)
    found = _apply_rules(catalogue, fates, settings)

    splits, counts, remarks = decide_sides(catalogue, out, settings=settings, reporter=reporter, known=known)
    for some in slices(pair_count):
        is_bridge = splits.side[catalogue.prompt[some]] == QUARANTINED
        fates.of(some.start, some.stop).exclude(is_bridge, Reason.SPLIT_CONFLICT)

    ranks = Ranks(catalogue, verdicts)
    paths = [folder / PAIRS_LIKENESS_FILE for folder in known]
    redacted = redacted_by(settings)
    with Likenesses(catalogue.pairs.ids, out / PAIRS_LIKENESS_FILE, paths, redacted=redacted) as of_pairs:
        order = ranks.best_first(fates)
        near = near_duplicate_pairs(catalogue, order, likenesses=of_pairs, settings=settings, reporter=reporter)
    _merge_same_responses(catalogue, verdicts, fates, near, ranks)
    p_low = _decide(catalogue, verdicts, fates, ranks, settings, reporter)
    _exclude_near_duplicates(fates, near, ranks)
    reporter.say(f"{pair_count:,} pairs decided, {int(fates.is_alive.sum()):,} of them kept")

    tally, progress = Tally(), Progress(reporter, "judgments written", len(verdicts))
    with TableWriter(out, catalogue, verdicts, splits, settings) as writer:
        for start, end, some in verdicts.slices():
            writer.write(start, some, fates.of(start, end), p_low[start:end])
            tally.add(some, fates.of(start, end))
            progress.add(len(some))
    contamination = write_contamination(out, drops, settings)
    noise = _noise(tally, fates, p_low)
    reporter.say(noise_sentence(noise))
    tally.books.assert_balanced(of="preference_pairs")
    return Outcome(
        counts=_counts(catalogue, tally, fates, found, splits) | counts,
        facts=_facts(splits, settings, scratch) | {"label_noise": noise} | contamination,
        books=tally.books,
        remarks=remarks
        | {
            "likenesses_measured": of_pairs.measured + remarks["likenesses_measured"],
            "likenesses_reused": of_pairs.reused + remarks["likenesses_reused"],
        },
    )


def _apply_rules(catalogue: Catalogue, fates: Fates, settings: PreferenceSettings) -> Counter[str]:
    """Leave out what the cleaning rules drop; return how many pairs each rule found."""
    found: Counter[str] = Counter()
    for name, hits in catalogue.found():
        found[name] = int(hits.sum())
        if getattr(settings.rules, name) == "drop":
            fates.exclude(hits, name)
    return found


def _merge_same_responses(
    catalogue: Catalogue, verdicts: VerdictFile, fates: Fates, near: NearPairs, ranks: Ranks
) -> None:
    """Give a pair the judgments of its near duplicates with the very same responses: they judged the same thing."""
    is_same = near.prompt >= SAME_PROMPT
    for some in slices(len(is_same)):
        for name in ("low_id", "high_id"):
            one, other = (catalogue.pairs.column_at(name, side) for side in near.edges[some].T)
            is_same[some] &= (one == other).all(axis=1)
    losers, winners = ranks.elect(near.edges[is_same])
    fates.exclude_for(losers, winners, Reason.NEAR_DUPLICATE)
    fates.is_moved[losers] = True
    verdicts.move(losers, winners)


def _decide(
    catalogue: Catalogue,
    verdicts: VerdictFile,
    fates: Fates,
    ranks: Ranks,
    settings: PreferenceSettings,
    reporter: Reporter,
) -> np.ndarray:
    """Leave out undecided pairs; return the probability that each pair's low response is better, `(P,)`."""
    add_up = consensus_of(catalogue, verdicts, settings, reporter)
    p_low = catalogue.scratch.empty(len(catalogue.pairs.ids), np.float64)
    for start, end, some in verdicts.slices():
        agreed = add_up(start, some)
        p_low[start:end] = agreed.p_low
        ranks.judged[start:end] = np.bincount(some.pair[some.is_counted], minlength=end - start)
        _exclude_undecided(some, fates.of(start, end), agreed, settings)
    return p_low


def _exclude_undecided(verdicts: Verdicts, fates: Fates, agreed: Consensus, settings: PreferenceSettings) -> None:
    """Leave out the pairs of a range on which the judgments do not agree enough."""
    count = len(agreed.p_low)
    pair, _, side, _, votes = counted(verdicts)
    judgments = np.bincount(pair, minlength=count)
    fates.exclude(judgments == 0, Reason.NO_VERDICT)
    fates.exclude(judgments < settings.min_judgments, Reason.FEW_JUDGMENTS, value=judgments.astype(float))
    is_bad = verdicts.choice[verdicts.is_counted] == Choice.BOTH_BAD
    bad, total, sided, toward_low = (
        np.bincount(pair, weights=weights, minlength=count)
        for weights in (votes * is_bad, votes, votes * (side != 0), votes * side)
    )
    fates.exclude(2 * bad > total, Reason.BOTH_BAD, value=bad)
    p_chosen = np.maximum(agreed.p_low, 1 - agreed.p_low)
    is_tie = (sided == 0) | (agreed.p_tie > p_chosen - agreed.p_tie / 2)
    fates.exclude(is_tie, Reason.TIE, value=agreed.p_tie)
    is_split = toward_low * np.where(agreed.p_low >= 0.5, 1, -1) <= 0
    least = np.where(is_split, settings.min_p_chosen_when_split, settings.min_p_chosen)
    fates.exclude(p_chosen < least, Reason.CONTRADICTION, value=p_chosen)


def _exclude_near_duplicates(fates: Fates, near: NearPairs, ranks: Ranks) -> None:
    """Leave out the pairs nearly equal to a better one that is kept."""
    near = near.only(np.all(fates.is_alive[near.edges], axis=1))
    losers, winners = ranks.elect(near.edges)
    likeness = np.full(len(losers), np.nan)
    for loser, kept in (near.edges.T, near.edges.T[::-1]):
        place = np.minimum(np.searchsorted(losers, loser), max(len(losers) - 1, 0))
        is_match = (losers[place] == loser) & (winners[place] == kept) if len(losers) else np.zeros(len(loser), bool)
        likeness[place[is_match]] = near.similarity[is_match]
    fates.exclude_for(losers, winners, Reason.NEAR_DUPLICATE, value=likeness)


def _noise(tally: Tally, fates: Fates, p_low: np.ndarray) -> dict[str, Any]:
    """The estimated share of flipped labels, from the verdicts on all pairs and the probabilities of the kept ones."""
    total, count = 0.0, 0
    for some in slices(len(p_low)):
        p_kept = p_low[some][fates.is_alive[some]]
        total, count = total + float(np.maximum(p_kept, 1 - p_kept).sum()), count + len(p_kept)
    # Only the mean is asked for: one pair stands for all of them.
    p_chosen = np.full(min(count, 1), total / max(count, 1))
    return tally.toward.noise(p_chosen)


def _counts(catalogue: Catalogue, tally: Tally, fates: Fates, found: Counter[str], splits: Splits) -> dict[str, int]:
    sides, founders = np.zeros(len(SPLIT_NAMES), np.int64), 0
    for some in slices(len(catalogue.prompt)):
        alive = catalogue.prompt[some][fates.is_alive[some]]
        sides += np.bincount(splits.side[alive], minlength=len(sides))
    for some in slices(len(splits.cluster)):
        founders += int((splits.cluster[some] == np.arange(some.start, some.stop)).sum())
    return {
        "judgments": tally.books.records_in,
        "judgments_repeated": tally.repeated,
        "judgments_delivered_twice": tally.redelivered,
        "pairs_distinct": len(catalogue.pairs.ids),
        "pairs_shown_in_both_orders": tally.shown_in_both_orders,
        "pairs_merged_into_another": int(fates.is_moved.sum()),
        "pairs": int(sides.sum()),
        "pairs_train": int(sides[TRAIN]),
        "pairs_held_out": int(sides[HELD_OUT]),
        "prompts": len(catalogue.prompts.ids),
        "prompt_clusters": founders,
        **{f"excluded_{name}": count for name, count in sorted(fates.counts().items())},
        **{f"found_by_{rule.name}": found[rule.name] for rule in RULES},
    }


def _facts(splits: Splits, settings: PreferenceSettings, scratch: Scratch) -> dict[str, Any]:
    sizes, count = scratch.empty(len(splits.cluster), np.int32), max(len(splits.side), 1)
    for some in slices(len(splits.cluster)):
        np.add.at(sizes, splits.cluster[some], 1)
    return {
        "held_out_share_of_prompts": round(float((splits.side == HELD_OUT).sum() / count), 4),
        "largest_cluster_share_of_prompts": round(float(sizes.max(initial=0) / count), 4),
        "rules": {rule.name: f"v{rule.version} {getattr(settings.rules, rule.name)}" for rule in RULES},
    }
