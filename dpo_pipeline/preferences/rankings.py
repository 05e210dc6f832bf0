"""Rankings of K responses to one prompt: how many there are, and whether their pairs fit into an order.

Shapes: P pairs, N verdicts, M prompts, I responses (numbered over all prompts).
"""

from typing import Any

import numpy as np

from dpo_pipeline.preferences import identifiers
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.verdicts import Verdicts

LEAST_RESPONSES = 3


def responses_of(catalogue: Catalogue) -> np.ndarray:
    """Numbers of the low and high response of each pair, the same for equal responses to one prompt, `(P, 2)`."""
    ids = np.concatenate([catalogue.pairs.column("low_id"), catalogue.pairs.column("high_id")])
    _, _, code = identifiers.unique(ids)
    key = (np.tile(catalogue.prompt, 2).astype(np.int64) << 32) | code
    return np.unique(key, return_inverse=True)[1].reshape(2, -1).T


def describe_rankings(items: np.ndarray, prompt: np.ndarray, verdicts: Verdicts) -> dict[str, Any]:
    """What the prompts with three or more responses look like.

    Args:
        items: Numbers of the low and high response of each pair, `(P, 2)`.
        prompt: The prompt of each pair, `(P,)`.
        verdicts: The judgments.

    Returns:
        `groups` (prompts with three or more responses), `sizes` (groups by K), `complete` (groups whose every pair is
        decided by the votes), `circular_share` (of the triples of responses in these, the share that goes in a circle:
        a over b over c over a; a quarter by chance; Kendall and Babington Smith 1940), `ordered_share` (complete groups
        without a circle), `ranked_by_several` (groups that two or more annotators ordered completely) and `kendall_w`
        (their mean coefficient of concordance; 1: the same order, 0: none).
    """
    group_of_item = np.zeros(int(items.max(initial=-1)) + 1, np.int64)
    group_of_item[items] = prompt[:, None]
    group_count = int(prompt.max(initial=-1)) + 1
    size = np.bincount(group_of_item, minlength=group_count)
    is_group = size >= LEAST_RESPONSES
    counted = verdicts.is_counted
    pair, side = verdicts.pair[counted], verdicts.side[counted].astype(np.int64)

    toward_low = np.sign(np.bincount(pair, weights=side * verdicts.votes[counted], minlength=len(items)))
    decided = np.flatnonzero(toward_low)
    wins = np.bincount(_winners(items, decided, toward_low[decided]), minlength=len(group_of_item))
    is_complete = is_group & (np.bincount(prompt[decided], minlength=group_count) == size * (size - 1) // 2)
    squares = np.bincount(group_of_item, weights=wins.astype(float) ** 2, minlength=group_count)
    circles = np.round(size * (size - 1) * (2 * size - 1) / 12 - squares / 2)[is_complete]
    triples = (size * (size - 1) * (size - 2) / 6)[is_complete]
    concordance = _concordance(items, prompt, verdicts, group_of_item, np.where(is_group, size, 0))
    sizes, counts = np.unique(size[is_group], return_counts=True)
    return {
        "groups": int(is_group.sum()),
        "sizes": {str(number): int(count) for number, count in zip(sizes, counts, strict=True)},
        "complete": int(is_complete.sum()),
        "circular_share": round(float(circles.sum() / triples.sum()), 4) if is_complete.any() else None,
        "ordered_share": round(float((circles == 0).mean()), 4) if is_complete.any() else None,
        "ranked_by_several": len(concordance),
        "kendall_w": round(float(concordance.mean()), 4) if len(concordance) else None,
    }


def _winners(items: np.ndarray, pairs: np.ndarray, toward_low: np.ndarray) -> np.ndarray:
    """The preferred response of some decided pairs."""
    return np.where(toward_low > 0, items[pairs, 0], items[pairs, 1])


def _concordance(
    items: np.ndarray, prompt: np.ndarray, verdicts: Verdicts, group_of_item: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Kendall's W of every group that two or more annotators ordered completely."""
    some = np.flatnonzero(verdicts.is_counted & (verdicts.annotator >= 0) & (verdicts.side != 0))
    some = some[size[prompt[verdicts.pair[some]]] > 0]
    pair, annotators = verdicts.pair[some], len(verdicts.annotators) + 1
    rater, raters = np.unique(
        prompt[pair].astype(np.int64) * annotators + verdicts.annotator[some], return_inverse=True
    )
    group = rater // annotators
    is_complete = np.bincount(raters, minlength=len(rater)) == size[group] * (size[group] - 1) // 2
    judges = np.bincount(group[is_complete], minlength=len(size))
    kept = is_complete[raters]
    winners = _winners(items, pair[kept], verdicts.side[some][kept])
    wins = np.bincount(winners, minlength=len(group_of_item)).astype(float)
    # Wins are ranks counted from the bottom: R_i sums them over the judges, and S is their spread within the group.
    mean = judges * (size - 1) / 2
    spread = np.bincount(group_of_item, weights=(wins - mean[group_of_item]) ** 2, minlength=len(size))
    several = judges >= 2
    return 12 * spread[several] / (judges[several] ** 2 * (size[several] ** 3 - size[several]))
