"""The consensus of the settings over all drops, learnt in pieces and asked for a range of pairs at a time."""

from collections.abc import Callable, Iterator

import numpy as np

from dpo_pipeline.preferences import consensus
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.consensus import Consensus, Verdict
from dpo_pipeline.preferences.rankings import responses_of
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Verdicts

PAIRS_PER_PIECE = 1 << 17
"""Pairs whose verdicts are learnt from at a time. It decides in which order numbers are added: part of the code's
version, not a setting."""
OVERLAP = np.dtype([("pair", "<i4"), ("annotator", "<i4"), ("side", "i1"), ("strength", "i1"), ("votes", "<i4")])

AddUp = Callable[[int, Verdicts], Consensus]
"""From the first of a range of pairs, and all verdicts on the range, to the consensus on each pair."""


def consensus_of(catalogue: Catalogue, verdicts: VerdictFile, settings: PreferenceSettings) -> AddUp:
    """How verdicts add up to a consensus, by the method of the settings; ties and "both bad" prefer no side."""
    annotators = len(verdicts.annotators)
    if settings.consensus == "dawid_skene":
        confusion = consensus.learn_confusion(_overlaps(catalogue, verdicts), annotators)
        return lambda _, some: consensus.weigh(counted(some), some.pair_count, confusion)
    if settings.consensus == "bradley_terry":
        # The scores of a prompt's responses hang together: all verdicts are needed at once, some 60 bytes each.
        everything = verdicts.take(0, len(catalogue.pairs.ids))
        whole = consensus.bradley_terry(counted(everything), responses_of(catalogue), annotators)

        def look_up(start: int, some: Verdicts) -> Consensus:
            mine = slice(start, start + some.pair_count)
            return Consensus(whole.p_low[mine], whole.p_tie[mine], whole.reliability)

        return look_up
    method = {"majority": consensus.majority, "strength": consensus.strength}[settings.consensus]
    return lambda _, some: method(counted(some), some.pair_count, annotators)


def counted(verdicts: Verdicts) -> Verdict:
    """The verdicts that count."""
    return Verdict(*(getattr(verdicts, name)[verdicts.is_counted] for name in Verdict._fields))


def _overlaps(catalogue: Catalogue, verdicts: VerdictFile) -> Callable[[], Iterator[Verdict]]:
    """The verdicts on pairs that have several, in pieces."""
    file = catalogue.scratch.rows(OVERLAP)
    sizes = np.zeros(len(catalogue.pairs.ids) // PAIRS_PER_PIECE + 1, np.int64)
    for start, _, some in verdicts.slices():
        found = consensus.overlapping(counted(some))
        rows = np.zeros(len(found.pair), OVERLAP)
        for name, values in found._asdict().items():
            rows[name] = values
        rows["pair"] += start
        sizes += np.bincount(rows["pair"] // PAIRS_PER_PIECE, minlength=len(sizes))
        file.append(rows)
    ends = np.cumsum(sizes)

    def pieces() -> Iterator[Verdict]:
        for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True):
            rows = file.read(start, end)
            yield Verdict(*(np.ascontiguousarray(rows[name]) for name in Verdict._fields))

    return pieces
