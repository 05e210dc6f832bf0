"""Near copies across the split, searched again in the published tables: for the report and, once more, for the gate."""

import json
from dataclasses import dataclass
from pathlib import Path

from dpo_pipeline.core.manifests import MANIFEST
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.preferences.golden import golden_leaks
from dpo_pipeline.preferences.leakage import near_leaks


@dataclass(frozen=True, slots=True)
class NearCopies:
    """What resembles each other on the two sides of a split.

    Attributes:
        jaccard: Similarity of word 2-grams from which two prompts are near copies.
        held_out: Ids of the held-out prompts that have a near copy among the trained ones.
        like_golden: Ids of the trained prompts that are near copies of golden ones.
    """

    jaccard: float
    held_out: frozenset[str]
    like_golden: tuple[str, ...]


def near_copies(pairs: Path, *, jaccard: float, reporter: Reporter | None = None) -> NearCopies:
    """Search the tables of a preference_pairs artifact folder; the clusters in them are not trusted.

    The reporter is told now and then how far a long search is.
    """
    held_out = frozenset(held_out for _, held_out, _ in near_leaks(pairs, jaccard=jaccard, reporter=reporter))
    return NearCopies(jaccard, held_out, tuple(golden_leaks(pairs, similarity=jaccard)))


def jaccard_of(pairs: Path) -> float | None:
    """The similarity from which a preference_pairs artifact took two prompts for near copies; None: it does not say."""
    try:
        settings = json.loads((pairs / MANIFEST).read_text(encoding="utf-8"))["settings"]
        return float(settings["preferences"]["prompt_cluster_jaccard"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
