"""The consensus of the settings over all drops, learnt in pieces and asked for a range of pairs at a time."""

from collections.abc import Callable, Iterator

import numpy as np

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences import consensus
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.comparisons import ByPrompt
from dpo_pipeline.preferences.consensus import Confusion, Consensus, Evidence, Verdict, evidence_of
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Verdicts

PAIRS_PER_PIECE = 1 << 17
"""Pairs whose verdicts are learnt from at a time. It decides in which order numbers are added: part of the code's
version, not a setting."""
OVERLAP = np.dtype([("pair", "<i4"), ("code", "<i4"), ("votes", "<i4")])

AddUp = Callable[[int, Verdicts], Consensus]
"""From the first of a range of pairs, and all verdicts on the range, to the consensus on each pair."""


def consensus_of(
    catalogue: Catalogue, verdicts: VerdictFile, settings: PreferenceSettings, reporter: Reporter
) -> AddUp:
    """How verdicts add up to a consensus, by the method of the settings; ties and "both bad" prefer no side."""
    annotators = len(verdicts.annotators)
    if settings.consensus == "dawid_skene":
        confusion = model_of(catalogue, verdicts, reporter)
        return lambda _, some: believed(some, confusion)
    if settings.consensus == "bradley_terry":
        scored = _scored(catalogue, verdicts)

        def look_up(start: int, some: Verdicts) -> Consensus:
            tie = consensus.majority(counted(some), some.pair_count, annotators).p_tie
            return Consensus(scored[start : start + some.pair_count], tie, np.full(annotators, np.nan))

        return look_up
    method = {"majority": consensus.majority, "strength": consensus.strength}[settings.consensus]
    return lambda _, some: method(counted(some), some.pair_count, annotators)


def model_of(catalogue: Catalogue, verdicts: VerdictFile, reporter: Reporter) -> Confusion:
    """The model of the annotators (Dawid and Skene), learnt from all pairs with several verdicts."""
    model = consensus.learn_confusion(
        _overlaps(catalogue, verdicts), len(verdicts.annotators), empty=catalogue.scratch.empty
    )
    if model.moved >= consensus.TOLERANCE:
        reporter.say(
            f"the model of the annotators has not settled: after {consensus.ITERATIONS} rounds the probability of a "
            f"pair still moved by {model.moved:.4f}"
        )
    return model


def believed(verdicts: Verdicts, confusion: Confusion) -> Consensus:
    """The consensus on a range of pairs by verdicts weighed as the model says."""
    evidence = evidence_of(_in_content_order(verdicts), len(verdicts.annotators))
    return consensus.weigh(evidence, verdicts.pair_count, confusion)


def _scored(catalogue: Catalogue, verdicts: VerdictFile) -> np.ndarray:
    """The probability that each pair's low response is better by the scores of its prompt's responses, `(P,)`."""
    p_low = catalogue.scratch.empty(len(catalogue.pairs.ids), np.float64)
    with ByPrompt(catalogue, least_pairs=1) as by_prompt:
        for start, _, some in verdicts.slices():
            by_prompt.add(start, _in_content_order(some))
        for pairs, prompt, items, own in by_prompt.ranges():
            p_low[pairs] = consensus.bradley_terry(own, items, prompt, len(verdicts.annotators)).p_low
    return p_low


def counted(verdicts: Verdicts) -> Verdict:
    """The verdicts that count."""
    return Verdict(*(getattr(verdicts, name)[verdicts.is_counted] for name in Verdict._fields))


def _in_content_order(verdicts: Verdicts) -> Verdict:
    """The verdicts that count, those on a pair by what they say.

    Their ids tell in which file and line they came, and the order of additions shows in the last bits of a sum.
    """
    some = counted(verdicts)
    several = np.flatnonzero(np.bincount(some.pair, minlength=1)[some.pair] > 1)
    ordered = several[np.lexsort([column[several] for column in some[::-1]])]
    order = np.arange(len(some.pair))
    order[several] = ordered
    return Verdict(*(column[order] for column in some))


def _overlaps(catalogue: Catalogue, verdicts: VerdictFile) -> Callable[[], Iterator[Evidence]]:
    """The verdicts on pairs that have several, in pieces."""
    file, pair_count = catalogue.scratch.rows(OVERLAP), 0
    sizes = np.zeros(len(catalogue.pairs.ids) // PAIRS_PER_PIECE + 1, np.int64)
    for start, _, some in verdicts.slices():
        evidence = evidence_of(_in_content_order(some), len(verdicts.annotators))
        several = np.bincount(evidence.pair, minlength=1)[evidence.pair] > 1
        sizes += np.bincount((start + evidence.pair[several]) // PAIRS_PER_PIECE, minlength=len(sizes))
        found = evidence.only(several)
        rows = np.zeros(len(found.pair), OVERLAP)
        rows["pair"], rows["code"], rows["votes"] = pair_count + found.pair, found.code, found.votes
        pair_count += int(found.pair.max(initial=-1)) + 1
        file.append(rows)
    ends = np.cumsum(sizes)

    def pieces() -> Iterator[Evidence]:
        for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True):
            rows = file.read(start, end)
            # As the sums take them, which would otherwise convert them every time.
            pair, code, votes = (rows[name].astype(kind) for name, kind in zip(OVERLAP.names or (), "qqd", strict=True))
            yield Evidence(pair - pair[:1], code, votes)

    return pieces
